//! The softmax of rows of attention scores, and its backward: shared by training and by the cache's attention, so that both
//! give the same bits.

use crate::elementary::{exp, tanh};
use crate::lanes::{LANES, dot, maximum, sum_of_lanes};
use crate::path::vectorised;

vectorised! {
    /// Turns row i of `scores` (rows `stride` apart) into e^((s − max)·scale) over its first `first_count` + i elements and
    /// zero up to `width`; 1 / Σ into `reciprocals`, and −max·scale into `shifts`.
    ///
    /// The weights are not yet divided by their sum: that is cheaper on the weighted values.
    pub fn exponentials(
        scores: &mut [f32],
        stride: usize,
        width: usize,
        first_count: usize,
        scale: f32,
        shifts: &mut [f32],
        reciprocals: &mut [f32],
    ) {
        for (i, (shift, reciprocal)) in shifts.iter_mut().zip(reciprocals).enumerate() {
            let row = &mut scores[i * stride..][..width];
            let count = first_count + i;
            let largest = maximum(&row[..count]);
            // Whole vectors: what lies beyond `count` becomes e^−∞ = 0.
            row[count..].fill(f32::NEG_INFINITY);
            let mut lanes = [0.0f32; LANES];
            *shift = -(largest * scale);
            let shift = *shift;
            let (whole, rest) = row.as_chunks_mut::<LANES>();
            let used = count.div_ceil(LANES).min(whole.len());
            for chunk in &mut whole[..used] {
                for lane in 0..LANES {
                    let weight = exp(chunk[lane].mul_add(scale, shift));
                    chunk[lane] = weight;
                    lanes[lane] += weight;
                }
            }
            for chunk in &mut whole[used..] {
                *chunk = [0.0; LANES];
            }
            for (lane, score) in rest.iter_mut().enumerate() {
                let weight = exp(score.mul_add(scale, shift));
                *score = weight;
                lanes[lane] += weight;
            }
            *reciprocal = 1.0 / sum_of_lanes(&lanes);
        }
    }
}

vectorised! {
    /// Row by row, score ← cap · tanh(score · scale / cap): scores stay between −cap and cap (Gemma 2, arXiv 2408.00118).
    pub fn soft_cap(scores: &mut [f32], stride: usize, width: usize, scale: f32, cap: f32) {
        let inner = scale / cap;
        for row in scores.chunks_mut(stride) {
            for score in &mut row[..width] {
                *score = cap * tanh(*score * inner);
            }
        }
    }
}

vectorised! {
    /// Turns row i of `scores` into the softmax that `exponentials` and its division gave.
    pub fn probabilities(
        scores: &mut [f32],
        stride: usize,
        width: usize,
        first_count: usize,
        scale: f32,
        shifts: &[f32],
        reciprocals: &[f32],
    ) {
        for (i, (&shift, &reciprocal)) in shifts.iter().zip(reciprocals).enumerate() {
            let row = &mut scores[i * stride..][..width];
            let count = first_count + i;
            for score in &mut row[..count] {
                *score = exp(score.mul_add(scale, shift)) * reciprocal;
            }
            row[count..].fill(0.0);
        }
    }
}

vectorised! {
    /// `gradients` ← probability · (gradient − δ) · scale, row by row: from gradients by probabilities to those by scores.
    pub fn score_gradients(
        gradients: &mut [f32],
        probabilities: &[f32],
        stride: usize,
        width: usize,
        first_count: usize,
        scale: f32,
        deltas: &[f32],
    ) {
        for (i, &delta) in deltas.iter().enumerate() {
            let count = first_count + i;
            let row = &mut gradients[i * stride..][..width];
            let weights = &probabilities[i * stride..][..width];
            for (d, &p) in row[..count].iter_mut().zip(weights) {
                *d = p * (*d - delta) * scale;
            }
            row[count..].fill(0.0);
        }
    }
}

vectorised! {
    /// δ of each row: Σ output · gradient over `width` elements, rows `stride` apart.
    pub fn row_dots(x: &[f32], y: &[f32], stride: usize, width: usize, dots: &mut [f32]) {
        for (i, result) in dots.iter_mut().enumerate() {
            *result = dot(&x[i * stride..][..width], &y[i * stride..][..width]);
        }
    }
}

vectorised! {
    /// Multiplies each row (of `width` elements, `stride` apart) by its factor.
    pub fn scale_rows(x: &mut [f32], stride: usize, width: usize, factors: &[f32]) {
        for (i, &factor) in factors.iter().enumerate() {
            for x in &mut x[i * stride..][..width] {
                *x *= factor;
            }
        }
    }
}
