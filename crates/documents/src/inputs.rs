//! Which files an input consists of, in an order that depends on their names alone.
//!
//! An input is a file or a folder, or the address of either elsewhere (see `remote`). Folders are searched to their depths;
//! links are followed, except back to a folder above; pipes, sockets and devices are refused, because reading them may
//! never end. Names that begin with a dot are left alone, and so are files of other kinds inside a folder (checksum lists)
//! and what is written about the folder (a README, a LICENSE). Of a finished corpus, what it dropped stays dropped.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use provenance::Digest;
use provenance::artefact::{MANIFEST_FILE, SUMS_FILE};
use provenance::record::RECORD_FILE;
use serde::Serialize;

use crate::decompress::Compression;
use crate::error::Error;
use crate::source::is_remote;

/// A file to read, with the name it has inside its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// A path, or the address of a remote object.
    pub path: PathBuf,
    /// Relative to the input, parts joined by `/`; the file's own name where the input is a file.
    pub name: String,
}

/// What an artefact's key knows of an input file: its name and content, never where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputDigest {
    pub name: String,
    pub bytes: u64,
    pub sha256: Digest,
}

/// The files of all inputs: inputs in the order given, the files of each in the order of their names.
pub fn list_input_files(inputs: &[PathBuf]) -> Result<Vec<InputFile>, Error> {
    let mut files = Vec::new();
    for input in inputs {
        let before = files.len();
        if is_remote(input) {
            files.extend(list_remote(input)?);
            continue;
        }
        let file_type = followed_type(input)?;
        if file_type.is_dir() {
            descend(input, "", &mut vec![canonical(input)?], &mut files)?;
            if files.len() == before {
                return Err(Error::NoFiles { path: input.clone() });
            }
            files[before..].sort_by(|a, b| a.name.cmp(&b.name));
        } else {
            let name = name_of(input)?;
            if kind_of(&name).is_none() {
                return Err(Error::UnknownKind { path: input.clone() });
            }
            files.push(InputFile { path: input.clone(), name });
        }
    }
    Ok(files)
}

/// The digest of every file of all inputs, read once from end to end.
pub fn digest_inputs(inputs: &[PathBuf]) -> Result<Vec<InputDigest>, Error> {
    list_input_files(inputs)?
        .into_iter()
        .map(|InputFile { path, name }| {
            if is_remote(&path) {
                return digest_remote(&path, name);
            }
            let read_error = |source| Error::Read { path: path.clone(), source };
            let bytes = fs::metadata(&path).map_err(read_error)?.len();
            let sha256 = provenance::digest::sha256_file(&path).map_err(read_error)?;
            Ok(InputDigest { name, bytes, sha256 })
        })
        .collect()
}

#[cfg(feature = "remote")]
fn list_remote(address: &Path) -> Result<Vec<InputFile>, Error> {
    crate::remote::list(address)
}

/// What identifies a remote object: its `ETag` and length where the store gives a strong one, because nobody fetches a
/// crawl only to learn whether it changed; else its bytes.
#[cfg(feature = "remote")]
fn digest_remote(address: &Path, name: String) -> Result<InputDigest, Error> {
    let object = crate::remote::open(address)?;
    let bytes = object.length;
    let sha256 = match object.etag.as_deref().filter(|etag| !etag.starts_with("W/")) {
        Some(etag) => provenance::digest::sha256(format!("etag {etag} of {bytes} bytes").as_bytes()),
        None => {
            let mut reader = provenance::digest::Sha256Reader::new(object.stream(0));
            let copied = io::copy(&mut reader, &mut io::sink());
            copied.map_err(|source| Error::Read { path: crate::source::shown(address), source })?;
            reader.digest()
        }
    };
    Ok(InputDigest { name, bytes, sha256 })
}

#[cfg(not(feature = "remote"))]
fn list_remote(address: &Path) -> Result<Vec<InputFile>, Error> {
    Err(Error::NoRemote { path: crate::source::shown(address) })
}

#[cfg(not(feature = "remote"))]
fn digest_remote(address: &Path, _: String) -> Result<InputDigest, Error> {
    Err(Error::NoRemote { path: crate::source::shown(address) })
}

/// What a file holds, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    JsonLines,
    /// Markdown too: its marks are part of the text.
    PlainText,
    Html,
    /// WARC and WET.
    Warc,
    Parquet,
}

