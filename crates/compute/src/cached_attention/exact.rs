//! Attention over keys and values in f32.
//!
//! Same chains and sums as in training (`attention`), so that a token's result has the same bits whether its sequence
//! came at once, in chunks or token by token. Keys are kept transposed within a block, so that a score's lanes are positions.

use super::{BLOCK_POSITIONS, Queries, ScoreRule};
use crate::attention::AttentionShape;
use crate::product::{MatrixMut, MatrixRef, Start, multiply};
use crate::softmax::{exponentials, scale_rows, soft_cap};

/// Queries handled at a time.
const BLOCK_ROWS: usize = 48;

/// [`super::cached_attention`] over blocks of [`super::block_floats`].
pub(super) fn attend<'b>(
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
