//! Rows of f32 into panels of bf16, each panel by whoever is free.

use super::{Bf16Matrix, COLUMNS, DEPTH, STEP_NUMBERS, STEPS, TILE, TILE_NUMBERS, TOGETHER, kernel};
use crate::float16::bf16_bits;
use crate::memory::Lines;
use crate::path::vectorised;
use std::ops::Range;

/// A panel to be filled.
#[derive(Debug)]
pub struct Bf16PanelMut<'a> {
    inputs: usize,
    columns: Range<usize>,
    numbers: &'a mut [u16],
}

impl Bf16PanelMut<'_> {
    /// The matrix's rows that stand here, at most 32.
    pub fn outputs(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// Rounds `values` [outputs, inputs].
    ///
    /// # Panics
    /// When the shape is another.
    pub fn round(&mut self, values: &[f32]) {
        assert_eq!(values.len(), self.columns.len() * self.inputs, "a panel of {:?}", self.columns);
        round(values, self.inputs, self.numbers);
    }
}

/// Bytes that [`super::Bf16Rows`] takes for so many rows.
pub fn rows_bytes(rows: usize, width: usize) -> usize {
    2 * rows.div_ceil(TILE) * width.div_ceil(DEPTH) * TILE_NUMBERS + SPARE
}

/// Bytes that each thread of a product of so many rows of `width` takes.
pub fn buffer_bytes(rows: usize, width: usize) -> usize {
    let sums = 4 * TOGETHER * rows.next_multiple_of(2 * TILE) * COLUMNS;
    2 * STEPS * STEP_NUMBERS + sums + kernel::paired_bytes(rows, width.div_ceil(DEPTH)) + 2 * SPARE
}

/// What a buffer may take to begin at a multiple of 64.
const SPARE: usize = 64;

impl Bf16Matrix {
    /// Room for W [outputs, inputs].
    ///
    /// # Panics
    /// When `inputs` is 0.
    pub fn zeroed(inputs: usize, outputs: usize) -> Bf16Matrix {
        assert!(inputs > 0, "rows of {inputs}");
        Bf16Matrix { inputs, outputs, data: Lines::zeroed(Bf16Matrix::bytes_for(inputs, outputs)) }
    }

    /// Bytes that W [outputs, inputs] takes.
    pub fn bytes_for(inputs: usize, outputs: usize) -> usize {
        outputs.div_ceil(COLUMNS) * inputs.div_ceil(DEPTH) * STEP_NUMBERS * 2
    }

    /// All panels, to be filled each by whoever is free.
    pub fn panels_mut(&mut self) -> Vec<Bf16PanelMut<'_>> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let length = inputs.div_ceil(DEPTH) * STEP_NUMBERS;
        let panels = self.data.numbers_mut().chunks_exact_mut(length).enumerate();
        let panel = |(panel, numbers): (usize, _)| {
            let columns = panel * COLUMNS..(panel * COLUMNS + COLUMNS).min(outputs);
            Bf16PanelMut { inputs, columns, numbers }
        };
        panels.map(panel).collect()
    }
}

vectorised! {
    fn round(values: &[f32], inputs: usize, numbers: &mut [u16]) {
        for (column, row) in values.chunks_exact(inputs).enumerate() {
            let first = column / TILE * TILE_NUMBERS + column % TILE * 2;
            for (part, numbers) in row.chunks(DEPTH).zip(numbers.as_chunks_mut::<STEP_NUMBERS>().0) {
                for (k, &value) in part.iter().enumerate() {
                    numbers[first + k / 2 * 2 * TILE + k % 2] = bf16_bits(value);
                }
            }
        }
    }
}
