//! `eulalia doctor`: what this machine can do, and whether a model fits it, before anything is loaded.
//!
//! A model is judged by its configuration and the headers of its weights, the machine by a measurement of some seconds.
//! Decoding reads every weight once a token, so that its limit is the read bandwidth over the bytes of the weights;
//! prefill multiplies them, so that its limit is the arithmetic. Both are limits and not promises.

mod estimate;
pub mod facts;
mod headers;
mod speed;

use std::path::Path;

use hub::{Catalogue, HubSettings, SOURCE_FILE};
use provenance::energy::Energy;
use serde_json::{Value, json};

use crate::arguments::DoctorArguments;
use crate::commands::load;
use crate::commands::pull::{connect, resolve};
use crate::console::{self, printable};
use crate::errors::Usage;
use crate::run::World;

use estimate::Estimate;
use facts::Facts;
use speed::Speed;

/// Programs at work, on average of the last minute, from which on a measurement says little.
const BUSY: f64 = 0.7;

pub fn doctor(arguments: &DoctorArguments, world: &World) -> anyhow::Result<Value> {
    let facts = arguments.model.as_ref().map(|model| judge(model, arguments, world)).transpose()?;
    let here = std::env::current_dir().unwrap_or_default();
    let machine = speed::describe(&here);
    world.console.say("  measuring memory and arithmetic …");
    let speed = Speed::measure(world)?;
    world.console.say(&machine_table(&machine, &speed, world));
    if cfg!(debug_assertions) {
        world.progress.warn(
            "this program was built for debugging: its arithmetic is several times slower than it would be",
        );
    }
    if let Some(load) = machine["load"].as_f64().filter(|load| *load > BUSY) {
        world.progress.warn(&format!(
            "other programs were busy while measuring ({load:.1} of them on {} cores): the figures are lower than they \
             would be",
            machine["cores"]
        ));
    }
    let mut result = json!({
        "program": concat!("eulalia ", env!("CARGO_PKG_VERSION")),
        "machine": machine,
        "speed": speed.to_json(),
    });
    let Some(facts) = facts else { return Ok(result) };
    // Without weights there is nothing to expect.
    let estimate = (facts.parameters > 0)
        .then(|| Estimate::new(&facts, &speed, arguments.context, world.rated_watts, world.threads));
    world.console.say(&format!("\n{}", model_table(&facts, estimate.as_ref())));
    if let Some(estimate) = &estimate {
        world.console.say(&format!("\n{}", estimate.table()));
    }
    for problem in &facts.problems {
        world.progress.warn(&printable(problem));
    }
    for note in &facts.notes {
        world.console.say(&format!("  {}", printable(note)));
    }
    result["model"] = facts.to_json();
    result["estimate"] = estimate.map_or(Value::Null, |estimate| estimate.to_json());
    result["problems"] = json!(facts.problems);
    result["notes"] = json!(facts.notes);
    result["ok"] = json!(facts.problems.is_empty());
    Ok(result)
}

/// A folder or a file of this machine, or else a name.
fn judge(model: &str, arguments: &DoctorArguments, world: &World) -> anyhow::Result<Facts> {
    let path = Path::new(model);
    if path.is_file() {
        return facts::of_gguf(path);
    }
    if path.is_dir() {
        let mut facts = facts::of_folder(path)?;
        if let Some(source) = hub::Source::of_folder(path)? {
            for file in &source.files {
                let there =
                    provenance::digest::join(path, &file.path).metadata().map_or(0, |found| found.len());
                if there != file.bytes {
                    facts.problems.push(format!(
                        "{} has {there} bytes, {SOURCE_FILE} says {}: run the same `eulalia pull` again",
                        file.path, file.bytes
                    ));
                }
            }
        }
        return Ok(facts);
    }
    let is_hub = model.starts_with("hf:");
    let is_weights = load::is_gguf(path) || path.extension().is_some_and(|end| end == "safetensors");
    if !is_hub && (is_weights || model.contains(std::path::is_separator) || model.starts_with('.')) {
        let message = format!(
            "{model}: there is no such file or folder here; a repository of the hub is written hf:ORG/REPOSITORY"
        );
        return Err(Usage(message).into());
    }
    let catalogue = Catalogue::embedded();
    let (address, entry) = resolve(model, &catalogue)?;
    // Nobody waits long for a figure that the catalogue has as well.
    let settings = HubSettings { attempts: 1, ..HubSettings::default() };
    let hub = connect(arguments.mirror.as_deref(), arguments.token_file.as_deref(), settings, world)?;
    match (facts::of_repository(&hub, &address, world), entry) {
        (Ok(facts), _) => Ok(facts),
        // Without a network the catalogue still knows the size.
        (Err(error), Some(entry)) if error.downcast_ref::<provenance::Cancelled>().is_none() => {
            let mut facts = facts::of_entry(entry);
            facts.notes.push(format!("the hub was not asked, and the catalogue's figures are used: {error}"));
            Ok(facts)
        }
        (Err(error), _) => Err(error),
    }
}

