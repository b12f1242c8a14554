//! `eulalia verify`: recompute every digest, follow the record, name what does not fit.

use serde_json::{Value, json};

use crate::arguments::VerifyArguments;
use crate::console;
use crate::run::World;

pub fn verify(arguments: &VerifyArguments, world: &World) -> anyhow::Result<Value> {
    let folder = &arguments.folder;
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
