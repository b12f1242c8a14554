//! `eulalia gc`: remove what no stage of a run points to any more.

use anyhow::bail;
use provenance::output::OutputFolder;
use serde_json::{Value, json};

use crate::arguments::GcArguments;
use crate::console;
use crate::run::World;

pub fn gc(arguments: &GcArguments, world: &World) -> anyhow::Result<Value> {
    let root = &arguments.folder;
    if !root.join(".artefacts").is_dir() {
        bail!("{}: expected the folder of a run, with .artefacts in it", root.display());
    }
    let folder = OutputFolder::open(root, &world.storage, &world.clock)?;
    let garbage = folder.garbage(&folder.linked()?)?;
    let total: u64 = garbage.iter().map(|(_, bytes)| bytes).sum();
    let verb = if arguments.dry_run { "would remove" } else { "removed" };
    for (path, bytes) in &garbage {
        world.cancellation.check()?;
        if !arguments.dry_run {
            folder.collect(path)?;
        }
        world.console.say(&format!("{verb} {} ({})", path.display(), console::bytes(*bytes)));
    }
    world.console.say(&format!(
        "{verb} {}, {}",
        console::counted(garbage.len() as u64, "folder"),
        console::bytes(total)
    ));
    let paths: Vec<_> = garbage.iter().map(|(path, _)| path.display().to_string()).collect();
    Ok(json!({ "removed": paths, "bytes": total, "dry_run": arguments.dry_run }))
}
