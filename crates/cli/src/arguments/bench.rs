//! Flags of the measurements.

use std::path::PathBuf;

use clap::Args;
use model::{CacheFormat, WeightFormat};

use crate::commands::answering::{cache_format, weight_format};

/// Measure this machine on what a run spends its time on.
#[derive(Args)]
pub struct BenchArguments {
    #[command(subcommand)]
    pub action: BenchAction,
}

#[derive(clap::Subcommand)]
pub enum BenchAction {
    /// Whole training steps on random tokens, beside the speed of their matrix products alone
    Training(BenchTrainingArguments),
    /// How fast a model reads prompts and writes answers, with its weights in each format
    Inference(BenchInferenceArguments),
    /// What weights of fewer bits cost: perplexity, KL divergence and agreement with the same model in f32
    Quality(BenchQualityArguments),
}

/// Tokens in the second half of each window count, as in llama.cpp's llama-perplexity.
#[derive(Args)]
pub struct BenchQualityArguments {
    /// A model folder in the Hugging Face layout
    pub model: PathBuf,
    /// Text files, such as one a language; without any, tokens by chance
    pub texts: Vec<PathBuf>,
    /// Numbers that the weights are kept in, separated by commas: f32, bf16, q8_0, q4_0
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', default_value = "q8_0,q4_0", value_parser = weight_format)]
    pub weights: Vec<WeightFormat>,
    /// Tokens of a window
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u64).range(4..=65_536))]
    pub window: u64,
    /// Compute as answers are computed, token by token, rather than as prompts are
    #[arg(long)]
    pub as_answers: bool,
}

#[derive(Args)]
pub struct BenchInferenceArguments {
    /// A model folder in the Hugging Face layout, or a GGUF file
    pub model: PathBuf,
    /// Numbers that the weights are kept in, separated by commas: f32, bf16, q8_0, q4_0, stored [default: those of a GGUF file
    /// as they are stored, of a folder q8_0]
    #[arg(long, value_name = "FORMATS", value_delimiter = ',', value_parser = weight_format)]
    pub weights: Vec<WeightFormat>,
    /// Numbers that keys and values are kept in: f32, bf16 or q8_0 [default: f32 with weights in f32, else bf16]
    #[arg(long, value_name = "FORMAT", value_parser = cache_format)]
    pub kv_cache: Option<CacheFormat>,
    /// Lengths of prompts
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "512", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub prefill: Vec<u64>,
    /// Tokens to write
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub decode: u64,
    /// Tokens that stand in the cache before the first one is written
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "0", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub depths: Vec<u64>,
    /// Requests that are computed together
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub batches: Vec<u64>,
    /// Also so many requests of mixed lengths through the engine, together and one after the other
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1024))]
    pub mixed: u64,
    /// Repetitions of each measurement; the median counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub rounds: u64,
}

#[derive(Args)]
pub struct BenchTrainingArguments {
    /// The shape: S (9.3 million parameters), M (44 million), or MOE (experts, with M's active parameters)
    #[arg(long, value_name = "NAME", default_value = "S")]
    pub config: String,
    /// Steps to measure; two more warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub steps: u64,
    /// Who moves the matrices
    #[arg(long, value_name = "NAME", default_value = "adamw", value_parser = ["adamw", "muon"])]
    pub optimizer: String,
    /// Compute activations again in the backward pass: less memory, a third more work
    #[arg(long)]
    pub recompute: bool,
}
