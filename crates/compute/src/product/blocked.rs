//! Large products, cut as in BLIS (Van Zee and van de Geijn, doi 10.1145/2764454): a block of B is packed into panels as wide
//! as a tile and stays in the L2 cache; strips of A, as high as a tile and packed too, stay in L1 while the panels pass.
//! Threads share the packing of a block, then take strips in turn, more at first and few towards the end.

use super::{Column, MatrixRef, Start, Target, pack, tile_shape};
use crate::path::CpuPath;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Links of the chains between two visits to C: 512 rows of a panel are 64 KiB. Without effect on the bits.
const BLOCK_DEPTH: usize = 512;
/// Columns of a block of B: 512 · 512 floats are 1 MiB, half an L2 cache. Without effect on the bits.
const BLOCK_COLUMNS: usize = 512;
/// Rows of A that a thread takes at most: whole lines of the cache, where A is transposed.
const MOST_ROWS: usize = 96;
/// Panels that a thread packs at once at most.
const MOST_PANELS: usize = 4;
/// Rows of A that begin at most so far apart are read in place; beyond, they would meet in the same lines of the cache.
const FARTHEST_IN_PLACE: usize = 4096;
/// Floats that a packed strip may be overwritten beyond its end.
pub const SLACK: usize = 16;

/// A part of B that is packed at once, and its place in the course of the product.
struct Phase {
    column: usize,
    columns: usize,
    row: usize,
    depth: usize,
}

/// How far a phase has come.
#[derive(Default)]
struct Progress {
    /// Panels taken to be packed, panels packed; rows taken, rows done.
    pack_next: AtomicUsize,
    packed: AtomicUsize,
    row_next: AtomicUsize,
    done: AtomicUsize,
}

/// Where threads put the packed panels, each its own.
#[derive(Clone, Copy)]
struct Buffer(*mut f32, usize);

// SAFETY: a panel is written by the one thread that took it, and read once it is counted as packed.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

thread_local! {
    /// Two blocks of B, and strips of A.
    static BLOCKS: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Equal parts of at most `most`, in multiples of `unit`.
pub fn even_step(length: usize, most: usize, unit: usize) -> usize {
    length.div_ceil(length.div_ceil(most)).next_multiple_of(unit)
}

/// # Safety
/// The shapes match, none is zero; nobody else touches what `c` covers.
pub unsafe fn multiply(path: CpuPath, threads: usize, a: MatrixRef, b: MatrixRef, c: Target, start: Start) {
    let (tile_rows, tile_columns) = blocked_shape(path);
    let (depth_step, column_step) =
        (even_step(b.rows, BLOCK_DEPTH, 16), even_step(b.columns, BLOCK_COLUMNS, tile_columns));
    let phases: Vec<Phase> = (0..b.rows)
        .step_by(depth_step)
        .flat_map(|row| (0..b.columns).step_by(column_step).map(move |column| (row, column)))
        .map(|(row, column)| Phase {
            column,
            columns: column_step.min(b.columns - column),
            row,
            depth: depth_step.min(b.rows - row),
        })
        .collect();
    let progress: Vec<Progress> = phases.iter().map(|_| Progress::default()).collect();

    let length = depth_step * column_step + SLACK;
    let mut shared = BLOCKS.with_borrow_mut(|(blocks, _)| std::mem::take(blocks));
    if shared.len() < 2 * length {
        shared = vec![0.0; 2 * length];
    }
    let aligned = shared.as_ptr().align_offset(64);
    let buffer = Buffer(shared[aligned.min(SLACK)..].as_mut_ptr(), depth_step * column_step);

    let in_place = reads_in_place(path, &a);
    let work = || {
        let mut strips = BLOCKS.with_borrow_mut(|(_, strips)| std::mem::take(strips));
        let needed = MOST_ROWS.next_multiple_of(tile_rows) * depth_step + 2 * SLACK;
        if strips.len() < needed {
            strips = vec![0.0; needed];
        }
        let aligned = strips.as_ptr().align_offset(64).min(SLACK);
        for (i, phase) in phases.iter().enumerate() {
            if i >= 2 {
                wait_for(&progress[i - 2].done, a.rows);
            }
            // SAFETY: the buffer holds two blocks; the one before the last phase's is free again.
            let block = unsafe { buffer.block(i % 2) };
            let panels = phase.columns.div_ceil(tile_columns);
            let unit = panels.div_ceil(2 * threads).min(MOST_PANELS);
            loop {
                let panel = progress[i].pack_next.fetch_add(unit, Ordering::Relaxed);
                if panel >= panels {
                    break;
                }
                let here = unit.min(panels - panel);
                // SAFETY: the panels lie inside the buffer, and this thread has taken them.
                unsafe {
                    let length = phase.depth * tile_columns;
                    let target = std::slice::from_raw_parts_mut(block.add(panel * length), here * length);
                    pack_panels(path, &b, phase, panel * tile_columns, tile_columns, target);
                }
                progress[i].packed.fetch_add(here, Ordering::Release);
            }
            wait_for(&progress[i].packed, panels);
            if i >= 1 {
                wait_for(&progress[i - 1].done, a.rows);
            }
            let start = if phase.row == 0 { start } else { Start::Continue };
            while let Some((row, rows)) = take_rows(&progress[i].row_next, a.rows, tile_rows, threads) {
                let lines = &mut strips[aligned..];
                let whole = if in_place { rows / 4 * 4 } else { 0 };
                let panels = Panels { data: block, width: tile_columns, stride: tile_columns * phase.depth };
                let c = c.part(row, rows, phase.column, phase.columns);
                // SAFETY: the rows are this thread's alone until they are counted as done.
                unsafe {
                    if whole > 0 {
                        let strips = Strips::in_place(&a, row, phase.row, tile_rows);
                        let c = c.part(0, whole, 0, phase.columns);
                        run_strips(path, phase.depth, &strips, &panels, &c, start);
                    }
                    if whole < rows {
                        let (first, rows) = (row + whole, rows - whole);
                        pack_strips(path, &a, first, rows, phase.row, phase.depth, tile_rows, lines);
                        let strips = Strips::packed(lines, phase.depth, tile_rows);
                        let c = c.part(whole, rows, 0, phase.columns);
                        run_strips(path, phase.depth, &strips, &panels, &c, start);
                    }
                }
                progress[i].done.fetch_add(rows, Ordering::Release);
            }
        }
        BLOCKS.with_borrow_mut(|(_, kept)| *kept = strips);
    };
    let threads = threads.min(a.rows.div_ceil(tile_rows));
    if threads <= 1 {
        work();
    } else {
        rayon::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| work());
            }
            work();
        });
    }
    BLOCKS.with_borrow_mut(|(kept, _)| *kept = shared);
}

