//! What can go wrong with a model's files and inputs.

use std::path::{Path, PathBuf};

/// Every message names the file or the input, what was expected, what was found, and what to do where that is not plain.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write the weights: {0}")]
    Write(std::io::Error),
    /// `config.json` or `adapter_config.json` is not one that this decoder follows in full.
    #[error("{path}: {problem}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Key, expectation, finding.
        problem: String,
    },
    /// A weights file is malformed, or does not fit the configuration.
    #[error("{path}: {problem}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// Tensor, expectation, finding.
        problem: String,
    },
    /// A GGUF file cannot be read.
    #[error(transparent)]
    Gguf(gguf::GgufError),
    /// The settings do not make a model.
    #[error("{0}")]
    Shape(String),
    /// Whoever watched the loading broke it off.
    #[error("loading was stopped")]
    Stopped,
    /// Tokens, positions or cache blocks outside of their range.
    #[error("{0}")]
    Input(String),
}

impl ModelError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> ModelError + '_ {
        move |source| ModelError::Read { path: path.to_path_buf(), source }
    }

    pub(crate) fn config(path: &Path, problem: impl Into<String>) -> ModelError {
        ModelError::Config { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn weights(path: &Path, problem: impl Into<String>) -> ModelError {
        ModelError::Weights { path: path.to_path_buf(), problem: problem.into() }
    }
}
