//! The lines of `dropped/<kind>.jsonl.zst`.

use std::path::Path;

use documents::{BadRecord, Document};
use provenance::{Digest, digest::keyed_digest};
use serde::Serialize;
use serde_json::Value;

use crate::error::Error;
use crate::reason::{Drop, Reason};

/// Makes the lines of what was dropped.
pub struct DroppedLines {
    digest_key: Option<Vec<u8>>,
}

/// The least length of the secret key, in bytes: that of its digests.
const KEY_BYTES: usize = 32;

/// What is left of a document that was dropped for rights or personal data: enough to count, and, where the owner has a
/// secret key, to answer a holder of the text; nothing to read.
#[derive(Serialize)]
struct Traceless<'a> {
    reason: Reason,
    date: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
}

#[derive(Serialize)]
struct Unreadable<'a> {
    reason: Reason,
    file: &'a str,
    line: u64,
    offset: u64,
    problem: String,
}

impl DroppedLines {
    /// With the secret key in this file, or without digests (docs/decisions/0003-no-digest-without-a-secret-key.md).
    pub fn new(digest_key: Option<&Path>) -> Result<DroppedLines, Error> {
        let Some(path) = digest_key else { return Ok(DroppedLines { digest_key: None }) };
        let key = std::fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        if key.len() < KEY_BYTES {
            let problem = format!(
                "a key of digests has at least {KEY_BYTES} random bytes, this file has {}",
                key.len()
            );
            return Err(Error::DigestKey { path: path.to_path_buf(), problem });
        }
        Ok(DroppedLines { digest_key: Some(key) })
    }

    /// The digest that stands for a text which must not be kept.
    pub fn digest(&self, text: &str) -> Option<Digest> {
        self.digest_key.as_ref().map(|key| keyed_digest(key, text.as_bytes()))
    }

    /// For reasons whose kind keeps no text.
    pub fn traceless(&self, reason: Reason, date: Option<&str>, digest: Option<Digest>) -> Vec<u8> {
        line(&Traceless { reason, date, digest })
    }

    /// For reasons whose kind keeps the text; it is a document with the reason and its evidence as further keys. Only the
    /// fields that shards have are kept: whatever else came with the record was never looked at.
    pub fn document(&self, mut document: Document, drop: &Drop) -> Vec<u8> {
        document.metadata = drop.evidence.clone();
        let reason = serde_json::to_value(drop.reason).unwrap_or(Value::Null);
        document.metadata.insert("reason".to_string(), reason);
        line(&document)
    }

    pub fn unreadable(&self, bad: &BadRecord) -> Vec<u8> {
        line(&Unreadable {
            reason: Reason::Unreadable,
            file: &bad.place.file,
            line: bad.place.line,
            offset: bad.offset,
            problem: bad.problem.to_string(),
        })
    }
}

fn line(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain values always serialise")
}
