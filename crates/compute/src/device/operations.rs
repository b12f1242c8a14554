//! What a decoder's forward and backward passes queue on a device. Shapes stand at each operation; arithmetic and sources
//! at the kernels of the same names.

use super::cpu::{Shared, lock};
use super::memory::{Buffer, Element, MatrixView, MatrixViewMut, View, ViewMut};
use super::{Device, cpu};
use crate::attention::{
    AttentionInput, AttentionShape, Group, attention_of_group, attention_of_group_backward,
};
use crate::cross_entropy::cross_entropy_rows;
use crate::dropout::{Dropout, add_with_dropout, add_with_dropout_backward, dropout};
use crate::product::{MatrixMut, MatrixRef, Start, multiply_parallel};
use crate::rotary::{HeadNorm, HeadSpan, RotaryTable, normalise_and_rotate, normalise_and_rotate_backward};
use crate::{elementwise, embedding, normalisation, optimiser, swiglu};
use std::ops::Range;

/// Rows of a block whose gradients by a norm's weight or a bias are summed by themselves: part of what decides the bits.
const BLOCK_ROWS: usize = 64;
/// Elements of a block of a sum over a whole buffer.
const BLOCK: usize = 1 << 15;
/// Logits held at a time: 16 MiB, but never fewer than 512 rows, since each round reads and writes the table's gradient.
const CHUNK_LOGITS: usize = 1 << 22;
const CHUNK_ROWS: usize = 512;

/// Rows of logits that [`Device::projection_cross_entropy`] holds at a time.
pub fn rows_of_logits(vocabulary: usize) -> usize {
    (CHUNK_LOGITS / vocabulary).max(CHUNK_ROWS)
}

/// What one layer's attention reads.
#[derive(Clone, Copy, Debug)]
pub struct Attention<'a> {
    /// The layer's shape.
    pub shape: AttentionShape,
    /// Token ranges of the documents, one behind another. A token attends to what precedes it in its own.
    pub documents: &'a [Range<usize>],
    /// [tokens, query_width], rotated
    pub queries: View<'a>,
    /// [tokens, key_width], rotated
    pub keys: View<'a>,
    /// [tokens, fused_width]; the values are its last key_width columns
    pub fused: View<'a>,
}

/// What the backward pass of attention needs of each row of scores: its maximum times −scale, and the reciprocal of its
/// sum; for each document [heads, length].
#[derive(Debug, Default)]
pub struct AttentionSums {
    shifts: Buffer,
    reciprocals: Buffer,
}

impl AttentionSums {
    /// Room for `heads` · `tokens` rows.
    pub fn new(device: &Device, heads: usize, tokens: usize) -> AttentionSums {
        AttentionSums { shifts: device.zeros(heads * tokens), reciprocals: device.zeros(heads * tokens) }
    }
}

/// Where the gradients of the loss go.
#[derive(Debug)]
pub struct LossGradients<'a> {
    /// d(total loss) / d(loss of one position), usually 1 / number of targets in the step.
    pub scale: f32,
    /// [tokens, width], overwritten
    pub hidden: ViewMut<'a>,
    /// [vocabulary, width], added to; `None` when the projection is frozen
    pub weight: Option<ViewMut<'a>>,
}

