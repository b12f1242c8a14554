//! The files of the artefact: shards by language, and what was dropped by kind of reason.

use std::collections::BTreeMap;
use std::path::Path;

use documents::{BadRecord, Document, ShardWriter};
use provenance::{Digest, Storage, digest::keyed_digest};
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::reason::{Drop, Kind, Reason};

/// `dropped/<kind>.jsonl.zst`, one file a kind, present even when empty.
pub struct DroppedWriter {
    files: BTreeMap<Kind, ShardWriter>,
    digest_key: Digest,
}

/// What is left of a document that was dropped for rights or personal data: enough to count, and to answer a holder of
/// the text and the key; nothing to read.
#[derive(Serialize)]
struct Traceless<'a> {
    reason: Reason,
    date: Option<&'a str>,
    digest: Digest,
}

#[derive(Serialize)]
struct Unreadable<'a> {
    reason: Reason,
    file: &'a str,
    line: u64,
    offset: u64,
    problem: String,
}

impl DroppedWriter {
    pub fn create(storage: &Storage, payload: &Path, seed: u64) -> Result<DroppedWriter, Error> {
        let folder = payload.join("dropped");
        storage.create_folder(&folder)?;
        let mut files = BTreeMap::new();
        for kind in Kind::ALL {
            let path = folder.join(format!("{}.jsonl.zst", kind.name()));
            files.insert(kind, ShardWriter::create(storage, &path)?);
        }
        let digest_key =
            keyed_digest(b"eulalia corpus: texts dropped for rights or personal data", &seed.to_le_bytes());
        Ok(DroppedWriter { files, digest_key })
    }

    /// The digest that stands for a text which must not be kept.
    pub fn digest(&self, text: &str) -> Digest {
        keyed_digest(&self.digest_key.0, text.as_bytes())
    }

    /// For reasons whose kind keeps no text.
    pub fn write_traceless(
        &mut self,
        reason: Reason,
        date: Option<&str>,
        digest: Digest,
    ) -> Result<(), Error> {
        Ok(self.file(reason).write_json(&Traceless { reason, date, digest })?)
    }

    /// For reasons whose kind keeps the text; it is a document with the reason and its evidence as further keys. Only the
    /// fields that shards have are kept: whatever else came with the record was never looked at.
    pub fn write_document(&mut self, document: &Document, drop: &Drop) -> Result<(), Error> {
        let mut document = document.clone();
        document.metadata =
            drop.evidence.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        let reason = serde_json::to_value(drop.reason).unwrap_or(Value::Null);
        document.metadata.insert("reason".to_string(), reason);
        Ok(self.file(drop.reason).write(&document)?)
    }

    pub fn write_unreadable(&mut self, bad: &BadRecord) -> Result<(), Error> {
        let entry = Unreadable {
            reason: Reason::Unreadable,
            file: &bad.place.file,
            line: bad.place.line,
            offset: bad.offset,
            problem: bad.problem.to_string(),
        };
        Ok(self.file(Reason::Unreadable).write_json(&entry)?)
    }

    pub fn finish(self) -> Result<(), Error> {
        for file in self.files.into_values() {
            file.finish()?;
        }
        Ok(())
    }

    fn file(&mut self, reason: Reason) -> &mut ShardWriter {
        self.files.get_mut(&reason.kind()).expect("there is a file for every kind")
    }
}

/// `train/<language>.jsonl.zst` and `heldout/<language>.jsonl.zst`.
pub struct PartWriter {
    files: BTreeMap<(&'static str, &'static str), ShardWriter>,
}

impl PartWriter {
    /// Creates the files for each (part, language code).
    pub fn create(
        storage: &Storage,
        payload: &Path,
        parts: impl IntoIterator<Item = (&'static str, &'static str)>,
    ) -> Result<PartWriter, Error> {
        let mut files = BTreeMap::new();
        for (part, language) in parts {
            let folder = payload.join(part);
            storage.create_folder(&folder)?;
            let path = folder.join(format!("{language}.jsonl.zst"));
            files.insert((part, language), ShardWriter::create(storage, &path)?);
        }
        Ok(PartWriter { files })
    }

    pub fn write(
        &mut self,
        part: &'static str,
        language: &'static str,
        document: &Document,
    ) -> Result<(), Error> {
        let file =
            self.files.get_mut(&(part, language)).expect("the parts were created with these languages");
        Ok(file.write(document)?)
    }

    pub fn finish(self) -> Result<(), Error> {
        for file in self.files.into_values() {
            file.finish()?;
        }
        Ok(())
    }
}
