//! What the engine asks of a model: run some rows of several sequences, over a cache in blocks.
//!
//! [`ModelDecoder`] is the real one, over crate `model`; tests bring toys.

use std::path::PathBuf;
use std::sync::Arc;

use model::{Adapter, CallLimits, InferenceModel, InferenceWorkspace, KvCache, LogitRows, SequenceChunk};

use crate::error::EngineError;

/// What the engine must know of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderShape {
    pub vocabulary_size: usize,
    /// Width of a hidden state; 0 if the model gives none.
    pub hidden_size: usize,
    /// Longest sequence, in tokens.
    pub context_length: usize,
    /// Positions in one block of the cache.
    pub block_positions: usize,
    /// Blocks in the cache.
    pub blocks: usize,
}

/// Rows of one sequence for one forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Consecutive tokens, at least one.
    pub tokens: &'a [u32],
    /// Position of the first of them; all before it are in the cache.
    pub first_position: usize,
    /// Block i holds positions i·`block_positions` …; covers all positions of the chunk.
    pub blocks: &'a [u32],
    /// Index of an adapter, in the order in which they were given.
    pub adapter: Option<usize>,
    pub rows: Rows,
    /// Whether the tokens belong to an answer, not to a prompt.
    pub answer: bool,
}

/// Which rows' logits, or hidden states, are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    None,
    Last,
    All,
}

/// A model that continues several sequences at once.
pub trait Decoder: Send {
    fn shape(&self) -> DecoderShape;

    /// Runs the chunks and returns the wanted rows of logits, `[rows, vocabulary_size]`, in the order of the chunks. A
    /// row depends on the tokens before it in its sequence and on nothing else in the call.
    fn forward(&mut self, chunks: &[Chunk<'_>]) -> Result<&[f32], String>;

    /// As [`Decoder::forward`], but returns the wanted rows' hidden states after the final norm, `[rows, hidden_size]`.
    fn hidden_states(&mut self, chunks: &[Chunk<'_>]) -> Result<&[f32], String>;

    /// Copies a block of the cache, for a sequence that begins like another and parts from it inside the block.
    fn copy_block(&mut self, from: u32, to: u32);

    /// Whether a token's rows of the cache may differ with whether it came in a prompt or in an answer: then a prompt
    /// does not go on after what was computed for an answer.
    fn tells_prompts_from_answers(&self) -> bool {
        false
    }
}

/// A model of crate `model`, its cache, its buffers and its adapters.
pub struct ModelDecoder {
    model: Arc<InferenceModel>,
    adapters: Vec<Adapter>,
    cache: KvCache,
    context_length: usize,
    workspace: InferenceWorkspace,
}

impl ModelDecoder {
    /// `adapters` are PEFT folders by name; chunks refer to them by their place in this order. `cache` is one of this model's;
    /// calls have up to `rows` rows.
    pub fn new(
        model: Arc<InferenceModel>,
        adapters: &[(String, PathBuf)],
        context_length: usize,
        cache: KvCache,
        rows: usize,
        threads: usize,
    ) -> Result<ModelDecoder, EngineError> {
        let adapters = adapters
            .iter()
            .map(|(name, folder)| {
                model
                    .load_adapter(folder)
                    .map_err(|source| EngineError::Adapter { name: name.clone(), source })
            })
            .collect::<Result<_, _>>()?;
        // Logits come with the first call that wants so many.
        let limits = CallLimits { rows, logit_rows: 0, positions: context_length };
        let workspace = model.new_workspace_for(limits, threads);
        Ok(ModelDecoder { model, adapters, cache, context_length, workspace })
    }
}

impl Decoder for ModelDecoder {
    fn shape(&self) -> DecoderShape {
        DecoderShape {
            vocabulary_size: self.model.config().vocabulary_size,
            hidden_size: self.model.config().hidden_size,
            context_length: self.context_length,
            block_positions: model::BLOCK_POSITIONS,
            blocks: self.cache.blocks(),
        }
    }

    fn forward(&mut self, chunks: &[Chunk<'_>]) -> Result<&[f32], String> {
        let chunks = sequence_chunks(chunks, &self.adapters);
        self.model.forward(&chunks, &mut self.cache, &mut self.workspace).map_err(|error| error.to_string())
    }

    fn hidden_states(&mut self, chunks: &[Chunk<'_>]) -> Result<&[f32], String> {
        let chunks = sequence_chunks(chunks, &self.adapters);
        let ModelDecoder { model, cache, workspace, .. } = self;
        model.hidden_states(&chunks, cache, workspace).map_err(|error| error.to_string())
    }

    fn tells_prompts_from_answers(&self) -> bool {
        self.model.tells_prompts_from_answers()
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        self.cache.copy_block(from, to);
    }
}

fn sequence_chunks<'a>(chunks: &[Chunk<'a>], adapters: &'a [Adapter]) -> Vec<SequenceChunk<'a>> {
    let chunk = |chunk: &Chunk<'a>| SequenceChunk {
        tokens: chunk.tokens,
        first_position: chunk.first_position,
        blocks: chunk.blocks,
        adapter: chunk.adapter.map(|index| &adapters[index]),
        logits: match chunk.rows {
            Rows::None => LogitRows::None,
            Rows::Last => LogitRows::Last,
            Rows::All => LogitRows::All,
        },
        answer: chunk.answer,
    };
    chunks.iter().map(chunk).collect()
}
