//! Readers and shards on real files: every kind of input, and every fault with its place.

mod corpora;
mod faults;
#[cfg(feature = "parquet")]
mod parquet;
mod reading;
#[cfg(feature = "remote")]
mod remote;
#[cfg(feature = "remote")]
mod server;
mod shards;
mod warc;

use std::fs;
use std::path::{Path, PathBuf};

use documents::{Document, Error, ReadOptions, Record, read_documents};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn put(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn line(id: &str, text: &str) -> String {
    format!("{}\n", Document::new(id, text).to_json())
}

fn read(input: &Path, options: ReadOptions) -> Vec<Result<Record, Error>> {
    read_documents(&[input.to_path_buf()], options).unwrap().collect()
}

/// The (id, text) of every good document; anything bad fails the test.
fn good(input: &Path, options: ReadOptions) -> Vec<(String, String)> {
    read(input, options)
        .into_iter()
        .map(|record| record.unwrap().document.unwrap())
        .map(|document| (document.id, document.text))
        .collect()
}
