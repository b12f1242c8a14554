//! `Document` and `Shard`: how text enters eulalia and how it moves between stages.
//!
//! Stages meet in files, and the files are JSON lines: one document an object, one object a line. This crate reads
//! such lines from anywhere (plain, gzip, zstd; and text files), within bounded memory and with the place of every
//! fault, and writes the `.jsonl.zst` shards that the stages hand to each other.
//!
//! - [`read_documents`] reads what a user points at: a bad record is an item, damage to a file is an error.
//! - [`open_input`] reads one file of it alone, from any record on.
//! - [`read_shard`] reads what a stage wrote: anything wrong with it is an error.
//! - [`ShardWriter`] writes shards whose bytes depend on the documents alone.
//! - [`list_input_files`] and [`digest_inputs`] say what inputs consist of, for an artefact's key.

mod decompress;
mod document;
mod error;
mod fields;
mod html;
mod http;
mod inputs;
mod json_record;
mod language_codes;
mod lines;
mod members;
#[cfg(feature = "parquet")]
mod parquet_file;
mod reader;
#[cfg(feature = "remote")]
mod remote;
mod shard;
mod source;
mod text_input;
mod utf16;
mod warc;
mod web_record;

pub use document::{Document, FieldError};
pub use error::Error;
pub use fields::FieldMap;
pub use inputs::{InputDigest, InputFile, digest_inputs, list_input_files};
#[cfg(feature = "parquet")]
pub use parquet_file::ParquetWriter;
pub use reader::{
    BadRecord, DocumentReader, InputReader, Place, Problem, RawReader, RawRecord, ReadOptions, Record,
    TextUnit, open_input, read_documents, read_raw,
};
pub use shard::{
    PlacedValue, ShardReader, ShardSummary, ShardWriter, ValueReader, read_first_values, read_shard,
    read_values,
};
pub use source::is_remote;
