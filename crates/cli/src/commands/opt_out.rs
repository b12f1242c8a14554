//! `eulalia opt-out`: append to the ledger of opt-outs, and prove that it is sound.

use anyhow::Context as _;
use corpus::opt_outs::{self, Request};
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
    }
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
