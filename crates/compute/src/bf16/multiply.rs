//! Products of rows with weights: which thread takes which panels, and where the sums go.

use super::kernel::PairedRows;
use super::{
    Bf16Rows, COLUMNS, Kernel, Part, ROWS_WORTH_TILES, Ready, STEP_NUMBERS, STEPS, Sums, TILE, TILE_NUMBERS,
    TOGETHER, Weights,
};
use crate::activations::Gate;
use crate::float16::bf16_bits;
use crate::memory::Lines;
use crate::path::vectorised;
use crate::product::{MatrixMut, Target};
use crate::team::Team;
use std::cell::RefCell;
use std::ops::Range;

/// Multiplications below which a second thread does not pay.
const WORTH_A_TEAM: usize = 1 << 17;

/// y [rows, outputs] ← x·Wᵀ.
pub fn multiply(team: &Team, x: &Bf16Rows, weights: Weights, y: &mut [f32]) {
    let outputs = weights.outputs();
    assert_eq!(y.len(), x.rows * outputs, "shapes of a product");
    let target = Target::new(MatrixMut::new(y, x.rows, outputs));
    share_out(team, x, weights, weights.panels(), |walk, panels| {
        for first in panels.clone().step_by(TOGETHER) {
            let list: [usize; TOGETHER] = std::array::from_fn(|index| first + index);
            let list = &list[..TOGETHER.min(panels.end - first)];
            walk.sum(list, Some(first + TOGETHER).filter(|next| *next < panels.end), |sums| {
                // SAFETY: each panel is one thread's, and y is borrowed mutably for the whole call.
                unsafe { write(walk, list, sums, target) };
            });
        }
    });
}

/// y [rows, outputs / 2] ← gate(x·Wgᵀ) · x·Wuᵀ, in bf16.
pub fn multiply_gated(team: &Team, x: &Bf16Rows, weights: Weights, gate: Gate, y: &mut Bf16Rows) {
    const PAIRS: usize = TOGETHER / 2;
    assert!(weights.is_gate_and_up(), "gate and up of whole panels");
    let pairs = weights.panels() / 2;
    let numbers = y.reshape(x.rows, weights.outputs() / 2);
    let target = Tiles { numbers: numbers.as_mut_ptr(), length: numbers.len() };
    share_out(team, x, weights, pairs, |walk, panels| {
        for first in panels.clone().step_by(PAIRS) {
            let count = PAIRS.min(panels.end - first);
            let list: [usize; TOGETHER] = std::array::from_fn(|index| match index < count {
                true => first + index,
                false => pairs + first + index - count,
            });
            walk.sum(&list[..2 * count], Some(first + PAIRS).filter(|next| *next < panels.end), |sums| {
                let (gates, ups) = sums.split_at(count * walk.length);
                let sums = gates.chunks_exact(walk.length).zip(ups.chunks_exact(walk.length));
                for (index, (gates, ups)) in sums.enumerate() {
                    for row in (0..x.rows).step_by(TILE) {
                        let part = row * COLUMNS..(row + TILE).min(x.rows) * COLUMNS;
                        // 32 outputs are a tile of y.
                        let place = (row / TILE * pairs + first + index) * TILE_NUMBERS;
                        // SAFETY: each panel is one thread's, and y is borrowed mutably for the whole call.
                        let tile = unsafe { target.at(place) };
                        gated(gate, &gates[part.clone()], &ups[part], tile);
                    }
                }
            });
        }
    });
}

/// Runs `work` with panels that are nobody else's, on each thread.
fn share_out(
    team: &Team,
    x: &Bf16Rows,
    weights: Weights,
    panels: usize,
    work: impl Fn(&Walk, Range<usize>) + Sync,
) {
    assert_eq!(x.width, weights.inputs(), "shapes of a product");
    if x.rows == 0 {
        return;
    }
    let kernel = Kernel::for_rows(x.rows);
    let threads =
        if x.rows * weights.inputs() * weights.outputs() >= WORTH_A_TEAM { team.threads() } else { 1 };
    let share = panels.div_ceil(threads);
    let part = |thread: usize| {
        let panels = thread * share..((thread + 1) * share).min(panels);
        if !panels.is_empty() {
            let length = x.rows.next_multiple_of(2 * TILE) * COLUMNS;
            PAIRED.with_borrow_mut(|buffer| {
                let unit = Ready::new(kernel);
                let paired = unit.pair(x.tiles(), buffer);
                work(&Walk { x, weights, unit, paired, length }, panels);
            });
        }
    };
    if threads > 1 { team.run(&part) } else { part(0) }
}

