//! The weights of the features, laid out for look-ups in as few steps and as few cache lines as possible.
//!
//! A perfect hash: the upper bits of a hashed key choose a seed, the seed and the key choose the one line in which the
//! feature can stand, so that nothing has to be searched for and nothing branches. (Hash and displace: Belazzougui,
//! Botelho, Dietzfelbinger 2009.) A line holds the weights of all labels and a part of the key.
//!
//! The line of an n-gram holds the sum of its own weights and of those of the shorter n-grams that end it. So a letter
//! costs one line, that of the longest known n-gram which ends there, instead of three.

use super::features::{BLOCK, THREE_LETTERS, TWO_LETTERS, WORD_KEYS};
use super::model::{Entry, LABEL_COUNT, LARGEST_WEIGHT};

/// Labels, and two lanes more that fill a line.
pub(super) const LANES: usize = 40;

/// Half of a cache line: the weights of all labels for one feature, six bits each, ten to a word; and in the sixteen
/// highest bits, where the last two lanes would be, those of the key's hash to know it by. They take one unknown n-gram
/// of 65,536 for a known one, which no score notices.
#[derive(Clone, Copy, Default)]
#[repr(align(32))]
struct Line([u64; LANES / WORD_LANES]);

const WORD_LANES: usize = 10;
const LANE_BITS: usize = 6;
const HASH_SHIFT: u32 = 48;

/// An n-gram of four letters has its own weight and those of two shorter ones: six bits.
const MOST_WEIGHT: u8 = 3 * LARGEST_WEIGHT;

impl Line {
    fn new(hash: u64, weights: &[u8; LABEL_COUNT]) -> Line {
        let mut words = [0; LANES / WORD_LANES];
        for (lane, weight) in weights.iter().enumerate() {
            words[lane / WORD_LANES] |= u64::from(*weight) << (LANE_BITS * (lane % WORD_LANES));
        }
        words[LANES / WORD_LANES - 1] |= hash >> HASH_SHIFT << HASH_SHIFT;
        Line(words)
    }

    fn is_of(&self, hash: u64) -> bool {
        (self.0[LANES / WORD_LANES - 1] ^ hash) >> HASH_SHIFT == 0
    }
}

/// Sums of lines, lane by lane: those of even and of odd number apart, so that each has twelve bits of its word.
#[derive(Default)]
struct Sums {
    even: [u64; LANES / WORD_LANES],
    odd: [u64; LANES / WORD_LANES],
}

/// Lines whose sum fits into twelve bits: 64 × 63 = 4,032.
const SUMMED_LINES: usize = 64;

impl Sums {
    fn add(&mut self, line: &Line) {
        /// Every other lane.
        const LANES_OF_WORD: u64 = 0x003F_03F0_3F03_F03F;
        for ((word, even), odd) in line.0.iter().zip(&mut self.even).zip(&mut self.odd) {
            *even += word & LANES_OF_WORD;
            *odd += word >> LANE_BITS & LANES_OF_WORD;
        }
    }

    fn lane(&self, lane: usize) -> u16 {
        let (word, place) = (lane / WORD_LANES, lane % WORD_LANES);
        let sums = if place % 2 == 0 { self.even[word] } else { self.odd[word] };
        (sums >> (LANE_BITS * (place / 2 * 2)) & 0xFFF) as u16
    }
}

/// Three or four features a seed, so that all can be placed and the seeds stay near: 32 KiB.
type Seeds = [u16; 1 << SEED_BITS];
const SEED_BITS: u32 = 14;

/// All features.
pub(super) struct Table {
    /// By the upper bits of a hash.
    seeds: Box<Seeds>,
    lines: Vec<Line>,
}

/// Space for the lines of known features, and for the keys of unknown ones.
pub(super) struct Found {
    known: [u32; BLOCK],
    unknown: [u64; BLOCK],
}

