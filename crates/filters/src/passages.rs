//! Passages of texts that were opted out.
//!
//! The opt-out ledger of a corpus knows a text by one digest over all of its words, which tells a whole text from others
//! and says nothing about a passage of it. So the operator makes a file of passages from the texts themselves
//! (`eulalia opt-out passages`): for every run of [`WORDS_IN_A_PASSAGE`] words, normalised as the ledger does it, eight bytes
//! of a keyed SHA-256. The file holds no text, and runs of twelve words are too many to be guessed. A stream is held back by
//! twelve words, because any of them may begin a passage. Shorter quotations, and passages that were reworded, are not
//! found.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use provenance::digest::keyed_digest;

use crate::error::FilterError;
use crate::settings::{Action, PassagesSettings};
use crate::stage::{Output, Stage, Stop};

/// Words of one run: long enough that two texts rarely share one by chance, short enough to find a quoted sentence.
pub const WORDS_IN_A_PASSAGE: usize = 12;

/// Characters of a word that count; the rest of a longer one makes no difference.
const LONGEST_WORD: usize = 64;

/// Bytes of a run with all that stands between its words; in a longer one nothing is found.
const LONGEST_RUN: usize = 4096;

/// First line of a file of passages.
const FORMAT: &str = "eulalia passages 1";
/// Bytes of the random key that a file's digests are keyed with.
const KEY_BYTES: usize = 16;

/// The digests of some passages.
#[derive(Debug, PartialEq, Eq)]
pub struct PassageSet {
    key: [u8; KEY_BYTES],
    /// Sorted.
    digests: Vec<u64>,
}

impl PassageSet {
    /// An empty set whose digests will be keyed with `key`, which should be random.
    pub fn new(key: [u8; KEY_BYTES]) -> PassageSet {
        PassageSet { key, digests: Vec::new() }
    }

    /// Adds every run of twelve words of a text; returns how many there are. A text of fewer words has none.
    pub fn add(&mut self, text: &str) -> usize {
        let words: Vec<String> = normalised_words(text).collect();
        let runs = words.windows(WORDS_IN_A_PASSAGE);
        let count = runs.len();
        let key = self.key;
        self.digests.extend(runs.map(|run| digest(&key, run.iter())));
        self.digests.sort_unstable();
        self.digests.dedup();
        count
    }

    /// Different runs of words.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// The bytes of the file: a line that names the format, the key, the number of digests, the digests in ascending order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FORMAT.len() + 1 + KEY_BYTES + 8 + 8 * self.digests.len());
        bytes.extend_from_slice(FORMAT.as_bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.key);
        bytes.extend_from_slice(&(self.digests.len() as u64).to_le_bytes());
        self.digests.iter().for_each(|digest| bytes.extend_from_slice(&digest.to_le_bytes()));
        bytes
    }

    /// Reads a file of passages.
    pub fn read(path: &Path) -> Result<PassageSet, FilterError> {
        let wrong = |problem: String| FilterError::Passages { path: path.to_path_buf(), problem };
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        PassageSet::from_bytes(&bytes).map_err(|problem| wrong(problem.to_string()))
    }

    fn from_bytes(bytes: &[u8]) -> Result<PassageSet, &'static str> {
        let rest = bytes
            .strip_prefix(FORMAT.as_bytes())
            .and_then(|rest| rest.strip_prefix(b"\n"))
            .ok_or("expected a file made by `eulalia opt-out passages`")?;
        let short = "the file is cut off: make it again with `eulalia opt-out passages`";
        let (key, rest) = rest.split_first_chunk::<KEY_BYTES>().ok_or(short)?;
        let (count, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
        let (digests, end) = rest.as_chunks::<8>();
        if u64::from_le_bytes(*count) != digests.len() as u64 || !end.is_empty() {
            return Err(short);
        }
        let digests: Vec<u64> = digests.iter().map(|digest| u64::from_le_bytes(*digest)).collect();
        if !digests.is_sorted() {
            return Err("its digests are out of order: make it again with `eulalia opt-out passages`");
        }
        Ok(PassageSet { key: *key, digests })
    }

    fn holds<'a>(&self, words: impl Iterator<Item = &'a String>) -> bool {
        self.digests.binary_search(&digest(&self.key, words)).is_ok()
    }
}

