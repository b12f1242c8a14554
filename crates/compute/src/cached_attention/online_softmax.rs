//! A softmax that goes along with its scores, span by span (Milakov and Gimelshein, arXiv 1805.02867): each row keeps the
//! largest score so far and the sum of its weights; when a larger one comes, what was added up before shrinks.

use crate::bf16::{DEPTH, TILE};
use crate::lanes::{LANES, maximum, sum_of_lanes};
use crate::path::{CpuPath, vectorised};

#[cfg(target_arch = "x86_64")]
mod avx512;

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
pub(super) const LOWEST: f32 = -40.0;
/// 1.5·2^23: adding it rounds to the nearest whole number.
pub(super) const ROUNDER: f32 = 12_582_912.0;
/// Of r³, r² and r in 2^r for |r| ≤ ½: minimax by relative error, 1e-4, with 1 at 0. A weight is rounded to bf16, to 4e-3.
pub(super) const POWER: [f32; 3] = [0.055_008_933, 0.242_210_97, 0.693_282_9];

/// 2^x for x up to 0.
#[inline(always)]
fn power_of_two(x: f32) -> f32 {
    let shifted = x + ROUNDER;
    let r = x - (shifted - ROUNDER);
    let p = POWER[0].mul_add(r, POWER[1]).mul_add(r, POWER[2]).mul_add(r, 1.0);
    let result = f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23));
    // Hidden scores are −∞. What is no number has no weight either.
    if x >= LOWEST { result } else { 0.0 }
}

/// Scores of some rows with one span of positions, on their way to weights.
pub struct SpanScores<'a> {
    /// Rows `stride` apart, as many as are kept in [`RunningRows`].
    pub scores: &'a [f32],
    pub stride: usize,
    /// Scores of a row: a multiple of 32.
    pub width: usize,
    /// A score s weighs 2^(s · exponent), but for the row's largest so far.
    pub exponent: f32,
    /// By which the weights that go on are multiplied, for each position.
    pub value_scales: Option<&'a [f32]>,
    /// Where the weights go, rounded to bf16: tiles, `tiles` beside each other.
    pub weights: &'a mut [u16],
    pub tiles: usize,
}

/// Takes one span more into the rows from `first` on.
pub fn weigh(span: &mut SpanScores, running: &mut RunningRows, first: usize) {
    let rows = span.scores.len() / span.stride;
    let (largest, sums) = (&mut running.largest[first..][..rows], &mut running.sums[first..][..rows]);
    let factors = &mut running.factors[first..][..rows];
    assert!(span.width.is_multiple_of(DEPTH) && span.width <= span.stride.min(span.tiles * DEPTH));
    assert!(span.weights.len() >= rows.div_ceil(TILE) * TILE * span.tiles * DEPTH);
    assert!(span.value_scales.is_none_or(|scales| scales.len() >= span.width));
    #[cfg(target_arch = "x86_64")]
    if CpuPath::current() == CpuPath::Avx512 {
        // SAFETY: the processor has AVX-512 F, DQ and BW; lengths are as asserted.
        unsafe { avx512::weigh(span, largest, sums, factors) };
        return;
    }
    weigh_plainly(span, largest, sums, factors);
}

vectorised! {
    fn weigh_plainly(span: &mut SpanScores<'_>, largest: &mut [f32], sums: &mut [f32], factors: &mut [f32]) {
        let SpanScores { scores, stride, width, exponent, value_scales, weights, tiles } = span;
        let (stride, width, exponent, tiles) = (*stride, *width, *exponent, *tiles);
        let weights = weights.as_chunks_mut::<LANES>().0;
        for (row, ((largest, sum), factor)) in largest.iter_mut().zip(sums).zip(factors).enumerate() {
            let scores = &scores[row * stride..][..width];
            let found = maximum(scores);
            let after = if found > *largest { found } else { *largest };
            // Where nothing has been seen so far, there is nothing to shrink.
            *factor = if after == *largest { 1.0 } else { power_of_two((*largest - after) * exponent) };
            *largest = after;
            let shift = -(after * exponent);
            let mut lanes = [0.0f32; LANES];
            for (part, scores) in scores.as_chunks::<LANES>().0.iter().enumerate() {
                let tile_row = (row / TILE * tiles + part / 2) * TILE + row % TILE;
                let line = &mut weights[2 * tile_row + part % 2];
                for lane in 0..LANES {
                    let weight = power_of_two(scores[lane].mul_add(exponent, shift));
                    let (counted, passed) = match value_scales {
                        // Rounded, so that the weights that count sum to one.
                        None => (f32::from_bits(half_up(weight) & 0xffff_0000), weight),
                        Some(scales) => (weight, weight * scales[part * LANES + lane]),
                    };
                    lanes[lane] += counted;
                    line[lane] = (half_up(passed) >> 16) as u16;
                }
            }
            *sum = sum.mul_add(*factor, sum_of_lanes(&lanes));
        }
    }
}

/// The nearest bf16 in the upper half, of two equally near the larger one.
#[inline(always)]
fn half_up(weight: f32) -> u32 {
    weight.to_bits().wrapping_add(0x8000)
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
