//! Products in bf16: y = x·Wᵀ, x and W rounded to bf16, sums in f32.
//!
//! The chain of an element is that of the processors' matrix unit (Intel's `TDPBF16PS`, software developer's manual, volume 2),
//! and every path follows it: of each 32 inputs, the even and the odd ones are a chain of fused multiply-adds each, starting
//! from zero; their sum is added to the element. (The unit takes subnormal numbers for zero, which weights and activations of
//! a model that works do not reach.)
//!
//! W is a [`Bf16Matrix`], or a [`QuantisedMatrix`] whose weights are spread out to bf16 a few at a time.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod dot;
mod fill;
mod kernel;
mod multiply;
mod portable;
mod spread;

pub(crate) use kernel::{Kernel, Part, Ready};

pub use fill::{Bf16PanelMut, buffer_bytes, rows_bytes};

use crate::activations::Gate;
use crate::float16::{bf16_bits, bf16_value};
use crate::memory::Lines;
use crate::path::{CpuPath, vectorised};
use crate::product::PANEL_COLUMNS;
use crate::quantised::QuantisedMatrix;
use crate::team::Team;
use multiply::{multiply, multiply_gated};

/// Inputs that a tile covers.
pub(crate) const DEPTH: usize = 32;
/// Rows of a tile of x, and columns of a tile of W.
pub(crate) const TILE: usize = 16;
/// Numbers of a tile.
const TILE_NUMBERS: usize = TILE * DEPTH;
/// Outputs of a panel: two tiles.
pub(crate) const COLUMNS: usize = 2 * TILE;
/// Numbers of one step of 32 inputs in a panel.
pub(crate) const STEP_NUMBERS: usize = COLUMNS * DEPTH;
/// Most steps that are taken at a time: 16 steps of a panel are 32 KiB, two thirds of the L1 cache. Without effect on the bits.
const STEPS: usize = 16;
/// Panels whose sums are written to y together: a row of y is in another page than the next, so each visit has to be worth it.
const TOGETHER: usize = 8;
/// From this many rows on, the matrix unit is ahead of vectors.
const ROWS_WORTH_TILES: usize = 4;
/// Tiles of rows that one thread rounds at a time.
const TILES_TOGETHER: usize = 2;

/// Whether this processor has a matrix unit for bf16 (AMX) and the system lets us use it.
pub fn has_matrix_unit() -> bool {
    #[cfg(target_arch = "x86_64")]
    if CpuPath::current() == CpuPath::Avx512 {
        return amx::is_ready();
    }
    false
}

/// Whether this processor has an instruction for sums of products of pairs in bf16 (AVX-512 BF16).
pub fn has_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    if CpuPath::current() == CpuPath::Avx512 {
        return dot::is_ready();
    }
    false
}

/// As [`amx::products`].
///
/// # Panics
/// When there is no matrix unit.
#[cfg(target_arch = "x86_64")]
pub(crate) fn tile_products(span: std::time::Duration) -> u64 {
    assert!(has_matrix_unit(), "a matrix unit");
    // SAFETY: the unit is ready.
    unsafe { amx::products(span) }
}

/// W [outputs, inputs] in bf16, in panels of 32 outputs: step by step of 32 inputs, two tiles of 16 outputs, each 16 pairs
/// of inputs by 16 outputs.
#[derive(Clone, Debug, Default)]
pub struct Bf16Matrix {
    inputs: usize,
    outputs: usize,
    data: Lines,
}

impl Bf16Matrix {
    /// Rounds `values` [outputs, inputs].
    ///
    /// # Panics
    /// When `values` is no matrix of rows of `inputs`.
    pub fn new(values: &[f32], inputs: usize) -> Bf16Matrix {
        assert!(inputs > 0 && values.len().is_multiple_of(inputs), "rows of {inputs}");
        let mut matrix = Bf16Matrix::zeroed(inputs, values.len() / inputs);
        for mut panel in matrix.panels_mut() {
            let rows = panel.outputs();
            panel.round(&values[rows.start * inputs..rows.end * inputs]);
        }
        matrix
    }

