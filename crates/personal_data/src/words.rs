//! What a number is called: the words around it, by the lists in `data/words/`, one file per language, all 24 alike.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use languages::{LANGUAGE_COUNT, Language};
use serde::Deserialize;

use super::PersonalData;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Name(Name),
    /// May stand between a name and its number.
    Number,
}

/// The words of one language and of everywhere.
#[derive(Default)]
struct Lexicon {
    classes: WordMap<Class>,
    phone_after: WordMap<()>,
    units: WordMap<()>,
}

/// Whole words, and beginnings of words.
struct WordMap<T> {
    whole: HashMap<String, T>,
    beginnings: HashMap<String, T>,
}

impl<T> Default for WordMap<T> {
    fn default() -> Self {
        WordMap { whole: HashMap::new(), beginnings: HashMap::new() }
    }
}

impl<T: Copy> WordMap<T> {
    /// What was said first of a word stays.
    fn add(&mut self, words: &[String], value: T) {
        for word in words {
            match word.strip_suffix('*') {
                Some(beginning) => self.beginnings.entry(beginning.to_string()).or_insert(value),
                None => self.whole.entry(word.clone()).or_insert(value),
            };
        }
    }

    fn get(&self, word: &str) -> Option<T> {
        let by_beginning = || {
            let ends = word.char_indices().map(|(place, character)| place + character.len_utf8());
            ends.filter_map(|end| self.beginnings.get(&word[..end]).copied()).next_back()
        };
        self.whole.get(word).copied().or_else(by_beginning)
    }
}

impl Lexicon {
    fn of(language: Option<Language>) -> &'static Lexicon {
        &LEXICONS[language.map_or(LANGUAGE_COUNT, Language::index)]
    }

    fn add(&mut self, lists: &Lists) {
        self.classes.add(&lists.phone, Class::Name(Name::Phone));
        self.classes.add(&lists.identifier, Class::Name(Name::Identifier));
        self.classes.add(&lists.network, Class::Name(Name::Network));
        self.classes.add(&lists.account, Class::Name(Name::Account));
        self.classes.add(&lists.other, Class::Name(Name::Other));
        self.classes.add(&lists.number, Class::Number);
        self.phone_after.add(&lists.phone_after, ());
        self.units.add(&lists.unit, ());
    }

    fn class(&self, word: &str) -> Option<Class> {
        self.classes.get(word)
    }

    fn names_phone_after(&self, word: &str) -> bool {
        self.phone_after.get(word).is_some()
    }

    fn is_unit(&self, word: &str) -> bool {
        self.units.get(word).is_some()
    }
}

/// What a file holds; `data/words/README.md` says what each key means.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    phone: Vec<String>,
    phone_after: Vec<String>,
    identifier: Vec<String>,
    network: Vec<String>,
    account: Vec<String>,
    other: Vec<String>,
    number: Vec<String>,
    unit: Vec<String>,
}

macro_rules! files {
    ($($code:literal)*) => {
        [$(($code, include_str!(concat!("../data/words/", $code, ".toml")))),*]
    };
}

static EVERYWHERE: [(&str, &str); 1] = files!("everywhere");

/// In the order of the codes, as `Language::index`.
static FILES: [(&str, &str); LANGUAGE_COUNT] = files!(
    "bg" "cs" "da" "de" "el" "en" "es" "et" "fi" "fr" "ga" "hr" "hu" "it" "lt" "lv" "mt" "nl" "pl" "pt" "ro" "sk" "sl" "sv"
);

/// One for each language, and last the one of texts whose language is not known: all words.
static LEXICONS: LazyLock<Vec<Lexicon>> = LazyLock::new(|| {
    let read = |(code, text): &(&str, &str)| -> Lists {
        toml::from_str(text).unwrap_or_else(|error| {
            panic!("crates/personal_data/data/words/{code}.toml is built in and must parse: {error}")
        })
    };
    let everywhere = read(&EVERYWHERE[0]);
    let lists: Vec<Lists> = FILES.iter().map(read).collect();
    let lexicon = |lists: &[Lists]| {
        let mut lexicon = Lexicon::default();
        lists.iter().for_each(|lists| lexicon.add(lists));
        lexicon.add(&everywhere);
        lexicon
    };
    lists.iter().map(std::slice::from_ref).chain([lists.as_slice()]).map(lexicon).collect()
});

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
    fn all_24_files_say_something() {
        assert_eq!(LEXICONS.len(), LANGUAGE_COUNT + 1);
        for ((code, _), lexicon) in FILES.iter().zip(&*LEXICONS) {
            assert_eq!(
                Language::from_code(code).unwrap().index(),
                FILES.iter().position(|(other, _)| other == code).unwrap()
            );
            assert!(lexicon.classes.whole.keys().all(|word| *word == word.to_lowercase()), "{code}");
        }
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
