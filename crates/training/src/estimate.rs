//! What a run would take, before anything is spent: parameters, operations, memory, files. Nothing here computes a step;
//! how fast the machine is comes from `products`.
//!
//! Memory is counted buffer by buffer, as `State`, `Trainer` and `model::TrainingWorkspace` allocate them: a test compares
//! the sum with what a real trainer takes.

use crate::Error;
use crate::bench::{active_parameters, operations_per_token};
use crate::products::{self, Product};
use crate::settings::Settings;
use crate::trainer::{MomentStorage, OptimiserKind};
use compute::device::rows_of_logits;
use model::{Decoder, LayerSpecification, MixtureSpecification, ModelConfig, ParameterKind};
use provenance::Cancellation;
use serde::Serialize;
use std::path::Path;
use tokenizer::Tokenizer;

/// What a run would take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Floats that are trained.
    pub parameters: usize,
    /// Those that a token meets: less than all where there are experts.
    pub active_parameters: usize,
    /// Those in the embedding and the output projection.
    pub embedding_parameters: usize,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Tokens of all steps, repeats counted.
    pub tokens: u64,
    /// Useful floating-point operations of all steps: tokens · (6 · active parameters + 6 · layers · sequence · width).
    pub operations: f64,
    /// Bytes in memory.
    pub memory: Memory,
    /// Bytes of the finished model's weights.
    pub model_bytes: u64,
    /// Bytes of one checkpoint.
    pub checkpoint_bytes: u64,
    /// Bytes of all checkpoints that stand at once, the next one among them.
    pub checkpoints_bytes: u64,
}

/// Bytes in memory while a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// The weights.
    pub parameters: u64,
    /// One gradient for each weight.
    pub gradients: u64,
    /// Moments of the optimiser, its copies, and the average of the weights where one is kept.
    pub optimiser: u64,
    /// What the forward pass keeps for the backward pass, and gradients on their way down.
    pub activations: u64,
    /// All of these, and the program itself.
    pub peak: u64,
}

/// Bytes of a float.
const FLOAT: u64 = size_of::<f32>() as u64;
/// The program, its threads' stacks and small buffers.
const PROGRAM_BYTES: u64 = 40 << 20;

/// What a run with these settings takes on that many threads, with a vocabulary of that many entries.
///
/// # Errors
/// When the settings cannot be trained with.
pub fn estimate(settings: &Settings, vocabulary_size: usize, threads: usize) -> Result<Estimate, Error> {
    settings.check()?;
    let config = settings.shape(vocabulary_size, None);
    config.check()?;
    // The rotary tables are not needed for counting.
    let decoder = Decoder::new(&config, 1)?;
    let table = decoder.table();
    let parameters = table.length();
    let tables = table.entries().iter().filter(|parameter| parameter.kind == ParameterKind::Table);
    let tokens = settings.steps * settings.batch_tokens as u64;
    let bytes = parameters as u64 * FLOAT;
    let activations = activation_bytes(&config, settings.micro_tokens(), settings.recompute);
    let gradients = bytes;
    // Muon never touches the second moments of what it moves, but works on copies.
    let moment = match settings.moments {
        MomentStorage::F32 => FLOAT,
        MomentStorage::Bf16 => FLOAT / 2,
    };
    let optimiser = match settings.optimizer {
        OptimiserKind::AdamW => 2 * parameters as u64 * moment,
        OptimiserKind::Muon => {
            let matrices = table.entries().iter().filter(|parameter| parameter.kind == ParameterKind::Matrix);
            let moved: usize = matrices.map(|parameter| parameter.span.len()).sum();
            (2 * parameters - moved) as u64 * moment + threads as u64 * muon_bytes(&decoder)
        }
    };
    // The average of the weights, where one is kept, stands beside the moments.
    let average = if settings.weight_average_decay > 0.0 { bytes } else { 0 };
    let optimiser = optimiser + average;
    let checkpoint_bytes = 3 * bytes + average + 8 * settings.steps;
    Ok(Estimate {
        parameters,
        active_parameters: active_parameters(&decoder),
        embedding_parameters: tables.map(|parameter| parameter.span.len()).sum(),
        steps: settings.steps,
        tokens,
        operations: tokens as f64 * operations_per_token(&decoder, settings.sequence_length),
        memory: Memory {
            parameters: bytes,
            gradients,
            optimiser,
            activations,
            peak: bytes + gradients + optimiser + activations + PROGRAM_BYTES,
        },
        model_bytes: bytes,
        checkpoint_bytes,
        checkpoints_bytes: checkpoint_bytes * (settings.checkpoints_kept as u64 + 1),
    })
}

