//! `eulalia verify`: recompute every digest, follow the record, name what does not fit. Of a server's state folder it is the
//! audit log that is followed.

use serde_json::{Value, json};

use crate::arguments::VerifyArguments;
use crate::console;
use crate::errors::Usage;
use crate::run::World;

pub fn verify(arguments: &VerifyArguments, world: &World) -> anyhow::Result<Value> {
    let folder = &arguments.folder;
    if serving::has_audit_log(folder) {
        return audit_log(arguments, world);
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
    match serving::verify_audit(&arguments.folder) {
        Ok(summary) => {
            world.console.say(&format!(
                "✓ {folder}: audit log of {} in {}\n  last line {}",
                console::counted(summary.events, "event"),
                console::counted(summary.segments, "segment"),
                summary.head
            ));
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
