//! Loss, logits and every gradient against PyTorch and transformers, from the golden numbers that
//! `tools/oracles/make_golden.py` wrote.

use crate::decoder;
use model::{
    Gradients, InferenceModel, LogitRows, ModelConfig, PackedBatch, SequenceChunk, TrainingWorkspace,
    WeightsReader, load_parameters,
};
use std::path::{Path, PathBuf};

#[derive(serde::Deserialize)]
struct Golden {
    tokens: Vec<u32>,
    targets: Vec<u32>,
    lengths: Vec<usize>,
    loss: f64,
}

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(family)
}

fn check(family: &str) {
    let folder = folder(family);
    let golden: Golden = serde_json::from_slice(&std::fs::read(folder.join("batch.json")).unwrap()).unwrap();
    let config = ModelConfig::load(&folder.join("config.json")).unwrap();
    let values = load_parameters(&config, &folder).unwrap();
    let decoder = decoder(&config);
    let (mut documents, mut positions) = (Vec::new(), Vec::new());
    for &length in &golden.lengths {
        documents.push(positions.len()..positions.len() + length);
        positions.extend(0..length as u32);
    }
    let batch = PackedBatch {
        tokens: &golden.tokens,
        targets: &golden.targets,
        positions: &positions,
        documents: &documents,
        first_token: 0,
    };
    let mut workspace = TrainingWorkspace::new(&config, positions.len());
    let mut gradient = vec![0.0; values.len()];
    let loss = decoder
        .loss(&values, None, batch, None, 1.0, Gradients::Model(&mut gradient), &mut workspace)
        .unwrap();
    assert!((loss / golden.loss - 1.0).abs() < 1e-5, "{family}: loss {loss}, PyTorch {}", golden.loss);

    let mut expected = vec![0.0; values.len()];
    WeightsReader::open(&folder.join("gradients.safetensors"))
        .unwrap()
        .read_all(decoder.table(), &mut expected)
        .unwrap();
    for parameter in decoder.table().entries() {
        let error = relative_error(&gradient[parameter.span.clone()], &expected[parameter.span.clone()]);
        assert!(error < 1e-4, "{family}: gradient by {}: relative error {error:e}", parameter.name);
    }

    // Every fourth row of logits, from the training pass and token by token from the cache.
    let vocabulary = config.vocabulary_size;
    let rows = positions.len().div_ceil(4);
    let mut expected = vec![0.0; rows * vocabulary];
    WeightsReader::open(&folder.join("logits.safetensors"))
        .unwrap()
        .read("logits", &[rows, vocabulary], &mut expected)
        .unwrap();
    let every_fourth = |logits: &[f32]| -> Vec<f32> {
        logits.chunks_exact(vocabulary).step_by(4).flatten().copied().collect()
    };
    let logits = decoder.logits(&values, None, batch, &mut workspace).unwrap();
    let error = relative_error(&every_fourth(&logits), &expected);
    assert!(error < 1e-5, "{family}: logits: relative error {error:e}");
    let model = InferenceModel::load(&folder).unwrap();
    let (mut cache, mut workspace) = (model.new_cache(2), model.new_workspace(1, 1));
    let mut decoded = Vec::new();
    for document in &documents {
        for (position, token) in golden.tokens[document.clone()].iter().enumerate() {
            let tokens = std::slice::from_ref(token);
            let chunk = SequenceChunk {
                tokens,
                first_position: position,
                blocks: &[0, 1],
                adapter: None,
                logits: LogitRows::Last,
            };
            decoded.extend_from_slice(model.forward(&[chunk], &mut cache, &mut workspace).unwrap());
        }
    }
    assert!(decoded == logits, "{family}: decoding token by token gives other bits than training");
}

/// Norm of the difference over the norm of what is expected.
fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| (*a - *b) as f64));
    difference / norm(&mut expected.iter().map(|b| *b as f64))
}

#[test]
fn qwen3_agrees_with_pytorch() {
    check("qwen3");
}

#[test]
fn qwen2_agrees_with_pytorch() {
    check("qwen2");
}

#[test]
fn llama_agrees_with_pytorch() {
    check("llama");
}
