//! How much of a text stands in word n-grams that it repeats: Rae et al. 2021 (Gopher), table A1, as datatrove and
//! FineWeb-2 count it, for all nine lengths at about the cost of one.
//!
//! Two equal n-grams begin with equal (n−1)-grams and end with equal ones. So only positions whose (n−1)-gram is repeated,
//! and the next position's too, are looked at for n; in prose that leaves little after n = 3.

/// Lengths whose most frequent n-gram is measured, and those whose repeats are.
pub const TOP_WORDS: [usize; 3] = [2, 3, 4];
pub const REPEATED_WORDS: [usize; 6] = [5, 6, 7, 8, 9, 10];

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Repetition {
    /// Letters in all places of the most frequent 2-, 3- and 4-gram, of all letters; 0 where none comes twice.
    pub top: [f64; 3],
    /// Letters in 5- to 10-grams that stood before, of all letters; none counted twice.
    pub repeated: [f64; 6],
}

/// Tables and lists that are used again for the next text.
#[derive(Default)]
pub struct Scratch {
    slots: Vec<Slot>,
    places: Vec<u32>,
    classes: Vec<Occurrence>,
    next: Vec<Occurrence>,
}

/// An n-gram: its key, where it stands first, and how often it stands.
#[derive(Clone, Copy, Default)]
struct Slot {
    key: u64,
    first: u32,
    count: u32,
}

/// A position of a repeated n-gram, and where that n-gram stands first.
#[derive(Clone, Copy)]
struct Occurrence {
    position: u32,
    first: u32,
}

/// `hashes` of the words, and `ends`: letters of the text up to and including each word.
pub fn repetition(hashes: &[u64], ends: &[u32], scratch: &mut Scratch) -> Repetition {
    let mut repetition = Repetition::default();
    let all = f64::from(*ends.last().unwrap_or(&0)).max(1.0);
    let letters = |first: usize, words: usize| {
        let before = if first == 0 { 0 } else { ends[first - 1] };
        u64::from(ends[first + words - 1] - before)
    };
    scratch.begin(hashes.len());
    for (position, pair) in hashes.windows(2).enumerate() {
        scratch.add(pair[0].rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ pair[1], position as u32);
    }
    let pairs = hashes.len().saturating_sub(1) as u32;
    scratch.keep_repeated(0..pairs);
    for words in TOP_WORDS[0]..=REPEATED_WORDS[REPEATED_WORDS.len() - 1] {
        if words > TOP_WORDS[0] {
            scratch.lengthen();
        }
        if scratch.classes.is_empty() {
            break;
        }
        if let Some(place) = TOP_WORDS.iter().position(|length| *length == words) {
            let top =
                scratch.counts().map(|(first, count)| u64::from(count) * letters(first as usize, words));
            repetition.top[place] = (top.max().unwrap_or(0) as f64 / all).min(1.0);
        }
        if let Some(place) = REPEATED_WORDS.iter().position(|length| *length == words) {
            let (mut counted_until, mut repeated) = (0, 0);
            for later in scratch.classes.iter().filter(|found| found.first != found.position) {
                let (start, end) =
                    (counted_until.max(later.position as usize), later.position as usize + words);
                repeated += letters(start, end - start);
                counted_until = end;
            }
            repetition.repeated[place] = repeated as f64 / all;
        }
    }
    repetition
}

impl Scratch {
    /// An empty table for so many n-grams.
    fn begin(&mut self, ngrams: usize) {
        let length = (ngrams * 2).next_power_of_two().max(16);
        self.slots.clear();
        self.slots.resize(length, Slot::default());
        self.places.clear();
    }

    #[inline(always)]
    fn add(&mut self, key: u64, position: u32) {
        let mask = self.slots.len() - 1;
        let mut place = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        loop {
            let slot = &mut self.slots[place];
            if slot.count == 0 {
                *slot = Slot { key, first: position, count: 1 };
                break;
            }
            if slot.key == key {
                slot.count += 1;
                break;
            }
            place = (place + 1) & mask;
        }
        self.places.push(place as u32);
    }

