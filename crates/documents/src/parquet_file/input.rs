//! The rows of a Parquet file as records, a handful at a time: what is in memory are the pages at hand of each column.
//!
//! Columns are mapped to fields as keys of JSON records are (see `fields`), by name, with the wrappings of lists left
//! out: a column `lang.list.element` stands under `lang`. Columns of lists inside lists are passed over.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescPtr;

use super::chunks::{Chunks, io_error};
use super::columns::{Cell, ColumnReader};
use crate::decompress::check_ratio;
use crate::document::Document;
use crate::error::Error;
use crate::fields::{self, FIELDS, FieldMap};
use crate::members::is_disk_failure;
use crate::reader::{Place, Problem, RawContent, RawRecord, ReadOptions};

/// Rows that are decoded at once: enough that a column's decoder is called seldom.
const BATCH_ROWS: usize = 256;
/// And fewer where rows are long.
const BATCH_BYTES: i64 = 8 << 20;

/// What a column holds for a document.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// The place in [`FIELDS`].
    Field(usize),
    /// JSON of all metadata, as [`crate::ParquetWriter`] writes them.
    OwnMetadata,
    Metadata(Arc<str>),
}

/// A row, not yet looked at.
#[derive(Debug, Clone)]
pub struct Row {
    fields: Arc<FieldMap>,
    cells: Vec<(Role, Cell)>,
}

pub struct ParquetInput {
    name: Arc<str>,
    chunks: Arc<Chunks>,
    metadata: ParquetMetaData,
    options: ReadOptions,
    fields: Arc<FieldMap>,
    columns: Vec<Column>,
    next_group: usize,
    rows_left: usize,
    batch_rows: usize,
    rows: VecDeque<Row>,
    /// Bytes of the groups that were opened: what a progress bar shows.
    consumed: Arc<AtomicU64>,
}

struct Column {
    leaf: usize,
    role: Role,
    reader: Option<ColumnReader>,
}

impl ParquetInput {
    pub fn open(path: &Path, name: &str, options: ReadOptions) -> Result<ParquetInput, Error> {
        let chunks = Arc::new(Chunks::open(path)?);
        let shown = || crate::source::shown(path);
        let metadata = caught(|| ParquetMetaDataReader::new().parse_and_finish(chunks.as_ref()));
        let metadata = metadata.map_err(|error| match is_disk_failure(&error) {
            true => Error::Read { path: shown(), source: error },
            false => Error::BadParquet { path: shown(), detail: error.to_string() },
        })?;
        let schema = metadata.file_metadata().schema_descr();
        let top: Vec<&str> = schema.root_schema().get_fields().iter().map(|field| field.name()).collect();
        let fields = options.fields.clone().unwrap_or_else(|| FieldMap::detect(top.iter().copied()));
        let columns = columns(schema.columns(), &fields, &options);
        let has_text = columns.iter().any(|column| matches!(column.role, Role::Field(fields::TEXT)));
        if !has_text && fields.constants[fields::TEXT].is_none() {
            let (column, found) = (fields.way_to(fields::TEXT), top.join(", "));
            return Err(Error::NoTextColumn { path: shown(), column, found });
        }
        Ok(ParquetInput {
            name: name.into(),
            chunks,
            metadata,
            options,
            fields,
            columns,
            next_group: 0,
            rows_left: 0,
            batch_rows: 1,
            rows: VecDeque::new(),
            consumed: Arc::default(),
        })
    }

    /// The next row; `number` is its own, from 1.
    pub fn next_record(&mut self, number: u64) -> io::Result<Option<RawRecord>> {
        while self.rows.is_empty() {
            if !caught(|| self.next_batch())? {
                return Ok(None);
            }
        }
        let Some(row) = self.rows.pop_front() else { return Ok(None) };
        let limit_bytes = self.options.record_limit_bytes as u64;
        let length_bytes = row.len_bytes() as u64;
        let content = match length_bytes > limit_bytes {
            true => RawContent::Bad(Problem::TooLong { length_bytes, limit_bytes }),
            false => RawContent::Row { row: Box::new(row), keep_metadata: self.options.keep_metadata },
        };
        let place = Place { file: self.name.clone(), line: number, offset: 0 };
        Ok(Some(RawRecord { place, content }))
    }

    /// Bytes of the file in the groups of rows opened so far, shared.
    pub fn progress(&self) -> Arc<AtomicU64> {
        self.consumed.clone()
    }

    /// Passes over whole groups of rows without reading them; how many rows that were.
    pub fn skip_groups(&mut self, count: u64) -> u64 {
        let mut skipped = 0;
        while self.rows_left == 0 && self.rows.is_empty() && self.next_group < self.metadata.num_row_groups()
        {
            let rows = self.metadata.row_group(self.next_group).num_rows() as u64;
            if skipped + rows > count {
                break;
            }
            skipped += rows;
            self.next_group += 1;
        }
        skipped
    }

    /// Decodes the next rows; whether there are any.
    fn next_batch(&mut self) -> Result<bool, ParquetError> {
        if self.rows_left == 0 && !self.open_group()? {
            return Ok(false);
        }
        self.read_batch().map(|()| true)
    }