impl Default for Found {
    fn default() -> Self {
        Found { known: [0; BLOCK], unknown: [0; BLOCK] }
    }
}

impl Table {
    /// Lays out features, sorted by keys that are all different. The error says what cannot be laid out.
    pub fn new(features: &[(u64, Vec<Entry>)]) -> Result<Table, String> {
        if !features.is_sorted_by(|left, right| left.0 < right.0) {
            return Err("the identifier's features are not sorted by their keys".to_owned());
        }
        let keys: Vec<u64> = features.iter().map(|(key, _)| *key).collect();
        // A ninth of the lines stays empty, so that places are found in milliseconds.
        let line_count = keys.len() + keys.len() / 8 + 16;
        let seeds = find_seeds(&keys, line_count).ok_or_else(|| {
            format!("the identifier has {} features, too many to lay out; leave out rare ones", keys.len())
        })?;
        let mut table = Table { seeds, lines: vec![Line::default(); line_count] };
        let mut sums: Vec<[u8; LABEL_COUNT]> = Vec::with_capacity(keys.len());
        for (key, entries) in features {
            // Shorter n-grams have the smaller keys: their sums stand there when a longer one asks.
            let ends = [key & THREE_LETTERS, key & TWO_LETTERS]
                .into_iter()
                .filter(|end| end < key && *key < WORD_KEYS);
            let longest = ends.filter_map(|end| keys[..sums.len()].binary_search(&end).ok()).next();
            let mut weights = longest.map_or([0; LABEL_COUNT], |longest| sums[longest]);
            for (label, weight) in entries {
                let sum = &mut weights[usize::from(*label)];
                *sum = sum.saturating_add(*weight).min(MOST_WEIGHT);
            }
            sums.push(weights);
            let hash = hash(*key);
            let place = table.place(hash);
            table.lines[place] = Line::new(hash, &weights);
        }
        Ok(table)
    }

    /// The weights of some features, at most [`BLOCK`]: each of the longest known n-gram that ends it, or of the word.
    ///
    /// First all lines are asked for, then they are added: so the processor waits for many of them at a time, and
    /// guesses no branch.
    pub fn weights(&self, keys: &[u64], found: &mut Found) -> [u16; LANES] {
        let Found { known, unknown } = found;
        let (mut known_count, mut unknown_count) = (0, 0);
        let mut look_up = |key: u64| {
            let hash = hash(key);
            let line = self.place(hash);
            let is_known = self.lines[line].is_of(hash);
            known[known_count] = line as u32;
            known_count += usize::from(is_known);
            is_known
        };
        for key in keys {
            unknown[unknown_count] = *key;
            unknown_count += usize::from(!look_up(*key) & (*key < WORD_KEYS));
        }
        // An n-gram that no longer one is left of was unknown before and is so again.
        let mut shorter_count = 0;
        for number in 0..unknown_count {
            let key = unknown[number] & THREE_LETTERS;
            unknown[shorter_count] = key;
            shorter_count += usize::from(!look_up(key));
        }
        for key in &unknown[..shorter_count] {
            look_up(key & TWO_LETTERS);
        }
        self.sum(&known[..known_count])
    }

    fn sum(&self, lines: &[u32]) -> [u16; LANES] {
        let mut total = [0; LANES];
        for lines in lines.chunks(SUMMED_LINES) {
            let mut sums = Sums::default();
            for line in lines {
                sums.add(&self.lines[*line as usize]);
            }
            for (lane, total) in total.iter_mut().enumerate() {
                *total += sums.lane(lane);
            }
        }
        total
    }

    /// The one line in which the key with this hash can stand.
    fn place(&self, hash: u64) -> usize {
        place(hash, self.seeds[(hash >> (64 - SEED_BITS)) as usize], self.lines.len())
    }
}

/// Multiplies and folds the two halves of the product.
fn hash(key: u64) -> u64 {
    let product = u128::from(key) * 0x9E37_79B9_7F4A_7C15;
    (product >> 64) as u64 ^ product as u64
}

