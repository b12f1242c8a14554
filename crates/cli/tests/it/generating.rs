//! `generate` and `chat` from outside, over a random model whose tokens are bytes.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use model::ModelConfig;
use model::testing::write_random_model;
use serde_json::Value;

fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_random_model(folder.path(), &ModelConfig::tiny_for_tests(260), 1);
    inference::testing::write_byte_tokenizer(folder.path()).unwrap();
    folder
}

fn run(model: &Path, arguments: &[&str], input: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_eulalia"));
    program.args(["--json", arguments[0]]).arg(model).args(&arguments[1..]);
    program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    // One that refuses its flags does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn result(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains(words), "{:?}: {said}", output.status);
}

#[test]
fn a_text_goes_on_from_a_flag_a_file_or_standard_input() {
    let model = model();
    let file = model.path().join("prompt.txt");
    fs::write(&file, "Ένα κείμενο").unwrap();
    let flags = ["--max-tokens", "12", "--temperature", "1", "--seed", "5"];
    let from = |source: &[&str], input| {
        let output = run(model.path(), &[&["generate"], source, &flags].concat(), input);
        result(&output)["answers"][0]["text"].as_str().unwrap().to_string()
    };
    let text = from(&["--prompt", "Ένα κείμενο"], "");
    assert!(!text.is_empty());
    assert_eq!(from(&["--file", file.to_str().unwrap()], ""), text);
    assert_eq!(from(&[], "Ένα κείμενο\n"), text);
    assert_eq!(from(&["--speculation", "8"], "Ένα κείμενο"), text, "guesses change nothing");
    assert_ne!(from(&["--prompt", "Ένα άλλο"], ""), text);
    assert!(!from(&["--weights", "bf16"], "Ένα κείμενο").is_empty());
    refused(
        &run(model.path(), &["generate", "--weights", "q9"], ""),
        "expected one of f32, bf16, q8_0, q4_0",
    );
    let output = run(model.path(), &["generate", "--prompt", "a", "--count", "3", "--max-tokens", "9"], "");
    let answers = result(&output)["answers"].as_array().unwrap().clone();
    assert!(answers.len() == 3 && answers[0]["text"] != answers[1]["text"], "{answers:?}");
    // The likeliest tokens are the same ones three times, computed together: nobody's time is only that of being shown.
    let flags = ["generate", "--prompt", "a", "--count", "3", "--max-tokens", "200", "--temperature", "0"];
    let answers = result(&run(model.path(), &flags, ""))["answers"].clone();
    let seconds = |index: usize| answers[index]["seconds"].as_f64().unwrap();
    assert!(seconds(1) > seconds(0) / 2.0 && seconds(2) > seconds(0) / 2.0, "{answers}");
}

