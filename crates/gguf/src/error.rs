//! What can go wrong between a GGUF file and a model. Each message names the file, what was expected and what was found.

use std::path::{Path, PathBuf};

/// Errors of the GGUF crate.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is truncated, damaged, contradicts itself, or is not GGUF.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Place, expectation, finding.
        problem: String,
    },
    /// The file is sound, but holds something that is not followed here.
    #[error("{}: {problem}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key, tensor or type, and what can be done.
        problem: String,
    },
    /// A model that GGUF cannot hold, or that its readers would compute differently.
    #[error("cannot be written as GGUF: {0}")]
    Model(String),
    /// The model that is to be written cannot be read, or the work was stopped.
    #[error(transparent)]
    Source(crate::Stop),
    /// The output cannot be written.
    #[error("cannot write the GGUF file: {0}")]
    Write(#[from] std::io::Error),
}

impl GgufError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> GgufError + '_ {
        move |source| GgufError::Read { path: path.to_path_buf(), source }
    }

    pub(crate) fn malformed(path: &Path, problem: impl Into<String>) -> GgufError {
        GgufError::Malformed { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(crate) fn unsupported(path: &Path, problem: impl Into<String>) -> GgufError {
        GgufError::Unsupported { path: path.to_path_buf(), problem: problem.into() }
    }
}
