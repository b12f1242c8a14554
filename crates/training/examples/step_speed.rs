//! How fast whole training steps run: tokens and useful floating-point operations a second, on random tokens.
//!
//! cargo run --release -p training --example step_speed -- [tiny|s|m] [threads] [steps]
//!
//! `tiny` is the recipe's model; `s` and `m` are the shapes that other frameworks were measured on (9.3 and 44 million
//! parameters). Operations: tokens · (6 · parameters + 6 · layers · sequence · width), attention with its causal half left out.

use compute::Device;
use model::{Architecture, Decoder, DropoutPlan, ModelConfig};
use std::time::Instant;
use training::{MicroBatch, Optimiser, State, StepBatch, StepControl, Subject, Trainer};

struct Shape {
    hidden: usize,
    layers: usize,
    heads: (usize, usize, usize),
    intermediate: usize,
    vocabulary: usize,
    sequence: usize,
    sequences: usize,
    dropout: f32,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or("tiny".into());
    let threads: usize = arguments.next().map_or(2, |text| text.parse().expect("a number of threads"));
    let steps: usize = arguments.next().map_or(20, |text| text.parse().expect("a number of steps"));
    let shape = match name.as_str() {
        "tiny" => Shape {
            hidden: 128,
            layers: 4,
            heads: (4, 2, 32),
            intermediate: 384,
            vocabulary: 512,
            sequence: 512,
            sequences: 8,
            dropout: 0.15,
        },
        "s" => Shape {
            hidden: 256,
            layers: 6,
            heads: (4, 4, 64),
            intermediate: 768,
            vocabulary: 16_384,
            sequence: 256,
            sequences: 8,
            dropout: 0.0,
        },
        "m" => Shape {
            hidden: 512,
            layers: 8,
            heads: (8, 8, 64),
            intermediate: 1536,
            vocabulary: 32_768,
            sequence: 512,
            sequences: 4,
            dropout: 0.0,
        },
        other => panic!("no shape {other}: tiny, s or m"),
    };
    let mut config = ModelConfig::tiny_for_tests(shape.vocabulary);
    config.hidden_size = shape.hidden;
    config.maximum_positions = shape.sequence;
    let mut layer = config.layers[0];
    (layer.attention.heads, layer.attention.kv_heads, layer.attention.head_dim) = shape.heads;
    layer.feed_forward.intermediate_size = shape.intermediate;
    if name != "tiny" {
        config.architecture = Architecture::Llama;
        layer.attention.head_norm = false;
    }
    config.layers = vec![layer; shape.layers];

    let decoder = Decoder::new(&config, shape.sequence).expect("a shape that makes sense");
    let parameters = decoder.table().length();
    let device = Device::cpu(threads).expect("threads");
    let mut state = State::new(&device, decoder.table().initial_values(1));
    let optimiser = Optimiser {
        kind: training::OptimiserKind::AdamW,
        weight_decay: 0.1,
        beta_1: 0.9,
        beta_2: 0.95,
        epsilon: 1e-8,
        clip_norm: 1.0,
    };
    let micro: usize = arguments.next().map_or(2048, |text| text.parse().expect("tokens of a micro-batch"));
    let per_micro = (micro / shape.sequence).max(1);
    let mut trainer =
        Trainer::new(&device, decoder, Subject::Model, optimiser, per_micro * shape.sequence, false);
    let batch = random_batch(&shape, per_micro);
    let tokens = batch.targets;
    let width = shape.heads.0 * shape.heads.2;
    let operations = tokens as f64 * 6.0 * (parameters + shape.layers * shape.sequence * width) as f64;

    let mut seconds = Vec::new();
    let mut on_cores = 0.0;
    for step in 0..steps + 2 {
        let plan = (shape.dropout > 0.0).then_some(DropoutPlan {
            probability: shape.dropout,
            seed: 1,
            step: step as u64,
        });
        let begin = Instant::now();
        let core_begin = seconds_on_cores();
        let outcome = trainer
            .step(&mut state, &batch, StepControl { dropout: plan, ..StepControl::new(1e-3) })
            .expect("a batch in range");
        if step >= 2 {
            seconds.push(begin.elapsed().as_secs_f64());
            on_cores += seconds_on_cores() - core_begin;
        }
        assert!(outcome.loss.is_finite());
    }
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    println!(
        "{name}: {parameters} parameters, {tokens} tokens a step, {threads} threads, {:?}: {:.1} ms a step, {:.0} tokens/s, {:.1} GFLOP/s (best {:.1}), {:.1} GFLOP/s for each core's second",
        compute::CpuPath::detected(),
        median * 1e3,
        tokens as f64 / median,
        operations / median / 1e9,
        operations / seconds[0] / 1e9,
        operations * steps as f64 / on_cores / 1e9
    );
}

/// Seconds that all threads of this process have really run: on a busy machine the wall clock measures the others.
fn seconds_on_cores() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux");
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e9
}

fn random_batch(shape: &Shape, per_micro: usize) -> StepBatch {
    let token = |i: usize| compute::random::below(3, i as u64, shape.vocabulary as u64) as u32;
    let mut batch = StepBatch::default();
    for first in (0..shape.sequences).step_by(per_micro) {
        let mut micro = MicroBatch { first_token: (first * shape.sequence) as u32, ..MicroBatch::default() };
        for sequence in first..(first + per_micro).min(shape.sequences) {
            let tokens: Vec<u32> =
                (0..=shape.sequence).map(|i| token(sequence * shape.sequence + i)).collect();
            micro.push(&tokens[..shape.sequence], &tokens[1..]);
        }
        batch.targets += micro.targets.len();
        batch.micro_batches.push(micro);
    }
    batch
}
