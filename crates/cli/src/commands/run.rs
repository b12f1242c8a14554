//! `eulalia run`, and a single stage on files from anywhere: both are a recipe that is carried out.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::arguments::{RunArguments, StageArguments};
use crate::commands::{estimate, sample};
use crate::console;
use crate::errors::Usage;
use crate::recipe::document::{Entry, Node};
use crate::recipe::{self, Override, Recipe, Roles};
use crate::run::{self, Outcome, World};
use crate::summary;

pub fn run(arguments: &RunArguments, world: &World) -> anyhow::Result<Value> {
    let recipe = recipe::read(&arguments.recipe, &arguments.set)?;
    let root = match &arguments.output {
        Some(output) => output.clone(),
        None => {
            let stem = arguments.recipe.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let name = if recipe.name.is_empty() { stem.unwrap_or_default() } else { recipe.name.clone() };
            Path::new("runs").join(name)
        }
    };
    if arguments.dry_run {
        return plan(&recipe, &root, arguments.sample, world);
    }
    if arguments.estimate {
        return estimate::estimate(&recipe, &root, world);
    }
    let began = std::time::Instant::now();
    let outcomes = run::run(&recipe, &root, world)?;
    let summary = summary::of(&outcomes);
    world.console.say(&summary::render(&summary, &recipe, &root, began.elapsed()));
    let mut result = serde_json::to_value(&summary)?;
    result["output"] = json!(root);
    result["stages"] = stages(&outcomes);
    Ok(result)
}

pub fn stage(arguments: &StageArguments, world: &World) -> anyhow::Result<Value> {
    let recipe = recipe_of(arguments)?;
    if arguments.dry_run {
        return plan(&recipe, &arguments.output, arguments.sample, world);
    }
    if arguments.estimate {
        return estimate::estimate(&recipe, &arguments.output, world);
    }
    let outcomes = run::run(&recipe, &arguments.output, world)?;
    for outcome in &outcomes {
        world.console.say(&format!(
            "{} {}",
            arguments.output.join(&outcome.name).display(),
            outcome.artefact.digest()
        ));
    }
    let counts = outcomes.last().map(|outcome| outcome.artefact.manifest.content.counts.clone());
    Ok(
        json!({ "output": arguments.output.display().to_string(), "stages": stages(&outcomes), "counts": counts }),
    )
}

fn plan(recipe: &Recipe, root: &Path, sample: Option<u64>, world: &World) -> anyhow::Result<Value> {
    let planned = run::plan(recipe, root, world)?;
    let rows: Vec<Vec<String>> = planned
        .iter()
        .map(|stage| vec![stage.name.clone(), stage.kind.into(), stage.action.into(), stage.why.clone()])
        .collect();
    world.console.say(&console::table(&["stage", "kind", "", "why"], &rows, 4));
    let mut result = json!({ "output": root.display().to_string(), "plan": planned });
    if let Some(documents) = sample {
        for instance in recipe.instances.iter().filter(|instance| instance.kind.name == "corpus") {
            result["sample"][&instance.name] = sample::sample(instance, documents, world)?;
        }
    }
    Ok(result)
}

fn stages(outcomes: &[Outcome]) -> Value {
    outcomes
        .iter()
        .map(|outcome| {
            let manifest = &outcome.artefact.manifest;
            json!({
                "name": outcome.name, "kind": outcome.kind.name, "made": outcome.made,
                "key": manifest.content.key, "digest": manifest.digest, "folder": outcome.artefact.folder,
                "seconds": outcome.duration.as_secs_f64(),
            })
        })
        .collect()
}

/// The recipe with one stage that a stage command stands for.
fn recipe_of(arguments: &StageArguments) -> Result<Recipe, Usage> {
    let name = arguments.kind.name;
    let mut settings = match &arguments.settings {
        None => Vec::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Usage(format!("{}: cannot read the settings: {error}", path.display())))?;
            recipe::document::parse(path, &text)?
        }
    };
    let mut overrides = Vec::new();
    for change in &arguments.set {
        let change: Override = format!("{name}.{change}")
            .parse()
            .map_err(|_| Usage(format!("--set {change}: expected KEY=VALUE such as seed=7")))?;
        overrides.push(change);
    }
    let absolute = |path: &PathBuf| -> Result<String, Usage> {
        let path =
            std::path::absolute(path).map_err(|error| Usage(format!("{}: {error}", path.display())))?;
        path.to_str().map(str::to_string).ok_or_else(|| Usage(format!("{}: is not UTF-8", path.display())))
    };
    let entry = |key: &str, value: Node| Entry { key: key.to_string(), line: 0, value };
    let mut from = Vec::new();
    for (role, path) in &arguments.roles {
        from.push(entry(role, Node::Value(json!(absolute(path)?))));
    }
    if !from.is_empty() {
        settings.push(entry("from", Node::Table(from)));
    }
    for (key, paths) in &arguments.files {
        let paths: Vec<String> = paths.iter().map(absolute).collect::<Result<_, _>>()?;
        settings.push(entry(key, Node::Value(json!(paths))));
    }
    let entries = vec![
        Entry { key: "format".into(), line: 0, value: Node::Value(json!(recipe::FORMAT)) },
        Entry { key: name.into(), line: 0, value: Node::Table(settings) },
    ];
    let shown = arguments.settings.clone().unwrap_or_else(|| PathBuf::from(name));
    let roles = if arguments.estimate { Roles::MayBeMissing } else { Roles::Filled };
    recipe::resolve(&shown, entries, &overrides, roles)
}
