//! What can go wrong on the way from a name to a folder. Every message says which file or address, what was expected, what
//! came, and what to do; none holds a token or the query of a signed address.

use std::path::{Path, PathBuf};

use provenance::{Cancelled, StorageError};

/// A pull, a bundle or the catalogue that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{text}: {problem}; expected a name of the catalogue, or hf:ORG/REPOSITORY[@REVISION]")]
    Address { text: String, problem: String },
    #[error("the address of the hub, {address}, is not usable: {problem}")]
    Endpoint { address: String, problem: String },
    #[error(
        "{repository} is gated: whoever wants it has to accept its publisher's conditions first. Sign in and accept them at \
         {page}, make a token that may read at {tokens}, and give it with --token-file FILE or in HF_TOKEN"
    )]
    Gated { repository: String, page: String, tokens: String },
    #[error(
        "{repository} is gated, and the token that was given is not let in: accept the conditions at {page} with the account \
         of the token (some publishers answer by hand, later), and see that the token may read gated repositories"
    )]
    GatedForToken { repository: String, page: String },
    #[error("the hub does not know the token that was given; make a new one at {tokens}")]
    TokenRefused { tokens: String },
    #[error(
        "{repository} at revision {revision} is not there ({page}), or is private; look the name up, or give a token with \
         --token-file FILE or in HF_TOKEN"
    )]
    NotFound { repository: String, revision: String, page: String },
    #[error("{address} answered {status}; nothing was changed")]
    Refused { address: String, status: u16 },
    #[error(
        "{address}: {problem} (tried {attempts} times); what has come stays, and the same command goes on from there"
    )]
    Unreachable { address: String, problem: String, attempts: u32 },
    #[error("{address}: {problem}")]
    Protocol { address: String, problem: String },
    #[error("{repository}: the list of files is not usable: {problem}")]
    Listing { repository: String, problem: String },
    #[error(
        "{repository}: its weights are pickled ({files}), and such files can run code when they are opened; look for a \
         repository with .safetensors files"
    )]
    PickleOnly { repository: String, files: String },
    #[error("{repository}: {problem}")]
    NothingToLoad { repository: String, problem: String },
    #[error(
        "{file}: its bytes have the digest {found}, the hub announced {expected}; they were thrown away. If this happens \
         again, the hub or mirror holds another file than it says"
    )]
    Digest { file: String, expected: String, found: String },
    #[error(
        "{file}: {found}, the list of files says {announced} bytes; nothing of it was kept under its name"
    )]
    Size { file: String, announced: u64, found: String },
    #[error(
        "{folder}: {needed} bytes are still to come, and the disk has {free} free; free some space, or choose another disk \
         with --to"
    )]
    Space { folder: PathBuf, needed: u64, free: u64 },
    #[error("{folder}: {problem}; choose another folder with --to")]
    Folder { folder: PathBuf, problem: String },
    #[error("{folder}: another pull is at work here; wait for it to end")]
    Busy { folder: PathBuf },
    #[error("{bundle}: {problem}")]
    Bundle { bundle: PathBuf, problem: String },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl Error {
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::Read { path: path.to_path_buf(), source }
    }

    pub(crate) fn bundle(path: &Path, problem: impl Into<String>) -> Error {
        Error::Bundle { bundle: path.to_path_buf(), problem: problem.into() }
    }
}
