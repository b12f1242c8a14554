//! What can end a training run.

use std::path::PathBuf;

/// Each message says what was expected, what was found, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that cannot be trained with; found before the first step.
    #[error("settings: {0}")]
    Settings(String),
    /// The corpus holds nothing to train on.
    #[error("{path}: {problem}")]
    Corpus {
        /// The file or folder.
        path: PathBuf,
        /// Expectation and finding.
        problem: String,
    },
    /// The loss or the gradient is no number any more.
    #[error(
        "training diverged at step {step}: the {what} is not finite. {last_good} A lower learning_rate, a longer warm-up or a \
         smaller clip_norm usually helps"
    )]
    Diverged {
        /// The step that failed, counted from 1.
        step: u64,
        /// Loss or gradient.
        what: &'static str,
        /// A sentence that names the last good checkpoint.
        last_good: String,
    },
    /// The gradients have become long for good: that is not one bad batch.
    #[error(
        "training stopped at step {step}: {in_a_row} steps in a row were left out, the last with a gradient norm of {norm:.3} above \
         {limit:.3}. {last_good} A lower learning_rate or a longer warm-up usually helps; a higher skip_outliers lets more through"
    )]
    Outliers {
        /// The last of these steps, counted from 1.
        step: u64,
        /// How many.
        in_a_row: usize,
        /// The last one's norm.
        norm: f64,
        /// What was allowed.
        limit: f64,
        /// A sentence that names the last good checkpoint.
        last_good: String,
    },
    /// A file that was read just before cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] compute::device::ThreadsError),
    /// The decoder's complaint.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// The tokenizer's complaint.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A shard's fault.
    #[error(transparent)]
    Documents(#[from] documents::Error),
    /// A write that failed.
    #[error(transparent)]
    Storage(#[from] provenance::StorageError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] provenance::Cancelled),
}
