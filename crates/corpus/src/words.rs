//! One pass over a text that finds its words and lines, for all that counts or compares them: digest, shingles, boilerplate
//! paragraphs, repeated passages.
//!
//! A word is a run of letters and digits in lower case: numbers count, or tables that differ in their figures alone would be
//! duplicates. Characters are looked up in a table that is made once, because asking Unicode's own tables for each of them
//! takes longer than everything else that is done with them.

use std::sync::LazyLock;

/// Code points with an entry in the table: Latin, Greek, Cyrillic, punctuation, number forms.
const TABLE_SIZE: usize = 0x2400;
/// No letter and no digit.
const BREAK: u32 = 0;
/// A letter whose lower case is several characters.
const LONG: u32 = u32::MAX;

/// The lower case of each code point that is a letter or a digit.
static LOWER_CASE: LazyLock<Vec<u32>> = LazyLock::new(|| {
    let entry = |code_point: usize| match char::from_u32(code_point as u32) {
        Some(character) if character.is_alphanumeric() => {
            let mut lower = character.to_lowercase();
            match (lower.next(), lower.next()) {
                (Some(only), None) => u32::from(only),
                _ => LONG,
            }
        }
        _ => BREAK,
    };
    (0..TABLE_SIZE).map(entry).collect()
});

/// The words and lines of a text. Kept and used again for the next text, so that its buffers are made once.
#[derive(Default)]
pub struct Words {
    /// The words, lower case, a space after each; longer than that by some unused bytes.
    buffer: Vec<u8>,
    normalised_bytes: usize,
    /// The hash of each word.
    pub hashes: Vec<u64>,
    /// Where each word ends in the text, in bytes.
    pub ends: Vec<u32>,
    pub lines: Vec<Line>,
}

/// A line of the text: its bytes, and its words by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub start: u32,
    pub end: u32,
    pub first_word: u32,
    pub last_word: u32,
    /// Bars, bullets and slashes: what stands between the entries of a menu.
    pub separators: u32,
}

impl Words {
    pub fn of(text: &str) -> Words {
        let mut words = Words::default();
        words.read(text);
        words
    }

    /// The words in lower case with a space after each.
    pub fn normalised(&self) -> &[u8] {
        &self.buffer[..self.normalised_bytes]
    }

    /// Forgets the text before and reads this one.
    pub fn read(&mut self, text: &str) {
        let table = LOWER_CASE.as_slice();
        let bytes = text.as_bytes();
        // No lower case is longer than one and a half times its capital (U+0130), and 8 bytes are read for the last hash.
        let room = bytes.len() + bytes.len() / 2 + 16;
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        self.hashes.clear();
        self.ends.clear();
        self.lines.clear();
        let buffer = self.buffer.as_mut_slice();
        let (mut place, mut written, mut word_start) = (0, 0, 0);
        let mut line = Line { start: 0, end: 0, first_word: 0, last_word: 0, separators: 0 };
        while place < bytes.len() {
            let here = place;
            let (code_point, length) = code_point_at(bytes, place);
            place += length;
            let lower = match table.get(code_point as usize) {
                Some(&lower) => lower,
                None => lower_case_beyond_table(code_point),
            };
            if lower != BREAK {
                written += match lower {
                    LONG => write_long(buffer, written, code_point),
                    _ if lower < 0x80 => {
                        buffer[written] = lower as u8;
                        1
                    }
                    _ => write(buffer, written, char::from_u32(lower).unwrap_or_default()),
                };
                continue;
            }
            if written > word_start {
                self.hashes.push(hash_of_word(buffer, word_start, written));
                self.ends.push(here as u32);
                buffer[written] = b' ';
                written += 1;
                word_start = written;
            }
            match code_point {
                0x0A => {
                    line.end = here as u32;
                    line.last_word = self.hashes.len() as u32;
                    self.lines.push(line);
                    let (start, first_word) = (place as u32, line.last_word);
                    line = Line { start, end: start, first_word, last_word: first_word, separators: 0 };
                }
                // | · • › /
                0x7C | 0xB7 | 0x2022 | 0x203A | 0x2F => line.separators += 1,
                _ => {}
            }
        }
        if written > word_start {
            self.hashes.push(hash_of_word(buffer, word_start, written));
            self.ends.push(bytes.len() as u32);
            buffer[written] = b' ';
            written += 1;
        }
        if line.start < bytes.len() as u32 {
            let (end, last_word) = (bytes.len() as u32, self.hashes.len() as u32);
            self.lines.push(Line { end, last_word, ..line });
        }
        self.normalised_bytes = written;
    }
}

