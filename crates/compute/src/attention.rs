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

    /// 1 / √head_dim
    pub fn scale(self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// What one layer's attention reads. The values stand in the fused rows, behind queries and keys before their rotation.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInput<'a> {
    /// The layer's shape.
    pub shape: AttentionShape,
    /// Token ranges of the documents.
    pub documents: &'a [Range<usize>],
    /// [tokens, query_width], rotated
    pub queries: &'a [f32],
    /// [tokens, key_width], rotated
    pub keys: &'a [f32],
    /// [tokens, fused_width]; the values are its last key_width columns
    pub fused: &'a [f32],
}

/// Of each row of scores: its maximum times −scale, and the reciprocal of its sum. [heads, tokens] both.
#[derive(Debug, Default)]
pub struct RowSums {
    shifts: Vec<f32>,
    reciprocals: Vec<f32>,
}

impl RowSums {
    /// Room for `heads` · `tokens` rows.
    pub fn new(heads: usize, tokens: usize) -> RowSums {
        RowSums { shifts: vec![0.0; heads * tokens], reciprocals: vec![0.0; heads * tokens] }
    }
}

/// Buffers of one thread; they grow to the longest document met.
#[derive(Debug, Default)]
pub struct AttentionWorkspace {
    scores: Vec<f32>,
    gradients: Vec<f32>,
    keys_transposed: PackedMatrix,
    values_transposed: PackedMatrix,
    rows: PackedMatrix,
}

impl AttentionWorkspace {
    fn reserve(&mut self, longest: usize, backward: bool) {
        let length = BLOCK_ROWS * longest;
        if self.scores.len() < length {
            self.scores.resize(length, 0.0);
        }
        if backward && self.gradients.len() < length {
            self.gradients.resize(length, 0.0);
        }
    }
}

/// `output` [tokens, query_width] ← attention; what the backward needs of each row into `sums`.
pub fn attention(
    input: &AttentionInput,
    output: &mut [f32],
    sums: &mut RowSums,
    workspace: &mut AttentionWorkspace,
) {
    let AttentionInput { shape, documents, queries, keys, fused } = *input;
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let (q_width, k_width, f_width) = (shape.query_width(), shape.key_width(), shape.fused_width());
    let tokens = queries.len() / q_width;
    workspace.reserve(documents.iter().map(Range::len).max().unwrap_or(0), false);
    for document in documents {
        let (begin, length) = (document.start, document.len());
        for kv_head in 0..kv_heads {
            let key_rows =
                MatrixRef::strided(&keys[begin * k_width + kv_head * head_dim..], length, head_dim, k_width);
            workspace.keys_transposed.pack(key_rows.transposed());
            let value_column = q_width + k_width + kv_head * head_dim;
            workspace.rows.pack(MatrixRef::strided(
                &fused[begin * f_width + value_column..],
                length,
                head_dim,
                f_width,
            ));
            for head in heads_of(kv_head, heads / kv_heads) {
                for first in (0..length).step_by(BLOCK_ROWS) {
                    let rows = BLOCK_ROWS.min(length - first);
                    let seen = first + rows;
                    let at = (begin + first) * q_width + head * head_dim;
                    let width = panel_width(seen, length);
                    let scores = &mut workspace.scores[..rows * width];
                    scores_of(
                        &queries[at..],
                        q_width,
                        rows,
                        head_dim,
                        &workspace.keys_transposed,
                        seen,
                        width,
                        scores,
                    );
                    let span = head * tokens + begin + first..head * tokens + begin + seen;
                    let (shifts, reciprocals) = (&mut sums.shifts[span.clone()], &mut sums.reciprocals[span]);
                    exponentials(scores, width, seen, first + 1, shape.scale(), shifts, reciprocals);
                    let weights = MatrixRef::strided(scores, rows, seen, width);
                    let output = &mut output[at..];
                    multiply_packed(
                        weights,
                        &workspace.rows,
                        MatrixMut::strided(output, rows, head_dim, q_width),
                        Start::Zero,
                    );
                    scale_rows(output, q_width, head_dim, reciprocals);
                }
            }
        }
    }
}

