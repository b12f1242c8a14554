//! What fewer bits cost: how far a model with quantised weights stands from the same model in f32, over a text.
//!
//! The text is cut into windows of one length, and only tokens in the second half of a window count, each with at least
//! half a window before it. llama.cpp's `llama-perplexity --kl-divergence` counts the same tokens, so its figures can stand
//! beside these.

use std::path::Path;

use model::{
    BLOCK_POSITIONS, InferenceModel, InferenceWorkspace, KvCache, LogitRows, SequenceChunk, WeightFormat,
};

use crate::error::EngineError;
use crate::scorer::ScoreError;

/// Rows of one forward pass.
const ROWS: usize = 256;

/// A model that gives all logits of a window.
pub struct WindowLogits {
    model: InferenceModel,
    cache: KvCache,
    workspace: InferenceWorkspace,
    blocks: Vec<u32>,
    window: usize,
    /// Computes rows as those of an answer, one request's tokens at a time, rather than of a prompt.
    as_answers: bool,
}

impl WindowLogits {
    /// Reads a model whose weights are kept as `format`, for windows of `window` tokens. With `as_answers`, rows are
    /// computed as those of an answer are, which with 8 or 4 bits is another arithmetic on some processors.
    ///
    /// # Errors
    /// As for loading a model; and where its context is shorter than a window.
    pub fn load(
        folder: &Path,
        format: WeightFormat,
        window: usize,
        as_answers: bool,
        threads: usize,
    ) -> Result<WindowLogits, EngineError> {
        let model = InferenceModel::load_as(folder, format)?;
        let blocks = window.div_ceil(BLOCK_POSITIONS);
        Ok(WindowLogits {
            cache: model.new_cache(blocks),
            workspace: model.new_workspace(ROWS.min(window), threads),
            blocks: (0..blocks as u32).collect(),
            model,
            window,
            as_answers,
        })
    }

    /// Tokens of the vocabulary.
    pub fn vocabulary_size(&self) -> usize {
        self.model.config().vocabulary_size
    }

    /// Longest window, in tokens.
    pub fn context_length(&self) -> usize {
        self.model.config().maximum_positions
    }

    /// Logits of the tokens in the second half of a window but the last, `[window - 1 - window / 2, vocabulary]`.
    fn second_half(&mut self, tokens: &[u32], rows: &mut Vec<f32>) -> Result<(), ScoreError> {
        rows.clear();
        let (half, last) = (self.window / 2, self.window - 1);
        let vocabulary = self.vocabulary_size();
        for first in (0..last).step_by(ROWS) {
            let end = (first + ROWS).min(last);
            let chunk = SequenceChunk {
                tokens: &tokens[first..end],
                first_position: first,
                blocks: &self.blocks,
                adapter: None,
                logits: if end > half { LogitRows::All } else { LogitRows::None },
                answer: self.as_answers,
            };
            let logits = self.model.forward(&[chunk], &mut self.cache, &mut self.workspace)?;
            if end > half {
                rows.extend_from_slice(&logits[half.saturating_sub(first) * vocabulary..]);
            }
        }
        Ok(())
    }
}

/// Sums over the tokens that were counted.
#[derive(Clone, Debug, Default)]
pub struct Quality {
    tokens: u64,
    reference_nats: f64,
    nats: f64,
    divergence: f64,
    largest_divergence: f64,
    agreements: u64,
    squared_error: f64,
    squared_logits: f64,
}

