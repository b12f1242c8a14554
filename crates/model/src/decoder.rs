//! The decoder's training pass: forward over a ragged batch of packed documents, and the explicit backward.
//!
//! A list of operations queued on a device, in the order of Qwen3's layer (norm, fused queries-keys-values, head norms and
//! rotation, attention, projection, norm, gated feed-forward). Read `activate` and `backward_layer` side by side.

use crate::ModelError;
use crate::adapter::{Adapter, Projection};
use crate::config::ModelConfig;
use crate::low_rank::LowRankPass;
use crate::mixture::MixturePass;
use crate::parameters::ParameterTable;
use crate::spans::ModelSpans;
use crate::workspace::{Activations, Passing, TrainingWorkspace};
use compute::attention::AttentionShape;
use compute::cross_entropy::NO_TARGET;
use compute::device::{Attention, LossGradients};
use compute::dropout::Dropout;
use compute::rotary::{HeadSpan, RotaryTable};
use compute::{Buffer, Device, Start, View, ViewMut, random};
use std::ops::Range;
use std::sync::Arc;

/// A decoder's definition: what to compute, and where each parameter stands. It holds no parameters itself.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub(crate) config: ModelConfig,
    pub(crate) spans: ModelSpans,
    pub(crate) rotary: Vec<Arc<RotaryTable>>,
    routers: RouterTraining,
}

/// How routers are trained, besides the gradient of the loss through the weights of the chosen experts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RouterTraining {
    /// Coefficient of the z-loss (Zoph et al., arXiv 2202.08906), the mean over the targets as in the loss. It is part of the
    /// gradient; the loss that is reported does not contain it.
    pub z_loss: f64,
    /// By how much a step moves the bias of an expert towards equal loads (arXiv 2408.15664).
    pub bias_update: f64,
}

/// A ragged micro-batch: documents packed one behind another.
#[derive(Clone, Copy, Debug)]
pub struct PackedBatch<'a> {
    /// All tokens.
    pub tokens: &'a [u32],
    /// The token to be predicted at each place, or [`NO_TARGET`].
    pub targets: &'a [u32],
    /// Position of each token within its document (for the rotation).
    pub positions: &'a [u32],
    /// Token ranges of the documents, one behind another, all tokens covered. Attention never crosses them.
    pub documents: &'a [Range<usize>],
    /// Index of the first token within the whole step: dropout does not depend on the cutting into micro-batches.
    pub first_token: u32,
}

/// Dropout on the embedding and on both branches of each layer.
#[derive(Clone, Copy, Debug)]
pub struct DropoutPlan {
    /// Share of elements that fall away, in [0, 1).
    pub probability: f32,
    /// Seed of the run.
    pub seed: u64,
    /// Step of the run.
    pub step: u64,
}

impl DropoutPlan {
    fn at(self, layer: usize, place: u64) -> Dropout {
        Dropout::new(random::key(&[self.seed, self.step, layer as u64, place]), self.probability)
    }
}

/// Which gradients are wanted; they are added to the buffer.
#[derive(Debug)]
pub enum Gradients<'a> {
    /// Loss alone.
    None,
    /// By all of the model's parameters, in the order of its table.
    Model(&'a mut Buffer),
    /// By the adapter's parameters alone; the model is frozen.
    Adapter(&'a mut Buffer),
}

impl Gradients<'_> {
    fn model(&mut self, span: &Range<usize>) -> Option<ViewMut<'_>> {
        match self {
            Gradients::Model(buffer) => Some(buffer.at_mut(span.clone())),
            _ => None,
        }
    }

    fn all_of_model(&mut self) -> Option<&mut Buffer> {
        match self {
            Gradients::Model(buffer) => Some(buffer),
            _ => None,
        }
    }
}

/// An adapter in training: its definition, and its numbers on the device.
#[derive(Clone, Copy, Debug)]
pub struct AdapterInTraining<'a> {
    /// Where each projection's pair stands.
    pub adapter: &'a Adapter,
    /// The numbers, in the order of the adapter's table.
    pub values: &'a Buffer,
}

/// What a pass computes with.
#[derive(Clone, Copy)]
struct Pass<'a> {
    device: &'a Device,
    parameters: &'a Buffer,
    adapter: Option<AdapterInTraining<'a>>,
    batch: &'a PackedBatch<'a>,
    tokens: View<'a, u32>,
    positions: View<'a, u32>,
    plan: Option<DropoutPlan>,
    gradient_scale: f32,
}

