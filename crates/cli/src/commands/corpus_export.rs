//! `eulalia corpus export`: the documents that a corpus kept as Parquet files, for programs that read nothing else.
//!
//! One file a shard, `train/<language>.parquet` and `heldout/<language>.parquet`. Each gets its name when it is whole.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use documents::{ParquetWriter, read_shard};
use provenance::artefact::MANIFEST_FILE;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::arguments::CorpusExportArguments;
use crate::console;
use crate::run::World;

/// What a corpus holds of documents that were kept.
const PARTS: [&str; 2] = ["train", "heldout"];

/// What the shards of a corpus end in.
const SHARD_ENDING: &str = ".jsonl.zst";

/// Documents between two looks at the cancellation.
const STRIDE: u64 = 1024;

pub fn corpus_export(arguments: &CorpusExportArguments, world: &World) -> anyhow::Result<Value> {
    let shards = shards(&arguments.folder)?;
    if arguments.output.join(MANIFEST_FILE).exists() {
        bail!(
            "{}: an artefact, which nothing may be added to; name another folder with --output",
            arguments.output.display()
        );
    }
    for part in PARTS {
        world.storage.create_folder(&arguments.output.join(part))?;
    }
    world.progress.begin("export", None, "documents");
    let written: anyhow::Result<Vec<(String, u64)>> =
        shards.par_iter().map(|(part, shard)| export(part, shard, arguments, world)).collect();
    world.progress.end();
    let written = written?;
    let documents: u64 = written.iter().map(|(_, documents)| documents).sum();
    world.console.say(&format!(
        "{}: {} in {}",
        arguments.output.display(),
        console::counted(documents, "document"),
        console::counted(written.len() as u64, "file")
    ));
    let files: Vec<Value> =
        written.iter().map(|(file, documents)| json!({"file": file, "documents": documents})).collect();
    Ok(json!({ "output": arguments.output.display().to_string(), "documents": documents, "files": files }))
}

/// The shards of a corpus with the part each belongs to, in the order of their names.
fn shards(folder: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let mut shards = Vec::new();
    for part in PARTS {
        // A corpus of small languages may have nothing held out.
        let Ok(entries) = std::fs::read_dir(folder.join(part)) else { continue };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
            if path.to_string_lossy().ends_with(SHARD_ENDING) {
                shards.push((part, path));
            }
        }
    }
    if shards.is_empty() {
        bail!(
            "{}: no corpus: expected the folder `train` with files that end in {SHARD_ENDING}, such as runs/tiny/corpus",
            folder.display()
        );
    }
    shards.sort();
    Ok(shards)
}

/// Writes one shard; the file's name within the output, and its documents.
fn export(
    part: &str,
    shard: &Path,
    arguments: &CorpusExportArguments,
    world: &World,
) -> anyhow::Result<(String, u64)> {
    let name = shard.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("{}.parquet", name.trim_end_matches(SHARD_ENDING));
    let folder = arguments.output.join(part);
    let aside = folder.join(format!(".{name}.partial"));
    let mut writer = ParquetWriter::create(&world.storage, &aside)?;
    let mut documents = 0;
    for document in read_shard(shard)? {
        writer.write(&document?)?;
        documents += 1;
        if documents % STRIDE == 0 {
            world.cancellation.check()?;
            world.progress.advance(STRIDE);
        }
    }
    writer.finish()?;
    world.progress.advance(documents % STRIDE);
    world.storage.rename(&aside, &folder.join(&name))?;
    world.storage.sync_folder(&folder)?;
    Ok((format!("{part}/{name}"), documents))
}
