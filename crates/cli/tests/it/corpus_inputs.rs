//! What the corpus command takes as inputs, and what it answers to its own output and to a request to leave things out.

use std::path::Path;
use std::process::Output;

use crate::support::{program, sample};

/// Runs the corpus stage alone on inputs.
fn corpus(inputs: &[&Path], root: &Path, settings: &[&str]) -> Output {
    let mut command = program();
    command.args(["corpus", "--set", "languages=[\"mt\"]", "--output"]).arg(root);
    for input in inputs {
        command.arg("--documents").arg(input);
    }
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn digest(root: &Path) -> String {
    provenance::Artefact::open(&root.join("corpus")).unwrap().digest().to_string()
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_bad_ones_are_named() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (plain, linked) = (at("plain"), at("linked"));
    std::fs::create_dir_all(plain.join("a")).unwrap();
    std::fs::create_dir(&linked).unwrap();
    std::fs::copy(sample().join("documents/mt.jsonl"), plain.join("a/mt.jsonl")).unwrap();
    symlink(plain.join("a"), linked.join("a")).unwrap();
    for (input, root) in [(&plain, "out-plain"), (&linked, "out-linked")] {
        let output = corpus(&[input], &at(root), &[]);
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(digest(&at("out-plain")), digest(&at("out-linked")));

    let check = |target: &Path, words: &str| {
        symlink(target, linked.join("bad.jsonl")).unwrap();
        let output = corpus(&[&linked], &at("out-bad"), &[]);
        let said = said(&output);
        assert!(!output.status.success() && said.contains("bad.jsonl") && said.contains(words), "{said}");
        std::fs::remove_file(linked.join("bad.jsonl")).unwrap();
    };
    check(&at("gone.jsonl"), "does not exist");
    check(&linked, "above");
    check(Path::new("bad.jsonl"), "loop");
}
