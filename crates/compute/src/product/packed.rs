//! Products with a B that was packed beforehand: weights.
//!
//! Few rows of A go by panels, each with all its links while it is in the cache. Many rows go as other large products do
//! (`blocked`), only that B stands ready: a block of it stays in the L2 cache while strips of A pass.

use super::blocked::{
    Panels, SLACK, Strips, blocked_shape, even_step, pack_strips, reads_in_place, run_strips,
};
use super::{
    BLOCK_ROWS, MatrixMut, MatrixRef, PANEL_COLUMNS, PANEL_ROWS, Start, Target, clear_empty, pack, run_panel,
};
use crate::memory::Lines;
use crate::path::CpuPath;
use crate::team::Team;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A product of fewer multiplications than this stays on one thread of a team that is awake.
const WORK_WORTH_A_TEAM: usize = 1 << 17;
/// Times that each thread comes to take columns of a large product, if there are as many.
const TURNS: usize = 8;

/// A matrix B in panels of 64 columns, row after row within a panel; what lies beyond the last column is never read.
#[derive(Clone, Debug, Default)]
pub struct PackedMatrix {
    rows: usize,
    columns: usize,
    /// At a multiple of 64 bytes.
    data: Lines,
}

impl PackedMatrix {
    /// Packs `b`.
    pub fn new(b: MatrixRef) -> Self {
        let mut packed = PackedMatrix::default();
        packed.pack(b);
        packed
    }

    /// Room for B [rows, columns], to be filled panel by panel.
    pub fn zeroed(rows: usize, columns: usize) -> Self {
        PackedMatrix { rows, columns, data: Lines::zeroed(PackedMatrix::bytes_for(rows, columns)) }
    }

    /// Bytes that B [rows, columns] takes.
    pub fn bytes_for(rows: usize, columns: usize) -> usize {
        columns.div_ceil(PANEL_COLUMNS) * PANEL_COLUMNS * rows * size_of::<f32>()
    }

    /// All panels, to be filled each by whoever is free.
    pub fn panels_mut(&mut self) -> Vec<PackedPanelMut<'_>> {
        let (rows, columns) = (self.rows, self.columns);
        let panels = self.data.floats_mut().chunks_exact_mut((PANEL_COLUMNS * rows).max(1)).enumerate();
        let panel = |(panel, data): (usize, _)| {
            let columns = panel * PANEL_COLUMNS..((panel + 1) * PANEL_COLUMNS).min(columns);
            PackedPanelMut { rows, columns, data }
        };
        panels.take(columns.div_ceil(PANEL_COLUMNS)).map(panel).collect()
    }

    /// A column of B, into `column` [rows].
    ///
    /// # Panics
    /// When there is no such column, or `column` has another length.
    pub fn column(&self, index: usize, column: &mut [f32]) {
        assert!(index < self.columns && column.len() == self.rows, "column {index} of {}", self.columns);
        let lines = self.panel(index / PANEL_COLUMNS).chunks_exact(PANEL_COLUMNS);
        for (value, line) in column.iter_mut().zip(lines) {
            *value = line[index % PANEL_COLUMNS];
        }
    }

    /// Packs `b` over whatever was here; allocates only when it is larger than anything before.
    pub fn pack(&mut self, b: MatrixRef) {
        (self.rows, self.columns) = (b.rows, b.columns);
        let length = self.panels() * PANEL_COLUMNS * b.rows;
        if self.data.floats().len() < length {
            self.data = Lines::default();
            self.data = Lines::zeroed(length * size_of::<f32>());
        }
        let path = CpuPath::current();
        for (panel, target) in self
            .data
            .floats_mut()
            .chunks_exact_mut((PANEL_COLUMNS * b.rows).max(1))
            .take(self.columns.div_ceil(PANEL_COLUMNS))
            .enumerate()
        {
            let column = panel * PANEL_COLUMNS;
            // SAFETY: the block lies inside B; the target holds b.rows · 64 floats.
            unsafe {
                pack(
                    path,
                    &b,
                    0,
                    b.rows,
                    column,
                    PANEL_COLUMNS.min(b.columns - column),
                    PANEL_COLUMNS,
                    target,
                )
            }
        }
    }

    /// Rows of B: the length of a chain.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of B.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// How many panels of 64 columns there are.
    pub fn panels(&self) -> usize {
        self.columns.div_ceil(PANEL_COLUMNS)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.bytes().len()
    }

    fn panel(&self, panel: usize) -> &[f32] {
        let length = self.rows * PANEL_COLUMNS;
        &self.data.floats()[panel * length..(panel + 1) * length]
    }
}

/// A panel of a [`PackedMatrix`] to be filled.
#[derive(Debug)]
pub struct PackedPanelMut<'a> {
    rows: usize,
    columns: std::ops::Range<usize>,
    data: &'a mut [f32],
}

