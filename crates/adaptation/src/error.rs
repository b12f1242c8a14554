//! What can end an adaptation.

use std::path::PathBuf;

/// Each message says what was expected, what was found, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Settings that cannot be tuned with; found before the first step.
    #[error("settings: {0}")]
    Settings(String),
    /// A line that is no conversation.
    #[error("{path}, line {line}: {problem}")]
    Conversation {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Expectation and finding.
        problem: String,
    },
    /// Nothing to learn from.
    #[error("no conversation with an answer to learn; looked into {}", paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    Nothing {
        /// What was given.
        paths: Vec<PathBuf>,
    },
    /// A file cannot be read.
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
    /// The loss is no number any more.
    #[error(
        "tuning diverged at step {step}: the loss or its gradient is not finite; a lower learning_rate usually helps"
    )]
    Diverged {
        /// Counted from 1.
        step: u64,
    },
    /// The trainer's complaint.
    #[error(transparent)]
    Training(#[from] training::Error),
    /// The decoder's complaint.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// The tokenizer's complaint.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A write that failed.
    #[error(transparent)]
    Storage(#[from] provenance::StorageError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] provenance::Cancelled),
}
