//! The decoder's forward pass for serving and evaluation: any mixture of prompt chunks and single tokens of many
//! sequences in one call, over a cache of keys and values in blocks.
//!
//! A row's bits depend on the tokens before it in its sequence and on nothing else: not on the rows beside it, the cutting
//! into chunks or the number of threads. With weights in f32 they do not depend on the processor either, and they are the bits
//! of the training pass; with weights in 8 or 4 bits they depend on whether it has a matrix unit, and on whether the row belongs
//! to a prompt or an answer ([`SequenceChunk::answer`]). That falls out of `compute`'s fixed chains; nothing here may add up
//! anything in an order that depends on the call.

mod cache;
mod forecast;
mod latent;
mod load;
mod mixture;
mod plan;
mod read;
mod rotations;
mod table;
mod weight;

pub use cache::{CacheFormat, KvCache};
pub use forecast::ModelSizes;
pub use load::{LoadWatch, load_parameters, with_adapter};
pub use plan::CallLimits;
pub use weight::WeightFormat;

use crate::ModelError;
use crate::adapter::{Adapter, Projection};
use crate::config::{Activation, LayerSpecification, ModelConfig, QueryKeyNorm, Temperature};
use crate::decoder::{fused_columns, head_spans};
use compute::Team;
use compute::activations::{Xielu, xielu};
use compute::attention::AttentionShape;
use compute::cached_attention::{BLOCK_POSITIONS, Queries, cached_attention, store};
use compute::elementary::ln;
use compute::elementwise;
use compute::normalisation::{rms_norm, rms_norm_in_place};
use compute::rotary::{HeadNorm, RotaryTable, normalise_and_rotate};
use compute::softmax::soft_cap;
use latent::{LatentRows, PackedLatent};
use mixture::{PackedMixture, RoutedRows};
use plan::RowWidths;
use rotations::Rotations;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use table::Table;
use weight::{Gated, Products, RoundedRows, Weight};

/// A model ready to run, its matrices packed for the product's panels.
#[derive(Debug)]
pub struct InferenceModel {
    config: ModelConfig,
    rotations: Rotations,
    small: SmallParameters,
    layers: Vec<PackedLayer>,
    head: Weight,
    format: WeightFormat,
}

#[derive(Debug)]
struct PackedLayer {
    projections: Projections,
    output: Weight,
    /// Gate and up, and down: of a dense layer, or of a mixture's shared experts.
    dense: Option<(Weight, Weight)>,
    mixture: Option<PackedMixture>,
}

/// From the stream to queries, keys and values.
#[derive(Debug)]
enum Projections {
    Fused(Weight),
    Latent(Box<PackedLatent>),
}

/// The embedding table and every vector.
#[derive(Debug)]
struct SmallParameters {
    /// None where the output projection, packed, is looked up instead.
    embedding: Option<Table>,
    layers: Vec<LayerVectors>,
    final_norm: Vec<f32>,
}

#[derive(Debug)]
struct LayerVectors {
    /// Empty where nothing is normed before attention; so is `middle_norm`.
    input_norm: Vec<f32>,
    fused_bias: Option<Vec<f32>>,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    output_bias: Option<Vec<f32>>,
    attention_norm: Option<Vec<f32>>,
    middle_norm: Vec<f32>,
    gate_up_bias: Option<Vec<f32>>,
    down_bias: Option<Vec<f32>>,
    xielu: Option<Xielu>,
    feed_forward_norm: Option<Vec<f32>>,
}

/// One sequence's new tokens.
#[derive(Clone, Copy, Debug)]
pub struct SequenceChunk<'a> {
    /// Consecutive tokens, at least one.
    pub tokens: &'a [u32],
    /// Position of the first; everything before it is in the cache already.
    pub first_position: usize,
    /// The sequence's cache blocks: block i holds positions 64·i to 64·i + 63.
    pub blocks: &'a [u32],
    /// The adapter that this sequence runs with.
    pub adapter: Option<&'a Adapter>,
    /// Which rows' logits are wanted.
    pub logits: LogitRows,
    /// Whether these tokens belong to an answer, which comes token by token, and not to a prompt. Quantised weights may be
    /// computed with in other numbers for the one than for the other, so the same token must come as the same kind.
    pub answer: bool,
}

