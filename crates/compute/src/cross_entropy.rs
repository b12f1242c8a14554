//! The output projection fused with the cross-entropy of the next token: logits exist for a few rows at a time only, since
//! for a vocabulary of 32,768 all of them would be the largest buffer of the whole step.

use crate::elementary::{exp, ln};
use crate::lanes::{LANES, maximum, sum_of_lanes};
use crate::path::vectorised;
use crate::product::{MatrixMut, MatrixRef, Start, multiply};

/// The target of a position that is not scored.
pub const NO_TARGET: u32 = u32::MAX;

/// Logits held at a time: 512 rows of a vocabulary of 512, but never fewer than 64 rows.
const CHUNK_LOGITS: usize = 512 * 512;
const CHUNK_ROWS: usize = 64;

/// What the projection reads.
#[derive(Clone, Copy, Debug)]
pub struct ProjectionInput<'a> {
    /// [tokens, width]
    pub hidden: &'a [f32],
    /// [vocabulary, width]
    pub weight: &'a [f32],
    /// Elements of a row.
    pub width: usize,
    /// The next token of each position, or [`NO_TARGET`].
    pub targets: &'a [u32],
}

/// What the loss says, and where its gradients go.
#[derive(Debug)]
pub struct ProjectionGradients<'a> {
    /// d(total loss) / d(loss of one position), usually 1 / number of targets in the step.
    pub scale: f32,
    /// [tokens, width], overwritten
    pub hidden: &'a mut [f32],
    /// [vocabulary, width], added to; `None` when the projection is frozen
    pub weight: Option<&'a mut [f32]>,
}

/// Σ −ln p(target) over the scored positions, in nats; gradients where wanted. `logits` is a buffer, grown as needed.
pub fn projection_cross_entropy(
    input: ProjectionInput,
    mut gradients: Option<ProjectionGradients>,
    logits: &mut Vec<f32>,
) -> f64 {
    let ProjectionInput { hidden, weight, width, targets } = input;
    let vocabulary = weight.len() / width;
    let rows_at_once = (CHUNK_LOGITS / vocabulary).max(CHUNK_ROWS).min(targets.len().max(1));
    if logits.len() < rows_at_once * vocabulary {
        logits.resize(rows_at_once * vocabulary, 0.0);
    }
    let matrix = MatrixRef::new(weight, vocabulary, width);
    let mut loss = 0.0;
    for first in (0..targets.len()).step_by(rows_at_once) {
        let rows = rows_at_once.min(targets.len() - first);
        let span = first * width..(first + rows) * width;
        let x = MatrixRef::new(&hidden[span.clone()], rows, width);
        let logits = &mut logits[..rows * vocabulary];
        multiply(x, matrix.transposed(), MatrixMut::new(logits, rows, vocabulary), Start::Zero);
        let scale = gradients.as_ref().map_or(0.0, |gradients| gradients.scale);
        loss += cross_entropy_rows(logits, vocabulary, &targets[first..first + rows], scale);
        if let Some(gradients) = &mut gradients {
            let d = MatrixRef::new(logits, rows, vocabulary);
            multiply(d, matrix, MatrixMut::new(&mut gradients.hidden[span], rows, width), Start::Zero);
            if let Some(weight) = &mut gradients.weight {
                multiply(d.transposed(), x, MatrixMut::new(weight, vocabulary, width), Start::Continue);
            }
        }
    }
    loss
}

vectorised! {
    /// Turns rows of logits into (softmax − one-hot) · scale and returns Σ −ln p(target). Rows without target become zero.
    pub fn cross_entropy_rows(logits: &mut [f32], vocabulary: usize, targets: &[u32], scale: f32) -> f64 {
        let mut loss = 0.0f64;
        for (row, &target) in logits.chunks_exact_mut(vocabulary).zip(targets) {
            if target == NO_TARGET {
                row.fill(0.0);
                continue;
            }
            let wanted = row[target as usize];
            let largest = maximum(row);
            let mut lanes = [0.0f32; LANES];
            let (whole, rest) = row.as_chunks_mut::<LANES>();
            for chunk in whole {
                for lane in 0..LANES {
                    let weight = exp(chunk[lane] - largest);
                    chunk[lane] = weight;
                    lanes[lane] += weight;
                }
            }
            for (lane, logit) in rest.iter_mut().enumerate() {
                let weight = exp(*logit - largest);
                *logit = weight;
                lanes[lane] += weight;
            }
            let sum = sum_of_lanes(&lanes);
            loss += ln(sum as f64) + (largest as f64 - wanted as f64);
            let factor = scale / sum;
            for value in row.iter_mut() {
                *value *= factor;
            }
            row[target as usize] -= scale;
        }
        loss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, normal_numbers, same_on_every_path};

    fn loss_of(hidden: &[f32], weight: &[f32], targets: &[u32]) -> f64 {
        projection_cross_entropy(
            ProjectionInput { hidden, weight, width: 10, targets },
            None,
            &mut Vec::new(),
        )
    }

    #[test]
    fn loss_and_gradients_are_right() {
        let (hidden, weight) = (normal_numbers(1, 5 * 10), normal_numbers(2, 23 * 10));
        let targets = [3, NO_TARGET, 22, 0, 7];
        let mut expected = 0.0;
        for (row, &target) in targets.iter().enumerate().filter(|(_, target)| **target != NO_TARGET) {
            let logit = |v: usize| {
                (0..10).map(|d| hidden[row * 10 + d] as f64 * weight[v * 10 + d] as f64).sum::<f64>()
            };
            expected += (0..23).map(|v| logit(v).exp()).sum::<f64>().ln() - logit(target as usize);
        }
        assert!((loss_of(&hidden, &weight, &targets) - expected).abs() < 1e-4);
        let backward = || {
            let (mut dh, mut dw) = (vec![5.0; hidden.len()], vec![0.0; weight.len()]);
            let gradients = ProjectionGradients { scale: 1.0, hidden: &mut dh, weight: Some(&mut dw) };
            let loss = projection_cross_entropy(
                ProjectionInput { hidden: &hidden, weight: &weight, width: 10, targets: &targets },
                Some(gradients),
                &mut Vec::new(),
            );
            (loss, dh, dw)
        };
        let (loss, dh, dw) = backward();
        assert_eq!(loss, loss_of(&hidden, &weight, &targets));
        check_gradient("hidden", &hidden, &dh, |hidden| loss_of(hidden, &weight, &targets));
        check_gradient("weight", &weight, &dw, |weight| loss_of(&hidden, weight, &targets));
        same_on_every_path(backward);
    }
}
