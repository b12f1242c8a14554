//! `eulalia audit`, `backup` and `restore`: what an auditor asks of a server's audit log, conversations that a tenant has
//! kept, and copies of the state.

use std::collections::VecDeque;
use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use serving::{AuditFilter, AuditFormat, AuditKey, Identity, Opened};

use crate::arguments::{AuditAction, AuditArguments, AuditLines, BackupArguments, RestoreArguments};
use crate::commands::state;
use crate::console;
use crate::errors::{Usage, to_output};
use crate::run::World;

/// Letters of what is shown of an event's own fields.
const LONGEST_REST: usize = 80;

/// Words go to standard error; what was asked for to standard output.
pub fn audit(arguments: &AuditArguments, json: bool, world: &World) -> anyhow::Result<Value> {
    match &arguments.action {
        AuditAction::Key { state } => {
            let key = AuditKey::read(state)?.public();
            if !json {
                to_output(write!(std::io::stdout().lock(), "{}", key.pem()))?;
            }
            Ok(json!({ "id": key.id(), "public_key": key.pem() }))
        }
        AuditAction::Show { state, lines, last } => show(state, &filter(state, lines)?, *last, world),
        AuditAction::Export { state, lines, format } => {
            let format = AuditFormat::from_name(format).context("no such format")?;
            let mut output = BufWriter::new(std::io::stdout().lock());
            let count = serving::export_audit(state, &filter(state, lines)?, format, &mut output)?;
            output.flush()?;
            world.console.say(&format!("{} written.", console::counted(count, "event")));
            // Standard output holds the events and nothing else.
            Ok(Value::Null)
        }
        AuditAction::Keygen { to } => {
            let identity = Identity::make()?;
            identity.save(to, &world.storage, &world.clock)?;
            let public = identity.recipient().to_string();
            if !json {
                to_output(writeln!(std::io::stdout().lock(), "{public}"))?;
            }
            world.console.say(&format!(
                "The secret key stands in {}: keep it where the server cannot read it. What is sealed for it is lost \
                 with it.",
                to.display()
            ));
            Ok(json!({ "public_key": public, "file": to.display().to_string() }))
        }
        AuditAction::Decrypt { state, identity, id, lines } => {
            if lines.event.as_deref().is_some_and(|event| event != "content") {
                return Err(
                    Usage("--event: conversations are of the kind `content` alone".to_string()).into()
                );
            }
            decrypt(state, identity, id.as_deref(), &filter(state, lines)?, world)
        }
    }
}

