//! Dropout whose mask is a pure function of (key, element): nothing is stored for the backward pass, and neither the
//! number of threads nor the cutting into micro-batches changes it.

use crate::path::vectorised;

/// Which elements fall away, and by how much the others grow.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    key: u64,
    threshold: u32,
    scale: f32,
}

impl Dropout {
    /// Drops with `probability`, in [0, 1); the key comes from `random::key` over seed, step, layer and place.
    ///
    /// # Panics
    /// When the probability is not in [0, 1).
    pub fn new(key: u64, probability: f32) -> Self {
        assert!((0.0..1.0).contains(&probability), "a dropout probability of {probability}");
        let threshold = (probability as f64 * 4_294_967_296.0) as u32;
        Dropout { key, threshold, scale: (1.0 / (1.0 - probability as f64)) as f32 }
    }

    /// The factor of an element: 0 or 1 / (1 − p). Two rounds of a 32-bit mixer (Wellons' `lowbias32`), half a key each.
    #[inline(always)]
    fn factor(self, index: u32) -> f32 {
        let mut h = index ^ (self.key as u32);
        h ^= h >> 16;
        h = h.wrapping_mul(0x7feb_352d);
        h ^= h >> 15;
        h = h.wrapping_add((self.key >> 32) as u32);
        h = h.wrapping_mul(0x846c_a68b);
        h ^= h >> 16;
        if h >= self.threshold { self.scale } else { 0.0 }
    }
}

vectorised! {
    /// x ← x · mask, in place. `first` is the index of x[0] among all elements of the step. Also its own backward.
    pub fn dropout(x: &mut [f32], dropout: Dropout, first: u32) {
        for (i, x) in x.iter_mut().enumerate() {
            *x *= dropout.factor(first.wrapping_add(i as u32));
        }
    }
}

vectorised! {
    /// `output` ← `residual` + `branch` · mask.
    pub fn add_with_dropout(residual: &[f32], branch: &[f32], dropout: Dropout, first: u32, output: &mut [f32]) {
        for (i, ((y, &x), &b)) in output.iter_mut().zip(residual).zip(branch).enumerate() {
            *y = b.mul_add(dropout.factor(first.wrapping_add(i as u32)), x);
        }
    }
}

vectorised! {
    /// `branch_gradient` ← `output_gradient` · mask.
    pub fn add_with_dropout_backward(output_gradient: &[f32], dropout: Dropout, first: u32, branch_gradient: &mut [f32]) {
        for (i, (d, &dy)) in branch_gradient.iter_mut().zip(output_gradient).enumerate() {
            *d = dy * dropout.factor(first.wrapping_add(i as u32));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use crate::testing::same_on_every_path;

    fn mask(key: u64, probability: f32, first: u32, length: usize) -> Vec<f32> {
        let mut x = vec![1.0; length];
        dropout(&mut x, Dropout::new(key, probability), first);
        x
    }

    #[test]
    fn drops_the_wanted_share_and_keeps_the_mean() {
        let x = mask(random::key(&[1, 2]), 0.15, 0, 100_000);
        let dropped = x.iter().filter(|&&v| v == 0.0).count() as f64 / 1e5;
        assert!((dropped - 0.15).abs() < 0.004, "{dropped}");
        assert!((x.iter().sum::<f32>() / 1e5 - 1.0).abs() < 0.005);
        assert!(mask(3, 0.0, 0, 1000).iter().all(|&v| v == 1.0));
    }

    #[test]
    fn is_a_function_of_key_and_index_alone() {
        let key = random::key(&[9]);
        assert_eq!(mask(key, 0.3, 100, 50), mask(key, 0.3, 0, 150)[100..]);
        assert_ne!(mask(key, 0.3, 0, 150), mask(random::key(&[10]), 0.3, 0, 150));
        same_on_every_path(|| mask(key, 0.3, 7, 133));
    }

    #[test]
    fn the_backward_has_the_forward_mask() {
        let rate = Dropout::new(random::key(&[5]), 0.5);
        let (residual, branch) = (vec![1.0; 77], vec![2.0; 77]);
        let (mut output, mut gradient) = (vec![0.0; 77], vec![0.0; 77]);
        add_with_dropout(&residual, &branch, rate, 3, &mut output);
        add_with_dropout_backward(&residual, rate, 3, &mut gradient);
        for i in 0..77 {
            assert_eq!(output[i], 1.0 + 2.0 * gradient[i]);
        }
    }
}