/// Consecutive rows of one kind, prompts or answers, for `rows` of each chunk.
fn fill_stretches(
    stretches: &mut Vec<(Range<usize>, bool)>,
    chunks: &[SequenceChunk],
    rows: impl Fn(&SequenceChunk) -> usize,
) {
    stretches.clear();
    let mut first = 0;
    for chunk in chunks {
        let end = first + rows(chunk);
        match stretches.last_mut() {
            Some((stretch, answer)) if *answer == chunk.answer => stretch.end = end,
            _ => stretches.push((first..end, chunk.answer)),
        }
        first = end;
    }
}

/// Which rows of a chunk get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// None of them.
    None,
    /// The last one.
    Last,
    /// All of them.
    All,
    /// Those from this index within the chunk on.
    From(usize),
}

impl LogitRows {
    fn range(self, rows: usize) -> Range<usize> {
        match self {
            LogitRows::None => rows..rows,
            LogitRows::Last => rows - 1..rows,
            LogitRows::All => 0..rows,
            LogitRows::From(first) => first.min(rows)..rows,
        }
    }
}

/// The buffers of one caller; they grow with the largest call.
#[derive(Debug)]
pub struct InferenceWorkspace {
    team: Team,
    stretches: Vec<(Range<usize>, bool)>,
    positions: Vec<u32>,
    /// 0, 1, …: the places of the rows in the tables of rotations.
    places: Vec<u32>,
    rotations: Vec<RotaryTable>,
    latent: LatentRows,
    residual: Vec<f32>,
    normed: Vec<f32>,
    reciprocal: Vec<f32>,
    fused: Vec<f32>,
    queries: Vec<f32>,
    keys: Vec<f32>,
    attended: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    routed: RoutedRows,
    low_rank: Vec<f32>,
    scores: Vec<Vec<f32>>,
    rounded: RoundedRows,
    logits: Vec<f32>,
}

/// Positions from which on a single row's heads are shared out.
const WORTH_SHARING_HEADS: usize = 128;
/// Rows of attention, or of one expert, that one task takes.
const TASK_ROWS: usize = 48;

impl InferenceModel {
    /// What the model is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The numbers that its matrices are kept in.
    pub fn format(&self) -> WeightFormat {
        self.format
    }

    /// Whether rows of a prompt are computed in other numbers than rows of an answer on this machine: with a matrix unit,
    /// quantised weights meet a prompt in bf16, and an answer in whole numbers.
    pub fn tells_prompts_from_answers(&self) -> bool {
        self.matrices().any(Weight::tells_prompts_from_answers)
    }

    /// Whether all matrices are kept in f32.
    pub fn is_f32(&self) -> bool {
        self.matrices().all(Weight::is_f32)
    }

    /// Whether matrices are kept in 8 or 4 bits.
    pub fn is_quantised(&self) -> bool {
        self.matrices().any(Weight::is_quantised)
    }

    /// Bytes of memory that the weights take.
    pub fn weight_bytes(&self) -> usize {
        let packed = |layer: &PackedLayer| {
            let experts = layer.mixture.iter().flat_map(|mixture| &mixture.experts);
            let routed = experts.map(|expert| expert.gate_up.bytes() + expert.down.bytes()).sum::<usize>();
            let projections = match &layer.projections {
                Projections::Fused(fused) => fused.bytes(),
                Projections::Latent(latent) => latent.bytes(),
            };
            let dense = layer.dense.as_ref().map_or(0, |(gate_up, down)| gate_up.bytes() + down.bytes());
            projections + layer.output.bytes() + dense + routed
        };
        self.layers.iter().map(packed).sum::<usize>()
            + self.head.bytes()
            + self.small.embedding.as_ref().map_or(0, Table::bytes)
    }

    /// Bytes of weights that one token of an answer reads: all matrices (of a layer's experts, those that it is sent to), but
    /// of the embedding table one row.
    pub fn bytes_per_token(&self) -> usize {
        self.met_by_a_token().map(|(weight, times)| times * weight.bytes()).sum::<usize>()
            + self.head.bytes()
            + self.small.embedding.as_ref().map_or(0, Table::row_bytes)
    }

