//! What the corpus command takes as inputs, and what it answers to its own output and to a request to leave things out.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use documents::{Document, ReadOptions, read_documents, read_first_values};
use provenance::digest::files_below;
use serde_json::Value;

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

/// What a corpus kept: its documents by their id, with the part they are in.
fn kept(root: &Path) -> BTreeMap<String, (&'static str, Document)> {
    documents_below(&root.join("corpus"))
}

fn documents_below(folder: &Path) -> BTreeMap<String, (&'static str, Document)> {
    let mut kept = BTreeMap::new();
    for part in ["train", "heldout"] {
        for record in read_documents(&[folder.join(part)], ReadOptions::default()).unwrap() {
            let document = record.unwrap().document.unwrap();
            kept.insert(document.id.clone(), (part, document));
        }
    }
    kept
}

#[test]
fn a_corpus_made_of_a_corpus_keeps_every_document_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (once, twice) = (folder.path().join("once"), folder.path().join("twice"));
    // The sample has duplicates, near-duplicates, boilerplate and personal data.
    let all = "languages=[\"mt\",\"el\",\"bg\",\"ga\",\"en\",\"de\",\"fr\"]";
    let output = corpus(&[&sample().join("documents")], &once, &[all]);
    assert!(output.status.success(), "{}", said(&output));
    let output = corpus(&[&once.join("corpus")], &twice, &[all]);
    assert!(output.status.success(), "{}", said(&output));
    let counts = |root: &Path| {
        let text = std::fs::read(root.join("corpus/statistics.json")).unwrap();
        serde_json::from_slice::<Value>(&text).unwrap()["total"].clone()
    };
    assert!(counts(&once)["dropped"]["near_duplicate"].as_u64() > Some(0), "{}", counts(&once));
    assert_eq!(counts(&twice)["dropped"], serde_json::json!({}));
    assert_eq!(counts(&twice)["read"], counts(&once)["kept"]);
    assert_eq!(kept(&once), kept(&twice));
}

#[test]
fn after_an_opt_out_no_shard_has_a_document_of_the_site() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let sites = ["https://a.example/", "https://www.b.example/", "https://ab.example/"];
    let mut lines = String::new();
    for (number, record) in
        read_documents(&[sample().join("documents/mt.jsonl")], ReadOptions::default()).unwrap().enumerate()
    {
        let mut document = record.unwrap().document.unwrap();
        document.url = Some(format!("{}{number}", sites[number % 3]));
        lines.push_str(&document.to_json());
        lines.push('\n');
    }
    std::fs::write(at("mt.jsonl"), lines).unwrap();
    let build = |ledger: &[&str]| {
        let output = corpus(&[&at("mt.jsonl")], &at("run"), ledger);
        assert!(output.status.success(), "{}", said(&output));
    };
    let found = |site: &str| {
        let mut command = program();
        let output =
            command.args(["inspect", "--json", "--url", site]).arg(at("run/corpus")).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        answer["all"].as_u64().unwrap()
    };
    build(&[]);
    let before = ["a.example", "b.example", "ab.example"].map(found);
    assert!(before.iter().all(|count| *count > 3), "{before:?}");

    let ledger = at("opt-outs.jsonl");
    let mut command = program();
    command.args(["opt-out", "add", "--domain", "b.example", "--reference", "letter 1", "--ledger"]);
    assert!(command.arg(&ledger).output().unwrap().status.success());
    build(&[&format!("opt_outs={ledger:?}")]);
    assert_eq!(["a.example", "b.example", "ab.example"].map(found), [before[0], 0, before[2]]);
    // Not in any file either, whatever `inspect` reads.
    let folder = at("run/corpus").canonicalize().unwrap();
    for name in files_below(&folder).unwrap() {
        let path = folder.join(&name);
        let text = match name.ends_with(".zst") {
            true => format!("{:?}", read_first_values(&path, usize::MAX).unwrap()),
            false => String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned(),
        };
        assert!(!text.contains("www.b.example"), "{name}");
    }
}

#[test]
fn a_corpus_can_be_taken_away_as_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let (root, parquet) = (folder.path().join("run"), folder.path().join("parquet"));
    assert!(corpus(&[&sample().join("documents/mt.jsonl")], &root, &[]).status.success());
    let export = |from: &Path, to: &Path| {
        program().args(["corpus", "export"]).arg(from).arg("--output").arg(to).output().unwrap()
    };
    let output = export(&root.join("corpus"), &parquet);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(files_below(&parquet).unwrap(), ["heldout/mt.parquet", "train/mt.parquet"]);
    assert_eq!(documents_below(&parquet), kept(&root));
    let output = export(&root.join("corpus"), &root.join("corpus"));
    assert!(!output.status.success() && said(&output).contains("an artefact"), "{}", said(&output));
    let output = export(&parquet, folder.path());
    assert!(!output.status.success() && said(&output).contains("no corpus"), "{}", said(&output));
}
