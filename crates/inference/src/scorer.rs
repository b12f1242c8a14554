//! The probability of a given text, token by token: what evaluation is made of.

use std::ops::ControlFlow;
use std::path::Path;

use model::{InferenceModel, InferenceWorkspace, KvCache, LoadWatch, LogitRows, SequenceChunk, WeightFormat};

use crate::error::EngineError;
use crate::sampling::Probabilities;

/// Rows of one forward pass; fewer where the vocabulary is large, so that the logits stay small.
const ROWS: usize = 256;
/// Most logits of one pass: 16 M of f32 are 64 MiB.
const LOGITS: usize = 16 << 20;

/// A model that scores texts.
pub struct Scorer {
    model: InferenceModel,
    cache: KvCache,
    workspace: InferenceWorkspace,
    blocks: Vec<u32>,
    rows: usize,
    probabilities: Probabilities,
}

/// Why a text was not scored.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    #[error("a text of {found} tokens does not fit the model's context of {context}; cut it into windows")]
    TooLong { found: usize, context: usize },
    #[error("there is nothing to score: expected at least 2 tokens (the first is given), found {found}")]
    TooShort { found: usize },
    #[error("token {token} does not exist; the vocabulary has {vocabulary_size} entries, from 0")]
    UnknownToken { token: u32, vocabulary_size: usize },
    #[error(transparent)]
    Model(#[from] model::ModelError),
}

impl Scorer {
    /// Loads a model folder in the Hugging Face layout, or a GGUF file, with matrices kept as `weights`; an adapter (PEFT
    /// layout) is merged into them.
    pub fn load(
        model: &Path,
        adapter: Option<&Path>,
        weights: WeightFormat,
        threads: usize,
    ) -> Result<Scorer, EngineError> {
        Scorer::load_watched(model, adapter, weights, threads, &|_, _| ControlFlow::Continue(()))
    }

    /// As [`Scorer::load`]; `watch` follows the loading and may break it off.
    pub fn load_watched(
        model: &Path,
        adapter: Option<&Path>,
        weights: WeightFormat,
        threads: usize,
        watch: LoadWatch<'_>,
    ) -> Result<Scorer, EngineError> {
        let model = InferenceModel::load_watched(model, adapter, weights, threads, watch)?;
        Ok(Scorer::over(model, threads))
    }

    fn over(model: InferenceModel, threads: usize) -> Scorer {
        let blocks = model.config().maximum_positions.div_ceil(model::BLOCK_POSITIONS);
        let rows = (LOGITS / model.config().vocabulary_size).clamp(1, ROWS);
        Scorer {
            cache: model.new_cache(blocks),
            workspace: model.new_workspace(rows, threads),
            blocks: (0..blocks as u32).collect(),
            rows,
            probabilities: Probabilities::default(),
            model,
        }
    }

    /// Longest text, in tokens.
    pub fn context_length(&self) -> usize {
        self.model.config().maximum_positions
    }

    pub fn vocabulary_size(&self) -> usize {
        self.model.config().vocabulary_size
    }

    /// Natural-log probability of each token but the first, given all before it: entry i is
    /// ln p(`tokens[i + 1]` | `tokens[..=i]`). The first token is given and never scored; begin with the document
    /// separator to score a text from its first token on.
    pub fn score(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ScoreError> {
        let (found, context) = (tokens.len(), self.context_length());
        if found < 2 {
            return Err(ScoreError::TooShort { found });
        }
        if found > context {
            return Err(ScoreError::TooLong { found, context });
        }
        let vocabulary_size = self.vocabulary_size();
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary_size) {
            return Err(ScoreError::UnknownToken { token, vocabulary_size });
        }
        let mut scores = Vec::with_capacity(found - 1);
        // The last token predicts nothing that is wanted.
        for first in (0..found - 1).step_by(self.rows) {
            let last = (first + self.rows).min(found - 1);
            let chunk = SequenceChunk {
                tokens: &tokens[first..last],
                first_position: first,
                blocks: &self.blocks,
                adapter: None,
                logits: LogitRows::All,
                answer: false,
            };
            let logits = self.model.forward(&[chunk], &mut self.cache, &mut self.workspace)?;
            let rows = logits.chunks_exact(vocabulary_size).zip(&tokens[first + 1..=last]);
            scores.extend(rows.map(|(row, &next)| {
                (f64::from(row[next as usize]) - self.probabilities.log_sum(row)) as f32
            }));
        }
        Ok(scores)
    }
}