impl Device {
    /// C ← A·B, or C + A·B.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn multiply(&self, a: MatrixView, b: MatrixView, c: MatrixViewMut, start: Start) {
        self.product(a.matrix, b.matrix, c.matrix, start);
    }

    fn product(&self, a: MatrixRef, b: MatrixRef, c: MatrixMut, start: Start) {
        let threads = self.threads();
        self.cpu.run(|| multiply_parallel(threads, a, b, c, start));
    }

    /// `output` [tokens, width] ← the tokens' rows of `table` [vocabulary, width].
    pub fn embedding(&self, table: View, width: usize, tokens: View<u32>, output: ViewMut) {
        let output = Shared::new(output.elements);
        self.by_rows(tokens.len(), width, |rows| {
            // SAFETY: pieces do not overlap.
            let output = unsafe { output.span(wide(&rows, width)) };
            embedding::embedding(table.elements, width, &tokens.elements[rows], output);
        });
    }

    /// Adds each token's row to its row of `table_gradient`, in the order of the tokens.
    pub fn embedding_backward(
        &self,
        output_gradient: View,
        width: usize,
        tokens: View<u32>,
        table_gradient: ViewMut,
    ) {
        let table_gradient = Shared::new(table_gradient.elements);
        // Every thread meets all tokens, in columns of its own: no row is two threads', and the order is the tokens'.
        let piece = width.div_ceil(self.threads()).next_multiple_of(16);
        self.cpu.spans(width, piece, |_, columns| {
            for (row, &token) in tokens.elements.iter().enumerate() {
                let source = &output_gradient.elements[row * width..][columns.clone()];
                let at = token as usize * width;
                // SAFETY: columns of different pieces do not overlap.
                let target = unsafe { table_gradient.span(at + columns.start..at + columns.end) };
                elementwise::add(target, source);
            }
        });
    }

    /// `output` ← w · x · r, and r = 1 / √(mean x² + ε) into `reciprocal`, for rows of `weight.len()` elements.
    pub fn rms_norm(&self, x: View, weight: View, epsilon: f32, output: ViewMut, reciprocal: ViewMut) {
        let width = weight.len();
        let rows = reciprocal.len();
        let (output, reciprocal) = (Shared::new(output.elements), Shared::new(reciprocal.elements));
        self.by_rows(rows, width, |rows| {
            let span = wide(&rows, width);
            // SAFETY: pieces do not overlap.
            let (y, r) = unsafe { (output.span(span.clone()), reciprocal.span(rows)) };
            normalisation::rms_norm(&x.elements[span], weight.elements, epsilon, y, r);
        });
    }

    /// Adds the gradient by x to `x_gradient` and, where wanted, the gradient by w to `weight_gradient`.
    pub fn rms_norm_backward(
        &self,
        output_gradient: View,
        x: View,
        weight: View,
        reciprocal: View,
        x_gradient: ViewMut,
        weight_gradient: Option<ViewMut>,
    ) {
        let width = weight.len();
        let x_gradient = Shared::new(x_gradient.elements);
        self.with_partial_sums(reciprocal.len(), width, weight_gradient, |rows, partial| {
            let span = wide(&rows, width);
            normalisation::rms_norm_backward(
                &output_gradient.elements[span.clone()],
                &x.elements[span.clone()],
                weight.elements,
                &reciprocal.elements[rows],
                // SAFETY: blocks do not overlap.
                unsafe { x_gradient.span(span) },
                partial,
            );
        });
    }

    /// Adds `bias` to every row of `x`.
    pub fn add_bias(&self, x: ViewMut, bias: View) {
        let width = bias.len();
        let rows = x.len() / width.max(1);
        let x = Shared::new(x.elements);
        self.by_rows(rows, width, |rows| {
            // SAFETY: pieces do not overlap.
            elementwise::add_bias(unsafe { x.span(wide(&rows, width)) }, bias.elements);
        });
    }

    /// Adds every row of `output_gradient` to `bias_gradient`.
    pub fn add_bias_backward(&self, output_gradient: View, bias_gradient: ViewMut) {
        let width = bias_gradient.len();
        let rows = output_gradient.len() / width.max(1);
        self.with_partial_sums(rows, width, Some(bias_gradient), |rows, partial| {
            let partial = partial.expect("a bias gradient is wanted");
            elementwise::add_bias_backward(&output_gradient.elements[wide(&rows, width)], partial);
        });
    }

    /// `output` [tokens, heads · head_dim] ← rotated (and normalised) heads of `input`, at the tokens' `positions`; the
    /// norms' reciprocals into `reciprocal` [tokens · heads] (untouched without a norm). The norm is (weight, ε).
    #[allow(clippy::too_many_arguments)]
    pub fn normalise_and_rotate(
        &self,
        input: View,
        span: HeadSpan,
        norm: Option<(View, f32)>,
        table: &RotaryTable,
        positions: View<u32>,
        output: ViewMut,
        reciprocal: ViewMut,
    ) {
        let width = span.heads * span.head_dim;
        let (output, reciprocal) = (Shared::new(output.elements), Shared::new(reciprocal.elements));
        self.by_rows(positions.len(), width, |rows| {
            // SAFETY: pieces do not overlap.
            let (y, r) =
                unsafe { (output.span(wide(&rows, width)), reciprocal.span(wide(&rows, span.heads))) };
            let input = &input.elements[wide(&rows, span.row_stride)];
            normalise_and_rotate(input, span, head_norm(norm), table, &positions.elements[rows], y, r);
        });
    }

    /// The gradient by `input` into the heads' places of `input_gradient`, and added to `weight_gradient`, where wanted, the
    /// one by the norm's weight. `output_gradient` is turned back in place.
    #[allow(clippy::too_many_arguments)]
    pub fn normalise_and_rotate_backward(
        &self,
        output_gradient: ViewMut,
        input: View,
        span: HeadSpan,
        norm: Option<(View, f32)>,
        table: &RotaryTable,
        positions: View<u32>,
        reciprocal: View,
        input_gradient: ViewMut,
        weight_gradient: Option<ViewMut>,
    ) {
        let width = span.heads * span.head_dim;
        let (output_gradient, input_gradient) =
            (Shared::new(output_gradient.elements), Shared::new(input_gradient.elements));
        self.with_partial_sums(positions.len(), span.head_dim, weight_gradient, |rows, partial| {
            let whole = wide(&rows, span.row_stride);
            normalise_and_rotate_backward(
                // SAFETY: blocks do not overlap.
                unsafe { output_gradient.span(wide(&rows, width)) },
                &input.elements[whole.clone()],
                span,
                head_norm(norm),
                table,
                &positions.elements[rows.clone()],
                &reciprocal.elements[wide(&rows, span.heads)],
                // SAFETY: as above.
                unsafe { input_gradient.span(whole) },
                partial,
            );
        });
    }

    /// `output` [tokens, query_width] ← attention; what the backward needs of each row into `sums`.
    pub fn attention(&self, input: Attention, output: ViewMut, sums: &mut AttentionSums) {
        let Attention { shape, documents, .. } = input;
        let output = Shared::new(output.elements);
        let (shifts, reciprocals) =
            (Shared::new(sums.shifts.at_mut(..).elements), Shared::new(sums.reciprocals.at_mut(..).elements));
        let groups = groups(documents, shape);
        self.cpu.spans(groups.len(), 1, |index, _| {
            let group = &groups[index];
            let span = sums_of(group, shape);
            let mut workspace = self.cpu.attention();
            // SAFETY: the sums of different groups do not overlap.
            let (shifts, reciprocals) = unsafe { (shifts.span(span.clone()), reciprocals.span(span)) };
            attention_of_group(&kernel_input(&input), group, shifts, reciprocals, &mut workspace);
            let (column, width) = (group.kv_head * shape.group() * shape.head_dim, shape.query_width());
            scatter(&workspace.group_rows, shape.group() * shape.head_dim, group, column, width, &output);
        });
    }

    /// Gradients by the rotated queries and keys (overwritten), and by the values (into the last columns of
    /// `fused_gradient`, overwritten).
    #[allow(clippy::too_many_arguments)]
    pub fn attention_backward(
        &self,
        input: Attention,
        output: View,
        output_gradient: View,
        sums: &AttentionSums,
        query_gradient: ViewMut,
        key_gradient: ViewMut,
        fused_gradient: ViewMut,
    ) {
        let Attention { shape, documents, .. } = input;
        let [queries, keys, fused] =
            [query_gradient, key_gradient, fused_gradient].map(|gradient| Shared::new(gradient.elements));
        let groups = groups(documents, shape);
        self.cpu.spans(groups.len(), 1, |index, _| {
            let group = &groups[index];
            let span = sums_of(group, shape);
            let mut workspace = self.cpu.attention();
            attention_of_group_backward(
                &kernel_input(&input),
                group,
                output.elements,
                output_gradient.elements,
                sums.shifts.at(span.clone()).elements,
                sums.reciprocals.at(span).elements,
                &mut workspace,
            );
            let head_dim = shape.head_dim;
            let (q_width, k_width) = (shape.query_width(), shape.key_width());
            let column = group.kv_head * head_dim;
            let group_width = shape.group() * head_dim;
            scatter(&workspace.group_rows, group_width, group, column * shape.group(), q_width, &queries);
            scatter(&workspace.key_rows, head_dim, group, column, k_width, &keys);
            let column = q_width + k_width + column;
            scatter(&workspace.value_rows, head_dim, group, column, shape.fused_width(), &fused);
        });
    }

    /// `output` [tokens, width] ← silu(gate) · up, where a row of `gate_up` is the gate's `width` elements, then up's.
    pub fn swiglu(&self, gate_up: View, width: usize, output: ViewMut) {
        let rows = output.len() / width;
        let output = Shared::new(output.elements);
        self.by_rows(rows, width, |rows| {
            let gate_up = &gate_up.elements[wide(&rows, 2 * width)];
            // SAFETY: pieces do not overlap.
            swiglu::swiglu(gate_up, width, unsafe { output.span(wide(&rows, width)) });
        });
    }

    /// The gradient by gate and up into `gate_up_gradient`.
    pub fn swiglu_backward(
        &self,
        output_gradient: View,
        gate_up: View,
        width: usize,
        gate_up_gradient: ViewMut,
    ) {
        let rows = output_gradient.len() / width;
        let gradient = Shared::new(gate_up_gradient.elements);
        self.by_rows(rows, 2 * width, |rows| {
            let (narrow, whole) = (wide(&rows, width), wide(&rows, 2 * width));
            let (dy, x) = (&output_gradient.elements[narrow], &gate_up.elements[whole.clone()]);
            // SAFETY: pieces do not overlap.
            swiglu::swiglu_backward(dy, x, width, unsafe { gradient.span(whole) });
        });
    }

    /// y ← y + x
    pub fn add(&self, y: ViewMut, x: View) {
        self.elementwise(y, |span, y| elementwise::add(y, &x.elements[span]));
    }

    /// y ← a + b
    pub fn sum(&self, a: View, b: View, y: ViewMut) {
        self.elementwise(y, |span, y| {
            y.copy_from_slice(&a.elements[span.clone()]);
            elementwise::add(y, &b.elements[span]);
        });
    }

    /// x ← x · factor
    pub fn scale(&self, x: ViewMut, factor: f32) {
        self.elementwise(x, |_, x| elementwise::scale(x, factor));
    }

    /// y ← x
    pub fn copy(&self, x: View, y: ViewMut) {
        self.elementwise(y, |span, y| y.copy_from_slice(&x.elements[span]));
    }

    /// Every element ← value.
    pub fn fill<T: Element>(&self, x: ViewMut<T>, value: T) {
        self.elementwise(x, |_, x| x.fill(value));
    }

    /// x ← x · mask, in place. `first` is the index of x's first element among all of the step. Also its own backward.
    pub fn dropout(&self, x: ViewMut, rate: Dropout, first: u32) {
        self.elementwise(x, |span, x| dropout(x, rate, first.wrapping_add(span.start as u32)));
    }

    /// `output` ← `residual` + `branch` · mask.
    pub fn add_with_dropout(&self, residual: View, branch: View, rate: Dropout, first: u32, output: ViewMut) {
        self.elementwise(output, |span, output| {
            let first = first.wrapping_add(span.start as u32);
            let (residual, branch) = (&residual.elements[span.clone()], &branch.elements[span]);
            add_with_dropout(residual, branch, rate, first, output);
        });
    }

    /// `branch_gradient` ← `output_gradient` · mask.
    pub fn add_with_dropout_backward(
        &self,
        output_gradient: View,
        rate: Dropout,
        first: u32,
        branch_gradient: ViewMut,
    ) {
        self.elementwise(branch_gradient, |span, gradient| {
            let first = first.wrapping_add(span.start as u32);
            add_with_dropout_backward(&output_gradient.elements[span], rate, first, gradient);
        });
    }

    /// −ln p(target) of each position into `losses` (0 where there is no target), in nats, where p is the softmax of
    /// `hidden` [tokens, width] times `weight` [vocabulary, width] transposed; gradients where wanted. Logits exist for some
    /// rows at a time only.
    pub fn projection_cross_entropy(
        &self,
        hidden: View,
        weight: View,
        width: usize,
        targets: View<u32>,
        losses: ViewMut<f64>,
        mut gradients: Option<LossGradients>,
    ) {
        let vocabulary = weight.len() / width;
        let rows_at_once = rows_of_logits(vocabulary).min(targets.len().max(1));
        let mut buffer = lock(&self.cpu.logits);
        if buffer.len() < rows_at_once * vocabulary {
            buffer.resize(rows_at_once * vocabulary, 0.0);
        }
        let matrix = MatrixRef::new(weight.elements, vocabulary, width);
        for first in (0..targets.len()).step_by(rows_at_once) {
            let rows = rows_at_once.min(targets.len() - first);
            let span = wide(&(first..first + rows), width);
            let x = MatrixRef::new(&hidden.elements[span.clone()], rows, width);
            let logits = &mut buffer[..rows * vocabulary];
            self.product(x, matrix.transposed(), MatrixMut::new(logits, rows, vocabulary), Start::Zero);
            let scale = gradients.as_ref().map_or(0.0, |gradients| gradients.scale);
            {
                let logits = Shared::new(logits);
                let losses = Shared::new(&mut losses.elements[first..first + rows]);
                let targets = &targets.elements[first..first + rows];
                self.by_rows(rows, vocabulary, |rows| {
                    // SAFETY: pieces do not overlap.
                    let (logits, losses) =
                        unsafe { (logits.span(wide(&rows, vocabulary)), losses.span(rows.clone())) };
                    cross_entropy_rows(logits, vocabulary, &targets[rows], scale, losses);
                });
            }
            let Some(gradients) = &mut gradients else { continue };
            let d = MatrixRef::new(logits, rows, vocabulary);
            let target = MatrixMut::new(&mut gradients.hidden.elements[span], rows, width);
            self.product(d, matrix, target, Start::Zero);
            if let Some(weight) = &mut gradients.weight {
                let target = MatrixMut::new(weight.elements, vocabulary, width);
                self.product(d.transposed(), x, target, Start::Continue);
            }
        }
    }

    /// Adds all of `values`, in order, to the one element of `total`.
    pub fn add_up(&self, values: View<f64>, total: ViewMut<f64>) {
        total.elements[0] = values.elements.iter().fold(total.elements[0], |sum, value| sum + value);
    }

    /// The one element of `total` ← Σ x², in double precision over fixed stretches.
    pub fn squared_norm(&self, x: View, total: ViewMut<f64>) {
        let mut parts = vec![0.0f64; x.len().div_ceil(BLOCK)];
        let shared = Shared::new(&mut parts);
        self.cpu.spans(x.len(), BLOCK, |index, span| {
            // SAFETY: one element for each block.
            let part = unsafe { shared.span(index..index + 1) };
            part[0] = optimiser::squared_norm(&x.elements[span]);
        });
        total.elements[0] = parts.iter().sum();
    }

    /// Cuts rows whose results do not touch each other.
    pub(super) fn by_rows(&self, rows: usize, width: usize, work: impl Fn(Range<usize>) + Sync) {
        self.cpu.spans(rows, self.cpu.rows_of_piece(rows, width), |_, rows| work(rows));
    }

    fn elementwise<T: Element>(&self, y: ViewMut<T>, work: impl Fn(Range<usize>, &mut [T]) + Sync) {
        let length = y.len();
        let y = Shared::new(y.elements);
        // Whole vectors, so that no piece begins with a remainder.
        let piece = self.cpu.rows_of_piece(length, 1).next_multiple_of(64);
        self.cpu.spans(length, piece, |_, span| {
            // SAFETY: pieces do not overlap.
            work(span.clone(), unsafe { y.span(span) });
        });
    }

    /// Runs `work` on fixed blocks of rows, each with a sum of its own where a gradient is wanted; the sums are then added to
    /// it in order. Neither threads nor a cutting at whole blocks into micro-batches decide a bit.
    fn with_partial_sums(
        &self,
        rows: usize,
        width: usize,
        gradient: Option<ViewMut>,
        work: impl Fn(Range<usize>, Option<&mut [f32]>) + Sync,
    ) {
        let Some(gradient) = gradient else {
            return self.cpu.spans(rows, BLOCK_ROWS, |_, rows| work(rows, None));
        };
        let mut partials = vec![0.0f32; rows.div_ceil(BLOCK_ROWS) * width];
        let shared = Shared::new(&mut partials);
        self.cpu.spans(rows, BLOCK_ROWS, |index, rows| {
            // SAFETY: one partial sum for each block.
            work(rows, Some(unsafe { shared.span(index * width..(index + 1) * width) }));
        });
        for partial in partials.chunks_exact(width) {
            elementwise::add(gradient.elements, partial);
        }
    }
}

