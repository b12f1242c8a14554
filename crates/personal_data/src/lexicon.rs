//! Words that name numbers, by the lists in `data/words/`: one file per language, all 24 alike.

use std::collections::HashMap;
use std::sync::LazyLock;

use languages::{LANGUAGE_COUNT, Language};
use serde::Deserialize;

use super::words::Name;

/// What a word says of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Name(Name),
    /// May stand between a name and its number.
    Number,
}

/// The words of one language and of everywhere.
#[derive(Default)]
pub struct Lexicon {
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
    pub fn of(language: Option<Language>) -> &'static Lexicon {
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

    pub fn class(&self, word: &str) -> Option<Class> {
        self.classes.get(word)
    }

    pub fn names_phone_after(&self, word: &str) -> bool {
        self.phone_after.get(word).is_some()
    }

    pub fn is_unit(&self, word: &str) -> bool {
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
}