pub fn kind_of(name: &str) -> Option<(Content, Compression)> {
    let name = name.to_ascii_lowercase();
    let (stem, compression) = if let Some(stem) = name.strip_suffix(".gz") {
        (stem, Compression::Gzip)
    } else if let Some(stem) = name.strip_suffix(".zst") {
        (stem, Compression::Zstd)
    } else {
        (name.as_str(), Compression::None)
    };
    match stem.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" => Some((Content::JsonLines, compression)),
        "txt" | "md" | "markdown" => Some((Content::PlainText, compression)),
        "html" | "htm" | "xhtml" => Some((Content::Html, compression)),
        // It compresses its pages itself.
        "parquet" if compression == Compression::None => Some((Content::Parquet, compression)),
        "warc" | "wet" => Some((Content::Warc, compression)),
        _ => None,
    }
}

/// Names of files that tell about those beside them.
pub fn is_about_the_folder(file_name: &str) -> bool {
    let stem = file_name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    ["readme", "license", "licence"].contains(&stem.as_str())
}

/// What an artefact has besides documents: what a corpus dropped, its record, and how it was made.
const NO_DOCUMENTS_OF_ARTEFACTS: [&str; 3] = ["dropped", RECORD_FILE, "circumstances"];

/// `above` holds the resolved folders from the input down to this one: a link to any of them is a loop.
fn descend(
    folder: &Path,
    prefix: &str,
    above: &mut Vec<PathBuf>,
    files: &mut Vec<InputFile>,
) -> Result<(), Error> {
    let read_error = |source| Error::Read { path: folder.to_path_buf(), source };
    let is_artefact = [MANIFEST_FILE, SUMS_FILE].iter().all(|name| folder.join(name).is_file());
    for entry in fs::read_dir(folder).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path();
        let file_name = name_of(&path)?;
        if file_name.starts_with('.') || is_about_the_folder(&file_name) {
            continue;
        }
        if is_artefact && NO_DOCUMENTS_OF_ARTEFACTS.contains(&file_name.as_str()) {
            continue;
        }
        let name = format!("{prefix}{file_name}");
        if followed_type(&path)?.is_dir() {
            let resolved = canonical(&path)?;
            if above.contains(&resolved) {
                return Err(Error::SymbolicLinkLoop { path });
            }
            above.push(resolved);
            descend(&path, &format!("{name}/"), above, files)?;
            above.pop();
        } else if kind_of(&name).is_some() {
            files.push(InputFile { path, name });
        }
    }
    Ok(())
}

/// The type of what a path leads to: a file or a folder, or else the error that says what it is.
fn followed_type(path: &Path) -> Result<FileType, Error> {
    let metadata = fs::metadata(path).map_err(|source| missing_or(path, source))?;
    let file_type = metadata.file_type();
    match special_kind(file_type) {
        Some(kind) => Err(Error::SpecialFile { path: path.to_path_buf(), kind }),
        None => Ok(file_type),
    }
}

fn missing_or(path: &Path, source: io::Error) -> Error {
    let path = path.to_path_buf();
    match (fs::read_link(&path), source.kind()) {
        (Ok(target), io::ErrorKind::NotFound) => Error::BrokenLink { path, target },
        (Ok(_), _) if source.kind() != io::ErrorKind::PermissionDenied => Error::SymbolicLinkLoop { path },
        (_, io::ErrorKind::NotFound) => Error::Missing { path },
        _ => Error::Read { path, source },
    }
}

#[cfg(unix)]
fn special_kind(file_type: FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt;
    if file_type.is_fifo() {
        Some("a pipe")
    } else if file_type.is_socket() {
        Some("a socket")
    } else if file_type.is_char_device() || file_type.is_block_device() {
        Some("a device")
    } else {
        None
    }
}

#[cfg(not(unix))]
fn special_kind(_: FileType) -> Option<&'static str> {
    None
}

fn canonical(path: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })
}

fn name_of(path: &Path) -> Result<String, Error> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| Error::NameNotUtf8 { path: path.to_path_buf() })?;
    if name.contains(char::is_control) {
        return Err(Error::NameWithControl { path: path.to_path_buf() });
    }
    Ok(name.to_string())
}