pub(super) fn wide(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

fn head_norm<'a>(norm: Option<(View<'a>, f32)>) -> Option<HeadNorm<'a>> {
    norm.map(|(weight, epsilon)| HeadNorm { weight: weight.elements, epsilon })
}

fn kernel_input<'a>(input: &Attention<'a>) -> AttentionInput<'a> {
    AttentionInput {
        shape: input.shape,
        queries: input.queries.elements,
        keys: input.keys.elements,
        fused: input.fused.elements,
    }
}

/// The work of one layer's attention, the longest documents first, so that no thread is left with one at the end.
fn groups(documents: &[Range<usize>], shape: AttentionShape) -> Vec<Group> {
    let mut groups: Vec<Group> = documents
        .iter()
        .flat_map(|document| (0..shape.kv_heads).map(|kv_head| Group { document: document.clone(), kv_head }))
        .collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.document.len()));
    groups
}

/// Where a group's rows of scores have their sums.
fn sums_of(group: &Group, shape: AttentionShape) -> Range<usize> {
    let length = group.document.len();
    let begin = shape.heads * group.document.start + group.kv_head * shape.group() * length;
    begin..begin + shape.group() * length
}

/// Copies a group's rows of `width` elements to their columns of whole rows.
fn scatter(
    rows: &[f32],
    width: usize,
    group: &Group,
    column: usize,
    stride: usize,
    target: &cpu::Shared<f32>,
) {
    for (row, source) in group.document.clone().zip(rows.chunks_exact(width)) {
        let at = row * stride + column;
        // SAFETY: different groups have different columns or rows.
        unsafe { target.span(at..at + width) }.copy_from_slice(source);
    }
}
