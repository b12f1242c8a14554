//! The words that quality looks for, by the hash of a word: stop words of the document's language, and the phrases of
//! consent banners and page furniture in all 24 (a Maltese page may carry an English cookie notice).

use std::sync::LazyLock;

use languages::{LANGUAGE_COUNT, Language};

use super::characters::{Characters, LOWER};

/// The hash of no letters; [`step`] takes in one more.
pub const NO_LETTERS: u64 = 0x9e37_79b9_7f4a_7c15;

/// One letter (its description, see [`Characters`]) more in the hash of a word.
#[inline(always)]
pub fn step(hash: u64, description: u32) -> u64 {
    (hash.rotate_left(5) ^ u64::from(description & LOWER)).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// The hash of a word in any case.
fn hash_of(word: &str) -> u64 {
    let characters = Characters::get();
    word.chars().fold(NO_LETTERS, |hash, letter| step(hash, characters.describe(letter)))
}

/// What a word can be, besides a word.
const STOP_WORD: u8 = 1;
const ENDS_PHRASE: u8 = 2;

/// An open table of hashes with their marks, a quarter full at most, so that the first look mostly answers.
pub struct Vocabulary {
    entries: Vec<(u64, u8)>,
    /// Phrases of more than one word: the hashes of all words but the last, under the hash of the last.
    phrases: Vec<(u64, Vec<u64>)>,
}

static VOCABULARIES: LazyLock<Vec<Vocabulary>> =
    LazyLock::new(|| Language::all().map(Vocabulary::new).collect());

impl Vocabulary {
    pub fn of(language: Language) -> &'static Vocabulary {
        debug_assert_eq!(VOCABULARIES.len(), LANGUAGE_COUNT);
        &VOCABULARIES[language.index()]
    }

    fn new(language: Language) -> Vocabulary {
        let mut phrases: Vec<(u64, Vec<u64>)> = Vec::new();
        for phrase in Language::all().flat_map(|language| language.service_phrases()) {
            let mut words: Vec<u64> = phrase.split(' ').map(hash_of).collect();
            let last = words.pop().expect("a phrase has words");
            phrases.push((last, words));
        }
        phrases.sort();
        phrases.dedup();
        let mut marks: Vec<(u64, u8)> =
            language.stop_words().iter().map(|word| (hash_of(word), STOP_WORD)).collect();
        marks.extend(phrases.iter().map(|(last, _)| (*last, ENDS_PHRASE)));
        let length = (marks.len() * 4).next_power_of_two();
        let mut vocabulary = Vocabulary { entries: vec![(0, 0); length], phrases };
        for (hash, mark) in marks {
            let place = vocabulary.place(hash);
            let entry = &mut vocabulary.entries[place];
            *entry = (hash, entry.1 | mark);
        }
        vocabulary
    }

    /// Where the hash stands, or the free place where it would.
    #[inline(always)]
    fn place(&self, hash: u64) -> usize {
        let mask = self.entries.len() - 1;
        let mut place = (hash >> 32) as usize & mask;
        while self.entries[place].1 != 0 && self.entries[place].0 != hash {
            place = (place + 1) & mask;
        }
        place
    }

    /// Whether the word is a stop word, and whether it ends a phrase that began in `before`, the words of its line so far.
    #[inline(always)]
    pub fn look_up(&self, hash: u64, before: &[u64]) -> (bool, bool) {
        let mark = self.entries[self.place(hash)].1;
        (mark & STOP_WORD != 0, mark & ENDS_PHRASE != 0 && self.ends_phrase(hash, before))
    }

    #[cold]
    fn ends_phrase(&self, hash: u64, before: &[u64]) -> bool {
        let first = self.phrases.partition_point(|(last, _)| *last < hash);
        self.phrases[first..]
            .iter()
            .take_while(|(last, _)| *last == hash)
            .any(|(_, words)| before.ends_with(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_phrases_are_found_in_any_case() {
        let look_up = |language: &str, text: &str| {
            let words: Vec<u64> = languages::words(text).map(|word| hash_of(&word)).collect();
            let (last, before) = words.split_last().unwrap();
            Vocabulary::of(Language::from_code(language).unwrap()).look_up(*last, before)
        };
        assert_eq!(look_up("de", "UND"), (true, false));
        assert_eq!(look_up("mt", "und"), (false, false));
        assert_eq!(look_up("el", "Όροι χρήσης"), (false, true));
        assert_eq!(look_up("mt", "This site uses cookies"), (false, true));
        assert_eq!(look_up("mt", "cookies"), (false, false));
    }
}
