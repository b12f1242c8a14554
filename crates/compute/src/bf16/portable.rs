//! The chain of the matrix unit in plain Rust.

use super::{DEPTH, Part, STEP_NUMBERS, TILE, TILE_NUMBERS};
use crate::float16::bf16_value;
use crate::path::vectorised;

/// All rows of x against one panel.
///
/// # Safety
/// Rows and columns lie inside y, and nobody else touches them there.
pub unsafe fn multiply(part: &Part) {
    let (columns, y) = (&part.columns, part.y);
    for row in 0..part.x.rows() {
        for tile in 0..columns.len().div_ceil(TILE) {
            let width = TILE.min(columns.len() - tile * TILE);
            // SAFETY: the columns lie inside y.
            let y = unsafe { std::slice::from_raw_parts_mut(y.at(row, columns.start + tile * TILE), width) };
            let mut sums = [0.0f32; TILE];
            if part.first > 0 {
                sums[..width].copy_from_slice(y);
            }
            run(part, row, tile, &mut sums);
            y.copy_from_slice(&sums[..width]);
        }
    }
}

vectorised! {
    fn run(part: &Part<'_>, row: usize, tile: usize, sums: &mut [f32; TILE]) {
        for (step, weights) in part.weights.as_chunks::<STEP_NUMBERS>().0.iter().enumerate() {
            let x = part.x.part(row, part.first + step);
            let weights = &weights[tile * TILE_NUMBERS..][..TILE_NUMBERS];
            let (mut even, mut odd) = ([0.0f32; TILE], [0.0f32; TILE]);
            for pair in 0..DEPTH / 2 {
                let (first, second) = (bf16_value(x[2 * pair]), bf16_value(x[2 * pair + 1]));
                let line = &weights[pair * 2 * TILE..][..2 * TILE];
                for column in 0..TILE {
                    even[column] = first.mul_add(bf16_value(line[2 * column]), even[column]);
                    odd[column] = second.mul_add(bf16_value(line[2 * column + 1]), odd[column]);
                }
            }
            for column in 0..TILE {
                sums[column] += even[column] + odd[column];
            }
        }
    }
}
