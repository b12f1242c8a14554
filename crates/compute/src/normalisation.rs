//! Root mean square normalisation (Zhang and Sennrich, arXiv 1910.07467): y = w · x / √(mean x² + ε), row by row.

use crate::lanes::{LANES, dot, sum_of_lanes};
use crate::path::vectorised;

vectorised! {
    /// `output` ← w · x · r, and r = 1 / √(mean x² + ε) into `reciprocal`, for rows of `weight.len()` elements.
    pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, output: &mut [f32], reciprocal: &mut [f32]) {
        let width = weight.len();
        for ((x, y), r) in x.chunks_exact(width).zip(output.chunks_exact_mut(width)).zip(reciprocal) {
            *r = reciprocal_root_mean_square(x, epsilon);
            let r = *r;
            for ((y, &x), &w) in y.iter_mut().zip(x).zip(weight) {
                *y = w * (x * r);
            }
        }
    }
}

vectorised! {
    /// Norms `weight.len()` elements of every row in place; rows begin `stride` apart, and the elements at `first` in each.
    pub fn rms_norm_in_place(x: &mut [f32], stride: usize, first: usize, weight: &[f32], epsilon: f32) {
        for row in x.chunks_exact_mut(stride) {
            let row = &mut row[first..first + weight.len()];
            let r = reciprocal_root_mean_square(row, epsilon);
            for (x, &w) in row.iter_mut().zip(weight) {
                *x = w * (*x * r);
            }
        }
    }
}

vectorised! {
    /// Adds the gradient by x to `x_gradient` and, where wanted, the gradient by w to `weight_gradient`.
    pub fn rms_norm_backward(
        output_gradient: &[f32],
        x: &[f32],
        weight: &[f32],
        reciprocal: &[f32],
        x_gradient: &mut [f32],
        weight_gradient: Option<&mut [f32]>,
    ) {
        let width = weight.len();
        let mut weight_gradient = weight_gradient;
        for (row, &r) in reciprocal.iter().enumerate() {
            let span = row * width..(row + 1) * width;
            let (dy, x) = (&output_gradient[span.clone()], &x[span.clone()]);
            let dx = &mut x_gradient[span];
            let pull = dot_of_three(dy, weight, x) * r * r * r / width as f32;
            for (((dx, &dy), &x), &w) in dx.iter_mut().zip(dy).zip(x).zip(weight) {
                *dx += (dy * w).mul_add(r, -(x * pull));
            }
            if let Some(gradient) = weight_gradient.as_deref_mut() {
                for ((g, &dy), &x) in gradient.iter_mut().zip(dy).zip(x) {
                    *g = dy.mul_add(x * r, *g);
                }
            }
        }
    }
}

/// 1 / √(mean x² + ε)
#[inline(always)]
pub(crate) fn reciprocal_root_mean_square(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + epsilon).sqrt()
}

/// Σ a·b·c
#[inline(always)]
pub(crate) fn dot_of_three(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let length = a.len();
    let (b, c) = (&b[..length], &c[..length]);
    let mut lanes = [0.0f32; LANES];
    let whole = length / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let (a, b, c) = (&a[start..start + LANES], &b[start..start + LANES], &c[start..start + LANES]);
        for lane in 0..LANES {
            lanes[lane] = (a[lane] * b[lane]).mul_add(c[lane], lanes[lane]);
        }
    }
    for (lane, i) in (whole..length).enumerate() {
        lanes[lane] = (a[i] * b[i]).mul_add(c[i], lanes[lane]);
    }
    sum_of_lanes(&lanes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, normal_numbers, same_on_every_path, weighted_sum};

    const EPSILON: f32 = 1e-5;

    fn forward(x: &[f32], weight: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let mut output = vec![0.0; x.len()];
        let mut reciprocal = vec![0.0; x.len() / weight.len()];
        rms_norm(x, weight, EPSILON, &mut output, &mut reciprocal);
        (output, reciprocal)
    }

    #[test]
    fn agrees_with_its_formula() {
        let (x, w) = (normal_numbers(1, 3 * 21), normal_numbers(2, 21));
        let (output, _) = forward(&x, &w);
        for row in 0..3 {
            let x = &x[row * 21..][..21];
            let mean: f64 = x.iter().map(|&v| (v as f64).powi(2)).sum::<f64>() / 21.0;
            for i in 0..21 {
                let expected = w[i] as f64 * x[i] as f64 / (mean + EPSILON as f64).sqrt();
                assert!((output[row * 21 + i] as f64 - expected).abs() < 1e-6);
            }
        }
        same_on_every_path(|| forward(&x, &w));
    }

    #[test]
    fn in_place_has_the_same_bits() {
        let (x, w) = (normal_numbers(1, 3 * 40), normal_numbers(2, 21));
        let mut found = x.clone();
        rms_norm_in_place(&mut found, 40, 9, &w, EPSILON);
        for row in 0..3 {
            let (before, after) = (&x[row * 40..][..40], &found[row * 40..][..40]);
            assert_eq!(after[9..30], forward(&before[9..30], &w).0);
            assert_eq!((&after[..9], &after[30..]), (&before[..9], &before[30..]));
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        let (x, w, dy) = (normal_numbers(1, 2 * 37), normal_numbers(2, 37), normal_numbers(3, 2 * 37));
        let (_, reciprocal) = forward(&x, &w);
        let backward = || {
            let (mut dx, mut dw) = (vec![0.0; x.len()], vec![0.0; w.len()]);
            rms_norm_backward(&dy, &x, &w, &reciprocal, &mut dx, Some(&mut dw));
            (dx, dw)
        };
        let (dx, dw) = backward();
        check_gradient("x", &x, &dx, |x| weighted_sum(&forward(x, &w).0, &dy));
        check_gradient("w", &w, &dw, |w| weighted_sum(&forward(&x, w).0, &dy));
        same_on_every_path(backward);
    }
}
