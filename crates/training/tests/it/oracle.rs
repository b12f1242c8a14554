//! A hundred steps against PyTorch and transformers, from the same weights and batches, which
//! `tools/oracles/make_loss_curve.py` wrote.

use compute::Device;
use model::{Decoder, ModelConfig, load_parameters};
use std::path::Path;
use training::{MicroBatch, Optimiser, OptimiserKind, State, StepBatch, StepControl, Subject, Trainer};

#[derive(serde::Deserialize)]
struct Golden {
    settings: GoldenSettings,
    steps: Vec<GoldenStep>,
}

#[derive(serde::Deserialize)]
struct GoldenSettings {
    weight_decay: f64,
    beta_1: f64,
    beta_2: f64,
    epsilon: f64,
    clip_norm: f64,
}

#[derive(serde::Deserialize)]
struct GoldenStep {
    documents: Vec<Vec<u32>>,
    learning_rate: f64,
    loss: f64,
    gradient_norm: f64,
}

#[test]
fn a_hundred_steps_agree_with_pytorch() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read(crates.join("training/tests/golden/loss_curve.json")).unwrap();
    let Golden { settings, steps } = serde_json::from_slice(&text).unwrap();
    let folder = crates.join("model/tests/golden/qwen3");
    let config = ModelConfig::load(&folder.join("config.json")).unwrap();
    let device = Device::cpu(2).unwrap();
    let mut state = State::new(&device, load_parameters(&config, &folder).unwrap());
    let optimiser = Optimiser {
        kind: OptimiserKind::AdamW,
        weight_decay: settings.weight_decay,
        beta_1: settings.beta_1,
        beta_2: settings.beta_2,
        epsilon: settings.epsilon,
        clip_norm: settings.clip_norm,
    };
    let decoder = Decoder::new(&config, 64).unwrap();
    let mut trainer = Trainer::new(&device, decoder, Subject::Model, optimiser, 64, false);
    assert_eq!(steps.len(), 100);
    for (index, step) in steps.iter().enumerate() {
        // One micro-batch, and in every other step one for each document: both are the same batch.
        let mut batch = StepBatch { micro_batches: vec![MicroBatch::default()], ..StepBatch::default() };
        for document in &step.documents {
            if index % 2 == 1 {
                batch.micro_batches.push(MicroBatch::default());
            }
            let micro = batch.micro_batches.last_mut().unwrap();
            micro.push(&document[..document.len() - 1], &document[1..]);
            batch.targets += document.len() - 1;
        }
        batch.micro_batches.retain(|micro| !micro.tokens.is_empty());
        let outcome = trainer.step(&mut state, &batch, StepControl::new(step.learning_rate)).unwrap();
        let (found, expected) = (outcome.loss, step.loss);
        assert!((found - expected).abs() < 1e-3, "step {index}: loss {found}, PyTorch {expected}");
        let (found, expected) = (outcome.gradient_norm, step.gradient_norm);
        assert!((found / expected - 1.0).abs() < 1e-2, "step {index}: norm {found}, PyTorch {expected}");
    }
}
