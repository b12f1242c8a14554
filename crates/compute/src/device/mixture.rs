//! What a mixture of experts queues on a device: routing, the way of the rows to their experts and back, and the experts'
//! products over stretches of rows whose lengths only the device knows. Arithmetic and sources in `routing`.

use super::Device;
use super::cpu::Shared;
use super::memory::{View, ViewMut};
use super::operations::wide;
use crate::product::{MatrixMut, MatrixRef, Product, Start, multiply_all};
use crate::routing::{self, Routing};

/// One of the matrices of each expert: where it stands when the experts lie one behind another.
#[derive(Clone, Copy, Debug)]
pub struct ExpertMatrices {
    /// Its output width.
    pub rows: usize,
    /// Its input width.
    pub columns: usize,
    /// Its place within an expert.
    pub first: usize,
    /// Elements of an expert.
    pub stride: usize,
}

impl ExpertMatrices {
    fn of<'a>(&self, experts: &'a [f32], expert: usize) -> MatrixRef<'a> {
        let elements = &experts[expert * self.stride + self.first..][..self.rows * self.columns];
        MatrixRef::new(elements, self.rows, self.columns)
    }
}

impl Device {
    /// The scores of all experts [tokens, E], each token's choice and its weights [tokens, k].
    pub fn route(
        &self,
        routing: &Routing,
        logits: View,
        bias: View,
        scores: ViewMut,
        chosen: ViewMut<u32>,
        weights: ViewMut,
    ) {
        let (experts, k) = (routing.experts, routing.chosen);
        let rows = logits.len() / experts;
        let (scores, chosen, weights) =
            (Shared::new(scores.elements), Shared::new(chosen.elements), Shared::new(weights.elements));
        // A row is worth some ten of its elements: the choice is a search.
        self.by_rows(rows, 10 * experts, |rows| {
            let (whole, pairs) = (wide(&rows, experts), wide(&rows, k));
            let logits = &logits.elements[whole.clone()];
            // SAFETY: pieces do not overlap.
            let (scores, chosen, weights) =
                unsafe { (scores.span(whole), chosen.span(pairs.clone()), weights.span(pairs)) };
            routing::route(routing, logits, bias.elements, scores, chosen, weights);
        });
    }

    /// The gradient by the logits, from the one by the weights (in sorted order), and `z_loss` times that of the z-loss.
    #[allow(clippy::too_many_arguments)]
    pub fn route_backward(
        &self,
        routing: &Routing,
        logits: View,
        scores: View,
        chosen: View<u32>,
        places: View<u32>,
        weight_gradient: View,
        z_loss: f32,
        logit_gradient: ViewMut,
    ) {
        let (experts, k) = (routing.experts, routing.chosen);
        let gradient = Shared::new(logit_gradient.elements);
        self.by_rows(scores.len() / experts, 10 * experts, |rows| {
            let (whole, pairs) = (wide(&rows, experts), wide(&rows, k));
            // SAFETY: pieces do not overlap.
            let gradient = unsafe { gradient.span(whole.clone()) };
            let scores = &scores.elements[whole.clone()];
            let (chosen, places) = (&chosen.elements[pairs.clone()], &places.elements[pairs]);
            routing::route_backward(routing, scores, chosen, places, weight_gradient.elements, gradient);
            if z_loss != 0.0 {
                routing::z_loss_backward(&logits.elements[whole], experts, z_loss, gradient);
            }
        });
    }

    /// Sorts pairs by expert: see [`routing::group`].
    pub fn group_by_expert(
        &self,
        chosen: View<u32>,
        offsets: ViewMut<u32>,
        pairs: ViewMut<u32>,
        places: ViewMut<u32>,
    ) {
        routing::group(chosen.elements, offsets.elements, pairs.elements, places.elements);
    }

    /// Adds the length of each expert's stretch to its element of `loads`.
    pub fn add_loads(&self, offsets: View<u32>, loads: ViewMut<u32>) {
        for (load, stretch) in loads.elements.iter_mut().zip(offsets.elements.windows(2)) {
            *load += stretch[1] - stretch[0];
        }
    }

    /// `output` [pairs, width] ← the row of x [tokens, width] that belongs to each pair.
    pub fn gather(&self, x: View, width: usize, k: usize, pairs: View<u32>, output: ViewMut) {
        let output = Shared::new(output.elements);
        self.by_rows(pairs.len(), width, |rows| {
            // SAFETY: pieces do not overlap.
            let output = unsafe { output.span(wide(&rows, width)) };
            routing::gather(x.elements, width, k, &pairs.elements[rows], output);
        });
    }

    /// Adds the rows of its pairs to each row of `x_gradient` [tokens, width].
    pub fn gather_backward(
        &self,
        gathered: View,
        width: usize,
        k: usize,
        places: View<u32>,
        x_gradient: ViewMut,
    ) {
        let x_gradient = Shared::new(x_gradient.elements);
        self.by_rows(places.len() / k, k * width, |rows| {
            // SAFETY: pieces do not overlap.
            let x_gradient = unsafe { x_gradient.span(wide(&rows, width)) };
            let places = &places.elements[wide(&rows, k)];
            routing::gather_backward(gathered.elements, width, k, places, x_gradient);
        });
    }

