//! Running a recipe: for each stage its key, and where no artefact with that key stands, the work.
//!
//! The order of things for one stage: digest the inputs, make the key, look for the artefact, else open the working
//! folder, build, complete, point. Whatever stops the run in between leaves the working folder, from which the next
//! run goes on, and a line in `run.jsonl`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use provenance::artefact::{self, Content, MANIFEST_FILE};
use provenance::energy::Energy;
use provenance::output::{Finished, OutputFolder};
use provenance::record::{self, RECORD_FILE, Segment};
use provenance::{Artefact, Cancellation, Clock, Context, Digest, Meters, Progress, Rank, Storage};
use serde_json::{Value, json};

use crate::console::{self, Console};
use crate::kinds::{Kind, StageCall};
use crate::machine;
use crate::recipe::{Instance, Recipe, Source};

/// What a command may use of the world: chosen once in `main`, or by a test.
#[derive(Clone)]
pub struct World {
    pub storage: Storage,
    pub clock: Clock,
    pub cancellation: Cancellation,
    pub console: Arc<Console>,
    pub progress: Arc<dyn Progress>,
    pub threads: usize,
    /// Which of several processes this is that make the same thing together.
    pub rank: Rank,
    /// Power of the whole machine as its owner states it, for an estimate where there is no meter.
    pub rated_watts: Option<f64>,
}

impl World {
    /// What a stage may use of it; its meters start now.
    pub fn context(&self) -> Context {
        Context {
            storage: self.storage.clone(),
            cancellation: self.cancellation.clone(),
            progress: self.progress.clone(),
            threads: self.threads,
            rank: self.rank,
            clock: self.clock.clone(),
            meters: Meters::start(),
        }
    }
}

/// A stage of the run, as it stands now.
pub struct Outcome {
    pub name: String,
    pub kind: &'static Kind,
    pub artefact: Artefact,
    /// Whether this run made it.
    pub made: bool,
    pub duration: Duration,
}

/// What a dry run says of one stage.
#[derive(serde::Serialize)]
pub struct Planned {
    pub name: String,
    pub kind: &'static str,
    /// `made` or `make`.
    pub action: &'static str,
    pub why: String,
}