    /// Of the positions that were added, in their order, those whose n-gram stands twice at least.
    fn keep_repeated(&mut self, positions: impl Iterator<Item = u32>) {
        let (slots, places) = (&self.slots, &self.places);
        self.classes.clear();
        self.classes.extend(positions.zip(places).filter_map(|(position, place)| {
            let slot = slots[*place as usize];
            (slot.count >= 2).then_some(Occurrence { position, first: slot.first })
        }));
    }

    /// From repeated n-grams to the repeated (n+1)-grams.
    fn lengthen(&mut self) {
        let classes = std::mem::take(&mut self.classes);
        let mut next = std::mem::take(&mut self.next);
        next.clear();
        self.begin(classes.len());
        for pair in classes.windows(2).filter(|pair| pair[0].position + 1 == pair[1].position) {
            let key = u64::from(pair[0].first) << 32 | u64::from(pair[1].first);
            self.add(key, pair[0].position);
            next.push(pair[0]);
        }
        self.keep_repeated(next.iter().map(|found| found.position));
        self.next = classes;
        // Both lists keep their memory; `next` was only read.
        if self.next.capacity() < next.capacity() {
            self.next = next;
        }
    }

    /// The repeated n-grams: where each stands first, and how often it stands.
    fn counts(&self) -> impl Iterator<Item = (u32, u32)> {
        self.slots.iter().filter(|slot| slot.count >= 2).map(|slot| (slot.first, slot.count))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    /// The definitions, word for word.
    fn plainly(words: &[String]) -> Repetition {
        let length = |words: &[String]| words.iter().map(|word| word.chars().count()).sum::<usize>() as f64;
        let all = length(words).max(1.0);
        let mut repetition = Repetition::default();
        for (place, n) in TOP_WORDS.into_iter().enumerate() {
            let mut counts: HashMap<&[String], usize> = HashMap::new();
            words.windows(n).for_each(|ngram| *counts.entry(ngram).or_default() += 1);
            let shares = counts.iter().filter(|(_, count)| **count > 1);
            let shares = shares.map(|(ngram, count)| length(ngram) * *count as f64 / all);
            repetition.top[place] = shares.fold(0.0, f64::max).min(1.0);
        }
        for (place, n) in REPEATED_WORDS.into_iter().enumerate() {
            let (mut seen, mut marked) = (HashSet::new(), vec![false; words.len()]);
            for (start, ngram) in words.windows(n).enumerate() {
                if !seen.insert(ngram) {
                    marked[start..start + n].fill(true);
                }
            }
            let repeated = words.iter().zip(&marked).filter(|(_, marked)| **marked);
            let repeated: f64 = repeated.map(|(word, _)| word.chars().count() as f64).sum();
            repetition.repeated[place] = repeated / all;
        }
        repetition
    }

    #[test]
    fn shortcuts_change_no_number() {
        let mut scratch = Scratch::default();
        let mut state = 1u64;
        for (length, vocabulary) in
            [(0, 1), (1, 1), (4, 1), (12, 1), (60, 2), (80, 3), (200, 5), (400, 30), (9, 900)]
        {
            for _ in 0..20 {
                let words: Vec<String> = (0..length)
                    .map(|_| {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let number = (state >> 33) % vocabulary;
                        "x".repeat(1 + number as usize % 7) + &number.to_string()
                    })
                    .collect();
                let hashes: Vec<u64> = words.iter().map(|word| crate::words::hash_of_text(word)).collect();
                let mut letters = 0;
                let ends: Vec<u32> = words
                    .iter()
                    .map(|word| {
                        letters += word.chars().count() as u32;
                        letters
                    })
                    .collect();
                let (found, expected) = (repetition(&hashes, &ends, &mut scratch), plainly(&words));
                assert_eq!(found, expected, "{words:?}");
            }
        }
    }
}
