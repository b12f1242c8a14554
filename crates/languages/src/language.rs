//! `Language`: one of the 24 official EU languages, a small copyable value whose facts come from `data/<code>.toml`.
//!
//! The files are embedded and parsed once. A value of this type always names a known language: codes from outside
//! (recipes, documents, file names) go through [`Language::from_code`], whose error names the nearest known code.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::script::Script;

/// How many languages there are: the official languages of the European Union.
pub const LANGUAGE_COUNT: usize = 24;

/// One of the 24 official EU languages. Ordered, printed and serialised by its ISO 639-1 code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Language(u8);

impl Language {
    /// All 24, in the order of their ISO 639-1 codes.
    pub fn all() -> impl ExactSizeIterator<Item = Language> {
        (0..LANGUAGE_COUNT as u8).map(Language)
    }

    /// The language with this ISO 639-1 code (`mt`); the error names the nearest known code.
    pub fn from_code(code: &str) -> Result<Language, UnknownLanguage> {
        match SOURCES.binary_search_by(|(known, _)| (*known).cmp(code)) {
            Ok(position) => Ok(Language(position as u8)),
            Err(_) => Err(UnknownLanguage::new(code)),
        }
    }

    /// ISO 639-1, two letters: the code used in files, recipes and tables.
    pub fn code(self) -> &'static str {
        SOURCES[self.index()].0
    }

    /// ISO 639-3, three letters.
    pub fn code_iso_639_3(self) -> &'static str {
        &self.facts().iso_639_3
    }

    /// The name in English, such as `Irish`.
    pub fn english_name(self) -> &'static str {
        &self.facts().english_name
    }

    /// The name in the language itself, such as `Gaeilge`.
    pub fn own_name(self) -> &'static str {
        &self.facts().own_name
    }

    /// The script that the language is written in.
    pub fn script(self) -> Script {
        self.facts().script
    }

    /// The lower-case letters beyond `a` to `z` that the language writes its own words with.
    pub fn letters(self) -> &'static str {
        &self.facts().letters
    }

    /// Its most frequent function words, lower case, the most frequent first.
    pub fn stop_words(self) -> &'static [String] {
        &self.facts().stop_words
    }

    /// Whether `word` (lower case, as [`crate::words()`] gives it) is one of the stop words.
    pub fn is_stop_word(self, word: &str) -> bool {
        STOP_WORD_SETS[self.index()].contains(word)
    }

    /// Phrases of consent banners and page furniture: words in lower case with one space between them.
    pub fn service_phrases(self) -> &'static [String] {
        &self.facts().service_phrases
    }

    /// The limits that a document of the language has to keep in the corpus stage.
    pub fn thresholds(self) -> &'static Thresholds {
        &self.facts().thresholds
    }

    /// Position in [`Language::all`], `0..24`: for tables with one entry per language.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    fn facts(self) -> &'static Facts {
        &FACTS[self.index()]
    }
}

/// Quality limits of one language. Shares are between 0 and 1; `data/README.md` says how the numbers were found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Shortest document kept, in characters.
    pub minimum_characters: usize,
    /// Longest document kept, in characters.
    pub maximum_characters: usize,
    /// Lower bound of the mean word length, in characters per word.
    pub minimum_mean_word_length: f64,
    /// Upper bound of the mean word length, in characters per word.
    pub maximum_mean_word_length: f64,
    /// Most that characters other than letters, marks, white space and common punctuation may be of all characters.
    pub maximum_symbol_share: f64,
    /// Least that stop words must be of all words.
    pub minimum_stop_word_share: f64,
    /// Most that lines seen before in the document may be of its lines.
    pub maximum_repeated_line_share: f64,
    /// Most that the bytes of these lines may be of the bytes of all lines.
    pub maximum_repeated_line_byte_share: f64,
    /// Most that the most frequent word 2-, 3- and 4-gram may be of the letters.
    pub maximum_top_ngram_shares: [f64; 3],
    /// Most that word 5- to 10-grams seen before may be of the letters.
    pub maximum_repeated_ngram_shares: [f64; 6],
    /// Most that lines which break off with an ellipsis may be of the lines.
    pub maximum_ellipsis_line_share: f64,
    /// Least that lines which end as sentences do must be of the lines.
    pub minimum_finished_line_share: f64,
    /// Most that lines with a service phrase may be of the bytes of all lines.
    pub maximum_service_line_share: f64,
    /// Least that letters of the language's script must be of all letters.
    pub minimum_script_share: f64,
}

/// A code that is none of the 24.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{code}` is not one of the 24 official EU languages (ISO 639-1, two lower-case letters); the nearest known code is \
     `{nearest}` ({nearest_name})"
)]
pub struct UnknownLanguage {
    /// The code as it was given.
    pub code: String,
    /// The known code nearest to it.
    pub nearest: &'static str,
    /// The English name of that language.
    pub nearest_name: &'static str,
}

