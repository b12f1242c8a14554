//! Documents from whatever a user points at: a stream of records, each with its place, in bounded memory.
//!
//! A bad record is data: it comes as a [`Record`] with a [`BadRecord`] in it, and reading goes on. Damage to a file
//! (a truncated archive, an empty file) is an [`Error`] item, after which the next file follows; whether that stops the
//! run is the caller's setting. Reading ([`RawReader`]) and parsing ([`RawRecord::parse`]) are apart, so that one
//! thread can read while all threads parse.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::decompress::{self, Compression};
use crate::document::Document;
use crate::error::Error;
use crate::fields::FieldMap;
use crate::html;
use crate::inputs::{Content, InputFile, kind_of, list_input_files};
use crate::json_record;
use crate::language_codes;
use crate::members::is_disk_failure;
#[cfg(feature = "parquet")]
use crate::parquet_file::{ParquetInput, Row};
use crate::source::{self, Source};
use crate::text_input::LineInput;
use crate::utf16;
use crate::warc::WarcInput;
use crate::web_record::WebRecord;

/// How input is read and cut into documents.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// No record longer than this is ever held in memory; a longer one is a bad record. 64 MiB: a thousand times the
    /// longest books that web corpora hold as one record, and small beside the memory of any machine.
    pub record_limit_bytes: usize,
    pub text_unit: TextUnit,
    /// Under which keys the fields stand; `None`: as the keys of a file's first record tell (see `data/corpora.toml`).
    pub fields: Option<Arc<FieldMap>>,
    /// Which keys beyond a document's own fields are kept in its metadata. Whoever throws metadata away says so here:
    /// the values are then skipped, not built.
    pub keep_metadata: fn(&str) -> bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions {
            record_limit_bytes: 64 << 20,
            text_unit: TextUnit::File,
            fields: None,
            keep_metadata: |_| true,
        }
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

/// Where a record stands: the file's name within its input, line from 1 (in files that have no lines, such as WARC:
/// number of the record), byte offset from 0 in the text of the file (after decompression).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    #[serde(serialize_with = "serialize_name")]
    pub file: Arc<str>,
    pub line: u64,
    pub offset: u64,
}

impl Place {
    /// What is counted in a file of this name.
    fn unit(&self) -> &'static str {
        match kind_of(&self.file) {
            Some((Content::JsonLines | Content::PlainText | Content::Html, _)) | None => "line",
            Some((Content::Warc, _)) => "record",
            Some((Content::Parquet, _)) => "row",
        }
    }
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
#[error("{}, {} {}, byte {offset}: {problem}", place.file, place.unit(), place.line)]
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
    #[error("a zero byte: this is no text file, or it is UTF-16 without a byte order mark")]
    ZeroByte,
    #[error("not a document: {message}")]
    NotADocument { message: String },
    #[error("not a whole WARC record: {message}")]
    NotARecord { message: String },
    #[error(
        "unpacks from {packed_bytes} bytes to more than the limit of {limit_bytes}, or to hundreds of times its size"
    )]
    UnpacksTooFar { packed_bytes: u64, limit_bytes: u64 },
    #[error(
        "bytes {from} to {to} of the file as it stands are damaged ({detail}) and were passed over; fetch the file again"
    )]
    Damaged { from: u64, to: u64, detail: String },
}

/// Reads all documents of all inputs, in the order of [`list_input_files`].
pub fn read_documents(inputs: &[PathBuf], options: ReadOptions) -> Result<DocumentReader, Error> {
    Ok(DocumentReader { raw: read_raw(inputs, options)? })
}

/// The same without parsing.
pub fn read_raw(inputs: &[PathBuf], options: ReadOptions) -> Result<RawReader, Error> {
    let files = list_input_files(inputs)?.into_iter();
    Ok(RawReader { files, options, current: None, input_bytes: 0 })
}

/// Opens one file of [`list_input_files`], so that ranks can share out the files of an input among themselves.
pub fn open_input(file: &InputFile, options: ReadOptions) -> Result<InputReader, Error> {
    let (content, compression) =
        kind_of(&file.name).ok_or_else(|| Error::UnknownKind { path: source::shown(&file.path) })?;
    if content == Content::Parquet {
        return open_parquet(file, options);
    }
    let source = source::open(&file.path)?;
    let consumed = source.progress();
    let format = Format::open(&file.name, source, content, compression, options);
    let compressed = compression != Compression::None;
    let mut reader =
        InputReader { path: source::shown(&file.path), compressed, format: None, consumed, records: 0 };
    reader.format = Some(format.map_err(|error| reader.damage(error, (0, 0)))?);
    Ok(reader)
}