impl PackedPanelMut<'_> {
    /// The columns of B that stand here, at most 64.
    pub fn columns(&self) -> std::ops::Range<usize> {
        self.columns.clone()
    }

    /// Packs Bᵀ's rows `values` [columns, rows].
    ///
    /// # Panics
    /// When the shape is another.
    pub fn pack_transposed(&mut self, values: &[f32]) {
        let b = MatrixRef::new(values, self.columns.len(), self.rows).transposed();
        let path = CpuPath::current();
        // SAFETY: the block lies inside B; the panel holds rows · 64 floats.
        unsafe { pack(path, &b, 0, self.rows, 0, self.columns.len(), PANEL_COLUMNS, self.data) }
    }
}

/// C ← A·B, or C + A·B, with B packed beforehand: for weights that meet many small A, such as a decoder's. Where A has
/// fewer columns than B has rows, only B's first rows take part.
///
/// # Panics
/// When the shapes do not match.
pub fn multiply_packed(a: MatrixRef, b: &PackedMatrix, c: MatrixMut, start: Start) {
    assert_eq!(b.columns, c.columns, "shapes of a product");
    multiply_packed_panels(a, b, 0..b.panels(), c, start);
}

/// The part of [`multiply_packed`] that computes the columns of `panels`; C holds these columns only (so that several
/// threads can each take some), or fewer: the first of them.
///
/// # Panics
/// When the shapes do not match.
pub fn multiply_packed_panels(
    a: MatrixRef,
    b: &PackedMatrix,
    panels: std::ops::Range<usize>,
    c: MatrixMut,
    start: Start,
) {
    let first_column = panels.start * PANEL_COLUMNS;
    let most = (panels.end * PANEL_COLUMNS).min(b.columns).saturating_sub(first_column);
    assert!(a.rows == c.rows && c.columns <= most, "shapes of a product");
    assert!(a.columns <= b.rows, "a chain of {} links over {} rows", a.columns, b.rows);
    if clear_empty(&a, &c, start) {
        c.data.fill(0.0);
    }
    // SAFETY: C is borrowed mutably for the whole call.
    unsafe { multiply_panels(CpuPath::current(), a, b, first_column, Target::new(c), start) };
}

/// [`multiply_packed`] shared out over a team, with the same bits.
///
/// # Panics
/// When the shapes do not match.
pub fn multiply_packed_on(team: &Team, a: MatrixRef, b: &PackedMatrix, c: MatrixMut, start: Start) {
    let work = a.rows.saturating_mul(b.columns).saturating_mul(b.rows);
    if team.threads() == 1 || a.columns == 0 || work < WORK_WORTH_A_TEAM {
        return multiply_packed(a, b, c, start);
    }
    assert!(a.rows == c.rows && b.columns == c.columns && a.columns <= b.rows, "shapes of a product");
    let path = CpuPath::current();
    let c = Target::new(c);
    if is_large(path, &a, &c) {
        // Threads take columns in turn: one that the system has stopped keeps the others waiting for its last ones only.
        let step =
            c.columns.div_ceil(TURNS * team.threads()).next_multiple_of(PANEL_COLUMNS).min(BLOCK_COLUMNS);
        let next = AtomicUsize::new(0);
        return team.run(&|_| {
            loop {
                let first = next.fetch_add(step, Ordering::Relaxed);
                if first >= c.columns {
                    return;
                }
                let columns = step.min(c.columns - first);
                // SAFETY: each column is taken once, and C is borrowed mutably for the whole call.
                unsafe { multiply_panels(path, a, b, first, c.part(0, a.rows, first, columns), start) };
            }
        });
    }
    team.run(&|thread| {
        let share = b.panels().div_ceil(team.threads()) * PANEL_COLUMNS;
        let first = (thread * share).min(b.columns);
        let columns = share.min(b.columns - first);
        if columns > 0 {
            // SAFETY: each column is one thread's, and C is borrowed mutably for the whole call.
            unsafe { multiply_panels(path, a, b, first, c.part(0, a.rows, first, columns), start) };
        }
    });
}

/// C's columns are those of B from `first_column` on, a panel's first.
///
/// # Safety
/// The shapes match; nobody else touches what `c` covers.
unsafe fn multiply_panels(
    path: CpuPath,
    a: MatrixRef,
    b: &PackedMatrix,
    first_column: usize,
    c: Target,
    start: Start,
) {
    if is_large(path, &a, &c) {
        // SAFETY: passed on.
        return unsafe { multiply_blocks(path, a, b, first_column, c, start) };
    }
    for first in (0..a.rows).step_by(BLOCK_ROWS) {
        for row in (0..a.columns).step_by(PANEL_ROWS) {
            let depth = PANEL_ROWS.min(a.columns - row);
            let start = if row == 0 { start } else { Start::Continue };
            let block = a.block(first, BLOCK_ROWS.min(a.rows - first), row, depth);
            for column in (0..c.columns).step_by(PANEL_COLUMNS) {
                let columns = PANEL_COLUMNS.min(c.columns - column);
                let panel = b.panel((first_column + column) / PANEL_COLUMNS);
                // SAFETY: a panel holds b.rows · 64 floats, whatever the number of its columns.
                unsafe {
                    let pointer = panel.as_ptr().add(row * PANEL_COLUMNS);
                    run_panel(path, &block, pointer, PANEL_COLUMNS, &c, first, column, columns, start);
                }
            }
        }
    }
}

