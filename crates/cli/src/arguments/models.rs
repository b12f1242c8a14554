//! Flags of what uses, fetches and rewrites models.

use std::path::PathBuf;

use clap::Args;

use crate::commands::answering::AnswerArguments;

/// Talk with a model in the terminal.
#[derive(Args)]
pub struct ChatArguments {
    /// A release, a model in the Hugging Face layout, or a GGUF file
    pub model: PathBuf,
    /// An adapter (PEFT layout) [default: the folder adapter/ of the model, if it has one]
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// A first message that says who the model is to be
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    #[command(flatten)]
    pub answer: AnswerArguments,
    /// Load a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
}

/// Let a model continue a text.
///
/// The prompt comes from --prompt, from --file, or from standard input. The text goes to standard output as it is
/// generated, what there is to say about it to standard error.
#[derive(Args)]
pub struct GenerateArguments {
    /// A release, a model in the Hugging Face layout, or a GGUF file
    pub model: PathBuf,
    /// The text to continue
    #[arg(long, value_name = "TEXT", conflicts_with = "file")]
    pub prompt: Option<String>,
    /// A file with the text to continue
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How many continuations; the prompt is read once for all of them
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u64,
    /// In the result of --json: the probability of each token, and of so many of the likeliest beside it
    #[arg(long, value_name = "N")]
    pub logprobs: Option<usize>,
    /// An adapter (PEFT layout) [default: the folder adapter/ of the model, if it has one]
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    #[command(flatten)]
    pub answer: AnswerArguments,
    /// Load a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
}

/// Write a model as one GGUF file, which llama.cpp opens, or a GGUF file as a folder in the Hugging Face layout.
///
/// An OUTPUT that ends in .gguf becomes such a file; anything else a folder with config.json, model.safetensors and the
/// tokenizer. Quantised weights are widened on the way into a folder.
#[derive(Args)]
pub struct ConvertArguments {
    /// A release, a model in the Hugging Face layout, or a GGUF file (of a split one the first part)
    pub model: PathBuf,
    /// The file (.gguf) or folder to write
    pub output: PathBuf,
    /// How matrices are stored: f32, f16, bf16, q8_0 or q4_0; in a folder f32 or bf16
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = ["f32", "f16", "bf16", "q8_0", "q4_0"])]
    pub format: String,
    /// Put the new file or folder in the place of one that is there
    #[arg(long)]
    pub force: bool,
    /// Merge this adapter (PEFT layout) into the weights
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Convert a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
}

/// Write a model as a GGUF file with weights of 8 or 4 bits.
#[derive(Args, Clone)]
pub struct QuantizeArguments {
    /// A release, a model in the Hugging Face layout, or a GGUF file
    pub model: PathBuf,
    /// The GGUF file to write
    pub output: PathBuf,
    /// Weights of 8 bits (q8_0: a scale for 32 of them, 8.5 bits in all) or of 4 (q4_0: 4.5 bits; the output projection in 8)
    #[arg(long, value_name = "FORMAT", value_parser = ["q8_0", "q4_0"])]
    pub format: String,
    /// Put the new file in the place of one that is there
    #[arg(long)]
    pub force: bool,
    /// Merge this adapter (PEFT layout) into the weights
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Quantise a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
}

/// Fetch an open model: from the catalogue or a hub, checked file by file, gone on with where it was broken off.
///
/// The licence is shown before anything is fetched. A model that is there in full is checked, and nothing is fetched.
#[derive(Args)]
#[command(group = clap::ArgGroup::new("source").required(true).args(["model", "list", "from_bundle"]))]
pub struct PullArguments {
    /// A name of the catalogue (--list), or hf:ORG/REPOSITORY[@REVISION]
    #[arg(value_name = "NAME|hf:ORG/REPOSITORY[@REVISION]")]
    pub model: Option<String>,
    /// Show the catalogue: sizes, languages, licences
    #[arg(long)]
    pub list: bool,
    /// The folder [default: models/<name> in the current folder]
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Fetch this file too, such as one of several GGUF files (repeatable)
    #[arg(long, value_name = "PATH", requires = "model")]
    pub file: Vec<String>,
    /// Also pack the model into one file, for machines without internet
    #[arg(long, value_name = "FILE.tar", requires = "model")]
    pub bundle: Option<PathBuf>,
    /// Unpack such a file, without any network
    #[arg(long, value_name = "FILE.tar")]
    pub from_bundle: Option<PathBuf>,
    /// Ask a mirror instead of the hub [default: HF_ENDPOINT, or https://huggingface.co]
    #[arg(long, value_name = "URL", requires = "model")]
    pub mirror: Option<String>,
    /// A file with the token for gated models [default: the variable HF_TOKEN, for the hub itself alone]
    #[arg(long, value_name = "FILE", requires = "model")]
    pub token_file: Option<PathBuf>,
    /// Take the licence as read and do not ask
    #[arg(long, requires = "model")]
    pub yes: bool,
}

/// Say what this machine can do, and whether a model fits it: memory, speed, energy, adapting, problems found.
///
/// Nothing is loaded: a model is judged by its configuration and the headers of its files, the machine by a measurement of
/// some seconds. Speeds are limits, which no program can exceed on this machine.
#[derive(Args)]
pub struct DoctorArguments {
    /// A folder, a .gguf file, a name of the catalogue, or hf:ORG/REPOSITORY[@REVISION] (its configuration alone is fetched)
    pub model: Option<String>,
    /// Tokens of context that must fit besides the weights
    #[arg(long, value_name = "TOKENS", default_value_t = 4096)]
    pub context: u64,
    /// Ask a mirror instead of the hub [default: HF_ENDPOINT, or https://huggingface.co]
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// A file with the token for gated models [default: the variable HF_TOKEN, for the hub itself alone]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}
