//! The tokenizer stage: count → weigh → learn merges → write → measure fairness.

use std::collections::BTreeMap;
use std::path::Path;

use languages::Language;
use provenance::{Context, StageOutput};
use rayon::prelude::*;
use serde::Serialize;

use crate::count::{LanguageCounts, WeightedPiece, count_corpus, language_files, weigh};
use crate::error::Error;
use crate::fairness::{Cost, Fairness};
use crate::loaded::Tokenizer;
use crate::merges::{self, Merge};
use crate::settings::{FIRST_MERGE_ID, Settings};
use crate::vocabulary::{tokenizer_config_json, tokenizer_json};

/// Raised whenever the same inputs and settings give other bytes than before.
pub const STAGE_VERSION: u32 = 1;

/// What the stage made, for the manifest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    pub vocabulary_size: usize,
    pub merges: usize,
    /// Different pieces of text that the merges were learned from.
    pub distinct_pieces: usize,
    pub documents: u64,
    pub fairness: Fairness,
}

/// Trains a vocabulary on `train/<language>.jsonl.zst` of a corpus and writes `tokenizer.json`, `tokenizer_config.json`,
/// `fairness.json` and `fairness.md`. `parallel_folder` holds `<language>.txt`, line n the same sentence in all.
pub fn build(
    settings: &Settings,
    corpus_folder: &Path,
    parallel_folder: Option<&Path>,
    output: &StageOutput,
    context: &Context,
) -> Result<Report, Error> {
    settings.check().map_err(|problem| Error::Settings { problem })?;
    let threads = rayon::ThreadPoolBuilder::new().num_threads(context.threads.max(1)).build();
    let threads = threads.map_err(|error| Error::Threads { problem: error.to_string() })?;
    threads.install(|| build_on_these_threads(settings, corpus_folder, parallel_folder, output, context))
}

fn build_on_these_threads(
    settings: &Settings,
    corpus_folder: &Path,
    parallel_folder: Option<&Path>,
    output: &StageOutput,
    context: &Context,
) -> Result<Report, Error> {
    let parallel_files = match parallel_folder {
        Some(folder) => read_parallel(folder)?,
        None => Vec::new(),
    };
    context.progress.begin("counting words", None, "languages");
    let counted = count_corpus(corpus_folder, settings.sample_bytes_per_language, context);
    context.progress.end();
    let mut counts = counted?;
    let pieces = weigh(&mut counts);

    let wanted = settings.vocabulary_size - FIRST_MERGE_ID as usize;
    context.progress.begin("learning merges", Some(wanted as u64), "merges");
    let learned =
        merges::learn(pieces.iter().map(|piece| (piece.text.as_bytes(), piece.weight)), wanted, context);
    context.progress.end();
    let learned = learned?;
    if learned.merges.len() < wanted {
        return Err(Error::TooLittleText {
            wanted: settings.vocabulary_size,
            possible: FIRST_MERGE_ID as usize + learned.merges.len(),
        });
    }

    write_vocabulary(&learned.merges, settings, output, context)?;
    // What was written is what is measured: the file is loaded again.
    let tokenizer = Tokenizer::load(&output.payload)?;
    let training = training_costs(&counts, &pieces, &learned.token_counts);
    let parallel = parallel_costs(&tokenizer, &parallel_files)?;
    let fairness = Fairness::compare(tokenizer.vocabulary_size(), &training, &parallel);
    let mut json = serde_json::to_string_pretty(&fairness).expect("a report always serialises");
    json.push('\n');
    context.storage.write(&output.payload.join("fairness.json"), json.as_bytes())?;
    context.storage.write(&output.payload.join("fairness.md"), fairness.to_markdown().as_bytes())?;
    Ok(Report {
        vocabulary_size: tokenizer.vocabulary_size(),
        merges: learned.merges.len(),
        distinct_pieces: pieces.len(),
        documents: counts.iter().map(|counts| counts.documents).sum(),
        fairness,
    })
}

fn write_vocabulary(
    merges: &[Merge],
    settings: &Settings,
    output: &StageOutput,
    context: &Context,
) -> Result<(), Error> {
    context.storage.write(&output.payload.join("tokenizer.json"), tokenizer_json(merges).as_bytes())?;
    let config = tokenizer_config_json(settings.maximum_length);
    context.storage.write(&output.payload.join("tokenizer_config.json"), config.as_bytes())?;
    Ok(())
}

/// Costs of the counted text, exactly: training leaves each piece in the tokens that encoding gives it.
fn training_costs(
    counts: &[LanguageCounts],
    pieces: &[WeightedPiece],
    token_counts: &[u32],
) -> BTreeMap<Language, Cost> {
    let mut tokens = vec![0u64; counts.len()];
    for (piece, &token_count) in pieces.iter().zip(token_counts) {
        for &(language, occurrences) in &piece.occurrences {
            tokens[usize::from(language)] += occurrences * u64::from(token_count);
        }
    }
    counts
        .iter()
        .zip(tokens)
        .map(|(counts, tokens)| (counts.language, Cost::new(counts.bytes, counts.words, tokens)))
        .collect()
}

/// `<language>.txt` of a folder; all must have the same number of lines.
fn read_parallel(folder: &Path) -> Result<Vec<(Language, String)>, Error> {
    let mut texts: Vec<(Language, String)> = Vec::new();
    let mut expected_lines = None;
    for (language, path) in language_files(folder, ".txt")? {
        let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let text = String::from_utf8(bytes).map_err(|error| Error::Malformed {
            path: path.clone(),
            problem: format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
        })?;
        let lines = text.lines().count();
        let (first, expected) = *expected_lines.get_or_insert((language, lines));
        if lines != expected {
            return Err(Error::Malformed {
                path,
                problem: format!(
                    "has {lines} lines where {first}.txt has {expected}; parallel files hold the same sentence in the same line"
                ),
            });
        }
        texts.push((language, text));
    }
    Ok(texts)
}

fn parallel_costs(
    tokenizer: &Tokenizer,
    texts: &[(Language, String)],
) -> Result<BTreeMap<Language, Cost>, Error> {
    texts
        .par_iter()
        .map(|(language, text)| {
            let (mut bytes, mut words, mut tokens) = (0, 0, 0);
            for line in text.lines() {
                bytes += line.len() as u64;
                words += line.split_whitespace().count() as u64;
                tokens += tokenizer.encode_ordinary(line)?.len() as u64;
            }
            Ok((*language, Cost::new(bytes, words, tokens)))
        })
        .collect()
}
