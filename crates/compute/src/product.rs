//! Matrix products with one promise: element (i, j) of C is the chain `c ← fma(a[i,k], b[k,j], c)` over k = 0, 1, 2, …,
//! starting from zero or from what C held. Nothing else decides its bits: not the instruction set, not the blocking, not
//! how many rows or columns stand beside it. So training and inference, prefill and decoding, one thread and many, this
//! machine and another agree to the last bit, without a special "deterministic mode".
//!
//! The price is none: vector lanes run over columns of C, never over k. Large products go by blocks, both sides packed
//! (`blocked`). In small ones a tile of 6 × 64 accumulators fills the 24 of 32 registers that the two FMA units of an
//! AVX-512 core need; B is packed into panels of 64 columns by 128 rows (32 KiB, inside the L1 cache), A is read in place
//! by broadcasts. `examples/product_speed.rs` measures it.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocked;
mod grouped;
mod packed;
mod portable;

pub use grouped::{Product, multiply_all};
pub use packed::{PackedMatrix, PackedPanelMut, multiply_packed, multiply_packed_on, multiply_packed_panels};

use crate::path::{CpuPath, vectorised};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Columns of one packed panel.
pub const PANEL_COLUMNS: usize = 64;
/// Rows of B that are packed at a time: 128 · 64 floats are 32 KiB. Without effect on the bits.
const PANEL_ROWS: usize = 128;
/// Bytes that each thread of a product takes for a panel that it packs itself.
pub const PANEL_BYTES: usize = PANEL_ROWS * PANEL_COLUMNS * size_of::<f32>();
/// Rows of A that are taken at a time: 1024 · 128 floats are 512 KiB, a quarter of an L2 cache. Without effect on the bits.
const BLOCK_ROWS: usize = 1024;
/// A transposed A whose lines lie further apart than this many floats is packed too, if enough columns of B share the cost.
const STRIDE_WORTH_PACKING: usize = 512;
const COLUMNS_WORTH_PACKING: usize = 256;
/// A product of fewer multiplications than this (some 30 µs) stays on one thread.
const WORK_WORTH_THREADS: usize = 2 << 20;
/// With fewer rows of A than this, packing B costs more than it gains.
const ROWS_WORTH_PACKING: usize = 16;

/// A matrix that is read: any strides, so that a transposed view costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct MatrixRef<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> MatrixRef<'a> {
    /// Row after row without gaps.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that begin `row_stride` elements apart.
    ///
    /// # Panics
    /// When `data` is too short for the shape.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            fits(data.len(), rows, columns, row_stride),
            "{rows}×{columns} (stride {row_stride}) does not fit {} floats",
            data.len()
        );
        MatrixRef { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The same elements with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        MatrixRef {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix that is written; its columns are contiguous.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// Row after row without gaps.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// Rows that begin `row_stride` elements apart.
    ///
    /// # Panics
    /// When `data` is too short for the shape, or the rows overlap.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(row_stride >= columns, "rows of {columns} floats overlap at stride {row_stride}");
        assert!(
            fits(data.len(), rows, columns, row_stride),
            "{rows}×{columns} (stride {row_stride}) does not fit {} floats",
            data.len()
        );
        MatrixMut { data, rows, columns, row_stride }
    }
}

/// C while it is written, in parts that may belong to several threads.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pointer: *mut f32,
    rows: usize,
    columns: usize,
    row_stride: usize,
}

// SAFETY: whoever writes through a target promises that its part is nobody else's.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    pub(crate) fn new(c: MatrixMut) -> Target {
        let MatrixMut { data, rows, columns, row_stride } = c;
        Target { pointer: data.as_mut_ptr(), rows, columns, row_stride }
    }

    /// Some rows and columns.
    fn part(self, row: usize, rows: usize, column: usize, columns: usize) -> Target {
        assert!(row + rows <= self.rows && column + columns <= self.columns, "a part of C");
        Target { pointer: self.pointer.wrapping_add(row * self.row_stride + column), rows, columns, ..self }
    }

    /// Where a row's columns from `column` on begin.
    pub(crate) fn at(self, row: usize, column: usize) -> *mut f32 {
        debug_assert!(row < self.rows && column < self.columns, "a place in C");
        self.pointer.wrapping_add(row * self.row_stride + column)
    }
}