/// Gradients by the rotated queries and keys (overwritten), and by the values (into the last columns of
/// `fused_gradient`, overwritten).
#[allow(clippy::too_many_arguments)]
pub fn attention_backward(
    input: &AttentionInput,
    output: &[f32],
    output_gradient: &[f32],
    sums: &RowSums,
    query_gradient: &mut [f32],
    key_gradient: &mut [f32],
    fused_gradient: &mut [f32],
    workspace: &mut AttentionWorkspace,
) {
    let AttentionInput { shape, documents, queries, keys, fused } = *input;
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let (q_width, k_width, f_width) = (shape.query_width(), shape.key_width(), shape.fused_width());
    let tokens = queries.len() / q_width;
    let scale = shape.scale();
    workspace.reserve(documents.iter().map(Range::len).max().unwrap_or(0), true);
    let mut deltas = [0.0f32; BLOCK_ROWS];
    for document in documents {
        let (begin, length) = (document.start, document.len());
        for kv_head in 0..kv_heads {
            let key_at = begin * k_width + kv_head * head_dim;
            let value_at = begin * f_width + q_width + k_width + kv_head * head_dim;
            let key_rows = MatrixRef::strided(&keys[key_at..], length, head_dim, k_width);
            workspace.keys_transposed.pack(key_rows.transposed());
            workspace.rows.pack(key_rows);
            workspace
                .values_transposed
                .pack(MatrixRef::strided(&fused[value_at..], length, head_dim, f_width).transposed());
            for row in 0..length {
                key_gradient[key_at + row * k_width..][..head_dim].fill(0.0);
                fused_gradient[value_at + row * f_width..][..head_dim].fill(0.0);
            }
            for head in heads_of(kv_head, heads / kv_heads) {
                for first in (0..length).step_by(BLOCK_ROWS) {
                    let rows = BLOCK_ROWS.min(length - first);
                    let seen = first + rows;
                    let at = (begin + first) * q_width + head * head_dim;
                    let width = panel_width(seen, length);
                    let scores = &mut workspace.scores[..rows * width];
                    scores_of(
                        &queries[at..],
                        q_width,
                        rows,
                        head_dim,
                        &workspace.keys_transposed,
                        seen,
                        width,
                        scores,
                    );
                    let span = head * tokens + begin + first..head * tokens + begin + seen;
                    let (shifts, reciprocals) = (&sums.shifts[span.clone()], &sums.reciprocals[span]);
                    probabilities(scores, width, seen, first + 1, scale, shifts, reciprocals);

                    let dy = MatrixRef::strided(&output_gradient[at..], rows, head_dim, q_width);
                    let weights = MatrixRef::strided(scores, rows, seen, width);
                    let dv = MatrixMut::strided(&mut fused_gradient[value_at..], seen, head_dim, f_width);
                    multiply(weights.transposed(), dy, dv, Start::Continue);

                    let gradients = &mut workspace.gradients[..rows * width];
                    scores_of(
                        &output_gradient[at..],
                        q_width,
                        rows,
                        head_dim,
                        &workspace.values_transposed,
                        seen,
                        width,
                        gradients,
                    );
                    row_dots(&output[at..], &output_gradient[at..], q_width, head_dim, &mut deltas[..rows]);
                    score_gradients(gradients, scores, width, seen, first + 1, scale, &deltas[..rows]);

                    let ds = MatrixRef::strided(gradients, rows, seen, width);
                    let dq = MatrixMut::strided(&mut query_gradient[at..], rows, head_dim, q_width);
                    multiply_packed(ds, &workspace.rows, dq, Start::Zero);
                    let q = MatrixRef::strided(&queries[at..], rows, head_dim, q_width);
                    let dk = MatrixMut::strided(&mut key_gradient[key_at..], seen, head_dim, k_width);
                    multiply(ds.transposed(), q, dk, Start::Continue);
                }
            }
        }
    }
}

