//! Bad recipes: one clear message that names file, line and key, exit code 2, and nothing is begun.

use std::path::Path;

use crate::support::{program, sample, short_recipe};

/// Runs a recipe's text; returns exit code and message. Nothing may appear in the output folder.
fn check(text: &str, arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.toml");
    std::fs::write(&path, text).unwrap();
    run(&path, &folder.path().join("out"), arguments)
}

fn run(path: &Path, root: &Path, arguments: &[&str]) -> (i32, String) {
    let output = program().arg("run").arg(path).arg("--output").arg(root).args(arguments).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!root.exists(), "a refused recipe left {} behind: {message}", root.display());
    assert!(!message.contains("panicked"), "{message}");
    (output.status.code().unwrap(), message)
}

#[test]
fn every_fault_of_a_recipe_is_named_with_its_place() {
    let good = short_recipe(4);
    let line_of = |text: &str, what: &str| {
        text.lines().position(|line| line.contains(what)).map(|line| format!("line {}", line + 1)).unwrap()
    };
    let changed = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    // The fault, and words that the message must hold besides the file's name.
    let faults: Vec<(String, Vec<String>)> = vec![
        (String::new(), vec!["format = 1".into()]),
        ("format = 2\n[corpus]\n".into(), vec!["format 2".into()]),
        ("format = 1\n".into(), vec!["names no stage".into()]),
        ("format = 1\n[corpus\n".into(), vec!["line 2".into()]),
        (
            changed("layers = 2", "leyers = 2"),
            vec!["leyers".into(), "\"layers\"".into(), line_of(&good, "layers = 2")],
        ),
        (
            changed("steps = 4", "steps = \"four\""),
            vec!["pretrain.steps".into(), line_of(&good, "steps = 4")],
        ),
        (changed("steps = 4", "steps = -4"), vec!["pretrain.steps".into()]),
        (changed("learning_rate = 3e-3", "learning_rate = 0.0"), vec!["learning_rate".into()]),
        (
            changed("learning_rate = 3e-3", "learning_rate = nan"),
            vec!["learning_rate".into(), line_of(&good, "learning_rate")],
        ),
        (changed("kv_heads = 1", "kv_heads = 3"), vec!["pretrain".into(), "heads".into()]),
        (
            changed("[\"el\", \"ga\", \"mt\"]", "[\"el\", \"ga\", \"mtt\"]"),
            vec!["mtt".into(), line_of(&good, "languages = ")],
        ),
        (
            changed("/documents/ga.jsonl", "/documents/gaa.jsonl"),
            vec!["gaa.jsonl".into(), "documents".into()],
        ),
        (changed("[tokenizer]", "[tokeniser]"), vec!["tokeniser".into(), "\"tokenizer\"".into()]),
        (
            changed(
                "corpus = \"corpus\", tokenizer = \"tokenizer\"",
                "corpus = \"corpus\", tokenizer = \"tokeniser\"",
            ),
            vec!["tokeniser".into()],
        ),
        (
            changed(
                "from = { corpus = \"corpus\", tokenizer = \"tokenizer\" }",
                "from = { corpus = \"corpus\" }",
            ),
            vec!["tokenizer".into(), "needs".into()],
        ),
        (
            changed(
                "from = { corpus = \"corpus\", tokenizer = \"tokenizer\" }",
                "from = { corpus = \"tokenizer\", tokenizer = \"tokenizer\" }",
            ),
            vec!["must be a corpus stage".into()],
        ),
        (changed("from = { corpus = \"corpus\" }", "from = \"corpus\""), vec!["tokenizer.from".into()]),
        (changed("[adapt]", "[pretrain]"), vec!["duplicate key".into()]),
        (changed("vocabulary_size = 300", "vocabulary_size = 12"), vec!["vocabulary_size".into()]),
    ];
    assert!(faults.len() >= 15);
    for (text, words) in faults {
        let (code, message) = check(&text, &[]);
        assert_eq!(code, 2, "{text}\n{message}");
        assert!(message.contains("bad.toml"), "the file is not named: {message}");
        for word in words {
            assert!(message.contains(&word), "{word:?} is missing in: {message}");
        }
        assert_eq!(message.lines().count(), 1, "more than one message: {message}");
    }
}

#[test]
fn a_wrong_change_on_the_command_line_is_named() {
    let good = short_recipe(4);
    for (change, word) in [
        ("pretrain.step=5", "\"steps\""),
        ("pretrian.steps=5", "\"pretrain\""),
        ("pretrain.steps=many", "pretrain.steps"),
        ("steps", "STAGE.KEY=VALUE"),
    ] {
        let (code, message) = check(&good, &["--set", change]);
        assert_eq!(code, 2, "{message}");
        assert!(
            message.contains(word) && (message.contains("--set") || message.contains("on the command line")),
            "{change}: {message}"
        );
    }
}

#[test]
fn what_is_no_recipe_at_all_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("out");
    let missing = folder.path().join("missing.toml");
    assert_eq!(run(&missing, &root, &[]).0, 2);
    let (code, message) = run(folder.path(), &root, &[]);
    assert!(code == 2 && message.contains("folder"), "{message}");
    let binary = folder.path().join("binary.toml");
    std::fs::write(&binary, [b'a', 0xff, 0xfe]).unwrap();
    let (code, message) = run(&binary, &root, &[]);
    assert!(code == 2 && message.contains("byte 1") && message.contains("UTF-8"), "{message}");
    std::fs::write(&binary, vec![b'#'; 2 << 20]).unwrap();
    assert_eq!(run(&binary, &root, &[]).0, 2);
}

#[test]
fn the_bundled_recipes_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let recipes = sample().join("../../recipes");
    // These take the bundled sample; others take text that has to be fetched first.
    let complete = ["tiny", "s", "m", "moe", "1b"];
    for name in complete {
        let path = recipes.join(format!("{name}.toml"));
        let (code, message) = run(&path, &folder.path().join("out"), &["--dry-run"]);
        assert!(code == 0 && message.contains("pretrain"), "{name}: {message}");
    }
    for entry in std::fs::read_dir(recipes).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml")
            && let Err(error) = cli::recipe::read(&path, &[])
        {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let fetched = error.to_string().contains("No such file or directory");
            assert!(fetched && !complete.contains(&name.as_str()), "{error}");
        }
    }
}