/// Whether blocks pay: with rows for two tiles, and chains that are longer than what a tile costs besides.
fn is_large(path: CpuPath, a: &MatrixRef, c: &Target) -> bool {
    path == CpuPath::Avx512 && a.rows >= 24 && a.columns >= 96 && c.columns >= PANEL_COLUMNS
}

/// Links of the chains between two visits to C: without effect on the bits, as the two below.
const BLOCK_DEPTH: usize = 640;
/// Columns of a block of B: with 640 links, a third of an L2 cache.
const BLOCK_COLUMNS: usize = 256;
/// Rows of A that meet a block before the next one comes.
const GROUP_ROWS: usize = 264;

thread_local! {
    /// Strips of A, where they are packed.
    static STRIPS: RefCell<Lines> = RefCell::new(Lines::default());
}

/// As [`multiply_panels`], by blocks.
///
/// # Safety
/// As [`multiply_panels`].
unsafe fn multiply_blocks(
    path: CpuPath,
    a: MatrixRef,
    b: &PackedMatrix,
    first_column: usize,
    c: Target,
    start: Start,
) {
    let (tile_rows, _) = blocked_shape(path);
    let in_place = reads_in_place(path, &a);
    let depth_step = even_step(a.columns, BLOCK_DEPTH, 16);
    let group_step = even_step(a.rows, GROUP_ROWS, tile_rows);
    let panel_length = b.rows * PANEL_COLUMNS;
    let first_panel = &b.data.floats()[first_column / PANEL_COLUMNS * panel_length..];
    STRIPS.with_borrow_mut(|lines| {
        for first in (0..a.rows).step_by(group_step) {
            let rows = group_step.min(a.rows - first);
            // Rows beyond a multiple of four are packed in any case.
            let whole = if in_place { rows / 4 * 4 } else { 0 };
            for row in (0..a.columns).step_by(depth_step) {
                let depth = depth_step.min(a.columns - row);
                let start = if row == 0 { start } else { Start::Continue };
                let apart = rows - whole;
                let needed = apart.next_multiple_of(tile_rows) * depth + SLACK;
                if lines.floats().len() < needed {
                    *lines = Lines::zeroed(needed * size_of::<f32>());
                }
                if apart > 0 {
                    pack_strips(path, &a, first + whole, apart, row, depth, tile_rows, lines.floats_mut());
                }
                for column in (0..c.columns).step_by(BLOCK_COLUMNS) {
                    let columns = BLOCK_COLUMNS.min(c.columns - column);
                    let panels = Panels {
                        data: first_panel[column / PANEL_COLUMNS * panel_length + row * PANEL_COLUMNS..]
                            .as_ptr(),
                        width: PANEL_COLUMNS,
                        stride: panel_length,
                    };
                    // SAFETY: a panel holds b.rows · 64 floats; A and the strips hold the rows.
                    unsafe {
                        if whole > 0 {
                            let strips = Strips::in_place(&a, first, row, tile_rows);
                            run_strips(
                                path,
                                depth,
                                &strips,
                                &panels,
                                &c.part(first, whole, column, columns),
                                start,
                            );
                        }
                        if apart > 0 {
                            let strips = Strips::packed(lines.floats(), depth, tile_rows);
                            let c = c.part(first + whole, apart, column, columns);
                            run_strips(path, depth, &strips, &panels, &c, start);
                        }
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{normal_numbers, same_on_every_path};

    #[test]
    fn a_team_of_any_size_gives_the_same_bits() {
        for (rows, columns, depth) in [(1, 900, 200), (30, 200, 100), (150, 330, 130), (290, 64, 700)] {
            let (a, b) = (normal_numbers(1, rows * depth), normal_numbers(2, depth * columns));
            // The second A lies so far apart that its strips are packed.
            let far = normal_numbers(1, (rows - 1) * 5000 + depth);
            let b = PackedMatrix::new(MatrixRef::new(&b, depth, columns));
            for a in [MatrixRef::new(&a, rows, depth), MatrixRef::strided(&far, rows, depth, 5000)] {
                let product = |threads: usize| {
                    let mut c = normal_numbers(3, rows * columns);
                    let target = MatrixMut::new(&mut c, rows, columns);
                    multiply_packed_on(&Team::new(threads), a, &b, target, Start::Continue);
                    c
                };
                let alone = product(1);
                for threads in [2, 3, 5] {
                    assert_eq!(product(threads), alone, "{rows}×{columns}×{depth} on {threads}");
                }
                same_on_every_path(|| product(2));
            }
        }
    }
}
