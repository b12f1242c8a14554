//! What the kernels' tests share: random rows and derivatives by finite differences.

use crate::random;

/// `length` standard normal numbers.
pub fn normal_numbers(seed: u64, length: usize) -> Vec<f32> {
    (0..length).map(|i| random::normal(seed, i as u64) as f32).collect()
}

/// Compares `gradient` with central differences of `loss` at `x`, in the norm over all elements.
pub fn check_gradient(what: &str, x: &[f32], gradient: &[f32], mut loss: impl FnMut(&[f32]) -> f64) {
    let step = 1e-2f32;
    let mut moved = x.to_vec();
    let (mut error, mut scale) = (0.0f64, 0.0f64);
    for i in 0..x.len() {
        let (above, below) = (x[i] + step, x[i] - step);
        moved[i] = above;
        let high = loss(&moved);
        moved[i] = below;
        let low = loss(&moved);
        moved[i] = x[i];
        let expected = (high - low) / (above - below) as f64;
        error += (expected - gradient[i] as f64).powi(2);
        scale += expected.powi(2);
    }
    let relative = (error / scale.max(1e-30)).sqrt();
    assert!(relative < 2e-3, "{what}: relative error {relative:e}");
}

/// Σ output · weight: a loss whose gradient by the output is `weight`.
pub fn weighted_sum(output: &[f32], weight: &[f32]) -> f64 {
    output.iter().zip(weight).map(|(&o, &w)| o as f64 * w as f64).sum()
}

/// Runs `work` on every path of this processor and demands the same bits from all.
pub fn same_on_every_path<T: PartialEq + std::fmt::Debug>(work: impl Fn() -> T) {
    let expected = crate::path::with_path(crate::CpuPath::Portable, &work);
    for path in crate::CpuPath::available() {
        assert_eq!(crate::path::with_path(path, &work), expected, "{path:?}");
    }
}
