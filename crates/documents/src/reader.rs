//! Documents from whatever a user points at: a stream of records, each with its place, in bounded memory.
//!
//! A bad record is data: it comes as a [`Record`] with a [`BadRecord`] in it, and reading goes on. Damage to a file
//! (a truncated archive, an empty file) is an [`Error`] item, after which the next file follows; whether that stops the
//! run is the caller's setting. Reading ([`RawReader`]) and parsing ([`RawRecord::parse`]) are apart, so that one
//! thread can read while all threads parse.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::decompress;
use crate::document::Document;
use crate::error::Error;
use crate::inputs::{Content, InputFile, kind_of, list_input_files};
use crate::lines::{Line, LineReader, PlacedLine};

/// How input is cut into documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// No record longer than this is ever held in memory; a longer one is a bad record. 64 MiB: a thousand times the
    /// longest books that web corpora hold as one record, and small beside the memory of any machine.
    pub record_limit_bytes: usize,
    pub text_unit: TextUnit,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions { record_limit_bytes: 64 << 20, text_unit: TextUnit::File }
    }
}

/// What a document is in a plain text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextUnit {
    /// The whole file, its name as id.
    File,
    /// Each run of lines between blank lines, `name#number` as id.
    Paragraph,
}

/// Where a record stands: the file's name within its input, line from 1, byte offset from 0 in the text of the file
/// (after decompression).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    #[serde(serialize_with = "serialize_name")]
    pub file: Arc<str>,
    pub line: u64,
    pub offset: u64,
}

fn serialize_name<S: serde::Serializer>(name: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name)
}

/// A record of the input, good or bad.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub place: Place,
    pub document: Result<Document, BadRecord>,
}

/// A record that is not a document, and why. `offset` is the byte in the file's text where it went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{}, line {}, byte {offset}: {problem}", place.file, place.line)]
pub struct BadRecord {
    pub place: Place,
    pub offset: u64,
    pub problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    #[error("the record has {length_bytes} bytes, more than the limit of {limit_bytes}")]
    TooLong { length_bytes: u64, limit_bytes: u64 },
    #[error("not UTF-8")]
    NotUtf8,
    #[error("not a document: {message}")]
    NotADocument { message: String },
}

/// Reads all documents of all inputs, in the order of [`list_input_files`].
pub fn read_documents(inputs: &[PathBuf], options: ReadOptions) -> Result<DocumentReader, Error> {
    Ok(DocumentReader { raw: read_raw(inputs, options)? })
}

/// The same without parsing.
pub fn read_raw(inputs: &[PathBuf], options: ReadOptions) -> Result<RawReader, Error> {
    let files = list_input_files(inputs)?.into_iter();
    Ok(RawReader { files, options, current: None, input_bytes: Arc::default() })
}

/// An iterator over the records of inputs.
pub struct DocumentReader {
    raw: RawReader,
}

impl Iterator for DocumentReader {
    type Item = Result<Record, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.raw.next().map(|raw| raw.map(RawRecord::parse))
    }
}

/// A record as it stands in the file.
#[derive(Debug, Clone)]
pub struct RawRecord {
    pub place: Place,
    content: RawContent,
}

#[derive(Debug, Clone)]
enum RawContent {
    Json(Vec<u8>),
    Text { id: String, bytes: Vec<u8> },
    TooLong { length_bytes: u64, limit_bytes: u64 },
}

impl RawRecord {
    /// Bytes held by this record.
    pub fn len_bytes(&self) -> usize {
        match &self.content {
            RawContent::Json(bytes) | RawContent::Text { bytes, .. } => bytes.len(),
            RawContent::TooLong { .. } => 0,
        }
    }

    /// The document, or what is wrong with the record.
    pub fn parse(self) -> Record {
        let place = self.place;
        let bad = |offset, problem| BadRecord { place: place.clone(), offset, problem };
        let not_utf8 =
            |error: std::str::Utf8Error| bad(place.offset + error.valid_up_to() as u64, Problem::NotUtf8);
        let document = match self.content {
            RawContent::Json(bytes) => std::str::from_utf8(&bytes).map_err(not_utf8).and_then(|json| {
                Document::from_json(json).map_err(|error| {
                    let offset = place.offset + error.column.saturating_sub(1) as u64;
                    bad(offset, Problem::NotADocument { message: error.message })
                })
            }),
            RawContent::Text { id, bytes } => {
                let text = String::from_utf8(bytes).map_err(|error| not_utf8(error.utf8_error()));
                text.map(|text| Document::new(id, text))
            }
            RawContent::TooLong { length_bytes, limit_bytes } => {
                Err(bad(place.offset, Problem::TooLong { length_bytes, limit_bytes }))
            }
        };
        Record { place, document }
    }
}

/// An iterator over unparsed records.
pub struct RawReader {
    files: std::vec::IntoIter<InputFile>,
    options: ReadOptions,
    current: Option<OpenInput>,
    input_bytes: Arc<AtomicU64>,
}

struct OpenInput {
    path: PathBuf,
    name: Arc<str>,
    content: Content,
    compressed: bool,
    lines: LineReader<Box<dyn BufRead + Send>>,
    consumed: Arc<AtomicU64>,
    records: u64,
}

