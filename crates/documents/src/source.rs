//! The bytes of an input as they stand, before decompression.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// A large buffer: shards are read from network file systems too, where a request costs more than its bytes.
const BUFFER_BYTES: usize = 1 << 18;

/// An open input, which knows how far it was read.
pub struct Source {
    reader: BufReader<Counted>,
    read: Arc<AtomicU64>,
}

/// Opens a regular file that is not empty.
pub fn open(path: &Path) -> Result<Source, Error> {
    let read_error = |source| Error::Read { path: path.to_path_buf(), source };
    let file = open_file(path)?;
    if file.metadata().map_err(read_error)?.len() == 0 {
        return Err(Error::EmptyFile { path: path.to_path_buf() });
    }
    let read = Arc::new(AtomicU64::new(0));
    let counted = Counted { file, read: read.clone() };
    Ok(Source { reader: BufReader::with_capacity(BUFFER_BYTES, counted), read })
}

/// Opens a file, not a folder.
pub fn open_file(path: &Path) -> Result<File, Error> {
    let read_error = |source| Error::Read { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path: path.to_path_buf() },
        _ => read_error(source),
    })?;
    if file.metadata().map_err(read_error)?.is_dir() {
        return Err(Error::FolderForFile { path: path.to_path_buf() });
    }
    Ok(file)
}

impl Source {
    /// Bytes fetched so far, shared: what a progress bar shows. Runs ahead of [`Source::offset`] by the buffer.
    pub fn progress(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }

    /// The offset in the file of the next byte that is given out.
    pub fn offset(&self) -> u64 {
        self.read.load(Ordering::Relaxed) - self.reader.buffer().len() as u64
    }

    /// Goes on from another offset.
    pub fn seek(&mut self, offset: u64) -> io::Result<()> {
        let ahead = offset.wrapping_sub(self.offset());
        if ahead <= self.reader.buffer().len() as u64 {
            self.reader.consume(ahead as usize);
            return Ok(());
        }
        self.reader.seek(SeekFrom::Start(offset)).map(drop)
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
    }
}

struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Seek for Counted {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let offset = self.file.seek(position)?;
        self.read.store(offset, Ordering::Relaxed);
        Ok(offset)
    }
}
