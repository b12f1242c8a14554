//! Is this prose? Limits on what can be counted, by language: the rules of MassiveText (Rae et al. 2021, "Scaling Language
//! Models: Methods, Analysis & Insights from Training Gopher", appendix A), with thresholds from the data files of
//! `languages` instead of English ones for all.

use std::collections::HashSet;

use languages::{Language, Script, words};

use crate::fingerprint::{hash_of_sequence, hash_of_text};
use crate::reason::{Drop, Reason};

const NGRAM_WORDS: usize = 5;
/// Fewer lines than this show no habit.
const MINIMUM_LINES: usize = 4;

/// Nothing where the text is good enough, else the first limit that it breaks.
pub fn fault(text: &str, language: Language, maximum_list_line_share: f64) -> Option<Drop> {
    let limits = language.thresholds();
    let characters = text.chars().count();
    if characters < limits.minimum_characters {
        return Some(Drop::measured(Reason::TooShort, characters as f64, limits.minimum_characters as f64));
    }
    if characters > limits.maximum_characters {
        return Some(Drop::measured(Reason::TooLong, characters as f64, limits.maximum_characters as f64));
    }
    let lines = Lines::of(text);
    let words = Words::of(text, language);
    let above = [
        (Reason::Symbols, symbol_share(text, characters), limits.maximum_symbol_share),
        (Reason::ListLines, lines.list_share, maximum_list_line_share),
        (Reason::RepeatedLines, lines.repeated_share, limits.maximum_repeated_line_share),
        (Reason::RepeatedNgrams, words.repeated_ngram_share, limits.maximum_repeated_ngram_share),
        (Reason::WordLength, words.mean_length, limits.maximum_mean_word_length),
    ];
    let below = [
        (Reason::Script, script_share(text, language), limits.minimum_script_share),
        (Reason::WordLength, words.mean_length, limits.minimum_mean_word_length),
        (Reason::StopWords, words.stop_word_share, limits.minimum_stop_word_share),
    ];
    let too_high = above.into_iter().find(|(_, value, limit)| value > limit);
    let too_low = || below.into_iter().find(|(_, value, limit)| value < limit);
    too_high.or_else(too_low).map(|(reason, value, limit)| Drop::measured(reason, value, limit))
}

struct Lines {
    /// Lines that were seen before in the text, of all lines that are not blank.
    repeated_share: f64,
    /// Lines of lists and menus.
    list_share: f64,
}

impl Lines {
    fn of(text: &str) -> Lines {
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if lines.len() < MINIMUM_LINES {
            return Lines { repeated_share: 0.0, list_share: 0.0 };
        }
        let mut seen = HashSet::new();
        let repeated = lines.iter().filter(|line| !seen.insert(**line)).count();
        let listed = lines.iter().filter(|line| is_list_line(line)).count();
        let share = |count: usize| count as f64 / lines.len() as f64;
        Lines { repeated_share: share(repeated), list_share: share(listed) }
    }
}

/// An entry of a list or a menu: it begins with a bullet, has bars in it, or is a few words that end in no punctuation.
fn is_list_line(line: &str) -> bool {
    const SHORT_WORDS: usize = 6;
    line.starts_with(['•', '·', '*', '‣', '▪', '●', '►', '›'])
        || line.contains(" | ")
        || line.ends_with('…') && line.contains("...")
        || line.ends_with(char::is_alphanumeric) && line.split_whitespace().nth(SHORT_WORDS).is_none()
}

struct Words {
    mean_length: f64,
    stop_word_share: f64,
    /// Characters in words of 5-grams that stood before, of the characters of all words.
    repeated_ngram_share: f64,
}

