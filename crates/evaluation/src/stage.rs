//! The evaluation stage: read held-out text → score it → compare → write the table.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use inference::Scorer;
use provenance::{Context, StageOutput};
use rayon::prelude::*;
use serde::Serialize;
use tokenizer::Tokenizer;

use crate::error::Error;
use crate::lzma::compressed_bytes;
use crate::ngram::{NgramModel, Smoothing};
use crate::results::{Comparisons, Figures, LanguageResults, Results};
use crate::settings::Settings;
use crate::text::{LanguageText, read_languages};
use crate::windows::windows;

/// Raised whenever the same inputs and settings give other bytes than before.
pub const STAGE_VERSION: u32 = 2;

/// LZMA compresses its training text anew for each language, so it gets the first 64 KiB of each: a second of work a
/// language. A dictionary compressor gains little from more (its matches are phrases).
const LZMA_TRAINING_BYTES_PER_LANGUAGE: usize = 64 << 10;

/// Natural logarithms of the probabilities of tokens `1..` of a sequence, each given all tokens before it: one number
/// less than tokens. The error says what went wrong.
pub type Score<'a> = &'a mut dyn FnMut(&[u32]) -> Result<Vec<f32>, String>;

/// What the stage found, for the manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// By ISO 639-1 code.
    pub languages: BTreeMap<&'static str, LanguageResults>,
    /// Mean over the languages.
    pub mean: Figures,
    /// All held-out text as one.
    pub joint: Figures,
    /// Languages in which the model needs fewer bits than both comparisons.
    pub languages_ahead: usize,
    pub documents: usize,
    pub bytes: u64,
    pub tokens: u64,
}

