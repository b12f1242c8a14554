//! The counts of a corpus: what was read, kept, dropped and repaired, by language and reason.

use std::collections::{BTreeMap, HashSet};

use documents::Document;
use languages::Language;
use personal_data::PersonalData;
use serde::{Deserialize, Serialize};

use crate::reason::{Reason, Repair};

/// Everything that `statistics.json` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// By ISO 639-1 code; `unknown` for documents whose language was neither identified nor credibly labelled when they
    /// were dropped.
    pub languages: BTreeMap<String, LanguageStatistics>,
    pub total: LanguageStatistics,
    /// Input files that were truncated or empty and skipped.
    pub damaged_files: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LanguageStatistics {
    /// Records read: those kept and those dropped.
    pub read: u64,
    pub kept: u64,
    pub dropped: BTreeMap<Reason, u64>,
    /// Kept documents that were repaired, by what was repaired.
    pub repaired: BTreeMap<Repair, u64>,
    /// Placeholders in kept documents, by what they stand for.
    pub placeholders: BTreeMap<PersonalData, u64>,
    pub train: PartStatistics,
    pub heldout: PartStatistics,
    /// Kept documents by source and by licence; `none` where a record names none.
    pub sources: BTreeMap<String, u64>,
    pub licenses: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartStatistics {
    pub documents: u64,
    /// Bytes, characters and words of the texts.
    pub bytes: u64,
    pub characters: u64,
    pub words: u64,
}

/// The name under which documents of no known language are counted.
const UNKNOWN: &str = "unknown";

impl Statistics {
    /// Statistics with an entry for each of these languages, present even where nothing was read.
    pub fn new(languages: &[Language]) -> Statistics {
        let languages =
            languages.iter().map(|language| (language.to_string(), LanguageStatistics::default()));
        Statistics { languages: languages.collect(), ..Statistics::default() }
    }

    pub fn count_dropped(&mut self, language: Option<Language>, reason: Reason) {
        self.each(language, |counts| {
            counts.read += 1;
            *counts.dropped.entry(reason).or_insert(0) += 1;
        });
    }

    pub fn count_kept(
        &mut self,
        language: Language,
        document: &Document,
        is_held_out: bool,
        repairs: &HashSet<Repair>,
        placeholders: &BTreeMap<PersonalData, u64>,
    ) {
        let part = PartStatistics {
            documents: 1,
            bytes: document.text.len() as u64,
            characters: document.text.chars().count() as u64,
            words: languages::words(&document.text).count() as u64,
        };
        let name = |field: &Option<String>| field.clone().unwrap_or_else(|| "none".to_string());
        self.each(Some(language), |counts| {
            counts.read += 1;
            counts.kept += 1;
            let total = if is_held_out { &mut counts.heldout } else { &mut counts.train };
            total.add(part);
            repairs.iter().for_each(|repair| *counts.repaired.entry(*repair).or_insert(0) += 1);
            placeholders
                .iter()
                .for_each(|(kind, count)| *counts.placeholders.entry(*kind).or_insert(0) += count);
            *counts.sources.entry(name(&document.source)).or_insert(0) += 1;
            *counts.licenses.entry(name(&document.license)).or_insert(0) += 1;
        });
    }

    fn each(&mut self, language: Option<Language>, add: impl Fn(&mut LanguageStatistics)) {
        let name = language.map_or(UNKNOWN, Language::code);
        add(self.languages.entry(name.to_string()).or_default());
        add(&mut self.total);
    }
}

impl PartStatistics {
    fn add(&mut self, other: PartStatistics) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.characters += other.characters;
        self.words += other.words;
    }
}
