//! Learning merges: byte pair encoding (Sennrich, Haddow and Birch 2016) over counted pieces.
//!
//! The pair that occurs most often becomes a token, again and again. Pair counts are kept up to date while pieces are
//! rewritten, and a heap with lazy deletion finds the next pair, so that a merge costs only the pieces that hold it.
//! Equal counts are decided by the ids of the pair, the smaller first: the result is a function of the counts alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use provenance::{Cancelled, Context};

use crate::SPECIAL_TOKENS;
use crate::settings::FIRST_MERGE_ID;

/// Two tokens that become one.
pub(crate) type Merge = (u32, u32);

/// What training gives: the merges in order, and each piece in the tokens that they leave of it.
pub(crate) struct Learned {
    pub merges: Vec<Merge>,
    /// Tokens of each piece, in the order in which the pieces were given.
    pub token_counts: Vec<u32>,
}

/// Learns up to `wanted` merges from pieces of bytes with their weights. Fewer when no pair is left.
pub(crate) fn learn<'a>(
    pieces: impl Iterator<Item = (&'a [u8], u64)>,
    wanted: usize,
    context: &Context,
) -> Result<Learned, Cancelled> {
    let mut trainer = Trainer::new(pieces);
    let mut merges = Vec::with_capacity(wanted);
    while merges.len() < wanted {
        if merges.len().is_multiple_of(64) {
            context.cancellation.check()?;
        }
        let Some(merge) = trainer.most_frequent() else { break };
        trainer.merge(merge, FIRST_MERGE_ID + merges.len() as u32);
        merges.push(merge);
        context.progress.advance(1);
    }
    Ok(Learned { merges, token_counts: trainer.lengths })
}

/// The id of a byte: bytes follow the special tokens.
pub(crate) fn byte_id(byte: u8) -> u32 {
    SPECIAL_TOKENS.len() as u32 + u32::from(byte)
}

struct Trainer {
    /// Tokens of all pieces, one after the other; a piece shrinks within its place.
    tokens: Vec<u32>,
    /// Where each piece starts in `tokens`.
    starts: Vec<usize>,
    /// Tokens that each piece has now.
    lengths: Vec<u32>,
    weights: Vec<u64>,
    pairs: HashMap<Merge, Pair, PairHash>,
    /// Candidates; an entry whose count is no longer true is put back with the true one when it comes up.
    heap: BinaryHeap<(u64, Reverse<Merge>)>,
}

#[derive(Default)]
struct Pair {
    weight: u64,
    /// Pieces that held the pair when it was noted; some may have lost it since.
    pieces: Vec<u32>,
}

impl Trainer {
    fn new<'a>(pieces: impl Iterator<Item = (&'a [u8], u64)>) -> Trainer {
        let mut trainer = Trainer {
            tokens: Vec::new(),
            starts: Vec::new(),
            lengths: Vec::new(),
            weights: Vec::new(),
            pairs: HashMap::default(),
            heap: BinaryHeap::new(),
        };
        for (bytes, weight) in pieces {
            let index = trainer.starts.len() as u32;
            trainer.starts.push(trainer.tokens.len());
            trainer.lengths.push(bytes.len() as u32);
            trainer.weights.push(weight);
            trainer.tokens.extend(bytes.iter().map(|byte| byte_id(*byte)));
            for pair in bytes.windows(2) {
                let pair = trainer.pairs.entry((byte_id(pair[0]), byte_id(pair[1]))).or_default();
                pair.weight += weight;
                if pair.pieces.last() != Some(&index) {
                    pair.pieces.push(index);
                }
            }
        }
        trainer.heap = trainer.pairs.iter().map(|(merge, pair)| (pair.weight, Reverse(*merge))).collect();
        trainer
    }

    /// The pair with the greatest weight, the smallest ids among equals.
    fn most_frequent(&mut self) -> Option<Merge> {
        while let Some((weight, Reverse(merge))) = self.heap.pop() {
            let current = self.pairs.get(&merge).map_or(0, |pair| pair.weight);
            if current == weight {
                return Some(merge);
            }
            // Weights of noted pairs only fall, so the true entry belongs further down.
            if current > 0 {
                self.heap.push((current, Reverse(merge)));
            }
        }
        None
    }

    /// Replaces the pair by one token in every piece that holds it.
    fn merge(&mut self, (left, right): Merge, merged: u32) {
        let Some(pair) = self.pairs.remove(&(left, right)) else { return };
        let mut noted: Vec<Merge> = Vec::new();
        for index in pair.pieces {
            let start = self.starts[index as usize];
            let length = self.lengths[index as usize] as usize;
            let weight = self.weights[index as usize];
            let tokens = &mut self.tokens[start..start + length];
            let (mut read, mut write) = (0, 0);
            while read < length {
                if read + 1 < length && tokens[read] == left && tokens[read + 1] == right {
                    if write > 0 {
                        let before = tokens[write - 1];
                        lower(&mut self.pairs, (before, left), weight);
                        raise(&mut self.pairs, (before, merged), weight, index, &mut noted);
                    }
                    if read + 2 < length {
                        let after = tokens[read + 2];
                        lower(&mut self.pairs, (right, after), weight);
                        // The next occurrence, if it follows at once, will lower this pair and note its own.
                        raise(&mut self.pairs, (merged, after), weight, index, &mut noted);
                    }
                    tokens[write] = merged;
                    read += 2;
                } else {
                    tokens[write] = tokens[read];
                    read += 1;
                }
                write += 1;
            }
            self.lengths[index as usize] = write as u32;
        }
        noted.sort_unstable();
        noted.dedup();
        for merge in noted {
            if let Some(pair) = self.pairs.get(&merge).filter(|pair| pair.weight > 0) {
                self.heap.push((pair.weight, Reverse(merge)));
            }
        }
    }
}