impl<'a> MatrixRef<'a> {
    /// Some rows and columns.
    fn part(self, row: usize, rows: usize, column: usize, columns: usize) -> MatrixRef<'a> {
        assert!(row + rows <= self.rows && column + columns <= self.columns, "a part of a matrix");
        let first = (row * self.row_stride + column * self.column_stride).min(self.data.len());
        MatrixRef { data: &self.data[first..], rows, columns, ..self }
    }

    /// Some rows and columns of A, in place.
    fn block(&self, row: usize, rows: usize, column: usize, depth: usize) -> Block<'a> {
        let (row_stride, column_stride) = (self.row_stride, self.column_stride);
        Block {
            data: &self.data[row * row_stride + column * column_stride..],
            rows,
            depth,
            row_stride,
            column_stride,
            strip_stride: None,
        }
    }
}

/// A part of A, in place or packed into strips of a tile's rows.
#[derive(Clone, Copy)]
struct Block<'a> {
    data: &'a [f32],
    rows: usize,
    depth: usize,
    row_stride: usize,
    column_stride: usize,
    /// Distance of two strips, where they are packed.
    strip_stride: Option<usize>,
}

fn fits(length: usize, rows: usize, columns: usize, row_stride: usize) -> bool {
    rows == 0
        || columns == 0
        || (rows - 1)
            .checked_mul(row_stride)
            .and_then(|last| last.checked_add(columns))
            .is_some_and(|needed| needed <= length)
}

/// Where an element's chain starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// C ← A·B
    Zero,
    /// C ← C + A·B; the chain goes on from what C holds.
    Continue,
}

/// C ← A·B, or C + A·B.
///
/// # Panics
/// When the shapes do not match.
pub fn multiply(a: MatrixRef, b: MatrixRef, c: MatrixMut, start: Start) {
    assert_eq!((a.rows, b.columns, a.columns), (c.rows, c.columns, b.rows), "shapes of a product");
    if clear_empty(&a, &c, start) {
        c.data.fill(0.0);
    }
    let path = CpuPath::current();
    // SAFETY: C is borrowed mutably for the whole call.
    unsafe {
        if worth_blocking(&a, &b) {
            blocked::multiply(path, 1, a, b, Target::new(c), start);
        } else {
            multiply_target(path, a, b, Target::new(c), start);
        }
    }
}

/// [`multiply`] on up to `threads` threads of the rayon pool that it is called in, with the same bits. Small products
/// stay on the calling thread.
///
/// # Panics
/// When the shapes do not match.
pub fn multiply_parallel(threads: usize, a: MatrixRef, b: MatrixRef, c: MatrixMut, start: Start) {
    let work = a.rows.saturating_mul(b.columns).saturating_mul(b.rows);
    if threads <= 1 || work < WORK_WORTH_THREADS {
        return multiply(a, b, c, start);
    }
    assert_eq!((a.rows, b.columns, a.columns), (c.rows, c.columns, b.rows), "shapes of a product");
    let path = CpuPath::current();
    if worth_blocking(&a, &b) {
        // SAFETY: C is borrowed mutably for the whole call.
        return unsafe { blocked::multiply(path, threads, a, b, Target::new(c), start) };
    }
    let (row_step, column_step) = grid(a.rows, b.columns, threads);
    let (across, down) = (b.columns.div_ceil(column_step), a.rows.div_ceil(row_step));
    let target = Target::new(c);
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= across * down {
                return;
            }
            let (row, column) = (block % down * row_step, block / down * column_step);
            let (rows, columns) = (row_step.min(a.rows - row), column_step.min(b.columns - column));
            let (left, right) = (a.part(row, rows, 0, a.columns), b.part(0, b.rows, column, columns));
            // SAFETY: C is borrowed mutably for the whole call, and each block is taken once.
            unsafe {
                multiply_target(path, left, right, target.part(row, rows, column, columns), start);
            }
        }
    };
    rayon::scope(|scope| {
        for _ in 1..threads.min(across * down) {
            scope.spawn(|_| work());
        }
        work();
    });
}

