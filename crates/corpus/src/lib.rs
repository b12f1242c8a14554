//! Stage 1, `eulalia corpus`: from documents as they come to shards that a model may be trained on.
//!
//! [`build`] takes documents through steps that each decide with a reason: rights, encoding, language, personal data,
//! duplicates, boilerplate, quality, held-out split. What is dropped is written down with its reason
//! (`dropped/<kind>.jsonl.zst`), what is kept stands in `train/<language>.jsonl.zst` and `heldout/<language>.jsonl.zst`,
//! and `statistics.json` counts all of it. The bytes depend on the documents and the settings alone, never on threads.

mod addresses;
mod balance;
mod balancing;
mod block;
mod block_list;
mod boilerplate;
mod build;
mod clean;
mod decide;
mod decontaminate;
mod duplicates;
mod encoding;
mod error;
mod examine;
mod fingerprint;
mod heldout;
mod holding;
mod label;
pub mod opt_outs;
mod passages;
pub mod quality;
mod reason;
mod reservation;
mod rights;
mod robots;
mod runs;
mod score;
mod scoring;
mod settings;
mod shards;
mod site_rules;
mod statistics;
mod team;
mod words;
mod write;
mod writers;

pub use balance::{BalanceSettings, BalanceStatistics, Budget, Choose, Scope, Unit};
pub use build::{Report, build, build_sample, digest_inputs};
pub use decontaminate::{Action, DecontaminationSettings, SetStatistics};
pub use error::Error;
pub use reason::{Kind, Reason, Repair};
pub use score::{MissingLanguage, ScoreSettings, ScoreStatistics};
pub use settings::{DamagedInput, Settings, SmallLanguage, TextUnit, WrongLanguage};
pub use statistics::{LanguageStatistics, PartStatistics, Statistics};

/// Raised whenever the same documents and settings give other bytes: part of every artefact's key.
pub const STAGE_VERSION: u32 = 2;
