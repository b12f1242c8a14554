//! One Muon step: the momentum of a matrix, made orthogonal, is its update (Jordan et al. 2024; scaled as in
//! arXiv 2502.16982, so that AdamW's learning rate and decay serve both).
//!
//! The orthogonal factor comes from five Newton–Schulz iterations X ← aX + (bG + cG²)X with G = XXᵀ, which bring all
//! singular values near 1 without a decomposition.

use crate::elementwise::scale;
use crate::optimiser::squared_norm;
use crate::path::vectorised;
use crate::product::{MatrixMut, MatrixRef, Start, multiply};

/// Newton–Schulz iterations, and the quintic's coefficients that rise fastest near zero (Jordan et al. 2024).
const ITERATIONS: usize = 5;
const COEFFICIENTS: (f32, f32, f32) = (3.4445, -4.775, 2.0315);

/// Matches the root mean square of AdamW's updates (arXiv 2502.16982, section 2.2).
const UPDATE_RMS: f32 = 0.2;

/// One step of one matrix.
#[derive(Clone, Copy, Debug)]
pub struct MuonStep {
    /// η of this step.
    pub learning_rate: f32,
    /// λ, decoupled: p ← p − η·λ·p.
    pub weight_decay: f32,
    /// μ of the momentum (Nesterov).
    pub momentum: f32,
    /// Factor of the gradient: what clipping leaves of it.
    pub gradient_scale: f32,
}

/// Buffers for matrices up to a size; kept between steps, so that a step allocates nothing.
#[derive(Debug, Default)]
pub struct MuonBuffers {
    update: Vec<f32>,
    next: Vec<f32>,
    gram: Vec<f32>,
    square: Vec<f32>,
}

impl MuonBuffers {
    /// Makes room for a matrix of this shape.
    pub fn reserve(&mut self, rows: usize, columns: usize) {
        let (length, side) = (rows * columns, rows.min(columns));
        for (buffer, length) in [
            (&mut self.update, length),
            (&mut self.next, length),
            (&mut self.gram, side * side),
            (&mut self.square, side * side),
        ] {
            if buffer.len() < length {
                buffer.resize(length, 0.0);
            }
        }
    }
}

/// Moves a row-major matrix `[rows, columns]` and its momentum by one step.
///
/// # Panics
/// When the slices are not `rows · columns` long.
pub fn muon(
    parameters: &mut [f32],
    gradient: &[f32],
    momentum: &mut [f32],
    shape: (usize, usize),
    step: MuonStep,
    buffers: &mut MuonBuffers,
) {
    let (rows, columns) = shape;
    let length = rows * columns;
    assert!(
        [parameters.len(), gradient.len(), momentum.len()] == [length; 3],
        "a matrix of {rows}×{columns} has {length} elements"
    );
    buffers.reserve(rows, columns);
    advance_momentum(&mut buffers.update[..length], gradient, momentum, step.momentum, step.gradient_scale);
    orthogonalise(rows, columns, buffers);
    let reach = step.learning_rate * UPDATE_RMS * (rows.max(columns) as f32).sqrt();
    descend(parameters, &buffers.update[..length], 1.0 - step.learning_rate * step.weight_decay, reach);
}

vectorised! {
    /// m ← μm + s·g; update ← s·g + μm, the gradient ahead of the momentum.
    fn advance_momentum(update: &mut [f32], gradient: &[f32], momentum: &mut [f32], mu: f32, gradient_scale: f32) {
        for ((u, &g), m) in update.iter_mut().zip(gradient).zip(momentum.iter_mut()) {
            let g = g * gradient_scale;
            *m = mu.mul_add(*m, g);
            *u = mu.mul_add(*m, g);
        }
    }
}

vectorised! {
    /// p ← decay·p − reach·update
    fn descend(parameters: &mut [f32], update: &[f32], decay: f32, reach: f32) {
        for (p, &u) in parameters.iter_mut().zip(update) {
            *p = p.mul_add(decay, -(reach * u));
        }
    }
}

vectorised! {
    /// square ← b·gram + c·square
    fn combine(square: &mut [f32], gram: &[f32], b: f32, c: f32) {
        for (s, &g) in square.iter_mut().zip(gram) {
            *s = c.mul_add(*s, b * g);
        }
    }
}

