//! An adapter's pair in the training pass: y += (α / r) · B·A·x on a device, forward and backward.

use crate::adapter::{Adapter, LowRankSpans, Projection};
use compute::{Buffer, Device, Start, View, ViewMut};

/// One projection's pair, and what it computes with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRankPass<'a> {
    device: &'a Device,
    spans: &'a LowRankSpans,
    values: &'a Buffer,
    rows: usize,
}

impl<'a> LowRankPass<'a> {
    /// The pair of a projection, where the adapter has one, over `rows` tokens.
    pub fn of(
        device: &'a Device,
        adapter: &'a Adapter,
        values: &'a Buffer,
        layer: usize,
        projection: Projection,
        rows: usize,
    ) -> Option<LowRankPass<'a>> {
        let spans = adapter.spans(layer, projection)?;
        Some(LowRankPass { device, spans, values, rows })
    }

    /// Adds the pair's part to `output`, whose rows begin `stride` apart; `reduced` grows to rows · rank.
    pub fn add(&self, x: View, reduced: &mut Buffer, output: ViewMut, stride: usize) {
        self.reduce(x, reduced);
        let b = self.values.at(self.spans.b.clone()).matrix(self.spans.output, self.spans.rank);
        let reduced = reduced.at(..self.rows * self.spans.rank).matrix(self.rows, self.spans.rank);
        let output = output.strided(self.rows, self.spans.output, stride);
        self.device.multiply(reduced, b.transposed(), output, Start::Continue);
    }

    /// Adds the gradients by A and B to `gradient` (the adapter's buffer) and the one by x to `x_gradient`.
    pub fn backward(
        &self,
        output_gradient: View,
        stride: usize,
        x: View,
        [reduced, reduced_gradient]: &mut [Buffer; 2],
        gradient: &mut Buffer,
        x_gradient: ViewMut,
    ) {
        let LowRankSpans { a, b, input, output, rank, scaling } = self.spans;
        let (rows, rank) = (self.rows, *rank);
        self.reduce(x, reduced);
        let dy = output_gradient.strided(rows, *output, stride);
        let inner = reduced.at(..rows * rank).matrix(rows, rank);
        let db = gradient.at_mut(b.clone()).matrix(*output, rank);
        self.device.multiply(dy.transposed(), inner, db, Start::Continue);
        self.grow(reduced_gradient);
        let weights = self.values.at(b.clone()).matrix(*output, rank);
        let target = reduced_gradient.at_mut(..rows * rank).matrix(rows, rank);
        self.device.multiply(dy, weights, target, Start::Zero);
        self.device.scale(reduced_gradient.at_mut(..rows * rank), *scaling);
        let d = reduced_gradient.at(..rows * rank).matrix(rows, rank);
        let da = gradient.at_mut(a.clone()).matrix(rank, *input);
        self.device.multiply(d.transposed(), x.matrix(rows, *input), da, Start::Continue);
        let a = self.values.at(a.clone()).matrix(rank, *input);
        self.device.multiply(d, a, x_gradient.matrix(rows, *input), Start::Continue);
    }

    /// reduced ← (α / r) · x·Aᵀ
    fn reduce(&self, x: View, reduced: &mut Buffer) {
        self.grow(reduced);
        let a = self.values.at(self.spans.a.clone()).matrix(self.spans.rank, self.spans.input).transposed();
        let target = reduced.at_mut(..self.rows * self.spans.rank).matrix(self.rows, self.spans.rank);
        self.device.multiply(x.matrix(self.rows, self.spans.input), a, target, Start::Zero);
        self.device.scale(reduced.at_mut(..self.rows * self.spans.rank), self.spans.scaling);
    }

    fn grow(&self, buffer: &mut Buffer) {
        if buffer.len() < self.rows * self.spans.rank {
            *buffer = self.device.zeros(self.rows * self.spans.rank);
        }
    }
}
