//! The chain of the log's lines: each carries its number and the digest of the one before it, across segments.

use std::path::Path;

use provenance::Digest;
use provenance::digest::sha256;
use serde::Deserialize;

use super::content::NamedContent;
use super::events::{ERASED, LINES_ERASED, SEGMENTS_REMOVED};
use super::segment::SegmentLines;
use crate::error::ServingError;

/// How far a log has been followed.
pub struct Chain {
    /// Random name of the log; `None` before its first line.
    pub log: Option<String>,
    /// Number of the last line.
    pub sequence: u64,
    /// SHA-256 of the last line,
    pub head: Digest,
    /// and of the one before it.
    pub previous: Digest,
    /// Kind of the last line.
    pub event: String,
    /// When the first and the last line were written, as they say.
    pub first_time: Option<String>,
    pub time: String,
    /// Lines so far of which only the digest is there.
    pub erased: u64,
    /// What the last line says was removed or erased on purpose.
    pub announced: Option<Announced>,
    /// The file that the last line names.
    pub content: Option<NamedContent>,
    /// To begin in the middle, or after what cannot be read: what the next line says of its predecessor is believed.
    trusts_next_line: bool,
}

/// The fields of a line that make the chain.
#[derive(Deserialize)]
struct Line {
    sequence: u64,
    time: String,
    event: String,
    previous: Digest,
    log: Option<String>,
    /// Of an erased line: its digest.
    digest: Option<Digest>,
    segment: Option<u64>,
    file_sha256: Option<Digest>,
    through_segment: Option<u64>,
    through_sequence: Option<u64>,
    through_digest: Option<Digest>,
    sha256: Option<Digest>,
    bytes: Option<u64>,
}

/// What the log itself says is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Lines of a segment, whose file has this digest since.
    Erased { segment: u64, file: Digest },
    /// All segments up to this one, the last of whose lines had this number and digest.
    Removed { segment: u64, sequence: u64, digest: Digest },
}

impl Announced {
    fn of(line: &Line) -> Option<Announced> {
        match line.event.as_str() {
            LINES_ERASED => Some(Announced::Erased { segment: line.segment?, file: line.file_sha256? }),
            SEGMENTS_REMOVED => Some(Announced::Removed {
                segment: line.through_segment?,
                sequence: line.through_sequence?,
                digest: line.through_digest?,
            }),
            _ => None,
        }
    }
}

/// The event of a segment's first line, which names the log.
pub const SEGMENT_OPENED: &str = "segment_opened";

impl Chain {
    pub fn from_the_beginning() -> Chain {
        Chain {
            log: None,
            sequence: 0,
            head: Digest::ZERO,
            previous: Digest::ZERO,
            event: String::new(),
            first_time: None,
            time: String::new(),
            erased: 0,
            announced: None,
            content: None,
            trusts_next_line: false,
        }
    }

    pub fn trusting_the_first_line() -> Chain {
        Chain { trusts_next_line: true, ..Chain::from_the_beginning() }
    }

    /// Goes on after a part that is not there, or cannot be read.
    pub fn trust_the_next_line(&mut self) {
        self.trusts_next_line = true;
    }

    /// Follows the whole lines of a segment; `seen` is told each line's number and digest. Returns the bytes of the whole
    /// lines and of what stands torn after them.
    pub fn follow(
        &mut self,
        path: &Path,
        mut seen: impl FnMut(&Chain) -> Result<(), String>,
    ) -> Result<(u64, u64), ServingError> {
        let mut lines = SegmentLines::open(path)?;
        while let Some(line) = lines.next_line()? {
            let stepped = self.step(line).and_then(|()| seen(self));
            stepped.map_err(|problem| lines.broken(problem))?;
        }
        Ok((lines.whole_bytes, lines.torn_bytes))
    }

    /// The same for a log in which faults are looked for: each is given to `fault`, and the next line is taken as it is.
    pub fn follow_on(
        &mut self,
        path: &Path,
        mut seen: impl FnMut(&Chain, &mut dyn FnMut(ServingError)) -> Result<(), String>,
        fault: &mut dyn FnMut(ServingError),
    ) -> Result<(u64, u64), ServingError> {
        let mut lines = SegmentLines::open(path)?;
        while let Some(line) = lines.next_line()? {
            let stepped = self.step(line);
            for problem in [stepped.err(), seen(self, fault).err()].into_iter().flatten() {
                fault(lines.broken(problem));
            }
        }
        Ok((lines.whole_bytes, lines.torn_bytes))
    }

    /// Takes a line, whatever is wrong with it; `Err` says what.
    fn step(&mut self, line: &[u8]) -> Result<(), String> {
        (self.announced, self.content) = (None, None);
        let parsed: Result<Line, _> = serde_json::from_slice(line);
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                self.trusts_next_line = true;
                return Err(format!("not an event: {error}"));
            }
        };
        let checked = self.check(&parsed);
        self.trusts_next_line = false;
        if parsed.event == SEGMENT_OPENED && parsed.log.is_some() {
            self.log.clone_from(&parsed.log);
        }
        self.announced = Announced::of(&parsed);
        self.content = NamedContent::of(&parsed.event, &parsed.time, parsed.sha256, parsed.bytes);
        self.sequence = parsed.sequence;
        self.previous = parsed.previous;
        // What stands in the place of an erased line is believed here; the digest of its segment's file checks it.
        self.head = match parsed.digest {
            Some(digest) if parsed.event == ERASED => {
                self.erased += 1;
                digest
            }
            _ => sha256(line),
        };
        (self.event, self.time) = (parsed.event, parsed.time);
        self.first_time.get_or_insert_with(|| self.time.clone());
        checked
    }

    /// Whether a line fits behind the one before it.
    fn check(&self, parsed: &Line) -> Result<(), String> {
        let opened = parsed.log.as_ref().filter(|_| parsed.event == SEGMENT_OPENED);
        match (&self.log, opened) {
            (None, None) => return Err("the first line of a segment must name the log".to_string()),
            (Some(log), Some(other)) if log != other => {
                return Err(format!("it belongs to the log {other}, the lines before it to {log}"));
            }
            _ => {}
        }
        if self.trusts_next_line {
            return Ok(());
        }
        if parsed.sequence != self.sequence.saturating_add(1) {
            return Err(format!(
                "expected event {}, found event {}: lines were dropped, added or reordered",
                self.sequence.saturating_add(1),
                parsed.sequence
            ));
        }
        if parsed.previous != self.head {
            return Err(
                "it does not name the digest of the line before it: that line was altered".to_string()
            );
        }
        Ok(())
    }
}
