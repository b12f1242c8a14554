//! The lines of `dropped/<kind>.jsonl.zst`.

use documents::{BadRecord, Document};
use provenance::{Digest, digest::keyed_digest};
use serde::Serialize;
use serde_json::Value;

use crate::reason::{Drop, Reason};

/// Makes the lines of what was dropped.
pub struct DroppedLines {
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

impl DroppedLines {
    pub fn new(seed: u64) -> DroppedLines {
        let key = b"eulalia corpus: texts dropped for rights or personal data";
        DroppedLines { digest_key: keyed_digest(key, &seed.to_le_bytes()) }
    }

    /// The digest that stands for a text which must not be kept.
    pub fn digest(&self, text: &str) -> Digest {
        keyed_digest(&self.digest_key.0, text.as_bytes())
    }

    /// For reasons whose kind keeps no text.
    pub fn traceless(&self, reason: Reason, date: Option<&str>, digest: Digest) -> Vec<u8> {
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