/// The code point at `place` of well-formed UTF-8, and how many bytes it takes.
#[inline(always)]
fn code_point_at(bytes: &[u8], place: usize) -> (u32, usize) {
    let lead = u32::from(bytes[place]);
    let next = |offset: usize| u32::from(bytes[place + offset]) & 0x3F;
    match lead {
        0..0x80 => (lead, 1),
        0x80..0xE0 => ((lead & 0x1F) << 6 | next(1), 2),
        0xE0..0xF0 => ((lead & 0x0F) << 12 | next(1) << 6 | next(2), 3),
        _ => ((lead & 0x07) << 18 | next(1) << 12 | next(2) << 6 | next(3), 4),
    }
}

#[cold]
fn lower_case_beyond_table(code_point: u32) -> u32 {
    match char::from_u32(code_point) {
        Some(character) if character.is_alphanumeric() => {
            character.to_lowercase().next().map_or(BREAK, u32::from)
        }
        _ => BREAK,
    }
}

#[inline]
fn write(buffer: &mut [u8], place: usize, character: char) -> usize {
    character.encode_utf8(&mut buffer[place..]).len()
}

#[cold]
fn write_long(buffer: &mut [u8], place: usize, code_point: u32) -> usize {
    let lower = char::from_u32(code_point).into_iter().flat_map(char::to_lowercase);
    lower.fold(0, |written, character| written + write(buffer, place + written, character))
}

/// The hash of the bytes from `start` to `end`, eight at a time, the same on every machine.
#[inline]
fn hash_of_word(buffer: &[u8], start: usize, end: usize) -> u64 {
    let mut hash = (end - start) as u64;
    let mut place = start;
    while end - place > 8 {
        hash = (hash ^ eight_bytes(buffer, place)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
        place += 8;
    }
    let last = eight_bytes(buffer, place) & (u64::MAX >> (64 - 8 * (end - place)));
    mix(hash ^ last)
}

#[inline]
fn eight_bytes(buffer: &[u8], place: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&buffer[place..place + 8]);
    u64::from_le_bytes(bytes)
}

/// Order matters: each hash is mixed into what came before.
#[inline]
pub fn hash_of_sequence(hashes: &[u64]) -> u64 {
    hashes.iter().fold(0, |sequence, hash| mix(sequence ^ hash))
}

/// A 64-bit hash of any text, the same on every machine and with every compiler.
pub fn hash_of_text(text: &str) -> u64 {
    let mut hash = text.len() as u64;
    for chunk in text.as_bytes().chunks(8) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_le_bytes(bytes));
    }
    hash
}

/// The output function of splitmix64 (Steele, Lea, Flood 2014).
#[inline]
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_unicode_says() {
        let check = |text: &str| {
            let words = Words::of(text);
            let expected: String = text
                .split(|character: char| !character.is_alphanumeric())
                .filter(|word| !word.is_empty())
                .map(|word| word.chars().flat_map(char::to_lowercase).chain([' ']).collect::<String>())
                .collect();
            assert_eq!(std::str::from_utf8(words.normalised()).unwrap(), expected, "{text}");
            assert_eq!(words.hashes.len(), expected.split_whitespace().count());
            assert_eq!(words.ends.len(), words.hashes.len());
        };
        check("");
        check("Ir-raħal żgħir: 3,5 km.");
        check("Η Θάλασσα, ΉΡΕΜΗ!\n\nЩАСТЛИВИЯТ кон");
        check("İstanbul ǅ ﬁ Ⅷ ẞ 漢字 𝔘 🎉 e\u{301}");
        check(&"İ".repeat(100));
        check("Donaudampfschifffahrtsgesellschaftskapitän");
    }

    #[test]
    fn lines_know_their_words_and_separators() {
        let text = "Start | News | Über\n\nEin Satz.";
        let words = Words::of(text);
        let found: Vec<(&str, u32, u32)> = words
            .lines
            .iter()
            .map(|line| {
                (
                    &text[line.start as usize..line.end as usize],
                    line.last_word - line.first_word,
                    line.separators,
                )
            })
            .collect();
        assert_eq!(found, [("Start | News | Über", 3, 2), ("", 0, 0), ("Ein Satz.", 2, 0)]);
        assert_eq!(words.ends.iter().map(|&end| &text[..end as usize]).next(), Some("Start"));
    }

    #[test]
    fn equal_words_have_equal_hashes_wherever_they_stand() {
        let words = Words::of("Kahvila kahvila, KAHVILA donaudampfschiff Donaudampfschiff donaudampfschifg");
        assert_eq!(words.hashes[0], words.hashes[2]);
        assert_eq!(words.hashes[3], words.hashes[4]);
        assert_ne!(words.hashes[4], words.hashes[5]);
    }
}
