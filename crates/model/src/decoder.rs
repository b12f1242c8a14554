//! The decoder's training pass: forward over a ragged batch of packed documents, and the explicit backward.
//!
//! A list of calls into `compute`, in the order of Qwen3's layer (norm, fused queries-keys-values, head norms and rotation,
//! attention, projection, norm, gated feed-forward). One thread runs one micro-batch from end to end; several threads run
//! several. Read `forward_layer` and `backward_layer` side by side.

use crate::ModelError;
use crate::adapter::{Adapter, Projection};
use crate::config::ModelConfig;
use crate::parameters::{LayerSpans, ModelSpans, ParameterTable};
use crate::workspace::{LayerActivations, TrainingWorkspace};
use compute::attention::{AttentionInput, AttentionShape, attention, attention_backward};
use compute::cross_entropy::{NO_TARGET, ProjectionGradients, ProjectionInput, projection_cross_entropy};
use compute::dropout::{Dropout, add_with_dropout, add_with_dropout_backward, dropout};
use compute::embedding::{embedding, embedding_backward};
use compute::normalisation::{rms_norm, rms_norm_backward};
use compute::rotary::{HeadNorm, HeadSpan, RotaryTable, normalise_and_rotate, normalise_and_rotate_backward};
use compute::swiglu::{swiglu, swiglu_backward};
use compute::{MatrixMut, MatrixRef, Start, elementwise, multiply, random};
use std::ops::Range;
use std::sync::Arc;

/// A decoder's definition: what to compute, and where each parameter stands. It holds no parameters itself.
#[derive(Clone, Debug)]
pub struct Decoder {
    pub(crate) config: ModelConfig,
    pub(crate) spans: ModelSpans,
    pub(crate) rotary: Vec<Arc<RotaryTable>>,
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
    Model(&'a mut [f32]),
    /// By the adapter's parameters alone; the model is frozen.
    Adapter(&'a mut [f32]),
}

impl Gradients<'_> {
    fn model(&mut self, span: &Range<usize>) -> Option<&mut [f32]> {
        match self {
            Gradients::Model(buffer) => Some(&mut buffer[span.clone()]),
            _ => None,
        }
    }
}

const AFTER_EMBEDDING: u64 = 0;
const AFTER_ATTENTION: u64 = 1;
const AFTER_FEED_FORWARD: u64 = 2;

impl Decoder {
    /// The decoder that `config` describes, for sequences of up to `positions` tokens.
    ///
    /// # Errors
    /// When the sizes do not fit together, or the positions exceed the configuration's.
    pub fn new(config: &ModelConfig, positions: usize) -> Result<Decoder, ModelError> {
        config.check()?;
        if positions > config.maximum_positions {
            return Err(ModelError::Shape(format!(
                "{positions} positions wanted, the model has {}",
                config.maximum_positions
            )));
        }
        let mut rotary: Vec<Arc<RotaryTable>> = Vec::new();
        for (index, layer) in config.layers.iter().enumerate() {
            let same = config.layers[..index].iter().position(|other| {
                (other.attention.head_dim, other.attention.rotary_theta)
                    == (layer.attention.head_dim, layer.attention.rotary_theta)
            });
            rotary.push(match same {
                Some(other) => rotary[other].clone(),
                None => Arc::new(RotaryTable::new(
                    positions,
                    layer.attention.head_dim,
                    layer.attention.rotary_theta,
                )),
            });
        }
        Ok(Decoder { config: config.clone(), spans: ModelSpans::new(config), rotary })
    }

    /// What it was made from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Names and places of its parameters.
    pub fn table(&self) -> &ParameterTable {
        &self.spans.table
    }