impl<'a> Pass<'a> {
    /// Tokens of the batch.
    fn count(&self) -> usize {
        self.batch.tokens.len()
    }

    fn weight(&self, span: &Range<usize>) -> View<'a> {
        self.parameters.at(span.clone())
    }

    /// Index of the first element of rows of `width` within the step.
    fn first(&self, width: usize) -> u32 {
        self.batch.first_token.wrapping_mul(width as u32)
    }

    fn dropout(&self, layer: usize, place: u64) -> Option<Dropout> {
        self.plan.map(|plan| plan.at(layer, place))
    }

    /// y ← x·wᵀ, with w [output, input]; y's width is w's length over `input`.
    fn linear(&self, x: View, weight: &Range<usize>, input: usize, y: ViewMut) {
        let (tokens, output) = (self.count(), weight.len() / input);
        let w = self.weight(weight).matrix(output, input).transposed();
        self.device.multiply(x.matrix(tokens, input), w, y.matrix(tokens, output), Start::Zero);
    }

    /// dx ← dy·w; dw += dyᵀ·x, where wanted.
    fn linear_backward(
        &self,
        dy: View,
        weight: &Range<usize>,
        x: View,
        dx: ViewMut,
        weight_gradient: Option<ViewMut>,
    ) {
        let tokens = self.count();
        let input = x.len() / tokens;
        let output = weight.len() / input;
        let dy = dy.matrix(tokens, output);
        let w = self.weight(weight).matrix(output, input);
        self.device.multiply(dy, w, dx.matrix(tokens, input), Start::Zero);
        if let Some(gradient) = weight_gradient {
            let x = x.matrix(tokens, input);
            self.device.multiply(dy.transposed(), x, gradient.matrix(output, input), Start::Continue);
        }
    }

    /// output ← residual + branch, dropped out.
    fn add_branch(&self, layer: usize, place: u64, residual: View, branch: View, output: ViewMut) {
        match self.dropout(layer, place) {
            Some(rate) => {
                let first = self.first(residual.len() / self.count());
                self.device.add_with_dropout(residual, branch, rate, first, output)
            }
            None => self.device.sum(residual, branch, output),
        }
    }

    fn branch_gradient(&self, layer: usize, place: u64, output_gradient: View, branch: ViewMut) {
        match self.dropout(layer, place) {
            Some(rate) => {
                let first = self.first(output_gradient.len() / self.count());
                self.device.add_with_dropout_backward(output_gradient, rate, first, branch)
            }
            None => self.device.copy(output_gradient, branch),
        }
    }

    fn low_rank(&self, layer: usize, projection: Projection) -> Option<LowRankPass<'a>> {
        let AdapterInTraining { adapter, values } = self.adapter?;
        LowRankPass::of(self.device, adapter, values, layer, projection, self.count())
    }
}

const AFTER_EMBEDDING: u64 = 0;
const AFTER_ATTENTION: u64 = 1;
const AFTER_FEED_FORWARD: u64 = 2;

impl Decoder {
    /// The decoder that `config` describes, for sequences of up to `positions` tokens.
    ///
    /// # Errors
    /// When the sizes do not fit together, the positions exceed the configuration's, or the model has a part that training
    /// does not compute.
    pub fn new(config: &ModelConfig, positions: usize) -> Result<Decoder, ModelError> {
        config.check()?;
        config.check_trainable()?;
        if positions > config.maximum_positions {
            return Err(ModelError::Shape(format!(
                "{positions} positions wanted, the model has {}",
                config.maximum_positions
            )));
        }
        let mut rotary: Vec<Arc<RotaryTable>> = Vec::new();
        let turn =
            |layer: usize| (config.layers[layer].attention.head_dim, config.layers[layer].attention.rotary);
        for index in 0..config.layers.len() {
            let same = (0..index).find(|other| turn(*other) == turn(index));
            rotary.push(match (same, turn(index)) {
                (Some(other), _) => rotary[other].clone(),
                (None, (head_dim, Some(turn))) => Arc::new(RotaryTable::new(positions, head_dim, turn.theta)),
                (None, (_, None)) => unreachable!("a layer without rotation is not trainable"),
            });
        }
        Ok(Decoder {
            config: config.clone(),
            spans: ModelSpans::new(config),
            rotary,
            routers: RouterTraining::default(),
        })
    }

