//! Shards: `.jsonl.zst` files that stages hand to each other.
//!
//! The bytes of a shard are a function of its documents: one zstd frame at a fixed level, compressed on one thread, with
//! a checksum, so that a flipped bit is found on reading.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use provenance::{Storage, StoredFile};
use serde::Serialize;

use crate::decompress::{self, Compression};
use crate::document::Document;
use crate::error::Error;
use crate::inputs::kind_of;
use crate::lines::{Line, LineReader, PlacedLine};
use crate::reader::damaged;

/// zstd's own default: on prose, levels above save a few percent of the bytes for a multiple of the time.
pub const COMPRESSION_LEVEL: i32 = 3;
const BUFFER_BYTES: usize = 1 << 18;

/// Writes a shard. It counts only once [`ShardWriter::finish`] has returned.
pub struct ShardWriter {
    path: PathBuf,
    encoder: zstd::stream::write::Encoder<'static, BufWriter<StoredFile>>,
    line: Vec<u8>,
    summary: ShardSummary,
}

/// What a finished shard holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ShardSummary {
    pub lines: u64,
    /// Bytes of the lines before compression.
    pub line_bytes: u64,
}

impl ShardWriter {
    /// Creates the file; its folder must exist.
    pub fn create(storage: &Storage, path: &Path) -> Result<ShardWriter, Error> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, storage.create(path)?);
        let write_error = |source| Error::write(path, source);
        let mut encoder = zstd::stream::write::Encoder::new(file, COMPRESSION_LEVEL).map_err(write_error)?;
        encoder.include_checksum(true).map_err(write_error)?;
        Ok(ShardWriter {
            path: path.to_path_buf(),
            encoder,
            line: Vec::new(),
            summary: ShardSummary::default(),
        })
    }

    pub fn write(&mut self, document: &Document) -> Result<(), Error> {
        self.write_json(document)
    }

    /// Any other object as a line of its own, for the files beside the shards (what was dropped, and why).
    pub fn write_json<T: Serialize>(&mut self, value: &T) -> Result<(), Error> {
        self.line.clear();
        let serialised = serde_json::to_writer(&mut self.line, value).map_err(std::io::Error::from);
        self.line.push(b'\n');
        serialised
            .and_then(|()| self.encoder.write_all(&self.line))
            .map_err(|source| Error::write(&self.path, source))?;
        self.summary.lines += 1;
        self.summary.line_bytes += self.line.len() as u64;
        Ok(())
    }

    /// A line that is JSON already, with its line end.
    pub fn write_line(&mut self, line: &[u8]) -> Result<(), Error> {
        let written = self.encoder.write_all(line);
        written.map_err(|source| Error::write(&self.path, source))?;
        self.summary.lines += 1;
        self.summary.line_bytes += line.len() as u64;
        Ok(())
    }

    /// Ends the frame and syncs the file.
    pub fn finish(self) -> Result<ShardSummary, Error> {
        let write_error = |source| Error::write(&self.path, source);
        let buffered = self.encoder.finish().map_err(write_error)?;
        let file = buffered.into_inner().map_err(|error| write_error(error.into_error()))?;
        file.finish()?;
        Ok(self.summary)
    }
}

/// Opens a shard that a stage wrote. A line that is not a document is an error here: it means that the file was changed.
pub fn read_shard(path: &Path) -> Result<ShardReader, Error> {
    let name = path.file_name().and_then(|name| name.to_str());
    let compression = name.and_then(kind_of).map_or(Compression::Zstd, |(_, compression)| compression);
    let opened = decompress::open(path, compression)?;
    let lines = LineReader::new(opened.stream, usize::MAX >> 1);
    Ok(ShardReader { path: path.to_path_buf(), lines, consumed: opened.consumed, ended: false })
}

/// All lines of a shard as JSON, documents or not: for looking at what was dropped. After an error it ends.
pub fn read_values(path: &Path) -> Result<ValueReader, Error> {
    Ok(ValueReader { shard: read_shard(path)? })
}

/// The first `count` lines of a shard as JSON.
pub fn read_first_values(path: &Path, count: usize) -> Result<Vec<serde_json::Value>, Error> {
    read_values(path)?.take(count).map(|placed| placed.map(|placed| placed.value)).collect()
}

/// A line of a shard, and where it stands: line from 1.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedValue {
    pub line: u64,
    pub value: serde_json::Value,
}

/// An iterator over the lines of a shard.
pub struct ValueReader {
    shard: ShardReader,
}

impl Iterator for ValueReader {
    type Item = Result<PlacedValue, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.shard.ended {
            return None;
        }
        let found = match self.shard.lines.next_line() {
            Ok(Some(placed)) => self.value(&placed),
            Ok(None) => {
                self.shard.ended = true;
                return None;
            }
            Err(source) => {
                let consumed = self.shard.consumed.load(Ordering::Relaxed);
                Err(damaged(&self.shard.path, consumed, self.shard.lines.position(), &source))
            }
        };
        self.shard.ended = found.is_err();
        Some(found)
    }
}

impl ValueReader {
    fn value(&self, placed: &PlacedLine) -> Result<PlacedValue, Error> {
        let value = match &placed.line {
            Line::Bytes(bytes) => serde_json::from_slice(bytes).ok(),
            _ => None,
        };
        let bad = || Error::BadShard {
            path: self.shard.path.clone(),
            line: placed.number,
            offset: placed.offset,
            problem: "not JSON".to_string(),
        };
        Ok(PlacedValue { line: placed.number, value: value.ok_or_else(bad)? })
    }
}

/// An iterator over the documents of a shard; after an error it ends.
pub struct ShardReader {
    path: PathBuf,
    lines: LineReader<Box<dyn std::io::BufRead + Send>>,
    consumed: Arc<AtomicU64>,
    ended: bool,
}

impl Iterator for ShardReader {
    type Item = Result<Document, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let found = match self.lines.next_line() {
            Ok(Some(placed)) => self.document(placed),
            Ok(None) => {
                self.ended = true;
                return None;
            }
            Err(source) => {
                let consumed = self.consumed.load(Ordering::Relaxed);
                Err(damaged(&self.path, consumed, self.lines.position(), &source))
            }
        };
        self.ended = found.is_err();
        Some(found)
    }
}

impl ShardReader {
    fn document(&self, placed: PlacedLine) -> Result<Document, Error> {
        let bad = |column: usize, problem: String| Error::BadShard {
            path: self.path.clone(),
            line: placed.number,
            offset: placed.offset + column as u64,
            problem,
        };
        let Line::Bytes(bytes) = &placed.line else { return Err(bad(0, "line too long".to_string())) };
        let json =
            std::str::from_utf8(bytes).map_err(|error| bad(error.valid_up_to(), "not UTF-8".to_string()))?;
        Document::from_json(json).map_err(|error| bad(error.column.saturating_sub(1), error.message))
    }
}