/// Whether a product is large enough for the packing of both sides.
fn worth_blocking(a: &MatrixRef, b: &MatrixRef) -> bool {
    a.rows >= 96 && b.columns >= 256 && b.rows >= 96
}

/// Rows and columns of the blocks that threads take in turn: large, so that little of B is packed twice, and enough of
/// them that no thread waits long for another at the end.
fn grid(rows: usize, columns: usize, threads: usize) -> (usize, usize) {
    let blocks = 4 * threads;
    let row_step = rows.div_ceil(rows.div_ceil(512)).next_multiple_of(12);
    let across = blocks.div_ceil(rows.div_ceil(row_step));
    let column_step = columns.div_ceil(across).next_multiple_of(PANEL_COLUMNS);
    (row_step, column_step)
}

/// # Safety
/// The shapes match; nobody else touches what `c` covers.
unsafe fn multiply_target(path: CpuPath, a: MatrixRef, b: MatrixRef, c: Target, start: Start) {
    let direct = b.column_stride == 1 && a.rows < ROWS_WORTH_PACKING;
    let packs_a =
        a.row_stride == 1 && a.column_stride >= STRIDE_WORTH_PACKING && b.columns >= COLUMNS_WORTH_PACKING;
    PANELS.with_borrow_mut(|(panel, lines)| {
        for first in (0..a.rows).step_by(BLOCK_ROWS) {
            for row in (0..b.rows).step_by(PANEL_ROWS) {
                let depth = PANEL_ROWS.min(b.rows - row);
                let start = if row == 0 { start } else { Start::Continue };
                let mut block = a.block(first, BLOCK_ROWS.min(a.rows - first), row, depth);
                if packs_a {
                    block = pack_lines(path, &block, lines);
                }
                for column in (0..b.columns).step_by(PANEL_COLUMNS) {
                    let columns = PANEL_COLUMNS.min(b.columns - column);
                    // SAFETY: the views were checked against their slices when they were made; the block lies inside B.
                    unsafe {
                        let (pointer, stride) = if direct {
                            (b.data.as_ptr().add(row * b.row_stride + column), b.row_stride)
                        } else {
                            pack(path, &b, row, depth, column, columns, PANEL_COLUMNS, &mut panel.0);
                            (panel.0.as_ptr(), PANEL_COLUMNS)
                        };
                        run_panel(path, &block, pointer, stride, &c, first, column, columns, start);
                    }
                }
            }
        }
    });
}

/// Whether C must be set to zero because the chains have no link.
fn clear_empty(a: &MatrixRef, c: &MatrixMut, start: Start) -> bool {
    a.columns == 0 && start == Start::Zero && c.rows * c.columns > 0
}

#[repr(C, align(64))]
struct Panel([f32; PANEL_ROWS * PANEL_COLUMNS]);

thread_local! {
    /// A panel of B, and strips of A; the second is empty until a product is worth it.
    static PANELS: RefCell<(Box<Panel>, Vec<f32>)> = RefCell::new((Box::new(Panel([0.0; PANEL_ROWS * PANEL_COLUMNS])), Vec::new()));
}

/// A column of tiles of C: `rows` × `columns` chains over `depth` links, in strips of the path's tile rows.
struct Column {
    depth: usize,
    a: *const f32,
    a_row_stride: usize,
    a_column_stride: usize,
    /// From one strip of A to the next.
    a_strip_stride: usize,
    b: *const f32,
    b_row_stride: usize,
    c: *mut f32,
    c_row_stride: usize,
    rows: usize,
    /// At most the path's tile columns.
    columns: usize,
    start: Start,
}

