//! Quantised weights spread out to bf16, in the order of the tiles.

#[cfg(target_arch = "x86_64")]
mod avx512;

use super::{COLUMNS, DEPTH, STEP_NUMBERS, TILE, TILE_NUMBERS};
use crate::path::{CpuPath, vectorised};
use crate::product::PANEL_COLUMNS;
use crate::quantised::{Bits, GROUP, QuantisedMatrix};

const HALVES: usize = PANEL_COLUMNS / COLUMNS;

/// The steps of a panel of 32 outputs (half of one of W's) from `first` on that `numbers` has room for. A step is a group.
/// `next` is the panel and step that will be asked for afterwards: they are on their way by then.
pub fn spread(
    matrix: &QuantisedMatrix,
    panel: usize,
    first: usize,
    numbers: &mut [u16],
    next: Option<(usize, usize)>,
) {
    const { assert!(DEPTH == GROUP) };
    #[cfg(target_arch = "x86_64")]
    if CpuPath::current() == CpuPath::Avx512 {
        // The other half of the same panel is fetched with the first.
        let is_here = |next: &(usize, usize)| (next.0 / HALVES, next.1) == (panel / HALVES, first);
        let ahead = next.filter(|next| next.0 / HALVES < matrix.panels() && !is_here(next));
        // SAFETY: the processor has AVX-512 F, BW and VL.
        return unsafe { avx512::spread(matrix, panel, first, numbers, ahead) };
    }
    let _ = next;
    let (bits, _, weights) = matrix.panel(panel / HALVES);
    match bits {
        Bits::Eight => eight(weights, first, panel % HALVES, numbers),
        Bits::Four => four(weights, first, panel % HALVES, numbers),
        Bits::FourAndMinimum => four_and_minimum(weights, first, panel % HALVES, numbers),
        Bits::FourNested => four_nested(weights, first, panel % HALVES, numbers),
    }
}

/// Which 32 outputs of W stand in such a panel; none in the second half of a panel that is not full.
pub fn columns(matrix: &QuantisedMatrix, panel: usize) -> std::ops::Range<usize> {
    let (_, columns, _) = matrix.panel(panel / HALVES);
    let begin = (columns.start + panel % HALVES * COLUMNS).min(columns.end);
    begin..(begin + COLUMNS).min(columns.end)
}

/// How many panels of 32 outputs there are.
pub fn panels(matrix: &QuantisedMatrix) -> usize {
    matrix.panels() * HALVES
}

vectorised! {
    fn eight(weights: &[u8], first: usize, half: usize, numbers: &mut [u16]) {
        any(Bits::Eight, weights, first, half, numbers);
    }
}

vectorised! {
    fn four(weights: &[u8], first: usize, half: usize, numbers: &mut [u16]) {
        any(Bits::Four, weights, first, half, numbers);
    }
}

vectorised! {
    fn four_and_minimum(weights: &[u8], first: usize, half: usize, numbers: &mut [u16]) {
        any(Bits::FourAndMinimum, weights, first, half, numbers);
    }
}

vectorised! {
    fn four_nested(weights: &[u8], first: usize, half: usize, numbers: &mut [u16]) {
        any(Bits::FourNested, weights, first, half, numbers);
    }
}

#[inline(always)]
fn any(bits: Bits, weights: &[u8], first: usize, half: usize, numbers: &mut [u16]) {
    for (step, numbers) in numbers.as_chunks_mut::<STEP_NUMBERS>().0.iter_mut().enumerate() {
        let group = bits.group(weights, first + step);
        for (tile, numbers) in numbers.as_chunks_mut::<TILE_NUMBERS>().0.iter_mut().enumerate() {
            let tile = half * (COLUMNS / TILE) + tile;
            let (mut scales, mut zeros) = ([0.0f32; TILE], [0.0f32; TILE]);
            for output in 0..TILE {
                let (scale, minimum) = bits.scale_and_minimum(&group, tile * TILE + output);
                scales[output] = scale;
                // What a code of zero stands for.
                zeros[output] = if bits.has_minimum() { minimum } else { -(bits.offset() as f32) * scale };
            }
            for (four, numbers) in numbers.as_chunks_mut::<{ 4 * TILE }>().0.iter_mut().enumerate() {
                let (four, shift, mask) = match bits {
                    Bits::Eight => (four, 0, 0xff),
                    _ => (four % 4, four / 4 * 4, 15),
                };
                let words = words_of(group.codes, four, tile);
                four_inputs(&words, shift, mask, &scales, &zeros, numbers);
            }
        }
    }
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
    scales: &[f32; TILE],
    zeros: &[f32; TILE],
    numbers: &mut [u16; 4 * TILE],
) {
    for (pair, numbers) in numbers.as_chunks_mut::<{ 2 * TILE }>().0.iter_mut().enumerate() {
        let mut pairs = [0u32; TILE];
        for output in 0..TILE {
            let (word, scale, zero) = (words[output] >> (16 * pair + shift), scales[output], zeros[output]);
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