fn digest<'a>(key: &[u8], words: impl Iterator<Item = &'a String>) -> u64 {
    let mut run = String::with_capacity(128);
    for word in words {
        run.push_str(word);
        run.push(' ');
    }
    let digest = keyed_digest(key, run.as_bytes());
    digest.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The words of a text as the ledger's digests count them: runs of letters and digits, in lower case (the first 64
/// characters of each).
pub fn normalised_words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.chars().take(LONGEST_WORD).flat_map(char::to_lowercase).collect())
}

/// A word of the stream, at its place.
struct Word {
    start: usize,
    normalised: String,
}

pub(crate) struct Passages {
    action: Action,
    replacement: String,
    set: Arc<PassageSet>,
    /// What was not given on.
    buffer: String,
    /// Places count from the stream's beginning: this is the buffer's.
    before: usize,
    /// Up to here everything was looked at.
    seen: usize,
    /// The word that has begun and may go on.
    begun: Option<usize>,
    /// The last words that ended, twelve at most.
    words: VecDeque<Word>,
    /// Up to here reaches the last passage that was found.
    passage_end: usize,
}

impl Passages {
    pub fn new(settings: &PassagesSettings, set: Arc<PassageSet>) -> Passages {
        Passages {
            action: settings.action,
            replacement: settings.replacement.clone(),
            set,
            buffer: String::new(),
            before: 0,
            seen: 0,
            begun: None,
            words: VecDeque::with_capacity(WORDS_IN_A_PASSAGE + 1),
            passage_end: 0,
        }
    }

    /// Looks at one character; those before it were looked at.
    fn look(&mut self, character: char, output: &mut Output) -> Result<(), Stop> {
        let place = self.seen;
        self.buffer.push(character);
        self.seen += character.len_utf8();
        if character.is_alphanumeric() {
            self.begun.get_or_insert(place);
        } else {
            self.end_word(place, output)?;
            self.give_decided(output);
        }
        let first = self.words.front().map(|word| word.start).or(self.begun);
        if first.is_some_and(|first| self.seen - first > LONGEST_RUN) {
            // Nothing that reaches back so far can be found any more.
            self.words.clear();
            self.begun = self.begun.map(|_| self.seen);
        }
        Ok(())
    }

    fn end_word(&mut self, end: usize, output: &mut Output) -> Result<(), Stop> {
        let Some(start) = self.begun.take().filter(|start| *start < end) else { return Ok(()) };
        let word = &self.buffer[start - self.before..end - self.before];
        let normalised = word.chars().take(LONGEST_WORD).flat_map(char::to_lowercase).collect();
        if self.words.len() == WORDS_IN_A_PASSAGE {
            self.words.pop_front();
        }
        self.words.push_back(Word { start, normalised });
        let is_run = self.words.len() == WORDS_IN_A_PASSAGE
            && self.set.holds(self.words.iter().map(|word| &word.normalised));
        if is_run {
            let begin = self.words.front().map_or(start, |word| word.start);
            // Runs that overlap are one passage.
            if begin >= self.passage_end {
                self.give_until(begin, output);
                output.finding(self.action, "", &self.replacement)?;
            }
            self.passage_end = end;
        }
        Ok(())
    }

    /// Gives on what no run can begin in any more.
    fn give_decided(&mut self, output: &mut Output) {
        // The oldest of the last eleven words may still begin a run.
        let skipped = (self.words.len() + 1).saturating_sub(WORDS_IN_A_PASSAGE);
        let open = self.words.get(skipped).map(|word| word.start).or(self.begun).unwrap_or(self.seen);
        self.give_until(open.max(self.passage_end), output);
    }

    /// Gives on what stands before a place, without what belongs to a passage.
    fn give_until(&mut self, place: usize, output: &mut Output) {
        if place <= self.before {
            return;
        }
        let length = place - self.before;
        let of_passage = self.passage_end.clamp(self.before, place) - self.before;
        if self.action == Action::Flag {
            output.text.push_str(&self.buffer[..of_passage]);
        }
        output.text.push_str(&self.buffer[of_passage..length]);
        self.buffer.drain(..length);
        self.before = place;
    }
}

impl Stage for Passages {
    fn push(&mut self, text: &str, output: &mut Output) -> Result<(), Stop> {
        for character in text.chars() {
            self.look(character, output)?;
        }
        self.give_decided(output);
        Ok(())
    }

    fn finish(&mut self, output: &mut Output) -> Result<(), Stop> {
        self.end_word(self.seen, output)?;
        self.give_until(self.seen, output);
        Ok(())
    }

    fn holds_nothing(&self) -> bool {
        false
    }
}
