//! What duplicate search compares: the digest of a text's words, and a similarity sketch over its shingles (runs of words).
//!
//! The sketch is that of S. Dahlgaard, M. Knudsen, M. Thorup, "Fast Similarity Sketching" (FOCS 2017): each entry of two
//! sketches agrees with the probability of their Jaccard similarity, as in MinHash (Broder 1997), but a shingle is hashed
//! a few times instead of once for every entry. Its entries are banded for locality-sensitive hashing as in Leskovec,
//! Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3. Twenty bands of six rows: a pair at Jaccard 0.75 shares a
//! band with probability 0.98, a pair at 0.3 with 0.014; every candidate is then compared exactly.

use provenance::{Digest, digest::sha256};

use crate::settings::Settings;
use crate::words::{Words, hash_of_sequence, mix};

/// How near-duplicates are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sketch {
    /// Words per shingle.
    pub shingle_words: usize,
    pub bands: usize,
    /// Entries of a band; all of them must agree.
    pub rows: usize,
}

/// Equal for texts that differ in case, spacing and punctuation only: the digest of the words, lower case, one space
/// between them; of the text itself where it has no words.
pub fn digest_of_words(words: &Words, text: &str) -> Digest {
    let normalised = words.normalised();
    sha256(if normalised.is_empty() { text.as_bytes() } else { normalised })
}

/// The hashes of all shingles in the order of the text. A shorter text is one shingle.
pub fn shingles_in_order(words: &Words, shingle_words: usize, shingles: &mut Vec<u64>) {
    shingles.clear();
    let hashes = &words.hashes;
    match hashes.len() {
        0 => {}
        length if length < shingle_words => shingles.push(hash_of_sequence(hashes)),
        _ => shingles.extend(hashes.windows(shingle_words).map(hash_of_sequence)),
    }
}

/// The shingles of a text, sorted, each once.
pub fn shingles(text: &str, shingle_words: usize) -> Vec<u64> {
    let mut shingles = Vec::new();
    shingles_in_order(&Words::of(text), shingle_words, &mut shingles);
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// Shared shingles over all shingles of two sorted lists.
pub fn jaccard(left: &[u64], right: &[u64]) -> f64 {
    let (mut left_place, mut right_place, mut shared) = (0, 0, 0usize);
    while let (Some(&a), Some(&b)) = (left.get(left_place), right.get(right_place)) {
        shared += usize::from(a == b);
        left_place += usize::from(a <= b);
        right_place += usize::from(b <= a);
    }
    let all = left.len() + right.len() - shared;
    if all == 0 { 1.0 } else { shared as f64 / all as f64 }
}

impl Sketch {
    pub fn of(settings: &Settings) -> Sketch {
        Sketch {
            shingle_words: settings.near_duplicate_shingle_words,
            bands: settings.near_duplicate_bands,
            rows: settings.near_duplicate_rows,
        }
    }

    fn entries(&self) -> usize {
        self.bands * self.rows
    }

    /// One key a band; texts with an equal key are compared. A text without words has no keys.
    pub fn bands(&self, shingles: &[u64], buffer: &mut Vec<u64>, keys: &mut Vec<u64>) {
        keys.clear();
        if shingles.is_empty() {
            return;
        }
        self.fill(shingles, buffer);
        keys.extend(
            buffer
                .chunks_exact(self.rows)
                .enumerate()
                .map(|(band, rows)| rows.iter().fold(band as u64, |key, &entry| mix(key ^ entry))),
        );
    }

    /// In round `i` every shingle is thrown into one entry, where the lowest value of the earliest round stays; from round
    /// `entries` on all are thrown into the entry that is next, so that none stays empty.
    fn fill(&self, shingles: &[u64], sketch: &mut Vec<u64>) {
        let entries = self.entries();
        sketch.clear();
        sketch.resize(entries, u64::MAX);
        let mut empty = entries;
        for round in 0..2 * entries {
            let seed = mix(round as u64);
            for &shingle in shingles {
                let hash = mix(shingle ^ seed);
                let entry = match round < entries {
                    true => (((hash >> 32) * entries as u64) >> 32) as usize,
                    false => round - entries,
                };
                let value = (round as u64) << 32 | hash & 0xFFFF_FFFF;
                empty -= usize::from(sketch[entry] == u64::MAX);
                sketch[entry] = sketch[entry].min(value);
            }
            if empty == 0 {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKETCH: Sketch = Sketch { shingle_words: 5, bands: 20, rows: 6 };

    fn bands(text: &str) -> Vec<u64> {
        let mut keys = Vec::new();
        SKETCH.bands(&shingles(text, 5), &mut Vec::new(), &mut keys);
        keys
    }

    #[test]
    fn case_spacing_and_punctuation_make_no_difference() {
        let digest = |text: &str| digest_of_words(&Words::of(text), text);
        let check = |left: &str, right: &str, expected: bool| {
            assert_eq!(digest(left) == digest(right), expected, "{left} | {right}");
        };
        check("Η Θάλασσα, ήρεμη!", "η θάλασσα ήρεμη", true);
        check("Ir-raħal\n\nżgħir.", "ir raħal żgħir", true);
        check("Page 1 of 2", "Page 2 of 2", false);
        check("!", "?", false);
    }

    #[test]
    fn similarity_counts_shared_shingles() {
        let text = "one two three four five six seven eight nine ten";
        assert_eq!(jaccard(&shingles(text, 5), &shingles(text, 5)), 1.0);
        // Six shingles each; the last word is in one of them.
        let other = text.replace("ten", "zehn");
        assert_eq!(jaccard(&shingles(text, 5), &shingles(&other, 5)), 5.0 / 7.0);
        assert_eq!(jaccard(&shingles(text, 5), &shingles("", 5)), 0.0);
        assert_eq!(jaccard(&[], &[]), 1.0);
    }

    #[test]
    fn similar_texts_share_bands_and_others_do_not() {
        let words: Vec<String> = (0..200).map(|n| format!("word{n}")).collect();
        let text = words.join(" ");
        let light = text.replace("word50 ", "").replace("word120 ", "other ");
        let shared = |left: &str, right: &str| {
            bands(left).iter().zip(bands(right)).filter(|(left, right)| **left == *right).count()
        };
        assert_eq!(shared(&text, &text), 20);
        assert!(shared(&text, &light) >= 3);
        assert_eq!(shared(&text, &text.replace("word", "mot")), 0);
    }

    /// Entries agree as often as shingles are shared: over many pairs, to within what chance allows.
    #[test]
    fn entries_agree_as_often_as_shingles_do() {
        for (length, shared) in [(30, 20), (300, 225), (3000, 900)] {
            let (mut agreed, pairs) = (0, 60);
            for pair in 0..pairs {
                let set = |own: u64| -> Vec<u64> {
                    (0..length)
                        .map(|n| mix(pair << 40 | if n < shared { n } else { own << 32 | n }))
                        .collect()
                };
                let (mut left, mut right) = (Vec::new(), Vec::new());
                SKETCH.fill(&set(1), &mut left);
                SKETCH.fill(&set(2), &mut right);
                agreed += left.iter().zip(&right).filter(|(a, b)| a == b).count();
            }
            let found = agreed as f64 / (pairs * 120) as f64;
            let expected = shared as f64 / (2 * length - shared) as f64;
            assert!((found - expected).abs() < 0.03, "{length}: {found} for {expected}");
        }
    }
}