    /// Multiplications and additions in products with weights, for each token of a prompt that is not its last: without
    /// attention's own, and without the head.
    pub fn operations_per_token(&self) -> usize {
        self.met_by_a_token().map(|(weight, times)| times * 2 * weight.inputs() * weight.outputs()).sum()
    }

    /// The layers' matrices that a token meets, with how many of that kind; of experts as many as it is sent to.
    fn met_by_a_token(&self) -> impl Iterator<Item = (&Weight, usize)> {
        self.layers.iter().flat_map(|layer| {
            let mut met: Vec<(&Weight, usize)> = match &layer.projections {
                Projections::Fused(fused) => vec![(fused, 1)],
                Projections::Latent(latent) => latent.matrices().map(|weight| (weight, 1)).collect(),
            };
            met.push((&layer.output, 1));
            met.extend(layer.dense.iter().flat_map(|(gate_up, down)| [(gate_up, 1), (down, 1)]));
            met.extend(layer.mixture.iter().flat_map(PackedMixture::met_by_a_token));
            met
        })
    }

    /// Reads an adapter in peft's layout, checked against this model.
    ///
    /// # Errors
    /// Names the file and what does not fit.
    pub fn load_adapter(&self, folder: &Path) -> Result<Adapter, ModelError> {
        Adapter::load(self.config(), folder)
    }

    /// Buffers for calls of up to `maximum_rows` rows (more let them grow), whose products run on `threads` threads.
    pub fn new_workspace(&self, maximum_rows: usize, threads: usize) -> InferenceWorkspace {
        let mut workspace = InferenceWorkspace {
            team: Team::new(threads),
            stretches: Vec::new(),
            positions: Vec::with_capacity(maximum_rows),
            places: Vec::with_capacity(maximum_rows),
            rotations: Vec::new(),
            latent: LatentRows::default(),
            residual: Vec::new(),
            normed: Vec::new(),
            reciprocal: Vec::new(),
            fused: Vec::new(),
            queries: Vec::new(),
            keys: Vec::new(),
            attended: Vec::new(),
            gate_up: Vec::new(),
            activated: Vec::new(),
            routed: RoutedRows::default(),
            low_rank: Vec::new(),
            scores: Vec::new(),
            rounded: RoundedRows::default(),
            logits: Vec::new(),
        };
        self.reserve(&mut workspace, maximum_rows);
        workspace
    }

    fn shape(&self, layer: usize) -> AttentionShape {
        self.config.layers[layer].attention.shape()
    }