/// Makes whatever of the recipe is not made yet, below `root`.
pub fn run(recipe: &Recipe, root: &Path, world: &World) -> anyhow::Result<Vec<Outcome>> {
    check_free_space(recipe, root)?;
    let together = world.rank.is_one_of_many();
    let mut folder = match together {
        true => OutputFolder::join(root, &world.storage, &world.clock)?,
        false => OutputFolder::open(root, &world.storage, &world.clock)?,
    };
    let is_first = world.rank.rank == 0;
    if is_first {
        keep_recipe(recipe, root, &world.storage)?;
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    for instance in &recipe.instances {
        if !is_first && !instance.kind.shared {
            let rest = format!("{} and what follows are made by rank 0 alone", instance.name);
            world.console.say(&rest);
            return Ok(outcomes);
        }
        let outcome = stage(instance, &outcomes, &mut folder, world)
            .with_context(|| format!("stage {} did not finish", instance.name))?;
        outcomes.push(outcome);
    }
    if is_first {
        folder.save_digest_cache();
    }
    Ok(outcomes)
}

/// What [`run`] would make, and why, without making it.
pub fn plan(recipe: &Recipe, root: &Path, world: &World) -> anyhow::Result<Vec<Planned>> {
    let mut planned: Vec<Planned> = Vec::new();
    // A dry run leaves no trace: without a folder nothing is made yet.
    let mut folder = match root.exists() {
        true => Some(OutputFolder::open(root, &world.storage, &world.clock)?),
        false => None,
    };
    let mut standing: BTreeMap<String, Artefact> = BTreeMap::new();
    for instance in &recipe.instances {
        let remade = instance.from.values().find_map(|source| match source {
            Source::Instance(name) if !standing.contains_key(name) => Some(name.clone()),
            _ => None,
        });
        let current = Artefact::open(&root.join(&instance.name)).ok();
        let mut why = None;
        if let (None, Some(folder)) = (&remade, &mut folder) {
            let inputs = inputs(instance, folder, |name| standing[name].digest())?;
            let key = key_of(instance, &inputs);
            match folder.find(&instance.name, &key) {
                Ok(Some(found)) => {
                    standing.insert(instance.name.clone(), found);
                }
                Ok(None) => why = Some(reason(instance, &inputs, current.as_ref())),
                Err(error) => why = Some(format!("what stands is damaged: {error}")),
            }
        }
        let (action, why) = match (standing.contains_key(&instance.name), remade) {
            (true, _) => ("made", "inputs and settings are unchanged".to_string()),
            (false, Some(name)) => ("make", format!("takes from {name}, which is to be made")),
            (false, None) => ("make", why.unwrap_or_else(|| "never made here".to_string())),
        };
        planned.push(Planned { name: instance.name.clone(), kind: instance.kind.name, action, why });
    }
    Ok(planned)
}

fn stage(
    instance: &Instance,
    outcomes: &[Outcome],
    folder: &mut OutputFolder,
    world: &World,
) -> anyhow::Result<Outcome> {
    world.cancellation.check()?;
    let began = Instant::now();
    let of = |name: &str| outcomes.iter().find(|outcome| outcome.name == name);
    let inputs =
        inputs(instance, folder, |name| of(name).map_or(Digest::ZERO, |outcome| outcome.artefact.digest()))?;
    let key = key_of(instance, &inputs);
    let outcome = |artefact, made| {
        Ok(Outcome {
            name: instance.name.clone(),
            kind: instance.kind,
            artefact,
            made,
            duration: began.elapsed(),
        })
    };
    match folder.find(&instance.name, &key) {
        Ok(Some(found)) => {
            folder.point(&found)?;
            world.console.say(&format!("{} is made already", world.console.bold(&instance.name)));
            return outcome(found, false);
        }
        Ok(None) => {}
        Err(damage) => {
            let kept = folder.set_aside(&instance.name, &key)?;
            world.progress.warn(&format!("{damage}; it is made again (the damaged one: {})", kept.display()));
        }
    }
    world.console.say(&world.console.bold(&instance.name));
    let log = |folder: &OutputFolder, event: &str, detail: Value| {
        folder.log(&json!({
            "time": world.clock.timestamp(), "event": event, "name": instance.name, "key": key, "detail": detail,
        }))
    };
    log(folder, "started", Value::Null)?;
    match build(instance, outcomes, folder, world, inputs, key) {
        Ok((finished, output)) => {
            let (artefact, made) = match is_together(instance, world) {
                true => folder.finish_together(&output, finished, world.rank, &world.cancellation)?,
                false => (folder.finish(&output, finished)?, true),
            };
            if made {
                log(folder, "finished", json!(artefact.digest()))?;
            }
            outcome(artefact, made)
        }
        Err(error) => {
            world.progress.end();
            // Another process may have finished and tidied up while this one still read what lay there.
            if is_together(instance, world)
                && let Ok(Some(artefact)) = folder.find_together(&instance.name, &key)
            {
                return outcome(artefact, false);
            }
            // The log is a courtesy here: the failure itself must reach the user.
            let event = if world.cancellation.is_cancelled() { "stopped" } else { "failed" };
            let _ = log(folder, event, json!(format!("{error:#}")));
            Err(error)
        }
    }
}

/// Whether other processes make this stage's artefact too.
fn is_together(instance: &Instance, world: &World) -> bool {
    instance.kind.shared && world.rank.is_one_of_many()
}

fn build(
    instance: &Instance,
    outcomes: &[Outcome],
    folder: &OutputFolder,
    world: &World,
    inputs: BTreeMap<String, Digest>,
    key: Digest,
) -> anyhow::Result<(Finished, provenance::StageOutput)> {
    let output = match is_together(instance, world) {
        true => folder.begin_together(&instance.name, &key, world.rank)?,
        false => folder.begin(&instance.name, &key)?,
    };
    if is_together(instance, world) && folder.is_made(&instance.name, &key) {
        bail!("another process has just made it");
    }
    let resumed = std::fs::read_dir(&output.scratch).is_ok_and(|mut entries| entries.next().is_some());
    let mut artefacts = BTreeMap::new();
    let mut ancestors: Vec<Segment> = Vec::new();
    for (role, source) in &instance.from {
        let path = match source {
            Source::Folder(path) => path.clone(),
            Source::Instance(name) => match outcomes.iter().find(|outcome| outcome.name == *name) {
                Some(outcome) => outcome.artefact.folder.clone(),
                None => bail!("stage {name} has not run"),
            },
        };
        artefacts.insert(role.clone(), path);
    }
    if instance.kind.carries_ancestors {
        ancestors = collect_ancestors(instance, outcomes, &artefacts)?;
    }
    let mut segment = Segment::default();
    let started = world.clock.timestamp();
    let segments: Vec<Value> = ancestors
        .iter()
        .map(
            |segment| json!({"name": segment.name(), "lines": segment.lines().len(), "last": segment.last()}),
        )
        .collect();
    let mut opening = json!({
        "name": instance.name, "stage": instance.kind.name, "stage_version": instance.kind.version, "key": key,
        "program": {"name": "eulalia", "version": env!("CARGO_PKG_VERSION")},
        "inputs": inputs, "settings": instance.settings, "resumed": resumed,
    });
    if instance.kind.carries_ancestors {
        opening["segments"] = json!(segments);
    }
    segment.add(&started, "started", opening);

    let context = world.context();
    let clock = Instant::now();
    let counts = (instance.kind.build)(&StageCall {
        settings: &instance.settings,
        artefacts: &artefacts,
        files: &instance.files,
        ancestors: &ancestors,
        output: &output,
        context: &context,
    })?;
    world.progress.end();
    let duration = clock.elapsed();
    let mut energy = match (context.meters.energy(), world.rated_watts) {
        (energy, _) if energy.joules.is_some() => energy,
        (_, Some(watts)) => Energy::estimated(watts, duration),
        (energy, None) => energy,
    };
    if resumed && energy.joules.is_some() {
        energy.boundary.push_str("; since the run was resumed");
    }
    if is_together(instance, world) && energy.joules.is_some() {
        let world = world.rank.world;
        energy.boundary.push_str(&format!("; of the machine of one of {world} processes"));
    }
    let circumstances = json!({
        "started": started, "duration_seconds": round(duration.as_secs_f64()), "threads": world.threads,
        "resumed": resumed, "energy": energy, "machine": machine::describe(),
        "peak_memory_bytes": machine::peak_memory_bytes(),
    });
    let content = Content {
        name: instance.name.clone(),
        stage: instance.kind.name.to_string(),
        stage_version: instance.kind.version,
        key,
        inputs,
        settings: instance.settings.clone(),
        counts,
        outside_digest: instance.kind.outside_digest.iter().map(|path| path.to_string()).collect(),
    };
    Ok((Finished { content, segment, ancestors, circumstances }, output))
}

/// The record segments of everything that a release is made from, each once, ancestors first.
fn collect_ancestors(
    instance: &Instance,
    outcomes: &[Outcome],
    artefacts: &BTreeMap<String, PathBuf>,
) -> anyhow::Result<Vec<Segment>> {
    let mut folders: Vec<PathBuf> = Vec::new();
    // All that ran before in this run stands in topological order; what came from elsewhere comes first.
    for (role, source) in &instance.from {
        if let Source::Folder(_) = source {
            folders.push(artefacts[role].clone());
        }
    }
    let mut needed: Vec<String> = instance.from.values().filter_map(instance_name).collect();
    let mut position = 0;
    while position < needed.len() {
        let from = outcomes
            .iter()
            .find(|outcome| outcome.name == needed[position])
            .map(|outcome| outcome.artefact.manifest.content.inputs.values().copied().collect::<Vec<_>>())
            .unwrap_or_default();
        for outcome in outcomes {
            if from.contains(&outcome.artefact.digest()) && !needed.contains(&outcome.name) {
                needed.push(outcome.name.clone());
            }
        }
        position += 1;
    }
    let own = outcomes.iter().filter(|outcome| needed.contains(&outcome.name));
    folders.extend(own.map(|outcome| outcome.artefact.folder.clone()));
    let mut segments: Vec<Segment> = Vec::new();
    for folder in folders {
        let path = folder.join(RECORD_FILE);
        if !path.exists() {
            continue; // made elsewhere: its digest stands among the inputs
        }
        for segment in record::read(&path)? {
            if !segments.iter().any(|known| known.last() == segment.last()) {
                segments.push(segment);
            }
        }
    }
    Ok(segments)
}

fn instance_name(source: &Source) -> Option<String> {
    match source {
        Source::Instance(name) => Some(name.clone()),
        Source::Folder(_) => None,
    }
}

/// The digest of everything that goes into a stage, by role or key.
fn inputs(
    instance: &Instance,
    folder: &mut OutputFolder,
    digest_of: impl Fn(&str) -> Digest,
) -> anyhow::Result<BTreeMap<String, Digest>> {
    let mut inputs = BTreeMap::new();
    for (role, source) in &instance.from {
        let digest = match source {
            Source::Instance(name) => digest_of(name),
            Source::Folder(path) => foreign_digest(path, folder)?,
        };
        inputs.insert(role.clone(), digest);
    }
    for (key, paths) in &instance.files {
        let mut digests = Vec::new();
        for (number, path) in paths.iter().enumerate() {
            if documents::is_remote(path) {
                let files = documents::digest_inputs(std::slice::from_ref(path))?;
                let files = files.iter().map(|file| (file.name.as_str(), file.sha256));
                digests.push((format!("{number:06}/"), provenance::digest::sha256_of_set(files)));
                continue;
            }
            // A file's name counts (its ending says what it is), the folder that holds it does not.
            let name = match path.is_file() {
                true => path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
                false => String::new(),
            };
            digests.push((format!("{number:06}/{name}"), folder.digest_input(path)?));
        }
        let digest =
            provenance::digest::sha256_of_set(digests.iter().map(|(name, digest)| (name.as_str(), *digest)));
        inputs.insert(key.clone(), digest);
    }
    Ok(inputs)
}

/// The digest of a folder that was made elsewhere: an artefact's own, once it is checked, or that of all its files.
fn foreign_digest(path: &Path, folder: &mut OutputFolder) -> anyhow::Result<Digest> {
    if path.join(MANIFEST_FILE).exists() && path.join(artefact::SUMS_FILE).exists() {
        let checked = provenance::verify::verify(path)?;
        if let Some(problem) = checked.problems.first() {
            bail!("{} is not what its record says: {problem}", path.display());
        }
        if let Some(digest) = checked.digest {
            return Ok(digest);
        }
    }
    Ok(folder.digest_input(path)?)
}

fn key_of(instance: &Instance, inputs: &BTreeMap<String, Digest>) -> Digest {
    artefact::key(instance.kind.name, instance.kind.version, inputs, &instance.settings)
}

/// Why a stage is made again: what differs from the artefact that its link points to.
fn reason(instance: &Instance, inputs: &BTreeMap<String, Digest>, current: Option<&Artefact>) -> String {
    let Some(current) = current else { return "never made here".to_string() };
    let content = &current.manifest.content;
    if content.stage_version != instance.kind.version {
        return format!("stage version {} → {}", content.stage_version, instance.kind.version);
    }
    let mut changes = Vec::new();
    let roles: std::collections::BTreeSet<&String> = inputs.keys().chain(content.inputs.keys()).collect();
    for role in roles {
        if inputs.get(role) != content.inputs.get(role) {
            changes.push(format!("input {role} changed"));
        }
    }
    if let (Value::Object(now), Value::Object(then)) = (&instance.settings, &content.settings) {
        let keys: std::collections::BTreeSet<&String> = now.keys().chain(then.keys()).collect();
        for key in keys {
            if now.get(key) != then.get(key) {
                let show = |value: Option<&Value>| value.map_or("absent".to_string(), Value::to_string);
                changes.push(format!("{key}: {} → {}", show(then.get(key)), show(now.get(key))));
            }
        }
    }
    if changes.is_empty() { "its artefact is no longer there".to_string() } else { changes.join(", ") }
}

/// Refuses to start where the disk cannot hold what will be written: a few times the inputs (texts wait uncompressed in the
/// corpus stage), and some room to work.
fn check_free_space(recipe: &Recipe, root: &Path) -> anyhow::Result<()> {
    let input_bytes: u64 = recipe
        .instances
        .iter()
        .flat_map(|instance| instance.files.values().flatten())
        .map(|path| machine::bytes_below(path))
        .sum();
    // What an earlier attempt left is there already.
    let left = machine::bytes_below(&root.join(".work"));
    let needed = (input_bytes * 6).saturating_sub(left) + (64 << 20);
    if let Some(free) = machine::free_bytes(root)
        && free < needed
    {
        bail!(
            "{}: {} are free, about {} are needed; free some space or choose another folder with --output",
            root.display(),
            console::bytes(free),
            console::bytes(needed)
        );
    }
    Ok(())
}

/// Keeps the resolved recipe beside the artefacts.
fn keep_recipe(recipe: &Recipe, root: &Path, storage: &Storage) -> anyhow::Result<()> {
    let text =
        toml::to_string(&without_null(&recipe.resolved())).context("the recipe cannot be written as TOML")?;
    let path = root.join("recipe.toml");
    if std::fs::read_to_string(&path).is_ok_and(|kept| kept == text) {
        return Ok(());
    }
    storage.replace(&path, text.as_bytes())?;
    Ok(())
}

/// TOML has no null: what is not set is left out.
fn without_null(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key.clone(), without_null(value)))
                .collect(),
        ),
        Value::Array(items) => {
            Value::Array(items.iter().filter(|item| !item.is_null()).map(without_null).collect())
        }
        other => other.clone(),
    }
}

fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
