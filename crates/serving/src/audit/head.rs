//! Heads: signed statements of how far the audit log had come.
//!
//! A head names the log, the number and digest of a line, and the time, and is signed with the installation's key. Heads
//! go to the state database first and then, as lines, to `heads.jsonl` beside the segments: so the file never knows more
//! than the database, unless somebody put an older database in its place. The text that is signed:
//!
//! ```text
//! eulalia audit head 1
//! log <name of the log>
//! sequence <number of the line>
//! digest <SHA-256 of the line>
//! time <RFC 3339, UTC>
//! ```

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use provenance::Digest;
use serde::{Deserialize, Serialize};

use super::key::{AuditKey, AuditPublicKey};
use crate::error::ServingError;

/// Name of the file of heads inside the folder of the log.
pub const HEADS_FILE: &str = "heads.jsonl";
/// Longest line of that file; heads have about 350 bytes.
const LONGEST_LINE: u64 = 4096;

/// The last line of the audit log at some moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    pub log: String,
    pub sequence: u64,
    pub digest: String,
    /// RFC 3339, UTC.
    pub time: String,
    /// `None` in a database that is older than signatures.
    pub signature: Option<HeadSignature>,
}

/// Who vouches for a head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadSignature {
    /// Id of the key, see [`AuditPublicKey::id`].
    pub key: String,
    /// Ed25519, in Base64.
    pub value: String,
}

impl AuditHead {
    /// A head of the log, signed.
    pub fn sign(key: &AuditKey, log: &str, sequence: u64, digest: Digest, time: String) -> AuditHead {
        let mut head =
            AuditHead { log: log.to_string(), sequence, digest: digest.to_string(), time, signature: None };
        head.signature = Some(HeadSignature { key: key.public().id(), value: key.sign(&head.text()) });
        head
    }

    /// What is signed.
    fn text(&self) -> String {
        let AuditHead { log, sequence, digest, time, .. } = self;
        format!("eulalia audit head 1\nlog {log}\nsequence {sequence}\ndigest {digest}\ntime {time}\n")
    }

    /// Whether the key signed this head; a head without a signature was signed by nobody.
    pub fn is_signed_by(&self, key: &AuditPublicKey) -> bool {
        self.signature.as_ref().is_some_and(|signature| key.signed(&self.text(), &signature.value))
    }

    /// The head as a line of the file of heads, with its end.
    pub fn line(&self) -> Result<String, ServingError> {
        let line = serde_json::to_string(self)
            .map_err(|error| ServingError::AuditFailed(format!("a head cannot be written: {error}")))?;
        Ok(line + "\n")
    }
}

/// Where the heads of a log stand.
pub fn heads_path(folder: &Path) -> PathBuf {
    folder.join(HEADS_FILE)
}

/// Reads the file of heads: the heads, and how many bytes their whole lines have. A torn last line (a crash in the middle
/// of a write) is as if it were not there; so is a missing file.
pub fn read_heads(folder: &Path) -> Result<(Vec<AuditHead>, u64), ServingError> {
    use std::io::Read as _;
    let path = heads_path(folder);
    let unreadable = |error: std::io::Error| ServingError::AuditUnreadable {
        path: path.clone(),
        problem: error.to_string(),
    };
    let file = match std::fs::File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        opened => opened.map_err(unreadable)?,
    };
    let (mut reader, mut heads, mut whole_bytes) = (BufReader::new(file), Vec::new(), 0);
    loop {
        let mut line = Vec::new();
        reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(unreadable)?;
        if line.last() != Some(&b'\n') && (line.len() as u64) < LONGEST_LINE {
            return Ok((heads, whole_bytes));
        }
        let head = serde_json::from_slice(&line).map_err(|error| ServingError::AuditBroken {
            path: path.clone(),
            line: heads.len() as u64 + 1,
            problem: format!("not a head: {error}"),
        })?;
        heads.push(head);
        whole_bytes += line.len() as u64;
    }
}
