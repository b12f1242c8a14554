//! What can go wrong with input as a whole. A single bad record is not an error: it is a `BadRecord`.

use std::path::{Path, PathBuf};

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
        "{path}: not a kind of file that can be read; expected .jsonl, .txt, .md, .html, .warc or .wet, plain or with .gz or .zst, or .parquet"
    )]
    UnknownKind { path: PathBuf },

    #[error(
        "{path}: no file that can be read (.jsonl, .txt, .md, .html, .warc, .wet, plain or with .gz or .zst; .parquet) in this folder"
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

    #[error("{path}: no Parquet file that can be read: {detail}; fetch or write the file again")]
    BadParquet { path: PathBuf, detail: String },

    #[error(
        "{path}: no column `{column}`, found {found}; say which column holds the text, such as `fields = {{ text = \"content\" }}`"
    )]
    NoTextColumn { path: PathBuf, column: String, found: String },

    #[error(
        "{path}: Parquet is read only by a build with the feature `parquet`; build with it, or convert the file"
    )]
    NoParquet { path: PathBuf },

    #[error("`fields` names `{name}`, which is no field of a document; expected one of {known}")]
    UnknownField { name: String, known: String },

    #[error(
        "`fields`: `{name}` is empty; expected the key under which it stands, such as \"content\", or \"=word\" for the same \
         word in every record"
    )]
    EmptyField { name: String },

    #[error("{address}: no address that can be read: {problem}")]
    Address { address: String, problem: String },

    #[error("{address}: not there (404); check the address")]
    RemoteMissing { address: String },

    #[error(
        "{address}: the server wants to know who asks (401); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://, or use \
         an address that is signed"
    )]
    RemoteLogin { address: String },

    #[error(
        "{address}: the server refuses (403); check the rights of the credentials in AWS_ACCESS_KEY_ID (without them requests \
         are not signed), the region, and whether an address that was signed has expired"
    )]
    RemoteForbidden { address: String },

    #[error("{address}: cannot be fetched: {problem}")]
    Remote { address: String, problem: String },

    #[error(
        "{path}: addresses are read only by a build with the feature `remote`; fetch the file, or build with it"
    )]
    NoRemote { path: PathBuf },

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
    /// What writing failed with. The storage layer's own errors name the file already.
    pub(crate) fn write(path: &Path, source: std::io::Error) -> Error {
        match source.downcast() {
            Ok(storage) => Error::Storage(storage),
            Err(source) => Error::Write { path: path.to_path_buf(), source },
        }
    }

    /// Whether this is damage to one input file, which a setting may choose to skip; all else is a wrong setting or
    /// a failing disk and always stops a run.
    pub fn is_damage(&self) -> bool {
        matches!(self, Error::Damaged { .. } | Error::EmptyFile { .. } | Error::BadParquet { .. })
    }
}