    /// Parameters that a token meets: of a layer's experts, those that it is sent to.
    pub fn active_parameters(&self) -> usize {
        let idle = |layer: usize| {
            let (mixture, spans) =
                (self.config.layers[layer].feed_forward.mixture?, self.spans.layers[layer].mixture.as_ref()?);
            Some((mixture.experts - mixture.experts_per_token) * spans.expert_length)
        };
        self.spans.table.length() - (0..self.config.layers.len()).filter_map(idle).sum::<usize>()
    }

    /// The same decoder, with routers that are trained so.
    #[must_use]
    pub fn with_routers(self, routers: RouterTraining) -> Decoder {
        Decoder { routers, ..self }
    }

    /// Moves each router's bias towards equal loads, as [`TrainingWorkspace::take_expert_loads`] counts them.
    pub fn balance_experts(&self, device: &Device, parameters: &mut Buffer, loads: &[Vec<u64>]) {
        let mixtures = self.spans.layers.iter().filter_map(|layer| layer.mixture.as_ref());
        for (mixture, loads) in mixtures.zip(loads) {
            let mut bias = device.read(parameters.at(mixture.router_bias.clone()));
            compute::routing::balance(&mut bias, loads, self.routers.bias_update as f32);
            device.write(&bias, parameters.at_mut(mixture.router_bias.clone()));
        }
    }

    /// What it was made from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Names and places of its parameters.
    pub fn table(&self) -> &ParameterTable {
        &self.spans.table
    }

    /// Adds Σ −ln p(target) over the batch, in nats, to the workspace's loss, and the gradients of `gradient_scale` times
    /// this sum to `gradients`. Nothing is read back: [`TrainingWorkspace::take_loss`] does that.
    ///
    /// # Errors
    /// When tokens, positions or documents of the batch are out of range.
    ///
    /// # Panics
    /// When a buffer has another length than its table.
    #[allow(clippy::too_many_arguments)]
    pub fn accumulate(
        &self,
        parameters: &Buffer,
        adapter: Option<AdapterInTraining>,
        batch: PackedBatch,
        plan: Option<DropoutPlan>,
        gradient_scale: f32,
        mut gradients: Gradients,
        workspace: &mut TrainingWorkspace,
    ) -> Result<(), ModelError> {
        self.check(&batch, workspace)?;
        let TrainingWorkspace { device, tokens, targets, positions, activations, losses, total, .. } =
            workspace;
        device.write(batch.tokens, tokens.at_mut(..));
        device.write(batch.targets, targets.at_mut(..));
        device.write(batch.positions, positions.at_mut(..));
        let count = batch.tokens.len();
        let (tokens, targets) = (tokens.at(..count), targets.at(..count));
        let positions = positions.at(..count);
        let pass =
            Pass { device, parameters, adapter, batch: &batch, tokens, positions, plan, gradient_scale };
        self.forward(pass, activations);

        let (hidden, rows) = (self.config.hidden_size, count * self.config.hidden_size);
        let wanted = match &mut gradients {
            Gradients::None => None,
            wanted => Some(LossGradients {
                scale: gradient_scale,
                hidden: activations.passing.branch.at_mut(..rows),
                weight: wanted.model(&self.spans.head),
            }),
        };
        let (normed, head) = (activations.last_normed.at(..rows), pass.weight(&self.spans.head));
        device.projection_cross_entropy(normed, head, hidden, targets, losses.at_mut(..count), wanted);
        device.add_up(losses.at(..count), total.at_mut(..));
        if !matches!(gradients, Gradients::None) {
            self.backward(pass, &mut gradients, activations);
        }
        Ok(())
    }

    /// [`Decoder::accumulate`], and the loss read back.
    ///
    /// # Errors
    /// As there.
    #[allow(clippy::too_many_arguments)]
    pub fn loss(
        &self,
        parameters: &Buffer,
        adapter: Option<AdapterInTraining>,
        batch: PackedBatch,
        plan: Option<DropoutPlan>,
        gradient_scale: f32,
        gradients: Gradients,
        workspace: &mut TrainingWorkspace,
    ) -> Result<f64, ModelError> {
        self.accumulate(parameters, adapter, batch, plan, gradient_scale, gradients, workspace)?;
        Ok(workspace.take_loss())
    }

