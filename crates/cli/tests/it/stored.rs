//! Every command that answers or scores, over a GGUF file: one made here, and one with blocks as llama.cpp writes them.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};

use gguf::ElementType;
use model::ModelConfig;
use model::testing::{rewrite_gguf, write_random_adapter, write_random_model};
use serde_json::Value;

use crate::support::program;

fn run(arguments: &[&str], folder: &Path, input: &str) -> Output {
    let mut program = program();
    program.args(arguments).current_dir(folder);
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    // A command that asks for nothing does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(arguments: &[&str], folder: &Path) -> Value {
    let more = ["generate", "--json", "--prompt", "Għaliex", "--max-tokens", "12", "--temperature", "0"];
    let output = run(&[&more, arguments].concat(), folder, "");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    result["answers"][0]["text"].clone()
}

/// A model of rows that K-quants fit, as a folder `m` and as `m.gguf`.
fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut config = ModelConfig::tiny_for_tests(260);
    config.hidden_size = 256;
    for layer in &mut config.layers {
        (layer.attention.heads, layer.attention.kv_heads, layer.attention.head_dim) = (4, 2, 64);
        layer.feed_forward.intermediate_size = 256;
    }
    for name in ["m", "adapter"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    write_random_model(&folder.path().join("m"), &config, 3);
    inference::testing::write_byte_tokenizer(&folder.path().join("m")).unwrap();
    write_random_adapter(&folder.path().join("adapter"), &config, 4);
    run(&["convert", "m", "m.gguf"], folder.path(), "");
    folder
}

#[test]
fn a_file_answers_and_scores_as_its_folder_does() {
    let folder = models();
    let folder = folder.path();
    let answer = text(&["m"], folder);
    assert!(answer.as_str().is_some_and(|answer| !answer.is_empty()));
    assert_eq!(text(&["m.gguf"], folder), answer);
    let adapted = text(&["m", "--adapter", "adapter"], folder);
    assert_ne!(adapted, answer);
    assert_eq!(text(&["m.gguf", "--adapter", "adapter"], folder), adapted);
    for adapter in [&[][..], &["--adapter", "adapter"]] {
        let scores = |model| run(&[&["score", model], adapter].concat(), folder, "Oíche mhaith\n").stdout;
        assert_eq!(scores("m.gguf"), scores("m"));
    }
    let chat = |model| {
        let output =
            run(&["chat", "--json", "--max-tokens", "5", "--seed", "3", model], folder, "Dia duit\n");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        result["turns"][0]["assistant"].clone()
    };
    assert_eq!(chat("m.gguf"), chat("m"));
}

#[test]
fn blocks_of_llama_cpp_answer_alike_as_stored_and_decoded() {
    let folder = models();
    let folder = folder.path();
    use ElementType::{Q4_0, Q4K, Q5K, Q6K, Q8_0};
    rewrite_gguf(&folder.join("m.gguf"), &folder.join("q.gguf"), 5, |name| match name {
        "token_embd.weight" | "output.weight" => Some(Q6K),
        _ if name.contains("attn_v.weight") || name.contains("ffn_down") => Some(Q6K),
        _ if name.contains("attn_q.weight") || name.contains("attn_k.weight") => Some(Q4K),
        _ if name.contains("attn_output") => Some(Q5K),
        _ if name.contains("ffn_gate") => Some(Q4_0),
        _ if name.contains("ffn_up") => Some(Q8_0),
        _ => None,
    });
    let stored = text(&["q.gguf"], folder);
    assert_eq!(text(&["q.gguf", "--weights", "stored"], folder), stored);
    assert_eq!(text(&["q.gguf", "--threads", "1"], folder), stored);
    for format in ["f32", "bf16", "q8_0", "q4_0"] {
        assert!(text(&["q.gguf", "--weights", format], folder).is_string());
    }
    let scores = run(&["score", "q.gguf"], folder, "Oíche mhaith\n").stdout;
    assert!(String::from_utf8(scores).unwrap().contains("Oíche mhaith"));
    let bench =
        ["bench", "inference", "q.gguf", "--json", "--weights", "stored", "--prefill", "8", "--decode", "2"];
    let result: Value = serde_json::from_slice(&run(&bench, folder, "").stdout).unwrap();
    assert_eq!(result["formats"][0]["format"], "stored");
}