fn lower(pairs: &mut HashMap<Merge, Pair, PairHash>, merge: Merge, weight: u64) {
    if let Some(pair) = pairs.get_mut(&merge) {
        pair.weight -= weight;
        if pair.weight == 0 {
            pairs.remove(&merge);
        }
    }
}

fn raise(
    pairs: &mut HashMap<Merge, Pair, PairHash>,
    merge: Merge,
    weight: u64,
    index: u32,
    noted: &mut Vec<Merge>,
) {
    let pair = pairs.entry(merge).or_default();
    pair.weight += weight;
    if pair.pieces.last() != Some(&index) {
        pair.pieces.push(index);
    }
    if noted.last() != Some(&merge) {
        noted.push(merge);
    }
}

/// Hash of a pair of ids: one multiplication (after Fibonacci hashing) and a fold. The standard hash, made to withstand
/// hostile keys, takes half of the training time; here the keys are our own.
#[derive(Default)]
struct PairHasher(u64);

type PairHash = BuildHasherDefault<PairHasher>;

impl Hasher for PairHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        let mixed = (self.0.rotate_left(32) ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 29);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The definition: recount everything for each merge.
    fn learn_slowly(pieces: &[(&str, u64)], wanted: usize) -> (Vec<Merge>, Vec<u32>) {
        let mut tokens: Vec<Vec<u32>> =
            pieces.iter().map(|(text, _)| text.bytes().map(byte_id).collect()).collect();
        let mut merges = Vec::new();
        while merges.len() < wanted {
            let mut counts: BTreeMap<Merge, u64> = BTreeMap::new();
            for (tokens, (_, weight)) in tokens.iter().zip(pieces) {
                for pair in tokens.windows(2) {
                    *counts.entry((pair[0], pair[1])).or_default() += weight;
                }
            }
            let Some((&merge, _)) = counts.iter().max_by_key(|(merge, count)| (**count, Reverse(**merge)))
            else {
                break;
            };
            let merged = FIRST_MERGE_ID + merges.len() as u32;
            for tokens in &mut tokens {
                let mut position = 0;
                while position + 1 < tokens.len() {
                    if (tokens[position], tokens[position + 1]) == merge {
                        tokens.splice(position..position + 2, [merged]);
                    }
                    position += 1;
                }
            }
            merges.push(merge);
        }
        (merges, tokens.iter().map(|tokens| tokens.len() as u32).collect())
    }

    #[test]
    fn incremental_counts_give_the_merges_of_the_definition() {
        let check = |pieces: &[(&str, u64)]| {
            let input = pieces.iter().map(|(text, weight)| (text.as_bytes(), *weight));
            let learned = learn(input, 60, &Context::quiet(1)).unwrap();
            assert_eq!((learned.merges, learned.token_counts), learn_slowly(pieces, 60), "{pieces:?}");
        };
        check(&[]);
        check(&[("a", 1)]);
        check(&[("aaaaaaa", 3), ("aaab", 2), ("baaa", 2), ("aabaa", 1)]);
        check(&[("abababab", 1), ("babab", 5), ("abcabc", 2), ("cab", 3)]);
        check(&[(" għandu", 7), (" għall", 9), ("ħobż", 2), (" ħażin", 4), (" għażla", 4)]);
        check(&[
            ("και", 9),
            (" είναι", 4),
            (" και", 3),
            ("καιρός", 1),
            ("ще", 4),
            (" още", 4),
            ("щещеще", 2),
        ]);
    }
}
