//! `eulalia verify`: recompute every digest, follow the record, hold the signature against the files, name what does not
//! fit. Of a server's state folder it is the audit log that is followed.

use std::path::Path;

use provenance::artefact::MANIFEST_FILE;
use provenance::signature::{self, Demand, PublicKey, Standing};
use provenance::tree::digest_tree;
use serde_json::{Value, json};
use serving::{AuditPublicKey, AuditSummary};

use crate::arguments::VerifyArguments;
use crate::commands::state;
use crate::console;
use crate::errors::Usage;
use crate::run::World;

pub fn verify(arguments: &VerifyArguments, world: &World) -> anyhow::Result<Value> {
    let folder = &arguments.folder;
    if serving::has_audit_log(folder) {
        return audit_log(arguments, world);
    }
    if state::is_here(folder) {
        let message = format!(
            "{}: is the state of a server that no server has used yet; its audit log, which could be verified, begins with the \
             first `eulalia serve`",
            folder.display()
        );
        return Err(Usage(message).into());
    }
    if arguments.audit_key.is_some() {
        let message = format!(
            "--audit-key: {} holds no audit log; give the state folder of a server, or a copy of its folder `audit`",
            folder.display()
        );
        return Err(Usage(message).into());
    }
    let keys: Result<Vec<PublicKey>, _> =
        arguments.public_key.iter().map(|path| PublicKey::read(path)).collect();
    let keys = keys?;
    let demand = Demand { signature: arguments.signature.as_deref(), keys: &keys, allow_unsigned: false };
    if !folder.join(MANIFEST_FILE).exists() && (folder.is_file() || is_signed(folder, &demand)) {
        return signed_model(arguments, &demand, world);
    }
    let mut found = provenance::verify::verify_watched(folder, world.threads, world.progress.as_ref())?;
    if let (Some(expected), Some(digest)) = (arguments.expect, found.digest)
        && expected != digest
    {
        found.problems.push(format!("the published digest is {expected}, the files have {digest}"));
    }
    let mut standing = None;
    match signature::judge(folder, &found.present, &demand) {
        Ok(found) => standing = Some(found),
        // A signature that lists other files was already said to.
        Err(_) if !found.problems.is_empty() => {}
        Err(error) => found.problems.push(error.to_string()),
    }
    let good = found.problems.is_empty();
    for problem in &found.problems {
        world.console.say(&format!("✗ {problem}"));
    }
    if good {
        world.console.say(&format!(
            "✓ {}: {} files, {}; record of {} lines over {}",
            folder.display(),
            found.files,
            console::bytes(found.bytes),
            found.record_lines,
            found.segments.join(", ")
        ));
        if let Some(digest) = found.digest {
            world.console.say(&format!("  digest {digest}"));
        }
        if let Some(standing) = &standing {
            world.console.say(&format!("  {}", standing_in_words(standing)));
        }
    } else {
        world.console.say(&format!(
            "{}: {}; do not use it, get it again from where it was published",
            folder.display(),
            console::counted(found.problems.len() as u64, "problem")
        ));
    }
    let mut result = serde_json::to_value(&found)?;
    result["ok"] = json!(good);
    result["signature"] = standing_in_json(standing.as_ref());
    Ok(result)
}

fn is_signed(model: &Path, demand: &Demand<'_>) -> bool {
    demand.signature.is_some() || !demand.keys.is_empty() || signature::default_place(model).exists()
}

/// A model that is no release: its files against its signature.
fn signed_model(arguments: &VerifyArguments, demand: &Demand<'_>, world: &World) -> anyhow::Result<Value> {
    let model = &arguments.folder;
    if arguments.expect.is_some() {
        let message = format!("--expect: {} is no release and has no published digest", model.display());
        return Err(Usage(message).into());
    }
    let tree = digest_tree(model, world.threads, world.progress.as_ref())?;
    let mut problems = tree.problems;
    let judged = signature::judge(model, &tree.files, demand);
    let standing = match judged {
        Ok(standing) => Some(standing),
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    };
    for problem in &problems {
        world.console.say(&format!("✗ {problem}"));
    }
    if let (true, Some(standing)) = (problems.is_empty(), &standing) {
        let files = console::counted(tree.files.len() as u64, "file");
        world.console.say(&format!("✓ {}: {files}, {}", model.display(), console::bytes(tree.bytes)));
        world.console.say(&format!("  {}", standing_in_words(standing)));
    }
    Ok(json!({
        "ok": problems.is_empty(), "files": tree.files.len(), "bytes": tree.bytes, "problems": problems,
        "signature": standing_in_json(standing.as_ref()),
    }))
}

