//! `eulalia plot`: pictures of what stages leave behind, and words where there is nothing to draw.

use std::path::Path;

use crate::support::program;

const METRICS: &str = r#"{"step":1,"loss":6.2,"gradient_norm":1.1,"learning_rate":0.001,"expert_load_max_over_mean":[1.5,2.0]}
{"step":1,"heldout_bits_per_byte":{"mt":4.1,"el":2.2,"mean":3.15}}
{"step":2,"loss":5.9,"gradient_norm":0.9,"learning_rate":0.002,"expert_load_max_over_mean":[1.2,1.4]}
{"step":2,"heldout_bits_per_byte":{"mt":3.9,"el":2.1,"mean":3.0}}
"#;
const RESULTS: &str = r#"{"languages":{"mt":{"bits_per_byte":2.9,"lzma_bits_per_byte":3.4,"ngram_bits_per_byte":3.3}},
"mean":{"bits_per_byte":2.9,"lzma_bits_per_byte":3.4,"ngram_bits_per_byte":3.3}}"#;

/// Draws paths into a picture; returns exit code, message and the picture.
fn draw(folder: &Path, paths: &[&str], picture: &str) -> (i32, String, Vec<u8>) {
    let target = folder.join(picture);
    let output =
        program().current_dir(folder).arg("plot").args(paths).arg("--output").arg(picture).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), message, std::fs::read(target).unwrap_or_default())
}

#[test]
fn curves_and_bars_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("moe/circumstances/metrics.jsonl", METRICS);
    write("dense/training.json", r#"{"report": {}, "loss_nats_per_token": [6.0, 5.5, 5.1]}"#);
    write("figures/results.json", RESULTS);

    let (code, message, picture) = draw(folder.path(), &["moe"], "one.svg");
    assert_eq!(code, 0, "{message}");
    let picture = String::from_utf8(picture).unwrap();
    for words in
        ["Training loss", "Learning rate", "Gradient norm", "Expert load", "Held-out text", ">mt<", ">el<"]
    {
        assert!(picture.contains(words), "{words} is missing");
    }
    let (code, message, picture) = draw(folder.path(), &["moe", "dense", "figures"], "all.svg");
    assert_eq!(code, 0, "{message}");
    let picture = String::from_utf8(picture).unwrap();
    for words in ["moe · dense · figures", "Training loss", "Evaluation by language", ">LZMA<", ">dense<"] {
        assert!(picture.contains(words), "{words} is missing");
    }
    let (code, message, picture) = draw(folder.path(), &["moe", "figures"], "all.png");
    assert_eq!(code, 0, "{message}");
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.len() > 10_000);
    assert_eq!(draw(folder.path(), &["moe", "figures"], "again.png").2, picture, "same figures, same bytes");
    let json = program().current_dir(folder.path()).args(["plot", "moe", "--json"]).output().unwrap().stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["runs"][0]["languages"], 2, "{json}");
}

#[test]
fn what_cannot_be_drawn_is_named_with_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let cut = &METRICS[..METRICS.len() - 20];
    for (name, text, words) in [
        ("empty.jsonl", "", "empty.jsonl: the file is empty"),
        ("cut.jsonl", cut, "cut.jsonl: line 4 is cut off"),
        ("bad.jsonl", "{\"step\":1,\"loss\":2}\nnonsense\n", "bad.jsonl: line 2"),
        ("word.jsonl", "{\"step\":1,\"loss\":\"two\"}\n", "word.jsonl: line 1: loss: expected a number"),
        ("other.jsonl", "{\"step\":1}\n", "other.jsonl: no line has a loss"),
        ("cut.json", "{\"loss_nats_per_token\": [6.0,\n 5.5", "cut.json: line 2: the file is cut off"),
        ("none.json", "{\"loss_nats_per_token\": []}", "none.json: loss_nats_per_token has no entries"),
        ("else.json", "{\"a\": 1}", "else.json: expected loss_nats_per_token"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
        let (code, message, picture) = draw(folder.path(), &[name], "picture.svg");
        assert_eq!(code, 1, "{message}");
        assert!(message.contains(words) && picture.is_empty(), "{words}: {message}");
    }
    std::fs::create_dir(folder.path().join("nothing")).unwrap();
    for (path, words) in [("nothing", "nothing: nothing to draw"), ("missing", "cannot read missing")] {
        let (code, message, _) = draw(folder.path(), &[path], "picture.svg");
        assert!(code == 1 && message.contains(words), "{message}");
    }
    let (code, message, _) = draw(folder.path(), &["nothing"], "picture.pdf");
    assert!(code == 2 && message.contains(".svg or .png"), "{message}");
    // A run that is still writing is drawn without its last line.
    std::fs::write(folder.path().join("nothing/metrics.jsonl"), cut).unwrap();
    let (code, message, _) = draw(folder.path(), &["nothing"], "picture.svg");
    assert!(code == 0 && message.contains("line 4 is not written yet"), "{message}");
}
