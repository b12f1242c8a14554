//! The second comparison: an n-gram model over bytes, the best that statistics without learning give.
//!
//! Interpolated Witten-Bell smoothing (Witten and Bell 1991; Chen and Goodman 1999, section 2.6): a context that has
//! been followed by many different bytes trusts shorter contexts more. One model is trained on the text of all languages
//! together, as the neural model is.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Bytes of context: what "order 5" means for compressors. (A 5-gram in the language modeller's count has 4.)
const ORDER: usize = 5;

/// What stands before a document: a line end, as before a paragraph.
const OPENING: u8 = b'\n';

/// Counts of bytes after contexts of 0 to 5 bytes.
#[derive(Default)]
pub(crate) struct NgramModel {
    contexts: HashMap<u64, Context, KeyHash>,
    /// Occurrences of a context with the byte behind it.
    follows: HashMap<u64, u32, KeyHash>,
}

#[derive(Clone, Copy, Default)]
struct Context {
    /// Bytes seen after it.
    total: u32,
    /// Different bytes seen after it.
    distinct: u32,
}

impl NgramModel {
    /// Counts a document.
    pub fn learn(&mut self, text: &[u8]) {
        let mut history = History::default();
        for &byte in text {
            for length in 0..=history.length {
                let key = history.key(length);
                let context = self.contexts.entry(key).or_default();
                let count = self.follows.entry(extended(key, byte)).or_default();
                context.total += 1;
                context.distinct += u32::from(*count == 0);
                *count += 1;
            }
            history.push(byte);
        }
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
        for length in 0..=history.length {
            let key = history.key(length);
            let Some(context) = self.contexts.get(&key) else { break };
            let count = self.follows.get(&extended(key, byte)).copied().unwrap_or(0);
            let (total, distinct) = (f64::from(context.total), f64::from(context.distinct));
            probability = (f64::from(count) + distinct * probability) / (total + distinct);
        }
        probability
    }
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
        self.length = (self.length + 1).min(ORDER);
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

    #[test]
    fn probabilities_sum_to_one() {
        let mut model = NgramModel::default();
        model.learn("ċavetta, ħobż, γάτα, котка, ő ű".as_bytes());
        for history in ["", "ħ", "γάτ", "never seen"] {
            let mut before = History::default();
            history.bytes().for_each(|byte| before.push(byte));
            let sum: f64 = (0..=255).map(|byte| model.probability(&before, byte)).sum();
            assert!((sum - 1.0).abs() < 1e-12, "{history}: {sum}");
        }
    }

    #[test]
    fn an_untrained_model_needs_8_bits_a_byte() {
        assert_eq!(NgramModel::default().bits("szőlő".as_bytes()), 56.0);
    }

    #[test]
    fn witten_bell_by_hand() {
        let mut model = NgramModel::default();
        model.learn(b"aab");
        // After no context: a twice, b once, two kinds of three. After "\n": a once. "\n" is never followed by b.
        let order_0 = |count: f64| (count + 2.0 / 256.0) / 5.0;
        let expected = (1.0 + order_0(2.0)) / 2.0;
        let found = model.probability(&History::default(), b'a');
        assert!((found - expected).abs() < 1e-15, "{found} {expected}");
    }
}