impl Column {
    /// Where row `row`, the first of a strip of `strip_rows`, begins in A and in C.
    ///
    /// # Safety
    /// There is such a row.
    #[inline(always)]
    unsafe fn strip(&self, row: usize, strip_rows: usize) -> (*const f32, *mut f32) {
        // SAFETY: passed on.
        unsafe { (self.a.add(row / strip_rows * self.a_strip_stride), self.c.add(row * self.c_row_stride)) }
    }
}

fn tile_shape(path: CpuPath) -> (usize, usize) {
    match path {
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx512 => (avx512::TILE_ROWS, avx512::TILE_COLUMNS),
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx2 => (avx2::TILE_ROWS, avx2::TILE_COLUMNS),
        _ => (portable::TILE_ROWS, portable::TILE_COLUMNS),
    }
}

/// All rows of a block of A against one panel of B.
///
/// # Safety
/// `b` points to `block.depth` rows of `columns` floats, `b_stride` apart; C has `block.rows` rows from `c_row` on, and
/// `columns` columns from `c_column` on.
#[allow(clippy::too_many_arguments)]
unsafe fn run_panel(
    path: CpuPath,
    block: &Block,
    b: *const f32,
    b_stride: usize,
    c: &Target,
    c_row: usize,
    c_column: usize,
    columns: usize,
    start: Start,
) {
    let (tile_rows, tile_columns) = tile_shape(path);
    let a_strip_stride = block.strip_stride.unwrap_or(tile_rows * block.row_stride);
    for column in (0..columns).step_by(tile_columns) {
        // SAFETY: every offset lies inside its view; C is borrowed mutably by the caller for the whole call.
        unsafe {
            let tiles = Column {
                depth: block.depth,
                a: block.data.as_ptr(),
                a_row_stride: block.row_stride,
                a_column_stride: block.column_stride,
                a_strip_stride,
                b: b.add(column),
                b_row_stride: b_stride,
                c: c.pointer.add(c_row * c.row_stride + c_column + column),
                c_row_stride: c.row_stride,
                rows: block.rows,
                columns: tile_columns.min(columns - column),
                start,
            };
            run_column(path, &tiles);
        }
    }
}

/// # Safety
/// The pointers are valid for the shape; `path` is one that this processor has.
unsafe fn run_column(path: CpuPath, tiles: &Column) {
    // SAFETY: passed on.
    unsafe {
        match path {
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx512 => avx512::run(tiles),
            #[cfg(target_arch = "x86_64")]
            CpuPath::Avx2 => avx2::run(tiles),
            _ => portable::run(tiles),
        }
    }
}

/// Copies a block of a transposed A into strips, so that a tile reads one line after another instead of one page after
/// another.
fn pack_lines<'l>(path: CpuPath, block: &Block, lines: &'l mut Vec<f32>) -> Block<'l> {
    let (tile_rows, _) = tile_shape(path);
    let strip_stride = tile_rows * block.depth;
    let length = block.rows.div_ceil(tile_rows) * strip_stride;
    if lines.len() < length {
        lines.resize(length, 0.0);
    }
    for k in 0..block.depth {
        let line = &block.data[k * block.column_stride..][..block.rows];
        for (strip, rows) in line.chunks(tile_rows).enumerate() {
            lines[strip * strip_stride + k * tile_rows..][..rows.len()].copy_from_slice(rows);
        }
    }
    let lines = &lines[..length];
    Block { data: lines, row_stride: 1, column_stride: tile_rows, strip_stride: Some(strip_stride), ..*block }
}

