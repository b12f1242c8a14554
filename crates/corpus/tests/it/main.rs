//! The stage on real files: the bundled sample with its planted faults, and the promises about bytes, threads and rights.

mod behaviour;
mod decontamination;
mod near_duplicates;
mod pairs;
mod rights;
mod sample;
mod selection;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use corpus::{Error, Report, Settings};
use documents::{Document, read_shard};
use provenance::{Context, StageOutput};

/// A finished corpus in a folder of its own.
struct Built {
    folder: tempfile::TempDir,
    report: Report,
}

fn build(settings: &Settings, inputs: &[PathBuf], threads: usize) -> Result<Built, Error> {
    build_in(settings, inputs, &Context::quiet(threads))
}

fn build_in(settings: &Settings, inputs: &[PathBuf], context: &Context) -> Result<Built, Error> {
    let folder = tempfile::tempdir().unwrap();
    let output =
        StageOutput { payload: folder.path().join("payload"), scratch: folder.path().join("scratch") };
    fs::create_dir(&output.payload).unwrap();
    fs::create_dir(&output.scratch).unwrap();
    let report = corpus::build(settings, inputs, &output, context)?;
    Ok(Built { folder, report })
}

impl Built {
    fn payload(&self) -> PathBuf {
        self.folder.path().join("payload")
    }

    /// The documents of all shards of a part, by id.
    fn part(&self, part: &str) -> BTreeMap<String, Document> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.payload().join(part)).unwrap() {
            for document in read_shard(&entry.unwrap().path()).unwrap() {
                let document = document.unwrap();
                assert!(found.insert(document.id.clone(), document).is_none());
            }
        }
        found
    }

    fn kept(&self) -> BTreeMap<String, Document> {
        let mut kept = self.part("train");
        kept.extend(self.part("heldout"));
        kept
    }

    /// The lines of `dropped/<kind>.jsonl.zst`.
    fn dropped(&self, kind: &str) -> Vec<serde_json::Value> {
        let path = self.payload().join("dropped").join(format!("{kind}.jsonl.zst"));
        let text = zstd::decode_all(fs::File::open(path).unwrap()).unwrap();
        String::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Every file of the payload with its bytes.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        files_of(&self.payload())
    }
}

fn files_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = provenance::digest::files_below(folder).unwrap();
    names.into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

fn put(folder: &Path, name: &str, documents: &[Document]) -> PathBuf {
    let lines: String = documents.iter().map(|document| document.to_json() + "\n").collect();
    let path = folder.join(name);
    fs::write(&path, lines).unwrap();
    path
}
