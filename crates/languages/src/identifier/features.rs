//! What the identifier looks at: n-grams of letters, 2 to 4, within words whose ends are marked, and the word itself.
//! (With 1 to 5 the dev sentences come out the same, from twice the numbers.)
//!
//! An n-gram's key is its letters, sixteen bits each, the last one lowest; a word's key is a hash of its letters above
//! [`WORD_KEYS`]. So the key of an n-gram that ends a longer one is that one's key without the upper bits.

use std::str::Chars;
use std::sync::LazyLock;

/// The lower bits of a key that are the last three letters, and the last two.
pub(super) const THREE_LETTERS: u64 = 0xFFFF_FFFF_FFFF;
pub(super) const TWO_LETTERS: u64 = 0xFFFF_FFFF;

/// From here on a key is that of a word: no letter has the number 0xFFFF.
pub(super) const WORD_KEYS: u64 = 0xFFFF_FFFF_0000_0000;

/// Calls `found` with the key of each feature of a text; returns how many letters it has.
pub fn features(text: &str, mut found: impl FnMut(u64)) -> u64 {
    let mut reader = Reader::new(text);
    let mut keys = [0; BLOCK];
    loop {
        let count = reader.read(&mut keys);
        if count == 0 {
            return reader.letters();
        }
        for key in &keys[..count] {
            found(*key);
            if *key < WORD_KEYS && *key > THREE_LETTERS {
                found(key & THREE_LETTERS);
            }
            if *key < WORD_KEYS && *key > TWO_LETTERS {
                found(key & TWO_LETTERS);
            }
        }
    }
}

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// Two or three letters, of which a mark may be one.
    ShortNgram,
    /// Four.
    LongNgram,
    /// A whole word of at least three letters.
    Word,
}

/// What the key of a feature stands for.
pub fn feature_kind(key: u64) -> FeatureKind {
    match key {
        0..=THREE_LETTERS => FeatureKind::ShortNgram,
        WORD_KEYS.. => FeatureKind::Word,
        _ => FeatureKind::LongNgram,
    }
}

/// Keys that are read together.
pub(super) const BLOCK: usize = 512;

/// Stands between words, and before the first and behind the last one.
const MARK: u16 = b' ' as u16;

/// Reads a text letter by letter and gives, for each letter and for each end of a word, the key of the longest n-gram
/// that ends there, and behind each word its own key. No branch depends on the text but for its encoding.
pub(super) struct Reader<'a> {
    characters: Chars<'a>,
    /// Whether the mark behind the text has been read.
    finished: bool,
    place: Place,
}

/// Where in a word a reader is.
#[derive(Clone, Copy)]
struct Place {
    /// The last four letters since the last mark, with it.
    window: u64,
    word_hash: u64,
    /// Letters read so far.
    letters: u64,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Reader<'a> {
        let place = Place { window: u64::from(MARK), word_hash: add_to_hash(0, MARK), letters: 0 };
        Reader { characters: text.chars(), finished: false, place }
    }

    /// Letters read so far.
    pub fn letters(&self) -> u64 {
        self.place.letters
    }

    /// Fills `keys` from the start and says how many there are; none at the end of the text.
    pub fn read(&mut self, keys: &mut [u64; BLOCK]) -> usize {
        // The longest small form of a letter has three characters, each of which gives two keys at most.
        const ROOM: usize = BLOCK - 6;
        let small_letters: &[u16; TABLE_LENGTH] = &SMALL_LETTERS;
        // A copy, which stays in registers.
        let mut place = self.place;
        let mut count = 0;
        while count < ROOM {
            let Some(character) = self.characters.next() else {
                if !self.finished {
                    self.finished = true;
                    place.step(MARK, keys, &mut count);
                }
                break;
            };
            match small_letters.get(character as usize) {
                Some(&letter) if letter != ASK => place.step(letter, keys, &mut count),
                _ => (place, count) = place.step_rare(character, keys, count),
            }
        }
        self.place = place;
        count
    }
}