    /// All logits of a batch, [tokens, vocabulary]: for tests and small evaluations.
    ///
    /// # Errors
    /// As [`Decoder::accumulate`].
    pub fn logits(
        &self,
        parameters: &Buffer,
        adapter: Option<AdapterInTraining>,
        batch: PackedBatch,
        workspace: &mut TrainingWorkspace,
    ) -> Result<Vec<f32>, ModelError> {
        self.loss(parameters, adapter, batch, None, 0.0, Gradients::None, workspace)?;
        let (rows, hidden, vocabulary) =
            (batch.tokens.len(), self.config.hidden_size, self.config.vocabulary_size);
        let device = workspace.device();
        let mut logits = device.zeros(rows * vocabulary);
        let head = parameters.at(self.spans.head.clone()).matrix(vocabulary, hidden).transposed();
        let x = workspace.activations.last_normed.at(..rows * hidden).matrix(rows, hidden);
        device.multiply(x, head, logits.at_mut(..).matrix(rows, vocabulary), Start::Zero);
        Ok(device.read(logits.at(..)))
    }

    fn check(&self, batch: &PackedBatch, workspace: &TrainingWorkspace) -> Result<(), ModelError> {
        let tokens = batch.tokens.len();
        let fail = |problem: String| Err(ModelError::Input(problem));
        if batch.targets.len() != tokens || batch.positions.len() != tokens {
            return fail(format!(
                "{tokens} tokens, {} targets and {} positions in a batch",
                batch.targets.len(),
                batch.positions.len()
            ));
        }
        if tokens > workspace.maximum_tokens {
            return fail(format!(
                "{tokens} tokens in a batch, the buffers hold {}",
                workspace.maximum_tokens
            ));
        }
        let vocabulary = self.config.vocabulary_size as u32;
        if let Some(token) = batch
            .tokens
            .iter()
            .chain(batch.targets)
            .find(|token| **token >= vocabulary && **token != NO_TARGET)
        {
            return fail(format!("token {token} in a batch, the vocabulary has {vocabulary}"));
        }
        if batch.tokens.contains(&NO_TARGET) {
            return fail("a batch without a token at some place".into());
        }
        let positions = self.rotary[0].positions() as u32;
        if let Some(position) = batch.positions.iter().find(|position| **position >= positions) {
            return fail(format!("position {position} in a batch, the decoder was made for {positions}"));
        }
        let mut end = 0;
        for document in batch.documents {
            if document.start != end || document.is_empty() {
                return fail(format!("document {document:?} does not follow token {end}"));
            }
            end = document.end;
        }
        if end != tokens { fail(format!("documents end at token {end} of {tokens}")) } else { Ok(()) }
    }

    fn forward(&self, pass: Pass, activations: &mut Activations) {
        let device = pass.device;
        let hidden = self.config.hidden_size;
        let rows = pass.count() * hidden;
        let first = &mut activations.inputs[0];
        device.embedding(pass.weight(&self.spans.embedding), hidden, pass.tokens, first.at_mut(..rows));
        if let Some(rate) = pass.dropout(0, AFTER_EMBEDDING) {
            device.dropout(first.at_mut(..rows), rate, pass.first(hidden));
        }
        for layer in 0..self.config.layers.len() {
            self.activate(layer, pass, activations);
            self.finish(layer, pass, activations);
        }
        device.rms_norm(
            activations.inputs[self.config.layers.len()].at(..rows),
            pass.weight(&self.spans.final_norm),
            self.config.norm_epsilon as f32,
            activations.last_normed.at_mut(..rows),
            activations.last_reciprocal.at_mut(..pass.count()),
        );
    }