impl Quality {
    /// Goes through a text with both models. What is left behind the last whole window is not counted.
    ///
    /// # Errors
    /// Where a token is not in the vocabulary, or a window does not fit a model.
    ///
    /// # Panics
    /// If the models were loaded for windows of different lengths.
    pub fn measure(
        reference: &mut WindowLogits,
        model: &mut WindowLogits,
        tokens: &[u32],
    ) -> Result<Quality, ScoreError> {
        assert_eq!(reference.window, model.window, "both models see the same windows");
        let vocabulary_size = reference.vocabulary_size().min(model.vocabulary_size());
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary_size) {
            return Err(ScoreError::UnknownToken { token, vocabulary_size });
        }
        let (window, context) = (model.window, model.context_length().min(reference.context_length()));
        if window > context {
            return Err(ScoreError::TooLong { found: window, context });
        }
        let (mut quality, mut before, mut after) = (Quality::default(), Vec::new(), Vec::new());
        for tokens in tokens.chunks_exact(window) {
            reference.second_half(tokens, &mut before)?;
            model.second_half(tokens, &mut after)?;
            let rows = before.chunks_exact(vocabulary_size).zip(after.chunks_exact(vocabulary_size));
            for ((before, after), next) in rows.zip(&tokens[window / 2 + 1..]) {
                quality.count(before, after, *next as usize);
            }
        }
        Ok(quality)
    }

    /// One row of logits of each model, `[vocabulary]`, and the token that follows in the text.
    fn count(&mut self, reference: &[f32], logits: &[f32], next: usize) {
        let (reference_sum, sum) = (log_sum(reference), log_sum(logits));
        let mean = |row: &[f32]| row.iter().map(|&logit| f64::from(logit)).sum::<f64>() / row.len() as f64;
        let (reference_mean, logits_mean) = (mean(reference), mean(logits));
        let mut divergence = 0.0;
        for (&p, &q) in reference.iter().zip(logits) {
            let (p, q) = (f64::from(p), f64::from(q));
            let log_p = p - reference_sum;
            divergence += log_p.exp() * (log_p - (q - sum));
            // Adding a number to all logits changes nothing, so each row is taken about its mean.
            let (p, q) = (p - reference_mean, q - logits_mean);
            self.squared_error += (q - p) * (q - p);
            self.squared_logits += p * p;
        }
        self.tokens += 1;
        self.reference_nats += reference_sum - f64::from(reference[next]);
        self.nats += sum - f64::from(logits[next]);
        self.divergence += divergence;
        self.largest_divergence = self.largest_divergence.max(divergence);
        self.agreements += u64::from(likeliest(reference) == likeliest(logits));
    }

    /// Adds what another text came to.
    pub fn add(&mut self, other: &Quality) {
        self.tokens += other.tokens;
        self.reference_nats += other.reference_nats;
        self.nats += other.nats;
        self.divergence += other.divergence;
        self.largest_divergence = self.largest_divergence.max(other.largest_divergence);
        self.agreements += other.agreements;
        self.squared_error += other.squared_error;
        self.squared_logits += other.squared_logits;
    }

    /// Tokens that were counted; all other figures are NaN or 0 without any.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Perplexity of the reference.
    pub fn reference_perplexity(&self) -> f64 {
        (self.reference_nats / self.tokens as f64).exp()
    }

    /// Perplexity of the model.
    pub fn perplexity(&self) -> f64 {
        (self.nats / self.tokens as f64).exp()
    }

    /// Kullback-Leibler divergence of the model's next token from the reference's, in nats, mean over tokens.
    pub fn divergence(&self) -> f64 {
        self.divergence / self.tokens as f64
    }

    /// The largest divergence of a token, in nats.
    pub fn largest_divergence(&self) -> f64 {
        self.largest_divergence
    }

    /// Share of tokens at which both models find the same token likeliest.
    pub fn agreement(&self) -> f64 {
        self.agreements as f64 / self.tokens as f64
    }

    /// Root of the mean square of the logits' error over that of the reference's logits, each row about its mean.
    pub fn logit_error(&self) -> f64 {
        (self.squared_error / self.squared_logits).sqrt()
    }
}

fn log_sum(row: &[f32]) -> f64 {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    largest + row.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum::<f64>().ln()
}

/// The first of the largest.
fn likeliest(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, place| if row[place] > row[best] { place } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_their_definitions() {
        let mut quality = Quality::default();
        quality.count(&[1.0, 1.0], &[3.0, 3.0], 0);
        assert!((quality.perplexity() - 2.0).abs() < 1e-12);
        assert!(quality.divergence().abs() < 1e-12);
        assert_eq!(quality.agreement(), 1.0);
        // Halves against a quarter and three quarters, and a token more likely in the model.
        let mut quality = Quality::default();
        quality.count(&[0.0, 0.0], &[0.0, 3f32.ln()], 1);
        let expected = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((quality.divergence() - expected).abs() < 1e-6);
        assert!((quality.perplexity() - 4.0 / 3.0).abs() < 1e-6);
        assert!((quality.reference_perplexity() - 2.0).abs() < 1e-12);
        assert_eq!((quality.agreement(), quality.tokens()), (0.0, 1));
        // An error of half of each logit about its mean.
        let mut quality = Quality::default();
        quality.count(&[2.0, -2.0], &[1.0, -1.0], 0);
        assert!((quality.logit_error() - 0.5).abs() < 1e-12);
        let mut sum = Quality::default();
        sum.add(&quality);
        sum.add(&quality);
        assert!((sum.tokens(), sum.divergence()) == (2, quality.divergence()));
    }
}
