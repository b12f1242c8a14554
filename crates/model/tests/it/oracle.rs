//! Loss, logits and every gradient against PyTorch and transformers, from the golden numbers that
//! `tools/oracles/make_golden.py` wrote.

use crate::{decoder, device, workspace};
use model::{
    Gradients, InferenceModel, LogitRows, ModelConfig, PackedBatch, ParameterKind, SequenceChunk,
    WeightsReader, load_parameters,
};
use std::ops::Range;
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

impl Golden {
    fn read(folder: &Path) -> Golden {
        serde_json::from_slice(&std::fs::read(folder.join("batch.json")).unwrap()).unwrap()
    }

    fn documents(&self) -> Vec<Range<usize>> {
        let ends = self.lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        ends.zip(&self.lengths).map(|(end, length)| end - length..end).collect()
    }
}

fn check(family: &str) {
    let folder = folder(family);
    let golden = Golden::read(&folder);
    let config = ModelConfig::load(&folder.join("config.json")).unwrap();
    let values = load_parameters(&config, &folder).unwrap();
    let decoder = decoder(&config);
    let documents = golden.documents();
    let positions: Vec<u32> = documents.iter().flat_map(|document| 0..document.len() as u32).collect();
    let batch = PackedBatch {
        tokens: &golden.tokens,
        targets: &golden.targets,
        positions: &positions,
        documents: &documents,
        first_token: 0,
    };
    let mut workspace = workspace(&config, positions.len());
    let mut gradient = device().zeros(values.len());
    let parameters = device().upload(values.clone());
    let loss = decoder
        .loss(&parameters, None, batch, None, 1.0, Gradients::Model(&mut gradient), &mut workspace)
        .unwrap();
    let gradient = device().read(gradient.at(..));
    assert!((loss / golden.loss - 1.0).abs() < 1e-5, "{family}: loss {loss}, PyTorch {}", golden.loss);

    let reader = WeightsReader::open(&folder.join("gradients.safetensors")).unwrap();
    for parameter in decoder.table().entries() {
        let found = &gradient[parameter.span.clone()];
        if parameter.kind == ParameterKind::RouterBias {
            assert!(found.iter().all(|g| *g == 0.0), "{family}: a gradient by {}", parameter.name);
            continue;
        }
        let mut expected = vec![0.0; found.len()];
        reader.read_shaped(&parameter.name, &parameter.shape, &mut expected).unwrap();
        let error = relative_error(found, &expected);
        assert!(error < 1e-4, "{family}: gradient by {}: relative error {error:e}", parameter.name);
    }
    let logits = decoder.logits(&parameters, None, batch, &mut workspace).unwrap();
    assert!(check_inference(family) == logits, "{family}: inference gives other bits than training");
}

/// Every fourth row of logits against PyTorch's, and each document at once against the same token by token.
fn check_inference(family: &str) -> Vec<f32> {
    let folder = folder(family);
    let golden = Golden::read(&folder);
    let model = InferenceModel::load(&folder).unwrap();
    let (mut cache, mut workspace) = (model.new_cache(2), model.new_workspace(1, 1));
    let mut run = |tokens: &[u32], first_position: usize| -> Vec<f32> {
        let logits = LogitRows::All;
        let chunk =
            SequenceChunk { tokens, first_position, blocks: &[0, 1], adapter: None, logits, answer: false };
        model.forward(&[chunk], &mut cache, &mut workspace).unwrap().to_vec()
    };
    let (mut at_once, mut by_token) = (Vec::new(), Vec::new());
    for document in golden.documents() {
        let tokens = &golden.tokens[document];
        at_once.extend(run(tokens, 0));
        for (position, token) in tokens.iter().enumerate() {
            by_token.extend(run(std::slice::from_ref(token), position));
        }
    }
    assert!(at_once == by_token, "{family}: decoding token by token gives other bits than the whole");

    let vocabulary = model.config().vocabulary_size;
    let rows = golden.tokens.len().div_ceil(4);
    let mut expected = vec![0.0; rows * vocabulary];
    WeightsReader::open(&folder.join("logits.safetensors"))
        .unwrap()
        .read_shaped("logits", &[rows, vocabulary], &mut expected)
        .unwrap();
    let found: Vec<f32> = at_once.chunks_exact(vocabulary).step_by(4).flatten().copied().collect();
    let error = relative_error(&found, &expected);
    assert!(error < 1e-5, "{family}: logits: relative error {error:e}");
    at_once
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

#[test]
fn dots1_agrees_with_pytorch() {
    check("dots1");
}
