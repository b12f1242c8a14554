//! The other comparisons: n-gram models over bytes, the best that statistics without learning give.
//!
//! Two smoothings, both interpolated (Chen and Goodman 1999): Witten-Bell, in which a context that has been followed by
//! many different bytes trusts shorter contexts more, and modified Kneser-Ney, in which a shorter context counts in how
//! many longer ones a byte followed it, not how often. One model is trained on the text of all languages together, as
//! the neural model is.
//!
//! On the bundled sample (24 languages, 423 KB to learn from, 75 KB held out), mean bits per byte by bytes of context:
//! Witten-Bell 3.40 with 3, 3.41 with 4, 3.54 with 5; Kneser-Ney 3.22 with 4, 3.17 with 5, 3.18 with 6. Hence a 5-gram of
//! the first (4 bytes of context), which is the customary comparison, and 5 bytes of context for the second, which is the
//! strong one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What stands before a document: a line end, as before a paragraph.
const OPENING: u8 = b'\n';

/// Most bytes of context that a key has room for.
const LONGEST_CONTEXT: usize = 5;

/// How a model makes up for what it has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Smoothing {
    WittenBell,
    KneserNey,
}

/// Counts of bytes after contexts of 0 to `longest` bytes.
pub(crate) struct NgramModel {
    smoothing: Smoothing,
    longest: usize,
    contexts: HashMap<u64, Context, KeyHash>,
    /// Occurrences of a context with the byte behind it.
    follows: HashMap<u64, u32, KeyHash>,
    /// Kneser-Ney's discounts by length of the context, for counts of 1, 2 and more.
    discounts: [[f64; 3]; LONGEST_CONTEXT + 1],
}

#[derive(Clone, Copy, Default)]
struct Context {
    /// Bytes counted after it.
    total: u32,
    /// Different bytes that were counted once, twice, more often.
    kinds: [u32; 3],
}

impl NgramModel {
    /// A model that has learned the documents, with up to `longest` bytes of context (at most 5).
    pub fn learned<'a>(
        smoothing: Smoothing,
        longest: usize,
        documents: impl Iterator<Item = &'a [u8]>,
    ) -> NgramModel {
        assert!(longest <= LONGEST_CONTEXT, "a key has room for {LONGEST_CONTEXT} bytes of context");
        let mut model = NgramModel {
            smoothing,
            longest,
            contexts: HashMap::default(),
            follows: HashMap::default(),
            discounts: [[0.0; 3]; LONGEST_CONTEXT + 1],
        };
        for document in documents {
            model.count(document);
        }
        model.discounts = model.estimate_discounts();
        model
    }

    fn count(&mut self, text: &[u8]) {
        let mut history = History::default();
        for &byte in text {
            for length in (0..=self.longest.min(history.length)).rev() {
                let key = history.key(length);
                let context = self.contexts.entry(key).or_default();
                let count = self.follows.entry(extended(key, byte)).or_default();
                let seen_before = *count > 0;
                if seen_before {
                    context.kinds[kind(*count)] -= 1;
                }
                *count += 1;
                context.kinds[kind(*count)] += 1;
                context.total += 1;
                // To Kneser-Ney, a byte that has followed this context before is no news to the shorter ones.
                if seen_before && self.smoothing == Smoothing::KneserNey {
                    break;
                }
            }
            history.push(byte);
        }
    }

    /// Discounts from how many n-grams occur once, twice, three and four times (Chen and Goodman 1999, equation 26).
    fn estimate_discounts(&self) -> [[f64; 3]; LONGEST_CONTEXT + 1] {
        let mut occurring = [[0u64; 5]; LONGEST_CONTEXT + 1];
        for (key, count) in &self.follows {
            occurring[context_length(*key)][(*count as usize).min(4)] += 1;
        }
        occurring.map(|occurring| {
            let [_, once, twice, thrice, four_times] = occurring.map(|count| count as f64);
            let share = once / (once + 2.0 * twice);
            let discounts = [
                1.0 - 2.0 * share * twice / once,
                2.0 - 3.0 * share * thrice / twice,
                3.0 - 4.0 * share * four_times / thrice,
            ];
            let mut usual = 0.0;
            discounts.map(|discount| {
                usual += 0.5;
                // Too little text for the formula: half a count, a whole one, one and a half.
                if discount.is_finite() && discount > 0.0 && discount < 2.0 * usual {
                    discount
                } else {
                    usual
                }
            })
        })
    }

    /// Bits that a document needs, given what was learned.
    pub fn bits(&self, text: &[u8]) -> f64 {
        let mut history = History::default();
        let mut bits = 0.0;
        for &byte in text {
            bits -= self.probability(&history, byte).log2();
            history.push(byte);
        }
        bits
    }

    fn probability(&self, history: &History, byte: u8) -> f64 {
        let mut probability = 1.0 / 256.0;
        for length in 0..=self.longest.min(history.length) {
            let key = history.key(length);
            let Some(context) = self.contexts.get(&key) else { break };
            let count = self.follows.get(&extended(key, byte)).copied().unwrap_or(0);
            let (total, kinds) = (f64::from(context.total), context.kinds.map(f64::from));
            probability = match self.smoothing {
                Smoothing::WittenBell => {
                    let distinct: f64 = kinds.iter().sum();
                    (f64::from(count) + distinct * probability) / (total + distinct)
                }
                Smoothing::KneserNey => {
                    let discounts = self.discounts[length];
                    let kept = if count == 0 { 0.0 } else { f64::from(count) - discounts[kind(count)] };
                    let freed: f64 =
                        kinds.iter().zip(discounts).map(|(kinds, discount)| kinds * discount).sum();
                    (kept + freed * probability) / total
                }
            };
        }
        probability
    }
}