impl Words {
    fn of(text: &str, language: Language) -> Words {
        let (mut hashes, mut lengths, mut stop_words) = (Vec::new(), Vec::new(), 0usize);
        for word in words(text) {
            stop_words += usize::from(language.is_stop_word(&word));
            hashes.push(hash_of_text(&word));
            lengths.push(word.chars().count());
        }
        let (count, characters) = (lengths.len().max(1) as f64, lengths.iter().sum::<usize>().max(1) as f64);
        let mut seen = HashSet::new();
        let mut repeated = vec![false; lengths.len()];
        for (place, ngram) in hashes.windows(NGRAM_WORDS).enumerate() {
            if !seen.insert(hash_of_sequence(ngram)) {
                repeated[place..place + NGRAM_WORDS].fill(true);
            }
        }
        let in_repeated: usize =
            lengths.iter().zip(&repeated).filter(|(_, repeated)| **repeated).map(|(length, _)| length).sum();
        Words {
            mean_length: characters / count,
            stop_word_share: stop_words as f64 / count,
            repeated_ngram_share: in_repeated as f64 / characters,
        }
    }
}

/// Characters that are no letters, marks, white space or common punctuation. Placeholders count as the words they are.
fn symbol_share(text: &str, characters: usize) -> f64 {
    let symbols = text.chars().filter(|&character| !is_plain(character)).count();
    symbols as f64 / characters.max(1) as f64
}

fn is_plain(character: char) -> bool {
    character.is_alphabetic()
        || character.is_whitespace()
        || matches!(character,
            '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '"' | '(' | ')' | '-' | '\u{300}'..='\u{36F}' | '\u{2010}'..='\u{2026}'
            | '«' | '»' | '‹' | '›' | '·' | '¿' | '¡' | '\u{37E}' | '\u{387}' | '<' | '>' | '_')
}

/// Letters of the language's script, of all letters.
fn script_share(text: &str, language: Language) -> f64 {
    let (mut letters, mut own) = (0usize, 0usize);
    for character in text.chars().filter(|character| character.is_alphabetic()) {
        letters += 1;
        own += usize::from(Script::of(character) == language.script());
    }
    own as f64 / letters.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROSE: &str = "Morgens um sechs öffnet die Bäckerin den Laden, und der Duft von frischem Brot zieht durch die \
        ganze Straße. Zuerst kommen die Nachbarn, die zur Arbeit müssen, dann die Kinder mit ihren Schulranzen. Am \
        Nachmittag ist es ruhiger; nur der alte Herr aus dem Eckhaus sitzt am Fenster und liest in der Zeitung.";

    fn check(text: &str, expected: Option<Reason>) {
        let language = Language::from_code("de").unwrap();
        assert_eq!(fault(text, language, 0.5).map(|drop| drop.reason), expected, "{text}");
    }

    #[test]
    fn prose_passes() {
        check(PROSE, None);
        check(&PROSE.replace(". ", ".\n\n"), None);
    }

    #[test]
    fn each_limit_has_its_reason() {
        check("Zu kurz.", Some(Reason::TooShort));
        check(&PROSE.repeat(5_000), Some(Reason::TooLong));
        check(&format!("{PROSE}\n").repeat(4), Some(Reason::RepeatedLines));
        check(&PROSE.repeat(3), Some(Reason::RepeatedNgrams));
        check(&"Start\nNachrichten\nSport\nWetter heute\nKontakt\nImpressum\nDatenschutz und Cookies\nAnmelden\n".repeat(4), Some(Reason::ListLines));
        check(&format!("{PROSE} {}", "=#+ {} 12345 ".repeat(30)), Some(Reason::Symbols));
        check(
            &"Η θάλασσα ήταν ήρεμη και ο ήλιος έλαμπε πάνω από το λιμάνι. "
                .repeat(5)
                .replace("λιμάνι. ", "λιμάνι, "),
            Some(Reason::RepeatedNgrams),
        );
        check(&PROSE.replace(['a', 'e', 'i', 'n'], "λ"), Some(Reason::Script));
        check(
            &(0..60)
                .map(|n| format!("Wort{} ", char::from(b'a' + n % 26)).repeat(1 + usize::from(n) / 26))
                .collect::<String>(),
            Some(Reason::StopWords),
        );
        check(
            &(0..26)
                .map(|n| format!("Donaudampfschifffahrts{}gesellschaft ", char::from(b'a' + n)))
                .collect::<String>(),
            Some(Reason::WordLength),
        );
    }
}