fn decrypt(
    state: &Path,
    identity: &Path,
    id: Option<&str>,
    filter: &AuditFilter,
    world: &World,
) -> anyhow::Result<Value> {
    let identities = Identity::read_file(identity)?;
    let mut output = BufWriter::new(std::io::stdout().lock());
    let mut written = Ok(());
    let found = serving::open_conversations(state, filter, id, &identities, |opened| {
        written = writeln!(output, "{}", conversation(opened));
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    output.flush()?;
    let opened = console::counted(found.opened, "conversation");
    world.console.say(&match found.for_others {
        0 => format!("{opened} opened."),
        others => format!("{opened} opened; {others} are sealed for other keys."),
    });
    // Standard output holds the conversations and nothing else.
    Ok(Value::Null)
}

/// A conversation with what its line in the log says of it.
fn conversation(opened: Opened) -> Value {
    let of_line = ["sequence", "time", "tenant"];
    let mut whole: Map<String, Value> = of_line
        .into_iter()
        .filter_map(|name| Some((name.to_string(), opened.line.get(name)?.clone())))
        .collect();
    whole.extend(opened.conversation);
    Value::Object(whole)
}

/// What `--event` may name: every kind of line that the log may hold.
const EVENTS: [&str; 22] = [
    "request",
    "content",
    "content_lost",
    "requests_refused",
    "sign_in_refused",
    "strangers_refused",
    "administration",
    "server_started",
    "server_stopped",
    "settings_reloaded",
    "settings_refused",
    "certificates_reloaded",
    "certificates_refused",
    "audit_read",
    "backup_taken",
    "state_restored",
    "note_unreadable",
    "segment_opened",
    "segments_removed",
    "lines_erased",
    "erased",
    "clock_jumped",
];

/// Refuses what no line can fit: an answer without lines would say that nothing happened.
fn filter(state: &Path, lines: &AuditLines) -> anyhow::Result<AuditFilter> {
    if !serving::has_audit_log(state) {
        state::must_be_here(state)?;
        let shown = state.display();
        anyhow::bail!(
            "{shown}: no server has used this state yet; its audit log begins with the first `eulalia serve`"
        );
    }
    let AuditLines { since, until, tenant, event, after } = lines;
    if let Some(event) = event.as_deref().filter(|event| !EVENTS.contains(event)) {
        let known = EVENTS.join(", ");
        return Err(Usage(format!("--event: there is no kind {event}; expected one of {known}")).into());
    }
    // A copy of a log alone knows pseudonyms only.
    let tenant = match tenant {
        Some(name) if state::is_here(state) => Some(state::tenant(state, name)?.id),
        tenant => tenant.clone(),
    };
    let filter = AuditFilter {
        since: since.clone(),
        until: until.clone(),
        tenant,
        event: event.clone(),
        after: *after,
    };
    filter.check().map_err(|problem| Usage(format!("--{}", problem.replace('`', ""))))?;
    Ok(filter)
}

fn show(state: &Path, filter: &AuditFilter, last: usize, world: &World) -> anyhow::Result<Value> {
    let mut events: VecDeque<Map<String, Value>> = VecDeque::new();
    let mut found: u64 = 0;
    serving::read_audit(state, filter, |event| {
        found += 1;
        if events.len() == last {
            events.pop_front();
        }
        if last > 0 {
            events.push_back(event);
        }
        ControlFlow::Continue(())
    })?;
    let rows: Vec<Vec<String>> = events.iter().map(row).collect();
    let header = ["number", "time", "event", "tenant", "key", "what", "outcome"];
    world.console.say(&console::table(&header, &rows, header.len()));
    if found > events.len() as u64 {
        world.console.say(&format!("the last {} of {found} events; --last shows more", events.len()));
    }
    Ok(json!({ "found": found, "events": events }))
}

/// A line of the table: what most events have, and the rest of the others in one column.
fn row(event: &Map<String, Value>) -> Vec<String> {
    let text = |name: &str| match event.get(name) {
        None | Some(Value::Null) => String::new(),
        // A log may hold what a client sent: nothing in it steers the terminal.
        Some(Value::String(text)) => console::printable(text).replace('\n', " "),
        Some(other) => other.to_string(),
    };
    let what = if text("event") == "request" {
        let tokens = format!("{}+{} tokens", text("prompt_tokens"), text("completion_tokens"));
        [text("route"), text("model"), tokens].join(" ")
    } else {
        let shown = ["sequence", "time", "event", "tenant", "key", "outcome", "previous", "status"];
        let rest = event.iter().filter(|(name, _)| !shown.contains(&name.as_str()));
        let words: Vec<String> = rest.map(|(name, _)| format!("{name}={}", text(name))).collect();
        words.join(" ").chars().take(LONGEST_REST).collect()
    };
    let outcome = [text("outcome"), text("status")].join(" ");
    vec![text("sequence"), text("time"), text("event"), text("tenant"), text("key"), what, outcome]
}

/// `eulalia backup`
pub fn backup(arguments: &BackupArguments, world: &World) -> anyhow::Result<Value> {
    let summary = serving::backup(&arguments.state, &arguments.to, &world.storage, &world.clock)?;
    world.console.say(&format!(
        "{}: whole, with {} of the audit log up to {}. It holds secrets: keep it as you keep the state.",
        arguments.to.display(),
        console::counted(summary.events, "event"),
        summary.last_time
    ));
    Ok(serde_json::to_value(&summary)?)
}

/// `eulalia restore`
pub fn restore(arguments: &RestoreArguments, world: &World) -> anyhow::Result<Value> {
    let summary = serving::restore(&arguments.backup, &arguments.to, &world.storage, &world.clock)?;
    world.console.say(&format!(
        "{}: restored and checked; its audit log goes on after event {}.",
        arguments.to.display(),
        summary.events
    ));
    Ok(serde_json::to_value(&summary)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind that the server writes and nobody may ask for would be lost to auditors.
    #[test]
    fn every_kind_of_event_can_be_asked_for() {
        let events = include_str!("../../../serving/src/audit/events.rs");
        let names = events.split('"').skip(1).step_by(2);
        let missing: Vec<&str> = names.filter(|name| !EVENTS.contains(name)).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }
}
