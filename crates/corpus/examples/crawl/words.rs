//! Text without end from a little text: sentences that go from word to word as the bundled sample does.
//!
//! Each next word is one that followed the last one somewhere in the sample, so the words, their frequencies and their
//! order are those of the language, while two texts share next to no five words in a row.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use languages::Language;
use serde_json::Value;

use crate::random::Random;

/// Longest sentence, in words.
const SENTENCE_WORDS: usize = 28;

/// The words of a language and what may follow each.
pub struct Words {
    words: Vec<String>,
    /// Of each word, the places in the sample right behind it.
    after: Vec<Vec<u32>>,
    beginnings: Vec<u32>,
}

impl Words {
    /// From the documents of the bundled sample.
    pub fn of(language: Language, sample: &Path) -> Result<Words, String> {
        let path = sample.join(format!("documents/{language}.jsonl"));
        let json = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut words = Words { words: Vec::new(), after: Vec::new(), beginnings: Vec::new() };
        let mut numbers: HashMap<String, u32> = HashMap::new();
        for line in json.lines() {
            let document: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
            let mut last: Option<u32> = None;
            for word in document["text"].as_str().unwrap_or_default().split_whitespace() {
                let number = *numbers.entry(word.to_string()).or_insert(words.words.len() as u32);
                if number as usize == words.words.len() {
                    words.words.push(word.to_string());
                    words.after.push(Vec::new());
                }
                match last {
                    Some(last) => words.after[last as usize].push(number),
                    None => words.beginnings.push(number),
                }
                last = if ends_sentence(word) { None } else { Some(number) };
            }
        }
        Ok(words)
    }

    /// A sentence: a capital at its head is the sample's own.
    pub fn sentence(&self, random: &mut Random, out: &mut String) {
        let mut word = self.beginnings[random.below(self.beginnings.len())];
        for place in 0..SENTENCE_WORDS {
            if place > 0 {
                out.push(' ');
            }
            *out += &self.words[word as usize];
            // Every few words the sentence goes on from another place where this word stands, or from any word at all: the
            // sample is too small to be walked through word by word.
            let after = &self.after[word as usize];
            if ends_sentence(&self.words[word as usize]) || after.is_empty() {
                return;
            }
            word = match random.below(6) {
                0 => random.below(self.words.len()) as u32,
                _ => after[random.below(after.len())],
            };
        }
        out.push('.');
    }

    /// Paragraphs of three to six sentences, until there are so many words.
    pub fn text(&self, random: &mut Random, words: usize) -> String {
        let mut text = String::with_capacity(words * 8);
        let mut written = 0;
        while written < words {
            if !text.is_empty() {
                text += "\n\n";
            }
            for sentence in 0..3 + random.below(4) {
                if sentence > 0 {
                    text.push(' ');
                }
                let before = text.len();
                self.sentence(random, &mut text);
                written += text[before..].split(' ').count();
            }
        }
        text
    }

    /// Any word.
    pub fn word(&self, random: &mut Random) -> &str {
        &self.words[random.below(self.words.len())]
    }
}

fn ends_sentence(word: &str) -> bool {
    word.trim_end_matches(['"', '”', '“', '»', '’', ')']).ends_with(['.', '!', '?', ';'])
}
