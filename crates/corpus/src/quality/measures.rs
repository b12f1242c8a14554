//! What can be counted about a text, in one pass over its characters and a second over its words' hashes.

use std::cell::RefCell;

use languages::Language;

use super::characters::{Characters, LETTER, SYMBOL, WORD, bit_of};
use super::ngrams::{self, Repetition};
use super::vocabulary::{NO_LETTERS, Vocabulary, step};

/// Fewer lines than this show no habit: their shares are 0 (1 for finished lines).
pub const MINIMUM_LINES: usize = 4;
/// A line of more words than this is a paragraph, whatever phrases stand in it.
const LONGEST_SERVICE_LINE_WORDS: usize = 60;
/// A line of no more words than this, and no punctuation at its end, is an entry of a list or a menu, if it also is
/// short in bytes.
const SHORT_LINE_WORDS: usize = 6;
const SHORT_LINE_BYTES: usize = 240;

/// The measures of one text. Shares lie between 0 and 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measures {
    pub characters: usize,
    pub words: usize,
    /// Lines that are not blank.
    pub lines: usize,
    /// Characters that are no letters, marks, white space or common punctuation.
    pub symbol_share: f64,
    /// Letters of the language's script, of all letters.
    pub script_share: f64,
    /// Letters and marks per word.
    pub mean_word_length: f64,
    pub stop_word_share: f64,
    /// Lines that stood before in the text, of the lines.
    pub repeated_line_share: f64,
    /// The bytes of these lines, of the bytes of all lines.
    pub repeated_line_byte_share: f64,
    /// Lines of lists and menus.
    pub list_line_share: f64,
    /// Lines that break off with an ellipsis.
    pub ellipsis_line_share: f64,
    /// Lines that end as sentences do.
    pub finished_line_share: f64,
    /// Bytes of lines with a phrase of consent banners and page furniture, of the bytes of all lines.
    pub service_line_share: f64,
    pub repetition: Repetition,
}

/// Memory that is used again for the next text.
#[derive(Default)]
struct Scratch {
    hashes: Vec<u64>,
    ends: Vec<u32>,
    lines: Vec<(u64, u32)>,
    ngrams: ngrams::Scratch,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Measures {
    pub fn of(text: &str, language: Language) -> Measures {
        SCRATCH.with_borrow_mut(|scratch| Counts::of(text, language, scratch).measures(scratch))
    }
}

/// What is counted on the way through the text.
#[derive(Default)]
struct Counts {
    characters: usize,
    letters: usize,
    own_letters: usize,
    symbols: usize,
    /// Letters and marks of all words.
    word_letters: u32,
    stop_words: usize,
    list_lines: usize,
    ellipsis_lines: usize,
    finished_lines: usize,
    line_bytes: usize,
    service_bytes: usize,
}

impl Counts {
    fn of(text: &str, language: Language, scratch: &mut Scratch) -> Counts {
        scratch.hashes.clear();
        scratch.ends.clear();
        scratch.lines.clear();
        let mut counts = Counts { characters: text.chars().count(), ..Counts::default() };
        let vocabulary = Vocabulary::of(language);
        let own = bit_of(language.script());
        for line in text.split('\n') {
            let first_word = scratch.hashes.len();
            let has_phrase = counts.read_words(line, own, vocabulary, scratch);
            let line = line.trim();
            if !line.is_empty() {
                let is_short = scratch.hashes.len() - first_word <= LONGEST_SERVICE_LINE_WORDS;
                counts.judge_line(line, has_phrase && is_short);
                scratch.lines.push((hash_of_bytes(line.as_bytes()), line.len() as u32));
            }
        }
        counts
    }