impl Place {
    #[inline(always)]
    fn step(&mut self, letter: u16, keys: &mut [u64; BLOCK], count: &mut usize) {
        let is_mark = letter == MARK;
        let behind_mark = self.window == u64::from(MARK);
        let window = self.window << 16 | u64::from(letter);
        let word_hash = add_to_hash(self.word_hash, letter);
        keys[*count] = window;
        *count += usize::from(!(is_mark & behind_mark));
        keys[*count] = WORD_KEYS | word_hash >> 32;
        // A letter stands before the last two and the mark: with the mark before it, the word is longer than an n-gram.
        *count += usize::from(is_mark & (window >> 48 > u64::from(MARK)));
        self.window = if is_mark { u64::from(MARK) } else { window };
        self.word_hash = if is_mark { const { add_to_hash(0, MARK) } } else { word_hash };
        self.letters += u64::from(!is_mark);
    }

    /// For what the table of small letters does not tell.
    #[cold]
    fn step_rare(mut self, character: char, keys: &mut [u64; BLOCK], mut count: usize) -> (Place, usize) {
        if is_letter(character) {
            for small in character.to_lowercase() {
                self.step(number(small), keys, &mut count);
            }
        } else {
            self.step(MARK, keys, &mut count);
        }
        (self, count)
    }
}

/// One step of FxHash, whose upper bits are well mixed.
const fn add_to_hash(hash: u64, letter: u16) -> u64 {
    (hash.rotate_left(5) ^ letter as u64).wrapping_mul(0x517C_C1B7_2722_0A95)
}

/// Letters, and the combining marks (U+0300 to U+036F) of decomposed text.
fn is_letter(character: char) -> bool {
    character.is_alphabetic() || matches!(character, '\u{300}'..='\u{36F}')
}

/// Sixteen bits for a letter; none of the 38 languages has letters beyond U+FFFF.
fn number(letter: char) -> u16 {
    let number = u32::from(letter);
    (number ^ number >> 16) as u16
}

/// Up to here (the end of the scripts of the 38 languages and of general punctuation) the small letter is looked up: the
/// mark for what is no letter.
const TABLE_LENGTH: usize = 0x2100;
/// Says that a letter becomes more than one.
const ASK: u16 = u16::MAX;

static SMALL_LETTERS: LazyLock<Box<[u16; TABLE_LENGTH]>> = LazyLock::new(|| {
    let mut table = Box::new([MARK; TABLE_LENGTH]);
    for (character, entry) in (0u32..).map(char::from_u32).zip(table.iter_mut()) {
        if let Some(character) = character.filter(|character| is_letter(*character)) {
            let mut small = character.to_lowercase();
            *entry = if small.len() == 1 { small.next().map_or(ASK, number) } else { ASK };
        }
    }
    table
});

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Vec<u64> {
        let mut keys = Vec::new();
        features(text, |key| keys.push(key));
        keys
    }

    #[test]
    fn features_are_those_of_the_words() {
        let key = |letters: &str| letters.chars().fold(0, |key, letter| key << 16 | u64::from(letter as u32));
        assert_eq!(keys("ħa"), [" ħ", " ħa", "ħa", " ħa ", "ħa ", "a "].map(key));
        // " ħobż ": 5, 4, 3 and the word.
        assert_eq!(keys("ħobż").len(), 5 + 4 + 3 + 1);
        assert!(keys("ħobż")[12] > WORD_KEYS);
        assert_eq!(keys("Ħa!"), keys("ħa"));
        assert_eq!(keys("«ħa»"), keys("ħa"));
        assert_eq!(keys(" –  ħa, ħa"), [keys("ħa"), keys("ħa")].concat());
        assert_eq!(keys("l’homme"), keys("l homme"));
        assert_eq!(keys("ΓΕΙΑ ΣΟΥ, ЖЪЛТ ẠẸ ᏣᎳᎩ"), keys("γεια σου жълт ạẹ ꮳꮃꭹ"));
        assert_eq!(keys("İ"), keys("i\u{307}"));
        assert_eq!(keys("书 😀"), keys("书"));
        assert!(keys(" 12 – € ").is_empty());
        assert!(keys("").is_empty());
    }

    #[test]
    fn letters_are_counted_and_blocks_do_not_show() {
        assert_eq!(features("Γεια σου, κόσμε 12", |_| {}), 12);
        let words = "għandna ".repeat(200);
        assert_eq!(keys(&words), keys("għandna").repeat(200));
        assert_eq!(keys(&"a".repeat(1000)).len(), 1001 + 1000 + 999 + 1);
    }
}