    /// Everything of a layer that its backward pass needs, from the layer's input.
    fn activate(&self, index: usize, pass: Pass, activations: &mut Activations) {
        let Activations { inputs, layers, recomputes, passing, .. } = activations;
        let here = &mut layers[if *recomputes { 0 } else { index }];
        let Passing { branch, low_rank: [reduced, _], .. } = passing;
        let (device, spans) = (pass.device, &self.spans.layers[index]);
        let (tokens, hidden, shape) = (pass.count(), self.config.hidden_size, self.shape(index));
        let width = self.config.layers[index].feed_forward.intermediate_size;
        let epsilon = self.config.norm_epsilon as f32;
        let rows = ..tokens * hidden;
        let (query_rows, key_rows) = (..tokens * shape.query_width(), ..tokens * shape.key_width());
        let fused_rows = ..tokens * shape.fused_width();

        // attention
        let input = inputs[index].at(rows);
        let reciprocal = here.input_reciprocal.at_mut(..tokens);
        device.rms_norm(input, pass.weight(&spans.input_norm), epsilon, here.normed.at_mut(rows), reciprocal);
        let normed = here.normed.at(rows);
        pass.linear(normed, &spans.fused, hidden, here.fused.at_mut(fused_rows));
        if let Some(bias) = &spans.fused_bias {
            device.add_bias(here.fused.at_mut(fused_rows), pass.weight(bias));
        }
        for (projection, column) in fused_columns(shape) {
            if let Some(pair) = pass.low_rank(index, projection) {
                let target = here.fused.at_mut(column..tokens * shape.fused_width());
                pair.add(normed, reduced, target, shape.fused_width());
            }
        }
        let [of_queries, of_keys] = head_spans(shape);
        for (span, norm, turned, reciprocal, rows) in [
            (of_queries, &spans.query_norm, &mut here.queries, &mut here.query_reciprocal, query_rows),
            (of_keys, &spans.key_norm, &mut here.keys, &mut here.key_reciprocal, key_rows),
        ] {
            device.normalise_and_rotate(
                here.fused.at(fused_rows),
                span,
                norm.as_ref().map(|norm| (pass.weight(norm), epsilon)),
                &self.rotary[index],
                pass.positions,
                turned.at_mut(rows),
                reciprocal.at_mut(..tokens * span.heads),
            );
        }
        let attention = Attention {
            shape,
            documents: pass.batch.documents,
            queries: here.queries.at(query_rows),
            keys: here.keys.at(key_rows),
            fused: here.fused.at(fused_rows),
        };
        device.attention(attention, here.attended.at_mut(query_rows), &mut here.sums);
        let attended = here.attended.at(query_rows);
        pass.linear(attended, &spans.output, shape.query_width(), branch.at_mut(rows));
        if let Some(pair) = pass.low_rank(index, Projection::Output) {
            pair.add(attended, reduced, branch.at_mut(rows), hidden);
        }
        pass.add_branch(index, AFTER_ATTENTION, input, branch.at(rows), here.middle.at_mut(rows));

        // feed-forward, as far as the activation
        let middle = here.middle.at(rows);
        let reciprocal = here.middle_reciprocal.at_mut(..tokens);
        let normed = here.middle_normed.at_mut(rows);
        device.rms_norm(middle, pass.weight(&spans.middle_norm), epsilon, normed, reciprocal);
        let normed = here.middle_normed.at(rows);
        pass.linear(normed, &spans.gate_up, hidden, here.gate_up.at_mut(..2 * tokens * width));
        for (projection, column) in [(Projection::Gate, 0), (Projection::Up, width)] {
            if let Some(pair) = pass.low_rank(index, projection) {
                pair.add(normed, reduced, here.gate_up.at_mut(column..2 * tokens * width), 2 * width);
            }
        }
        let gate_up = here.gate_up.at(..2 * tokens * width);
        device.swiglu(gate_up, width, here.activated.at_mut(..tokens * width));
        if let Some(mixture) = self.mixture(index, pass) {
            mixture.activate(normed, &mut here.mixture, &mut passing.mixture);
        }
    }

    /// The layer's output, from what [`Decoder::activate`] has left.
    fn finish(&self, index: usize, pass: Pass, activations: &mut Activations) {
        let Activations { inputs, layers, recomputes, passing, .. } = activations;
        let here = &layers[if *recomputes { 0 } else { index }];
        let Passing { branch, low_rank: [reduced, _], .. } = passing;
        let (tokens, hidden) = (pass.count(), self.config.hidden_size);
        let width = self.config.layers[index].feed_forward.intermediate_size;
        let rows = ..tokens * hidden;
        let activated = here.activated.at(..tokens * width);
        pass.linear(activated, &self.spans.layers[index].down, width, branch.at_mut(rows));
        if let Some(pair) = pass.low_rank(index, Projection::Down) {
            pair.add(activated, reduced, branch.at_mut(rows), hidden);
        }
        if let Some(mixture) = self.mixture(index, pass) {
            mixture.finish(&here.mixture, &mut passing.mixture, branch.at_mut(rows));
        }
        let output = inputs[index + 1].at_mut(rows);
        pass.add_branch(index, AFTER_FEED_FORWARD, here.middle.at(rows), branch.at(rows), output);
    }

