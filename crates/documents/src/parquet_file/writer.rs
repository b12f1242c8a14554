//! Documents as a Parquet file: a column for each field, and the metadata as JSON.
//!
//! The bytes are a function of the documents: groups of rows are cut by the size of what they hold, compressed by zstd
//! at a fixed level on one thread, and the file does not say when or where it was written.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type as SchemaType;
use provenance::{Storage, StoredFile};

use super::chunks::io_error;
use crate::document::Document;
use crate::error::Error;
use crate::fields::{FIELDS, ID, TEXT};
use crate::shard::{COMPRESSION_LEVEL, ShardSummary};

const BUFFER_BYTES: usize = 1 << 18;
/// A group of rows is written when it holds so many bytes: what the writer keeps in memory.
const GROUP_BYTES: u64 = 32 << 20;
const METADATA: usize = FIELDS.len();

/// Writes a Parquet file. It counts only once [`ParquetWriter::finish`] has returned.
pub struct ParquetWriter {
    path: PathBuf,
    writer: SerializedFileWriter<BufWriter<StoredFile>>,
    columns: [Vec<Option<ByteArray>>; FIELDS.len() + 1],
    group_bytes: u64,
    summary: ShardSummary,
}

impl ParquetWriter {
    /// Creates the file; its folder must exist.
    pub fn create(storage: &Storage, path: &Path) -> Result<ParquetWriter, Error> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, storage.create(path)?);
        let written = || -> Result<_, ParquetError> {
            let level = ZstdLevel::try_new(COMPRESSION_LEVEL)?;
            let properties = WriterProperties::builder()
                .set_created_by("eulalia".to_string())
                .set_compression(Compression::ZSTD(level))
                // Smallest and largest texts help nobody to find one.
                .set_statistics_enabled(EnabledStatistics::None)
                .set_dictionary_enabled(false)
                .build();
            SerializedFileWriter::new(file, Arc::new(schema()?), Arc::new(properties))
        };
        let writer = written().map_err(|error| write_error(path, error))?;
        Ok(ParquetWriter {
            path: path.to_path_buf(),
            writer,
            columns: Default::default(),
            group_bytes: 0,
            summary: ShardSummary::default(),
        })
    }

    pub fn write(&mut self, document: &Document) -> Result<(), Error> {
        let metadata = (!document.metadata.is_empty())
            .then(|| serde_json::to_string(&document.metadata).expect("JSON values always serialise"));
        let optional = |value: &Option<String>| value.as_deref().map(ByteArray::from);
        let values = [
            Some(document.id.as_str().into()),
            optional(&document.url),
            optional(&document.date),
            optional(&document.license),
            optional(&document.language),
            optional(&document.source),
            Some(document.text.as_str().into()),
            metadata.as_deref().map(ByteArray::from),
        ];
        let bytes: u64 = values.iter().flatten().map(|value| value.len() as u64).sum();
        for (column, value) in self.columns.iter_mut().zip(values) {
            column.push(value);
        }
        self.group_bytes += bytes;
        self.summary.lines += 1;
        self.summary.line_bytes += bytes;
        if self.group_bytes >= GROUP_BYTES {
            self.write_group()?;
        }
        Ok(())
    }

    /// Writes the end of the file and syncs it.
    pub fn finish(mut self) -> Result<ShardSummary, Error> {
        if !self.columns[ID].is_empty() {
            self.write_group()?;
        }
        let path = self.path;
        let mut buffered = self.writer.into_inner().map_err(|error| write_error(&path, error))?;
        let io_failed = |source| Error::write(&path, source);
        buffered.flush().map_err(io_failed)?;
        let file = buffered.into_inner().map_err(|error| io_failed(error.into_error()))?;
        file.finish()?;
        Ok(self.summary)
    }

    fn write_group(&mut self) -> Result<(), Error> {
        let (writer, columns) = (&mut self.writer, &mut self.columns);
        let mut write = || -> Result<(), ParquetError> {
            let mut group = writer.next_row_group()?;
            for (place, column) in columns.iter_mut().enumerate() {
                let Some(mut chunk) = group.next_column()? else { break };
                let levels: Vec<i16> = column.iter().map(|value| i16::from(value.is_some())).collect();
                let values: Vec<ByteArray> = column.drain(..).flatten().collect();
                let levels = (!is_required(place)).then_some(&levels[..]);
                chunk.typed::<ByteArrayType>().write_batch(&values, levels, None)?;
                chunk.close()?;
            }
            group.close().map(drop)
        };
        write().map_err(|error| write_error(&self.path, error))?;
        self.group_bytes = 0;
        Ok(())
    }
}

fn is_required(column: usize) -> bool {
    column == ID || column == TEXT
}

fn schema() -> Result<SchemaType, ParquetError> {
    let mut columns = Vec::new();
    for (place, name) in FIELDS.iter().copied().chain(["metadata"]).enumerate() {
        debug_assert!(place <= METADATA);
        let repetition = if is_required(place) { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        let column = SchemaType::primitive_type_builder(name, Type::BYTE_ARRAY)
            .with_repetition(repetition)
            .with_logical_type(Some(LogicalType::String))
            .build()?;
        columns.push(Arc::new(column));
    }
    SchemaType::group_type_builder("document").with_fields(columns).build()
}

fn write_error(path: &Path, error: ParquetError) -> Error {
    Error::write(path, io_error(error))
}
