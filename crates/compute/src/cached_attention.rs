//! Attention of a few new tokens over keys and values kept in blocks of 64 positions.
//!
//! Same chains and sums as in training (`attention`), so that a token's result has the same bits whether its sequence
//! came at once, in chunks or token by token. Keys are kept transposed within a block, so that a score's lanes are positions.

use crate::attention::AttentionShape;
use crate::product::{MatrixMut, MatrixRef, Start, multiply};
use crate::softmax::{exponentials, scale_rows, soft_cap};
use std::ops::Range;

/// Positions of one block.
pub const BLOCK_POSITIONS: usize = 64;

/// Queries handled at a time.
const BLOCK_ROWS: usize = 48;

/// What a layer does to its scores, besides the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRule {
    /// Factor of a query's product with a key.
    pub scale: f32,
    /// c, where a scaled score becomes c · tanh(score / c).
    pub soft_cap: Option<f32>,
    /// How many positions a token sees, its own among them; all up to its own without.
    pub window: Option<usize>,
}

impl ScoreRule {
    /// 1 / √head_dim, and nothing else.
    pub fn plain(shape: AttentionShape) -> ScoreRule {
        ScoreRule { scale: shape.scale(), soft_cap: None, window: None }
    }

    /// First position that a token at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

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

/// Consecutive rows of queries of one sequence.
#[derive(Clone, Debug)]
pub struct Queries<'a> {
    /// Heads that are computed: whole groups of those that share keys. Rows and output hold these heads alone.
    pub heads: Range<usize>,
    /// [rows, heads, head_dim]
    pub rows: &'a [f32],
    /// Of the first row.
    pub first_position: usize,
}