    /// Σ −ln p(target) over the batch, in nats. Gradients of `gradient_scale` times this sum are added to `gradients`.
    ///
    /// # Errors
    /// When tokens, positions or documents of the batch are out of range.
    ///
    /// # Panics
    /// When a buffer has another length than its table.
    #[allow(clippy::too_many_arguments)]
    pub fn loss(
        &self,
        parameters: &[f32],
        adapter: Option<&Adapter>,
        batch: PackedBatch,
        plan: Option<DropoutPlan>,
        gradient_scale: f32,
        mut gradients: Gradients,
        workspace: &mut TrainingWorkspace,
    ) -> Result<f64, ModelError> {
        self.check(&batch, workspace)?;
        self.forward(parameters, adapter, &batch, plan, workspace);
        let hidden = self.config.hidden_size;
        let rows = batch.tokens.len() * hidden;
        let input = ProjectionInput {
            hidden: &workspace.last_normed[..rows],
            weight: &parameters[self.spans.head.clone()],
            width: hidden,
            targets: batch.targets,
        };
        if let Gradients::None = gradients {
            return Ok(projection_cross_entropy(input, None, &mut workspace.logits));
        }
        let weight = gradients.model(&self.spans.head);
        let wanted =
            ProjectionGradients { scale: gradient_scale, hidden: &mut workspace.branch[..rows], weight };
        let loss = projection_cross_entropy(input, Some(wanted), &mut workspace.logits);

        workspace.gradient[..rows].fill(0.0);
        rms_norm_backward(
            &workspace.branch[..rows],
            &workspace.last[..rows],
            &parameters[self.spans.final_norm.clone()],
            &workspace.last_reciprocal[..batch.tokens.len()],
            &mut workspace.gradient[..rows],
            gradients.model(&self.spans.final_norm),
        );
        for layer in (0..self.config.layers.len()).rev() {
            self.backward_layer(layer, parameters, adapter, &batch, plan, &mut gradients, workspace);
        }
        if let Some(table) = gradients.model(&self.spans.embedding) {
            let gradient = &mut workspace.gradient[..rows];
            if let Some(plan) = plan {
                dropout(gradient, plan.at(0, AFTER_EMBEDDING), batch.first_token.wrapping_mul(hidden as u32));
            }
            embedding_backward(gradient, hidden, batch.tokens, table);
        }
        Ok(loss)
    }

    /// All logits of a batch, [tokens, vocabulary]: for tests and small evaluations.
    ///
    /// # Errors
    /// As [`Decoder::loss`].
    pub fn logits(
        &self,
        parameters: &[f32],
        adapter: Option<&Adapter>,
        batch: PackedBatch,
        workspace: &mut TrainingWorkspace,
    ) -> Result<Vec<f32>, ModelError> {
        self.check(&batch, workspace)?;
        self.forward(parameters, adapter, &batch, None, workspace);
        let (rows, hidden, vocabulary) =
            (batch.tokens.len(), self.config.hidden_size, self.config.vocabulary_size);
        let mut logits = vec![0.0; rows * vocabulary];
        let head = MatrixRef::new(&parameters[self.spans.head.clone()], vocabulary, hidden);
        let x = MatrixRef::new(&workspace.last_normed[..rows * hidden], rows, hidden);
        multiply(x, head.transposed(), MatrixMut::new(&mut logits, rows, vocabulary), Start::Zero);
        Ok(logits)
    }

