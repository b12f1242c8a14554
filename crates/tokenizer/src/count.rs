//! Counting the pieces of a corpus, and weighing the languages alike.
//!
//! A merge is worth what it saves, and a language with more text would save more. So each language's counts are scaled
//! by the inverse of its bytes: all 24 bring the same number of bytes to the trainer, however much text they have.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use documents::read_shard;
use languages::Language;
use provenance::Context;
use rayon::prelude::*;

use crate::error::Error;
use crate::pretokenise::pieces;

/// The pieces of one language's text.
pub(crate) struct LanguageCounts {
    pub language: Language,
    /// UTF-8 bytes that were counted.
    pub bytes: u64,
    /// Words between white space.
    pub words: u64,
    pub documents: u64,
    /// How often each piece occurs.
    pub pieces: HashMap<Box<str>, u64>,
}

/// A piece of text with its weight and where it comes from.
pub(crate) struct WeightedPiece {
    pub text: Box<str>,
    /// Sum over the languages of occurrences × weight of the language.
    pub weight: u64,
    /// (position in the list of languages, occurrences)
    pub occurrences: Vec<(u16, u64)>,
}

/// Weight of an occurrence in a language that has just the mean number of bytes: fixed point, so that sums are exact in
/// any order. Times the bytes of a corpus it stays below 2⁶⁴ up to 700 GB a language.
const UNIT_WEIGHT: u128 = 1 << 20;

/// Counts `train/<language>.jsonl.zst` of a corpus, one language a thread.
pub(crate) fn count_corpus(
    corpus_folder: &Path,
    sample_bytes_per_language: u64,
    context: &Context,
) -> Result<Vec<LanguageCounts>, Error> {
    let shards = language_files(&corpus_folder.join("train"), ".jsonl.zst")?;
    if shards.is_empty() {
        return Err(Error::NoText { path: corpus_folder.join("train") });
    }
    let counted: Result<Vec<LanguageCounts>, Error> = shards
        .into_par_iter()
        .map(|(language, path)| {
            context.cancellation.check()?;
            let counts = count_shard(language, &path, sample_bytes_per_language, context)?;
            context.progress.advance(1);
            Ok(counts)
        })
        .collect();
    let counted: Vec<LanguageCounts> = counted?.into_iter().filter(|counts| counts.bytes > 0).collect();
    if counted.is_empty() {
        return Err(Error::NoText { path: corpus_folder.join("train") });
    }
    Ok(counted)
}

/// Files of a folder that are named by a language's code and `suffix`, in the order of the codes.
pub(crate) fn language_files(folder: &Path, suffix: &str) -> Result<Vec<(Language, PathBuf)>, Error> {
    let read_error = |source| Error::Read { path: folder.to_path_buf(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path();
        let Some(code) =
            path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(suffix))
        else {
            continue;
        };
        let language = Language::from_code(code).map_err(|unknown| Error::Malformed {
            path: path.clone(),
            problem: format!("the file name is no language: {unknown}"),
        })?;
        files.push((language, path));
    }
    files.sort();
    Ok(files)
}

fn count_shard(
    language: Language,
    path: &Path,
    limit_bytes: u64,
    context: &Context,
) -> Result<LanguageCounts, Error> {
    let mut counts = LanguageCounts { language, bytes: 0, words: 0, documents: 0, pieces: HashMap::new() };
    for document in read_shard(path)? {
        counts.add(&document?.text);
        if counts.documents.is_multiple_of(1024) {
            context.cancellation.check()?;
        }
        if counts.bytes >= limit_bytes {
            break;
        }
    }
    Ok(counts)
}

impl LanguageCounts {
    pub fn add(&mut self, text: &str) {
        self.documents += 1;
        self.bytes += text.len() as u64;
        self.words += text.split_whitespace().count() as u64;
        for piece in pieces(text) {
            match self.pieces.get_mut(piece) {
                Some(count) => *count += 1,
                None => {
                    self.pieces.insert(piece.into(), 1);
                }
            }
        }
    }
}

/// All pieces of all languages, sorted by text, each language weighing the same.
pub(crate) fn weigh(counts: &mut [LanguageCounts]) -> Vec<WeightedPiece> {
    let total_bytes: u128 = counts.iter().map(|counts| u128::from(counts.bytes)).sum();
    let mean_bytes = total_bytes / counts.len().max(1) as u128;
    let mut merged: BTreeMap<Box<str>, WeightedPiece> = BTreeMap::new();
    for (position, counts) in counts.iter_mut().enumerate() {
        let weight = (mean_bytes * UNIT_WEIGHT / u128::from(counts.bytes.max(1))).max(1) as u64;
        for (text, count) in std::mem::take(&mut counts.pieces) {
            let piece = merged.entry(text).or_insert_with_key(|text| WeightedPiece {
                text: text.clone(),
                weight: 0,
                occurrences: Vec::new(),
            });
            piece.weight = piece.weight.saturating_add(count.saturating_mul(weight));
            piece.occurrences.push((position as u16, count));
        }
    }
    merged.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts_of(code: &str, text: &str) -> LanguageCounts {
        let language = Language::from_code(code).unwrap();
        let mut counts =
            LanguageCounts { language, bytes: 0, words: 0, documents: 0, pieces: HashMap::new() };
        counts.add(text);
        counts
    }

    #[test]
    fn languages_weigh_the_same_whatever_their_size() {
        let mut counts = [counts_of("mt", "il-ktieb"), counts_of("en", &"the book is ".repeat(100))];
        let pieces = weigh(&mut counts);
        let sum_of = |language: u16| -> u64 {
            let own = pieces.iter().filter(|piece| piece.occurrences[0].0 == language);
            own.map(|piece| piece.weight * piece.text.len() as u64).sum()
        };
        let (maltese, english) = (sum_of(0), sum_of(1));
        assert!(maltese.abs_diff(english) <= maltese / 1000, "{maltese} {english}");
        assert!(pieces.is_sorted_by_key(|piece| piece.text.clone()));
    }
}
