//! Causal attention with grouped queries over documents packed one behind another (Vaswani et al., arXiv 1706.03762;
//! Ainslie et al., arXiv 2305.13245), forward and backward.
//!
//! A token attends to itself and to what precedes it in its own document. Work goes by blocks of 48 queries, whose scores
//! stand in a buffer of 48 rows; the backward pass makes them again from each row's maximum and sum (Dao et al., arXiv
//! 2205.14135). Memory is linear in the length, and nothing between documents is computed at all.

use crate::product::{
    MatrixMut, MatrixRef, PANEL_COLUMNS, PackedMatrix, Start, multiply, multiply_packed,
    multiply_packed_panels,
};
use crate::softmax::{exponentials, probabilities, row_dots, scale_rows, score_gradients};
use std::ops::Range;

/// Queries of one block: a multiple of the product's tile rows; 48 · 512 scores are 96 KiB, well inside an L2 cache.
const BLOCK_ROWS: usize = 48;

/// The shape of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Heads of queries; a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Elements of a row of queries.
    pub fn query_width(self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of a row of keys, or of values.
    pub fn key_width(self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Elements of a fused row of queries, keys and values.
    pub fn fused_width(self) -> usize {
        self.query_width() + 2 * self.key_width()
    }

    /// Heads of queries that share a head of keys.
    pub fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// 1 / √head_dim
    pub fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// What one layer's attention reads. The values stand in the fused rows, behind queries and keys before their rotation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionInput<'a> {
    /// The layer's shape.
    pub shape: AttentionShape,
    /// [tokens, query_width], rotated
    pub queries: &'a [f32],
    /// [tokens, key_width], rotated
    pub keys: &'a [f32],
    /// [tokens, fused_width]; the values are its last key_width columns
    pub fused: &'a [f32],
}

/// One document, and one head of keys with the heads of queries that share it: what one thread computes from end to end.
/// "A group's rows" are those heads' columns alone, [length, group · head_dim].
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub document: Range<usize>,
    pub kv_head: usize,
}

/// Buffers of one thread; they grow to the longest document met.
#[derive(Debug, Default)]
pub(crate) struct AttentionWorkspace {
    scores: Vec<f32>,
    gradients: Vec<f32>,
    keys_transposed: PackedMatrix,
    values_transposed: PackedMatrix,
    rows: PackedMatrix,
    /// The group's rows of the output, or of the gradient by the queries.
    pub group_rows: Vec<f32>,
    /// [length, head_dim]: the gradients by the group's keys and values.
    pub key_rows: Vec<f32>,
    pub value_rows: Vec<f32>,
}

fn reserve(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    &mut buffer[..length]
}

/// The group's rows of the output into `workspace.group_rows`. Of each row of scores, [group, length]: its maximum times
/// −scale into `shifts`, and the reciprocal of its sum into `reciprocals`.
pub(crate) fn attention_of_group(
    input: &AttentionInput,
    group: &Group,
    shifts: &mut [f32],
    reciprocals: &mut [f32],
    workspace: &mut AttentionWorkspace,
) {
    let AttentionInput { shape, queries, keys, fused } = *input;
    let head_dim = shape.head_dim;
    let (q_width, k_width, f_width) = (shape.query_width(), shape.key_width(), shape.fused_width());
    let (begin, length) = (group.document.start, group.document.len());
    let g_width = shape.group() * head_dim;
    let AttentionWorkspace { scores, keys_transposed, rows: value_rows, group_rows, .. } = workspace;
    let group_rows = reserve(group_rows, length * g_width);
    let scores = reserve(scores, BLOCK_ROWS * length);
    let key_rows =
        MatrixRef::strided(&keys[begin * k_width + group.kv_head * head_dim..], length, head_dim, k_width);
    keys_transposed.pack(key_rows.transposed());
    let value_at = begin * f_width + q_width + k_width + group.kv_head * head_dim;
    value_rows.pack(MatrixRef::strided(&fused[value_at..], length, head_dim, f_width));
    for member in 0..shape.group() {
        let column = (group.kv_head * shape.group() + member) * head_dim;
        for first in (0..length).step_by(BLOCK_ROWS) {
            let rows = BLOCK_ROWS.min(length - first);
            let seen = first + rows;
            let width = panel_width(seen, length);
            let scores = &mut scores[..rows * width];
            let queries = &queries[(begin + first) * q_width + column..];
            scores_of(queries, q_width, rows, head_dim, keys_transposed, seen, width, scores);
            let span = member * length + first..member * length + seen;
            let (shifts, reciprocals) = (&mut shifts[span.clone()], &mut reciprocals[span]);
            exponentials(scores, width, seen, first + 1, shape.scale(), shifts, reciprocals);
            let weights = MatrixRef::strided(scores, rows, seen, width);
            let output = &mut group_rows[first * g_width + member * head_dim..];
            let target = MatrixMut::strided(output, rows, head_dim, g_width);
            multiply_packed(weights, value_rows, target, Start::Zero);
            scale_rows(output, g_width, head_dim, reciprocals);
        }
    }
}

