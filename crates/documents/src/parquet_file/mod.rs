//! Parquet files (Apache Parquet format 2): read as inputs, and written beside shards for whoever works with tables.

mod chunks;
mod columns;
mod input;
mod writer;

pub use input::{ParquetInput, Row};
pub use writer::ParquetWriter;
