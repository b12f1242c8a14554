//! What can go wrong while a model is measured.

use std::path::PathBuf;

/// Errors of the evaluation crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work.
    #[error("evaluation settings: {problem}")]
    Settings {
        /// The setting and the reason.
        problem: String,
    },
    /// A folder or file that cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file whose name is no language.
    #[error("{}: the file name is no language: {unknown}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The code and the nearest known one.
        unknown: languages::UnknownLanguage,
    },
    /// Nothing to measure on.
    #[error("{}: holds no held-out text; expected `<language>.jsonl.zst` files with documents", path.display())]
    NoText {
        /// The folder.
        path: PathBuf,
    },
    /// A tokenizer that cannot open a document.
    #[error(
        "the tokenizer has no document separator (`<|endoftext|>`) and no `bos_token` or `eos_token`: a document's first \
         token has nothing to follow; name one in tokenizer_config.json"
    )]
    NoSeparator,
    /// A document whose tokens are not its text.
    #[error(
        "document `{document}` ({language}): its tokens stand for {token_bytes} bytes where the text has {text_bytes}; bits per \
         byte need a tokenizer that keeps every byte, such as byte-level BPE"
    )]
    Lossy {
        /// Id of the document.
        document: String,
        /// Its language.
        language: languages::Language,
        /// Bytes of the decoded tokens.
        token_bytes: usize,
        /// Bytes of the text.
        text_bytes: usize,
    },
    /// The model gave no usable probability.
    #[error("document `{document}` ({language}): {problem}")]
    Score {
        /// Id of the document.
        document: String,
        /// Its language.
        language: languages::Language,
        /// What the model gave.
        problem: String,
    },
    /// The compression library refused.
    #[error("LZMA: {0}")]
    Lzma(std::io::Error),
    /// Threads could not be started.
    #[error("threads could not be started: {problem}")]
    Threads {
        /// Why.
        problem: String,
    },
    /// The model could not be loaded.
    #[error("{problem}")]
    Model {
        /// Which file and why.
        problem: String,
    },
    /// The tokenizer could not be loaded or refused a text.
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    /// A shard could not be read.
    #[error(transparent)]
    Documents(#[from] documents::Error),
    /// A file could not be written.
    #[error(transparent)]
    Storage(#[from] provenance::StorageError),
    /// The run was asked to stop.
    #[error(transparent)]
    Cancelled(#[from] provenance::Cancelled),
}