thread_local! {
    /// Weights that have been spread out, and the sums of some panels.
    static BUFFERS: RefCell<(Lines, Lines)> = RefCell::new((Lines::zeroed(STEPS * STEP_NUMBERS * 2), Lines::default()));
    /// x in the order that a kernel takes it.
    static PAIRED: RefCell<Vec<PairedRows>> = const { RefCell::new(Vec::new()) };
}

/// One thread's way through its panels.
struct Walk<'a> {
    x: &'a Bf16Rows,
    weights: Weights<'a>,
    unit: Ready,
    paired: Option<&'a [PairedRows]>,
    /// Numbers of a panel's sums: rows of 32, up to the next multiple of two tiles.
    length: usize,
}

impl Walk<'_> {
    /// Computes the sums of all rows with these panels, at most [`TOGETHER`], and passes them on, panel by panel. `then` is
    /// the panel that comes afterwards.
    fn sum(&self, panels: &[usize], then: Option<usize>, finish: impl FnOnce(&[f32])) {
        BUFFERS.with_borrow_mut(|(buffer, sums)| {
            if sums.floats_mut().len() < TOGETHER * self.length {
                *sums = Lines::zeroed(TOGETHER * 4 * self.length);
            }
            let sums = &mut sums.floats_mut()[..panels.len() * self.length];
            let steps = self.x.steps();
            // Parts of about the same size; a few rows stay in the first cache anyway.
            let most =
                if self.weights.stand_ready() && self.x.rows < ROWS_WORTH_TILES { steps } else { STEPS };
            let each = steps.div_ceil(steps.div_ceil(most).max(1)).max(1);
            // Steps outside, panels inside: the part of x that these steps need stays in the L2 cache.
            for first in (0..steps).step_by(each) {
                let count = each.min(steps - first);
                for (index, sums) in sums.chunks_exact_mut(self.length).enumerate() {
                    let next = match panels.get(index + 1) {
                        Some(&panel) => Some((panel, first)),
                        None if first + each < steps => Some((panels[0], first + each)),
                        None => then.map(|panel| (panel, 0)),
                    };
                    let weights = self.weights.steps(panels[index], first, count, next, buffer);
                    let mut sums = Sums { numbers: sums, stride: COLUMNS };
                    self.unit.add(
                        &[Part { x: self.x.tiles(), first, weights, paired: self.paired }],
                        &mut sums,
                        first == 0,
                    );
                }
            }
            finish(sums);
        });
    }
}

/// Writes sums where they belong: a row of all panels at a time.
///
/// # Safety
/// Nobody else touches the columns of these panels in `y`; the shapes match.
unsafe fn write(walk: &Walk, panels: &[usize], sums: &[f32], y: Target) {
    for row in 0..walk.x.rows {
        for (&panel, sums) in panels.iter().zip(sums.chunks_exact(walk.length)) {
            let columns = walk.weights.columns(panel);
            if columns.is_empty() {
                continue;
            }
            let sums = &sums.as_chunks::<COLUMNS>().0[row];
            let y = y.at(row, columns.start);
            // SAFETY: the columns lie inside y and are this thread's.
            unsafe {
                match columns.len() {
                    COLUMNS => y.cast::<[f32; COLUMNS]>().write_unaligned(*sums),
                    width => std::ptr::copy_nonoverlapping(sums.as_ptr(), y, width),
                }
            }
        }
    }
}

/// Tiles that several threads write to, each its own.
#[derive(Clone, Copy)]
struct Tiles {
    numbers: *mut u16,
    length: usize,
}

// SAFETY: whoever takes a tile promises that it is nobody else's.
unsafe impl Send for Tiles {}
// SAFETY: as above.
unsafe impl Sync for Tiles {}

