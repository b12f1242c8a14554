//! Passages that stand in several documents, wherever they begin: press releases, quoted laws, licence texts. They stay in
//! the first document (in the order of preference of `duplicates`) and are cut from the others.
//!
//! Documents are compared by winnowed hashes of word n-grams (S. Schleimer, D. Wilkerson, A. Aiken, "Winnowing: Local
//! Algorithms for Document Fingerprinting", SIGMOD 2003): of each window of n-grams the lowest hash is kept, so that two
//! documents that share a run of at least as many words as an n-gram and a window are sure to share a hash. What they
//! share is then compared word by word.

use std::collections::{HashMap, HashSet};

use bytemuck::{Pod, Zeroable};

use crate::duplicates::Preferences;
use crate::error::Error;
use crate::holding::Holding;
use crate::runs;
use crate::words::{Words, mix};

/// A hash that a document shares with an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Shared {
    pub document: u32,
    pub with: u32,
    pub key: u64,
}

/// Half of the shortest passage: the other half is the window.
fn ngram_words(passage_words: usize) -> usize {
    passage_words / 2
}

/// The hashes of all n-grams, in their order; each from the one before.
fn ngrams(words: &[u64], length: usize) -> impl Iterator<Item = u64> + '_ {
    const FACTOR: u64 = 0x5851_f42d_4c95_7f2d;
    let forgets = (0..length).fold(1u64, |power, _| power.wrapping_mul(FACTOR));
    let mut rolling = 0u64;
    words.iter().enumerate().filter_map(move |(place, &word)| {
        rolling = rolling.wrapping_mul(FACTOR).wrapping_add(word);
        if place >= length {
            rolling = rolling.wrapping_sub(words[place - length].wrapping_mul(forgets));
        }
        (place + 1 >= length).then(|| mix(rolling))
    })
}

/// The keys under which documents with a passage of at least `passage_words` words in common meet.
pub fn keys(words: &Words, passage_words: usize, keys: &mut Vec<u64>) {
    let length = ngram_words(passage_words);
    let window = passage_words - length + 1;
    let hashes: Vec<u64> = ngrams(&words.hashes, length).collect();
    let mut lowest: Option<usize> = None;
    for end in window..=hashes.len() {
        let start = end - window;
        let still = lowest.filter(|&place| place >= start);
        let found = match still {
            Some(place) if hashes[place] <= hashes[end - 1] => place,
            Some(_) => end - 1,
            None => (start..end).min_by_key(|&place| (hashes[place], place)).unwrap_or(start),
        };
        if lowest != Some(found) {
            keys.push(hashes[found]);
            lowest = Some(found);
        }
    }
}

/// Which of the documents that are not `gone` share hashes with which earlier one, document by document.
pub fn find(holding: &Holding, gone: &[bool], passage_words: usize) -> Result<Vec<Shared>, Error> {
    if passage_words == 0 {
        return Ok(Vec::new());
    }
    let entries = runs::shared_entries(holding, "passages", gone)?;
    let order = Preferences::of(holding, &entries)?;
    let mut shared = Vec::new();
    for group in runs::groups(&entries, 2) {
        let Some(first) = group.iter().min_by_key(|entry| order.get(entry.document)) else { continue };
        let others = group.iter().filter(|entry| entry.document != first.document);
        shared.extend(others.map(|entry| Shared {
            document: entry.document,
            with: first.document,
            key: entry.key,
        }));
    }
    shared.sort_unstable();
    Ok(shared)
}

/// The text without the passages that it shares with the documents that `shared` names. `None` where there are none of
/// that length.
pub fn removed(
    text: &str,
    shared: &[Shared],
    passage_words: usize,
    text_of: impl Fn(u32) -> Result<String, Error>,
) -> Result<Option<String>, Error> {
    let own = Words::of(text);
    let mut passages: Vec<(usize, usize)> = Vec::new();
    for with in shared.chunk_by(|left, right| left.with == right.with) {
        let other = Words::of(&text_of(with[0].with)?);
        let keys: HashSet<u64> = with.iter().map(|shared| shared.key).collect();
        let length = ngram_words(passage_words);
        let places = |words: &Words| {
            let found = ngrams(&words.hashes, length).enumerate().filter(|(_, hash)| keys.contains(hash));
            found.collect::<Vec<_>>()
        };
        let mut of_key: HashMap<u64, Vec<usize>> = HashMap::new();
        places(&other).into_iter().for_each(|(place, key)| of_key.entry(key).or_default().push(place));
        for (place, key) in places(&own) {
            for &other_place in of_key.get(&key).into_iter().flatten() {
                let passage = longest_run(&own.hashes, place, &other.hashes, other_place);
                if passage.1 - passage.0 >= passage_words {
                    passages.push(passage);
                }
            }
        }
    }
    if passages.is_empty() {
        return Ok(None);
    }
    passages.sort_unstable();
    Ok(Some(cut(text, &own, &passages)))
}

