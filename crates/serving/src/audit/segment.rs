//! The files of the log, `audit-000001.jsonl`, …, read line by line with bounded memory.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::ServingError;

/// Longest line that is read. Requests have about 400 bytes; a kept prompt can have as much as a request's body.
const LONGEST_LINE: u64 = 256 << 20;

/// Where segment `number` (from 1) stands.
pub fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("audit-{number:06}.jsonl"))
}

/// Numbers of the segments in a folder, ascending.
pub fn segments(folder: &Path) -> Result<Vec<u64>, ServingError> {
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

/// The lines of one segment.
pub struct SegmentLines {
    path: PathBuf,
    reader: BufReader<File>,
    line: Vec<u8>,
    /// Number of the last line that was read, from 1.
    pub number: u64,
    /// Bytes of the whole lines so far.
    pub whole_bytes: u64,
    /// Bytes after the last whole line, once the end was reached.
    pub torn_bytes: u64,
}

impl SegmentLines {
    pub fn open(path: &Path) -> Result<SegmentLines, ServingError> {
        let file = File::open(path).map_err(|error| ServingError::AuditUnreadable {
            path: path.to_path_buf(),
            problem: error.to_string(),
        })?;
        Ok(SegmentLines {
            path: path.to_path_buf(),
            reader: BufReader::with_capacity(1 << 20, file),
            line: Vec::new(),
            number: 0,
            whole_bytes: 0,
            torn_bytes: 0,
        })
    }

    /// The next whole line without its end; `None` at the end, and before a line that has none.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, ServingError> {
        self.line.clear();
        let mut limited = self.reader.by_ref().take(LONGEST_LINE);
        let length = limited.read_until(b'\n', &mut self.line).map_err(|error| {
            ServingError::AuditUnreadable { path: self.path.clone(), problem: error.to_string() }
        })? as u64;
        if self.line.pop_if(|byte| *byte == b'\n').is_none() {
            if length == LONGEST_LINE {
                return Err(self.broken(format!("the line has more than {LONGEST_LINE} bytes")));
            }
            self.torn_bytes = length;
            return Ok(None);
        }
        self.number += 1;
        self.whole_bytes += length;
        Ok(Some(&self.line))
    }

    /// An error at the line that was read last.
    pub fn broken(&self, problem: String) -> ServingError {
        ServingError::AuditBroken { path: self.path.clone(), line: self.number.max(1), problem }
    }
}
