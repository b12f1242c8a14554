//! How fast whole training steps run, on shapes that other programs are measured on: `eulalia bench training`.
//!
//! A step is what it is in a run: forward, backward, clipping, optimiser, on random tokens. The figures that come out are
//! tokens a second, useful operations a second (`operations_per_token`), and the speed of the step's own matrix products
//! alone (`products`), which is the ceiling for everything else.

use crate::Error;
use crate::batches::{MicroBatch, StepBatch};
use crate::products::{self, Product};
use crate::state::State;
use crate::trainer::{Optimiser, OptimiserKind, StepControl, Subject, Trainer};
use compute::Device;
use model::{
    Architecture, AttentionSpecification, Decoder, FeedForwardSpecification, LayerSpecification,
    MixtureSpecification, ModelConfig, NormPlacement, QueryKeyNorm, RouterTraining, Scoring,
};
use provenance::Context;
use serde::Serialize;
use std::time::Instant;

/// A model and a step's batch, by a name that others know too.
#[derive(Clone, Debug)]
pub struct BenchShape {
    /// `S`, `M`.
    pub name: &'static str,
    /// The model: Llama's shape, tied embedding.
    pub model: ModelConfig,
    /// Tokens of a sequence.
    pub sequence_length: usize,
    /// Sequences of a step.
    pub sequences: usize,
}

/// The names that [`BenchShape::named`] knows.
pub const BENCH_SHAPES: [&str; 3] = ["S", "M", "MOE"];

impl BenchShape {
    /// The shape of that name, in capital or small letters.
    pub fn named(name: &str) -> Option<BenchShape> {
        Some(match name.to_ascii_uppercase().as_str() {
            "S" => llama("S", 256, 6, 4, 768, 16_384, 8, 256),
            "M" => llama("M", 512, 8, 8, 1_536, 32_768, 4, 512),
            "MOE" => mixture_of_m(),
            _ => return None,
        })
    }

    /// Tokens of a step.
    pub fn tokens(&self) -> usize {
        self.sequences * self.sequence_length
    }

    /// The matrix products of a step.
    pub fn products(&self) -> Vec<Product> {
        products::step_products(&self.model, self.tokens(), self.tokens())
    }
}

#[allow(clippy::too_many_arguments)]
fn llama(
    name: &'static str,
    hidden_size: usize,
    layers: usize,
    heads: usize,
    intermediate_size: usize,
    vocabulary_size: usize,
    sequences: usize,
    sequence_length: usize,
) -> BenchShape {
    let layer = LayerSpecification {
        attention: AttentionSpecification::plain(heads, heads, hidden_size / heads, 10_000.0),
        feed_forward: FeedForwardSpecification::dense(intermediate_size),
        norms: NormPlacement::Before,
    };
    let model = ModelConfig {
        architecture: Architecture::Llama,
        vocabulary_size,
        hidden_size,
        layers: vec![layer; layers],
        norm_epsilon: 1e-6,
        tie_embeddings: true,
        embedding_scale: None,
        logit_soft_cap: None,
        maximum_positions: sequence_length,
        begin_of_text: None,
        end_of_text: None,
        end_tokens: Vec::new(),
        padding: None,
    };
    BenchShape { name, model, sequence_length, sequences }
}

/// M with eight experts, of which a token passes two and one more that all pass: as many active parameters as M has.
fn mixture_of_m() -> BenchShape {
    let mut shape = BenchShape { name: "MOE", ..llama("M", 512, 8, 8, 1_536, 32_768, 4, 512) };
    let mixture = MixtureSpecification {
        experts: 8,
        experts_per_token: 2,
        intermediate_size: 512,
        scoring: Scoring::Sigmoid,
        groups: 1,
        active_groups: 1,
        normalise: true,
        scale: std::f64::consts::SQRT_2,
    };
    shape.model.architecture = Architecture::Dots1;
    for layer in &mut shape.model.layers {
        layer.attention.norm = QueryKeyNorm::Head;
        layer.feed_forward = FeedForwardSpecification { mixture: Some(mixture), ..layer.feed_forward };
        layer.feed_forward.intermediate_size = 512;
    }
    shape
}

/// What may be chosen besides the shape.
#[derive(Clone, Copy, Debug)]
pub struct BenchSettings {
    /// Who moves the matrices.
    pub optimizer: OptimiserKind,
    /// Measured steps; two more come before them.
    pub steps: usize,
    /// Whether the backward pass computes activations again instead of keeping them.
    pub recompute: bool,
}

/// What whole steps took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepSpeed {
    /// Parameters.
    pub parameters: usize,
    /// Parameters that a token meets: less than all of them where there are experts.
    pub active_parameters: usize,
    /// Tokens of a step.
    pub tokens_per_step: usize,
    /// Measured steps.
    pub steps: usize,
    /// Median of the measured steps.
    pub seconds_per_step: f64,
    /// Tokens of a step over that median.
    pub tokens_per_second: f64,
    /// Tokens of a step over the shortest measured step.
    pub best_tokens_per_second: f64,
    /// Useful floating-point operations a second, at the median.
    pub useful_gflops: f64,
    /// Useful floating-point operations in a second of one core's time, where the system counts that: on a busy machine
    /// the wall clock measures the others too.
    pub useful_gflops_per_core: Option<f64>,
    /// Loss of the last step, nats per token.
    pub last_loss: f64,
}