impl UnknownLanguage {
    fn new(code: &str) -> Self {
        let wanted = code.trim().to_lowercase();
        let nearest =
            Language::all().min_by_key(|language| language.distance_to(&wanted)).unwrap_or(Language(0));
        UnknownLanguage {
            code: code.to_owned(),
            nearest: nearest.code(),
            nearest_name: nearest.english_name(),
        }
    }
}

impl Language {
    /// How far `wanted` is from any of the language's codes and names; a shared first letter breaks ties.
    fn distance_to(self, wanted: &str) -> (usize, bool) {
        let primary = wanted.split(['-', '_']).next().unwrap_or(wanted);
        let facts = self.facts();
        let names = [
            self.code().to_owned(),
            facts.iso_639_3.clone(),
            facts.english_name.to_lowercase(),
            facts.own_name.to_lowercase(),
        ];
        let distance = names
            .iter()
            .flat_map(|name| [edit_distance(name, wanted), edit_distance(name, primary)])
            .min()
            .unwrap_or(usize::MAX);
        (distance, self.code().chars().next() != wanted.chars().next())
    }
}

/// Levenshtein distance in characters.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, left_char) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, right_char) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(left_char != *right_char);
            diagonal = row[column + 1];
            row[column + 1] = substituted.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

impl fmt::Display for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.code())
    }
}

impl fmt::Debug for Language {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code())
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        Language::from_code(code)
    }
}

impl Serialize for Language {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Language {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = String::deserialize(deserializer)?;
        Language::from_code(&code).map_err(serde::de::Error::custom)
    }
}

/// What a data file holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    iso_639_1: String,
    iso_639_3: String,
    english_name: String,
    own_name: String,
    script: Script,
    letters: String,
    stop_words: Vec<String>,
    service_phrases: Vec<String>,
    thresholds: Thresholds,
}

macro_rules! data_files {
    ($($code:literal)*) => {
        [$(($code, include_str!(concat!("../data/", $code, ".toml")))),*]
    };
}

/// The embedded data files, sorted by code.
static SOURCES: [(&str, &str); LANGUAGE_COUNT] = data_files!(
    "bg" "cs" "da" "de" "el" "en" "es" "et" "fi" "fr" "ga" "hr" "hu" "it" "lt" "lv" "mt" "nl" "pl" "pt" "ro" "sk" "sl" "sv"
);

static FACTS: LazyLock<Vec<Facts>> = LazyLock::new(|| {
    SOURCES
        .iter()
        .map(|(code, text)| {
            let facts: Facts = toml::from_str(text).unwrap_or_else(|error| {
                panic!("crates/languages/data/{code}.toml is built in and must parse: {error}")
            });
            assert_eq!(
                &facts.iso_639_1, code,
                "crates/languages/data/{code}.toml is filed under another code"
            );
            facts
        })
        .collect()
});

static STOP_WORD_SETS: LazyLock<Vec<BTreeSet<&'static str>>> = LazyLock::new(|| {
    FACTS.iter().map(|facts| facts.stop_words.iter().map(String::as_str).collect()).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_24_files_parse_and_agree_with_their_names() {
        let languages: Vec<Language> = Language::all().collect();
        assert_eq!(languages.len(), LANGUAGE_COUNT);
        for language in languages {
            assert_eq!(language.facts().iso_639_1, language.code());
            assert_eq!(Language::from_code(language.code()), Ok(language));
            assert_eq!(language.code_iso_639_3().len(), 3, "{language}");
            assert!((30..=60).contains(&language.stop_words().len()), "{language}");
            assert!(
                language.stop_words().iter().all(|word| crate::words(word).eq([word.clone()])),
                "{language}"
            );
            assert!((10..=20).contains(&language.service_phrases().len()), "{language}");
            for phrase in language.service_phrases() {
                assert_eq!(crate::words(phrase).collect::<Vec<_>>().join(" "), *phrase, "{language}");
            }
            assert!(
                language.letters().chars().all(|letter| letter.is_lowercase() && !letter.is_ascii()),
                "{language}"
            );
            assert!(
                language.letters().chars().all(|letter| Script::of(letter) == language.script()),
                "{language}"
            );
            let thresholds = language.thresholds();
            assert!(thresholds.minimum_characters < thresholds.maximum_characters, "{language}");
            assert!(thresholds.minimum_mean_word_length < thresholds.maximum_mean_word_length, "{language}");
        }
    }

    #[test]
    fn an_unknown_code_names_the_nearest() {
        let check = |code: &str, nearest: &str| {
            let error = Language::from_code(code).expect_err(code);
            assert_eq!(error.nearest, nearest, "{code}");
            assert!(error.to_string().contains(code));
        };
        check("EN", "en");
        check("gr", "ga");
        check("german", "de");
        check("mlt", "mt");
        check("pt-BR", "pt");
        check("Gaelige", "ga");
        check("", "bg");
    }

    #[test]
    fn a_language_is_serialised_by_its_code() {
        let language = Language::from_code("mt").unwrap();
        assert_eq!(serde_json::to_string(&language).unwrap(), "\"mt\"");
        assert_eq!(serde_json::from_str::<Language>("\"mt\"").unwrap(), language);
        assert!(serde_json::from_str::<Language>("\"xx\"").is_err());
    }
}