fn machine_table(machine: &Value, speed: &Speed, world: &World) -> String {
    let text = |key: &str| machine[key].as_str().unwrap_or("not recorded").to_string();
    let bytes = |key: &str| machine[key].as_u64().map_or("not recorded".to_string(), console::bytes);
    let features = |key: &str| {
        let names: Vec<&str> =
            machine[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if names.is_empty() { "none".to_string() } else { names.join(", ") }
    };
    let giga = |number: f64| format!("{:.0}", number / 1e9);
    let bandwidth =
        format!("{:.1} GB/s over {}", speed.bandwidth / 1e9, console::bytes(speed.bandwidth_bytes));
    let int8 = match speed.int8 {
        Some(operations) => format!("{} G operations/s (VNNI)", giga(operations)),
        None => "no 512-bit dot product (VNNI): as bf16".to_string(),
    };
    let rows = [
        ("processor", text("processor")),
        ("cores", format!("{} (of which {} are used: --threads)", machine["cores"], world.threads)),
        ("instructions used", features("used")),
        ("present, not used", features("not_used")),
        ("memory", format!("{}, {} available", bytes("memory_bytes"), bytes("memory_available_bytes"))),
        ("disk here", format!("{} free", bytes("disk_free_bytes"))),
        ("read bandwidth", bandwidth),
        ("arithmetic, f32", format!("{} G operations/s", giga(speed.f32))),
        ("arithmetic, bf16", format!("{} G operations/s", giga(speed.bf16))),
        ("arithmetic, 8 bits", int8),
        ("energy", energy(&speed.energy)),
    ];
    let heading = format!("this machine, {}", console::counted(world.threads as u64, "thread"));
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, value)| vec![name.to_string(), value]).collect();
    console::table(&[&heading, ""], &rows, 2)
}

fn energy(energy: &Energy) -> String {
    match energy.joules {
        Some(_) => format!("{} while measuring", energy.describe()),
        None => energy.describe(),
    }
}

fn model_table(facts: &Facts, estimate: Option<&Estimate>) -> String {
    let count = |number: u64| console::amount(number as f64);
    let active = match facts.active_parameters() {
        active if active == facts.parameters => String::new(),
        active => format!(", {} a token", count(active)),
    };
    let architecture = facts.architecture.clone().unwrap_or_else(|| "not named".to_string());
    let mut rows = vec![("architecture", architecture)];
    if facts.parameters > 0 {
        let parameters = format!("{} ({}){active}", count(facts.parameters), facts.parameters_are);
        rows.push(("parameters", parameters));
        rows.push(("stored", format!("{}, {}", console::bytes(facts.stored_bytes), facts.stored_as)));
    }
    if let Some(positions) = facts.positions {
        rows.push(("longest context", format!("{positions} tokens")));
    }
    if let Some(estimate) = estimate {
        rows.push(("adapting (LoRA)", estimate.adapting()));
    }
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, value)| vec![name.to_string(), printable(&value)]).collect();
    console::table(&[&printable(&facts.name), ""], &rows, 2)
}