/// Tokens of a micro-batch.
const MICRO_TOKENS: usize = 2048;

/// Steps before the measured ones: the first touches all memory, the second is the first of the usual kind.
const WARM_UP_STEPS: usize = 2;

/// Runs whole steps on random tokens and measures them.
///
/// # Errors
/// When the threads cannot be started, or the run is asked to stop.
pub fn steps(shape: &BenchShape, settings: &BenchSettings, context: &Context) -> Result<StepSpeed, Error> {
    let routers = RouterTraining { bias_update: 1e-3, z_loss: 0.0 };
    let decoder = Decoder::new(&shape.model, shape.sequence_length)?.with_routers(routers);
    let (parameters, active_parameters) = (decoder.table().length(), active_parameters(&decoder));
    let operations = operations_per_token(&decoder, shape.sequence_length);
    let device = Device::cpu(context.threads)?;
    let mut state = State::new(&device, decoder.table().initial_values(1));
    let optimiser = Optimiser {
        kind: settings.optimizer,
        weight_decay: 0.1,
        beta_1: 0.9,
        beta_2: 0.95,
        epsilon: 1e-8,
        clip_norm: 1.0,
    };
    let micro_tokens = MICRO_TOKENS.max(shape.sequence_length);
    let mut trainer =
        Trainer::new(&device, decoder, Subject::Model, optimiser, micro_tokens, settings.recompute);
    let (vocabulary, length) = (shape.model.vocabulary_size, shape.sequence_length);
    let batch = random_batch(vocabulary, shape.sequences, length, micro_tokens);
    let mut seconds = Vec::new();
    let mut last_loss = f64::NAN;
    let mut on_cores = None;
    context.progress.begin("training", Some((WARM_UP_STEPS + settings.steps) as u64), "steps");
    for step in 0..WARM_UP_STEPS + settings.steps {
        context.cancellation.check()?;
        if step == WARM_UP_STEPS {
            on_cores = core_seconds();
        }
        let begin = Instant::now();
        last_loss = trainer.step(&mut state, &batch, StepControl::new(1e-3))?.loss;
        if step >= WARM_UP_STEPS {
            seconds.push(begin.elapsed().as_secs_f64());
        }
        context.progress.advance(1);
    }
    let on_cores = core_seconds().zip(on_cores).map(|(end, begin)| end - begin);
    context.progress.end();
    seconds.sort_by(f64::total_cmp);
    let (median, best) = (median(&seconds), seconds[0]);
    let tokens = shape.tokens() as f64;
    Ok(StepSpeed {
        parameters,
        active_parameters,
        tokens_per_step: shape.tokens(),
        steps: settings.steps,
        seconds_per_step: median,
        tokens_per_second: tokens / median,
        best_tokens_per_second: tokens / best,
        useful_gflops: tokens * operations / median / 1e9,
        useful_gflops_per_core: on_cores
            .map(|seconds| tokens * operations * settings.steps as f64 / seconds / 1e9),
        last_loss,
    })
}

/// Seconds that all threads of this process have really run.
pub(crate) fn core_seconds() -> Option<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split(' ').next()?.parse::<f64>().ok()?;
    }
    Some(nanoseconds / 1e9)
}

fn median(sorted: &[f64]) -> f64 {
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

/// Parameters that a token meets.
pub(crate) fn active_parameters(decoder: &Decoder) -> usize {
    decoder.active_parameters()
}

/// 6 · active parameters + 6 · layers · sequence · width, attention with its causal half left out.
pub(crate) fn operations_per_token(decoder: &Decoder, sequence_length: usize) -> f64 {
    let layers = decoder.config().layers.iter();
    let width: usize = layers.map(|layer| layer.attention.heads * layer.attention.head_dim).sum();
    6.0 * (active_parameters(decoder) + width * sequence_length) as f64
}

/// Sequences of random tokens.
pub(crate) fn random_batch(
    vocabulary: usize,
    sequences: usize,
    length: usize,
    micro_tokens: usize,
) -> StepBatch {
    let token = |i: usize| compute::random::below(3, i as u64, vocabulary as u64) as u32;
    let mut batch = StepBatch::default();
    let per_micro = (micro_tokens / length).max(1);
    for first in (0..sequences).step_by(per_micro) {
        let mut micro = MicroBatch { first_token: (first * length) as u32, ..MicroBatch::default() };
        for sequence in first..(first + per_micro).min(sequences) {
            let tokens: Vec<u32> = (0..=length).map(|i| token(sequence * length + i)).collect();
            micro.push(&tokens[..length], &tokens[1..]);
        }
        batch.targets += micro.targets.len();
        batch.micro_batches.push(micro);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_have_the_parameters_that_others_are_measured_with() {
        for (name, parameters) in [("S", 9_309_440), ("m", 44_048_896)] {
            let shape = BenchShape::named(name).unwrap();
            let decoder = Decoder::new(&shape.model, shape.sequence_length).unwrap();
            assert_eq!(decoder.table().length(), parameters, "{name}");
        }
        assert!(BenchShape::named("L").is_none());
    }
}
