//! What a number is called: the words around it.

use std::borrow::Cow;
use std::ops::Range;

use languages::Language;

use super::PersonalData;
use super::lexicon::{Class, Lexicon};

/// What the words around a number say that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Phone,
    Identifier,
    Network,
    /// A bank account or a card.
    Account,
    /// An order, a book, a law, a version: nobody's.
    Other,
}

/// How far back words are looked at.
const BYTES_BEFORE: usize = 160;
const WORDS_BEFORE: usize = 10;
const BYTES_AFTER: usize = 60;
const WORDS_AFTER: usize = 3;
/// "order no. 123", "the order with the 123": beyond this many words `Other` says nothing.
const WORDS_TO_OTHER: usize = 2;

/// What the words before a number call it: the nearest name on the line, or on the line above when the number begins
/// its own.
pub fn name_before(text: &str, place: usize, language: Option<Language>) -> Option<Name> {
    let lexicon = Lexicon::of(language);
    let line = line_before(text, place);
    if !may_hold_words(line) {
        return None;
    }
    let mut distance = 0;
    let words = words(line);
    let mut before = words.iter().rev().peekable();
    while let Some(word) = before.next() {
        match lexicon.class(word) {
            // "identity card"
            Some(Class::Name(Name::Account))
                if before.peek().and_then(|word| lexicon.class(word))
                    == Some(Class::Name(Name::Identifier)) =>
            {
                return Some(Name::Identifier);
            }
            Some(Class::Name(Name::Other)) if distance > WORDS_TO_OTHER => distance += 1,
            Some(Class::Name(name)) => return Some(name),
            Some(Class::Number) => (),
            // Numbers count for nothing, as the placeholders that may stand for them.
            None if !may_hold_words(word) => (),
            None => distance += 1,
        }
        if distance >= WORDS_BEFORE {
            break;
        }
    }
    None
}

/// Whether the last word before a number names a telephone, numbers and the like aside: "Tel.", "phone no."
pub fn names_phone_right_before(text: &str, place: usize, language: Option<Language>) -> bool {
    let lexicon = Lexicon::of(language);
    let words = words(line_before(text, place));
    let mut classes = words.iter().rev().map(|word| lexicon.class(word));
    classes.find(|class| *class != Some(Class::Number)).flatten() == Some(Class::Name(Name::Phone))
}

/// What the words after a number call it: "(mobile)", "… számon hívható", "… számú rendelés".
pub fn name_after(text: &str, place: usize, language: Option<Language>) -> Option<Name> {
    let lexicon = Lexicon::of(language);
    let after = &text[place..floor(text, place + BYTES_AFTER)];
    let trimmed = after.trim_start_matches([' ', '\u{A0}']);
    if !trimmed.trim_start_matches(['(', '[', '-', '–']).starts_with(char::is_alphabetic) {
        return None;
    }
    let (clause, in_brackets) = match trimmed.strip_prefix(['(', '[']) {
        Some(inner) => (inner.split([')', ']', '\n']).next().unwrap_or_default(), true),
        None => {
            (after.split(['.', ',', ';', ':', '!', '?', '(', ')', '\n']).next().unwrap_or_default(), false)
        }
    };
    let mut distance = 0;
    for word in words(clause).iter().take(2 * WORDS_AFTER) {
        match lexicon.class(word) {
            _ if lexicon.names_phone_after(word) => return Some(Name::Phone),
            // "v", "k", "n" are prepositions somewhere.
            Some(Class::Name(_)) if word.chars().count() == 1 => distance += 1,
            Some(Class::Name(Name::Phone)) if in_brackets && distance == 0 => return Some(Name::Phone),
            Some(Class::Name(Name::Identifier)) => return Some(Name::Identifier),
            Some(Class::Name(Name::Other)) if distance == 0 => return Some(Name::Other),
            Some(Class::Number) => (),
            _ => distance += 1,
        }
        if distance >= WORDS_AFTER {
            break;
        }
    }
    None
}