/// Who vouches for a model, for people.
pub fn standing_in_words(standing: &Standing) -> String {
    match standing {
        Standing::Unsigned => "not signed".to_string(),
        Standing::SignedBy(key) => format!("signed by the key {key}"),
        Standing::Unchecked(key) => format!(
            "its signature lists these files and says that it is by the key {}; not checked against a key that you named",
            key.as_deref().unwrap_or("of an unknown owner")
        ),
    }
}

fn standing_in_json(standing: Option<&Standing>) -> Value {
    match standing {
        None | Some(Standing::Unsigned) => Value::Null,
        Some(Standing::SignedBy(key)) => json!({"key": key, "checked": true}),
        Some(Standing::Unchecked(key)) => json!({"key": key, "checked": false}),
    }
}

/// Every line of a server's audit log, its chain, and what the state database remembers of it.
fn audit_log(arguments: &VerifyArguments, world: &World) -> anyhow::Result<Value> {
    let folder = arguments.folder.display();
    if arguments.expect.is_some() {
        let message = format!(
            "--expect: {folder} is the state folder of a server; its log grows and has no published digest"
        );
        return Err(Usage(message).into());
    }
    let key = arguments.audit_key.as_deref().map(AuditPublicKey::from_file).transpose()?;
    match serving::find_audit_faults(&arguments.folder, key) {
        Ok(summary) => {
            for line in in_words(&folder.to_string(), &summary) {
                world.console.say(&line);
            }
            let mut result = serde_json::to_value(&summary)?;
            result["ok"] = json!(true);
            Ok(result)
        }
        Err(faults) => {
            let problems: Vec<String> = faults.listed.iter().map(ToString::to_string).collect();
            for problem in &problems {
                world.console.say(&format!("✗ {problem}"));
            }
            let more = faults.count - problems.len() as u64;
            if more > 0 {
                world.console.say(&format!("… and {more} more"));
            }
            Ok(json!({ "ok": false, "problems": problems, "problem_count": faults.count }))
        }
    }
}

/// What a whole log amounts to, and what the check could not see.
fn in_words(folder: &str, summary: &AuditSummary) -> Vec<String> {
    let mut lines = vec![
        format!(
            "✓ {folder}: audit log of {} in {}, {} to {}",
            console::counted(summary.events, "event"),
            console::counted(summary.segments, "segment"),
            summary.first_time,
            summary.last_time
        ),
        format!("  last line {}", summary.head),
        format!("  {} of the key {}", console::counted(summary.signed_heads, "signed head"), summary.key),
    ];
    if summary.contents > 0 {
        lines.push(format!(
            "  {} as the log names them",
            console::counted(summary.contents, "sealed conversation")
        ));
    }
    if summary.contents_elsewhere > 0 {
        lines.push(format!(
            "  {} not looked for: this copy has no folder `content`",
            console::counted(summary.contents_elsewhere, "sealed conversation")
        ));
    }
    if !summary.key_was_given {
        lines.push(
            "  The key is the one that stands beside the log: whoever could replace both is not found out. An auditor \
             keeps the public key elsewhere and gives it with --audit-key."
                .to_string(),
        );
    }
    if !summary.database {
        lines.push(
            "  A copy without its state database: heads were compared with heads.jsonl alone.".to_string(),
        );
    }
    for (log, sequence) in &summary.earlier_logs {
        lines.push(format!(
            "  Before it this state had the log {log}, which went to event {sequence} at least and is not here: it was moved \
             away, or removed"
        ));
    }
    if summary.events_after_head > 0 {
        lines.push(format!(
            "  {} after the newest signed head, held together by the chain alone",
            console::counted(summary.events_after_head, "event")
        ));
    }
    if summary.torn_bytes > 0 {
        lines.push(format!(
            "  {} bytes of a last line without an end: one that is being written, or that a crash cut off",
            summary.torn_bytes
        ));
    }
    lines
}
