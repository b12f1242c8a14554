//! The routed experts of one layer in the training pass: from the normed rows through the router, to the experts and back.
//!
//! Rows are sorted by expert, so that each expert is a product over a stretch of them; nothing is padded and no token is
//! dropped. The shared experts are the layer's dense block, which the decoder computes as in any other layer.

use crate::config::{FeedForwardSpecification, MixtureSpecification, ModelConfig};
use crate::spans::MixtureSpans;
use compute::device::ExpertMatrices;
use compute::routing::Routing;
use compute::{Buffer, Device, Start, View, ViewMut};
use std::ops::Range;

/// What the backward pass needs of one layer's routed experts.
#[derive(Debug)]
pub(crate) struct MixtureActivations {
    /// [tokens, E]
    logits: Buffer,
    scores: Buffer,
    /// [tokens, k]
    chosen: Buffer<u32>,
    weights: Buffer,
    /// [E + 1]: where each expert's rows begin.
    offsets: Buffer<u32>,
    /// [tokens · k]: from sorted places to pairs, and back.
    pairs: Buffer<u32>,
    places: Buffer<u32>,
    /// [tokens · k, …], sorted by expert
    gate_up: Buffer,
    activated: Buffer,
}

/// Rows on their way through the experts and gradients on their way back, each overwritten in every layer.
#[derive(Debug)]
pub(crate) struct MixturePassing {
    /// [tokens · k, hidden], sorted by expert: inputs, outputs, gradients by both.
    gathered: Buffer,
    inputs: Buffer,
    /// By the activated rows, and by gate and up.
    activated: Buffer,
    gate_up: Buffer,
    /// By the weights, in sorted order, and by the router's logits.
    weights: Buffer,
    logits: Buffer,
}

/// Sizes of the largest mixture of a model.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MixtureSizes {
    pub experts: usize,
    pairs: usize,
    width: usize,
    hidden: usize,
}

impl MixtureSizes {
    pub fn new(config: &ModelConfig) -> MixtureSizes {
        let mixtures = || config.layers.iter().filter_map(|layer| layer.feed_forward.mixture);
        let widest = |of: &dyn Fn(MixtureSpecification) -> usize| mixtures().map(of).max().unwrap_or(0);
        MixtureSizes {
            experts: widest(&|mixture| mixture.experts),
            pairs: widest(&|mixture| mixture.experts_per_token),
            width: widest(&|mixture| mixture.intermediate_size),
            hidden: if mixtures().next().is_some() { config.hidden_size } else { 0 },
        }
    }
}

impl MixtureActivations {
    pub fn new(device: &Device, sizes: MixtureSizes, tokens: usize) -> MixtureActivations {
        let MixtureSizes { experts, pairs, width, .. } = sizes;
        MixtureActivations {
            logits: device.zeros(tokens * experts),
            scores: device.zeros(tokens * experts),
            chosen: device.zeros(tokens * pairs),
            weights: device.zeros(tokens * pairs),
            offsets: device.zeros(experts + 1),
            pairs: device.zeros(tokens * pairs),
            places: device.zeros(tokens * pairs),
            gate_up: device.zeros(tokens * pairs * 2 * width),
            activated: device.zeros(tokens * pairs * width),
        }
    }
}

impl MixturePassing {
    pub fn new(device: &Device, sizes: MixtureSizes, tokens: usize) -> MixturePassing {
        let MixtureSizes { experts, pairs, width, hidden } = sizes;
        MixturePassing {
            gathered: device.zeros(tokens * pairs * hidden),
            inputs: device.zeros(tokens * pairs * hidden),
            activated: device.zeros(tokens * pairs * width),
            gate_up: device.zeros(tokens * pairs * 2 * width),
            weights: device.zeros(tokens * pairs),
            logits: device.zeros(tokens * experts),
        }
    }
}

/// One layer's routed experts, and what a pass computes with.
#[derive(Clone, Copy)]
pub(crate) struct MixturePass<'a> {
    device: &'a Device,
    parameters: &'a Buffer,
    spans: &'a MixtureSpans,
    routing: Routing,
    tokens: usize,
    hidden: usize,
    width: usize,
}

