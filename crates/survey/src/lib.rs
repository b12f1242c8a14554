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

use documents::PlacedValue;
use provenance::Context;
use rayon::prelude::*;

use places::{Shard, shards};

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
    #[error(transparent)]
    Cancelled(#[from] provenance::Cancelled),
    #[error("cannot start {threads} threads: {detail}; give a smaller --threads")]
    Threads { threads: usize, detail: String },
}

/// Records between two looks at the clock and the cancellation.
const STRIDE: u64 = 1024;

/// Reads every shard of a corpus, several at a time: `begin` makes what `add` gathers of one shard. The results come in the
/// order of the shards.
fn read_all<T: Send>(
    folder: &std::path::Path,
    context: &Context,
    task: &str,
    begin: impl Fn() -> T + Sync,
    add: impl Fn(&mut T, &Shard, PlacedValue) + Sync,
) -> Result<Vec<T>, Error> {
    let shards = shards(folder)?;
    let threads = context.threads;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::Threads { threads, detail: error.to_string() })?;
    context.progress.begin(task, None, "documents");
    let read = |shard: &Shard| {
        let mut gathered = begin();
        let mut records = 0;
        for placed in documents::read_values(&shard.path)? {
            add(&mut gathered, shard, placed?);
            records += 1;
            if records == STRIDE {
                context.cancellation.check()?;
                context.progress.advance(records);
                records = 0;
            }
        }
        context.progress.advance(records);
        Ok(gathered)
    };
    let all = pool.install(|| shards.par_iter().map(read).collect());
    context.progress.end();
    all
}