    /// From the gradient by the normed output (in `passing.branch`) down to the embedding.
    fn backward(&self, pass: Pass, gradients: &mut Gradients, activations: &mut Activations) {
        let device = pass.device;
        let hidden = self.config.hidden_size;
        let rows = ..pass.count() * hidden;
        let layers = self.config.layers.len();
        device.fill(activations.passing.residual.at_mut(rows), 0.0);
        device.rms_norm_backward(
            activations.passing.branch.at(rows),
            activations.inputs[layers].at(rows),
            pass.weight(&self.spans.final_norm),
            activations.last_reciprocal.at(..pass.count()),
            activations.passing.residual.at_mut(rows),
            gradients.model(&self.spans.final_norm),
        );
        for layer in (0..layers).rev() {
            if activations.recomputes && layer + 1 < layers {
                self.activate(layer, pass, activations);
            }
            self.backward_layer(layer, pass, gradients, activations);
        }
        if let Some(table) = gradients.model(&self.spans.embedding) {
            let residual = &mut activations.passing.residual;
            if let Some(rate) = pass.dropout(0, AFTER_EMBEDDING) {
                device.dropout(residual.at_mut(rows), rate, pass.first(hidden));
            }
            device.embedding_backward(residual.at(rows), hidden, pass.tokens, table);
        }
    }

