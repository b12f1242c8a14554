//! A shortened recipe and a world to run it in, for all tests here.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cli::console::Console;
use cli::recipe::{self, Override, Recipe};
use cli::run::{self, Outcome, World};
use provenance::context::Silent;
use provenance::{Cancellation, Clock, Rank, Storage};

/// The bundled sample.
pub fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/tiny").canonicalize().unwrap()
}

/// The whole life of a model in about a second: three languages, a very small decoder, a few steps.
pub fn short_recipe(steps: usize) -> String {
    let sample = sample().display().to_string();
    format!(
        r#"format = 1
name = "short"

[corpus]
documents = ["{sample}/documents/el.jsonl", "{sample}/documents/ga.jsonl", "{sample}/documents/mt.jsonl"]
languages = ["el", "ga", "mt"]

[tokenizer]
from = {{ corpus = "corpus" }}
parallel = "{sample}/parallel"
vocabulary_size = 300

[pretrain]
from = {{ corpus = "corpus", tokenizer = "tokenizer" }}
hidden_size = 32
layers = 2
heads = 2
kv_heads = 1
head_dim = 16
intermediate_size = 64
sequence_length = 128
batch_tokens = 1024
steps = {steps}
optimizer = "muon"
learning_rate = 3e-3
checkpoint_every = 3

[evaluate]
from = {{ model = "pretrain", corpus = "corpus" }}
context_length = 128
stride = 64

[adapt]
from = {{ model = "pretrain" }}
conversations = ["{sample}/conversations/mt.jsonl"]
steps = 4

[evaluate-adapter]
kind = "evaluate"
from = {{ model = "pretrain", corpus = "corpus", adapter = "adapt" }}
context_length = 128
stride = 64

[release]
from = {{ model = "pretrain", adapter = "adapt", evaluation = "evaluate", adapter_evaluation = "evaluate-adapter", tokenizer = "tokenizer", corpus = "corpus" }}
title = "short"
license = "Apache-2.0"
redistributable_licenses = ["CC0-1.0"]
"#
    )
}

/// The shortest recipe that still has every kind of stage: eight Maltese documents, one step.
pub fn write_shortest_recipe(folder: &Path) -> PathBuf {
    let texts = std::fs::read_to_string(sample().join("documents/mt.jsonl")).unwrap();
    let some: String = texts.lines().take(8).map(|line| format!("{line}\n")).collect();
    std::fs::write(folder.join("mt.jsonl"), some).unwrap();
    let talks = sample().join("conversations/mt.jsonl").display().to_string();
    let recipe = format!(
        r#"format = 1
name = "shortest"

[corpus]
documents = "mt.jsonl"
languages = ["mt"]

[tokenizer]
from = {{ corpus = "corpus" }}
vocabulary_size = 264

[pretrain]
from = {{ corpus = "corpus", tokenizer = "tokenizer" }}
hidden_size = 8
layers = 1
heads = 1
kv_heads = 1
head_dim = 8
intermediate_size = 8
sequence_length = 64
batch_tokens = 64
steps = 2
checkpoint_every = 1

[evaluate]
from = {{ model = "pretrain", corpus = "corpus" }}
context_length = 64
stride = 32

[adapt]
from = {{ model = "pretrain" }}
conversations = "{talks}"
steps = 1
rank = 1
target_modules = ["q_proj"]
batch_tokens = 64
maximum_length = 64

[release]
from = {{ model = "pretrain", adapter = "adapt", evaluation = "evaluate", tokenizer = "tokenizer", corpus = "corpus" }}
redistributable_licenses = ["CC0-1.0"]
"#
    );
    let path = folder.join("shortest.toml");
    std::fs::write(&path, recipe).unwrap();
    path
}

/// Writes the shortened recipe into a folder.
pub fn write_recipe(folder: &Path, steps: usize) -> PathBuf {
    let path = folder.join("short.toml");
    std::fs::write(&path, short_recipe(steps)).unwrap();
    path
}

pub fn read_recipe(path: &Path, changes: &[&str]) -> Recipe {
    let changes: Vec<Override> = changes.iter().map(|change| change.parse().unwrap()).collect();
    recipe::read(path, &changes).unwrap_or_else(|error| panic!("{error}"))
}

/// A world without progress, with a clock that stands still.
pub fn world(storage: Storage, threads: usize) -> World {
    World {
        storage,
        clock: Clock::fixed(1_700_000_000),
        cancellation: Cancellation::default(),
        console: Arc::new(Console::new(true)),
        progress: Arc::new(Silent),
        threads,
        rank: Rank::default(),
        rated_watts: None,
    }
}

pub fn run(recipe: &Recipe, root: &Path, world: &World) -> anyhow::Result<Vec<Outcome>> {
    run::run(recipe, root, world)
}

/// Name, key and digest of every stage.
pub fn digests(outcomes: &[Outcome]) -> Vec<(String, String)> {
    outcomes.iter().map(|outcome| (outcome.name.clone(), outcome.artefact.digest().to_string())).collect()
}

/// The program itself.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eulalia"));
    command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    command
}

/// Every artefact with a final name below `root` must verify.
pub fn assert_all_whole(root: &Path, when: &str) {
    let Ok(entries) = std::fs::read_dir(root.join(".artefacts")) else { return };
    for entry in entries {
        let folder = entry.unwrap().path();
        let found = provenance::verify::verify(&folder).unwrap();
        assert!(found.problems.is_empty(), "{when}: {}: {:?}", folder.display(), found.problems);
    }
}
