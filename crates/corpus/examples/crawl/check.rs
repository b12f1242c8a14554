//! What became of what was planted.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::make::{Counts, Planted};
use crate::plan::{MAIL_SITE, Plant};

/// Copies that are at least so similar must be found, ones that are less must be kept (`near_duplicate_similarity` as it is
/// set by default, give or take what cleaning changes).
const SURELY_SIMILAR: f64 = 0.8;
const SURELY_DIFFERENT: f64 = 0.7;
/// Least share that has to come out as it should, by plant.
const LEAST_SHARE: f64 = 0.95;

/// What became of one document.
#[derive(Default)]
struct Fate {
    kept: bool,
    reason: Option<String>,
    placeholders: bool,
}

pub fn check(folder: &Path, corpus: &Path) -> Result<(), String> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let counts: Counts =
        serde_json::from_str(&read(&folder.join("counts.json"))?).map_err(|error| error.to_string())?;
    let mut planted: Vec<Planted> = Vec::new();
    for line in read(&folder.join("planted.jsonl"))?.lines() {
        planted.push(serde_json::from_str(line).map_err(|error| error.to_string())?);
    }
    let mut fates: HashMap<&str, Fate> =
        planted.iter().map(|planted| (planted.url.as_str(), Fate::default())).collect();
    let mut seen = Seen::default();
    for part in ["train", "heldout", "dropped"] {
        let inside = corpus.join(part);
        for entry in fs::read_dir(&inside).map_err(|error| format!("{}: {error}", inside.display()))? {
            let path = entry.map_err(|error| error.to_string())?.path();
            for placed in documents::read_values(&path).map_err(|error| error.to_string())? {
                seen.look(&placed.map_err(|error| error.to_string())?.value, part, &mut fates);
            }
        }
    }
    println!("{:14} {:>9} {:>9} {:>8}   what had to happen", "planted", "count", "as it had", "share");
    let mut failed = Vec::new();
    let mut row = |name: String, all: u64, right: u64, rule: &str| {
        let share = right as f64 / all.max(1) as f64;
        println!("{name:14} {all:>9} {right:>9} {:>7.2}%   {rule}", 100.0 * share);
        if all > 0 && share < LEAST_SHARE {
            failed.push(name);
        }
    };
    let plain = counts.planted.get(&Plant::Plain).copied().unwrap_or(0);
    row("plain".to_string(), plain, seen.plain_kept, "kept");
    let mut by_plant: BTreeMap<Plant, (u64, u64)> = BTreeMap::new();
    for planted in &planted {
        let Some(right) = right(planted, &fates[planted.url.as_str()]) else { continue };
        let count = by_plant.entry(planted.plant).or_default();
        count.0 += 1;
        count.1 += u64::from(right);
    }
    for (plant, (all, right)) in &by_plant {
        row(name(*plant), *all, *right, rule(*plant));
    }
    // What is dropped for rights, or cannot be read, has no address left: their numbers have to fit.
    for (plant, reasons) in [
        (Plant::OptedOut, &["opted_out"][..]),
        (Plant::Reserved, &["training_reserved", "tdm_reserved"]),
        (Plant::NoLicense, &["license_missing"]),
        (Plant::Broken, &["unreadable"]),
    ] {
        let wanted = counts.planted.get(&plant).copied().unwrap_or(0);
        let found: u64 = reasons.iter().filter_map(|reason| seen.reasons.get(*reason)).sum();
        let reason = reasons.join(" + ");
        println!("{reason:34} planted {wanted}, counted {found}");
        if wanted != found {
            failed.push(reason);
        }
    }
    println!("texts with an address that had to go: {}", seen.leaks);
    if seen.leaks > 0 {
        failed.push("personal data".to_string());
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("not as planted: {}", failed.join(", "))) }
}

#[derive(Default)]
struct Seen {
    plain_kept: u64,
    reasons: BTreeMap<String, u64>,
    leaks: u64,
}

impl Seen {
    fn look(&mut self, record: &Value, part: &str, fates: &mut HashMap<&str, Fate>) {
        let field = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or("");
        let text = field("text");
        self.leaks += u64::from(text.contains(MAIL_SITE));
        let dropped = part == "dropped";
        if dropped {
            *self.reasons.entry(field("reason").to_string()).or_insert(0) += 1;
        }
        match fates.get_mut(field("url")) {
            Some(fate) => {
                fate.kept |= !dropped;
                fate.placeholders |= text.contains("<EMAIL>") || text.contains("<IBAN>");
                if dropped {
                    fate.reason = Some(field("reason").to_string());
                }
            }
            None => self.plain_kept += u64::from(!dropped),
        }
    }
}

/// Whether it went as it had to; nothing where another row counts it or either would do.
fn right(planted: &Planted, fate: &Fate) -> Option<bool> {
    let reason = fate.reason.as_deref();
    let similarity = planted.similarity.unwrap_or(0.0);
    match planted.plant {
        Plant::ExactCopy => Some(reason == Some("exact_duplicate")),
        Plant::NearCopy if similarity < SURELY_SIMILAR => None,
        // By chance no word was changed.
        Plant::NearCopy if similarity == 1.0 && reason == Some("exact_duplicate") => None,
        Plant::NearCopy => Some(reason == Some("near_duplicate")),
        Plant::FarCopy if similarity > SURELY_DIFFERENT => None,
        Plant::FarCopy | Plant::Boilerplate => Some(fate.kept),
        Plant::PersonalData => Some(fate.kept && fate.placeholders),
        Plant::Short => Some(!fate.kept),
        Plant::OptedOut | Plant::Reserved | Plant::NoLicense | Plant::Broken => Some(!fate.kept),
        Plant::Plain | Plant::Mixed => None,
    }
}

fn rule(plant: Plant) -> &'static str {
    match plant {
        Plant::ExactCopy => "dropped as exact_duplicate",
        Plant::NearCopy => "dropped as near_duplicate (of those with a similarity of 0.8 and more)",
        Plant::FarCopy => "kept (of those with a similarity of 0.7 and less)",
        Plant::Boilerplate => "kept, without the paragraph",
        Plant::PersonalData => "kept, with placeholders",
        Plant::Short | Plant::OptedOut | Plant::Reserved | Plant::NoLicense | Plant::Broken => "not kept",
        Plant::Plain | Plant::Mixed => "",
    }
}

fn name(plant: Plant) -> String {
    serde_json::to_value(plant).ok().and_then(|name| name.as_str().map(str::to_string)).unwrap_or_default()
}
