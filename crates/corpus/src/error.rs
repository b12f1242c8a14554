//! What stops the corpus stage. A bad document never does: it is dropped with a reason.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("setting `{key}`: expected {expected}, found {found}")]
    Setting { key: &'static str, expected: &'static str, found: String },

    #[error(
        "{path}, line {line}: {problem}; every line of an opt-out ledger is an object like \
             {{\"date\":\"2026-01-31\",\"domain\":\"site.example\",\"reference\":\"request 7\",\"reason\":\"...\"}}"
    )]
    Ledger { path: PathBuf, line: usize, problem: String },

    #[error(
        "{path}: the ledger does not begin with the lines whose digest is {since}: lines were cut off or changed since; \
             restore it from a copy of that day"
    )]
    LedgerCut { path: PathBuf, since: provenance::Digest },

    #[error(
        "{path}, line {line}: {problem}; every line of a domain block list is a domain such as `site.example`"
    )]
    BlockList { path: PathBuf, line: usize, problem: String },

    #[error("{path}: {problem}")]
    SiteRules { path: PathBuf, problem: String },

    #[error(
        "too few good texts to score with, in pieces of 500 words at most ({needed} are needed): {found}; add texts of these \
             languages to `good_texts`, or set `score.missing_language = \"unscored\"`"
    )]
    GoodTexts { needed: usize, found: String },

    #[error("good texts: {place}")]
    BadGoodText { place: String },

    #[error(
        "`balance.budgets` leave no document of {languages} for training: raise the `amount` that concerns them"
    )]
    NothingInBudget { languages: String },

    #[error("{path}: not an evaluation set to look for: {problem}")]
    EvaluationSet { path: PathBuf, problem: String },

    #[error(
        "the self-test of the decontamination failed: an item of {set} was planted in a made-up document and {}; nothing \
             was made, because nothing that it says can be relied on; this is a fault of the program: please report it",
        if *is_missed { "not found" } else { "found in another one too" }
    )]
    DecontaminationFails { set: String, is_missed: bool },

    #[error("{path}: {problem}; make one with: head -c 32 /dev/urandom > digest.key")]
    DigestKey { path: PathBuf, problem: String },

    #[error("{path}: cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },

    #[error("{0}; set `damaged_input = \"skip\"` to go on without the rest of such files")]
    DamagedInput(documents::Error),

    #[error("{path}: not what this program wrote there; remove the folder that it stands in and run again")]
    BadBlock { path: PathBuf },

    #[error("more than 4294967295 documents; make several corpora, each with the others as `existing`")]
    TooManyDocuments,

    #[error("no document was found in the inputs: every file is without records")]
    NoDocuments,

    #[error(
        "no document was kept; dropped by reason: {reasons}; check the inputs, and the settings `languages`, `licenses` and `default_license` (for documents that name no licence)"
    )]
    NothingKept { reasons: String },

    #[error(
        "too little text for training and a held-out part (at least {documents} documents and {bytes} bytes held out) \
             in: {found}; add documents, take these languages out of `languages`, or set `small_language = \"train_only\"`"
    )]
    SmallLanguages { documents: usize, bytes: u64, found: String },

    #[error(transparent)]
    Documents(#[from] documents::Error),

    #[error(transparent)]
    Storage(#[from] provenance::StorageError),

    #[error(transparent)]
    Cancelled(#[from] provenance::Cancelled),

    #[error("cannot start {threads} threads: {detail}; give a smaller --threads")]
    Threads { threads: usize, detail: String },
}