    /// Width of a row of x.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of a row of y.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.bytes().len()
    }

    /// One row of W, as it counts: into `row` [inputs].
    ///
    /// # Panics
    /// When there is no such row, or `row` has another length.
    pub fn row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs && row.len() == self.inputs, "row {output} of {}", self.outputs);
        let panel = self.steps(output / COLUMNS, 0, self.inputs.div_ceil(DEPTH));
        for (k, value) in row.iter_mut().enumerate() {
            *value = bf16_value(panel[place(k, output % COLUMNS)]);
        }
    }

    fn steps(&self, panel: usize, first: usize, count: usize) -> &[u16] {
        let all = self.inputs.div_ceil(DEPTH);
        &self.data.numbers()[(panel * all + first) * STEP_NUMBERS..][..count * STEP_NUMBERS]
    }

    /// y [rows, outputs] ← x [rows, inputs]·Wᵀ, shared out over the team.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn multiply(&self, team: &Team, x: &Bf16Rows, y: &mut [f32]) {
        multiply(team, x, Weights::Bf16(self), y);
    }

    /// Whether [`Bf16Matrix::multiply_gated`] takes this matrix.
    pub fn is_gate_and_up(&self) -> bool {
        Weights::Bf16(self).is_gate_and_up()
    }

    /// y [rows, outputs / 2] ← gate(x·Wgᵀ) · x·Wuᵀ, where the first half of W is the gate's and the second up's; rounded to
    /// bf16. The bits are those of the product, the gate and the rounding one after another.
    ///
    /// # Panics
    /// When the shapes do not match, or [`Bf16Matrix::is_gate_and_up`] says no.
    pub fn multiply_gated(&self, team: &Team, x: &Bf16Rows, gate: Gate, y: &mut Bf16Rows) {
        multiply_gated(team, x, Weights::Bf16(self), gate, y);
    }
}

/// Where a weight stands in its panel.
pub(crate) fn place(k: usize, column: usize) -> usize {
    let (step, k) = (k / DEPTH, k % DEPTH);
    step * STEP_NUMBERS + column / TILE * TILE_NUMBERS + (k / 2 * TILE + column % TILE) * 2 + k % 2
}

impl QuantisedMatrix {
    /// y [rows, outputs] ← x [rows, inputs]·Wᵀ with the weights rounded to bf16, shared out over the team.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn multiply_bf16(&self, team: &Team, x: &Bf16Rows, y: &mut [f32]) {
        multiply(team, x, Weights::Quantised(self), y);
    }

    /// Whether [`QuantisedMatrix::multiply_gated_bf16`] takes this matrix.
    pub fn is_gate_and_up(&self) -> bool {
        Weights::Quantised(self).is_gate_and_up()
    }

    /// As [`Bf16Matrix::multiply_gated`], with the weights rounded to bf16.
    ///
    /// # Panics
    /// When the shapes do not match, or [`QuantisedMatrix::is_gate_and_up`] says no.
    pub fn multiply_gated_bf16(&self, team: &Team, x: &Bf16Rows, gate: Gate, y: &mut Bf16Rows) {
        multiply_gated(team, x, Weights::Quantised(self), gate, y);
    }
}

/// Rows x in bf16, in tiles of 16 rows by 32 columns; what lies beyond the last row or column is zero.
#[derive(Debug, Default)]
pub struct Bf16Rows {
    rows: usize,
    width: usize,
    /// At a multiple of 64 bytes: the matrix unit is four times slower across lines of the cache.
    numbers: Lines,
}

impl Bf16Rows {
    /// Rounds `x` [rows, width].
    ///
    /// # Panics
    /// When `x` does not consist of rows of `width`.
    pub fn of(x: &[f32], width: usize) -> Bf16Rows {
        let mut rows = Bf16Rows::default();
        rows.fill(x, width);
        rows
    }

    /// Rounds `x` [rows, width] over whatever was here.
    ///
    /// # Panics
    /// When `x` does not consist of rows of `width`.
    pub fn fill(&mut self, x: &[f32], width: usize) {
        self.fill_on(&Team::new(1), x, width);
    }

    /// [`Bf16Rows::fill`], shared out over the team.
    ///
    /// # Panics
    /// When `x` does not consist of rows of `width`.
    pub fn fill_on(&mut self, team: &Team, x: &[f32], width: usize) {
        assert!(width > 0 && x.len().is_multiple_of(width), "rows of {width}");
        let tiles = width.div_ceil(DEPTH) * TILE_NUMBERS;
        let numbers = self.reshape(x.len() / width, width).chunks_mut(TILES_TOGETHER * tiles);
        let parts = x.chunks(TILES_TOGETHER * TILE * width).zip(numbers).collect();
        team.each(parts, |(x, numbers)| round(x, width, numbers));
    }

