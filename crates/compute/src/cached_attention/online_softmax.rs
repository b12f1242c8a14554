//! A softmax that goes along with its scores, span by span (Milakov and Gimelshein, arXiv 1805.02867): each row keeps the
//! largest score so far and the sum of its weights; when a larger one comes, what was added up before shrinks.

use crate::bf16::{DEPTH, TILE};
use crate::float16::bf16_value;
use crate::lanes::{LANES, maximum, sum_of_lanes};
use crate::path::vectorised;

/// What is kept of some rows while their scores come.
#[derive(Debug, Default)]
pub struct RunningRows {
    /// The largest score so far.
    pub largest: Vec<f32>,
    /// Of weights.
    pub sums: Vec<f32>,
    /// By which the last span shrank what had been added up before.
    pub factors: Vec<f32>,
}

impl RunningRows {
    /// Begins with `rows` rows.
    pub fn begin(&mut self, rows: usize) {
        for (part, value) in
            [(&mut self.largest, f32::NEG_INFINITY), (&mut self.sums, 0.0), (&mut self.factors, 1.0)]
        {
            part.clear();
            part.resize(rows, value);
        }
    }
}

/// A weight below 2^−40 of the largest one counts as none: it cannot be seen in f32, and further down the matrix unit takes
/// for zero what vectors do not.
const LOWEST: f32 = -40.0;

/// 2^x for x up to 0, to 1e-4 (it is rounded to bf16 afterwards, to 4e-3): minimax by relative error, and 1 at 0.
#[inline(always)]
fn power_of_two(x: f32) -> f32 {
    const ROUNDER: f32 = 12_582_912.0; // 1.5·2^23: adding it rounds to the nearest whole number
    let shifted = x + ROUNDER;
    let r = x - (shifted - ROUNDER);
    let mut p = 0.055_008_933f32;
    p = p.mul_add(r, 0.242_210_97);
    p = p.mul_add(r, 0.693_282_9);
    p = p.mul_add(r, 1.0);
    let result = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    // Hidden scores are −∞. What is no number has no weight either.
    if x >= LOWEST { result } else { 0.0 }
}

vectorised! {
    /// Takes `width` scores (a multiple of 32) of each row, `stride` apart. A score s weighs 2^(s · `exponent`), but for the row's
    /// largest so far. The weights, rounded to bf16, go to `weights`, tiles of `tiles` beside each other.
    pub fn weigh(
        scores: &[f32],
        stride: usize,
        width: usize,
        exponent: f32,
        largest: &mut [f32],
        sums: &mut [f32],
        factors: &mut [f32],
        weights: &mut [u16],
        tiles: usize,
    ) {
        let weights = weights.as_chunks_mut::<DEPTH>().0;
        for (row, ((largest, sum), factor)) in largest.iter_mut().zip(sums).zip(factors).enumerate() {
            let scores = &scores[row * stride..][..width];
            let shift = begin_span(scores, exponent, largest, factor);
            let mut lanes = [0.0f32; LANES];
            for (step, scores) in scores.as_chunks::<DEPTH>().0.iter().enumerate() {
                let line = &mut weights[(row / TILE * tiles + step) * TILE + row % TILE];
                for (scores, line) in scores.as_chunks::<LANES>().0.iter().zip(line.as_chunks_mut::<LANES>().0) {
                    let mut bits = [0u32; LANES];
                    for lane in 0..LANES {
                        let weight = power_of_two(scores[lane].mul_add(exponent, shift));
                        bits[lane] = weight.to_bits().wrapping_add(0x8000) >> 16;
                    }
                    for lane in 0..LANES {
                        line[lane] = bits[lane] as u16;
                        // Rounded, so that the weights that count sum to one.
                        lanes[lane] += bf16_value(bits[lane] as u16);
                    }
                }
            }
            *sum = sum.mul_add(*factor, sum_of_lanes(&lanes));
        }
    }
}

vectorised! {
    /// [`weigh`], where the weights that go on are multiplied by their positions' `value_scales`.
    pub fn weigh_scaled(
        scores: &[f32],
        stride: usize,
        width: usize,
        exponent: f32,
        value_scales: &[f32],
        largest: &mut [f32],
        sums: &mut [f32],
        factors: &mut [f32],
        weights: &mut [u16],
        tiles: usize,
    ) {
        let weights = weights.as_chunks_mut::<DEPTH>().0;
        let value_scales = value_scales.as_chunks::<DEPTH>().0;
        for (row, ((largest, sum), factor)) in largest.iter_mut().zip(sums).zip(factors).enumerate() {
            let scores = &scores[row * stride..][..width];
            let shift = begin_span(scores, exponent, largest, factor);
            let mut lanes = [0.0f32; LANES];
            for (step, scores) in scores.as_chunks::<DEPTH>().0.iter().enumerate() {
                let line = &mut weights[(row / TILE * tiles + step) * TILE + row % TILE];
                let scales = value_scales[step].as_chunks::<LANES>().0;
                for (part, scores) in scores.as_chunks::<LANES>().0.iter().enumerate() {
                    for lane in 0..LANES {
                        let weight = power_of_two(scores[lane].mul_add(exponent, shift));
                        lanes[lane] += weight;
                        let scaled = (weight * scales[part][lane]).to_bits().wrapping_add(0x8000);
                        line[part * LANES + lane] = (scaled >> 16) as u16;
                    }
                }
            }
            *sum = sum.mul_add(*factor, sum_of_lanes(&lanes));
        }
    }
}

/// Moves a row's largest score and says what is added to scores, and by what earlier sums shrink.
#[inline(always)]
fn begin_span(scores: &[f32], exponent: f32, largest: &mut f32, factor: &mut f32) -> f32 {
    let found = maximum(scores);
    let after = if found > *largest { found } else { *largest };
    *factor = power_of_two((*largest - after) * exponent);
    if after == *largest {
        // Also where nothing has been seen so far.
        *factor = 1.0;
    }
    *largest = after;
    -(after * exponent)
}

vectorised! {
    /// Multiplies each row (`width` elements, `stride` apart) by its factor.
    pub fn shrink(rows: &mut [f32], stride: usize, width: usize, factors: &[f32]) {
        for (row, &factor) in factors.iter().enumerate() {
            if factor != 1.0 {
                for x in &mut rows[row * stride..][..width] {
                    *x *= factor;
                }
            }
        }
    }
}

vectorised! {
    /// Multiplies the columns of some rows, `stride` apart.
    pub fn scale_columns(rows: &mut [f32], stride: usize, scales: &[f32]) {
        for row in rows.chunks_mut(stride) {
            for (x, &scale) in row.iter_mut().zip(scales) {
                *x *= scale;
            }
        }
    }
}