#[cfg(feature = "parquet")]
fn open_parquet(file: &InputFile, options: ReadOptions) -> Result<InputReader, Error> {
    let parquet = ParquetInput::open(&file.path, &file.name, options)?;
    Ok(InputReader {
        path: source::shown(&file.path),
        compressed: true,
        consumed: parquet.progress(),
        format: Some(Format::Parquet(Box::new(parquet))),
        records: 0,
    })
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(file: &InputFile, _: ReadOptions) -> Result<InputReader, Error> {
    Err(Error::NoParquet { path: source::shown(&file.path) })
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
    pub(crate) content: RawContent,
}

#[derive(Debug, Clone)]
pub(crate) enum RawContent {
    Json {
        bytes: Vec<u8>,
        fields: Arc<FieldMap>,
        keep_metadata: fn(&str) -> bool,
    },
    Text {
        id: String,
        bytes: Vec<u8>,
    },
    Html {
        id: String,
        bytes: Vec<u8>,
    },
    Web {
        record: Box<WebRecord>,
        limit_bytes: usize,
    },
    #[cfg(feature = "parquet")]
    Row {
        row: Box<Row>,
        keep_metadata: fn(&str) -> bool,
    },
    Bad(Problem),
}

impl RawRecord {
    /// Bytes held by this record.
    pub fn len_bytes(&self) -> usize {
        match &self.content {
            RawContent::Json { bytes, .. }
            | RawContent::Text { bytes, .. }
            | RawContent::Html { bytes, .. } => bytes.len(),
            RawContent::Web { record, .. } => record.block.len(),
            #[cfg(feature = "parquet")]
            RawContent::Row { row, .. } => row.len_bytes(),
            RawContent::Bad(_) => 0,
        }
    }

    /// Whether this is a site's robots.txt or TDMRep file in a web archive: known before anything is unpacked.
    pub fn is_site_file(&self) -> bool {
        matches!(&self.content, RawContent::Web { record, .. } if record.site_file().is_some())
    }

    /// The document, or what is wrong with the record.
    pub fn parse(self) -> Record {
        let place = self.place;
        let bad = |offset, problem| BadRecord { place: place.clone(), offset, problem };
        let not_utf8 = |error: simdutf8::compat::Utf8Error| {
            bad(place.offset + error.valid_up_to() as u64, Problem::NotUtf8)
        };
        let document = match self.content {
            RawContent::Json { bytes, fields, keep_metadata } => {
                simdutf8::compat::from_utf8(&bytes).map_err(not_utf8).and_then(|json| {
                    let id = || format!("{}#{}", place.file, place.line);
                    json_record::read(json, &fields, keep_metadata, id).map_err(|error| {
                        let offset = place.offset + error.column.saturating_sub(1) as u64;
                        bad(offset, Problem::NotADocument { message: error.message })
                    })
                })
            }
            RawContent::Text { id, bytes } => {
                let zero =
                    memchr::memchr(0, &bytes).map(|zero| bad(place.offset + zero as u64, Problem::ZeroByte));
                let text = simdutf8::compat::from_utf8(&bytes).map_err(not_utf8);
                zero.map_or(text.map(|text| Document::new(id, text)), Err)
            }
            RawContent::Html { id, bytes } => {
                let mut document = Document::new(id, String::new());
                // The reader took a byte order mark off: it says how the page is encoded.
                let content_type = (place.offset > 0).then_some("text/html; charset=utf-8");
                html::fill(&mut document, &bytes, content_type);
                Ok(document)
            }
            RawContent::Web { record, limit_bytes } => {
                let id = format!("{}#{}", place.file, place.line);
                record.document(id, limit_bytes).map_err(|problem| bad(place.offset, problem))
            }
            #[cfg(feature = "parquet")]
            RawContent::Row { row, keep_metadata } => {
                let id = format!("{}#{}", place.file, place.line);
                row.document(id, keep_metadata).map_err(|problem| bad(place.offset, problem))
            }
            RawContent::Bad(problem) => Err(bad(place.offset, problem)),
        };
        let document = document.map(|mut document| {
            document.language = document.language.map(language_codes::two_letters);
            document
        });
        Record { place, document }
    }
}

/// An iterator over the unparsed records of one file; after an error it ends.
pub struct InputReader {
    path: PathBuf,
    compressed: bool,
    /// `None` once the file has ended.
    format: Option<Format>,
    consumed: Arc<AtomicU64>,
    records: u64,
}

/// The kinds of files, each with its own way to the next record.
enum Format {
    Lines(LineInput),
    Warc(Box<WarcInput>),
    #[cfg(feature = "parquet")]
    Parquet(Box<ParquetInput>),
}

impl Format {
    fn open(
        name: &str,
        source: Source,
        content: Content,
        compression: Compression,
        options: ReadOptions,
    ) -> io::Result<Format> {
        Ok(match content {
            Content::Warc => Format::Warc(Box::new(WarcInput::new(name, source, compression, options)?)),
            Content::Html => {
                // A page says itself how it is encoded.
                let stream = decompress::stream_of(source, compression)?;
                Format::Lines(LineInput::new(name, content, stream, options))
            }
            Content::Parquet => unreachable!("opened by itself"),
            Content::JsonLines | Content::PlainText => {
                let stream = utf16::as_utf8(decompress::stream_of(source, compression)?)?;
                Format::Lines(LineInput::new(name, content, stream, options))
            }
        })
    }

    /// `number` is that of the record, from 1.
    fn next_record(&mut self, number: u64) -> io::Result<Option<RawRecord>> {
        match self {
            Format::Lines(lines) => lines.next_record(number),
            Format::Warc(warc) => warc.next_record(number),
            #[cfg(feature = "parquet")]
            Format::Parquet(parquet) => parquet.next_record(number),
        }
    }

    /// Lines (or records) passed so far, and bytes of the unpacked stream.
    fn position(&self, records: u64) -> (u64, u64) {
        match self {
            Format::Lines(lines) => lines.position(),
            Format::Warc(warc) => (records, warc.offset()),
            #[cfg(feature = "parquet")]
            Format::Parquet(_) => (records, 0),
        }
    }
}

impl InputReader {
    /// Records given out or skipped so far, bad ones included.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the file consumed so far, before decompression: what a progress bar shows.
    pub fn input_bytes(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    /// Passes over `count` records without parsing them: how a run that was interrupted finds its place again. Fewer
    /// records in the file than that is no error; [`InputReader::records`] says how many there were.
    pub fn skip_records(&mut self, count: u64) -> Result<(), Error> {
        #[cfg(feature = "parquet")]
        let count = match &mut self.format {
            Some(Format::Parquet(parquet)) => {
                let skipped = parquet.skip_groups(count);
                self.records += skipped;
                count - skipped
            }
            _ => count,
        };
        for _ in 0..count {
            match self.next() {
                Some(record) => drop(record?),
                None => break,
            }
        }
        Ok(())
    }

    /// What a failed read means: damage inside an archive, a failing disk otherwise.
    fn damage(&self, source: io::Error, position: (u64, u64)) -> Error {
        let path = self.path.clone();
        if !self.compressed || is_disk_failure(&source) {
            return Error::Read { path, source };
        }
        damaged(&path, self.input_bytes(), position, &source)
    }
}

impl Iterator for InputReader {
    type Item = Result<RawRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let format = self.format.as_mut()?;
        match format.next_record(self.records + 1) {
            Ok(Some(record)) => {
                self.records += 1;
                Some(Ok(record))
            }
            Ok(None) => {
                self.format = None;
                None
            }
            Err(source) => {
                let position = format.position(self.records);
                self.format = None;
                Some(Err(self.damage(source, position)))
            }
        }
    }
}

/// An iterator over the unparsed records of inputs, file after file.
pub struct RawReader {
    files: std::vec::IntoIter<InputFile>,
    options: ReadOptions,
    current: Option<InputReader>,
    input_bytes: u64,
}

impl RawReader {
    /// Bytes of the input files consumed so far, before decompression: what a progress bar shows.
    pub fn input_bytes(&self) -> u64 {
        self.input_bytes + self.current.as_ref().map_or(0, InputReader::input_bytes)
    }
}

impl Iterator for RawReader {
    type Item = Result<RawRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.current.is_none() {
                match open_input(&self.files.next()?, self.options.clone()) {
                    Ok(open) => self.current = Some(open),
                    Err(error) => return Some(Err(error)),
                }
            }
            let open = self.current.as_mut()?;
            if let Some(record) = open.next() {
                return Some(record);
            }
            self.input_bytes += open.input_bytes();
            self.current = None;
        }
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
