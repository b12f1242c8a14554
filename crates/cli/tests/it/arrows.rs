//! The arrows between the crates, and what may depend on what from outside. See ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Who may use whom. An arrow that the code does not need is no failure; one that is not here is.
const ARROWS: &[(&str, &[&str])] = &[
    ("provenance", &[]),
    ("languages", &[]),
    ("compute", &[]),
    ("gguf", &[]),
    ("pages", &[]),
    ("documents", &["pages", "provenance"]),
    ("personal_data", &["languages"]),
    ("filters", &["languages", "personal_data", "provenance"]),
    ("corpus", &["documents", "languages", "personal_data", "provenance"]),
    ("survey", &["documents", "provenance"]),
    ("tokenizer", &["documents", "gguf", "languages", "provenance"]),
    ("model", &["compute", "gguf"]),
    ("training", &["model", "compute", "tokenizer", "documents", "languages", "provenance"]),
    ("inference", &["model", "compute", "tokenizer", "provenance"]),
    ("evaluation", &["inference", "tokenizer", "documents", "languages", "provenance"]),
    ("adaptation", &["training", "model", "compute", "tokenizer", "provenance"]),
    ("release", &["documents", "provenance"]),
    ("serving", &["filters", "inference", "tokenizer", "provenance"]),
    ("plot", &[]),
    ("hub", &["provenance"]),
    ("cli", &["*"]),
];

/// The async runtime stays where the network is.
const ASYNC: [&str; 4] = ["tokio", "axum", "hyper", "tower"];

pub fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).exec().unwrap()
}

#[test]
fn crates_use_only_what_the_architecture_allows() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let members: BTreeSet<&str> =
        metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    assert_eq!(members, allowed.keys().copied().collect(), "a crate is not in the table of arrows");
    for package in metadata.workspace_packages() {
        let may = allowed[package.name.as_str()];
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if members.contains(name) && dependency.kind != DependencyKind::Development {
                assert!(
                    may.contains(&name) || may.contains(&"*"),
                    "{} must not use {name}: see the arrows in ARCHITECTURE.md",
                    package.name
                );
            }
            if ASYNC.contains(&name) {
                assert!(
                    ["serving", "documents"].contains(&package.name.as_str()),
                    "{name} belongs into serving, and into documents' one reader of remote objects"
                );
            }
        }
    }
}

#[test]
fn unsafe_code_lives_in_compute_alone() {
    for package in metadata().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        let inherits = manifest.contains("[lints]\nworkspace = true");
        assert!(
            inherits || package.name.as_str() == "compute",
            "{} does not inherit the workspace's lints, which forbid unsafe code",
            package.name
        );
        if package.name.as_str() == "compute" {
            continue;
        }
        for file in rust_files(package.manifest_path.parent().unwrap().as_std_path()) {
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(!text.contains("allow(unsafe_code)"), "{} allows unsafe code", file.display());
        }
    }
}

fn rust_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target" && name != "tests") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
