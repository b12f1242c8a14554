//! `eulalia verify`: recompute every digest, follow the record, name what does not fit. Of a server's state folder it is the
//! audit log that is followed.

use serde_json::{Value, json};
use serving::{AuditPublicKey, AuditSummary};

use crate::arguments::VerifyArguments;
use crate::console;
use crate::errors::Usage;
use crate::run::World;

pub fn verify(arguments: &VerifyArguments, world: &World) -> anyhow::Result<Value> {
    let folder = &arguments.folder;
    if serving::has_audit_log(folder) {
        return audit_log(arguments, world);
    }
    if arguments.audit_key.is_some() {
        let message = format!(
            "--audit-key: {} holds no audit log; give the state folder of a server, or a copy of its folder `audit`",
            folder.display()
        );
        return Err(Usage(message).into());
    }
    let mut found = provenance::verify::verify_watched(folder, world.progress.as_ref())?;
    if let (Some(expected), Some(digest)) = (arguments.expect, found.digest)
        && expected != digest
    {
        found.problems.push(format!("the published digest is {expected}, the files have {digest}"));
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
    } else {
        world.console.say(&format!(
            "{}: {}; do not use it, get it again from where it was published",
            folder.display(),
            console::counted(found.problems.len() as u64, "problem")
        ));
    }
    let mut result = serde_json::to_value(&found)?;
    result["ok"] = json!(good);
    Ok(result)
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
    match serving::verify_audit(&arguments.folder, key) {
        Ok(summary) => {
            for line in in_words(&folder.to_string(), &summary) {
                world.console.say(&line);
            }
            let mut result = serde_json::to_value(&summary)?;
            result["ok"] = json!(true);
            Ok(result)
        }
        Err(error) => {
            world.console.say(&format!("✗ {error}"));
            Ok(json!({ "ok": false, "problems": [error.to_string()] }))
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