/// The matrix products of a step of such a run, of at most `most_tokens` tokens: what to measure a machine's speed with.
pub fn step_products(settings: &Settings, vocabulary_size: usize, most_tokens: usize) -> Vec<Product> {
    let tokens = settings.micro_tokens().min(most_tokens);
    products::step_products(&settings.shape(vocabulary_size, None), tokens, tokens)
}

/// The buffers of `model::TrainingWorkspace`.
fn activation_bytes(config: &ModelConfig, tokens: usize, recomputes: bool) -> u64 {
    let widest = |of: &dyn Fn(&LayerSpecification) -> usize| config.layers.iter().map(of).max().unwrap_or(0);
    let hidden = config.hidden_size;
    let heads = widest(&|layer| layer.attention.heads);
    let q = widest(&|layer| layer.attention.heads * layer.attention.head_dim);
    let kv = widest(&|layer| layer.attention.kv_heads * layer.attention.head_dim);
    let width = widest(&|layer| layer.feed_forward.intermediate_size);
    let fused = q + 2 * kv;
    // Of each layer that is kept: two normed rows and the middle, queries, keys and values before and after the rotation,
    // the attended rows, gate, up and activated rows; reciprocals of the norms and of the attention's sums.
    let layer = 3 * hidden + fused + 2 * q + kv + 3 * width + 2 + 4 * heads;
    let kept = if recomputes { 1 } else { config.layers.len() };
    let inputs = (config.layers.len() + 1) * hidden;
    // The last norm, and gradients on their way down.
    let passing = hidden + 1 + 2 * hidden + 2 * q + kv + fused + 3 * width;
    // Tokens, targets, positions; losses are double.
    let ids = 3 + 2;
    // The logits of some rows at a time.
    let vocabulary = config.vocabulary_size;
    let logits = rows_of_logits(vocabulary).min(tokens) * vocabulary;
    let mixtures = mixture_floats(config, recomputes);
    ((kept * layer + inputs + passing + ids + mixtures) * tokens + logits) as u64 * FLOAT
}

/// What routed experts need besides, for each token: in each layer logits and scores, the chosen with their weights and
/// places, gate, up and activated rows; on the way down rows in and out, gradients by all of these.
fn mixture_floats(config: &ModelConfig, recomputes: bool) -> usize {
    let mixtures = || config.layers.iter().filter_map(|layer| layer.feed_forward.mixture);
    let widest = |of: &dyn Fn(MixtureSpecification) -> usize| mixtures().map(of).max().unwrap_or(0);
    let experts = widest(&|mixture| mixture.experts);
    let chosen = widest(&|mixture| mixture.experts_per_token);
    let width = widest(&|mixture| mixture.intermediate_size);
    let layers = mixtures().count();
    let kept = if recomputes { layers.min(1) } else { layers };
    let passing = chosen * (2 * config.hidden_size + 3 * width + 1) + experts;
    kept * (2 * experts + chosen * (4 + 3 * width)) + layers.min(1) * passing
}

/// One thread's copies of the largest matrix: twice itself, and twice its product with its transposed.
fn muon_bytes(decoder: &Decoder) -> u64 {
    let matrices =
        decoder.table().entries().iter().filter(|parameter| parameter.kind == ParameterKind::Matrix);
    let floats = matrices.map(|parameter| {
        let side = parameter.shape.iter().copied().min().unwrap_or(0);
        2 * (parameter.span.len() + side * side)
    });
    floats.max().unwrap_or(0) as u64 * FLOAT
}

/// The text of a corpus, in tokens of a tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Text {
    /// UTF-8 bytes of the training part.
    pub bytes: u64,
    /// Tokens that it will be, by the beginning of each language.
    pub tokens: u64,
    /// How often the run goes through it in the mean.
    pub epochs: f64,
}

/// Bytes of each language that are encoded to learn how many bytes a token has.
const SAMPLE_BYTES: u64 = 64 << 10;

