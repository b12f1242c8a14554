//! Models into GGUF files and back, as a user types it.

use std::path::Path;
use std::process::Output;

use model::{InferenceModel, LogitRows, ModelConfig, SequenceChunk};

use crate::support::program;

fn eulalia(arguments: &[&str], folder: &Path) -> Output {
    program().args(arguments).current_dir(folder).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn done(arguments: &[&str], folder: &Path) -> serde_json::Value {
    let output = eulalia(&[arguments, &["--json"]].concat(), folder);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Logits of the last of some tokens.
fn logits(path: &Path) -> Vec<f32> {
    let model = InferenceModel::load(path).unwrap();
    let mut cache = model.new_cache(1);
    let mut workspace = model.new_workspace(8, 1);
    let chunk = SequenceChunk {
        tokens: &[1, 5, 60, 2, 33],
        first_position: 0,
        blocks: &[0],
        adapter: None,
        logits: LogitRows::Last,
        answer: false,
    };
    model.forward(&[chunk], &mut cache, &mut workspace).unwrap().to_vec()
}

#[test]
fn a_model_becomes_a_file_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // llama.cpp follows no groups of experts in this family.
    let mut mixture = ModelConfig::tiny_mixture_for_tests(64);
    for routed in mixture.layers.iter_mut().filter_map(|layer| layer.feed_forward.mixture.as_mut()) {
        (routed.groups, routed.active_groups) = (1, 1);
    }
    for (name, config) in [("dense", ModelConfig::tiny_for_tests(64)), ("mixture", mixture)] {
        let source = folder.join(name);
        std::fs::create_dir(&source).unwrap();
        model::testing::write_random_model(&source, &config, 7);
        let file = format!("{name}.gguf");
        let result = done(&["convert", name, &file], folder);
        let bytes = std::fs::read(folder.join(&file)).unwrap();
        assert_eq!(result["bytes"], bytes.len());
        done(&["convert", name, &file, "--force"], folder);
        assert_eq!(std::fs::read(folder.join(&file)).unwrap(), bytes, "the same model, other bytes");
        assert_eq!(logits(&folder.join(&file)), logits(&source), "{name}");
        done(&["convert", &file, "back"], folder);
        assert_eq!(logits(&folder.join("back")), logits(&source), "{name}");
        done(&["convert", &file, "back", "--format", "bf16", "--force"], folder);
        assert!(folder.join("back/generation_config.json").is_file());
        for format in ["q8_0", "q4_0"] {
            let small = format!("{name}-{format}.gguf");
            let result = done(&["quantize", name, &small, "--format", format], folder);
            assert!(result["bytes"].as_u64().unwrap() < bytes.len() as u64 / 2);
            let scale = logits(&source).iter().fold(0.0f32, |most, value| most.max(value.abs()));
            let pairs = logits(&folder.join(&small)).into_iter().zip(logits(&source));
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < scale / 2.0 && worst > 0.0, "{name} {format}: {worst} of {scale}");
        }
        std::fs::remove_dir_all(folder.join("back")).unwrap();
    }
    let left =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with('.')).count(), 0, "something unfinished stays");
}

#[test]
fn conversions_refuse_what_would_destroy_or_mislead() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("m")).unwrap();
    model::testing::write_random_model(&folder.join("m"), &ModelConfig::tiny_for_tests(64), 7);
    std::fs::create_dir(folder.join("precious")).unwrap();
    std::fs::write(folder.join("precious/thesis.txt"), "years of work").unwrap();
    std::fs::write(folder.join("there.gguf"), "something").unwrap();
    let refuse = |arguments: &[&str], code: i32, expected: &str| {
        let output = eulalia(arguments, folder);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(expected), "{arguments:?}: {}", said(&output));
    };
    refuse(&["convert", "m", "there.gguf"], 2, "--force replaces it");
    refuse(&["convert", "m", "precious"], 2, "--force replaces it");
    refuse(&["convert", "m", "precious", "--force"], 2, "is no folder of a model");
    refuse(&["convert", "m", "x", "--format", "q8_0"], 2, "a folder holds f32 or bf16");
    refuse(&["convert", "m", "x.gguf", "--format", "q3"], 2, "q3");
    refuse(&["quantize", "m", "x", "--format", "q8_0"], 2, "ends in .gguf");
    refuse(&["quantize", "m", "x.gguf"], 2, "--format");
    refuse(&["convert", "nowhere", "x.gguf"], 1, "nowhere");
    refuse(&["convert", "there.gguf", "x"], 1, "not a GGUF file");
    assert_eq!(std::fs::read_to_string(folder.join("precious/thesis.txt")).unwrap(), "years of work");

    done(&["convert", "m", "m.gguf"], folder);
    let bytes = std::fs::read(folder.join("m.gguf")).unwrap();
    std::fs::write(folder.join("cut.gguf"), &bytes[..bytes.len() - 4096]).unwrap();
    refuse(&["convert", "cut.gguf", "x"], 1, "it is truncated, get it again");
    refuse(&["score", "cut.gguf"], 1, "cut.gguf");
    refuse(&["score", "m.gguf"], 1, "carries no tokenizer");
    assert!(!folder.join("x").exists() && !folder.join("x.gguf").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_may_have_a_name_that_is_no_text() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("model");
    std::fs::create_dir(&source).unwrap();
    model::testing::write_random_model(&source, &ModelConfig::tiny_for_tests(64), 7);
    let file = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff.gguf"));
    let output = program().args(["convert", "--json"]).arg(&source).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(file.is_file());
}