impl Tiles {
    /// The tile that begins at `place`.
    ///
    /// # Safety
    /// The numbers live, and nobody else has this tile.
    unsafe fn at<'a>(self, place: usize) -> &'a mut [u16] {
        assert!(place + TILE_NUMBERS <= self.length, "a tile");
        // SAFETY: the tile lies inside, and is the caller's.
        unsafe { std::slice::from_raw_parts_mut(self.numbers.add(place), TILE_NUMBERS) }
    }
}

vectorised! {
    /// A tile of gate · up; rows that are not there become zero.
    fn gated(gate: Gate, gates: &[f32], ups: &[f32], tile: &mut [u16]) {
        match gate {
            Gate::Silu => fill(gates, ups, tile, |g, u| Gate::Silu.apply(g, u)),
            Gate::GeluTanh => fill(gates, ups, tile, |g, u| Gate::GeluTanh.apply(g, u)),
        }
    }
}

#[inline(always)]
fn fill(gates: &[f32], ups: &[f32], tile: &mut [u16], apply: impl Fn(f32, f32) -> f32) {
    let (here, beyond) = tile.split_at_mut(gates.len());
    beyond.fill(0);
    let rows = gates.as_chunks::<COLUMNS>().0.iter().zip(ups.as_chunks::<COLUMNS>().0);
    for (row, (gates, ups)) in here.as_chunks_mut::<COLUMNS>().0.iter_mut().zip(rows) {
        for ((number, &g), &u) in row.iter_mut().zip(gates).zip(ups) {
            *number = bf16_bits(apply(g, u));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activations::geglu;
    use crate::bf16::Bf16Matrix;
    use crate::quantised::{Bits, QuantisedMatrix};
    use crate::swiglu::swiglu;
    use crate::testing::{normal_numbers, same_on_every_path};

    #[test]
    fn a_gated_product_has_the_bits_of_its_steps_one_after_another() {
        let (inputs, width) = (96, 192);
        let w = normal_numbers(5, 2 * width * inputs);
        let (plain, eight, four) = (
            Bf16Matrix::new(&w, inputs),
            QuantisedMatrix::new(&w, inputs, Bits::Eight),
            QuantisedMatrix::new(&w, inputs, Bits::Four),
        );
        for weights in [Weights::Bf16(&plain), Weights::Quantised(&eight), Weights::Quantised(&four)] {
            for (rows, threads, gate) in
                [(1, 1, Gate::Silu), (37, 1, Gate::GeluTanh), (37, 2, Gate::Silu), (64, 3, Gate::Silu)]
            {
                let (team, x) = (Team::new(threads), normal_numbers(4, rows * inputs));
                let x = Bf16Rows::of(&x, inputs);
                let numbers = |rows: &Bf16Rows| {
                    rows.numbers.numbers()[..rows.rows.div_ceil(TILE) * rows.steps() * TILE_NUMBERS].to_vec()
                };
                let expected = || {
                    let (mut both, mut y) = (vec![0.0; 2 * rows * width], vec![0.0; rows * width]);
                    multiply(&team, &x, weights, &mut both);
                    match gate {
                        Gate::Silu => swiglu(&both, width, &mut y),
                        Gate::GeluTanh => geglu(&both, width, &mut y),
                    }
                    numbers(&Bf16Rows::of(&y, width))
                };
                let found = || {
                    // What stands there is written over.
                    let mut y = Bf16Rows::of(&vec![7.0; 80 * width], width);
                    multiply_gated(&team, &x, weights, gate, &mut y);
                    assert_eq!((y.rows(), y.width()), (rows, width));
                    numbers(&y)
                };
                assert!(found() == expected(), "{rows} rows, {threads} threads, {gate:?}");
                same_on_every_path(found);
            }
        }
    }

    #[test]
    fn gate_and_up_must_be_whole_panels() {
        let weights = |outputs: usize| QuantisedMatrix::new(&vec![0.5; outputs * 32], 32, Bits::Eight);
        for (outputs, is_pair) in [(128, true), (64, false), (192, false), (256, true), (250, false)] {
            assert_eq!(weights(outputs).is_gate_and_up(), is_pair, "{outputs}");
        }
        // Two parts that end within a panel each fill it up.
        assert!(!QuantisedMatrix::zeroed(32, &[(96, Bits::Eight), (96, Bits::Four)]).is_gate_and_up());
    }
}