    /// Runs all chunks, fills the cache at their positions, and returns the wanted rows of logits, [rows, vocabulary], in
    /// the order of the chunks.
    ///
    /// # Errors
    /// When a token, a position or a block is out of range; then the cache is as before.
    pub fn forward<'w>(
        &self,
        chunks: &[SequenceChunk],
        cache: &mut KvCache,
        workspace: &'w mut InferenceWorkspace,
    ) -> Result<&'w [f32], ModelError> {
        self.run(chunks, cache, workspace)?;
        Ok(self.project(chunks, workspace))
    }

    /// As [`InferenceModel::forward`], but returns the wanted rows before the output projection: hidden states after the
    /// final norm, [rows, hidden]. What embeddings are pooled from.
    ///
    /// # Errors
    /// As [`InferenceModel::forward`].
    pub fn hidden_states<'w>(
        &self,
        chunks: &[SequenceChunk],
        cache: &mut KvCache,
        workspace: &'w mut InferenceWorkspace,
    ) -> Result<&'w [f32], ModelError> {
        self.run(chunks, cache, workspace)?;
        let wanted = self.gather_normed(chunks, workspace);
        Ok(&workspace.normed[..wanted * self.config().hidden_size])
    }

    fn run(
        &self,
        chunks: &[SequenceChunk],
        cache: &mut KvCache,
        workspace: &mut InferenceWorkspace,
    ) -> Result<(), ModelError> {
        self.check(chunks, cache)?;
        let rows: usize = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
        self.reserve(workspace, rows);
        let hidden = self.config().hidden_size;
        fill_stretches(&mut workspace.stretches, chunks, |chunk| chunk.tokens.len());
        workspace.positions.clear();
        let mut first = 0;
        for chunk in chunks {
            let begin = chunk.first_position as u32;
            workspace.positions.extend(begin..begin + chunk.tokens.len() as u32);
            let part = &mut workspace.residual[first * hidden..][..chunk.tokens.len() * hidden];
            self.embed(chunk.tokens, part);
            first += chunk.tokens.len();
        }
        if let Some(scale) = self.config.embedding_scale {
            elementwise::scale(&mut workspace.residual[..rows * hidden], scale as f32);
        }
        workspace.places.clear();
        workspace.places.extend(0..rows as u32);
        self.rotations.fill(&mut workspace.rotations, &workspace.positions);
        for layer in 0..self.layers.len() {
            self.layer(layer, rows, chunks, cache, workspace);
        }
        Ok(())
    }

    /// The tokens' rows of the table of embeddings.
    fn embed(&self, tokens: &[u32], rows: &mut [f32]) {
        for (&token, row) in tokens.iter().zip(rows.chunks_exact_mut(self.config.hidden_size)) {
            match &self.small.embedding {
                Some(table) => table.row(token as usize, row),
                None => self.head.row(token as usize, row),
            }
        }
    }

    fn layer(
        &self,
        index: usize,
        rows: usize,
        chunks: &[SequenceChunk],
        cache: &mut KvCache,
        workspace: &mut InferenceWorkspace,
    ) {
        let InferenceWorkspace {
            team,
            stretches,
            positions,
            places,
            rotations,
            latent: latent_rows,
            residual,
            normed,
            reciprocal,
            fused,
            queries,
            keys,
            attended,
            gate_up,
            activated,
            routed,
            ..
        } = workspace;
        let (low_rank, scores, rounded) =
            (&mut workspace.low_rank, &mut workspace.scores, &mut workspace.rounded);
        let (packed, vectors) = (&self.layers[index], &self.small.layers[index]);
        let shape = self.shape(index);
        let (hidden, q_width, k_width, f_width) =
            (self.config().hidden_size, shape.query_width(), shape.key_width(), shape.fused_width());
        let LayerSpecification { attention, feed_forward, .. } = self.config().layers[index];
        let (width, wide) = (feed_forward.intermediate_size, feed_forward.wide());
        let table = &rotations[self.rotations.of_layer(index)];
        let epsilon = self.config().norm_epsilon as f32;
        let products = Products { team, stretches };
        let mut adapt = |projection, x: &[f32], input: usize, y: &mut [f32], column: usize, stride: usize| {
            let mut first = 0;
            for chunk in chunks {
                let count = chunk.tokens.len();
                if let Some(pair) = chunk.adapter.and_then(|adapter| adapter.low_rank(index, projection)) {
                    pair.add(
                        &x[first * input..][..count * input],
                        count,
                        low_rank,
                        &mut y[first * stride + column..],
                        stride,
                    );
                }
                first += count;
            }
        };

        norm_rows(team, &residual[..rows * hidden], &vectors.input_norm, epsilon, normed, reciprocal);
        let fused = &mut fused[..rows * f_width.max(attention.output_width())];
        match &packed.projections {
            Projections::Latent(latent) => latent.project(
                &normed[..rows * hidden],
                hidden,
                table,
                products,
                rounded,
                latent_rows,
                &mut queries[..rows * q_width],
                &mut keys[..rows * k_width],
            ),
            Projections::Fused(weight) => {
                products.multiply(&normed[..rows * hidden], weight, fused, rounded);
                if let Some(bias) = &vectors.fused_bias {
                    elementwise::add_bias(fused, bias);
                }
                for (projection, column) in fused_columns(shape) {
                    adapt(projection, &normed[..rows * hidden], hidden, fused, column, f_width);
                }
                let [of_queries, of_keys] = head_spans(shape);
                for (span, norm, turned) in [
                    (of_queries, &vectors.query_norm, &mut *queries),
                    (of_keys, &vectors.key_norm, &mut *keys),
                ] {
                    let mut of_heads = None;
                    match norm {
                        Some(weight) if attention.norm == QueryKeyNorm::Projection => {
                            rms_norm_in_place(fused, f_width, span.first, weight, epsilon);
                        }
                        Some(weight) => of_heads = Some(HeadNorm { weight, epsilon }),
                        None => {}
                    }
                    normalise_and_rotate(fused, span, of_heads, table, places, turned, reciprocal);
                }
            }
        }
        if let Some(temperature) = attention.temperature {
            grow_by_position(temperature, positions, &mut queries[..rows * q_width], q_width);
        }

        let mut row = 0;
        for chunk in chunks {
            for position in chunk.first_position..chunk.first_position + chunk.tokens.len() {
                let block = cache.layer_mut(index, chunk.blocks[position / BLOCK_POSITIONS]);
                let key = &keys[row * k_width..][..k_width];
                let value = match packed.projections {
                    // Values are made of the same vector as keys.
                    Projections::Latent(_) => key,
                    Projections::Fused(_) => &fused[row * f_width + q_width + k_width..][..k_width],
                };
                store(shape, block, position % BLOCK_POSITIONS, key, value);
                row += 1;
            }
        }
        let rule = attention.rule();
        let mut tasks = Vec::new();
        let mut rest = &mut attended[..rows * q_width];
        let mut row = 0;
        for chunk in chunks {
            for first in (0..chunk.tokens.len()).step_by(TASK_ROWS) {
                let count = TASK_ROWS.min(chunk.tokens.len() - first);
                // The heads of a single row stand one behind another, so that threads can share them.
                let heads_together = match count {
                    1 if chunk.first_position >= WORTH_SHARING_HEADS => shape.heads / shape.kv_heads,
                    _ => shape.heads,
                };
                for head in (0..shape.heads).step_by(heads_together) {
                    let width = heads_together * shape.head_dim;
                    let (output, remaining) = rest.split_at_mut(count * width);
                    rest = remaining;
                    tasks.push(AttentionTask {
                        heads: head..head + heads_together,
                        queries: &queries[row * q_width + head * shape.head_dim..][..count * width],
                        first_position: chunk.first_position + first,
                        blocks: chunk.blocks,
                        output,
                    });
                }
                row += count;
            }
        }
        // As many buffers as threads: a task takes one that is free.
        let free = Mutex::new(std::mem::take(scores));
        let cache = &*cache;
        let attend = |task: AttentionTask| {
            let taken = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut scores = taken.unwrap_or_default();
            let AttentionTask { heads, queries, first_position, blocks, output } = task;
            cached_attention(
                shape,
                rule,
                Queries { heads, rows: queries, first_position },
                |block| cache.layer(index, blocks[block]),
                &mut scores,
                output,
            );
            free.lock().unwrap_or_else(PoisonError::into_inner).push(scores);
        };
        team.each(tasks, attend);
        *scores = free.into_inner().unwrap_or_else(PoisonError::into_inner);

        let o_width = attention.output_width();
        let attended = match &packed.projections {
            Projections::Fused(_) => &attended[..rows * o_width],
            Projections::Latent(latent) => {
                // Latent attention has no use for the fused rows but this.
                let output = &mut fused[..rows * o_width];
                latent.values(&attended[..rows * q_width], products, rounded, latent_rows, output);
                &*output
            }
        };
        // The branch is computed beside the stream and then added, as in training: same bits.
        let branch = &mut normed[..rows * hidden];
        products.multiply(attended, &packed.output, branch, rounded);
        adapt(Projection::Output, attended, o_width, branch, 0, hidden);
        if let Some(bias) = &vectors.output_bias {
            elementwise::add_bias(branch, bias);
        }
        if let Some(norm) = &vectors.attention_norm {
            rms_norm_in_place(branch, hidden, 0, norm, epsilon);
        }
        add_rows(team, &mut residual[..rows * hidden], branch, hidden);

        norm_rows(team, &residual[..rows * hidden], &vectors.middle_norm, epsilon, normed, reciprocal);
        let gate = feed_forward.activation.gate().filter(|_| {
            let adapted = chunks.iter().any(|chunk| chunk.adapter.is_some());
            vectors.gate_up_bias.is_none() && packed.mixture.is_none() && !adapted
        });
        match (&packed.dense, gate) {
            (Some((weight, down)), Some(gate)) => {
                let gated = Gated { gate_up: weight, gate, down };
                products.feed_forward(&mut normed[..rows * hidden], gated, gate_up, activated, rounded);
            }
            _ => {
                let x = &normed[..rows * hidden];
                if let Some((weight, _)) = &packed.dense {
                    let gate_up = &mut gate_up[..rows * wide];
                    products.multiply(x, weight, gate_up, rounded);
                    if let Some(bias) = &vectors.gate_up_bias {
                        elementwise::add_bias(gate_up, bias);
                    }
                    if feed_forward.activation.gated() {
                        adapt(Projection::Gate, x, hidden, gate_up, 0, wide);
                    }
                    adapt(Projection::Up, x, hidden, gate_up, wide - width, wide);
                    let activated = activated[..rows * width].chunks_mut(TASK_ROWS * width);
                    let parts = gate_up.chunks(TASK_ROWS * wide).zip(activated);
                    team.each(parts.collect(), |(gate_up, activated)| {
                        activate(feed_forward.activation, gate_up, width, vectors.xielu, activated);
                    });
                }
                if let Some(mixture) = &packed.mixture {
                    mixture.run(x, hidden, products, rounded, routed);
                }
                let branch = &mut normed[..rows * hidden];
                match &packed.dense {
                    Some((_, down)) => {
                        products.multiply(&activated[..rows * width], down, branch, rounded);
                        adapt(Projection::Down, &activated[..rows * width], width, branch, 0, hidden);
                    }
                    None => branch.fill(0.0),
                }
            }
        }
        let branch = &mut normed[..rows * hidden];
        if let Some(bias) = &vectors.down_bias {
            elementwise::add_bias(branch, bias);
        }
        if let Some(mixture) = &packed.mixture {
            mixture.combine(branch, hidden, routed);
        }
        if let Some(norm) = &vectors.feed_forward_norm {
            rms_norm_in_place(branch, hidden, 0, norm, epsilon);
        }
        add_rows(team, &mut residual[..rows * hidden], branch, hidden);
    }

    fn project<'w>(&self, chunks: &[SequenceChunk], workspace: &'w mut InferenceWorkspace) -> &'w [f32] {
        let (hidden, vocabulary) = (self.config().hidden_size, self.config().vocabulary_size);
        let wanted = self.gather_normed(chunks, workspace);
        let InferenceWorkspace { team, stretches, normed, rounded, logits, .. } = workspace;
        if logits.len() < wanted * vocabulary {
            logits.reserve_exact(wanted * vocabulary - logits.len());
            logits.resize(wanted * vocabulary, 0.0);
        }
        fill_stretches(stretches, chunks, |chunk| chunk.logits.range(chunk.tokens.len()).len());
        let products = Products { team, stretches };
        let logits = &mut logits[..wanted * vocabulary];
        products.multiply(&normed[..wanted * hidden], &self.head, logits, rounded);
        if let Some(cap) = self.config.logit_soft_cap {
            soft_cap(logits, vocabulary, vocabulary, 1.0, cap as f32);
        }
        &workspace.logits[..wanted * vocabulary]
    }

    /// Leaves the wanted rows, after the final norm, at the beginning of `normed` and returns their number.
    fn gather_normed(&self, chunks: &[SequenceChunk], workspace: &mut InferenceWorkspace) -> usize {
        let hidden = self.config().hidden_size;
        let mut wanted = 0;
        let mut first = 0;
        for chunk in chunks {
            // Rows move forward only, so that a row is never overwritten before it is read.
            for row in chunk.logits.range(chunk.tokens.len()) {
                workspace
                    .residual
                    .copy_within((first + row) * hidden..(first + row + 1) * hidden, wanted * hidden);
                wanted += 1;
            }
            first += chunk.tokens.len();
        }
        let InferenceWorkspace { residual, normed, reciprocal, .. } = workspace;
        let epsilon = self.config().norm_epsilon as f32;
        rms_norm(
            &residual[..wanted * hidden],
            &self.small.final_norm,
            epsilon,
            &mut normed[..wanted * hidden],
            &mut reciprocal[..wanted],
        );
        wanted
    }

    fn check(&self, chunks: &[SequenceChunk], cache: &KvCache) -> Result<(), ModelError> {
        let fail = |problem: String| Err(ModelError::Input(problem));
        let config = self.config();
        for (index, chunk) in chunks.iter().enumerate() {
            if chunk.tokens.is_empty() {
                return fail(format!("chunk {index} has no tokens"));
            }
            if let Some(token) = chunk.tokens.iter().find(|token| **token as usize >= config.vocabulary_size)
            {
                return fail(format!(
                    "chunk {index} has token {token}, the vocabulary has {}",
                    config.vocabulary_size
                ));
            }
            let end = chunk.first_position.saturating_add(chunk.tokens.len());
            if end > config.maximum_positions {
                return fail(format!(
                    "chunk {index} ends at position {end}, the model has {}",
                    config.maximum_positions
                ));
            }
            let needed = end.div_ceil(BLOCK_POSITIONS);
            if chunk.blocks.len() < needed {
                return fail(format!(
                    "chunk {index} needs {needed} cache blocks for {end} positions, it has {}",
                    chunk.blocks.len()
                ));
            }
            if let Some(block) = chunk.blocks[..needed].iter().find(|block| **block as usize >= cache.blocks)
            {
                return fail(format!("chunk {index} names cache block {block} of {}", cache.blocks));
            }
            if let Some(adapter) = chunk.adapter
                && !adapter.fits(config)
            {
                return fail(format!("chunk {index} comes with an adapter of another model"));
            }
        }
        if !self.fits(cache) {
            return fail("the cache was made for another model".into());
        }
        Ok(())
    }

    fn reserve(&self, workspace: &mut InferenceWorkspace, rows: usize) {
        let RowWidths { hidden, heads, fused, queries, keys, gate_up, activated } = self.row_widths();
        for (buffer, width) in [
            (&mut workspace.residual, hidden),
            (&mut workspace.normed, hidden),
            (&mut workspace.reciprocal, heads),
            (&mut workspace.fused, fused),
            (&mut workspace.queries, queries),
            (&mut workspace.keys, keys),
            (&mut workspace.attended, queries),
            (&mut workspace.gate_up, gate_up),
            (&mut workspace.activated, activated),
        ] {
            if buffer.len() < rows * width {
                buffer.resize(rows * width, 0.0);
            }
        }
    }
}

