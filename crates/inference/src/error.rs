//! What can go wrong when a model is loaded, when a request is handed in, and while it runs.

use std::path::PathBuf;

/// Why an engine or a scorer did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Model(#[from] model::ModelError),
    #[error(transparent)]
    Tokenizer(#[from] tokenizer::Error),
    #[error("adapter `{name}`: {source}")]
    Adapter { name: String, source: model::ModelError },
    #[error("setting `{key}`: expected {expected}, found {found}")]
    Setting { key: &'static str, expected: String, found: String },
    #[error(
        "`memory_bytes` is {budget} but the weights alone hold {weights}, buffers {workspace} and one cache block {block}; \
         give at least {least}"
    )]
    Memory { budget: u64, weights: u64, workspace: u64, block: u64, least: u64 },
    #[error("{path}: {problem}")]
    Malformed { path: PathBuf, problem: String },
    #[error(
        "the tokenizer has {tokenizer} entries, the model's table only {model}: they do not belong together; use the \
         tokenizer.json that came with the model"
    )]
    Vocabulary { tokenizer: usize, model: usize },
    #[error("the engine's thread cannot start: {0}")]
    Thread(std::io::Error),
}

/// Why a request was not taken. Nothing of it was queued.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    #[error("{waiting} requests wait already, as many as may; try again in a moment")]
    QueueFull { waiting: usize },
    #[error("the prompt is empty; give at least one token")]
    EmptyPrompt,
    #[error(
        "the context holds {context} tokens; the prompt has {prompt} and {wanted} more were asked for: shorten the \
         prompt or ask for fewer"
    )]
    ContextLength { prompt: usize, wanted: usize, context: usize },
    #[error("the text has {bytes} bytes, more than the context of {context} tokens can hold: shorten it")]
    TextLength { bytes: usize, context: usize },
    #[error("token {token} does not exist; the vocabulary has {vocabulary_size} entries, from 0")]
    UnknownToken { token: u32, vocabulary_size: usize },
    #[error(
        "`logit_bias`: token {token} does not exist; the vocabulary has {vocabulary_size} entries, from 0"
    )]
    UnknownBias { token: u32, vocabulary_size: usize },
    #[error("there is no adapter `{name}`")]
    UnknownAdapter { name: String },
    #[error("`{field}` is {found}; expected {expected}")]
    Field { field: &'static str, found: String, expected: &'static str },
    #[error("the {kind}{}: {problem}", at(.place))]
    Format {
        kind: &'static str,
        /// A JSON pointer into a schema; empty: all of it.
        place: String,
        problem: String,
    },
    #[error("the engine has stopped")]
    Stopped,
}

fn at(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(" at `{place}`") }
}

/// Why a request that was taken did not finish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestFailure {
    #[error("its time was over")]
    TimeLimit,
    #[error("it was cancelled")]
    Cancelled,
    #[error("the engine stopped")]
    EngineStopped,
    #[error("its form cannot be followed further: {0}; make it simpler")]
    Format(String),
    #[error("it could not be computed: {0}")]
    Computing(String),
}
