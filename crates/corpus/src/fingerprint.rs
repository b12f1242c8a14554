//! What duplicate search compares: the words of a text without case, spacing and punctuation, their digest, and a MinHash
//! signature over word 5-grams.
//!
//! MinHash after A. Broder, "On the resemblance and containment of documents" (1997), banded for locality-sensitive
//! hashing as in Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", chapter 3. Twenty bands of six rows: a pair at
//! Jaccard 0.75 shares a band with probability 0.98, a pair at 0.3 with 0.014; every candidate is then compared exactly.

use provenance::{Digest, digest::sha256};

pub const BANDS: usize = 20;
const ROWS: usize = 6;
/// Words per shingle: five, as Gopher, FineWeb and datatrove use.
const SHINGLE_WORDS: usize = 5;

/// A text as duplicate search sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Equal for texts that differ in case, spacing and punctuation only.
    pub digest: Digest,
    /// One key a band; texts with an equal key at the same band are compared.
    pub bands: [u64; BANDS],
}

impl Fingerprint {
    pub fn of(text: &str) -> Fingerprint {
        Fingerprint { digest: digest_of_words(text), bands: bands_of(&shingles(text)) }
    }
}

/// The digest of the words, lower case, one space between them; of the text itself where it has no words.
pub fn digest_of_words(text: &str) -> Digest {
    let mut normalised = String::with_capacity(text.len());
    for word in words(text) {
        normalised.extend(word.chars().flat_map(char::to_lowercase));
        normalised.push(' ');
    }
    sha256(if normalised.is_empty() { text.as_bytes() } else { normalised.as_bytes() })
}

/// The hashes of all word 5-grams, sorted, each once. A shorter text is one shingle.
pub fn shingles(text: &str) -> Vec<u64> {
    let hashes: Vec<u64> = words(text).map(hash_of_word).collect();
    let mut shingles: Vec<u64> = match hashes.len() {
        0 => Vec::new(),
        length if length < SHINGLE_WORDS => vec![hash_of_sequence(&hashes)],
        _ => hashes.windows(SHINGLE_WORDS).map(hash_of_sequence).collect(),
    };
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// Shared shingles over all shingles of two sorted lists.
pub fn jaccard(left: &[u64], right: &[u64]) -> f64 {
    let (mut left_place, mut right_place, mut shared) = (0, 0, 0usize);
    while let (Some(a), Some(b)) = (left.get(left_place), right.get(right_place)) {
        match a.cmp(b) {
            std::cmp::Ordering::Less => left_place += 1,
            std::cmp::Ordering::Greater => right_place += 1,
            std::cmp::Ordering::Equal => {
                shared += 1;
                left_place += 1;
                right_place += 1;
            }
        }
    }
    let all = left.len() + right.len() - shared;
    if all == 0 { 1.0 } else { shared as f64 / all as f64 }
}

/// Runs of letters and digits: numbers count here, or tables that differ in their figures alone would be duplicates.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn hash_of_word(word: &str) -> u64 {
    word.chars().flat_map(char::to_lowercase).fold(0xcbf2_9ce4_8422_2325, |hash, character| {
        (hash ^ u64::from(u32::from(character))).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Order matters: each hash is mixed into what came before.
pub fn hash_of_sequence(hashes: &[u64]) -> u64 {
    hashes.iter().fold(0, |sequence, hash| mix(sequence ^ hash))
}

/// A 64-bit hash of any text, the same on every machine and with every compiler.
pub fn hash_of_text(text: &str) -> u64 {
    mix(hash_of_word(text))
}

/// The output function of splitmix64 (Steele, Lea, Flood 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The smallest value of each of the hash functions `a·x + b`, six of them to a band.
fn bands_of(shingles: &[u64]) -> [u64; BANDS] {
    let mut minima = [u32::MAX; BANDS * ROWS];
    for &shingle in shingles {
        for (function, minimum) in minima.iter_mut().enumerate() {
            let (multiplier, addend) = FUNCTIONS[function];
            let value = (shingle.wrapping_mul(multiplier).wrapping_add(addend) >> 32) as u32;
            *minimum = (*minimum).min(value);
        }
    }
    std::array::from_fn(|band| {
        let rows = &minima[band * ROWS..(band + 1) * ROWS];
        rows.iter().fold(band as u64, |key, &minimum| mix(key ^ u64::from(minimum)))
    })
}

static FUNCTIONS: std::sync::LazyLock<[(u64, u64); BANDS * ROWS]> = std::sync::LazyLock::new(|| {
    std::array::from_fn(|function| (mix(2 * function as u64) | 1, mix(2 * function as u64 + 1)))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_spacing_and_punctuation_make_no_difference() {
        let check = |left: &str, right: &str, expected: bool| {
            assert_eq!(
                Fingerprint::of(left).digest == Fingerprint::of(right).digest,
                expected,
                "{left} | {right}"
            );
        };
        check("Η Θάλασσα, ήρεμη!", "η θάλασσα ήρεμη", true);
        check("Ir-raħal\n\nżgħir.", "ir raħal żgħir", true);
        check("Page 1 of 2", "Page 2 of 2", false);
        check("!", "?", false);
    }

    #[test]
    fn similarity_counts_shared_shingles() {
        let text = "one two three four five six seven eight nine ten";
        assert_eq!(jaccard(&shingles(text), &shingles(text)), 1.0);
        // Six shingles each; the last word is in one of them.
        let other = text.replace("ten", "zehn");
        assert_eq!(jaccard(&shingles(text), &shingles(&other)), 5.0 / 7.0);
        assert_eq!(jaccard(&shingles(text), &shingles("")), 0.0);
        assert_eq!(jaccard(&[], &[]), 1.0);
    }

    #[test]
    fn similar_texts_share_bands_and_others_do_not() {
        let words: Vec<String> = (0..200).map(|n| format!("word{n}")).collect();
        let text = words.join(" ");
        let light = text.replace("word50 ", "").replace("word120 ", "other ");
        let shared = |left: &str, right: &str| {
            let (left, right) = (Fingerprint::of(left).bands, Fingerprint::of(right).bands);
            left.iter().zip(right).filter(|(left, right)| **left == *right).count()
        };
        assert_eq!(shared(&text, &text), BANDS);
        assert!(shared(&text, &light) >= 3);
        assert_eq!(shared(&text, &text.replace("word", "mot")), 0);
    }
}
