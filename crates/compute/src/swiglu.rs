//! The gated activation of Llama-style feed-forward layers (Shazeer, arXiv 2002.05202): silu(gate) · up.

use crate::activations::Gate;
use crate::elementary::sigmoid;
use crate::path::vectorised;

vectorised! {
    /// `output` [tokens, width] ← silu(gate) · up, where a row of `gate_up` is the gate's `width` elements, then up's.
    pub fn swiglu(gate_up: &[f32], width: usize, output: &mut [f32]) {
        for (row, output) in gate_up.chunks_exact(2 * width).zip(output.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at(width);
            for ((y, &g), &u) in output.iter_mut().zip(gate).zip(up) {
                *y = Gate::Silu.apply(g, u);
            }
        }
    }
}

vectorised! {
    /// The gradient by gate and up into `gate_up_gradient`.
    pub fn swiglu_backward(output_gradient: &[f32], gate_up: &[f32], width: usize, gate_up_gradient: &mut [f32]) {
        let rows = gate_up.chunks_exact(2 * width).zip(output_gradient.chunks_exact(width));
        for ((row, dy), gradient) in rows.zip(gate_up_gradient.chunks_exact_mut(2 * width)) {
            let (gate, up) = row.split_at(width);
            let (dg, du) = gradient.split_at_mut(width);
            for ((((dg, du), &g), &u), &dy) in dg.iter_mut().zip(du).zip(gate).zip(up).zip(dy) {
                let s = sigmoid(g);
                let silu = g * s;
                *du = dy * silu;
                *dg = dy * u * silu.mul_add(1.0 - s, s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, normal_numbers, same_on_every_path, weighted_sum};

    fn forward(gate_up: &[f32]) -> Vec<f32> {
        let mut output = vec![0.0; 38];
        swiglu(gate_up, 19, &mut output);
        output
    }

    #[test]
    fn agrees_with_its_formula_and_finite_differences() {
        let (x, dy) = (normal_numbers(1, 76), normal_numbers(2, 38));
        let expected = x[2] as f64 / (1.0 + (-x[2] as f64).exp()) * x[21] as f64;
        assert!((forward(&x)[2] as f64 - expected).abs() < 1e-6);
        let backward = || {
            let mut dx = vec![0.0; 76];
            swiglu_backward(&dy, &x, 19, &mut dx);
            dx
        };
        check_gradient("gate and up", &x, &backward(), |x| weighted_sum(&forward(x), &dy));
        same_on_every_path(|| (forward(&x), backward()));
    }
}