/// The heads of queries that share a head of keys.
fn heads_of(kv_head: usize, group: usize) -> Range<usize> {
    kv_head * group..(kv_head + 1) * group
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check_gradient, normal_numbers, same_on_every_path, weighted_sum};

    const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 6 };

    fn forward(
        documents: &[Range<usize>],
        queries: &[f32],
        keys: &[f32],
        fused: &[f32],
    ) -> (Vec<f32>, RowSums) {
        let tokens = queries.len() / SHAPE.query_width();
        let (mut output, mut sums) = (vec![0.0; queries.len()], RowSums::new(4, tokens));
        let input = AttentionInput { shape: SHAPE, documents, queries, keys, fused };
        attention(&input, &mut output, &mut sums, &mut AttentionWorkspace::default());
        (output, sums)
    }

    /// The scalar twin, in double precision.
    fn naive(documents: &[Range<usize>], queries: &[f32], keys: &[f32], fused: &[f32]) -> Vec<f64> {
        let mut output = vec![0.0; queries.len()];
        for document in documents {
            for i in document.clone() {
                for head in 0..4 {
                    let scores: Vec<f64> = (document.start..=i)
                        .map(|j| {
                            (0..6)
                                .map(|d| {
                                    queries[i * 24 + head * 6 + d] as f64
                                        * keys[j * 12 + head / 2 * 6 + d] as f64
                                })
                                .sum::<f64>()
                                / 6f64.sqrt()
                        })
                        .collect();
                    let sum: f64 = scores.iter().map(|s| s.exp()).sum();
                    for (j, score) in (document.start..).zip(&scores) {
                        for d in 0..6 {
                            output[i * 24 + head * 6 + d] +=
                                score.exp() / sum * fused[j * 48 + 36 + head / 2 * 6 + d] as f64;
                        }
                    }
                }
            }
        }
        output
    }

    #[test]
    fn agrees_with_the_scalar_twin_and_keeps_documents_apart() {
        for documents in [vec![0..1, 1..2], vec![0..7, 7..9], vec![0..60, 60..61, 61..175]] {
            let tokens = documents.last().unwrap().end;
            let (q, k, f) = (
                normal_numbers(1, tokens * 24),
                normal_numbers(2, tokens * 12),
                normal_numbers(3, tokens * 48),
            );
            let (output, _) = forward(&documents, &q, &k, &f);
            for (got, expected) in output.iter().zip(naive(&documents, &q, &k, &f)) {
                assert!((*got as f64 - expected).abs() < 1e-5, "{documents:?}: {got} {expected}");
            }
            same_on_every_path(|| forward(&documents, &q, &k, &f).0);
        }
    }

    #[test]
    fn backward_agrees_with_finite_differences() {
        let documents = [0..3, 3..58];
        let (q, k, f) = (normal_numbers(1, 58 * 24), normal_numbers(2, 58 * 12), normal_numbers(3, 58 * 48));
        let dy = normal_numbers(4, 58 * 24);
        let (output, sums) = forward(&documents, &q, &k, &f);
        let backward = || {
            let (mut dq, mut dk, mut df) = (vec![9.0; q.len()], vec![9.0; k.len()], vec![0.0; f.len()]);
            let input =
                AttentionInput { shape: SHAPE, documents: &documents, queries: &q, keys: &k, fused: &f };
            attention_backward(
                &input,
                &output,
                &dy,
                &sums,
                &mut dq,
                &mut dk,
                &mut df,
                &mut AttentionWorkspace::default(),
            );
            (dq, dk, df)
        };
        let (dq, dk, df) = backward();
        check_gradient("queries", &q, &dq, |q| weighted_sum(&forward(&documents, q, &k, &f).0, &dy));
        check_gradient("keys", &k, &dk, |k| weighted_sum(&forward(&documents, &q, k, &f).0, &dy));
        check_gradient("values", &f, &df, |f| weighted_sum(&forward(&documents, &q, &k, f).0, &dy));
        same_on_every_path(backward);
    }
}