/// How much text there is, and how often a run of `tokens` tokens goes through it. Of each language the beginning is
/// encoded; how many bytes there are is in the corpus's manifest, or counted.
///
/// # Errors
/// When the corpus cannot be read.
pub fn text(
    corpus: &Path,
    tokenizer: &Tokenizer,
    tokens: u64,
    cancellation: &Cancellation,
) -> Result<Text, Error> {
    let counted = provenance::Artefact::open(corpus).ok().map(|artefact| artefact.manifest.content.counts);
    let (mut all_bytes, mut all_tokens) = (0, 0.0);
    for (language, path) in crate::texts::shards(&corpus.join("train"))? {
        cancellation.check()?;
        let known =
            counted.as_ref().and_then(|counts| counts["languages"][&language]["train"]["bytes"].as_u64());
        let (mut bytes, mut sample_bytes, mut sample_tokens) = (0, 0u64, 0u64);
        for document in documents::read_shard(&path)? {
            let document = document?;
            bytes += document.text.len() as u64;
            if sample_bytes < SAMPLE_BYTES {
                sample_bytes += document.text.len() as u64;
                // One token stands between documents.
                sample_tokens += 1 + tokenizer.encode_ordinary(&document.text)?.len() as u64;
            } else if known.is_some() {
                break;
            }
        }
        let bytes = known.unwrap_or(bytes);
        all_bytes += bytes;
        all_tokens += sample_tokens as f64 * bytes as f64 / sample_bytes.max(1) as f64;
    }
    Ok(Text {
        bytes: all_bytes,
        tokens: all_tokens.round() as u64,
        epochs: tokens as f64 / all_tokens.max(1.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::random_batch;
    use crate::state::State;
    use crate::trainer::{Optimiser, StepControl, Subject, Trainer};
    use compute::Device;

    fn settings() -> Settings {
        Settings {
            hidden_size: 256,
            layers: 3,
            heads: 4,
            kv_heads: 2,
            head_dim: 64,
            intermediate_size: 768,
            sequence_length: 256,
            batch_tokens: 1024,
            micro_batch_tokens: 1024,
            dropout: 0.0,
            ..Settings::default()
        }
    }

    /// Bytes of memory that are in use by this process.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    #[test]
    fn parameters_are_those_of_the_decoder() {
        let settings = settings();
        let estimate = estimate(&settings, 8192, 2).unwrap();
        let decoder = Decoder::new(&settings.shape(8192, None), 256).unwrap();
        assert_eq!(estimate.parameters, decoder.table().length());
        assert_eq!(estimate.embedding_parameters, 8192 * 256);
        assert_eq!(estimate.model_bytes, 4 * estimate.parameters as u64);
    }

    #[test]
    fn memory_is_what_a_trainer_takes() {
        // Nothing is freed between the cases: what one gives back the next would take without a new page.
        let mut kept = Vec::new();
        for (experts, recompute, optimizer, moments) in [
            (0, true, OptimiserKind::AdamW, MomentStorage::F32),
            (0, false, OptimiserKind::Muon, MomentStorage::F32),
            (8, true, OptimiserKind::AdamW, MomentStorage::F32),
            (8, false, OptimiserKind::AdamW, MomentStorage::Bf16),
        ] {
            let settings =
                Settings { experts, moe_intermediate_size: 256, recompute, optimizer, moments, ..settings() };
            let vocabulary = 4096;
            let memory = estimate(&settings, vocabulary, 1).unwrap().memory;
            let before = resident();
            let device = Device::cpu(1).unwrap();
            let decoder = Decoder::new(&settings.shape(vocabulary, None), 256).unwrap();
            let mut state = State::new(&device, decoder.table().initial_values(1))
                .with_moments(&device, settings.moments.format());
            let optimiser = Optimiser {
                kind: optimizer,
                weight_decay: 0.1,
                beta_1: 0.9,
                beta_2: 0.95,
                epsilon: 1e-8,
                clip_norm: 1.0,
            };
            let tokens = settings.micro_tokens();
            let mut trainer = Trainer::new(&device, decoder, Subject::Model, optimiser, tokens, recompute);
            let batch = random_batch(vocabulary, 4, 256, tokens);
            trainer.step(&mut state, &batch, StepControl::new(1e-3)).unwrap();
            let taken = (resident() - before) as f64;
            let expected = (memory.peak - PROGRAM_BYTES) as f64;
            assert!(
                (0.88..1.15).contains(&(taken / expected)),
                "{optimizer:?}, {experts} experts, recompute {recompute}: {taken} taken, {expected} expected"
            );
            kept.push((state, trainer));
        }
    }
}