impl RawReader {
    /// Bytes of the input files consumed so far, before decompression: what a progress bar shows.
    pub fn input_bytes(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |open| open.consumed.load(Ordering::Relaxed));
        self.input_bytes.load(Ordering::Relaxed) + current
    }

    fn close(&mut self) {
        if let Some(open) = self.current.take() {
            self.input_bytes.fetch_add(open.consumed.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl Iterator for RawReader {
    type Item = Result<RawRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.current.is_none() {
                match OpenInput::open(self.files.next()?) {
                    Ok(open) => self.current = Some(open),
                    Err(error) => return Some(Err(error)),
                }
            }
            let open = self.current.as_mut()?;
            match open.next_record(self.options) {
                Ok(Some(record)) => return Some(Ok(record)),
                Ok(None) => self.close(),
                Err(source) => {
                    let error = open.damage(source);
                    self.close();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl OpenInput {
    fn open(file: InputFile) -> Result<OpenInput, Error> {
        let (content, compression) =
            kind_of(&file.name).ok_or_else(|| Error::UnknownKind { path: file.path.clone() })?;
        let opened = decompress::open(&file.path, compression)?;
        Ok(OpenInput {
            name: file.name.into(),
            path: file.path,
            content,
            compressed: compression != decompress::Compression::None,
            lines: LineReader::new(opened.stream, usize::MAX >> 1),
            consumed: opened.consumed,
            records: 0,
        })
    }

    fn next_record(&mut self, options: ReadOptions) -> io::Result<Option<RawRecord>> {
        self.lines.set_limit(options.record_limit_bytes);
        let found = match (self.content, options.text_unit) {
            (Content::JsonLines, _) => self.next_json_line()?,
            (Content::PlainText, TextUnit::File) => self.lines.next_rest()?,
            (Content::PlainText, TextUnit::Paragraph) => self.next_paragraph(options.record_limit_bytes)?,
        };
        let Some(PlacedLine { number, offset, line }) = found else { return Ok(None) };
        self.records += 1;
        let content = match (line, self.content) {
            (Line::TooLong { length_bytes }, _) => {
                RawContent::TooLong { length_bytes, limit_bytes: options.record_limit_bytes as u64 }
            }
            (Line::Bytes(bytes), Content::JsonLines) => RawContent::Json(bytes),
            (Line::Bytes(bytes), Content::PlainText) => RawContent::Text { id: self.text_id(options), bytes },
        };
        Ok(Some(RawRecord { place: Place { file: self.name.clone(), line: number, offset }, content }))
    }

    fn next_json_line(&mut self) -> io::Result<Option<PlacedLine>> {
        while let Some(placed) = self.lines.next_line()? {
            if !is_blank(&placed.line) {
                return Ok(Some(placed));
            }
        }
        Ok(None)
    }

    fn next_paragraph(&mut self, limit_bytes: usize) -> io::Result<Option<PlacedLine>> {
        let Some(mut first) = self.next_json_line()? else { return Ok(None) };
        loop {
            let Some(next) = self.lines.next_line()? else { return Ok(Some(first)) };
            if is_blank(&next.line) {
                return Ok(Some(first));
            }
            first.line = joined(first.line, next.line, limit_bytes);
        }
    }

    fn text_id(&self, options: ReadOptions) -> String {
        match options.text_unit {
            TextUnit::File => self.name.to_string(),
            TextUnit::Paragraph => format!("{}#{}", self.name, self.records),
        }
    }

    /// What a failed read means: damage inside an archive, a failing disk otherwise.
    fn damage(&self, source: io::Error) -> Error {
        let path = self.path.clone();
        if !self.compressed {
            return Error::Read { path, source };
        }
        damaged(&path, self.consumed.load(Ordering::Relaxed), self.lines.position(), &source)
    }
}

/// The error for a stream that broke off; `position` is (lines, bytes of text) read so far.
pub(crate) fn damaged(
    path: &Path,
    compressed_offset: u64,
    position: (u64, u64),
    source: &io::Error,
) -> Error {
    let detail = match source.kind() {
        io::ErrorKind::UnexpectedEof => "the file ends in the middle (truncated)".to_string(),
        _ => source.to_string(),
    };
    Error::Damaged {
        path: path.to_path_buf(),
        compressed_offset,
        text_offset: position.1,
        line: position.0 + 1,
        detail,
    }
}

fn is_blank(line: &Line) -> bool {
    matches!(line, Line::Bytes(bytes) if bytes.iter().all(u8::is_ascii_whitespace))
}

fn joined(first: Line, next: Line, limit_bytes: usize) -> Line {
    let length = |line: &Line| match line {
        Line::Bytes(bytes) => bytes.len() as u64,
        Line::TooLong { length_bytes } => *length_bytes,
    };
    let length_bytes = length(&first) + 1 + length(&next);
    match (first, next) {
        (Line::Bytes(mut bytes), Line::Bytes(more)) if length_bytes <= limit_bytes as u64 => {
            bytes.push(b'\n');
            bytes.extend_from_slice(&more);
            Line::Bytes(bytes)
        }
        _ => Line::TooLong { length_bytes },
    }
}
