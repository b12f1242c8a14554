//! From text to scores, fast: a hash table of features, and a cache of chunks.
//!
//! Most words of a text have stood in it before. The scores of a chunk are kept, so that a text costs one hash and 38
//! additions a word, and only new words are taken apart. The cache changes the speed and never a number.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::features::{chunk_features, chunks};
use super::model::{Entry, LABEL_COUNT, Model, Parameters};

/// Labels, rounded up to whole vectors.
const LANES: usize = 40;

/// Longest chunk that is kept, in bytes: 99 % of the words of the 24 languages are shorter.
const CACHED_BYTES: usize = 31;

/// Chunks that are kept: 114 bytes each, half of a core's second-level cache.
const CACHE_SLOTS: usize = 1 << 13;

/// What a text scored.
#[derive(Clone, Debug)]
pub struct Scores {
    /// Sum of the weights for each label, in steps.
    pub steps: [u64; LABEL_COUNT],
    /// Letters of the text.
    pub letters: u64,
}

/// A model laid out for look-ups, in as few cache lines as possible: it is waiting for memory that takes the time.
pub struct Scorer {
    /// Tells the rows that the cache keeps of one scorer from those of another.
    identity: u64,
    pub parameters: Parameters,
    /// Open addressing, found by the upper bits of a feature's key.
    slots: Vec<Slot>,
    shift: u32,
    /// Rows one after the other. A short one is one or two blocks of four entries, label before weight; a full one, for
    /// features of more than eight labels, is five blocks with the weights of all labels.
    blocks: Vec<Block>,
}

type Block = [u8; 8];

/// Fills a short row up: adds 0 to the last lane.
const UNUSED: Entry = (LANES as u8 - 1, 0);
const EMPTY_BLOCK: Block = [UNUSED.0, UNUSED.1, UNUSED.0, UNUSED.1, UNUSED.0, UNUSED.1, UNUSED.0, UNUSED.1];

/// Where a feature's row is: low bits of its key to know it by (11), kind of row (2), position (19). 0 is empty.
///
/// Eleven bits take one unknown n-gram of some thousand for a known one, which no score notices, and make the table
/// half as large as whole keys would.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Slot(u32);

const TAG_BITS: u32 = 11;
const KIND_BITS: u32 = 2;
const MOST_BLOCKS: usize = 1 << (32 - TAG_BITS - KIND_BITS);

const ONE_BLOCK: u32 = 1;
const TWO_BLOCKS: u32 = 2;
const FULL_ROW: u32 = 3;

impl Slot {
    fn new(key: u32, kind: u32, position: usize) -> Slot {
        let tag = key & ((1 << TAG_BITS) - 1);
        Slot((position as u32) << (TAG_BITS + KIND_BITS) | kind << TAG_BITS | tag)
    }

    fn holds(self, key: u32) -> bool {
        (self.0 ^ key) & ((1 << TAG_BITS) - 1) == 0
    }

    fn kind(self) -> u32 {
        self.0 >> TAG_BITS & ((1 << KIND_BITS) - 1)
    }

    fn position(self) -> usize {
        (self.0 >> (TAG_BITS + KIND_BITS)) as usize
    }
}

