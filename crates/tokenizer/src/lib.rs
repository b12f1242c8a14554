//! Stage 2: text to tokens and back.
//!
//! [`build`] learns a byte-level BPE vocabulary in which all languages weigh the same, and reports what the same text
//! costs in each of them. [`Tokenizer`] loads any `tokenizer.json` of the Hugging Face format (ours or anyone's),
//! encodes, decodes without ever splitting a character, and renders chat templates.

mod chat;
mod configuration;
mod count;
mod decoding;
mod error;
mod fairness;
mod loaded;
mod merges;
mod pretokenise;
mod settings;
mod stage;
mod vocabulary;

pub use chat::{Conversation, Message, Moment, NAMES_OF_TEMPLATES};
pub use configuration::tokenizer_files;
pub use decoding::StreamDecoder;
pub use error::Error;
pub use fairness::{Cost, Fairness, LanguageFairness};
pub use loaded::Tokenizer;
pub use settings::Settings;
pub use stage::{Report, STAGE_VERSION, build};

/// Special tokens of the tokenizers that we train, in the order of their ids from 0: document separator (it opens a
/// document and ends an answer that no turn marker ends), start and end of a turn (ChatML), padding.
pub const SPECIAL_TOKENS: [&str; 4] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"];