    /// Turns `passing.residual` from the gradient by the layer's output into the one by its input.
    fn backward_layer(
        &self,
        index: usize,
        pass: Pass,
        gradients: &mut Gradients,
        activations: &mut Activations,
    ) {
        let Activations { inputs, layers, recomputes, passing, expert_loads, most_experts, .. } = activations;
        let here = &layers[if *recomputes { 0 } else { index }];
        let Passing {
            residual,
            branch,
            attended,
            activated,
            gate_up,
            queries,
            keys,
            fused,
            low_rank: buffers,
            mixture: routed,
        } = passing;
        let (device, spans) = (pass.device, &self.spans.layers[index]);
        let (tokens, hidden, shape) = (pass.count(), self.config.hidden_size, self.shape(index));
        let width = self.config.layers[index].feed_forward.intermediate_size;
        let epsilon = self.config.norm_epsilon as f32;
        let rows = ..tokens * hidden;
        let (query_rows, key_rows) = (..tokens * shape.query_width(), ..tokens * shape.key_width());
        let fused_rows = ..tokens * shape.fused_width();
        let (wide_rows, wider_rows) = (..tokens * width, ..2 * tokens * width);
        let mut adapt = |projection, dy: View, stride, x: View, dx: ViewMut, gradients: &mut Gradients| {
            if let (Some(pair), Gradients::Adapter(gradient)) = (pass.low_rank(index, projection), gradients)
            {
                pair.backward(dy, stride, x, buffers, gradient, dx);
            }
        };

        // feed-forward
        pass.branch_gradient(index, AFTER_FEED_FORWARD, residual.at(rows), branch.at_mut(rows));
        let mixture = self.mixture(index, pass);
        if let Some(mixture) = mixture {
            let z_loss = self.routers.z_loss as f32 * pass.gradient_scale;
            let loads = expert_loads.at_mut(index * *most_experts..(index + 1) * *most_experts);
            let (dy, x) = (branch.at(rows), here.middle_normed.at(rows));
            mixture.backward(dy, x, z_loss, &here.mixture, routed, gradients.all_of_model(), loads);
        }
        let (dy, x) = (branch.at(rows), here.activated.at(wide_rows));
        pass.linear_backward(dy, &spans.down, x, activated.at_mut(wide_rows), gradients.model(&spans.down));
        adapt(Projection::Down, dy, hidden, x, activated.at_mut(wide_rows), gradients);
        let forward = here.gate_up.at(wider_rows);
        device.swiglu_backward(activated.at(wide_rows), forward, width, gate_up.at_mut(wider_rows));
        let (dy, x) = (gate_up.at(wider_rows), here.middle_normed.at(rows));
        pass.linear_backward(dy, &spans.gate_up, x, branch.at_mut(rows), gradients.model(&spans.gate_up));
        adapt(Projection::Gate, dy, 2 * width, x, branch.at_mut(rows), gradients);
        adapt(Projection::Up, dy.at(width..), 2 * width, x, branch.at_mut(rows), gradients);
        if let Some(mixture) = mixture {
            mixture.finish_backward(&here.mixture, routed, branch);
        }
        device.rms_norm_backward(
            branch.at(rows),
            here.middle.at(rows),
            pass.weight(&spans.middle_norm),
            here.middle_reciprocal.at(..tokens),
            residual.at_mut(rows),
            gradients.model(&spans.middle_norm),
        );

        // attention
        pass.branch_gradient(index, AFTER_ATTENTION, residual.at(rows), branch.at_mut(rows));
        let (dy, x) = (branch.at(rows), here.attended.at(query_rows));
        pass.linear_backward(
            dy,
            &spans.output,
            x,
            attended.at_mut(query_rows),
            gradients.model(&spans.output),
        );
        adapt(Projection::Output, dy, hidden, x, attended.at_mut(query_rows), gradients);
        let attention = Attention {
            shape,
            documents: pass.batch.documents,
            queries: here.queries.at(query_rows),
            keys: here.keys.at(key_rows),
            fused: here.fused.at(fused_rows),
        };
        device.attention_backward(
            attention,
            here.attended.at(query_rows),
            attended.at(query_rows),
            &here.sums,
            queries.at_mut(query_rows),
            keys.at_mut(key_rows),
            fused.at_mut(fused_rows),
        );
        let [of_queries, of_keys] = head_spans(shape);
        for (turned, span, norm, reciprocal) in [
            (queries.at_mut(query_rows), of_queries, &spans.query_norm, &here.query_reciprocal),
            (keys.at_mut(key_rows), of_keys, &spans.key_norm, &here.key_reciprocal),
        ] {
            device.normalise_and_rotate_backward(
                turned,
                here.fused.at(fused_rows),
                span,
                norm.as_ref().map(|norm| (pass.weight(norm), epsilon)),
                &self.rotary[index],
                pass.positions,
                reciprocal.at(..tokens * span.heads),
                fused.at_mut(fused_rows),
                norm.as_ref().and_then(|norm| gradients.model(norm)),
            );
        }
        let (dy, x) = (fused.at(fused_rows), here.normed.at(rows));
        if let Some(bias) = spans.fused_bias.as_ref().and_then(|bias| gradients.model(bias)) {
            device.add_bias_backward(dy, bias);
        }
        pass.linear_backward(dy, &spans.fused, x, branch.at_mut(rows), gradients.model(&spans.fused));
        for (projection, column) in fused_columns(shape) {
            adapt(projection, dy.at(column..), shape.fused_width(), x, branch.at_mut(rows), gradients);
        }
        device.rms_norm_backward(
            branch.at(rows),
            inputs[index].at(rows),
            pass.weight(&spans.input_norm),
            here.input_reciprocal.at(..tokens),
            residual.at_mut(rows),
            gradients.model(&spans.input_norm),
        );
    }

    /// The routed experts of a layer, where it has some.
    fn mixture<'a>(&'a self, layer: usize, pass: Pass<'a>) -> Option<MixturePass<'a>> {
        let (feed_forward, spans) = (&self.config.layers[layer].feed_forward, &self.spans.layers[layer]);
        let hidden = self.config.hidden_size;
        MixturePass::of(
            pass.device,
            pass.parameters,
            feed_forward,
            spans.mixture.as_ref(),
            pass.count(),
            hidden,
        )
    }

    pub(crate) fn shape(&self, layer: usize) -> AttentionShape {
        self.config.layers[layer].attention.shape()
    }
}

/// Where queries and keys stand in a fused row.
pub(crate) fn head_spans(shape: AttentionShape) -> [HeadSpan; 2] {
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let row_stride = shape.fused_width();
    [
        HeadSpan { row_stride, first: 0, heads, head_dim },
        HeadSpan { row_stride, first: shape.query_width(), heads: kv_heads, head_dim },
    ]
}

/// First columns of queries, keys and values in a fused row.
pub(crate) fn fused_columns(shape: AttentionShape) -> [(Projection, usize); 3] {
    let (q, kv) = (shape.query_width(), shape.key_width());
    [(Projection::Query, 0), (Projection::Key, q), (Projection::Value, q + kv)]
}
