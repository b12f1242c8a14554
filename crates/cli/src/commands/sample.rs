//! `--dry-run --sample N`: a corpus stage on some documents, in a temporary folder, to see what it would keep and why.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use corpus::{Kind, LanguageStatistics, Statistics};
use provenance::{Rank, StageOutput};
use serde_json::{Value, json};

use crate::console;
use crate::kinds::corpus_settings;
use crate::recipe::Instance;
use crate::run::World;

/// Examples that are shown of each reason.
const EXAMPLES: usize = 2;
/// Characters of a text that are shown.
const SHOWN_CHARACTERS: usize = 70;

/// Runs a corpus stage on about `documents` documents, shows what became of them, and leaves nothing behind.
pub fn sample(instance: &Instance, documents: u64, world: &World) -> anyhow::Result<Value> {
    let settings = corpus_settings(&instance.settings, &instance.files)?;
    let inputs = instance.files.get("documents").cloned().unwrap_or_default();
    let folder = std::env::temp_dir().join(format!("eulalia-sample-{}", std::process::id()));
    let output = StageOutput { payload: folder.join("payload"), scratch: folder.join("scratch") };
    world.storage.remove_folder(&folder)?;
    world.storage.create_folder(&output.payload)?;
    let context = provenance::Context { rank: Rank::default(), ..world.context() };
    let report = corpus::build_sample(&settings, &inputs, documents, &output, &context);
    world.progress.end();
    let examples = if report.is_ok() { examples(&output.payload) } else { Ok(BTreeMap::new()) };
    world.storage.remove_folder(&folder)?;
    let report = report.with_context(|| format!("the sample of stage {}", instance.name))?;
    let examples = examples?;
    show(&report, &examples, world);
    Ok(json!({ "statistics": report, "examples": examples }))
}

/// Some dropped documents of each reason, as they stand in `dropped/`.
fn examples(payload: &Path) -> anyhow::Result<BTreeMap<String, Vec<Value>>> {
    let mut examples: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.keeps_text()) {
        let path = payload.join("dropped").join(format!("{}.jsonl.zst", kind.name()));
        for line in documents::read_first_values(&path, 10_000)? {
            let reason = line["reason"].as_str().unwrap_or_default().to_string();
            let found = examples.entry(reason).or_default();
            if found.len() < EXAMPLES {
                found.push(line);
            }
        }
    }
    Ok(examples)
}

fn show(report: &Statistics, examples: &BTreeMap<String, Vec<Value>>, world: &World) {
    let row = |name: &str, counts: &LanguageStatistics| {
        let dropped: u64 = counts.dropped.values().sum();
        let mut reasons: Vec<(u64, String)> = counts
            .dropped
            .iter()
            .map(|(reason, count)| (*count, json!(reason).as_str().unwrap_or_default().to_string()))
            .collect();
        reasons.sort_by(|left, right| right.0.cmp(&left.0).then_with(|| left.1.cmp(&right.1)));
        let reasons: Vec<String> =
            reasons.iter().map(|(count, reason)| format!("{reason} {count}")).collect();
        vec![
            name.to_string(),
            counts.read.to_string(),
            counts.kept.to_string(),
            dropped.to_string(),
            reasons.join(", "),
        ]
    };
    let languages = report.languages.iter().filter(|(_, counts)| counts.read > 0);
    let mut rows: Vec<Vec<String>> = languages.map(|(name, counts)| row(name, counts)).collect();
    rows.push(row("all", &report.total));
    world.console.say(&console::table(&["language", "read", "kept", "dropped", "why"], &rows, 5));
    let mut rows = Vec::new();
    for (reason, lines) in examples {
        for line in lines {
            let text: String =
                line["text"].as_str().unwrap_or_default().chars().take(SHOWN_CHARACTERS).collect();
            let id = line["id"].as_str().unwrap_or_default().to_string();
            rows.push(vec![reason.clone(), id, evidence(line), text.replace('\n', " ")]);
        }
    }
    if !rows.is_empty() {
        world.console.say(&console::table(&["reason", "document", "because of", "text"], &rows, 4));
    }
}

/// What was measured, without the fields that every document has.
fn evidence(line: &Value) -> String {
    const FIELDS: [&str; 9] =
        ["id", "url", "date", "license", "language", "source", "text", "metadata", "reason"];
    let fields = line.as_object().into_iter().flatten();
    let evidence = fields.filter(|(key, _)| !FIELDS.contains(&key.as_str()));
    evidence.map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
}
