//! `--estimate`: what pretraining would take on this machine, before anything is spent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use provenance::energy::{Energy, EnergyMeter};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokenizer::Tokenizer;
use training::estimate::{self, Estimate};
use training::products;

use crate::console;
use crate::machine;
use crate::recipe::{Instance, Recipe, Source};
use crate::run::World;

/// The share of its matrix products' speed that a whole step is assumed to reach; `bench training` measures it.
const ASSUMED_SHARE: f64 = 0.8;
/// Tokens of the products that are measured: enough for their full speed, and soon over.
const MEASURED_TOKENS: usize = 512;
const PRODUCT_REPEATS: usize = 3;

/// Estimates every pretraining stage of a recipe; artefacts of the run in `root` are used where they are.
pub fn estimate(recipe: &Recipe, root: &Path, world: &World) -> anyhow::Result<Value> {
    let stages: Vec<&Instance> =
        recipe.instances.iter().filter(|instance| instance.kind.name == "pretrain").collect();
    if stages.is_empty() {
        bail!("the recipe has no pretrain stage; only pretraining can be estimated");
    }
    let estimates: Vec<Value> =
        stages.iter().map(|stage| stage_estimate(stage, recipe, root, world)).collect::<Result<_, _>>()?;
    Ok(json!({ "estimates": estimates }))
}

fn stage_estimate(stage: &Instance, recipe: &Recipe, root: &Path, world: &World) -> anyhow::Result<Value> {
    let settings = training::Settings::deserialize(&stage.settings)?;
    let folder = |role: &str| -> Option<PathBuf> {
        let path = match stage.from.get(role)? {
            Source::Folder(path) => path.clone(),
            Source::Instance(name) => root.join(name),
        };
        path.is_dir().then_some(path)
    };
    let tokenizer = folder("tokenizer").map(|path| Tokenizer::load(&path)).transpose()?;
    let to_be_made = match stage.from.get("tokenizer") {
        Some(Source::Instance(name)) => recipe.instances.iter().find(|instance| instance.name == *name),
        _ => None,
    };
    let default = tokenizer::Settings::default().vocabulary_size;
    let (vocabulary, from) = match (&tokenizer, to_be_made) {
        (Some(tokenizer), _) => (tokenizer.vocabulary_size(), "the tokenizer's"),
        (None, Some(stage)) => {
            let size = stage.settings["vocabulary_size"].as_u64();
            (size.map_or(default, |size| size as usize), "the recipe's")
        }
        (None, None) => (default, "assumed: no tokenizer is given"),
    };
    let estimate = estimate::estimate(&settings, vocabulary, world.threads)?;
    let text = match (folder("corpus"), &tokenizer) {
        (Some(corpus), Some(tokenizer)) => {
            Some(estimate::text(&corpus, tokenizer, estimate.tokens, &world.cancellation)?)
        }
        _ => None,
    };

    let products = estimate::step_products(&settings, vocabulary, MEASURED_TOKENS);
    let mut meter = EnergyMeter::start();
    let began = std::time::Instant::now();
    let speed = products::measure(&products, world.threads, PRODUCT_REPEATS)?.operations_per_second;
    let measured = (meter.read(), began.elapsed());
    let seconds = estimate.operations / (speed * ASSUMED_SHARE);
    let energy = energy(measured, seconds, world.rated_watts);

    world.console.say(&table(stage, &estimate, (vocabulary, from), speed, seconds, &energy, text.as_ref()));
    Ok(json!({
        "stage": stage.name,
        "vocabulary_size": vocabulary,
        "vocabulary_size_is": from,
        "estimate": estimate,
        "text": text,
        "matrix_products_gflops": speed / 1e9,
        "assumed_share": ASSUMED_SHARE,
        "threads": world.threads,
        "seconds": seconds,
        "tokens_per_second": estimate.tokens as f64 / seconds,
        "energy": energy,
        "memory_of_the_machine_bytes": machine::describe()["memory_bytes"],
    }))
}

/// Rated watts over the time; else what the meter said while the products ran, at the same power.
fn energy((measured, took): (Energy, Duration), seconds: f64, rated_watts: Option<f64>) -> Energy {
    let span = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    match (measured.joules, rated_watts) {
        (_, Some(watts)) => Energy::estimated(watts, span),
        (Some(joules), None) if joules > 0.0 => {
            let watts = joules / took.as_secs_f64().max(1e-3);
            let boundary = format!("{}, {watts:.0} W while the products ran", measured.boundary);
            Energy { boundary, ..Energy::estimated(watts, span) }
        }
        _ => Energy::absent(),
    }
}

fn table(
    stage: &Instance,
    estimate: &Estimate,
    (vocabulary, from): (usize, &str),
    speed: f64,
    seconds: f64,
    energy: &Energy,
    text: Option<&estimate::Text>,
) -> String {
    let count = |number: f64| console::amount(number);
    let memory = &estimate.memory;
    let active = match estimate.active_parameters == estimate.parameters {
        true => String::new(),
        false => format!(", {} active", count(estimate.active_parameters as f64)),
    };
    let embedding = count(estimate.embedding_parameters as f64);
    let machine = machine::describe()["memory_bytes"].as_u64();
    let fits = match machine {
        Some(bytes) if bytes < memory.peak => format!("; this machine has only {}", console::bytes(bytes)),
        Some(bytes) => format!(" of {}", console::bytes(bytes)),
        None => String::new(),
    };
    let span = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let mut rows = vec![
        (
            "parameters",
            format!("{}{active}, {embedding} in the embedding", count(estimate.parameters as f64)),
        ),
        ("vocabulary", format!("{vocabulary} ({from})")),
        ("tokens", format!("{} in {} steps", count(estimate.tokens as f64), estimate.steps)),
        ("operations", format!("{:.3e}", estimate.operations)),
        ("memory, at most", format!("{}{fits}", console::bytes(memory.peak))),
        ("  weights", console::bytes(memory.parameters)),
        ("  gradients", console::bytes(memory.gradients)),
        ("  optimiser", console::bytes(memory.optimiser)),
        ("  activations", console::bytes(memory.activations)),
        ("model on disk", console::bytes(estimate.model_bytes)),
        (
            "checkpoints on disk",
            format!(
                "{} each, {} at most",
                console::bytes(estimate.checkpoint_bytes),
                console::bytes(estimate.checkpoints_bytes)
            ),
        ),
        ("matrix products here", format!("{:.0} GFLOP/s, measured now", speed / 1e9)),
        (
            "time here",
            format!(
                "{} ({} tokens/s, if a step reaches {ASSUMED_SHARE} of that)",
                console::duration(span),
                count(estimate.tokens as f64 / seconds)
            ),
        ),
        ("energy", energy.describe()),
    ];
    rows.push(match text {
        Some(text) => (
            "text",
            format!(
                "{}, {} tokens: gone through {:.1} times",
                console::bytes(text.bytes),
                count(text.tokens as f64),
                text.epochs
            ),
        ),
        None => ("text", "not known yet: corpus or tokenizer is still to be made".into()),
    });
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.into(), value]).collect();
    console::table(&[stage.name.as_str(), "estimate"], &rows, 2)
}
