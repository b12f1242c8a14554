//! The texts that a model was trained on: those whose licence permits it go into the release as they were used, of the
//! others only a digest, so that whoever has a text can check whether it was among them.

use std::path::Path;

use provenance::Context;
use provenance::digest::sha256;
use serde::Serialize;
use serde_json::json;

use crate::{Error, Settings};

#[derive(Debug, Default, Serialize)]
pub struct Counts {
    /// Documents included in full.
    pub included: u64,
    /// Documents named by digest only.
    pub withheld: u64,
}

/// Copies the shards of a corpus artefact, document by document.
pub fn bundle(settings: &Settings, corpus: &Path, target: &Path, context: &Context) -> Result<Counts, Error> {
    let mut counts = Counts::default();
    let mut withheld = documents::ShardWriter::create(
        &context.storage,
        &ensure(target, context)?.join("withheld.jsonl.zst"),
    )?;
    for part in ["train", "heldout"] {
        let folder = corpus.join(part);
        let folder_target = target.join(part);
        context.storage.create_folder(&folder_target)?;
        for name in shard_names(&folder)? {
            context.cancellation.check()?;
            let mut shard = None;
            for document in documents::read_shard(&folder.join(&name))? {
                let document = document?;
                let license = document.license.as_deref().unwrap_or("");
                if settings.redistributable_licenses.iter().any(|allowed| allowed == license) {
                    if shard.is_none() {
                        let path = folder_target.join(&name);
                        shard = Some(documents::ShardWriter::create(&context.storage, &path)?);
                    }
                    if let Some(shard) = &mut shard {
                        shard.write(&document)?;
                    }
                    counts.included += 1;
                } else {
                    withheld.write_json(&json!({
                        "part": part, "license": document.license, "sha256": sha256(document.text.as_bytes()),
                    }))?;
                    counts.withheld += 1;
                }
            }
            if let Some(shard) = shard {
                shard.finish()?;
                context.progress.advance(1);
            }
        }
    }
    withheld.finish()?;
    Ok(counts)
}

fn ensure<'a>(folder: &'a Path, context: &Context) -> Result<&'a Path, Error> {
    context.storage.create_folder(folder)?;
    Ok(folder)
}

fn shard_names(folder: &Path) -> Result<Vec<String>, Error> {
    let read = |source| Error::Read { path: folder.to_path_buf(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".jsonl.zst") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