/// `output` [rows, heads, head_dim] ← attention of consecutive rows of one sequence, each over
/// the positions up to its own that `rule` lets it see. `block(i)` yields the layer's block with positions 64·i …; the new
/// positions are stored. Blocks before the first row's window are not asked for.
///
/// `scores` is a buffer, grown as needed.
pub fn cached_attention<'b>(
    shape: AttentionShape,
    rule: ScoreRule,
    queries: Queries,
    block: impl Fn(usize) -> &'b [f32],
    scores: &mut Vec<f32>,
    output: &mut [f32],
) {
    let Queries { heads, rows: queries, first_position } = queries;
    let head_dim = shape.head_dim;
    let width = heads.len() * head_dim;
    let group = shape.heads / shape.kv_heads;
    debug_assert!(
        heads.start.is_multiple_of(group) && heads.len().is_multiple_of(group),
        "whole groups of heads"
    );
    let total = queries.len() / width;
    let value_part = shape.key_width() * BLOCK_POSITIONS;
    for first in (0..total).step_by(BLOCK_ROWS) {
        let rows = BLOCK_ROWS.min(total - first);
        let seen = first_position + first + rows;
        // Whole blocks, so that a position keeps its lane in the sums wherever the window begins.
        let begin = rule.first_seen(first_position + first) / BLOCK_POSITIONS * BLOCK_POSITIONS;
        let width_seen = seen - begin;
        let stride = width_seen.div_ceil(BLOCK_POSITIONS) * BLOCK_POSITIONS;
        if scores.len() < BLOCK_ROWS.max(group) * stride {
            scores.resize(BLOCK_ROWS.max(group) * stride, 0.0);
        }
        // A single row takes the heads of a group together, so that a decoding step reads each key once.
        let (heads_at_once, x_stride) = if rows == 1 { (group, head_dim) } else { (1, width) };
        let lines = rows * heads_at_once;
        let mut reciprocals = vec![0.0f32; lines];
        let mut shifts = vec![0.0f32; lines];
        for head in heads.clone().step_by(heads_at_once) {
            let kv_head = head / group;
            let at = first * width + (head - heads.start) * head_dim;
            let x = MatrixRef::strided(&queries[at..], lines, head_dim, x_stride);
            for from in (begin..seen).step_by(BLOCK_POSITIONS) {
                let positions = BLOCK_POSITIONS.min(seen - from);
                let keys = &block(from / BLOCK_POSITIONS)[kv_head * head_dim * BLOCK_POSITIONS..]
                    [..head_dim * BLOCK_POSITIONS];
                let keys = MatrixRef::strided(keys, head_dim, positions, BLOCK_POSITIONS);
                multiply(
                    x,
                    keys,
                    MatrixMut::strided(&mut scores[from - begin..], lines, positions, stride),
                    Start::Zero,
                );
            }
            // The lines of one token see the same positions; those of consecutive tokens one more each.
            let runs = if rows == 1 { lines } else { 1 };
            let scale = match rule.soft_cap {
                Some(cap) => {
                    soft_cap(&mut scores[..lines * stride], stride, width_seen, rule.scale, cap);
                    1.0
                }
                None => rule.scale,
            };
            if rule.window.is_some() {
                for line in 0..lines {
                    let position = first_position + first + if rows == 1 { 0 } else { line };
                    let hidden = rule.first_seen(position) - begin;
                    scores[line * stride..][..hidden].fill(f32::NEG_INFINITY);
                }
            }
            for run in 0..runs {
                let sums = run * rows..(run + 1) * rows;
                let scores = &mut scores[run * rows * stride..];
                exponentials(
                    scores,
                    stride,
                    width_seen,
                    width_seen - rows + 1,
                    scale,
                    &mut shifts[sums.clone()],
                    &mut reciprocals[sums],
                );
            }
            let output = &mut output[at..];
            for from in (begin..seen).step_by(BLOCK_POSITIONS) {
                let positions = BLOCK_POSITIONS.min(seen - from);
                let values = &block(from / BLOCK_POSITIONS)
                    [value_part + kv_head * BLOCK_POSITIONS * head_dim..][..positions * head_dim];
                let values = MatrixRef::new(values, positions, head_dim);
                let weights = MatrixRef::strided(&scores[from - begin..], lines, positions, stride);
                let start = if from == begin { Start::Zero } else { Start::Continue };
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
                    ScoreRule::plain(shape),
                    Queries { heads: 0..shape.heads, rows: &q[span.clone()], first_position: first },
                    |i| &blocks[i],
                    &mut Vec::new(),
                    &mut output[span],
                );
            }
            assert_eq!(output, expected, "chunks of {chunk}");
        }
    }

    /// Attention by its formula, in double precision; keys and values [tokens, kv_heads · head_dim].
    fn expected(shape: AttentionShape, rule: ScoreRule, [q, k, v]: [&[f32]; 3]) -> Vec<f64> {
        let (width, k_width, head_dim) = (shape.query_width(), shape.key_width(), shape.head_dim);
        let mut output = vec![0.0; q.len()];
        for t in 0..q.len() / width {
            for head in 0..shape.heads {
                let at = head / shape.group() * head_dim;
                let query = &q[t * width + head * head_dim..][..head_dim];
                let seen = rule.first_seen(t)..t + 1;
                let score = |s: usize| {
                    let key = &k[s * k_width + at..][..head_dim];
                    let dot: f64 = query.iter().zip(key).map(|(a, b)| *a as f64 * *b as f64).sum();
                    let score = dot * rule.scale as f64;
                    rule.soft_cap.map_or(score, |cap| cap as f64 * (score / cap as f64).tanh())
                };
                let weights: Vec<f64> = seen.clone().map(|s| score(s).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (s, weight) in seen.zip(weights) {
                    for i in 0..head_dim {
                        output[t * width + head * head_dim + i] +=
                            weight / sum * v[s * k_width + at + i] as f64;
                    }
                }
            }
        }
        output
    }

    #[test]
    fn windows_and_caps_agree_with_their_formula_in_any_chunks() {
        let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 10 };
        let tokens = 200;
        let [q, k, v] =
            [normal_numbers(1, tokens * 40), normal_numbers(2, tokens * 20), normal_numbers(3, tokens * 20)];
        for (window, soft_cap) in
            [(Some(1), None), (Some(5), None), (Some(64), Some(2.0)), (Some(100), None), (None, Some(1.5))]
        {
            let rule = ScoreRule { scale: 0.7, soft_cap, window };
            let expected = expected(shape, rule, [&q, &k, &v]);
            let mut bits: Option<Vec<f32>> = None;
            for chunk in [1, 7, 64, 200] {
                let mut blocks = vec![vec![f32::NAN; block_floats(shape)]; tokens.div_ceil(BLOCK_POSITIONS)];
                let mut output = vec![0.0; q.len()];
                for first in (0..tokens).step_by(chunk) {
                    let end = (first + chunk).min(tokens);
                    for t in first..end {
                        let block = &mut blocks[t / BLOCK_POSITIONS];
                        store(shape, block, t % BLOCK_POSITIONS, &k[t * 20..][..20], &v[t * 20..][..20]);
                    }
                    let span = first * 40..end * 40;
                    let (queries, output) = (&q[span.clone()], &mut output[span]);
                    let queries = Queries { heads: 0..shape.heads, rows: queries, first_position: first };
                    cached_attention(shape, rule, queries, |i| &blocks[i], &mut Vec::new(), output);
                }
                for (found, expected) in output.iter().zip(&expected) {
                    assert!((*found as f64 - expected).abs() < 2e-5, "{rule:?}, chunks of {chunk}");
                }
                assert!(*bits.get_or_insert(output.clone()) == output, "{rule:?}, chunks of {chunk}");
            }
        }
    }
}