/// Whether a currency or a unit stands beside the number.
pub fn is_amount(text: &str, range: &Range<usize>, language: Option<Language>) -> bool {
    const SIGNS: [char; 6] = ['€', '$', '£', '¥', '%', '‰'];
    if text[..range.start].trim_end_matches([' ', '\u{A0}', '\u{202F}']).ends_with(SIGNS) {
        return true;
    }
    let after =
        text[range.end..floor(text, range.end + BYTES_AFTER)].trim_start_matches([' ', '\u{A0}', '\u{202F}']);
    if after.starts_with(SIGNS) {
        return true;
    }
    let word = after.split(|character: char| !character.is_alphanumeric()).next().unwrap_or_default();
    !word.is_empty() && Lexicon::of(language).is_unit(&word.to_lowercase())
}

/// The nearest character boundary not behind `place`.
fn floor(text: &str, place: usize) -> usize {
    let mut place = place.min(text.len());
    while !text.is_char_boundary(place) {
        place -= 1;
    }
    place
}

fn line_before(text: &str, place: usize) -> &str {
    let window = &text[floor(text, place.saturating_sub(BYTES_BEFORE))..place];
    let Some(line_break) = window.rfind('\n') else { return window };
    let line = &window[line_break + 1..];
    if line.chars().any(char::is_alphanumeric) {
        return line;
    }
    let above = &window[..line_break];
    &above[above.rfind('\n').map_or(0, |line_break| line_break + 1)..]
}

/// Tables of numbers hold none.
pub fn may_hold_words(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic() || !byte.is_ascii())
}

fn without_placeholders(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    if text.contains('<') {
        for kind in PersonalData::ALL {
            if text.contains(kind.placeholder()) {
                text = Cow::Owned(text.replace(kind.placeholder(), ""));
            }
        }
    }
    text
}

/// The words of a stretch of text in lower case; single letters with full stops between them are one word. The
/// placeholders of earlier findings are no words.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let text = without_placeholders(text);
    let mut is_initial_before = false;
    for piece in text.split_inclusive(|character: char| !character.is_alphanumeric()) {
        let word = piece.trim_end_matches(|character: char| !character.is_alphanumeric());
        if word.is_empty() {
            is_initial_before &= piece == " ";
            continue;
        }
        let is_single = word.chars().count() == 1;
        match words.last_mut() {
            Some(last) if is_single && is_initial_before => last.push_str(&word.to_lowercase()),
            _ => words.push(word.to_lowercase()),
        }
        is_initial_before = is_single && piece.ends_with('.');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(language: &str, text: &str, expected: Option<Name>) {
        let language = Language::from_code(language).unwrap();
        assert_eq!(name_before(text, text.len(), Some(language)), expected, "{text}");
    }

    #[test]
    fn the_nearest_name_counts() {
        check("en", "Tel.: ", Some(Name::Phone));
        check("en", "call Anna about the book, ", Some(Name::Phone));
        check("en", "Tel. 1, order no. ", Some(Name::Other));
        check("el", "το Α.Φ.Μ. της είναι ", Some(Name::Identifier));
        check("cs", "R. č.: ", Some(Name::Identifier));
        check("da", "CPR-nummer er ", Some(Name::Identifier));
        check("bg", "тел.\n", Some(Name::Phone));
        check("bg", "тел.\n\n", None);
        check("fr", "une version de deux cents pages, ", Some(Name::Other));
        check("fr", "une version que nous avons vue ", None);
    }

    #[test]
    fn units_and_currencies() {
        let language = Language::from_code("hu").unwrap();
        let amount = |text: &str, range| is_amount(text, &range, Some(language));
        assert!(amount("1 234 567 Ft", 0..9));
        assert!(amount("€ 1 234 567", 4..13));
        assert!(!amount("20 123 4567", 0..11));
    }
}