/// Replaces `buffers.update` by (nearly) its orthogonal factor. A matrix of zeros stays zero.
fn orthogonalise(rows: usize, columns: usize, buffers: &mut MuonBuffers) {
    let MuonBuffers { update, next, gram, square } = buffers;
    let length = rows * columns;
    let side = rows.min(columns);
    let (gram, square) = (&mut gram[..side * side], &mut square[..side * side]);
    let norm = squared_norm(&update[..length]).sqrt();
    scale(&mut update[..length], (1.0 / (norm + 1e-7)) as f32);
    let (a, b, c) = COEFFICIENTS;
    for _ in 0..ITERATIONS {
        let (x, y) = (&update[..length], &mut next[..length]);
        let view = MatrixRef::new(x, rows, columns);
        let gram_of = if rows <= columns { (view, view.transposed()) } else { (view.transposed(), view) };
        multiply(gram_of.0, gram_of.1, MatrixMut::new(gram, side, side), Start::Zero);
        let whole = MatrixRef::new(gram, side, side);
        multiply(whole, whole, MatrixMut::new(square, side, side), Start::Zero);
        combine(square, gram, b, c);
        // The polynomial is symmetric, so a tall matrix takes it from the right.
        y.copy_from_slice(x);
        scale(y, a);
        let polynomial = MatrixRef::new(square, side, side);
        let target = MatrixMut::new(y, rows, columns);
        if rows <= columns {
            multiply(polynomial, view, target, Start::Continue);
        } else {
            multiply(view, polynomial, target, Start::Continue);
        }
        std::mem::swap(update, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{normal_numbers, same_on_every_path};

    /// The same iterations in double precision, element by element.
    fn orthogonal_twin(x: &[f32], rows: usize, columns: usize) -> Vec<f64> {
        let mut x: Vec<f64> = x.iter().map(|&value| value as f64).collect();
        let norm = x.iter().map(|value| value * value).sum::<f64>().sqrt();
        x.iter_mut().for_each(|value| *value /= norm + 1e-7);
        let (a, b, c) = (COEFFICIENTS.0 as f64, COEFFICIENTS.1 as f64, COEFFICIENTS.2 as f64);
        let product = |p: &dyn Fn(usize, usize) -> f64,
                       q: &dyn Fn(usize, usize) -> f64,
                       shape: (usize, usize, usize)| {
            let (m, k, n) = shape;
            let mut out = vec![0.0; m * n];
            for i in 0..m {
                for j in 0..n {
                    out[i * n + j] = (0..k).map(|t| p(i, t) * q(t, j)).sum();
                }
            }
            out
        };
        for _ in 0..ITERATIONS {
            let at = |i: usize, j: usize| x[i * columns + j];
            // Always from the left: for a tall matrix this is the larger, but the same, polynomial.
            let gram = product(&at, &|i, j| at(j, i), (rows, columns, rows));
            let of = |i: usize, j: usize| gram[i * rows + j];
            let square = product(&of, &of, (rows, rows, rows));
            let polynomial = |i: usize, j: usize| b * gram[i * rows + j] + c * square[i * rows + j];
            let turned = product(&polynomial, &at, (rows, rows, columns));
            x = x.iter().zip(turned).map(|(x, t)| a * x + t).collect();
        }
        x
    }

    #[test]
    fn follows_its_scalar_twin_on_wide_and_tall_matrices() {
        for (rows, columns) in [(5, 9), (9, 5), (16, 16), (1, 7)] {
            let x = normal_numbers(3, rows * columns);
            let mut buffers = MuonBuffers::default();
            buffers.reserve(rows, columns);
            buffers.update[..x.len()].copy_from_slice(&x);
            orthogonalise(rows, columns, &mut buffers);
            for (found, expected) in buffers.update.iter().zip(orthogonal_twin(&x, rows, columns)) {
                assert!((*found as f64 - expected).abs() < 1e-4, "{rows}×{columns}: {found} {expected}");
            }
        }
    }

    #[test]
    fn singular_values_come_near_one() {
        let (rows, columns) = (12, 40);
        let mut buffers = MuonBuffers::default();
        buffers.reserve(rows, columns);
        buffers.update.copy_from_slice(&normal_numbers(7, rows * columns));
        orthogonalise(rows, columns, &mut buffers);
        // Σ σ² = Σ x²; each of the twelve lies in the band that the quintic leaves (0.68 to 1.13).
        let energy = squared_norm(&buffers.update[..rows * columns]) / rows as f64;
        assert!((0.68f64.powi(2)..1.13f64.powi(2)).contains(&energy), "{energy}");
    }

    #[test]
    fn a_step_has_the_same_bits_on_every_path_and_zeros_stay() {
        let step = MuonStep { learning_rate: 0.02, weight_decay: 0.1, momentum: 0.95, gradient_scale: 0.5 };
        let (p, g) = (normal_numbers(1, 24 * 17), normal_numbers(2, 24 * 17));
        same_on_every_path(|| {
            let (mut moved, mut m) = (p.clone(), vec![0.1; p.len()]);
            muon(&mut moved, &g, &mut m, (24, 17), step, &mut MuonBuffers::default());
            (moved, m)
        });
        let mut still = vec![0.0; 6];
        muon(&mut still, &[0.0; 6], &mut [0.0; 6], (2, 3), step, &mut MuonBuffers::default());
        assert_eq!(still, [0.0; 6]);
    }
}