    /// Takes in the words of a line; whether a phrase of page furniture is among them.
    fn read_words(&mut self, line: &str, own: u32, vocabulary: &Vocabulary, scratch: &mut Scratch) -> bool {
        let characters = Characters::get();
        let bytes = line.as_bytes();
        let first_word = scratch.hashes.len();
        let (mut hash, mut length, mut has_phrase) = (NO_LETTERS, 0u32, false);
        let mut at = 0;
        // One position past the end stands for a space, which ends the last word.
        while at <= bytes.len() {
            let (description, width) = match bytes.get(at) {
                None => (0, 1),
                Some(byte) if byte.is_ascii() => (characters.describe_ascii(*byte), 1),
                Some(_) => {
                    let character = line[at..].chars().next().expect("a character begins here");
                    (characters.describe(character), character.len_utf8())
                }
            };
            at += width;
            if description & WORD != 0 {
                hash = step(hash, description);
                length += 1;
                self.letters += usize::from(description & LETTER != 0);
                self.own_letters += usize::from(description & own != 0);
                continue;
            }
            self.symbols += usize::from(description & SYMBOL != 0);
            if length > 0 {
                self.word_letters = self.word_letters.saturating_add(length);
                let (is_stop_word, ends_phrase) = vocabulary.look_up(hash, &scratch.hashes[first_word..]);
                self.stop_words += usize::from(is_stop_word);
                has_phrase |= ends_phrase;
                scratch.hashes.push(hash);
                scratch.ends.push(self.word_letters);
                (hash, length) = (NO_LETTERS, 0);
            }
        }
        has_phrase
    }

    fn judge_line(&mut self, line: &str, is_service: bool) {
        self.list_lines += usize::from(is_list_line(line));
        self.ellipsis_lines += usize::from(line.ends_with('…') || line.ends_with("..."));
        self.finished_lines += usize::from(is_finished(line));
        self.line_bytes += line.len();
        self.service_bytes += if is_service { line.len() } else { 0 };
    }

    fn measures(self, scratch: &mut Scratch) -> Measures {
        let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
        let (words, lines) = (scratch.hashes.len(), scratch.lines.len());
        let of_lines = |count: usize| if lines < MINIMUM_LINES { 0.0 } else { share(count, lines) };
        let (repeated_lines, repeated_bytes) = repeated_lines(&mut scratch.lines);
        Measures {
            characters: self.characters,
            words,
            lines,
            symbol_share: share(self.symbols, self.characters),
            script_share: share(self.own_letters, self.letters),
            mean_word_length: share(self.word_letters as usize, words),
            stop_word_share: share(self.stop_words, words),
            repeated_line_share: of_lines(repeated_lines),
            repeated_line_byte_share: if lines < MINIMUM_LINES {
                0.0
            } else {
                share(repeated_bytes, self.line_bytes)
            },
            list_line_share: of_lines(self.list_lines),
            ellipsis_line_share: of_lines(self.ellipsis_lines),
            finished_line_share: if lines < MINIMUM_LINES { 1.0 } else { share(self.finished_lines, lines) },
            service_line_share: share(self.service_bytes, self.line_bytes),
            repetition: ngrams::repetition(&scratch.hashes, &scratch.ends, &mut scratch.ngrams),
        }
    }
}

/// How many lines stood before, and their bytes.
fn repeated_lines(lines: &mut [(u64, u32)]) -> (usize, usize) {
    lines.sort_unstable();
    let repeated = lines.windows(2).filter(|pair| pair[0] == pair[1]);
    repeated.fold((0, 0), |(count, bytes), pair| (count + 1, bytes + pair[0].1 as usize))
}

/// An entry of a list or a menu: it begins with a bullet, has bars in it, or is a few words that end in no punctuation.
/// A dash is no bullet: much dialogue begins with one.
fn is_list_line(line: &str) -> bool {
    line.starts_with(['•', '·', '*', '‣', '▪', '●', '►', '›', '○', '■'])
        || line.as_bytes().contains(&b'|') && line.contains(" | ")
        || line.len() <= SHORT_LINE_BYTES
            && line.ends_with(char::is_alphanumeric)
            && line.split_whitespace().nth(SHORT_LINE_WORDS).is_none()
}

/// Whether a line ends as a sentence does, quotes and brackets after it aside. (`;` ends a Greek question, `:` leads on.)
fn is_finished(line: &str) -> bool {
    let closing = |character: char| {
        matches!(character, '"' | '\'' | '»' | '«' | '“' | '”' | '‘' | '’' | '›' | ')' | ']')
    };
    line.trim_end_matches(closing).ends_with(['.', '!', '?', '…', ':', ';', '\u{37E}'])
}

/// Eight bytes at a time; equal lines have equal hashes on every machine.
fn hash_of_bytes(bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    let (chunks, rest) = bytes.as_chunks::<8>();
    let hash = chunks.iter().fold(bytes.len() as u64, |hash, chunk| step(hash, u64::from_le_bytes(*chunk)));
    let rest = rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let hash = step(hash, rest);
    hash ^ hash >> 32
}