    /// Room for rows [rows, width], in which anything may stand.
    fn reshape(&mut self, rows: usize, width: usize) -> &mut [u16] {
        (self.rows, self.width) = (rows, width);
        let length = rows.div_ceil(TILE) * self.steps() * TILE_NUMBERS;
        if self.numbers.numbers().len() < length {
            // The old ones are given back first.
            self.numbers = Lines::default();
            self.numbers = Lines::zeroed(2 * length);
        }
        &mut self.numbers.numbers_mut()[..length]
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    fn steps(&self) -> usize {
        self.width.div_ceil(DEPTH)
    }

    fn tiles(&self) -> TileRows<'_> {
        TileRows { numbers: self.numbers.numbers(), rows: self.rows, steps: self.steps() }
    }
}

/// Rows in tiles of 16 rows by 32 columns, as the kernels read them: tile by tile of a row of tiles, those one behind another.
#[derive(Clone, Copy)]
pub(crate) struct TileRows<'a> {
    pub numbers: &'a [u16],
    pub rows: usize,
    /// Tiles beside each other.
    pub steps: usize,
}

impl<'a> TileRows<'a> {
    /// 32 numbers of a row.
    fn part(&self, row: usize, step: usize) -> &'a [u16; DEPTH] {
        let tile = (row / TILE * self.steps + step) * TILE;
        &self.numbers.as_chunks::<DEPTH>().0[tile + row % TILE]
    }
}

/// Sums that products are added to: rows of 32, up to the next multiple of 16 rows.
pub(crate) struct Sums<'a> {
    pub numbers: &'a mut [f32],
    /// From row to row.
    pub stride: usize,
}

impl Sums<'_> {
    fn row(&mut self, row: usize) -> &mut [f32; COLUMNS] {
        let (row, _) = self.numbers[row * self.stride..][..COLUMNS].as_chunks_mut::<COLUMNS>();
        &mut row[0]
    }
}

vectorised! {
    fn round(x: &[f32], width: usize, numbers: &mut [u16]) {
        let steps = width.div_ceil(DEPTH);
        let parts = numbers.as_chunks_mut::<DEPTH>().0;
        let rows = x.len() / width;
        for row in 0..rows.next_multiple_of(TILE) {
            for step in 0..steps {
                let part = &mut parts[(row / TILE * steps + step) * TILE + row % TILE];
                let here = if row < rows { &x[row * width..][..width] } else { &[][..] };
                let here = here.get(step * DEPTH..(step * DEPTH + DEPTH).min(here.len())).unwrap_or(&[]);
                let mut values = [0.0f32; DEPTH];
                values[..here.len()].copy_from_slice(here);
                for (number, value) in part.iter_mut().zip(values) {
                    *number = bf16_bits(value);
                }
            }
        }
    }
}

