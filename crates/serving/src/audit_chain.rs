//! Reading the audit log back: the chain of its lines, across segments, and what a whole log amounts to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use provenance::Digest;
use provenance::digest::sha256;
use serde::Deserialize;

use crate::error::ServingError;
use crate::store::Store;

/// What a whole audit log amounts to.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AuditSummary {
    pub events: u64,
    pub segments: u64,
    /// SHA-256 of the last line.
    pub head: String,
}

/// Checks a whole log: every line, the chain through all segments, and the heads that the state database remembers.
pub fn verify_audit(folder: &Path, state_folder: &Path) -> Result<AuditSummary, ServingError> {
    let mut chain = Chain::from_the_beginning();
    for head in Store::open(state_folder)?.audit_heads()? {
        chain.remembered.entry(head.log).or_default().insert(head.sequence, head.digest);
    }
    let segments = segments(folder)?;
    for (expected, &segment) in (1..).zip(&segments) {
        if segment != expected {
            let path = segment_path(folder, expected);
            return Err(ServingError::AuditUnreadable {
                path,
                problem: "this segment is missing".to_string(),
            });
        }
        chain.follow(&segment_path(folder, segment), Torn::Refused)?;
    }
    if let Some(log) = &chain.log
        && let Some((&sequence, _)) = chain.remembered.get(log).and_then(|heads| heads.last_key_value())
        && sequence > chain.sequence
    {
        return Err(ServingError::AuditUnreadable {
            path: folder.to_path_buf(),
            problem: format!(
                "the log ends at event {}, but the state database remembers event {sequence}: lines at the end are \
                 missing",
                chain.sequence
            ),
        });
    }
    Ok(AuditSummary { events: chain.sequence, segments: segments.len() as u64, head: chain.head.to_string() })
}

/// Where segment `number` (from 1) stands.
pub(crate) fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("audit-{number:06}.jsonl"))
}

/// Numbers of the segments in a folder, ascending; none if there is no such folder.
pub(crate) fn segments(folder: &Path) -> Result<Vec<u64>, ServingError> {
    let unreadable = |error: std::io::Error| ServingError::AuditUnreadable {
        path: folder.to_path_buf(),
        problem: error.to_string(),
    };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("audit-")?.strip_suffix(".jsonl"));
        let number: Option<u64> = digits.and_then(|digits| digits.parse().ok());
        numbers.extend(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What to do about a last line without an end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Torn {
    /// It is as if it were not there.
    CutOff,
    Refused,
}

/// How far a log has been followed.
pub(crate) struct Chain {
    /// Random name of the log; `None` before its first line.
    pub log: Option<String>,
    /// Number of the last line.
    pub sequence: u64,
    /// SHA-256 of the last line.
    pub head: Digest,
    /// Digests of lines by log and number, to compare with.
    remembered: BTreeMap<String, BTreeMap<u64, String>>,
    trusts_first_line: bool,
}

/// The fields of a line that make the chain.
#[derive(Deserialize)]
struct Line {
    sequence: u64,
    previous: Digest,
    log: Option<String>,
}

impl Chain {
    pub fn from_the_beginning() -> Chain {
        Chain {
            log: None,
            sequence: 0,
            head: Digest::ZERO,
            remembered: BTreeMap::new(),
            trusts_first_line: false,
        }
    }

    /// To begin in the middle: what the first line says of its predecessor is believed.
    pub fn trusting_the_first_line() -> Chain {
        Chain { trusts_first_line: true, ..Chain::from_the_beginning() }
    }

    /// Follows the lines of a segment and returns the bytes of its whole lines.
    pub fn follow(&mut self, path: &Path, torn: Torn) -> Result<u64, ServingError> {
        let unreadable = |error: std::io::Error| ServingError::AuditUnreadable {
            path: path.to_path_buf(),
            problem: error.to_string(),
        };
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(unreadable)?);
        let (mut whole_bytes, mut number, mut line) = (0, 0, Vec::new());
        loop {
            line.clear();
            let length = reader.read_until(b'\n', &mut line).map_err(unreadable)?;
            if length == 0 {
                return Ok(whole_bytes);
            }
            number += 1;
            if line.pop() != Some(b'\n') {
                return match torn {
                    Torn::CutOff => Ok(whole_bytes),
                    Torn::Refused => Err(broken(path, number, "the line has no end".to_string())),
                };
            }
            self.step(&line).map_err(|problem| broken(path, number, problem))?;
            whole_bytes += length as u64;
        }
    }

    fn step(&mut self, line: &[u8]) -> Result<(), String> {
        let digest = sha256(line);
        let parsed: Line = serde_json::from_slice(line).map_err(|error| format!("not an event: {error}"))?;
        if self.log.is_none() {
            self.log = Some(parsed.log.ok_or("the first line of a segment must name the log")?);
            if self.trusts_first_line {
                (self.sequence, self.head) = (parsed.sequence.saturating_sub(1), parsed.previous);
            }
        }
        if parsed.sequence != self.sequence + 1 {
            return Err(format!(
                "expected event {}, found event {}: lines were dropped, added or reordered",
                self.sequence + 1,
                parsed.sequence
            ));
        }
        if parsed.previous != self.head {
            return Err(
                "it does not name the digest of the line before it: that line was altered".to_string()
            );
        }
        let remembered = self.log.as_ref().and_then(|log| self.remembered.get(log)?.get(&parsed.sequence));
        if remembered.is_some_and(|remembered| *remembered != digest.to_string()) {
            return Err(
                "its digest is not the one that the state database remembers: it was altered".to_string()
            );
        }
        (self.sequence, self.head) = (parsed.sequence, digest);
        Ok(())
    }
}

fn broken(path: &Path, line: u64, problem: String) -> ServingError {
    ServingError::AuditBroken { path: path.to_path_buf(), line, problem }
}