impl Scorer {
    /// Lays out a model. The error says that it has more features than the layout can hold.
    pub fn new(model: Model) -> Result<Scorer, String> {
        static NEXT_IDENTITY: AtomicU64 = AtomicU64::new(1);
        let slot_count = (3 * model.features.len() / 2).next_power_of_two().max(1 << TAG_BITS);
        let mut scorer = Scorer {
            identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed),
            parameters: model.parameters,
            slots: vec![Slot::default(); slot_count],
            shift: 32 - slot_count.trailing_zeros().min(31),
            // Unknown features point to the first block.
            blocks: vec![EMPTY_BLOCK],
        };
        for (key, entries) in model.features {
            let new = scorer.store(key, &entries);
            let mut slot = scorer.first_slot(key);
            while scorer.slots[slot] != Slot::default() {
                slot = scorer.next_slot(slot);
            }
            scorer.slots[slot] = new;
        }
        if scorer.blocks.len() > MOST_BLOCKS {
            return Err(format!(
                "the identifier has more than {MOST_BLOCKS} blocks of weights; leave out rare features"
            ));
        }
        Ok(scorer)
    }

    fn store(&mut self, key: u32, entries: &[Entry]) -> Slot {
        let position = self.blocks.len();
        if entries.len() > 8 {
            self.blocks.resize(position + LANES / 8, [0; 8]);
            let row = self.blocks[position..].as_flattened_mut();
            for (label, weight) in entries {
                row[usize::from(*label)] = *weight;
            }
            return Slot::new(key, FULL_ROW, position);
        }
        for entries in entries.chunks(4) {
            let mut block = EMPTY_BLOCK;
            for (place, (label, weight)) in block.chunks_exact_mut(2).zip(entries) {
                place.copy_from_slice(&[*label, *weight]);
            }
            self.blocks.push(block);
        }
        Slot::new(key, if entries.len() > 4 { TWO_BLOCKS } else { ONE_BLOCK }, position)
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
                    self.score_long(chunk, &mut cache.scratch, &mut sum);
                }
            }
            sum.finish()
        })
    }

    /// A chunk that is too long to keep, in pieces that the narrow sums of a row can hold.
    fn score_long(&self, chunk: &str, scratch: &mut Scratch, sum: &mut Sum) {
        scratch.keys.clear();
        let letters = chunk_features(chunk, &mut scratch.word, &mut |key| scratch.keys.push(key));
        for keys in scratch.keys.chunks(1 << 11) {
            scratch.found.clear();
            let mut row = CachedRow::EMPTY;
            self.add(keys, &mut scratch.found, &mut row.steps);
            sum.add(&row);
        }
        sum.letters += letters as u64;
    }

    /// Adds the rows of some features: at most 2¹¹, of at most 31 steps each.
    ///
    /// First all slots are read, then the start of every row, then the rows are added: so the processor waits for many
    /// of them at a time, and not for one after the other.
    fn add(&self, keys: &[u32], found: &mut Vec<Slot>, steps: &mut [u16; LANES]) {
        found.extend(keys.iter().map(|key| self.slot_of(*key)));
        let touched = found.iter().fold(0u8, |touched, slot| touched | self.blocks[slot.position()][0]);
        std::hint::black_box(touched);
        // Full rows by themselves: their sums then stay in vector registers.
        let mut sums = [0u16; LANES];
        for slot in found.iter().filter(|slot| slot.kind() == FULL_ROW) {
            let row = self.blocks[slot.position()..].as_flattened();
            if let Some(row) = row.first_chunk::<LANES>() {
                for (sum, weight) in sums.iter_mut().zip(row) {
                    *sum += u16::from(*weight);
                }
            }
        }
        for (steps, sum) in steps.iter_mut().zip(sums) {
            *steps += sum;
        }
        for slot in found.iter() {
            let position = slot.position();
            match slot.kind() {
                ONE_BLOCK => add_entries(&self.blocks[position], steps),
                TWO_BLOCKS => {
                    add_entries(&self.blocks[position], steps);
                    add_entries(&self.blocks[position + 1], steps);
                }
                _ => {}
            }
        }
    }

    fn first_slot(&self, key: u32) -> usize {
        (key >> self.shift) as usize
    }

    /// The number of slots is a power of two.
    fn next_slot(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }

    /// The slot that holds a feature, or an empty one.
    fn slot_of(&self, key: u32) -> Slot {
        let mut position = self.first_slot(key);
        loop {
            let slot = self.slots[position];
            if slot == Slot::default() || slot.holds(key) {
                return slot;
            }
            position = self.next_slot(position);
        }
    }
}

fn add_entries(block: &Block, steps: &mut [u16; LANES]) {
    for entry in block.as_chunks::<2>().0 {
        let [label, weight] = *entry;
        steps[usize::from(label).min(LANES - 1)] += u16::from(weight);
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
    /// At most 31 letters with 4 features each, of at most 31 steps, stay far below 2¹⁶.
    steps: [u16; LANES],
    letters: u16,
}

impl CachedRow {
    const EMPTY: CachedRow = CachedRow { chunk: [0; CACHED_BYTES + 1], steps: [0; LANES], letters: 0 };
}

struct Cache {
    /// The scorer that the rows belong to; 0 for none.
    owner: u64,
    rows: Vec<CachedRow>,
    scratch: Scratch,
}

/// Buffers that are used again and again.
struct Scratch {
    word: Vec<char>,
    keys: Vec<u32>,
    found: Vec<Slot>,
}

thread_local! {
    static CACHE: RefCell<Cache> = const {
        let scratch = Scratch { word: Vec::new(), keys: Vec::new(), found: Vec::new() };
        RefCell::new(Cache { owner: 0, rows: Vec::new(), scratch })
    };
}

impl Cache {
    /// Forgets the rows of another scorer.
    fn belong_to(&mut self, scorer: &Scorer) {
        if self.owner != scorer.identity {
            self.owner = scorer.identity;
            self.rows = vec![CachedRow::EMPTY; CACHE_SLOTS];
        }
    }

    fn row_of(&mut self, chunk: &str, scorer: &Scorer) -> &CachedRow {
        let mut padded = [0; CACHED_BYTES + 1];
        padded[..chunk.len()].copy_from_slice(chunk.as_bytes());
        padded[CACHED_BYTES] = chunk.len() as u8;
        let row = &mut self.rows[slot_of(&padded)];
        if row.chunk != padded {
            let scratch = &mut self.scratch;
            scratch.keys.clear();
            scratch.found.clear();
            let letters = chunk_features(chunk, &mut scratch.word, &mut |key| scratch.keys.push(key));
            *row = CachedRow { chunk: padded, steps: [0; LANES], letters: letters as u16 };
            scorer.add(&scratch.keys, &mut scratch.found, &mut row.steps);
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
    (hash >> (64 - CACHE_SLOTS.trailing_zeros())) as usize
}
