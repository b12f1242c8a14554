//! Paragraphs that stand in many documents: cookie notices, menus, imprints. They say nothing about any of them, so they
//! are taken out of all of them, and what is left of a document is judged by itself.
//!
//! Only paragraphs that can hardly recur by chance count: at least eight words, or a menu (words between bars or bullets).
//! "Dear Sir or Madam," may open as many letters as it likes.

use std::collections::{HashMap, HashSet};

use crate::fingerprint::hash_of_text;

/// Shorter sentences recur honestly: greetings, proverbs, headings.
const MINIMUM_WORDS: usize = 8;
/// What stands between the entries of a menu.
const MENU_SEPARATORS: [char; 5] = ['|', '·', '•', '›', '/'];
const MINIMUM_MENU_SEPARATORS: usize = 2;

/// How many documents each paragraph stands in.
#[derive(Default)]
pub struct ParagraphCounts {
    counts: HashMap<u64, u32>,
}

/// The paragraphs that are removed from every document.
pub struct Boilerplate {
    paragraphs: HashSet<u64>,
}

/// The keys of the paragraphs of a text that may be boilerplate, each once.
pub fn paragraph_keys(text: &str) -> HashSet<u64> {
    text.lines().filter(|line| may_be_boilerplate(line)).map(key).collect()
}

impl ParagraphCounts {
    pub fn add(&mut self, keys: HashSet<u64>) {
        for key in keys {
            *self.counts.entry(key).or_insert(0) += 1;
        }
    }

    /// What stands in at least `documents` documents; nothing where that is 0.
    pub fn boilerplate(self, documents: u32) -> Boilerplate {
        let repeated = self.counts.into_iter().filter(|(_, count)| documents > 0 && *count >= documents);
        Boilerplate { paragraphs: repeated.map(|(key, _)| key).collect() }
    }
}

impl Boilerplate {
    /// The text without boilerplate; `None` where there is none in it.
    pub fn removed_from(&self, text: &str) -> Option<String> {
        let is_boilerplate = |line: &&str| may_be_boilerplate(line) && self.paragraphs.contains(&key(line));
        if self.paragraphs.is_empty() || !text.lines().any(|line| is_boilerplate(&line)) {
            return None;
        }
        let mut kept = String::with_capacity(text.len());
        for line in text.lines().filter(|line| !is_boilerplate(line)) {
            // Where a paragraph went, its two blank lines become one.
            if line.trim().is_empty() && (kept.is_empty() || kept.ends_with("\n\n")) {
                continue;
            }
            kept.push_str(line);
            kept.push('\n');
        }
        Some(kept.trim_end().to_string())
    }
}

fn may_be_boilerplate(line: &str) -> bool {
    line.split_whitespace().nth(MINIMUM_WORDS - 1).is_some()
        || line.chars().filter(|character| MENU_SEPARATORS.contains(character)).count()
            >= MINIMUM_MENU_SEPARATORS
}

fn key(line: &str) -> u64 {
    let mut words = String::with_capacity(line.len());
    for word in line.split_whitespace() {
        words.push_str(word);
        words.push(' ');
    }
    hash_of_text(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICE: &str = "Този сайт използва бисквитки, за да ви предложи най-доброто изживяване.";

    fn boilerplate(texts: &[String]) -> Boilerplate {
        let mut counts = ParagraphCounts::default();
        texts.iter().for_each(|text| counts.add(paragraph_keys(text)));
        counts.boilerplate(3)
    }

    #[test]
    fn what_stands_in_three_documents_goes_from_all() {
        let texts: Vec<String> = (0..3)
            .map(|n| format!("Начало | Новини | Контакти\n\nТекст {n}.\n\n{NOTICE}\n\nКрай."))
            .collect();
        let found = boilerplate(&texts);
        assert_eq!(found.removed_from(&texts[1]).unwrap(), "Текст 1.\n\nКрай.");
        assert_eq!(found.removed_from("Текст без повторения."), None);
        assert_eq!(found.removed_from(NOTICE).unwrap(), "");
    }

    #[test]
    fn greetings_and_rare_paragraphs_stay() {
        let letters: Vec<String> =
            (0..9).map(|n| format!("Sehr geehrte Damen und Herren,\n\nBrief {n}.")).collect();
        assert_eq!(boilerplate(&letters).removed_from(&letters[0]), None);
        let two = vec![NOTICE.to_string(), NOTICE.to_string(), format!("{NOTICE}?")];
        assert_eq!(boilerplate(&two).removed_from(NOTICE), None);
    }
}