/// The group's gradients by the rotated queries, the rotated keys and the values into the workspace's three rows.
pub(crate) fn attention_of_group_backward(
    input: &AttentionInput,
    group: &Group,
    output: &[f32],
    output_gradient: &[f32],
    shifts: &[f32],
    reciprocals: &[f32],
    workspace: &mut AttentionWorkspace,
) {
    let AttentionInput { shape, queries, keys, fused } = *input;
    let (head_dim, scale) = (shape.head_dim, shape.scale());
    let (q_width, k_width, f_width) = (shape.query_width(), shape.key_width(), shape.fused_width());
    let (begin, length) = (group.document.start, group.document.len());
    let g_width = shape.group() * head_dim;
    let AttentionWorkspace {
        scores,
        gradients,
        keys_transposed,
        values_transposed,
        rows: packed_keys,
        group_rows,
        key_rows,
        value_rows,
    } = workspace;
    let group_rows = reserve(group_rows, length * g_width);
    let (dk, dv) = (reserve(key_rows, length * head_dim), reserve(value_rows, length * head_dim));
    let (scores, gradients) = (reserve(scores, BLOCK_ROWS * length), reserve(gradients, BLOCK_ROWS * length));
    let key_at = begin * k_width + group.kv_head * head_dim;
    let value_at = begin * f_width + q_width + k_width + group.kv_head * head_dim;
    let keys = MatrixRef::strided(&keys[key_at..], length, head_dim, k_width);
    keys_transposed.pack(keys.transposed());
    packed_keys.pack(keys);
    values_transposed.pack(MatrixRef::strided(&fused[value_at..], length, head_dim, f_width).transposed());
    dk.fill(0.0);
    dv.fill(0.0);
    let mut deltas = [0.0f32; BLOCK_ROWS];
    for member in 0..shape.group() {
        let column = (group.kv_head * shape.group() + member) * head_dim;
        for first in (0..length).step_by(BLOCK_ROWS) {
            let rows = BLOCK_ROWS.min(length - first);
            let seen = first + rows;
            let at = (begin + first) * q_width + column;
            let width = panel_width(seen, length);
            let scores = &mut scores[..rows * width];
            scores_of(&queries[at..], q_width, rows, head_dim, keys_transposed, seen, width, scores);
            let span = member * length + first..member * length + seen;
            probabilities(scores, width, seen, first + 1, scale, &shifts[span.clone()], &reciprocals[span]);

            let dy = MatrixRef::strided(&output_gradient[at..], rows, head_dim, q_width);
            let weights = MatrixRef::strided(scores, rows, seen, width);
            multiply(weights.transposed(), dy, MatrixMut::new(dv, seen, head_dim), Start::Continue);

            let gradients = &mut gradients[..rows * width];
            scores_of(
                &output_gradient[at..],
                q_width,
                rows,
                head_dim,
                values_transposed,
                seen,
                width,
                gradients,
            );
            row_dots(&output[at..], &output_gradient[at..], q_width, head_dim, &mut deltas[..rows]);
            score_gradients(gradients, scores, width, seen, first + 1, scale, &deltas[..rows]);

            let ds = MatrixRef::strided(gradients, rows, seen, width);
            let dq = &mut group_rows[first * g_width + member * head_dim..];
            multiply_packed(ds, packed_keys, MatrixMut::strided(dq, rows, head_dim, g_width), Start::Zero);
            let q = MatrixRef::strided(&queries[at..], rows, head_dim, q_width);
            multiply(ds.transposed(), q, MatrixMut::new(dk, seen, head_dim), Start::Continue);
        }
    }
}

/// `seen` columns, rounded up to whole panels as far as the document goes.
fn panel_width(seen: usize, length: usize) -> usize {
    (seen.div_ceil(PANEL_COLUMNS) * PANEL_COLUMNS).min(length)
}

/// Products of `rows` rows with the first columns of a packed transposed matrix.
#[allow(clippy::too_many_arguments)]
fn scores_of(
    x: &[f32],
    stride: usize,
    rows: usize,
    depth: usize,
    packed: &PackedMatrix,
    seen: usize,
    width: usize,
    scores: &mut [f32],
) {
    let x = MatrixRef::strided(x, rows, depth, stride);
    let scores = MatrixMut::strided(scores, rows, seen, width);
    multiply_packed_panels(x, packed, 0..seen.div_ceil(PANEL_COLUMNS), scores, Start::Zero);
}
