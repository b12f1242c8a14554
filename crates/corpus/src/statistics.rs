//! The counts of a corpus: what was read, kept, dropped and repaired, by language and reason.

use std::collections::BTreeMap;

use languages::Language;
use personal_data::PersonalData;
use serde::{Deserialize, Serialize};

use crate::balance::BalanceStatistics;
use crate::decontaminate::SetStatistics;
use crate::reason::{Reason, Repair};
use crate::score::ScoreStatistics;

/// Everything that `statistics.json` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// By ISO 639-1 code; `unknown` for documents whose language was neither identified nor credibly labelled when they
    /// were dropped.
    pub languages: BTreeMap<String, LanguageStatistics>,
    pub total: LanguageStatistics,
    /// Input files that were truncated or empty and skipped.
    pub damaged_files: u64,
    /// The evaluation sets that were looked for, by name, each with the outcome of its self-test.
    #[serde(default)]
    pub decontamination: BTreeMap<String, SetStatistics>,
    /// Scores by language, where documents were scored.
    #[serde(default)]
    pub scores: BTreeMap<String, ScoreStatistics>,
    /// The training part by language before and after it was balanced, where it was.
    #[serde(default)]
    pub balance: BTreeMap<String, BalanceStatistics>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LanguageStatistics {
    /// Records read: those kept and those dropped.
    pub read: u64,
    pub kept: u64,
    pub dropped: BTreeMap<Reason, u64>,
    /// Bytes of text lost to rights and personal data, by reason: of these texts nothing else is left.
    pub lost_bytes: BTreeMap<Reason, u64>,
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
/// The name of a source or licence where a record names none.
pub const NO_NAME: &str = "none";

impl Statistics {
    /// Statistics with an entry for each of these languages, present even where nothing was read.
    pub fn new(languages: &[Language]) -> Statistics {
        let languages =
            languages.iter().map(|language| (language.to_string(), LanguageStatistics::default()));
        Statistics { languages: languages.collect(), ..Statistics::default() }
    }

    /// That many documents were dropped.
    pub fn count_dropped(&mut self, language: Option<Language>, reason: Reason, documents: u64) {
        self.each(language, |counts| {
            counts.read += documents;
            *counts.dropped.entry(reason).or_insert(0) += documents;
        });
    }

    /// The bytes of a document of which nothing may be kept.
    pub fn count_lost(&mut self, language: Option<Language>, reason: Reason, bytes: u64) {
        self.each(language, |counts| *counts.lost_bytes.entry(reason).or_insert(0) += bytes);
    }

    /// A kept document; `source` and `license` as it names them.
    pub fn count_kept(
        &mut self,
        language: Language,
        size: PartStatistics,
        is_held_out: bool,
        source: &Option<String>,
        license: &Option<String>,
    ) {
        self.each(Some(language), |counts| {
            counts.read += size.documents;
            counts.kept += size.documents;
            let total = if is_held_out { &mut counts.heldout } else { &mut counts.train };
            total.add(size);
            for (names, name) in [(&mut counts.sources, source), (&mut counts.licenses, license)] {
                let name = name.as_deref().unwrap_or(NO_NAME);
                match names.get_mut(name) {
                    Some(count) => *count += size.documents,
                    None => {
                        names.insert(name.to_string(), size.documents);
                    }
                }
            }
        });
    }

    /// What was repaired in a kept document, and the placeholders in it.
    pub fn count_note(
        &mut self,
        language: Language,
        repairs: &[Repair],
        placeholders: &BTreeMap<PersonalData, u64>,
    ) {
        self.each(Some(language), |counts| {
            repairs.iter().for_each(|repair| *counts.repaired.entry(*repair).or_insert(0) += 1);
            placeholders
                .iter()
                .for_each(|(kind, count)| *counts.placeholders.entry(*kind).or_insert(0) += count);
        });
    }

    fn each(&mut self, language: Option<Language>, add: impl Fn(&mut LanguageStatistics)) {
        let name = language.map_or(UNKNOWN, Language::code);
        add(self.languages.entry(name.to_string()).or_default());
        add(&mut self.total);
    }
}

impl PartStatistics {
    pub fn add(&mut self, other: PartStatistics) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.characters += other.characters;
        self.words += other.words;
    }
}