impl Buffer {
    /// # Safety
    /// The buffer holds as many blocks.
    unsafe fn block(self, index: usize) -> *mut f32 {
        // SAFETY: passed on.
        unsafe { self.0.add(index * self.1) }
    }
}

/// Whoever has taken something is at work on it, so the wait is short, unless the system has stopped that thread.
fn wait_for(counter: &AtomicUsize, goal: usize) {
    let mut spins = 0;
    while counter.load(Ordering::Acquire) < goal {
        spins += 1;
        if spins < 1000 {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// The next rows for one thread: a share of the rest, in whole tiles.
fn take_rows(next: &AtomicUsize, rows: usize, tile_rows: usize, threads: usize) -> Option<(usize, usize)> {
    let most = MOST_ROWS / tile_rows;
    let mut first = next.load(Ordering::Relaxed);
    loop {
        if first >= rows {
            return None;
        }
        let share = (rows - first).div_ceil(tile_rows).div_ceil(2 * threads).clamp(1, most);
        let taken = (if threads == 1 { most } else { share } * tile_rows).min(rows - first);
        match next.compare_exchange_weak(first, first + taken, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some((first, taken)),
            Err(now) => first = now,
        }
    }
}

/// The tile of large products.
pub fn blocked_shape(path: CpuPath) -> (usize, usize) {
    match path {
        #[cfg(target_arch = "x86_64")]
        CpuPath::Avx512 => (super::avx512::PACKED_ROWS, super::avx512::PACKED_COLUMNS),
        _ => tile_shape(path),
    }
}

/// Copies columns of a phase's part of B, from `first` on, into as many panels as `target` holds.
fn pack_panels(
    path: CpuPath,
    b: &MatrixRef,
    phase: &Phase,
    first: usize,
    tile_columns: usize,
    target: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    if path == CpuPath::Avx512 && b.column_stride == 1 {
        let length = phase.depth * tile_columns;
        let whole = ((phase.columns - first) / tile_columns).min(target.len() / length);
        let source = &b.data[phase.row * b.row_stride + phase.column + first..];
        // SAFETY: the processor has AVX-512.
        unsafe { super::avx512::pack_panels_of_rows(source, b.row_stride, phase.depth, whole, target) };
        if whole * length < target.len() {
            let first = first + whole * tile_columns;
            pack_panels_apart(path, b, phase, first, tile_columns, &mut target[whole * length..]);
        }
        return;
    }
    pack_panels_apart(path, b, phase, first, tile_columns, target);
}

/// [`pack_panels`], one panel after another.
fn pack_panels_apart(
    path: CpuPath,
    b: &MatrixRef,
    phase: &Phase,
    first: usize,
    tile_columns: usize,
    target: &mut [f32],
) {
    for (panel, target) in target.chunks_exact_mut(phase.depth * tile_columns).enumerate() {
        let column = first + panel * tile_columns;
        let columns = tile_columns.min(phase.columns - column);
        // SAFETY: the block lies inside B.
        unsafe {
            pack(path, b, phase.row, phase.depth, phase.column + column, columns, tile_columns, target)
        };
    }
}

/// Copies rows of A into strips: `tile_rows` elements of one column behind another; the last strip is filled with zeros.
#[allow(clippy::too_many_arguments)]
pub fn pack_strips(
    path: CpuPath,
    a: &MatrixRef,
    row: usize,
    rows: usize,
    column: usize,
    depth: usize,
    tile_rows: usize,
    target: &mut [f32],
) {
    let source = &a.data[row * a.row_stride + column * a.column_stride..];
    #[cfg(target_arch = "x86_64")]
    if path == CpuPath::Avx512 && (a.row_stride == 1 || a.column_stride == 1) {
        // SAFETY: the processor has AVX-512.
        unsafe {
            if a.row_stride == 1 {
                super::avx512::pack_strips_of_lines(source, a.column_stride, rows, depth, target);
            } else {
                super::avx512::pack_strips_of_rows(source, a.row_stride, rows, depth, target);
            }
        }
        return;
    }
    let _ = path;
    for (strip, first) in (0..rows).step_by(tile_rows).enumerate() {
        let here = tile_rows.min(rows - first);
        let target = &mut target[strip * tile_rows * depth..][..tile_rows * depth];
        for (k, line) in target.chunks_exact_mut(tile_rows).enumerate() {
            for (r, to) in line.iter_mut().enumerate() {
                let from = (first + r) * a.row_stride + k * a.column_stride;
                *to = if r < here { source[from] } else { 0.0 };
            }
        }
    }
}

/// Whether tiles read A where it stands, whole fours of its rows.
pub fn reads_in_place(path: CpuPath, a: &MatrixRef) -> bool {
    path == CpuPath::Avx512 && a.column_stride == 1 && a.row_stride <= FARTHEST_IN_PLACE
}

/// Strips of A, packed or in place.
pub struct Strips {
    data: *const f32,
    row_stride: usize,
    column_stride: usize,
    strip_stride: usize,
}

impl Strips {
    /// The rows of `a` from `row` on, without its columns before `column`.
    pub fn in_place(a: &MatrixRef, row: usize, column: usize, tile_rows: usize) -> Strips {
        Strips {
            data: a.data[row * a.row_stride + column..].as_ptr(),
            row_stride: a.row_stride,
            column_stride: 1,
            strip_stride: tile_rows * a.row_stride,
        }
    }

    /// What [`pack_strips`] has packed.
    pub fn packed(lines: &[f32], depth: usize, tile_rows: usize) -> Strips {
        Strips {
            data: lines.as_ptr(),
            row_stride: 1,
            column_stride: tile_rows,
            strip_stride: tile_rows * depth,
        }
    }
}

/// Panels of B: rows of `width` floats, from panel to panel `stride` floats.
pub struct Panels {
    pub data: *const f32,
    pub width: usize,
    pub stride: usize,
}

/// C ← A·B, or C + A·B.
///
/// # Safety
/// `strips` hold the rows of C with `depth` columns, in fours, and `panels` its columns.
pub unsafe fn run_strips(
    path: CpuPath,
    depth: usize,
    strips: &Strips,
    panels: &Panels,
    c: &Target,
    start: Start,
) {
    let (tile_rows, tile_columns) = blocked_shape(path);
    for row in (0..c.rows).step_by(tile_rows) {
        for column in (0..c.columns).step_by(tile_columns) {
            // SAFETY: every offset lies inside its view.
            let tile = unsafe {
                Column {
                    depth,
                    a: strips.data.add(row / tile_rows * strips.strip_stride),
                    a_row_stride: strips.row_stride,
                    a_column_stride: strips.column_stride,
                    a_strip_stride: 0,
                    b: panels.data.add(column / panels.width * panels.stride + column % panels.width),
                    b_row_stride: panels.width,
                    c: c.pointer.add(row * c.row_stride + column),
                    c_row_stride: c.row_stride,
                    rows: tile_rows.min(c.rows - row),
                    columns: tile_columns.min(c.columns - column),
                    start,
                }
            };
            // SAFETY: as above.
            unsafe {
                match path {
                    #[cfg(target_arch = "x86_64")]
                    CpuPath::Avx512 => super::avx512::run_packed(&tile),
                    _ => super::run_column(path, &tile),
                }
            }
        }
    }
}
