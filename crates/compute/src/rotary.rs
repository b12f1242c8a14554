//! Rotary position embedding (Su et al., arXiv 2104.09864) in the layout of Hugging Face's models (element i turns with
//! element i + half), fused with the RMS norm that Qwen3 gives each head of queries and keys before it.

use crate::elementary::{power, sine_cosine};
use crate::lanes::{LANES, update};
use crate::normalisation::{dot_of_three, reciprocal_root_mean_square};
use crate::path::vectorised;

/// Cosines and sines of every (position, pair), [positions, head_dim / 2].
#[derive(Clone, Debug)]
pub struct RotaryTable {
    half: usize,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RotaryTable {
    /// The table for positions 0..`positions`.
    pub fn new(positions: usize, head_dim: usize, theta: f64) -> Self {
        let mut table = RotaryTable { half: head_dim / 2, cosines: Vec::new(), sines: Vec::new() };
        table.fill(&frequencies(head_dim, theta), 1.0, 0..positions as u32);
        table
    }

    /// A table without positions.
    pub fn empty() -> Self {
        RotaryTable { half: 0, cosines: Vec::new(), sines: Vec::new() }
    }

    /// Makes it the table whose entry i belongs to the i-th of `positions`; cosines and sines times `factor`. Angles are
    /// rounded as transformers rounds them: the inverse frequency to f32, and its product with the position to f32.
    pub fn fill(&mut self, frequencies: &[f32], factor: f32, positions: impl ExactSizeIterator<Item = u32>) {
        self.half = frequencies.len();
        self.cosines.clear();
        self.sines.clear();
        self.cosines.reserve(positions.len() * self.half);
        self.sines.reserve(positions.len() * self.half);
        for position in positions {
            for frequency in frequencies {
                let (sine, cosine) = sine_cosine((position as f32 * frequency) as f64);
                self.cosines.push(cosine as f32 * factor);
                self.sines.push(sine as f32 * factor);
            }
        }
    }

    /// How many positions the table has.
    pub fn positions(&self) -> usize {
        self.cosines.len() / self.half.max(1)
    }

    #[inline(always)]
    fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let span = position as usize * self.half..(position as usize + 1) * self.half;
        (&self.cosines[span.clone()], &self.sines[span])
    }
}

/// The inverse frequency of each pair of a head: θ^(−2i / head_dim).
pub fn frequencies(head_dim: usize, theta: f64) -> Vec<f32> {
    (0..head_dim / 2).map(|i| power(theta, -2.0 * i as f64 / head_dim as f64) as f32).collect()
}

/// Where the heads of one projection stand inside the rows of a fused one.
#[derive(Clone, Copy, Debug)]
pub struct HeadSpan {
    /// Elements of a whole row.
    pub row_stride: usize,
    /// First element of the first head.
    pub first: usize,
    /// Number of heads.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// The norm that each head gets before its rotation.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm<'a> {
    /// [head_dim]
    pub weight: &'a [f32],
    /// ε
    pub epsilon: f32,
}

vectorised! {
    /// `output` [tokens, heads · head_dim] ← rotated (and normalised) heads of `input`; the norms' reciprocals into
    /// `reciprocal` [tokens · heads] (untouched without a norm).
    pub fn normalise_and_rotate(
        input: &[f32],
        span: HeadSpan,
        norm: Option<HeadNorm>,
        table: &RotaryTable,
        positions: &[u32],
        output: &mut [f32],
        reciprocal: &mut [f32],
    ) {
        let HeadSpan { row_stride, first, heads, head_dim } = span;
        let half = head_dim / 2;
        for (token, &position) in positions.iter().enumerate() {
            let (cosines, sines) = table.at(position);
            for head in 0..heads {
                let x = &input[token * row_stride + first + head * head_dim..][..head_dim];
                let y = &mut output[(token * heads + head) * head_dim..][..head_dim];
                match norm {
                    Some(HeadNorm { weight, epsilon }) => {
                        let r = reciprocal_root_mean_square(x, epsilon);
                        reciprocal[token * heads + head] = r;
                        update(y, [x, weight], |[x, w], _| w * (x * r));
                    }
                    None => y.copy_from_slice(x),
                }
                let (low, high) = y.split_at_mut(half);
                turn(low, high, cosines, sines, 1.0);
            }
        }
    }
}

