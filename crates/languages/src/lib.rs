//! The 24 official languages of the European Union as data, and the identifier that tells them apart.
//!
//! Everything that differs from language to language (names, script, letters, stop words, quality thresholds) stands in
//! one file per language under `data/`, all 24 alike; nothing in the program has a default language. The identifier
//! knows the 24 and 14 neighbours that are easily confused with them, and answers `other` for the rest.

pub mod identifier;
mod language;
mod script;
mod words;

pub use identifier::{Candidate, Identification, Share, identify, identify_document, identify_paragraphs};
pub use language::{LANGUAGE_COUNT, Language, Thresholds, UnknownLanguage};
pub use script::Script;
pub use words::words;