/// 0 for what was counted once, 1 for twice, 2 for more.
fn kind(count: u32) -> usize {
    count.min(3) as usize - 1
}

/// The last bytes, newest lowest.
struct History {
    bytes: u64,
    length: usize,
}

impl Default for History {
    fn default() -> Self {
        History { bytes: u64::from(OPENING), length: 1 }
    }
}

impl History {
    fn push(&mut self, byte: u8) {
        self.bytes = (self.bytes << 8) | u64::from(byte);
        self.length = (self.length + 1).min(LONGEST_CONTEXT);
    }

    /// The last `length` bytes with their number: 5 bytes and 3 bits.
    fn key(&self, length: usize) -> u64 {
        let mask = (1u64 << (8 * length)) - 1;
        ((self.bytes & mask) << 3) | length as u64
    }
}

/// A context's key with the byte behind it: 51 bits.
fn extended(key: u64, byte: u8) -> u64 {
    (key << 8) | u64::from(byte)
}

/// Bytes of context of such a key.
fn context_length(extended: u64) -> usize {
    (extended >> 8 & 7) as usize
}

/// One multiplication and a fold; keys are our own, so nobody can aim at collisions.
#[derive(Default)]
struct KeyHasher(u64);

type KeyHash = BuildHasherDefault<KeyHasher>;

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(smoothing: Smoothing, text: &str) -> NgramModel {
        NgramModel::learned(smoothing, 5, [text.as_bytes()].into_iter())
    }

    #[test]
    fn probabilities_sum_to_one() {
        for smoothing in [Smoothing::WittenBell, Smoothing::KneserNey] {
            for text in
                ["", "a", "ċavetta, ħobż, γάτα, котка, ő ű, ħobż, ħobż, котка, γάτα, aaaaaaaaaaaaaaaaaaaaab"]
            {
                let model = model(smoothing, text);
                for history in ["", "ħ", "γάτ", "aaaa", "never seen"] {
                    let mut before = History::default();
                    history.bytes().for_each(|byte| before.push(byte));
                    let probabilities = (0..=255).map(|byte| model.probability(&before, byte));
                    assert!(probabilities.clone().all(|probability| probability > 0.0));
                    let sum: f64 = probabilities.sum();
                    assert!((sum - 1.0).abs() < 1e-12, "{smoothing:?} {history}: {sum}");
                }
            }
        }
    }

    #[test]
    fn an_untrained_model_needs_8_bits_a_byte() {
        assert_eq!(model(Smoothing::WittenBell, "").bits("szőlő".as_bytes()), 56.0);
        assert_eq!(model(Smoothing::KneserNey, "").bits("szőlő".as_bytes()), 56.0);
    }

    #[test]
    fn witten_bell_by_hand() {
        // After no context: a twice, b once, two kinds of three. After "\n": a once. "\n" is never followed by b.
        let order_0 = |count: f64| (count + 2.0 / 256.0) / 5.0;
        let expected = (1.0 + order_0(2.0)) / 2.0;
        let found = model(Smoothing::WittenBell, "aab").probability(&History::default(), b'a');
        assert!((found - expected).abs() < 1e-15, "{found} {expected}");
    }

    #[test]
    fn kneser_ney_counts_contexts_and_not_occurrences() {
        // "u" stands behind "q" alone, however often; "e" behind three different letters.
        let model = model(Smoothing::KneserNey, "qu qu qu qu qu te re se");
        let mut unseen = History::default();
        unseen.push(b'z');
        assert!(model.probability(&unseen, b'e') > model.probability(&unseen, b'u'));
    }
}