/// Measures a model folder in the Hugging Face layout, with an adapter (PEFT layout) merged into it if one is given; see
/// [`evaluate`]. A model whose context is shorter than the settings' is measured with its own.
pub fn build(
    settings: &Settings,
    model_folder: &Path,
    adapter_folder: Option<&Path>,
    corpus_folder: &Path,
    output: &StageOutput,
    context: &Context,
) -> Result<Report, Error> {
    settings.check().map_err(|problem| Error::Settings { problem })?;
    let tokenizer = Tokenizer::load(model_folder)?;
    let progress = &context.progress;
    let watch = |done: usize, parts: usize| {
        match done {
            0 => progress.begin("loading", Some(parts as u64), "layers"),
            _ => progress.advance(1),
        }
        match context.cancellation.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let (weights, threads) = (settings.weights, context.threads);
    let scorer = Scorer::load_watched(model_folder, adapter_folder, weights, threads, &watch);
    progress.end();
    context.cancellation.check()?;
    let mut scorer = scorer.map_err(|error| Error::Model { problem: error.to_string() })?;
    let settings = settings.within(scorer.context_length());
    let mut score = |tokens: &[u32]| scorer.score(tokens).map_err(|error| error.to_string());
    let (_, report) = evaluate(&settings, &tokenizer, &mut score, corpus_folder, output, context)?;
    Ok(report)
}

/// Measures a model by the log probabilities that `score` gives, and writes `results.json` and `results.md`.
///
/// `corpus_folder` holds `heldout/<language>.jsonl.zst` to measure on and `train/<language>.jsonl.zst` for the
/// comparisons to learn from.
pub fn evaluate(
    settings: &Settings,
    tokenizer: &Tokenizer,
    score: Score<'_>,
    corpus_folder: &Path,
    output: &StageOutput,
    context: &Context,
) -> Result<(Results, Report), Error> {
    settings.check().map_err(|problem| Error::Settings { problem })?;
    let (held_out, _) = read_languages(&corpus_folder.join("heldout"), u64::MAX)?;
    let (training, whole) =
        read_languages(&corpus_folder.join("train"), settings.comparison_bytes_per_language)?;

    let total_bytes: u64 = held_out.iter().map(LanguageText::bytes).sum();
    context.progress.begin("scoring held-out text", Some(total_bytes), "bytes");
    let scored: Result<Vec<Scored>, Error> =
        held_out.iter().map(|text| score_language(settings, tokenizer, score, text, context)).collect();
    context.progress.end();
    let scored = scored?;

    context.progress.begin("comparing", Some(held_out.len() as u64 + 2), "comparisons");
    let compared = compare(&held_out, &training, context);
    context.progress.end();
    let compared = compared?;

    let results = table(settings, &held_out, &scored, &compared, whole);
    let mut json = serde_json::to_string_pretty(&results).expect("results always serialise");
    json.push('\n');
    context.storage.write(&output.payload.join("results.json"), json.as_bytes())?;
    context.storage.write(&output.payload.join("results.md"), results.to_markdown().as_bytes())?;
    let report = Report {
        languages: results.languages.clone(),
        mean: results.mean,
        joint: results.joint,
        languages_ahead: results.languages_ahead(),
        documents: held_out.iter().map(|text| text.documents.len()).sum(),
        bytes: total_bytes,
        tokens: scored.iter().map(|scored| scored.tokens).sum(),
    };
    Ok((results, report))
}

/// A language's held-out text as the model sees it.
struct Scored {
    bits: f64,
    tokens: u64,
}

fn score_language(
    settings: &Settings,
    tokenizer: &Tokenizer,
    score: Score<'_>,
    text: &LanguageText,
    context: &Context,
) -> Result<Scored, Error> {
    let opening = tokenizer.beginning_id().ok_or(Error::NoSeparator)?;
    let mut scored = Scored { bits: 0.0, tokens: 0 };
    for (id, document) in &text.documents {
        context.cancellation.check()?;
        let mut tokens = vec![opening];
        tokens.extend(tokenizer.encode_ordinary(document)?);
        let token_bytes: usize = tokens.iter().map(|token| tokenizer.byte_length(*token)).sum();
        if token_bytes != document.len() {
            return Err(Error::Lossy {
                document: id.clone(),
                language: text.language,
                token_bytes,
                text_bytes: document.len(),
            });
        }
        scored.tokens += tokens.len() as u64 - 1;
        scored.bits += document_bits(settings, &tokens, &mut *score).map_err(|problem| Error::Score {
            document: id.clone(),
            language: text.language,
            problem,
        })?;
        context.progress.advance(document.len() as u64);
    }
    Ok(scored)
}

/// Bits of all tokens but the first, which opens the document.
fn document_bits(settings: &Settings, tokens: &[u32], score: Score<'_>) -> Result<f64, String> {
    let mut nats = 0.0f64;
    for window in windows(tokens.len(), settings.context_length, settings.stride) {
        let log_probabilities = score(&tokens[window.seen.clone()])?;
        if log_probabilities.len() + 1 != window.seen.len() {
            return Err(format!(
                "the model gave {} log probabilities for {} tokens; one for each but the first was expected",
                log_probabilities.len(),
                window.seen.len()
            ));
        }
        for position in window.scored {
            let log_probability = log_probabilities[position - window.seen.start - 1];
            // A little above 0 is rounding; more, infinity or NaN is a broken model.
            if !log_probability.is_finite() || log_probability > 1e-3 {
                return Err(format!(
                    "the model gave token {position} the log probability {log_probability}; its weights are damaged, or its \
                     training diverged"
                ));
            }
            nats -= f64::from(log_probability.min(0.0));
        }
    }
    Ok(nats / std::f64::consts::LN_2)
}

/// What the comparisons need.
struct Compared {
    /// By language, in the order of the held-out texts: compressed bits after the training text, bits of the n-gram
    /// models.
    lzma_bits: Vec<f64>,
    ngram_bits: Vec<f64>,
    kneser_ney_bits: Vec<f64>,
    /// The joint held-out text alone, compressed.
    joint_lzma_bits: f64,
    lzma_training_bytes: u64,
    ngram_training_bytes: u64,
}

fn compare(
    held_out: &[LanguageText],
    training: &[LanguageText],
    context: &Context,
) -> Result<Compared, Error> {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(context.threads.max(1)).build();
    let threads = threads.map_err(|error| Error::Threads { problem: error.to_string() })?;
    let mut seen = Vec::new();
    for text in training {
        let joined = text.joined();
        seen.extend_from_slice(&joined[..joined.len().min(LZMA_TRAINING_BYTES_PER_LANGUAGE)]);
    }
    let texts: Vec<Vec<u8>> = held_out.iter().map(LanguageText::joined).collect();
    let joint: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();

    threads.install(|| {
        let ngram_bits = |smoothing, longest| -> Result<Vec<f64>, Error> {
            let documents = training.iter().flat_map(|text| &text.documents).map(|(_, text)| text.as_bytes());
            let model = NgramModel::learned(smoothing, longest, documents);
            context.cancellation.check()?;
            context.progress.advance(1);
            let bits_of = |text: &LanguageText| {
                text.documents.iter().map(|(_, text)| model.bits(text.as_bytes())).sum()
            };
            Ok(held_out.iter().map(bits_of).collect())
        };
        let ((witten_bell, kneser_ney), lzma) = rayon::join(
            || rayon::join(|| ngram_bits(Smoothing::WittenBell, 4), || ngram_bits(Smoothing::KneserNey, 5)),
            || {
                // Position 0 is the training text alone.
                (0..=texts.len())
                    .into_par_iter()
                    .map(|position| {
                        context.cancellation.check()?;
                        let own: &[u8] = if position == 0 { &[] } else { &texts[position - 1] };
                        let bytes = compressed_bytes(&[&seen, own])?;
                        context.progress.advance(u64::from(position > 0));
                        Ok(bytes)
                    })
                    .collect::<Result<Vec<u64>, Error>>()
            },
        );
        let lzma = lzma?;
        let bits = |bytes: u64| 8.0 * bytes as f64;
        Ok(Compared {
            lzma_bits: lzma[1..].iter().map(|with_text| bits(with_text.saturating_sub(lzma[0]))).collect(),
            ngram_bits: witten_bell?,
            kneser_ney_bits: kneser_ney?,
            joint_lzma_bits: bits(compressed_bytes(&joint)?),
            lzma_training_bytes: seen.len() as u64,
            ngram_training_bytes: training.iter().map(LanguageText::bytes).sum(),
        })
    })
}

fn table(
    settings: &Settings,
    held_out: &[LanguageText],
    scored: &[Scored],
    compared: &Compared,
    whole: bool,
) -> Results {
    let mut languages = BTreeMap::new();
    let ratio = |above: f64, below: u64| if below == 0 { 0.0 } else { above / below as f64 };
    for (index, (text, scored)) in held_out.iter().zip(scored).enumerate() {
        let (bytes, words) = (text.bytes(), text.words());
        let figures = Figures {
            bits_per_byte: ratio(scored.bits, bytes),
            lzma_bits_per_byte: ratio(compared.lzma_bits[index], bytes),
            ngram_bits_per_byte: ratio(compared.ngram_bits[index], bytes),
            kneser_ney_bits_per_byte: ratio(compared.kneser_ney_bits[index], bytes),
            tokens_per_word: ratio(scored.tokens as f64, words),
        };
        let documents = text.documents.len();
        let row =
            LanguageResults { figures: figures.rounded(), documents, bytes, words, tokens: scored.tokens };
        languages.insert(text.language.code(), row);
    }
    let bytes: u64 = held_out.iter().map(LanguageText::bytes).sum();
    let words: u64 = held_out.iter().map(LanguageText::words).sum();
    let tokens: u64 = scored.iter().map(|scored| scored.tokens).sum();
    Results {
        mean: Figures::mean(languages.values().map(|language| &language.figures)),
        joint: Figures {
            bits_per_byte: ratio(scored.iter().map(|scored| scored.bits).sum(), bytes),
            lzma_bits_per_byte: ratio(compared.joint_lzma_bits, bytes),
            ngram_bits_per_byte: ratio(compared.ngram_bits.iter().sum(), bytes),
            kneser_ney_bits_per_byte: ratio(compared.kneser_ney_bits.iter().sum(), bytes),
            tokens_per_word: ratio(tokens as f64, words),
        }
        .rounded(),
        languages,
        context_length: settings.context_length,
        stride: settings.stride,
        comparisons: Comparisons {
            lzma: "LZMA, preset 9: bytes that a language's held-out text adds to the compressed training text of all languages",
            ngram: "interpolated Witten-Bell 5-gram over bytes, trained on the training text of all languages",
            kneser_ney: "interpolated modified Kneser-Ney over up to 5 bytes of context, trained on the same text; the strongest of its kind",
            lzma_training_bytes: compared.lzma_training_bytes,
            ngram_training_bytes: compared.ngram_training_bytes,
            training_text_is_whole: whole && compared.lzma_training_bytes == compared.ngram_training_bytes,
        },
    }
}