/// Where weights come from.
#[derive(Clone, Copy)]
enum Weights<'a> {
    Bf16(&'a Bf16Matrix),
    Quantised(&'a QuantisedMatrix),
}

impl<'a> Weights<'a> {
    fn inputs(self) -> usize {
        match self {
            Weights::Bf16(matrix) => matrix.inputs,
            Weights::Quantised(matrix) => matrix.inputs(),
        }
    }

    fn outputs(self) -> usize {
        match self {
            Weights::Bf16(matrix) => matrix.outputs,
            Weights::Quantised(matrix) => matrix.outputs(),
        }
    }

    /// Whether they are in bf16 as they stand.
    fn stand_ready(self) -> bool {
        matches!(self, Weights::Bf16(_))
    }

    /// Panels of 32 outputs.
    fn panels(self) -> usize {
        match self {
            Weights::Bf16(matrix) => matrix.outputs.div_ceil(COLUMNS),
            Weights::Quantised(matrix) => spread::panels(matrix),
        }
    }

    /// The outputs of a panel.
    fn columns(self, panel: usize) -> std::ops::Range<usize> {
        match self {
            Weights::Bf16(matrix) => panel * COLUMNS..(panel * COLUMNS + COLUMNS).min(matrix.outputs),
            Weights::Quantised(matrix) => spread::columns(matrix, panel),
        }
    }

    /// Whether the first half of the outputs and the second are a whole number of panels each.
    fn is_gate_and_up(self) -> bool {
        self.outputs().is_multiple_of(2 * PANEL_COLUMNS) && self.panels() * COLUMNS == self.outputs()
    }

    /// `count` steps of a panel, in `buffer` where they have to be spread out; what panel and step come `next`.
    fn steps<'b>(
        self,
        panel: usize,
        first: usize,
        count: usize,
        next: Option<(usize, usize)>,
        buffer: &'b mut Lines,
    ) -> &'b [u16]
    where
        'a: 'b,
    {
        match self {
            Weights::Bf16(matrix) => matrix.steps(panel, first, count),
            Weights::Quantised(matrix) => {
                let numbers = &mut buffer.numbers_mut()[..count * STEP_NUMBERS];
                spread::spread(matrix, panel, first, numbers, next);
                numbers
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantised::Bits;
    use crate::quantised::tests::repacked;
    use crate::testing::{normal_numbers, same_on_every_path};

    fn exact(x: &[f32], row: impl Fn(usize, &mut [f32]), inputs: usize, outputs: usize) -> Vec<f64> {
        let mut weights = vec![0.0; inputs];
        let mut y = Vec::new();
        for x in x.chunks(inputs) {
            for output in 0..outputs {
                row(output, &mut weights);
                let terms = x.iter().zip(&weights).map(|(&x, &w)| bf16_value(bf16_bits(x)) as f64 * w as f64);
                y.push(terms.sum());
            }
        }
        y
    }

    fn near(y: &[f32], expected: &[f64], most: f64) {
        let error: f64 = y.iter().zip(expected).map(|(&y, e)| (y as f64 - e).powi(2)).sum();
        let scale: f64 = expected.iter().map(|e| e * e).sum();
        assert!((error / scale).sqrt() < most, "relative error {}", (error / scale).sqrt());
    }

    #[test]
    fn products_are_those_of_the_rounded_numbers() {
        for (rows, inputs, outputs) in [(1, 32, 64), (3, 100, 70), (40, 256, 130), (2, 31, 1), (35, 600, 64)]
        {
            let (x, w) = (normal_numbers(1, rows * inputs), normal_numbers(2, inputs * outputs));
            let (team, rounded) = (Team::new(1), Bf16Rows::of(&x, inputs));
            let mut y = vec![f32::NAN; rows * outputs];
            let matrix = Bf16Matrix::new(&w, inputs);
            matrix.multiply(&team, &rounded, &mut y);
            near(&y, &exact(&x, |output, row| matrix.row(output, row), inputs, outputs), 1e-6);
            let own = [Bits::Eight, Bits::Four].map(|bits| QuantisedMatrix::new(&w, inputs, bits));
            // Rows of whole blocks can be taken over from a file, each part with its own code.
            let parts = [(outputs / 2, Bits::FourNested), (outputs - outputs / 2, Bits::FourAndMinimum)];
            let taken_over = (inputs % 256 == 0).then(|| repacked(inputs, &parts));
            for matrix in own.into_iter().chain(taken_over) {
                matrix.multiply_bf16(&team, &rounded, &mut y);
                near(&y, &exact(&x, |output, row| matrix.row(output, row), inputs, outputs), 3e-3);
            }
        }
    }

    #[test]
    fn every_path_number_of_rows_and_of_threads_gives_the_same_bits() {
        let (inputs, outputs, all) = (1056, 200, 37);
        let (x, w) = (normal_numbers(4, all * inputs), normal_numbers(5, inputs * outputs));
        let (plain, eight, four, parts) = (
            Bf16Matrix::new(&w, inputs),
            QuantisedMatrix::new(&w, inputs, Bits::Eight),
            QuantisedMatrix::new(&w, inputs, Bits::Four),
            repacked(1024, &[(40, Bits::Four), (100, Bits::FourNested), (60, Bits::FourAndMinimum)]),
        );
        let quantised = [&eight, &four, &parts].map(Weights::Quantised);
        for weights in [Weights::Bf16(&plain)].into_iter().chain(quantised) {
            let (inputs, x) = (weights.inputs(), &x[..all * weights.inputs()]);
            let run = |threads: usize, rows: usize| {
                let team = Team::new(threads);
                let mut result = Vec::new();
                for x in x.chunks(rows * inputs) {
                    let mut y = vec![0.0; x.len() / inputs * outputs];
                    multiply(&team, &Bf16Rows::of(x, inputs), weights, &mut y);
                    result.extend(y);
                }
                result
            };
            let expected = run(1, all);
            for (threads, rows) in [(1, 1), (1, 2), (1, 3), (1, 16), (2, all), (3, 33)] {
                assert!(run(threads, rows) == expected, "{threads} threads, {rows} rows at a time");
            }
            same_on_every_path(|| run(1, all));
        }
    }
}