fn place(hash: u64, seed: u16, line_count: usize) -> usize {
    let mixed = (hash as u32 ^ u32::from(seed).wrapping_mul(0x9E37_79B1)).wrapping_mul(0x85EB_CA6B);
    ((u64::from(mixed) * line_count as u64) >> 32) as usize
}

/// A seed for each upper part of a hash, such that no two keys share a line; the fullest parts choose first.
fn find_seeds(keys: &[u64], line_count: usize) -> Option<Box<Seeds>> {
    const SHIFT: u32 = 64 - SEED_BITS;
    let mut hashes: Vec<u64> = keys.iter().map(|key| hash(*key)).collect();
    hashes.sort_unstable();
    let mut buckets: Vec<&[u64]> = hashes.chunk_by(|left, right| left >> SHIFT == right >> SHIFT).collect();
    buckets.sort_by_key(|bucket| std::cmp::Reverse(bucket.len()));
    let mut seeds = Box::new([0; 1 << SEED_BITS]);
    let mut taken = vec![false; line_count];
    for bucket in buckets {
        let seed = (0..=u16::MAX).find(|seed| {
            for (number, hash) in bucket.iter().enumerate() {
                if std::mem::replace(&mut taken[place(*hash, *seed, line_count)], true) {
                    for hash in &bucket[..number] {
                        taken[place(*hash, *seed, line_count)] = false;
                    }
                    return false;
                }
            }
            true
        })?;
        seeds[(bucket[0] >> SHIFT) as usize] = seed;
    }
    Some(seeds)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::features::{Reader, features};
    use super::*;

    /// Every feature of a text, each with weights of its own.
    fn features_of(text: &str) -> BTreeMap<u64, Vec<Entry>> {
        let mut found = BTreeMap::new();
        features(text, |key| {
            let number = found.len();
            let entry = |label: usize| (label as u8, ((number + label) % LARGEST_WEIGHT as usize + 1) as u8);
            found.entry(key).or_insert_with(|| (0..number % LABEL_COUNT + 1).map(entry).collect());
        });
        found
    }

    #[test]
    fn a_text_weighs_what_its_features_weigh() {
        let text = "kelma ħobż għandna ωδίνειν όρος мъжът ръка a žy";
        let mut known = features_of(text);
        let check = |known: &BTreeMap<u64, Vec<Entry>>, text: &str| {
            let mut expected = [0u64; LANES];
            features(text, |key| {
                for (label, weight) in known.get(&key).into_iter().flatten() {
                    expected[usize::from(*label)] += u64::from(*weight);
                }
            });
            let table = Table::new(&known.clone().into_iter().collect::<Vec<_>>()).unwrap();
            let mut found = [0u64; LANES];
            let mut reader = Reader::new(text);
            let mut keys = [0; BLOCK];
            loop {
                let count = reader.read(&mut keys);
                if count == 0 {
                    break;
                }
                for (found, steps) in found
                    .iter_mut()
                    .zip(table.weights(&keys[..count], &mut Found::default()))
                    .take(LABEL_COUNT)
                {
                    *found += u64::from(steps);
                }
            }
            assert_eq!(found, expected, "{text}");
        };
        let long = format!("{text} {}", "għandna".repeat(100));
        for text in [text, "kelm għan ωδίνω žyže ab", &long, &"a".repeat(64), &"ħ".repeat(65), ""] {
            check(&known, text);
        }
        // Every third feature unknown: shorter n-grams stand in for longer ones.
        let mut number = 0;
        known.retain(|_, _| {
            number += 1;
            number % 3 != 0
        });
        check(&known, &long);
        check(&BTreeMap::new(), text);
    }

    #[test]
    fn features_out_of_order_are_refused() {
        assert!(Table::new(&[(7, vec![(0, 1)]), (7, vec![(1, 1)])]).is_err());
    }
}