#[test]
fn an_answer_has_the_form_that_is_asked_for() {
    let model = model();
    let schema = model.path().join("schema.json");
    fs::write(&schema, r#"{"enum": ["ναι", "όχι"]}"#).unwrap();
    let schema = schema.to_str().unwrap();
    let text = |flags: &[&str]| {
        let output = run(model.path(), &[&["generate", "--prompt", "a"], flags].concat(), "");
        result(&output)["answers"][0]["text"].as_str().unwrap().to_string()
    };
    assert!(["\"ναι\"", "\"όχι\""].contains(&text(&["--schema", schema]).as_str()));
    assert!(["ja", "nein"].contains(&text(&["--regex", "ja|nein", "--temperature", "0"]).as_str()));
    let refuse = |flags: &[&str], words| {
        refused(&run(model.path(), &[&["generate", "--prompt", "a"], flags].concat(), ""), words);
    };
    refuse(&["--regex", "(a"], "regular expression");
    refuse(&["--top-p", "0"], "`top_p` is 0");
    refuse(&["--count", "0"], "--count");
    fs::write(schema, r#"{"properties": {"a": {"type": "unicorn"}}}"#).unwrap();
    refuse(&["--schema", schema], "at `/properties/a`");
    fs::write(schema, "{").unwrap();
    refuse(&["--schema", schema], "schema.json: not valid JSON");
}

#[test]
fn the_makers_of_a_model_are_heard() {
    let model = model();
    let with = |generation: &str| {
        fs::write(model.path().join("generation_config.json"), generation).unwrap();
        let output = run(model.path(), &["generate", "--prompt", "a", "--max-tokens", "20"], "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (result(&output)["answers"][0]["text"].clone(), said)
    };
    let (sampled, _) = with(r#"{"temperature": 1.0, "eos_token_id": 0}"#);
    let (greedy, said) = with(r#"{"do_sample": false, "num_beams": 4}"#);
    assert_ne!(sampled, greedy);
    assert!(said.contains("`num_beams = 4` is not followed"), "{said}");
    let output =
        run(model.path(), &["generate", "--prompt", "a", "--max-tokens", "20", "--temperature", "0"], "");
    assert_eq!(result(&output)["answers"][0]["text"], greedy, "a flag says the same");
}

#[test]
fn a_conversation_comes_through_a_pipe() {
    let model = model();
    let input = "Dia duit\n/again\n/undo\n/help\n//slash\n/quit\nnever read\n";
    let output = run(model.path(), &["chat", "--max-tokens", "5", "--temperature", "1"], input);
    let turns = result(&output)["turns"].as_array().unwrap().clone();
    let users: Vec<&str> = turns.iter().map(|turn| turn["user"].as_str().unwrap()).collect();
    assert_eq!(users, ["Dia duit", "Dia duit", "/slash"]);
    assert_ne!(turns[0]["assistant"], turns[1]["assistant"], "another answer");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("tokens/s") && said.contains("/undo"), "{said}");
}

#[test]
fn more_answers_than_run_at_once_wait_for_their_turn() {
    let model = model();
    let output = run(model.path(), &["generate", "--prompt", "a", "--count", "90", "--max-tokens", "1"], "");
    assert_eq!(result(&output)["answers"].as_array().unwrap().len(), 90);
}

#[test]
fn a_long_conversation_forgets_its_beginning() {
    let model = model();
    // The context holds 512 tokens.
    let input = format!("{}\n", "Għandi mistoqsija oħra. ".repeat(5)).repeat(6);
    let output = run(model.path(), &["chat", "--max-tokens", "10"], &input);
    assert_eq!(result(&output)["turns"].as_array().unwrap().len(), 6);
    assert!(String::from_utf8_lossy(&output.stderr).contains("oldest turns are forgotten"));
}

/// What comes of a command whose standard output is `out`.
#[cfg(target_os = "linux")]
fn into(out: Stdio, model: &Path, arguments: &[&str], input: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_eulalia"));
    program.args(arguments).arg(model).stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_that_goes_away_is_no_fault_and_a_full_disk_is() {
    let model = model();
    let lines = "Dia duit\n".repeat(3);
    for arguments in [
        &["score"][..],
        &["chat", "--max-tokens", "5"],
        &["generate", "--max-tokens", "5"],
        &["generate", "--json", "--max-tokens", "5"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let unread = into(writer.into(), model.path(), arguments, &lines);
        let said = String::from_utf8_lossy(&unread.stderr);
        assert!(unread.status.success() && !said.contains("rror"), "{arguments:?}: {said}");
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let full = into(full.into(), model.path(), arguments, &lines);
        let said = String::from_utf8_lossy(&full.stderr);
        assert!(
            full.status.code() == Some(1) && said.contains("cannot write to standard output"),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn a_text_that_cannot_fit_is_refused_before_it_is_encoded() {
    let model = model();
    let text = "Ħobż!".repeat(20_000);
    let words = "the text has 140000 bytes, more than the context of";
    refused(&run(model.path(), &["generate"], &text), words);
    refused(&run(model.path(), &["chat"], &text), words);
    let output = run(model.path(), &["score"], &format!("a\n{text}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains(&format!("line 2: {words}")), "{said}");
}

#[test]
fn input_that_is_no_text_is_named() {
    let model = model();
    for (command, words) in [("score", "line 2 of standard input"), ("chat", "standard input is no text")] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_eulalia"));
        program.args([command, "--threads", "1"]).arg(model.path());
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"a\n\xff\xfe\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(words), "{command}: {said}");
    }
}