vectorised! {
    /// The gradient by `input` into the heads' places of `input_gradient` (same layout as `input`), and added to
    /// `weight_gradient`, where wanted, the one by the norm's weight. `output_gradient` is turned back in place.
    pub fn normalise_and_rotate_backward(
        output_gradient: &mut [f32],
        input: &[f32],
        span: HeadSpan,
        norm: Option<HeadNorm>,
        table: &RotaryTable,
        positions: &[u32],
        reciprocal: &[f32],
        input_gradient: &mut [f32],
        weight_gradient: Option<&mut [f32]>,
    ) {
        let HeadSpan { row_stride, first, heads, head_dim } = span;
        let half = head_dim / 2;
        let mut weight_gradient = weight_gradient;
        for (token, &position) in positions.iter().enumerate() {
            let (cosines, sines) = table.at(position);
            for head in 0..heads {
                let begin = token * row_stride + first + head * head_dim;
                let dy = &mut output_gradient[(token * heads + head) * head_dim..][..head_dim];
                let dx = &mut input_gradient[begin..begin + head_dim];
                let (low, high) = dy.split_at_mut(half);
                turn(low, high, cosines, sines, -1.0);
                let Some(HeadNorm { weight, .. }) = norm else {
                    dx.copy_from_slice(dy);
                    continue;
                };
                let x = &input[begin..begin + head_dim];
                let r = reciprocal[token * heads + head];
                let pull = dot_of_three(dy, weight, x) * r * r * r / head_dim as f32;
                update(dx, [dy, x, weight], |[dy, x, w], _| (dy * w).mul_add(r, -(x * pull)));
                if let Some(gradient) = weight_gradient.as_deref_mut() {
                    update(gradient, [dy, x], |[dy, x], sum| dy.mul_add(x * r, sum));
                }
            }
        }
    }
}

/// Turns the pairs (low, high) by their angles, or back.
#[inline(always)]
fn turn(low: &mut [f32], high: &mut [f32], cosines: &[f32], sines: &[f32], direction: f32) {
    let ((lows, low_rest), (highs, high_rest)) =
        (low.as_chunks_mut::<LANES>(), high.as_chunks_mut::<LANES>());
    let ((cosines, cosine_rest), (sines, sine_rest)) =
        (cosines.as_chunks::<LANES>(), sines.as_chunks::<LANES>());
    for (((low, high), c), s) in lows.iter_mut().zip(highs).zip(cosines).zip(sines) {
        let (a, b) = (*low, *high);
        let (mut turned_low, mut turned_high) = ([0.0f32; LANES], [0.0f32; LANES]);
        for lane in 0..LANES {
            let s = direction * s[lane];
            turned_low[lane] = a[lane].mul_add(c[lane], -(b[lane] * s));
            turned_high[lane] = b[lane].mul_add(c[lane], a[lane] * s);
        }
        (*low, *high) = (turned_low, turned_high);
    }
    for (((low, high), c), s) in low_rest.iter_mut().zip(high_rest).zip(cosine_rest).zip(sine_rest) {
        let (a, b, s) = (*low, *high, direction * s);
        *low = a.mul_add(*c, -(b * s));
        *high = b.mul_add(*c, a * s);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, normal_numbers, same_on_every_path, weighted_sum};

    const SPAN: HeadSpan = HeadSpan { row_stride: 45, first: 3, heads: 2, head_dim: 20 };
    const POSITIONS: [u32; 3] = [0, 1, 7];

    fn forward(input: &[f32], weight: Option<&[f32]>, table: &RotaryTable) -> (Vec<f32>, Vec<f32>) {
        let (mut output, mut reciprocal) = (vec![0.0; 3 * 40], vec![0.0; 6]);
        let norm = weight.map(|weight| HeadNorm { weight, epsilon: 1e-6 });
        normalise_and_rotate(input, SPAN, norm, table, &POSITIONS, &mut output, &mut reciprocal);
        (output, reciprocal)
    }

    #[test]
    fn turns_pairs_by_position_times_frequency() {
        let table = RotaryTable::new(8, 20, 10_000.0);
        assert_eq!(table.positions(), 8);
        let input = normal_numbers(1, 3 * 45);
        let (output, _) = forward(&input, None, &table);
        for (token, position) in POSITIONS.into_iter().enumerate() {
            for i in 0..10 {
                let angle = position as f64 * 10_000f64.powf(-2.0 * i as f64 / 20.0);
                let (a, b) = (input[token * 45 + 3 + i] as f64, input[token * 45 + 13 + i] as f64);
                assert!((output[token * 40 + i] as f64 - (a * angle.cos() - b * angle.sin())).abs() < 1e-6);
                assert!(
                    (output[token * 40 + 10 + i] as f64 - (b * angle.cos() + a * angle.sin())).abs() < 1e-6
                );
            }
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        let table = RotaryTable::new(8, 20, 100.0);
        let (input, w, dy) = (normal_numbers(1, 3 * 45), normal_numbers(2, 20), normal_numbers(3, 3 * 40));
        for weight in [None, Some(&w[..])] {
            let (_, reciprocal) = forward(&input, weight, &table);
            let norm = weight.map(|weight| HeadNorm { weight, epsilon: 1e-6 });
            let backward = || {
                let (mut dx, mut dw) = (vec![0.0; input.len()], vec![0.0; 20]);
                normalise_and_rotate_backward(
                    &mut dy.clone(),
                    &input,
                    SPAN,
                    norm,
                    &table,
                    &POSITIONS,
                    &reciprocal,
                    &mut dx,
                    Some(&mut dw),
                );
                (dx, dw)
            };
            let (dx, dw) = backward();
            check_gradient("input", &input, &dx, |input| {
                weighted_sum(&forward(input, weight, &table).0, &dy)
            });
            if weight.is_some() {
                check_gradient("weight", &w, &dw, |w| weighted_sum(&forward(&input, Some(w), &table).0, &dy));
            }
            same_on_every_path(backward);
        }
    }
}