    /// Whether there is another group of rows; its columns are opened.
    fn open_group(&mut self) -> Result<bool, ParquetError> {
        if self.next_group == self.metadata.num_row_groups() {
            return Ok(false);
        }
        let group = self.metadata.row_group(self.next_group);
        self.next_group += 1;
        let rows = usize::try_from(group.num_rows())
            .map_err(|_| ParquetError::General("a negative number of rows".to_string()))?;
        let mut bytes = 0;
        for column in &mut self.columns {
            let chunk = group.column(column.leaf);
            let (packed, unpacked) = (chunk.compressed_size(), chunk.uncompressed_size());
            check_ratio(packed.max(0) as u64, unpacked.max(0) as u64)?;
            bytes += unpacked;
            self.consumed.fetch_add(packed.max(0) as u64, Ordering::Relaxed);
            let pages = SerializedPageReader::new(self.chunks.clone(), chunk, rows, None)?;
            column.reader = Some(ColumnReader::new(chunk.column_descr_ptr(), Box::new(pages)));
        }
        self.rows_left = rows;
        let mean_bytes = bytes / (rows.max(1) as i64) + 1;
        self.batch_rows = ((BATCH_BYTES / mean_bytes) as usize).clamp(1, BATCH_ROWS);
        Ok(true)
    }

    fn read_batch(&mut self) -> Result<(), ParquetError> {
        let count = self.rows_left.min(self.batch_rows);
        let mut rows: Vec<Row> = (0..count)
            .map(|_| Row { fields: self.fields.clone(), cells: Vec::with_capacity(self.columns.len()) })
            .collect();
        for column in &mut self.columns {
            let Some(reader) = &mut column.reader else { continue };
            let cells = reader.read(count)?;
            if cells.len() != count {
                let detail = format!("a column has {} rows where {count} are", cells.len());
                return Err(ParquetError::General(detail));
            }
            for (row, cell) in rows.iter_mut().zip(cells) {
                row.cells.push((column.role.clone(), cell));
            }
        }
        self.rows_left -= count;
        self.rows.extend(rows);
        Ok(())
    }
}

/// Runs the decoder, which meets some broken files with a panic: that is damage like any other.
fn caught<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(result) => result.map_err(io_error),
        Err(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "its pages contradict each other")),
    }
}

/// The columns that somebody wants, in the order of the file.
fn columns(leaves: &[ColumnDescPtr], map: &FieldMap, options: &ReadOptions) -> Vec<Column> {
    let mut columns = Vec::new();
    for (leaf, descriptor) in leaves.iter().enumerate() {
        if descriptor.max_rep_level() > 1 {
            continue;
        }
        let parts = way(descriptor);
        let target = map.keys.iter().find(|mapped| mapped.key == parts[0]).and_then(|mapped| {
            mapped.targets.iter().find(|target| target.path.iter().eq(parts[1..].iter().copied()))
        });
        let name = parts.join(".");
        let role = match target {
            Some(target) => Role::Field(target.field),
            // What is named like a field and stands for none would be taken for it.
            None if FIELDS.contains(&name.as_str()) => continue,
            None if name == "metadata" && !map.is_foreign => Role::OwnMetadata,
            None if (options.keep_metadata)(&name) => Role::Metadata(name.into()),
            None => continue,
        };
        columns.push(Column { leaf, role, reader: None });
    }
    columns
}

/// The names down to a column, without those that only wrap the elements of a list.
fn way(descriptor: &ColumnDescPtr) -> Vec<&str> {
    let parts = descriptor.path().parts();
    let wraps = |part: &str| matches!(part, "list" | "element" | "array" | "item" | "bag" | "array_element");
    let is_list = descriptor.max_rep_level() > 0;
    let inner = parts[1..].iter().map(String::as_str).filter(|part| !(is_list && wraps(part)));
    std::iter::once(parts[0].as_str()).chain(inner).collect()
}

impl Row {
    pub fn len_bytes(&self) -> usize {
        let length = |cell: &Cell| match cell {
            Cell::Bytes(bytes) => bytes.len(),
            _ => 8,
        };
        self.cells.iter().map(|(_, cell)| length(cell)).sum()
    }

    /// The document, or the column that stands in the way. `id` is for a row without one.
    pub fn document(self, id: String, keep_metadata: fn(&str) -> bool) -> Result<Document, Problem> {
        let map = self.fields;
        let wrong =
            |name: &str, found: &str| Problem::NotADocument { message: format!("column `{name}`: {found}") };
        let mut values: [Option<String>; FIELDS.len()] = map.constants.clone();
        let mut document = Document::default();
        for (role, cell) in self.cells {
            match (role, cell) {
                (_, Cell::Null) => {}
                (Role::Field(field), cell) => {
                    values[field] = cell.into_words().map_err(|found| wrong(&map.way_to(field), found))?;
                }
                (Role::OwnMetadata, cell) => {
                    let json =
                        cell.into_words().map_err(|found| wrong("metadata", found))?.unwrap_or_default();
                    document.metadata = serde_json::from_str(&json)
                        .map_err(|error| wrong("metadata", &format!("expected a JSON object: {error}")))?;
                    document.metadata.retain(|key, _| keep_metadata(key));
                }
                (Role::Metadata(name), cell) => {
                    document.metadata.insert(name.to_string(), cell.into_value());
                }
            }
        }
        let [own_id, url, date, license, language, source, text] = values;
        document.text = text.ok_or_else(|| wrong(&map.way_to(fields::TEXT), "empty"))?;
        document.id = own_id.filter(|id| !id.is_empty()).unwrap_or(id);
        Ok(Document { url, date, license, language, source, ..document })
    }
}
