//! The cross-entropy of the next token over rows of logits, and its gradient, in place. The device runs it between the
//! output projection and that projection's gradients, some rows at a time: for a vocabulary of 32,768 all logits would be
//! the largest buffer of the whole step.

use crate::elementary::{exp, ln};
use crate::lanes::{LANES, maximum, sum_of_lanes};
use crate::path::vectorised;

/// The target of a position that is not scored.
pub const NO_TARGET: u32 = u32::MAX;

vectorised! {
    /// Turns rows of logits into (softmax − one-hot) · scale, with −ln p(target) of each row, in nats, into `losses`. Rows
    /// without target become zero, and so do their losses.
    pub fn cross_entropy_rows(logits: &mut [f32], vocabulary: usize, targets: &[u32], scale: f32, losses: &mut [f64]) {
        for ((row, &target), loss) in logits.chunks_exact_mut(vocabulary).zip(targets).zip(losses) {
            if target == NO_TARGET {
                row.fill(0.0);
                *loss = 0.0;
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
            *loss = ln(sum as f64) + (largest as f64 - wanted as f64);
            let factor = scale / sum;
            for value in row.iter_mut() {
                *value *= factor;
            }
            row[target as usize] -= scale;
        }
    }
}
