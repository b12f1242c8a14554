//! What can go wrong with input as a whole. A single bad record is not an error: it is a `BadRecord`.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: no such file or folder; check the path (relative paths count from the recipe's folder)")]
    Missing { path: PathBuf },

    #[error(
        "{path}: expected a file, found a folder; name a file in it, or give the folder as an input of its own"
    )]
    FolderForFile { path: PathBuf },

    #[error("{path}: expected a file or a folder, found {kind}; only regular files are read")]
    SpecialFile { path: PathBuf, kind: &'static str },

    #[error("{path}: this symbolic link leads back to a folder that contains it; remove the link")]
    SymbolicLinkLoop { path: PathBuf },

    #[error("{path}: this symbolic link leads nowhere; remove it or restore its target {target}")]
    BrokenLink { path: PathBuf, target: PathBuf },

    #[error(
        "{path}: not a kind of file that can be read; expected .jsonl, .txt, .md, .warc or .wet, plain or with .gz or .zst"
    )]
    UnknownKind { path: PathBuf },

    #[error(
        "{path}: no file that can be read (.jsonl, .txt, .md, .warc, .wet; plain, .gz or .zst) in this folder"
    )]
    NoFiles { path: PathBuf },

    #[error("{path}: the name is not UTF-8; rename the file, names become part of keys and ids")]
    NameNotUtf8 { path: PathBuf },

    #[error(
        "{path:?}: the name has a control character, such as a line end; rename the file, names stand in lists and messages"
    )]
    NameWithControl { path: PathBuf },

    #[error("{path}: the file is empty; remove it, or fetch it again if it should hold documents")]
    EmptyFile { path: PathBuf },

    #[error(
        "{path}: damaged at byte {compressed_offset} of the file (after {text_offset} bytes of text, line {line}): {detail}; \
         fetch or write the file again"
    )]
    Damaged { path: PathBuf, compressed_offset: u64, text_offset: u64, line: u64, detail: String },

    #[error("`fields` names `{name}`, which is no field of a document; expected one of {known}")]
    UnknownField { name: String, known: String },

    #[error(
        "`fields`: `{name}` is empty; expected the key under which it stands, such as \"content\", or \"=word\" for the same \
         word in every record"
    )]
    EmptyField { name: String },

    #[error("{path}: cannot be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },

    #[error(
        "{path}: line {line}, byte {offset}: {problem}; a shard written by eulalia has no such line: make it again"
    )]
    BadShard { path: PathBuf, line: u64, offset: u64, problem: String },

    #[error("{path}: cannot be written: {source}")]
    Write { path: PathBuf, source: std::io::Error },

    #[error(transparent)]
    Storage(#[from] provenance::StorageError),
}

impl Error {
    /// Whether this is damage to one input file, which a setting may choose to skip; all else is a wrong setting or
    /// a failing disk and always stops a run.
    pub fn is_damage(&self) -> bool {
        matches!(self, Error::Damaged { .. } | Error::EmptyFile { .. })
    }
}
