//! The chain of the matrix unit in plain Rust.

use super::{DEPTH, Part, STEP_NUMBERS, Sums, TILE, TILE_NUMBERS};
use crate::float16::bf16_value;
use crate::path::vectorised;

vectorised! {
    /// All rows of x against one panel.
    pub fn multiply(part: &Part<'_>, sums: &mut Sums<'_>) {
        for row in 0..part.x.rows {
            let tiles = sums.row(row).as_chunks_mut::<TILE>().0;
            for (step, weights) in part.weights.as_chunks::<STEP_NUMBERS>().0.iter().enumerate() {
                let x = part.x.part(row, part.first + step);
                for (tile, weights) in weights.as_chunks::<TILE_NUMBERS>().0.iter().enumerate() {
                    add(x, weights, &mut tiles[tile]);
                }
            }
        }
    }
}

#[inline(always)]
fn add(x: &[u16; DEPTH], weights: &[u16; TILE_NUMBERS], sums: &mut [f32; TILE]) {
    let (mut even, mut odd) = ([0.0f32; TILE], [0.0f32; TILE]);
    for (pair, line) in weights.as_chunks::<{ 2 * TILE }>().0.iter().enumerate() {
        let (first, second) = (bf16_value(x[2 * pair]), bf16_value(x[2 * pair + 1]));
        for column in 0..TILE {
            even[column] = first.mul_add(bf16_value(line[2 * column]), even[column]);
            odd[column] = second.mul_add(bf16_value(line[2 * column + 1]), odd[column]);
        }
    }
    for column in 0..TILE {
        sums[column] += even[column] + odd[column];
    }
}