/// `normed` ← the rows of x after an RMS norm, or as they are where there is none.
fn norm_rows(
    team: &Team,
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    normed: &mut [f32],
    reciprocal: &mut [f32],
) {
    let width = weight.len();
    if width == 0 {
        return normed[..x.len()].copy_from_slice(x);
    }
    let part = TASK_ROWS * width;
    let parts = x.chunks(part).zip(normed[..x.len()].chunks_mut(part)).zip(reciprocal.chunks_mut(TASK_ROWS));
    team.each(parts.collect(), |((x, normed), reciprocal)| {
        rms_norm(x, weight, epsilon, normed, &mut reciprocal[..x.len() / width]);
    });
}

/// y ← y + x, rows of `width`.
fn add_rows(team: &Team, y: &mut [f32], x: &[f32], width: usize) {
    let parts = y.chunks_mut(TASK_ROWS * width).zip(x.chunks(TASK_ROWS * width));
    team.each(parts.collect(), |(y, x)| elementwise::add(y, x));
}

/// Each row of queries times what its position says.
fn grow_by_position(temperature: Temperature, positions: &[u32], queries: &mut [f32], width: usize) {
    for (row, &position) in queries.chunks_exact_mut(width).zip(positions) {
        let lengths = (position as f64 / temperature.original).floor();
        elementwise::scale(row, (1.0 + temperature.beta * ln(1.0 + lengths)) as f32);
    }
}

fn activate(activation: Activation, x: &[f32], width: usize, numbers: Option<Xielu>, output: &mut [f32]) {
    match (activation.gate(), numbers) {
        (Some(gate), _) => gate.rows(x, width, output),
        (None, Some(numbers)) => xielu(x, numbers, output),
        (None, None) => unreachable!("a layer with xIELU loads its numbers"),
    }
}

/// Some consecutive rows of one sequence.
struct AttentionTask<'a> {
    heads: Range<usize>,
    queries: &'a [f32],
    first_position: usize,
    blocks: &'a [u32],
    output: &'a mut [f32],
}
