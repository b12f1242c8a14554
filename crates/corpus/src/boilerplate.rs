//! Paragraphs that stand in many documents: cookie notices, menus, imprints. They say nothing about any of them, so they
//! are taken out of all of them, and what is left of a document is judged by itself.
//!
//! Only paragraphs that can hardly recur by chance count: at least eight words, or a menu (words between bars or bullets).
//! "Dear Sir or Madam," may open as many letters as it likes.

use std::collections::HashSet;

use bytemuck::{Pod, Zeroable};

use crate::error::Error;
use crate::holding::Holding;
use crate::runs;
use crate::words::{Line, Words, hash_of_sequence};

/// Shorter sentences recur honestly: greetings, proverbs, headings.
const MINIMUM_WORDS: u32 = 8;
const MINIMUM_MENU_SEPARATORS: u32 = 2;

/// A paragraph to take out of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Removal {
    pub document: u64,
    pub paragraph: u64,
}

/// The keys of the paragraphs of a text that may be boilerplate.
pub fn paragraph_keys(words: &Words, keys: &mut Vec<u64>) {
    keys.extend(words.lines.iter().filter_map(|line| key(words, line)));
}

/// The paragraphs that stand in at least `minimum` of the documents that are not `gone`, document by document.
pub fn find(holding: &Holding, gone: &[bool], minimum: u32) -> Result<Vec<Removal>, Error> {
    if minimum == 0 {
        return Ok(Vec::new());
    }
    let ranges = runs::by_ranges(holding, "paragraphs", |entries| {
        let mut found: Vec<Removal> = Vec::new();
        for group in runs::groups(entries, minimum as usize) {
            let alive = group.iter().filter(|entry| !gone[entry.document as usize]);
            if alive.clone().count() >= minimum as usize {
                found.extend(
                    alive.map(|entry| Removal { document: entry.document.into(), paragraph: entry.key }),
                );
            }
        }
        Ok(found)
    })?;
    let mut removals = ranges.concat();
    removals.sort_unstable();
    Ok(removals)
}

/// The text without these paragraphs.
pub fn removed(text: &str, paragraphs: &HashSet<u64>) -> String {
    let words = Words::of(text);
    let mut kept = String::with_capacity(text.len());
    for line in &words.lines {
        if key(&words, line).is_some_and(|key| paragraphs.contains(&key)) {
            continue;
        }
        let line = &text[line.start as usize..line.end as usize];
        // Where a paragraph went, its two blank lines become one.
        if line.trim().is_empty() && (kept.is_empty() || kept.ends_with("\n\n")) {
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept.truncate(kept.trim_end().len());
    kept
}

/// The key of a line that may be boilerplate: its words, whatever stands between them.
fn key(words: &Words, line: &Line) -> Option<u64> {
    let count = line.last_word - line.first_word;
    let counts = count >= MINIMUM_WORDS || count > 0 && line.separators >= MINIMUM_MENU_SEPARATORS;
    counts.then(|| hash_of_sequence(&words.hashes[line.first_word as usize..line.last_word as usize]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTICE: &str = "Този сайт използва бисквитки, за да ви предложи най-доброто изживяване.";

    fn keys(text: &str) -> HashSet<u64> {
        let mut keys = Vec::new();
        paragraph_keys(&Words::of(text), &mut keys);
        keys.into_iter().collect()
    }

    #[test]
    fn paragraphs_go_and_leave_one_blank_line() {
        let text = format!("Начало | Новини | Контакти\n\nТекст 1.\n\n{NOTICE}\n\nКрай.");
        let found = keys(&text);
        assert_eq!(found.len(), 2);
        assert_eq!(removed(&text, &found), "Текст 1.\n\nКрай.");
        assert_eq!(removed("Текст без повторения.", &found), "Текст без повторения.");
        assert_eq!(removed(NOTICE, &found), "");
    }

    #[test]
    fn greetings_do_not_count_and_spacing_makes_no_difference() {
        assert!(keys("Sehr geehrte Damen und Herren,\n\nBrief.").is_empty());
        assert!(keys("|||\n- - -").is_empty());
        assert_eq!(keys(NOTICE), keys(&NOTICE.replace(' ', "  ").to_uppercase()));
        assert_ne!(keys(NOTICE), keys(&format!("{NOTICE} Да?")));
    }
}