impl<'a> MixturePass<'a> {
    /// The experts of a layer, where it has some, over so many tokens.
    pub fn of(
        device: &'a Device,
        parameters: &'a Buffer,
        feed_forward: &FeedForwardSpecification,
        spans: Option<&'a MixtureSpans>,
        tokens: usize,
        hidden: usize,
    ) -> Option<MixturePass<'a>> {
        let (specification, spans) = (feed_forward.mixture?, spans?);
        let (routing, width) = (specification.routing(), specification.intermediate_size);
        Some(MixturePass { device, parameters, spans, routing, tokens, hidden, width })
    }

    /// Chooses, and computes the chosen experts as far as the activation.
    pub fn activate(&self, x: View, here: &mut MixtureActivations, passing: &mut MixturePassing) {
        let MixturePass { device, routing, tokens, hidden, width, .. } = *self;
        let (k, experts) = (routing.chosen, routing.experts);
        let pairs = tokens * k;
        let router = self.parameters.at(self.spans.router.clone()).matrix(experts, hidden).transposed();
        let logits = here.logits.at_mut(..tokens * experts).matrix(tokens, experts);
        device.multiply(x.matrix(tokens, hidden), router, logits, Start::Zero);
        device.route(
            &routing,
            here.logits.at(..tokens * experts),
            self.parameters.at(self.spans.router_bias.clone()),
            here.scores.at_mut(..tokens * experts),
            here.chosen.at_mut(..pairs),
            here.weights.at_mut(..pairs),
        );
        device.group_by_expert(
            here.chosen.at(..pairs),
            here.offsets.at_mut(..experts + 1),
            here.pairs.at_mut(..pairs),
            here.places.at_mut(..pairs),
        );
        let inputs = &mut passing.inputs;
        device.gather(x, hidden, k, here.pairs.at(..pairs), inputs.at_mut(..pairs * hidden));
        let target = here.gate_up.at_mut(..pairs * 2 * width);
        let (inputs, offsets) = (inputs.at(..pairs * hidden), here.offsets.at(..experts + 1));
        device.multiply_experts(inputs, offsets, self.experts(), self.gate_up(), target);
        let target = here.activated.at_mut(..pairs * width);
        device.swiglu(here.gate_up.at(..pairs * 2 * width), width, target);
    }

    /// Adds the weighted outputs of each token's experts to its row of `branch`.
    pub fn finish(&self, here: &MixtureActivations, passing: &mut MixturePassing, branch: ViewMut) {
        let MixturePass { device, routing, tokens, hidden, width, .. } = *self;
        let k = routing.chosen;
        let pairs = tokens * k;
        let outputs = &mut passing.gathered;
        let (activated, offsets) = (here.activated.at(..pairs * width), self.offsets(here));
        let target = outputs.at_mut(..pairs * hidden);
        device.multiply_experts(activated, offsets, self.experts(), self.down(), target);
        let (outputs, places) = (outputs.at(..pairs * hidden), here.places.at(..pairs));
        device.combine(outputs, hidden, k, places, here.weights.at(..pairs), branch);
    }

    /// From the gradient by the branch to those by the experts' inputs and the router's logits, which are left in `passing`,
    /// and by the experts' weights, added to the model's gradients where they are wanted. Adds to `loads` how many tokens
    /// each expert had.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        branch_gradient: View,
        x: View,
        z_loss: f32,
        here: &MixtureActivations,
        passing: &mut MixturePassing,
        mut gradients: Option<&mut Buffer>,
        loads: ViewMut<u32>,
    ) {
        let MixturePass { device, routing, tokens, hidden, width, .. } = *self;
        let (k, experts) = (routing.chosen, routing.experts);
        let pairs = tokens * k;
        let (rows, wide, wider) = (..pairs * hidden, ..pairs * width, ..pairs * 2 * width);
        let offsets = self.offsets(here);
        let (sorted, weights) = (here.pairs.at(..pairs), here.weights.at(..pairs));
        let MixturePassing { gathered, inputs, activated, gate_up, weights: by_weights, logits } = passing;
        device.add_loads(offsets, loads);
        device.gather(branch_gradient, hidden, k, sorted, gathered.at_mut(rows));
        let (dy, back) = (gathered.at(rows), activated.at_mut(wide));
        device.multiply_experts_backward(dy, offsets, self.experts(), self.down(), back);
        let forward = here.activated.at(wide);
        let (back, dy, dw) = (activated.at_mut(wide), gathered.at_mut(rows), by_weights.at_mut(..pairs));
        device.weigh_backward(forward, width, hidden, sorted, weights, back, dy, dw);
        if let Some(gradient) = gradients.as_deref_mut() {
            let target = gradient.at_mut(self.spans.experts.clone());
            device.multiply_experts_gradient(gathered.at(rows), forward, offsets, self.down(), target);
        }
        device.swiglu_backward(activated.at(wide), here.gate_up.at(wider), width, gate_up.at_mut(wider));
        if let Some(gradient) = gradients.as_deref_mut() {
            device.gather(x, hidden, k, sorted, inputs.at_mut(rows));
            let target = gradient.at_mut(self.spans.experts.clone());
            let (dy, x) = (gate_up.at(wider), inputs.at(rows));
            device.multiply_experts_gradient(dy, x, offsets, self.gate_up(), target);
        }
        let (dy, dx) = (gate_up.at(wider), gathered.at_mut(rows));
        device.multiply_experts_backward(dy, offsets, self.experts(), self.gate_up(), dx);

        let whole = ..tokens * experts;
        device.route_backward(
            &routing,
            here.logits.at(whole),
            here.scores.at(whole),
            here.chosen.at(..pairs),
            here.places.at(..pairs),
            by_weights.at(..pairs),
            z_loss,
            logits.at_mut(whole),
        );
        if let Some(gradient) = gradients {
            let target = gradient.at_mut(self.spans.router.clone()).matrix(experts, hidden);
            let dy = logits.at(whole).matrix(tokens, experts).transposed();
            device.multiply(dy, x.matrix(tokens, hidden), target, Start::Continue);
        }
    }

    /// Adds what [`MixturePass::backward`] has left to the gradient by x.
    pub fn finish_backward(
        &self,
        here: &MixtureActivations,
        passing: &MixturePassing,
        x_gradient: &mut Buffer,
    ) {
        let MixturePass { device, routing, tokens, hidden, .. } = *self;
        let (k, experts) = (routing.chosen, routing.experts);
        let gathered = passing.gathered.at(..tokens * k * hidden);
        let target = x_gradient.at_mut(..tokens * hidden);
        device.gather_backward(gathered, hidden, k, here.places.at(..tokens * k), target);
        let router = self.parameters.at(self.spans.router.clone()).matrix(experts, hidden);
        let logits = passing.logits.at(..tokens * experts).matrix(tokens, experts);
        let target = x_gradient.at_mut(..tokens * hidden).matrix(tokens, hidden);
        device.multiply(logits, router, target, Start::Continue);
    }

    fn experts(&self) -> View<'a> {
        self.parameters.at(self.spans.experts.clone())
    }

    fn offsets<'b>(&self, here: &'b MixtureActivations) -> View<'b, u32> {
        here.offsets.at(..self.routing.experts + 1)
    }

    fn gate_up(&self) -> ExpertMatrices {
        self.matrices(2 * self.width, self.hidden, self.spans.gate_up(0))
    }

    fn down(&self) -> ExpertMatrices {
        self.matrices(self.hidden, self.width, self.spans.down(0))
    }

    fn matrices(&self, rows: usize, columns: usize, of_first: Range<usize>) -> ExpertMatrices {
        let first = of_first.start - self.spans.experts.start;
        ExpertMatrices { rows, columns, first, stride: self.spans.expert_length }
    }
}
