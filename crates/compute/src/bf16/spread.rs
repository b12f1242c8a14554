//! Quantised weights spread out to bf16, in the order of the tiles.

use super::{COLUMNS, DEPTH, STEP_NUMBERS, TILE, TILE_NUMBERS};
use crate::float16::f16_value;
use crate::path::vectorised;
use crate::product::PANEL_COLUMNS;
use crate::quantised::{Bits, GROUP, QuantisedMatrix};

const HALVES: usize = PANEL_COLUMNS / COLUMNS;

/// The steps of a panel of 32 outputs (half of one of W's) from `first` on that `numbers` has room for. A step is a group.
pub fn spread(matrix: &QuantisedMatrix, panel: usize, first: usize, numbers: &mut [u16]) {
    const { assert!(DEPTH == GROUP) };
    let group_bytes = matrix.bits().group_bytes();
    let groups =
        &matrix.panel(panel / HALVES)[first * group_bytes..][..numbers.len() / STEP_NUMBERS * group_bytes];
    match matrix.bits() {
        Bits::Eight => eight(groups, panel % HALVES, numbers),
        Bits::Four => four(groups, panel % HALVES, numbers),
    }
}

vectorised! {
    fn eight(groups: &[u8], half: usize, numbers: &mut [u16]) {
        let steps = numbers.as_chunks_mut::<STEP_NUMBERS>().0;
        for (data, numbers) in groups.chunks_exact(Bits::Eight.group_bytes()).zip(steps) {
            let (scales, codes) = data.split_at(2 * PANEL_COLUMNS);
            for (tile, numbers) in numbers.as_chunks_mut::<TILE_NUMBERS>().0.iter_mut().enumerate() {
                let tile = half * (COLUMNS / TILE) + tile;
                let scales = scales_of(scales, tile);
                for (four, numbers) in numbers.as_chunks_mut::<{ 4 * TILE }>().0.iter_mut().enumerate() {
                    let words = words_of(codes, four, tile);
                    four_inputs(&words, 0, 0xff, 128.0, &scales, numbers);
                }
            }
        }
    }
}

vectorised! {
    fn four(groups: &[u8], half: usize, numbers: &mut [u16]) {
        let steps = numbers.as_chunks_mut::<STEP_NUMBERS>().0;
        for (data, numbers) in groups.chunks_exact(Bits::Four.group_bytes()).zip(steps) {
            let (scales, codes) = data.split_at(2 * PANEL_COLUMNS);
            for (tile, numbers) in numbers.as_chunks_mut::<TILE_NUMBERS>().0.iter_mut().enumerate() {
                let tile = half * (COLUMNS / TILE) + tile;
                let scales = scales_of(scales, tile);
                for (four, numbers) in numbers.as_chunks_mut::<{ 4 * TILE }>().0.iter_mut().enumerate() {
                    let words = words_of(codes, four % 4, tile);
                    four_inputs(&words, four / 4 * 4, 15, 8.0, &scales, numbers);
                }
            }
        }
    }
}

#[inline(always)]
fn scales_of(scales: &[u8], tile: usize) -> [f32; TILE] {
    let mut values = [0.0f32; TILE];
    let scales = scales[2 * TILE * tile..][..2 * TILE].as_chunks::<2>().0;
    for (value, bits) in values.iter_mut().zip(scales) {
        *value = f16_value(u16::from_le_bytes(*bits));
    }
    values
}

/// The codes of four inputs for sixteen outputs.
#[inline(always)]
fn words_of(codes: &[u8], four: usize, tile: usize) -> [u32; TILE] {
    let mut words = [0u32; TILE];
    let bytes = codes[(four * PANEL_COLUMNS + tile * TILE) * 4..][..4 * TILE].as_chunks::<4>().0;
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// Two pairs of inputs of sixteen outputs. Rounds to the nearest bf16, of two equally near the larger one.
#[inline(always)]
fn four_inputs(
    words: &[u32; TILE],
    shift: usize,
    mask: u32,
    offset: f32,
    scales: &[f32; TILE],
    numbers: &mut [u16; 4 * TILE],
) {
    for (pair, numbers) in numbers.as_chunks_mut::<{ 2 * TILE }>().0.iter_mut().enumerate() {
        let mut pairs = [0u32; TILE];
        for output in 0..TILE {
            let (word, scale) = (words[output] >> (16 * pair + shift), scales[output]);
            let zero = -offset * scale;
            let low = ((word & mask) as i32 as f32).mul_add(scale, zero).to_bits().wrapping_add(0x8000) >> 16;
            let high =
                (((word >> 8) & mask) as i32 as f32).mul_add(scale, zero).to_bits().wrapping_add(0x8000);
            pairs[output] = low | (high & 0xffff_0000);
        }
        for (number, pair) in numbers.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
            *number = [pair as u16, (pair >> 16) as u16];
        }
    }
}
