//! Activations of feed-forward layers other than `swiglu`: GELU's gate as Gemma computes it, and Apertus's xIELU without a gate.

use crate::elementary::{exp_minus_one, sigmoid};
use crate::path::vectorised;
use crate::swiglu::swiglu;

/// What is done to the gate before it is multiplied with up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// silu(gate) · up
    Silu,
    /// gelu(gate) · up, GELU by a hyperbolic tangent.
    GeluTanh,
}

impl Gate {
    /// `output` [rows, width] ← gate · up, where a row of `gate_up` is the gate's `width` elements, then up's.
    pub fn rows(self, gate_up: &[f32], width: usize, output: &mut [f32]) {
        match self {
            Gate::Silu => swiglu(gate_up, width, output),
            Gate::GeluTanh => geglu(gate_up, width, output),
        }
    }

    /// One element.
    #[inline(always)]
    pub(crate) fn apply(self, gate: f32, up: f32) -> f32 {
        // ½·x·(1 + tanh u) = x·sigmoid(2u), with u = √(2/π)·(x + 0.044715·x³)
        const TWICE_ROOT: f32 = 1.595_769;
        let inner = match self {
            Gate::Silu => gate,
            Gate::GeluTanh => TWICE_ROOT * (0.044_715 * gate * gate).mul_add(gate, gate),
        };
        gate * sigmoid(inner) * up
    }
}

vectorised! {
    /// `output` [tokens, width] ← gelu(gate) · up, where a row of `gate_up` is the gate's `width` elements, then up's. GELU in
    /// the approximation by a hyperbolic tangent (Hendrycks and Gimpel, arXiv 1606.08415).
    pub fn geglu(gate_up: &[f32], width: usize, output: &mut [f32]) {
        for (row, output) in gate_up.chunks_exact(2 * width).zip(output.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at(width);
            for ((y, &g), &u) in output.iter_mut().zip(gate).zip(up) {
                *y = Gate::GeluTanh.apply(g, u);
            }
        }
    }
}

/// The numbers of one layer's xIELU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xielu {
    /// Of the square above zero, after its softplus.
    pub positive: f32,
    /// Of the exponential below zero, after its softplus and with β added.
    pub negative: f32,
    /// Of the linear part.
    pub beta: f32,
    /// Largest argument of the exponential: just below zero.
    pub epsilon: f32,
}

vectorised! {
    /// `output` ← αₚ·x² + β·x above zero, αₙ·(e^min(x, ε) − 1 − x) + β·x below (Huang and Schlag, arXiv 2411.13010).
    pub fn xielu(x: &[f32], numbers: Xielu, output: &mut [f32]) {
        let Xielu { positive, negative, beta, epsilon } = numbers;
        for (y, &x) in output.iter_mut().zip(x) {
            let above = positive * x * x;
            let below = (exp_minus_one(if x < epsilon { x } else { epsilon }) - x) * negative;
            *y = beta.mul_add(x, if x > 0.0 { above } else { below });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{normal_numbers, same_on_every_path};

    #[test]
    fn geglu_agrees_with_its_formula() {
        let x = normal_numbers(1, 2 * 38).iter().map(|x| 3.0 * x).collect::<Vec<f32>>();
        let forward = || {
            let mut output = vec![0.0; 38];
            geglu(&x, 19, &mut output);
            output
        };
        for (i, found) in forward().into_iter().enumerate() {
            let at = i / 19 * 38 + i % 19;
            let (g, u) = (x[at] as f64, x[at + 19] as f64);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3));
            let expected = 0.5 * g * (1.0 + inner.tanh()) * u;
            assert!((found as f64 - expected).abs() < 2e-6 * expected.abs().max(1.0), "{g} {u}: {found}");
        }
        same_on_every_path(forward);
    }

    #[test]
    fn xielu_agrees_with_its_formula() {
        let x: Vec<f32> = (-80..80).map(|i| i as f32 / 16.0).collect();
        let numbers = Xielu { positive: 0.7, negative: 1.3, beta: 0.5, epsilon: -1e-6 };
        let forward = || {
            let mut output = vec![0.0; x.len()];
            xielu(&x, numbers, &mut output);
            output
        };
        for (&x, found) in x.iter().zip(forward()) {
            let x = x as f64;
            let expected = match x > 0.0 {
                true => 0.7 * x * x + 0.5 * x,
                false => (x.min(-1e-6).exp_m1() - x) * 1.3 + 0.5 * x,
            };
            assert!((found as f64 - expected).abs() < 1e-6 * expected.abs().max(1.0), "{x}: {found}");
        }
        same_on_every_path(forward);
    }
}
