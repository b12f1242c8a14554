//! What ties every stage together: digests, the storage layer that all writing goes through, the context that every
//! stage receives, artefacts (folders that exist whole or not at all), their keys, and the record that they carry.
//!
//! Nothing here knows what a stage does. Stages depend on this crate, never the other way round.

pub mod artefact;
pub mod claims;
pub mod context;
pub mod digest;
pub mod energy;
#[cfg(feature = "nvml")]
mod gpu_energy;
pub mod meters;
pub mod output;
pub mod record;
pub mod signature;
pub mod storage;
pub mod tree;
pub mod verify;

pub use artefact::{Artefact, Content, Manifest};
pub use claims::Claims;
pub use context::{Cancellation, Cancelled, Clock, Context, Progress, Rank, StageOutput};
pub use digest::Digest;
pub use meters::Meters;
pub use storage::{Storage, StorageError, StoredFile};

use std::path::PathBuf;

/// What can go wrong while artefacts are made, opened or checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {problem}")]
    Malformed { path: PathBuf, problem: String },
    #[error(
        "{path} is in use by another run (process {holder}); wait for it to end, or choose another folder with --output"
    )]
    Locked { path: PathBuf, holder: String },
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    pub(crate) fn read(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Read { path: path.to_path_buf(), source }
    }

    pub(crate) fn malformed(path: &std::path::Path, problem: impl Into<String>) -> Error {
        Error::Malformed { path: path.to_path_buf(), problem: problem.into() }
    }
}
