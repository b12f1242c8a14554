//! A file as a stream of text bytes: plain, gzip (also of many members) or zstd (also of many frames), by its name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// A large buffer: shards are read from network file systems too, where a request costs more than its bytes.
const BUFFER_BYTES: usize = 1 << 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The decompressed stream, and how many bytes of the file have been consumed (for the place of damage).
pub struct OpenFile {
    pub stream: Box<dyn BufRead + Send>,
    pub consumed: Arc<AtomicU64>,
}

/// Opens a regular file that is not empty.
pub fn open(path: &Path, compression: Compression) -> Result<OpenFile, Error> {
    let read_error = |source| Error::Read { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.to_path_buf() },
        _ => read_error(source),
    })?;
    let metadata = file.metadata().map_err(read_error)?;
    if metadata.is_dir() {
        return Err(Error::FolderForFile { path: path.to_path_buf() });
    }
    if metadata.len() == 0 {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    let consumed = Arc::new(AtomicU64::new(0));
    let counted = BufReader::with_capacity(BUFFER_BYTES, Counted { file, consumed: consumed.clone() });
    let stream: Box<dyn BufRead + Send> = match compression {
        Compression::None => Box::new(counted),
        Compression::Gzip => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(counted)))
        }
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(counted).map_err(read_error)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
    };
    Ok(OpenFile { stream, consumed })
}

struct Counted {
    file: File,
    consumed: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.consumed.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
