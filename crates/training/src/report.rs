//! What a run has seen and done, for the manifest, the record and `training.json`.

use crate::batches::{Batches, Seen};
use crate::journal::Journal;
use crate::mixture::Cut;
use crate::settings::Settings;
use crate::state::State;
use model::{Decoder, ParameterKind};
use serde::Serialize;
use std::collections::BTreeMap;

/// What the stage made, for the manifest. Nothing in it depends on the machine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Steps done.
    pub steps: u64,
    /// Parameters of the model.
    pub parameters: usize,
    /// Tokens that the model learned from, repeats counted: not those of steps that were left out.
    pub tokens: u64,
    /// Of each language.
    pub languages: BTreeMap<String, TextReport>,
    /// Of each source.
    pub sources: BTreeMap<String, TextReport>,
    /// Whose share was cut, because it would have been repeated too often.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<Cut>,
    /// Useful floating-point operations: tokens · (6 · parameters in matrices + 6 · layers · sequence · width), the
    /// second term being attention with its causal half left out.
    pub floating_point_operations: f64,
    /// Steps that were left out as outliers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped_steps: Vec<u64>,
    /// Mean loss of the first ten steps, nats per token.
    pub first_loss: f64,
    /// Mean loss of the last ten steps, nats per token.
    pub last_loss: f64,
}

/// The part of a language or a source in a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextReport {
    /// Documents in the corpus.
    pub documents: usize,
    /// Tokens in the corpus.
    pub corpus_tokens: usize,
    /// Tokens that the model truly saw.
    pub tokens: u64,
    /// How often it went through the corpus.
    pub epochs: f64,
}

impl Report {
    /// The report on a run that is over.
    pub(crate) fn new(
        settings: &Settings,
        decoder: &Decoder,
        batches: &Batches,
        state: &State,
        journal: &Journal,
    ) -> Report {
        let computed = settings.steps * settings.batch_tokens as u64;
        let tokens = computed - (journal.skipped.len() * settings.batch_tokens) as u64;
        let (languages, sources) = texts(batches, batches.seen_without(settings.steps, &journal.skipped));
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let losses = &state.losses;
        Report {
            steps: settings.steps,
            parameters: decoder.table().length(),
            tokens,
            languages,
            sources,
            cut: batches.cuts().to_vec(),
            floating_point_operations: computed as f64
                * operations_per_token(decoder, settings.sequence_length),
            skipped_steps: journal.skipped.clone(),
            first_loss: mean(&losses[..losses.len().min(10)]),
            last_loss: mean(&losses[losses.len().saturating_sub(10)..]),
        }
    }
}

/// What was seen of each language and of each source.
fn texts(batches: &Batches, seen: Seen) -> (BTreeMap<String, TextReport>, BTreeMap<String, TextReport>) {
    let texts = batches.texts();
    let empty = TextReport { documents: 0, corpus_tokens: 0, tokens: 0, epochs: 0.0 };
    let mut sources = vec![empty.clone(); texts.sources.len()];
    let mut languages = BTreeMap::new();
    for (language, tokens) in texts.languages.iter().zip(seen.languages) {
        let mut report = TextReport { tokens, ..empty.clone() };
        for document in 0..language.documents() {
            let length = language.document(document).len();
            for part in [&mut report, &mut sources[language.source(document) as usize]] {
                part.documents += 1;
                part.corpus_tokens += length;
            }
        }
        report.epochs = tokens as f64 / report.corpus_tokens as f64;
        languages.insert(language.language.clone(), report);
    }
    let sources = sources.into_iter().zip(seen.sources).map(|(report, tokens)| {
        let epochs = tokens as f64 / report.corpus_tokens.max(1) as f64;
        TextReport { tokens, epochs, ..report }
    });
    (languages, texts.sources.iter().cloned().zip(sources).collect())
}

/// 6 · parameters in matrices (an embedding that is only looked up does not count; tied, it is the output projection),
/// and 6 · layers · sequence · width.
pub(crate) fn operations_per_token(decoder: &Decoder, sequence_length: usize) -> f64 {
    let config = decoder.config();
    let table = decoder.table().entries();
    let matrices = table.iter().filter(|parameter| parameter.kind == ParameterKind::Matrix);
    let idle = decoder.table().length() - decoder.active_parameters();
    let parameters = matrices.map(|parameter| parameter.span.len()).sum::<usize>() - idle;
    let head = config.vocabulary_size * config.hidden_size;
    let attention = config.layers.iter().map(|layer| layer.attention.heads * layer.attention.head_dim);
    6.0 * ((parameters + head) as f64 + (attention.sum::<usize>() * sequence_length) as f64)
}
