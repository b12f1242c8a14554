//! Looking at a finished corpus: what is in it, what was dropped, and where a document went.
//!
//! [`Survey::of`] reads every shard of a corpus once and keeps counts, histograms and a few samples; [`page`] draws it as
//! one HTML file that asks no network for anything; [`search`] finds documents by id, address, reason or language. All
//! three read files alone, so that they work on a corpus from anywhere, made by any version.

mod gather;
mod histogram;
mod page;
mod places;
mod search;

pub use gather::{Dropped, Gathered, Sample, Survey};
pub use histogram::Histogram;
pub use page::page;
pub use search::{Found, Query, search};

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: no corpus: expected the folders `train` and `dropped` and the file `statistics.json`")]
    NotACorpus { path: PathBuf },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {problem}")]
    Malformed { path: PathBuf, problem: String },
    #[error(transparent)]
    Documents(#[from] documents::Error),
    #[error("interrupted")]
    Interrupted,
}
