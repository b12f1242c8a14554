//! Weights of GGUF files as they are stored there, beside the same file decoded to f32.

use gguf::ElementType::{self, Bf16, F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
use model::testing::{rewrite_gguf, write_random_gguf};
use model::{InferenceModel, LogitRows, ModelConfig, SequenceChunk, WeightFormat};
use std::path::{Path, PathBuf};

const VOCABULARY: usize = 70;
const TOKENS: usize = 33;

/// A file whose matrices have the types that `element` gives for their names.
fn file(folder: &Path, tied: bool, element: impl Fn(&str) -> Option<ElementType>) -> PathBuf {
    let mut config = ModelConfig::tiny_for_tests(VOCABULARY);
    config.hidden_size = 256;
    config.tie_embeddings = tied;
    for layer in &mut config.layers {
        // Queries end within a panel, and so do keys.
        (layer.attention.heads, layer.attention.kv_heads, layer.attention.head_dim) = (8, 1, 32);
        layer.feed_forward.intermediate_size = 256;
    }
    let (plain, path) = (folder.join("plain.gguf"), folder.join("stored.gguf"));
    write_random_gguf(&plain, &config, 5);
    rewrite_gguf(&plain, &path, 11, element);
    path
}

/// Logits of some tokens: of a prompt in one go, or of an answer token by token.
fn logits(model: &InferenceModel, answer: bool, threads: usize) -> Vec<f32> {
    let tokens: Vec<u32> = (0..TOKENS).map(|i| (i * 29 % VOCABULARY) as u32).collect();
    let (mut cache, mut workspace) = (model.new_cache(1), model.new_workspace(8, threads));
    let mut found = Vec::new();
    for (index, tokens) in tokens.chunks(if answer { 1 } else { TOKENS }).enumerate() {
        let chunk = SequenceChunk {
            tokens,
            first_position: index,
            blocks: &[0],
            adapter: None,
            logits: LogitRows::All,
            answer,
        };
        found.extend_from_slice(model.forward(&[chunk], &mut cache, &mut workspace).unwrap());
    }
    found
}

/// How far apart logits are, over how large they are.
fn error(found: &[f32], expected: &[f32]) -> f64 {
    let sum = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    let apart = sum(&mut found.iter().zip(expected).map(|(&a, &b)| a as f64 - b as f64));
    (apart / sum(&mut expected.iter().map(|&b| b as f64))).sqrt()
}

fn matrix(name: &str) -> bool {
    name.ends_with(".weight") && !name.contains("norm")
}

#[test]
fn sizes_of_a_file_are_known_from_its_headers() {
    let folder = tempfile::tempdir().unwrap();
    for element in [F16, Q8_0, Q4_1, Q6K] {
        for tied in [false, true] {
            let path = file(folder.path(), tied, |name| matrix(name).then_some(element));
            for format in WeightFormat::ALL.into_iter().chain([WeightFormat::Stored]) {
                let model = InferenceModel::load_as(&path, format).unwrap();
                let sizes = model::ModelSizes::of_path(&path, format).unwrap();
                let found = (sizes.weight_bytes(), sizes.bytes_per_token(), sizes.default_cache_format());
                let expected = (model.weight_bytes(), model.bytes_per_token(), model.default_cache_format());
                assert_eq!(found, expected, "{element:?}, {format:?}, {tied}");
            }
        }
    }
}

#[test]
fn every_type_computes_what_its_decoded_numbers_do() {
    let folder = tempfile::tempdir().unwrap();
    for element in [F32, F16, Bf16, Q8_0, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K] {
        let path = file(folder.path(), false, |name| matrix(name).then_some(element));
        let stored = InferenceModel::load_on(&path, WeightFormat::Stored, 2).unwrap();
        let exact = InferenceModel::load_as(&path, WeightFormat::F32).unwrap();
        for answer in [false, true] {
            // What is left is the rounding of activations to 8 bits or bf16.
            let apart = error(&logits(&stored, answer, 1), &logits(&exact, answer, 1));
            let most = if element == F32 { 0.0 } else { 0.05 };
            assert!(apart <= most, "{} answer {answer}: {apart}", element.name());
        }
        let bits = stored.bytes_per_token() as f64 * 8.0 / exact.bytes_per_token() as f64 * 4.0;
        let most = match element {
            F32 => 32.0,
            F16 | Bf16 => 17.0,
            Q4_0 | Q4_1 | Q4K => 6.0,
            _ => 9.5,
        };
        // The panels of so small a head are not full.
        assert!(bits < 4.0 * most, "{}: {bits} bits a weight", element.name());
    }
}

#[test]
fn one_file_may_hold_many_types_and_threads_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    for tied in [false, true] {
        let path = file(folder.path(), tied, |name| {
            Some(match name {
                "token_embd.weight" => Q6K,
                "output.weight" => Q8_0,
                "blk.0.attn_q.weight" => Q4K,
                "blk.0.attn_k.weight" => Q5_0,
                "blk.0.attn_v.weight" => Q6K,
                "blk.1.attn_q.weight" => Q4_0,
                "blk.1.attn_k.weight" => F16,
                "blk.1.attn_v.weight" => Q4_1,
                _ if name.contains("ffn_gate") => Q5K,
                _ if name.contains("ffn_up") => Q4_0,
                _ if name.contains("ffn_down") => Q4_1,
                _ => return None,
            })
        });
        let stored = InferenceModel::load_on(&path, WeightFormat::Stored, 1).unwrap();
        let exact = InferenceModel::load_as(&path, WeightFormat::F32).unwrap();
        let (prompt, answer) = (logits(&stored, false, 1), logits(&stored, true, 1));
        assert!(error(&prompt, &logits(&exact, false, 1)) < 0.05);
        assert!(error(&answer, &logits(&exact, true, 1)) < 0.05);
        let again = InferenceModel::load_on(&path, WeightFormat::Stored, 3).unwrap();
        assert!(logits(&again, false, 2) == prompt && logits(&again, true, 2) == answer);
        for format in [WeightFormat::Q8, WeightFormat::Q4, WeightFormat::Bf16] {
            let model = InferenceModel::load_on(&path, format, 2).unwrap();
            let most = if format == WeightFormat::Q4 { 0.5 } else { 0.05 };
            let apart = error(&logits(&model, false, 2), &logits(&exact, false, 1));
            assert!(apart < most, "{format:?}: {apart}");
        }
    }
}

#[test]
fn a_table_of_embeddings_takes_no_more_than_its_format() {
    let folder = tempfile::tempdir().unwrap();
    let numbers = VOCABULARY * 256;
    let bytes = |tied| {
        let path = file(folder.path(), tied, |_| None);
        WeightFormat::ALL.map(|format| InferenceModel::load_as(&path, format).unwrap().weight_bytes())
    };
    let saved: Vec<usize> =
        bytes(false).into_iter().zip(bytes(true)).map(|(apart, tied)| apart - tied).collect();
    // A tied projection is looked up itself; one of four bits has a table of eight beside it.
    assert_eq!(saved, [4 * numbers, 2 * numbers, numbers / 32 * 34, 0]);
}