    /// Adds to each row of y [tokens, width] the weighted sum of its pairs' rows of `outputs` [pairs, width].
    pub fn combine(
        &self,
        outputs: View,
        width: usize,
        k: usize,
        places: View<u32>,
        weights: View,
        y: ViewMut,
    ) {
        let y = Shared::new(y.elements);
        self.by_rows(places.len() / k, k * width, |rows| {
            let pairs = wide(&rows, k);
            // SAFETY: pieces do not overlap.
            let y = unsafe { y.span(wide(&rows, width)) };
            let (places, weights) = (&places.elements[pairs.clone()], &weights.elements[pairs]);
            routing::combine(outputs.elements, width, k, places, weights, y);
        });
    }

    /// The weights' gradients, and the weighting of both gradients: see [`routing::weigh_backward`].
    #[allow(clippy::too_many_arguments)]
    pub fn weigh_backward(
        &self,
        activated: View,
        inner: usize,
        width: usize,
        pairs: View<u32>,
        weights: View,
        back: ViewMut,
        gathered: ViewMut,
        weight_gradient: ViewMut,
    ) {
        let [back, gathered, gradient] =
            [back, gathered, weight_gradient].map(|view| Shared::new(view.elements));
        self.by_rows(pairs.len(), inner + width, |rows| {
            let narrow = wide(&rows, inner);
            // SAFETY: pieces do not overlap.
            let (back, gathered, gradient) = unsafe {
                (back.span(narrow.clone()), gathered.span(wide(&rows, width)), gradient.span(rows.clone()))
            };
            let (activated, pairs) = (&activated.elements[narrow], &pairs.elements[rows]);
            routing::weigh_backward(
                activated,
                inner,
                width,
                pairs,
                weights.elements,
                back,
                gathered,
                gradient,
            );
        });
    }

    /// y ← x·Wᵀ, each expert's stretch of rows with its own W.
    pub fn multiply_experts(
        &self,
        x: View,
        offsets: View<u32>,
        experts: View,
        matrices: ExpertMatrices,
        y: ViewMut,
    ) {
        let product = |expert: usize| matrices.of(experts.elements, expert).transposed();
        self.stretches(x.elements, matrices.columns, offsets, product, y.elements, matrices.rows);
    }

    /// dx ← dy·W, each expert's stretch of rows with its own W.
    pub fn multiply_experts_backward(
        &self,
        output_gradient: View,
        offsets: View<u32>,
        experts: View,
        matrices: ExpertMatrices,
        x_gradient: ViewMut,
    ) {
        let product = |expert: usize| matrices.of(experts.elements, expert);
        let (dy, dx) = (output_gradient.elements, x_gradient.elements);
        self.stretches(dy, matrices.rows, offsets, product, dx, matrices.columns);
    }

    fn stretches<'a>(
        &self,
        x: &'a [f32],
        input: usize,
        offsets: View<u32>,
        matrix: impl Fn(usize) -> MatrixRef<'a>,
        y: &'a mut [f32],
        output: usize,
    ) {
        let mut rest = y;
        let mut products = Vec::new();
        for (expert, stretch) in offsets.elements.windows(2).enumerate() {
            let (first, rows) = (stretch[0] as usize, (stretch[1] - stretch[0]) as usize);
            let (c, others) = rest.split_at_mut(rows * output);
            rest = others;
            let a = MatrixRef::new(&x[first * input..][..rows * input], rows, input);
            let c = MatrixMut::new(c, rows, output);
            products.push(Product { a, b: matrix(expert), c, start: Start::Zero });
        }
        let threads = self.threads();
        self.cpu.run(|| multiply_all(threads, products));
    }

    /// dW += dyᵀ·x for each expert, over its stretch of rows.
    pub fn multiply_experts_gradient(
        &self,
        output_gradient: View,
        x: View,
        offsets: View<u32>,
        matrices: ExpertMatrices,
        gradient: ViewMut,
    ) {
        let ExpertMatrices { rows: output, columns: input, first: begin, stride } = matrices;
        let mut products = Vec::new();
        let stretches = offsets.elements.windows(2);
        for (stretch, expert) in stretches.zip(gradient.elements.chunks_exact_mut(stride)) {
            let (first, rows) = (stretch[0] as usize, (stretch[1] - stretch[0]) as usize);
            let dy = &output_gradient.elements[first * output..][..rows * output];
            let x = &x.elements[first * input..][..rows * input];
            products.push(Product {
                a: MatrixRef::new(dy, rows, output).transposed(),
                b: MatrixRef::new(x, rows, input),
                c: MatrixMut::new(&mut expert[begin..][..output * input], output, input),
                start: Start::Continue,
            });
        }
        let threads = self.threads();
        self.cpu.run(|| multiply_all(threads, products));
    }
}