/// Copies a block of B into a panel of rows of `width`; columns beyond the block's keep what was there, and no tile reads them.
///
/// # Safety
/// The block lies inside B; `path` is one that this processor has.
#[allow(clippy::too_many_arguments)]
unsafe fn pack(
    path: CpuPath,
    b: &MatrixRef,
    row: usize,
    rows: usize,
    column: usize,
    columns: usize,
    width: usize,
    target: &mut [f32],
) {
    let target = &mut target[..rows * width];
    let source = row * b.row_stride + column * b.column_stride;
    if b.column_stride == 1 {
        pack_rows(&b.data[source..], b.row_stride, columns, width, target);
        return;
    }
    // SAFETY: the block lies inside B, and whole squares of 16 × 16 inside the target.
    let packed = if b.row_stride == 1 {
        unsafe { pack_squares(path, &b.data[source..], b.column_stride, rows, columns, width, target) }
    } else {
        0
    };
    // What the vector code leaves: the last rows below a multiple of 16, and the last columns.
    let whole_columns = if packed == 0 { 0 } else { columns / 16 * 16 };
    for j in 0..columns {
        let first = if j < whole_columns { packed } else { 0 };
        let from = source + j * b.column_stride;
        for i in first..rows {
            target[i * width + j] = b.data[from + i * b.row_stride];
        }
    }
}

