//! Attention of a few new tokens over keys and values kept in blocks of 64 positions.
//!
//! Same chains and sums as in training (`attention`), so that a token's result has the same bits whether its sequence
//! came at once, in chunks or token by token. Keys are kept transposed within a block, so that a score's lanes are positions.

use crate::attention::AttentionShape;
use crate::product::{MatrixMut, MatrixRef, Start, multiply};
use crate::softmax::{exponentials, scale_rows};

/// Positions of one block.
pub const BLOCK_POSITIONS: usize = 64;

/// Queries handled at a time.
const BLOCK_ROWS: usize = 48;

/// Floats of one block of one layer: keys [kv_heads, head_dim, 64], then values [kv_heads, 64, head_dim].
pub fn block_floats(shape: AttentionShape) -> usize {
    2 * shape.key_width() * BLOCK_POSITIONS
}

/// Writes one position's keys and values (each [key_width]) into its block.
pub fn store(shape: AttentionShape, block: &mut [f32], offset: usize, keys: &[f32], values: &[f32]) {
    let head_dim = shape.head_dim;
    let (key_part, value_part) = block.split_at_mut(shape.key_width() * BLOCK_POSITIONS);
    for (channel, &key) in keys.iter().enumerate() {
        key_part[channel * BLOCK_POSITIONS + offset] = key;
    }
    for (head, values) in values.chunks_exact(head_dim).enumerate() {
        value_part[(head * BLOCK_POSITIONS + offset) * head_dim..][..head_dim].copy_from_slice(values);
    }
}

/// `output` [rows, query_width] ← attention of consecutive rows of one sequence, the first at `first_position`, each over
/// all positions up to its own. `block(i)` yields the layer's block with positions 64·i …; the new positions are stored.
///
/// `scores` is a buffer, grown as needed.
pub fn cached_attention<'b>(
    shape: AttentionShape,
    queries: &[f32],
    first_position: usize,
    block: impl Fn(usize) -> &'b [f32],
    scores: &mut Vec<f32>,
    output: &mut [f32],
) {
    let (width, head_dim) = (shape.query_width(), shape.head_dim);
    let group = shape.heads / shape.kv_heads;
    let total = queries.len() / width;
    let value_part = shape.key_width() * BLOCK_POSITIONS;
    for first in (0..total).step_by(BLOCK_ROWS) {
        let rows = BLOCK_ROWS.min(total - first);
        let seen = first_position + first + rows;
        let stride = seen.div_ceil(BLOCK_POSITIONS) * BLOCK_POSITIONS;
        if scores.len() < BLOCK_ROWS.max(group) * stride {
            scores.resize(BLOCK_ROWS.max(group) * stride, 0.0);
        }
        // A single row takes the heads of a group together, so that a decoding step reads each key once.
        let (heads_at_once, x_stride) = if rows == 1 { (group, head_dim) } else { (1, width) };
        let lines = rows * heads_at_once;
        let mut reciprocals = vec![0.0f32; lines];
        let mut shifts = vec![0.0f32; lines];
        for head in (0..shape.heads).step_by(heads_at_once) {
            let kv_head = head / group;
            let at = first * width + head * head_dim;
            let x = MatrixRef::strided(&queries[at..], lines, head_dim, x_stride);
            for (index, from) in (0..seen).step_by(BLOCK_POSITIONS).enumerate() {
                let positions = BLOCK_POSITIONS.min(seen - from);
                let keys =
                    &block(index)[kv_head * head_dim * BLOCK_POSITIONS..][..head_dim * BLOCK_POSITIONS];
                let keys = MatrixRef::strided(keys, head_dim, positions, BLOCK_POSITIONS);
                multiply(
                    x,
                    keys,
                    MatrixMut::strided(&mut scores[from..], lines, positions, stride),
                    Start::Zero,
                );
            }
            // The lines of one token see the same positions; those of consecutive tokens one more each.
            let runs = if rows == 1 { lines } else { 1 };
            for run in 0..runs {
                let sums = run * rows..(run + 1) * rows;
                let scores = &mut scores[run * rows * stride..];
                exponentials(
                    scores,
                    stride,
                    seen,
                    seen - rows + 1,
                    shape.scale(),
                    &mut shifts[sums.clone()],
                    &mut reciprocals[sums],
                );
            }
            let output = &mut output[at..];
            for (index, from) in (0..seen).step_by(BLOCK_POSITIONS).enumerate() {
                let positions = BLOCK_POSITIONS.min(seen - from);
                let values = &block(index)[value_part + kv_head * BLOCK_POSITIONS * head_dim..]
                    [..positions * head_dim];
                let values = MatrixRef::new(values, positions, head_dim);
                let weights = MatrixRef::strided(&scores[from..], lines, positions, stride);
                let start = if index == 0 { Start::Zero } else { Start::Continue };
                multiply(weights, values, MatrixMut::strided(output, lines, head_dim, x_stride), start);
            }
            scale_rows(output, x_stride, head_dim, &reciprocals[..lines]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Attention, AttentionSums, Device};
    use crate::testing::normal_numbers;

    #[test]
    fn gives_the_bits_of_training_in_any_chunks() {
        let shape = AttentionShape { heads: 6, kv_heads: 2, head_dim: 10 };
        let tokens = 150;
        let (q, k) = (normal_numbers(1, tokens * 60), normal_numbers(2, tokens * 20));
        let fused = normal_numbers(3, tokens * 100);
        let device = Device::cpu(1).unwrap();
        let [queries, keys, values] = [&q, &k, &fused].map(|x| device.upload(x.clone()));
        let document = 0..tokens;
        let input = Attention {
            shape,
            documents: std::slice::from_ref(&document),
            queries: queries.at(..),
            keys: keys.at(..),
            fused: values.at(..),
        };
        let mut expected = device.zeros(q.len());
        device.attention(input, expected.at_mut(..), &mut AttentionSums::new(&device, 6, tokens));
        let expected = device.read(expected.at(..));
        for chunk in [1, 7, 64, 100, 150] {
            let mut blocks = vec![vec![f32::NAN; block_floats(shape)]; tokens.div_ceil(BLOCK_POSITIONS)];
            let mut output = vec![0.0; q.len()];
            for first in (0..tokens).step_by(chunk) {
                let end = (first + chunk).min(tokens);
                for t in first..end {
                    let block = &mut blocks[t / BLOCK_POSITIONS];
                    store(
                        shape,
                        block,
                        t % BLOCK_POSITIONS,
                        &k[t * 20..][..20],
                        &fused[t * 100 + 80..][..20],
                    );
                }
                let span = first * 60..end * 60;
                cached_attention(
                    shape,
                    &q[span.clone()],
                    first,
                    |i| &blocks[i],
                    &mut Vec::new(),
                    &mut output[span],
                );
            }
            assert_eq!(output, expected, "chunks of {chunk}");
        }
    }
}
