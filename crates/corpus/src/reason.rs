//! Why a document was dropped, and what was repaired in one that was kept: the words of the statistics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Why a document was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No licence is named, and the settings give none.
    LicenseMissing,
    /// The licence is not on the list.
    LicenseNotAllowed,
    /// The opt-out ledger names the document, its address or its site.
    OptedOut,
    /// The document's own metadata, or its site's robots.txt, reserve it from AI training.
    TrainingReserved,
    /// TDMRep reserves it from text and data mining: in the document's metadata, or in its site's `tdmrep.json`.
    TdmReserved,
    /// Its site's robots.txt shuts out an agent of the settings.
    RobotsDisallowed,
    /// Its site stands on the domain block list.
    DomainBlocked,
    /// Placeholders would be too much of the text: a directory, a list of contacts.
    MostlyPersonalData,
    /// Characters were lost (U+FFFD) or bytes misread beyond certain repair.
    BrokenEncoding,
    /// Control characters stand in the text: binary data.
    ControlCharacters,
    /// The text is in none of the languages of the settings.
    LanguageNotWanted,
    /// No language is probable enough.
    LanguageUnclear,
    /// The label names another language (where the settings drop such documents).
    LanguageLabelWrong,
    TooShort,
    TooLong,
    WordLength,
    Symbols,
    StopWords,
    Script,
    RepeatedLines,
    /// Word 5- to 10-grams that stood before.
    RepeatedNgrams,
    /// One word 2-, 3- or 4-gram fills the text.
    TopNgram,
    /// Lines that break off with an ellipsis: teasers.
    EllipsisLines,
    /// Hardly a line ends as a sentence does.
    UnfinishedLines,
    /// Consent banners and page furniture.
    ServiceLines,
    /// Menus and lists instead of prose.
    ListLines,
    /// Nothing was left when paragraphs shared with other documents were taken out.
    OnlyBoilerplate,
    /// Its score is below the cut of its language.
    LowScore,
    /// It repeats an item of an evaluation set.
    Contaminated,
    ExactDuplicate,
    NearDuplicate,
    /// It fits into no budget of the balance.
    OverBudget,
    /// The document, or one near it, stands in a corpus that was made earlier (setting `existing`).
    InExistingCorpus,
    /// The record is not a document: its bytes or its JSON are wrong, or it is too long.
    Unreadable,
}

/// Which file of `dropped/` a reason belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Rights,
    PersonalData,
    Encoding,
    Language,
    Quality,
    Contamination,
    Duplicates,
    Budget,
    Unreadable,
}

impl Kind {
    pub const ALL: [Kind; 9] = [
        Kind::Rights,
        Kind::PersonalData,
        Kind::Encoding,
        Kind::Language,
        Kind::Quality,
        Kind::Contamination,
        Kind::Duplicates,
        Kind::Budget,
        Kind::Unreadable,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Rights => "rights",
            Kind::PersonalData => "personal_data",
            Kind::Encoding => "encoding",
            Kind::Language => "language",
            Kind::Quality => "quality",
            Kind::Contamination => "contamination",
            Kind::Duplicates => "duplicates",
            Kind::Budget => "budget",
            Kind::Unreadable => "unreadable",
        }
    }

    /// Whether the dropped text may be kept for inspection. What was dropped for rights or personal data leaves only
    /// reason, date and a keyed digest.
    pub fn keeps_text(self) -> bool {
        !matches!(self, Kind::Rights | Kind::PersonalData | Kind::Unreadable)
    }
}

impl Reason {
    pub fn kind(self) -> Kind {
        use Reason::*;
        match self {
            LicenseMissing | LicenseNotAllowed | OptedOut | TrainingReserved | TdmReserved
            | RobotsDisallowed | DomainBlocked => Kind::Rights,
            MostlyPersonalData => Kind::PersonalData,
            BrokenEncoding | ControlCharacters => Kind::Encoding,
            LanguageNotWanted | LanguageUnclear | LanguageLabelWrong => Kind::Language,
            TooShort | TooLong | WordLength | Symbols | StopWords | Script | RepeatedLines
            | RepeatedNgrams | TopNgram | EllipsisLines | UnfinishedLines | ServiceLines | ListLines
            | OnlyBoilerplate | LowScore => Kind::Quality,
            Contaminated => Kind::Contamination,
            ExactDuplicate | NearDuplicate | InExistingCorpus => Kind::Duplicates,
            OverBudget => Kind::Budget,
            Unreadable => Kind::Unreadable,
        }
    }
}

/// What was changed in a document that was kept. A document counts once per repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// UTF-8 that was read as Latin-1 or Windows-1252 is UTF-8 again.
    Mojibake,
    /// Zero-width characters, soft hyphens and byte order marks are gone.
    InvisibleCharacters,
    /// Letters are composed (Unicode NFC).
    Composed,
    /// Line ends are `\n`.
    LineEnds,
    /// The label names the language of the text.
    Relabelled,
    /// Personal data are typed placeholders.
    PersonalData,
    /// Lines that repeat an evaluation set are gone.
    Decontaminated,
    /// Paragraphs that stand in many documents are gone.
    Boilerplate,
    /// Long passages that stand in another document too are gone.
    RepeatedPassage,
}

/// The decision against a document: the reason and the values that led to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drop {
    pub reason: Reason,
    /// What was measured and what the limit was, by name.
    pub evidence: BTreeMap<String, Value>,
}

impl Drop {
    pub fn new(reason: Reason) -> Drop {
        Drop { reason, evidence: BTreeMap::new() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Drop {
        self.evidence.insert(name.to_string(), value.into());
        self
    }

    /// A measured value beside its limit.
    pub fn measured(reason: Reason, value: f64, limit: f64) -> Drop {
        Drop::new(reason).with("value", rounded(value)).with("limit", limit)
    }
}

/// Four decimals: as much as anyone reads of a share.
pub fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
