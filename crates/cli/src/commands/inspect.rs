//! `eulalia inspect`: what an artefact is, what it was made from, its counts, and some of what is in it.

use std::path::Path;

use anyhow::bail;
use provenance::Artefact;
use provenance::artefact::MANIFEST_FILE;
use provenance::digest::{files_below, join};
use serde_json::{Value, json};
use survey::{Query, search};

use crate::arguments::InspectArguments;
use crate::console;
use crate::run::World;

/// Characters of a sample text that are shown.
const SAMPLE_CHARACTERS: usize = 160;

/// Lines of a document that are shown.
const SHOWN_LINES: usize = 30;

pub fn inspect(arguments: &InspectArguments, world: &World) -> anyhow::Result<Value> {
    let folder = &arguments.folder;
    let query = Query {
        id: arguments.id.clone(),
        url: arguments.url.clone(),
        reason: arguments.reason.clone(),
        language: arguments.language.clone(),
    };
    if !query.is_empty() {
        return find(folder, &query, arguments.samples, world);
    }
    if folder.join(MANIFEST_FILE).is_file() {
        return artefact(folder, arguments.samples, world);
    }
    if folder.join(".artefacts").is_dir() {
        return run_folder(folder, world);
    }
    bail!(
        "{}: expected an artefact (with {MANIFEST_FILE}) or the folder of a run (with .artefacts)",
        folder.display()
    )
}

/// Documents of a corpus, and where they are: kept, or dropped and why.
fn find(folder: &Path, query: &Query, limit: usize, world: &World) -> anyhow::Result<Value> {
    let (found, all) = search(folder, query, limit, &world.context())?;
    for found in &found {
        let place = format!("{}, line {}", found.file, found.line);
        world.console.say(&world.console.bold(&place));
        for (key, value) in found.record.as_object().into_iter().flatten() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            world.console.say(&format!("  {key:10} {}", shortened(&text)));
        }
    }
    let rest = all - found.len();
    match (all, rest) {
        (0, _) => world.console.say("nothing was found"),
        (_, 0) => {}
        _ => world.console.say(&format!("and {rest} more; --samples says how many are shown")),
    }
    Ok(json!({ "found": found, "all": all }))
}

/// The stages of a run, a line each.
fn run_folder(folder: &Path, world: &World) -> anyhow::Result<Value> {
    let mut rows = Vec::new();
    let mut stages = Vec::new();
    let mut names: Vec<_> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    for path in names {
        let Ok(artefact) = Artefact::open(&path) else { continue };
        let content = &artefact.manifest.content;
        rows.push(vec![
            content.name.clone(),
            content.stage.clone(),
            artefact.digest().short(),
            artefact.manifest.circumstances["started"].as_str().unwrap_or("").to_string(),
            format!("{} s", artefact.manifest.circumstances["duration_seconds"]),
        ]);
        stages.push(json!({"name": content.name, "stage": content.stage, "digest": artefact.digest()}));
    }
    world.console.say(&console::table(&["name", "stage", "digest", "started", "took"], &rows, 4));
    Ok(json!({ "stages": stages }))
}

fn artefact(folder: &Path, samples: usize, world: &World) -> anyhow::Result<Value> {
    let artefact = Artefact::open(folder)?;
    let content = &artefact.manifest.content;
    let say = |text: &str| world.console.say(text);
    say(&format!(
        "{} ({} stage, version {})\ndigest   {}\nkey      {}",
        world.console.bold(&content.name),
        content.stage,
        content.stage_version,
        artefact.digest(),
        content.key
    ));
    for (role, digest) in &content.inputs {
        say(&format!("from     {role} {digest}"));
    }
    say(&format!("\nsettings\n{}", outline(&content.settings)));
    say(&format!("\ncounts\n{}", outline(&content.counts)));
    say(&format!("\ncircumstances\n{}", outline(&artefact.manifest.circumstances)));

    let mut rows = Vec::new();
    let mut files = Vec::new();
    let listed = files_below(folder)?;
    for relative in &listed {
        let bytes = join(folder, relative).metadata().map_or(0, |metadata| metadata.len());
        rows.push(vec![relative.clone(), console::bytes(bytes)]);
        files.push(json!({"path": relative, "bytes": bytes}));
    }
    say(&format!("\n{}", console::table(&["file", "size"], &rows, 1)));
    for relative in &listed {
        if relative.ends_with(".jsonl.zst") && samples > 0 {
            show_samples(folder, relative, samples, world)?;
        } else if relative.ends_with(".md") && relative != "README.md" {
            say(&format!("\n{}", beginning(&std::fs::read_to_string(join(folder, relative))?, relative)));
        }
    }
    Ok(json!({ "manifest": artefact.manifest, "files": files }))
}

fn show_samples(folder: &Path, relative: &str, samples: usize, world: &World) -> anyhow::Result<()> {
    let values = documents::read_first_values(&join(folder, relative), samples)?;
    if !values.is_empty() {
        world.console.say(&format!("\n{}", world.console.bold(relative)));
    }
    for value in values {
        match value.get("text").and_then(Value::as_str) {
            Some(text) => {
                let id = value.get("id").and_then(Value::as_str).unwrap_or("");
                world.console.say(&format!("  {id}  {}", shortened(text)));
            }
            None => world.console.say(&format!("  {}", shortened(&value.to_string()))),
        }
    }
    Ok(())
}

/// The first lines of a document, and where the rest is.
fn beginning(text: &str, name: &str) -> String {
    let lines: Vec<&str> = text.lines().take(SHOWN_LINES).collect();
    match text.lines().count() - lines.len() {
        0 => lines.join("\n"),
        more => format!("{}\n… {} more in {name}", lines.join("\n"), console::counted(more as u64, "line")),
    }
}

fn shortened(text: &str) -> String {
    let line: String = console::printable(text).split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SAMPLE_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// A value as indented lines; long lists only by their length.
fn outline(value: &Value) -> String {
    fn lines(value: &Value, indent: usize, out: &mut Vec<String>) {
        let Value::Object(fields) = value else { return };
        for (key, value) in fields {
            let space = " ".repeat(indent);
            match value {
                Value::Object(inner)
                    if inner.values().all(|value| !value.is_object() && !value.is_array()) =>
                {
                    let inline: Vec<String> =
                        inner.iter().map(|(key, value)| format!("{key} {}", plain(value))).collect();
                    out.push(format!("{space}{key}: {}", inline.join(", ")));
                }
                Value::Object(_) => {
                    out.push(format!("{space}{key}:"));
                    lines(value, indent + 2, out);
                }
                Value::Array(items) if items.len() > 24 => {
                    out.push(format!("{space}{key}: {} entries", items.len()));
                }
                other => out.push(format!("{space}{key}: {}", plain(other))),
            }
        }
    }
    let mut out = Vec::new();
    lines(value, 2, &mut out);
    out.join("\n")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        Value::Number(number)
            if number.as_f64().is_some_and(|number| number != 0.0 && number.abs() < 1e-4) =>
        {
            format!("{:e}", number.as_f64().unwrap_or(0.0))
        }
        Value::Number(number) if number.is_f64() => format!("{:.6}", number.as_f64().unwrap_or(0.0))
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_string(),
        other => other.to_string(),
    }
}
