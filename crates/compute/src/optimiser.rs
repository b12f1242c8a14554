//! Steps of the optimiser over a stretch of parameters, and the norm that clipping needs.

use crate::lanes::{LANES, Lanes, sum_of_lanes};
use crate::path::vectorised;

/// One AdamW step (Loshchilov and Hutter, arXiv 1711.05101).
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// η of this step.
    pub learning_rate: f32,
    /// λ, decoupled: p ← p − η·λ·p. Zero for norms and biases.
    pub weight_decay: f32,
    /// β₁
    pub beta_1: f32,
    /// β₂
    pub beta_2: f32,
    /// ε
    pub epsilon: f32,
    /// 1 / (1 − β₁^t)
    pub first_correction: f32,
    /// 1 / (1 − β₂^t)
    pub second_correction: f32,
    /// Factor of the gradient: what clipping leaves of it.
    pub gradient_scale: f32,
}

vectorised! {
    /// Moves `parameters` and both moments by one step.
    pub fn adamw(parameters: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], step: AdamWStep) {
        let decay = 1.0 - step.learning_rate * step.weight_decay;
        let (rest_1, rest_2) = (1.0 - step.beta_1, 1.0 - step.beta_2);
        let moments = first.iter_mut().zip(second.iter_mut());
        for ((p, &g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
            let g = g * step.gradient_scale;
            *m = step.beta_1.mul_add(*m, rest_1 * g);
            *v = step.beta_2.mul_add(*v, rest_2 * (g * g));
            let denominator = (*v * step.second_correction).sqrt() + step.epsilon;
            let update = *m * step.first_correction / denominator;
            *p = p.mul_add(decay, -(step.learning_rate * update));
        }
    }
}

vectorised! {
    /// Σ x², in double precision over stretches of 1,024.
    pub fn squared_norm(x: &[f32]) -> f64 {
        let mut total = 0.0f64;
        for stretch in x.chunks(1024) {
            let mut lanes: Lanes = [0.0; LANES];
            let (whole, rest) = stretch.as_chunks::<LANES>();
            for chunk in whole {
                for lane in 0..LANES {
                    lanes[lane] = chunk[lane].mul_add(chunk[lane], lanes[lane]);
                }
            }
            for (lane, &value) in rest.iter().enumerate() {
                lanes[lane] = value.mul_add(value, lanes[lane]);
            }
            total += sum_of_lanes(&lanes) as f64;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{normal_numbers, same_on_every_path};

    #[test]
    fn adamw_follows_its_formula() {
        let step = AdamWStep {
            learning_rate: 0.01,
            weight_decay: 0.1,
            beta_1: 0.9,
            beta_2: 0.95,
            epsilon: 1e-8,
            first_correction: 1.0 / (1.0 - 0.9),
            second_correction: 1.0 / (1.0 - 0.95),
            gradient_scale: 0.5,
        };
        let (p, g) = (normal_numbers(1, 45), normal_numbers(2, 45));
        let run = || {
            let (mut moved, mut m, mut v) = (p.clone(), vec![0.0; 45], vec![0.0; 45]);
            adamw(&mut moved, &g, &mut m, &mut v, step);
            (moved, m, v)
        };
        // After the first step the update is the gradient's sign.
        for (i, &moved) in run().0.iter().enumerate() {
            let expected = p[i] as f64 * (1.0 - 0.001) - 0.01 * g[i].signum() as f64;
            assert!((moved as f64 - expected).abs() < 1e-5);
        }
        same_on_every_path(run);
        same_on_every_path(|| squared_norm(&g));
        assert!((squared_norm(&[3.0; 2500]) - 22_500.0).abs() < 1e-9);
    }
}