/// The words of `left` around `place` that stand in the same order around `other` in `right`: first, and past the last.
fn longest_run(left: &[u64], place: usize, right: &[u64], other: usize) -> (usize, usize) {
    let before = left[..place].iter().rev().zip(right[..other].iter().rev());
    let after = left[place..].iter().zip(&right[other..]);
    let before = before.take_while(|(left, right)| left == right).count();
    let after = after.take_while(|(left, right)| left == right).count();
    (place - before, place + after)
}

/// Cuts runs of words (sorted, they may overlap), each with what follows it up to the next word or line end.
fn cut(text: &str, words: &Words, passages: &[(usize, usize)]) -> String {
    let start_of = |word: usize| {
        let after = if word == 0 { 0 } else { words.ends[word - 1] as usize };
        text[after..].find(char::is_alphanumeric).map_or(text.len(), |skipped| after + skipped)
    };
    let mut kept = String::with_capacity(text.len());
    let mut copied = 0;
    for &(first, end) in passages {
        let start = start_of(first);
        let last = words.ends[end - 1] as usize;
        let next = start_of(end);
        let until = text[last..next].find('\n').map_or(next, |line_end| last + line_end);
        if until > copied {
            kept.push_str(&text[copied..start.max(copied)]);
            // Of a line that is empty now nothing stays, nor of the blank lines after it.
            let line_is_empty = kept.is_empty() || kept.ends_with('\n');
            let blank = text[until..].len() - text[until..].trim_start_matches('\n').len();
            copied = until + if line_is_empty { blank } else { 0 };
        }
    }
    kept.push_str(&text[copied..]);
    kept.trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSAGE_WORDS: usize = 20;

    fn words(prefix: &str, count: usize) -> String {
        (0..count).map(|number| format!("{prefix}{number} ")).collect()
    }

    fn keys_of(text: &str) -> HashSet<u64> {
        let mut found = Vec::new();
        keys(&Words::of(text), PASSAGE_WORDS, &mut found);
        found.into_iter().collect()
    }

    #[test]
    fn a_shared_run_shares_a_key_wherever_it_stands() {
        let passage = words("λέξη", PASSAGE_WORDS);
        for (before, after) in [(0, 0), (3, 40), (17, 1), (90, 90)] {
            let left = words("a", before) + &passage + &words("b", after);
            let right = words("c", 31) + &passage.to_uppercase() + &words("d", 8);
            assert!(!keys_of(&left).is_disjoint(&keys_of(&right)), "{before} {after}");
        }
        assert!(keys_of(&words("a", 200)).is_disjoint(&keys_of(&words("b", 200))));
        assert!(keys_of(&words("a", 200)).len() < 50, "few of the n-grams are kept");
    }

    #[test]
    fn the_passage_goes_and_the_rest_stays() {
        let passage = words("дума", 30);
        let first = format!("{}. {}", words("a", 9).trim(), passage.trim());
        let text = format!("Начало, добро.\n{}!\nКрай на текста.", passage.trim());
        let shared: Vec<Shared> = keys_of(&first)
            .intersection(&keys_of(&text))
            .map(|&key| Shared { document: 1, with: 0, key })
            .collect();
        let removed = |text: &str| removed(text, &shared, PASSAGE_WORDS, |_| Ok(first.clone())).unwrap();
        assert_eq!(removed(&text).unwrap(), "Начало, добро.\nКрай на текста.");
        let in_line = format!("Преди {} след.", passage.trim());
        assert_eq!(removed(&in_line).unwrap(), "Преди след.");
        assert_eq!(removed(&passage).unwrap(), "");
        // A run that is one word too short is no passage.
        let short: String = passage.split_inclusive(' ').take(PASSAGE_WORDS - 1).collect();
        assert_eq!(removed(&format!("Преди {short} след.")), None);
    }
}