    fn check(&self, batch: &PackedBatch, workspace: &TrainingWorkspace) -> Result<(), ModelError> {
        let tokens = batch.tokens.len();
        let fail = |problem: String| Err(ModelError::Input(problem));
        if self.spans.layers.iter().any(|layer| layer.mixture.is_some()) {
            return fail(
                "training a mixture of experts is not supported yet; it runs in evaluate, chat and serve"
                    .into(),
            );
        }
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

    fn forward(
        &self,
        parameters: &[f32],
        adapter: Option<&Adapter>,
        batch: &PackedBatch,
        plan: Option<DropoutPlan>,
        workspace: &mut TrainingWorkspace,
    ) {
        let hidden = self.config.hidden_size;
        let rows = batch.tokens.len() * hidden;
        let first = &mut workspace.layers[0].input[..rows];
        embedding(&parameters[self.spans.embedding.clone()], hidden, batch.tokens, first);
        if let Some(plan) = plan {
            dropout(first, plan.at(0, AFTER_EMBEDDING), batch.first_token.wrapping_mul(hidden as u32));
        }
        for layer in 0..self.config.layers.len() {
            self.forward_layer(layer, parameters, adapter, batch, plan, workspace);
        }
        rms_norm(
            &workspace.last[..rows],
            &parameters[self.spans.final_norm.clone()],
            self.config.norm_epsilon as f32,
            &mut workspace.last_normed[..rows],
            &mut workspace.last_reciprocal[..batch.tokens.len()],
        );
    }

    fn forward_layer(
        &self,
        index: usize,
        parameters: &[f32],
        adapter: Option<&Adapter>,
        batch: &PackedBatch,
        plan: Option<DropoutPlan>,
        workspace: &mut TrainingWorkspace,
    ) {
        let TrainingWorkspace { layers, last, branch, low_rank: [reduced, _], attention: buffers, .. } =
            workspace;
        let (here, next) = layers[index..].split_first_mut().expect("a layer");
        let LayerActivations {
            input,
            normed,
            fused,
            queries,
            keys,
            attended,
            middle,
            middle_normed,
            gate_up,
            activated,
            ..
        } = here;
        let spans = &self.spans.layers[index];
        let tokens = batch.tokens.len();
        let hidden = self.config.hidden_size;
        let shape = self.shape(index);
        let width = self.config.layers[index].feed_forward.intermediate_size;
        let epsilon = self.config.norm_epsilon as f32;
        let first = batch.first_token.wrapping_mul(hidden as u32);
        let rows = ..tokens * hidden;

        rms_norm(
            &input[rows],
            &parameters[spans.input_norm.clone()],
            epsilon,
            &mut normed[rows],
            &mut here.input_reciprocal[..tokens],
        );
        linear(&normed[rows], &parameters[spans.fused.clone()], tokens, hidden, fused);
        if let Some(bias) = &spans.fused_bias {
            elementwise::add_bias(&mut fused[..tokens * shape.fused_width()], &parameters[bias.clone()]);
        }
        for (projection, column) in fused_columns(shape) {
            if let Some(pair) = adapter.and_then(|adapter| adapter.low_rank(index, projection)) {
                pair.add(&normed[rows], tokens, reduced, &mut fused[column..], shape.fused_width());
            }
        }
        let [of_queries, of_keys] = head_spans(shape);
        let [query_norm, key_norm] = head_norms(spans, parameters, epsilon);
        normalise_and_rotate(
            fused,
            of_queries,
            query_norm,
            &self.rotary[index],
            batch.positions,
            queries,
            &mut here.query_reciprocal,
        );
        normalise_and_rotate(
            fused,
            of_keys,
            key_norm,
            &self.rotary[index],
            batch.positions,
            keys,
            &mut here.key_reciprocal,
        );
        let attention_input = AttentionInput {
            shape,
            documents: batch.documents,
            queries: &queries[..tokens * shape.query_width()],
            keys: &keys[..tokens * shape.key_width()],
            fused: &fused[..tokens * shape.fused_width()],
        };
        attention(&attention_input, attended, &mut here.sums, buffers);
        let attended = &attended[..tokens * shape.query_width()];
        linear(attended, &parameters[spans.output.clone()], tokens, shape.query_width(), branch);
        if let Some(pair) = adapter.and_then(|adapter| adapter.low_rank(index, Projection::Output)) {
            pair.add(attended, tokens, reduced, branch, hidden);
        }
        add_branch(
            &input[rows],
            &branch[rows],
            plan.map(|plan| plan.at(index, AFTER_ATTENTION)),
            first,
            &mut middle[rows],
        );

        let middle_norm = &parameters[spans.middle_norm.clone()];
        rms_norm(
            &middle[rows],
            middle_norm,
            epsilon,
            &mut middle_normed[rows],
            &mut here.middle_reciprocal[..tokens],
        );
        linear(&middle_normed[rows], &parameters[spans.gate_up.clone()], tokens, hidden, gate_up);
        for (projection, column) in [(Projection::Gate, 0), (Projection::Up, width)] {
            if let Some(pair) = adapter.and_then(|adapter| adapter.low_rank(index, projection)) {
                pair.add(&middle_normed[rows], tokens, reduced, &mut gate_up[column..], 2 * width);
            }
        }
        let activated = &mut activated[..tokens * width];
        swiglu(&gate_up[..2 * tokens * width], width, activated);
        linear(activated, &parameters[spans.down.clone()], tokens, width, branch);
        if let Some(pair) = adapter.and_then(|adapter| adapter.low_rank(index, Projection::Down)) {
            pair.add(activated, tokens, reduced, branch, hidden);
        }
        let output = next.first_mut().map_or(last, |next| &mut next.input);
        add_branch(
            &middle[rows],
            &branch[rows],
            plan.map(|plan| plan.at(index, AFTER_FEED_FORWARD)),
            first,
            &mut output[rows],
        );
    }

    /// Turns `workspace.gradient` from the gradient by the layer's output into the one by its input.
    #[allow(clippy::too_many_arguments)]
    fn backward_layer(
        &self,
        index: usize,
        parameters: &[f32],
        adapter: Option<&Adapter>,
        batch: &PackedBatch,
        plan: Option<DropoutPlan>,
        gradients: &mut Gradients,
        workspace: &mut TrainingWorkspace,
    ) {
        let TrainingWorkspace {
            layers,
            gradient,
            branch,
            narrow,
            wide,
            wider,
            query_gradient,
            key_gradient,
            fused_gradient,
            ..
        } = workspace;
        let [reduced, reduced_gradient] = &mut workspace.low_rank;
        let here = &layers[index];
        let spans = &self.spans.layers[index];
        let tokens = batch.tokens.len();
        let hidden = self.config.hidden_size;
        let shape = self.shape(index);
        let width = self.config.layers[index].feed_forward.intermediate_size;
        let first = batch.first_token.wrapping_mul(hidden as u32);
        let rows = ..tokens * hidden;
        let (query_rows, fused_rows, wide_rows, wider_rows) = (
            ..tokens * shape.query_width(),
            ..tokens * shape.fused_width(),
            ..tokens * width,
            ..2 * tokens * width,
        );
        let mut adapt =
            |projection, dy: &[f32], stride, x: &[f32], dx: &mut [f32], gradients: &mut Gradients| {
                let pair = adapter.and_then(|adapter| adapter.low_rank(index, projection));
                if let (Some(pair), Gradients::Adapter(buffer)) = (pair, gradients) {
                    pair.backward(dy, stride, x, tokens, [&mut *reduced, &mut *reduced_gradient], buffer, dx);
                }
            };

        // feed-forward
        branch_gradient(
            &gradient[rows],
            plan.map(|plan| plan.at(index, AFTER_FEED_FORWARD)),
            first,
            &mut branch[rows],
        );
        let down = &parameters[spans.down.clone()];
        linear_backward(
            &branch[rows],
            down,
            &here.activated[wide_rows],
            tokens,
            width,
            &mut wide[wide_rows],
            gradients.model(&spans.down),
        );
        adapt(
            Projection::Down,
            &branch[rows],
            hidden,
            &here.activated[wide_rows],
            &mut wide[wide_rows],
            gradients,
        );
        swiglu_backward(&wide[wide_rows], &here.gate_up[wider_rows], width, &mut wider[wider_rows]);
        let x = &here.middle_normed[rows];
        let gate_up = &parameters[spans.gate_up.clone()];
        linear_backward(
            &wider[wider_rows],
            gate_up,
            x,
            tokens,
            hidden,
            &mut branch[rows],
            gradients.model(&spans.gate_up),
        );
        adapt(Projection::Gate, &wider[wider_rows], 2 * width, x, &mut branch[rows], gradients);
        adapt(Projection::Up, &wider[width..2 * tokens * width], 2 * width, x, &mut branch[rows], gradients);
        let (norm, reciprocal) = (&parameters[spans.middle_norm.clone()], &here.middle_reciprocal[..tokens]);
        let norm_gradient = gradients.model(&spans.middle_norm);
        rms_norm_backward(
            &branch[rows],
            &here.middle[rows],
            norm,
            reciprocal,
            &mut gradient[rows],
            norm_gradient,
        );

        // attention
        branch_gradient(
            &gradient[rows],
            plan.map(|plan| plan.at(index, AFTER_ATTENTION)),
            first,
            &mut branch[rows],
        );
        let output = &parameters[spans.output.clone()];
        let attended = &here.attended[query_rows];
        linear_backward(
            &branch[rows],
            output,
            attended,
            tokens,
            shape.query_width(),
            &mut narrow[query_rows],
            gradients.model(&spans.output),
        );
        adapt(Projection::Output, &branch[rows], hidden, attended, &mut narrow[query_rows], gradients);
        let attention_input = AttentionInput {
            shape,
            documents: batch.documents,
            queries: &here.queries[query_rows],
            keys: &here.keys[..tokens * shape.key_width()],
            fused: &here.fused[fused_rows],
        };
        let buffers = &mut workspace.attention;
        attention_backward(
            &attention_input,
            attended,
            &narrow[query_rows],
            &here.sums,
            query_gradient,
            key_gradient,
            fused_gradient,
            buffers,
        );
        let [of_queries, of_keys] = head_spans(shape);
        let [query_norm, key_norm] = head_norms(spans, parameters, self.config.norm_epsilon as f32);
        for (turned, span, norm, reciprocal, norm_span) in [
            (query_gradient, of_queries, query_norm, &here.query_reciprocal, &spans.query_norm),
            (key_gradient, of_keys, key_norm, &here.key_reciprocal, &spans.key_norm),
        ] {
            let norm_gradient = norm_span.as_ref().and_then(|span| gradients.model(span));
            let table = &self.rotary[index];
            normalise_and_rotate_backward(
                turned,
                &here.fused,
                span,
                norm,
                table,
                batch.positions,
                reciprocal,
                fused_gradient,
                norm_gradient,
            );
        }
        let dy = &fused_gradient[fused_rows];
        if let Some(bias) = spans.fused_bias.as_ref().and_then(|bias| gradients.model(bias)) {
            elementwise::add_bias_backward(dy, bias);
        }
        let x = &here.normed[rows];
        linear_backward(
            dy,
            &parameters[spans.fused.clone()],
            x,
            tokens,
            hidden,
            &mut branch[rows],
            gradients.model(&spans.fused),
        );
        for (projection, column) in fused_columns(shape) {
            adapt(projection, &dy[column..], shape.fused_width(), x, &mut branch[rows], gradients);
        }
        let (norm, reciprocal) = (&parameters[spans.input_norm.clone()], &here.input_reciprocal[..tokens]);
        let norm_gradient = gradients.model(&spans.input_norm);
        rms_norm_backward(
            &branch[rows],
            &here.input[rows],
            norm,
            reciprocal,
            &mut gradient[rows],
            norm_gradient,
        );
    }

    pub(crate) fn shape(&self, layer: usize) -> AttentionShape {
        let attention = self.config.layers[layer].attention;
        AttentionShape { heads: attention.heads, kv_heads: attention.kv_heads, head_dim: attention.head_dim }
    }
}

/// y ← x·wᵀ, with w [output, input]; y's width is w's length over `input`.
fn linear(x: &[f32], weight: &[f32], tokens: usize, input: usize, y: &mut [f32]) {
    let output = weight.len() / input;
    let w = MatrixRef::new(weight, output, input);
    multiply(
        MatrixRef::new(x, tokens, input),
        w.transposed(),
        MatrixMut::new(y, tokens, output),
        Start::Zero,
    );
}

/// dx ← dy·w; dw += dyᵀ·x, where wanted.
fn linear_backward(
    dy: &[f32],
    weight: &[f32],
    x: &[f32],
    tokens: usize,
    input: usize,
    dx: &mut [f32],
    weight_gradient: Option<&mut [f32]>,
) {
    let output = weight.len() / input;
    let d = MatrixRef::new(dy, tokens, output);
    multiply(d, MatrixRef::new(weight, output, input), MatrixMut::new(dx, tokens, input), Start::Zero);
    if let Some(gradient) = weight_gradient {
        multiply(
            d.transposed(),
            MatrixRef::new(x, tokens, input),
            MatrixMut::new(gradient, output, input),
            Start::Continue,
        );
    }
}

fn add_branch(residual: &[f32], branch: &[f32], rate: Option<Dropout>, first: u32, output: &mut [f32]) {
    match rate {
        Some(rate) => add_with_dropout(residual, branch, rate, first, output),
        None => {
            output.copy_from_slice(residual);
            elementwise::add(output, branch);
        }
    }
}

fn branch_gradient(output_gradient: &[f32], rate: Option<Dropout>, first: u32, branch: &mut [f32]) {
    match rate {
        Some(rate) => add_with_dropout_backward(output_gradient, rate, first, branch),
        None => branch.copy_from_slice(output_gradient),
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

pub(crate) fn head_norms<'a>(
    spans: &LayerSpans,
    parameters: &'a [f32],
    epsilon: f32,
) -> [Option<HeadNorm<'a>>; 2] {
    [&spans.query_norm, &spans.key_norm]
        .map(|span| span.as_ref().map(|span| HeadNorm { weight: &parameters[span.clone()], epsilon }))
}