/// Transposes what the path has vector code for; returns how many rows are done.
///
/// # Safety
/// As [`pack`], for a block whose columns are contiguous.
#[cfg(target_arch = "x86_64")]
unsafe fn pack_squares(
    path: CpuPath,
    source: &[f32],
    column_stride: usize,
    rows: usize,
    columns: usize,
    width: usize,
    target: &mut [f32],
) -> usize {
    match path {
        // SAFETY: passed on.
        CpuPath::Avx512 => unsafe {
            avx512::pack_transposed(source, column_stride, rows, columns, width, target)
        },
        _ => 0,
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn pack_squares(
    _: CpuPath,
    _: &[f32],
    _: usize,
    _: usize,
    _: usize,
    _: usize,
    _: &mut [f32],
) -> usize {
    0
}

vectorised! {
    /// Copies rows of up to 64 elements, 16 at a time: a call of `memcpy` for each would cost more than the copying.
    fn pack_rows(source: &[f32], stride: usize, columns: usize, width: usize, target: &mut [f32]) {
        for (i, line) in target.chunks_exact_mut(width).enumerate() {
            let row = &source[i * stride..][..columns];
            let (whole, rest) = row.as_chunks::<16>();
            for (to, from) in line.as_chunks_mut::<16>().0.iter_mut().zip(whole) {
                *to = *from;
            }
            line[whole.len() * 16..][..rest.len()].copy_from_slice(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::with_path;
    use crate::random;

    /// The scalar twin.
    fn chain(a: &MatrixRef, b: &MatrixRef, c: &[f32], start: Start) -> Vec<f32> {
        let mut result = Vec::new();
        for i in 0..a.rows {
            for j in 0..b.columns {
                let mut sum = if start == Start::Zero { 0.0 } else { c[i * b.columns + j] };
                for k in 0..a.columns {
                    sum = a.data[i * a.row_stride + k * a.column_stride]
                        .mul_add(b.data[k * b.row_stride + j * b.column_stride], sum);
                }
                result.push(sum);
            }
        }
        result
    }

    fn random(seed: u64, length: usize) -> Vec<f32> {
        (0..length).map(|i| random::normal(seed, i as u64) as f32).collect()
    }

    #[test]
    fn every_path_and_layout_gives_the_bits_of_the_chain() {
        for (m, n, k) in [
            (1, 1, 1),
            (1, 64, 128),
            (2, 65, 17),
            (7, 100, 33),
            (48, 32, 130),
            (13, 16, 0),
            (20, 191, 257),
            (520, 257, 5),
            (1030, 3, 2),
            (6, 64, 300),
            (109, 301, 120),
            (96, 530, 531),
            (200, 256, 1030),
            (300, 70, 700),
        ] {
            let (left, right, before) = (random(1, m * k), random(2, k * n), random(3, m * n));
            for (a_transposed, b_transposed) in [(false, false), (false, true), (true, false), (true, true)] {
                let a = if a_transposed {
                    MatrixRef::new(&left, k, m).transposed()
                } else {
                    MatrixRef::new(&left, m, k)
                };
                let b = if b_transposed {
                    MatrixRef::new(&right, n, k).transposed()
                } else {
                    MatrixRef::new(&right, k, n)
                };
                for start in [Start::Zero, Start::Continue] {
                    let expected = chain(&a, &b, &before, start);
                    for path in CpuPath::available() {
                        with_path(path, || {
                            let mut c = before.clone();
                            multiply(a, b, MatrixMut::new(&mut c, m, n), start);
                            assert_eq!(
                                c, expected,
                                "{path:?} {m}×{n}×{k} {a_transposed} {b_transposed} {start:?}"
                            );
                            let mut c = before.clone();
                            multiply_packed(a, &PackedMatrix::new(b), MatrixMut::new(&mut c, m, n), start);
                            assert_eq!(c, expected, "packed, {path:?} {m}×{n}×{k}");
                        });
                    }
                }
            }
        }
    }

    #[test]
    fn strided_rows_leave_the_gaps_alone() {
        let (m, n, k) = (9, 40, 21);
        let left = random(1, m * 50);
        let right = random(2, k * 70);
        let mut c = vec![7.0; m * 90];
        let a = MatrixRef::strided(&left, m, k, 50);
        let b = MatrixRef::strided(&right, k, n, 70);
        let expected = chain(&a, &b, &[], Start::Zero);
        multiply(a, b, MatrixMut::strided(&mut c, m, n, 90), Start::Zero);
        for i in 0..m {
            assert_eq!(c[i * 90..i * 90 + n], expected[i * n..(i + 1) * n]);
            assert!(c[i * 90 + n..(i + 1) * 90].iter().all(|&v| v == 7.0));
        }
    }

    #[test]
    fn threads_do_not_change_the_bits() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        for (m, n, k) in [
            (5, 7, 3),
            (300, 200, 100),
            (1, 40_000, 70),
            (700, 65, 300),
            (1111, 33, 129),
            (40, 5, 0),
            (250, 1100, 530),
            (1300, 257, 97),
        ] {
            let (left, right, before) = (random(1, m * k), random(2, k * n), random(3, m * (n + 9)));
            for (a, b) in [
                (MatrixRef::new(&left, m, k), MatrixRef::new(&right, n, k).transposed()),
                (MatrixRef::new(&left, k, m).transposed(), MatrixRef::new(&right, k, n)),
            ] {
                for start in [Start::Zero, Start::Continue] {
                    let mut expected = before.clone();
                    multiply(a, b, MatrixMut::strided(&mut expected, m, n, n + 9), start);
                    for threads in [1, 2, 3, 7] {
                        let mut c = before.clone();
                        pool.install(|| {
                            multiply_parallel(threads, a, b, MatrixMut::strided(&mut c, m, n, n + 9), start)
                        });
                        assert_eq!(c, expected, "{m}×{n}×{k} {start:?} on {threads}");
                    }
                }
            }
        }
    }

    #[test]
    fn panels_can_be_computed_apart() {
        let (m, n, k) = (5, 150, 40);
        let (left, right) = (random(1, m * k), random(2, k * n));
        let a = MatrixRef::new(&left, m, k);
        let packed = PackedMatrix::new(MatrixRef::new(&right, k, n));
        let mut whole = vec![0.0; m * n];
        multiply_packed(a, &packed, MatrixMut::new(&mut whole, m, n), Start::Zero);
        let mut part = vec![0.0; m * 86];
        multiply_packed_panels(a, &packed, 1..3, MatrixMut::new(&mut part, m, 86), Start::Zero);
        for i in 0..m {
            assert_eq!(part[i * 86..(i + 1) * 86], whole[i * n + 64..(i + 1) * n]);
        }
    }
}
