//! `eulalia opt-out`: append to the ledger of opt-outs, prove that it is sound, and make the file of passages from it that
//! the server filters by.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use corpus::opt_outs::{self, Request};
use documents::Document;
use filters::{PassageSet, WORDS_IN_A_PASSAGE};
use provenance::context::timestamp;
use serde_json::{Value, json};

use crate::arguments::{OptOutAction, OptOutAddArguments, OptOutArguments};
use crate::commands::keys::seconds_since_1970;
use crate::run::World;

pub fn opt_out(arguments: &OptOutArguments, world: &World) -> anyhow::Result<Value> {
    match &arguments.action {
        OptOutAction::Add(arguments) => add(arguments, world),
        OptOutAction::Check { ledger, since } => {
            let summary = opt_outs::check(ledger, *since)?;
            let digest = summary.digest.map(|digest| digest.to_string()).unwrap_or_default();
            world.console.say(&format!(
                "{}: sound; {} requests, {} of them chained, the last of {}\ndigest {digest}",
                ledger.display(),
                summary.requests,
                summary.chained,
                summary.last_date.as_deref().unwrap_or("no day"),
            ));
            Ok(serde_json::to_value(summary)?)
        }
        OptOutAction::Passages { ledger, out, texts } => passages(ledger, out, texts, world),
    }
}

/// Digests of the passages of texts that the ledger names. They are keyed with the ledger's digest: the same inputs make
/// the same file.
fn passages(ledger: &Path, out: &Path, texts: &[PathBuf], world: &World) -> anyhow::Result<Value> {
    let digest = opt_outs::check(ledger, None)?.digest.context("the ledger is empty")?;
    let key = digest.0.first_chunk().copied().unwrap_or_default();
    let requests = opt_outs::Ledger::read(ledger)?;
    let mut passages = PassageSet::new(key);
    for path in texts {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        if requests.names(&Document::new("", &text)).is_none() {
            bail!(
                "{}: {} has no request for a text with these words: add it with `eulalia opt-out add --text`",
                path.display(),
                ledger.display()
            );
        }
        if passages.add(&text) == 0 {
            world.progress.warn(&format!(
                "{}: fewer than {WORDS_IN_A_PASSAGE} words: nothing of it can be found",
                path.display()
            ));
        }
    }
    world.storage.replace(out, &passages.to_bytes())?;
    world.console.say(&format!("{}: {} passages of {} texts", out.display(), passages.len(), texts.len()));
    Ok(json!({ "file": out.display().to_string(), "passages": passages.len(), "texts": texts.len() }))
}

fn add(arguments: &OptOutAddArguments, world: &World) -> anyhow::Result<Value> {
    let of_text = match &arguments.text {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            Some(opt_outs::digest_of_text(&text))
        }
        None => None,
    };
    let request = Request {
        date: arguments.date.clone().unwrap_or_default(),
        domain: arguments.domain.clone(),
        url: arguments.url.clone(),
        id: arguments.id.clone(),
        text_digest: arguments.text_digest.or(of_text),
        reference: arguments.reference.clone(),
        reason: arguments.reason.clone(),
        previous: None,
    };
    let now = timestamp(seconds_since_1970(world));
    let today = now.get(..10).unwrap_or_default();
    let added = opt_outs::add(&world.storage, &arguments.ledger, request, today)?;
    world.console.say(&format!(
        "{}: the request of {} stands. Corpora made from now on leave out what it names; those that are there do not.",
        arguments.ledger.display(),
        added.date
    ));
    Ok(json!({ "ledger": arguments.ledger, "request": added }))
}
