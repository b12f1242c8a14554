//! From text to scores, fast: a hash table of features, and a cache of chunks.
//!
//! Most words of a text have stood in it before. The scores of a chunk are kept, so that a text costs one hash and 38
//! additions a word, and only new words are taken apart. The cache changes the speed and never a number.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::features::{chunk_features, chunks};
use super::model::{LABEL_COUNT, Model, Parameters};

/// Labels, rounded up to whole vectors.
const LANES: usize = 40;

/// Longest chunk that is kept, in bytes: 99 % of the words of the 24 languages are shorter.
const CACHED_BYTES: usize = 31;

/// Chunks that are kept: 114 bytes each, a quarter of a core's second-level cache.
const CACHE_SLOTS: usize = 1 << 12;

/// What a text scored.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Sum of the weights for each label, in steps.
    pub steps: [u64; LABEL_COUNT],
    /// Letters of the text.
    pub letters: u64,
}

/// A model laid out for look-ups.
pub struct Scorer {
    /// Tells the rows that the cache keeps of one scorer from those of another.
    identity: u64,
    pub parameters: Parameters,
    /// Open addressing: key and position of the row; a position of 0 is an empty slot.
    slots: Vec<(u32, u32)>,
    /// Slots are found by the upper bits of the key.
    shift: u32,
    /// Rows one after the other: number of entries, then the entries.
    rows: Vec<(u8, u8)>,
}

impl Scorer {
    pub fn new(model: Model) -> Scorer {
        let slot_count = (2 * model.features.len()).next_power_of_two().max(16);
        static NEXT_IDENTITY: AtomicU64 = AtomicU64::new(1);
        let mut scorer = Scorer {
            identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed),
            parameters: model.parameters,
            slots: vec![(0, 0); slot_count],
            shift: 32 - slot_count.trailing_zeros().min(31),
            rows: vec![(0, 0)],
        };
        for (key, entries) in model.features {
            let mut slot = scorer.first_slot(key);
            while scorer.slots[slot].1 != 0 {
                slot = (slot + 1) % scorer.slots.len();
            }
            scorer.slots[slot] = (key, scorer.rows.len() as u32);
            scorer.rows.push((entries.len() as u8, 0));
            scorer.rows.extend(entries);
        }
        scorer
    }

    /// Scores of a text.
    pub fn score(&self, text: &str) -> Scores {
        CACHE.with_borrow_mut(|cache| {
            cache.belong_to(self);
            let mut sum = Sum::default();
            for chunk in chunks(text) {
                if chunk.len() <= CACHED_BYTES {
                    sum.add(cache.row_of(chunk, self));
                } else {
                    self.score_long(chunk, &mut sum);
                }
            }
            sum.finish()
        })
    }

    /// A chunk that is too long to keep: longer than the narrow sums of a cached row may hold.
    fn score_long(&self, chunk: &str, sum: &mut Sum) {
        let steps = &mut sum.steps;
        let letters = chunk_features(chunk, &mut Vec::new(), &mut |key| {
            for (label, weight) in self.row(key) {
                steps[usize::from(*label)] += u64::from(*weight);
            }
        });
        sum.letters += letters as u64;
    }

    fn first_slot(&self, key: u32) -> usize {
        (key >> self.shift) as usize
    }

    /// Weights of a feature.
    fn row(&self, key: u32) -> &[(u8, u8)] {
        let mut slot = self.first_slot(key);
        loop {
            let (found, position) = self.slots[slot];
            let position = position as usize;
            if position == 0 {
                return &[];
            }
            if found == key {
                let count = usize::from(self.rows[position].0);
                return &self.rows[position + 1..=position + count];
            }
            slot = (slot + 1) % self.slots.len();
        }
    }
}

/// Sums over the chunks of a text: narrow lanes that the compiler turns into vectors, emptied before they overflow.
struct Sum {
    narrow: [u32; LANES],
    /// Chunks since the narrow sums were emptied.
    pending: u32,
    steps: [u64; LABEL_COUNT],
    letters: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Sum { narrow: [0; LANES], pending: 0, steps: [0; LABEL_COUNT], letters: 0 }
    }
}

impl Sum {
    fn add(&mut self, row: &CachedRow) {
        for (sum, steps) in self.narrow.iter_mut().zip(&row.steps) {
            *sum += u32::from(*steps);
        }
        self.letters += u64::from(row.letters);
        self.pending += 1;
        // 2¹⁶ rows of 16 bits fill 32 bits.
        if self.pending == 1 << 16 {
            self.empty();
        }
    }

    fn empty(&mut self) {
        for (steps, narrow) in self.steps.iter_mut().zip(&mut self.narrow) {
            *steps += u64::from(std::mem::take(narrow));
        }
        self.pending = 0;
    }

    fn finish(mut self) -> Scores {
        self.empty();
        Scores { steps: self.steps, letters: self.letters }
    }
}

/// Scores of one chunk.
#[derive(Clone)]
struct CachedRow {
    /// The chunk's bytes; the last byte is its length.
    chunk: [u8; CACHED_BYTES + 1],
    /// At most 31 letters with 6 features each, of at most 31 steps, stay far below 2¹⁶.
    steps: [u16; LANES],
    letters: u16,
}

struct Cache {
    /// The scorer that the rows belong to; 0 for none.
    owner: u64,
    rows: Vec<CachedRow>,
    word: Vec<char>,
}

thread_local! {
    static CACHE: RefCell<Cache> = const { RefCell::new(Cache { owner: 0, rows: Vec::new(), word: Vec::new() }) };
}

impl Cache {
    /// Forgets the rows of another scorer.
    fn belong_to(&mut self, scorer: &Scorer) {
        if self.owner != scorer.identity {
            self.owner = scorer.identity;
            let empty = CachedRow { chunk: [0; CACHED_BYTES + 1], steps: [0; LANES], letters: 0 };
            self.rows = vec![empty; CACHE_SLOTS];
        }
    }

    fn row_of(&mut self, chunk: &str, scorer: &Scorer) -> &CachedRow {
        let mut padded = [0; CACHED_BYTES + 1];
        padded[..chunk.len()].copy_from_slice(chunk.as_bytes());
        padded[CACHED_BYTES] = chunk.len() as u8;
        let row = &mut self.rows[slot_of(&padded)];
        if row.chunk != padded {
            row.chunk = padded;
            let mut steps = [0u16; LANES];
            let letters = chunk_features(chunk, &mut self.word, &mut |key| {
                for (label, weight) in scorer.row(key) {
                    steps[usize::from(*label)] += u16::from(*weight);
                }
            });
            row.steps = steps;
            row.letters = letters as u16;
        }
        row
    }
}

/// Where a chunk is kept.
fn slot_of(padded: &[u8; CACHED_BYTES + 1]) -> usize {
    let (words, _) = padded.as_chunks::<8>();
    let hash = words.iter().fold(0u64, |hash, word| {
        (hash.rotate_left(5) ^ u64::from_le_bytes(*word)).wrapping_mul(0x517C_C1B7_2722_0A95)
    });
    (hash >> 52) as usize
}
