//! What can go wrong between text and tokens. Each message names the file, what was expected and what to do.

use std::path::PathBuf;

/// Errors of the tokenizer crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read at all.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no tokenizer where one was expected.
    #[error(
        "{}: no tokenizer here; expected a folder with a `tokenizer.json`, or such a file in the Hugging Face format",
        path.display()
    )]
    Missing {
        /// The folder or file that was given.
        path: PathBuf,
    },
    /// A file was read but is not what it should be.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
    /// The `tokenizers` library refused to encode or decode.
    #[error("the tokenizer could not {action}: {problem}")]
    Coding {
        /// `encode` or `decode`.
        action: &'static str,
        /// What the library says.
        problem: String,
    },
    /// A token id that the vocabulary does not have.
    #[error(
        "token id {id} is outside the vocabulary of {vocabulary_size} entries; the ids come from another tokenizer"
    )]
    UnknownId {
        /// The id.
        id: u32,
        /// Entries of the vocabulary.
        vocabulary_size: usize,
    },
    /// The chat template is missing, does not compile or refuses the conversation.
    #[error("chat template: {problem}")]
    ChatTemplate {
        /// What is wrong and what to do.
        problem: String,
    },
    /// A setting that cannot work.
    #[error("tokenizer settings: {problem}")]
    Settings {
        /// The setting and the reason.
        problem: String,
    },
    /// A corpus without text.
    #[error("{}: holds no text to learn a vocabulary from; expected `<language>.jsonl.zst` files with documents", path.display())]
    NoText {
        /// The folder.
        path: PathBuf,
    },
    /// Fewer different pairs than merges were asked for.
    #[error(
        "the text is too small for a vocabulary of {wanted}: after {possible} entries no two neighbouring tokens are left; \
         set vocabulary_size to {possible} or less, or give more text"
    )]
    TooLittleText {
        /// Entries asked for.
        wanted: usize,
        /// Entries that the text gives.
        possible: usize,
    },
    /// Threads could not be started.
    #[error("threads could not be started: {problem}")]
    Threads {
        /// Why.
        problem: String,
    },
    /// A GGUF file could not be read.
    #[error(transparent)]
    Gguf(#[from] gguf::GgufError),
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
