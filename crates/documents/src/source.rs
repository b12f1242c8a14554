//! The bytes of an input as they stand, before decompression.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
#[cfg(feature = "remote")]
use crate::remote::{RemoteObject, RemoteStream};

/// A large buffer: shards are read from network file systems too, where a request costs more than its bytes.
const BUFFER_BYTES: usize = 1 << 18;

/// An open input, which knows how far it was read.
pub struct Source {
    reader: BufReader<Counted>,
    read: Arc<AtomicU64>,
}

/// Opens a regular file or a remote object that is not empty.
pub fn open(path: &Path) -> Result<Source, Error> {
    let empty = || Error::EmptyFile { path: shown(path) };
    let origin = if is_remote(path) {
        open_remote(path)?
    } else {
        let file = open_file(path)?;
        let metadata = file.metadata().map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        if metadata.len() == 0 {
            return Err(empty());
        }
        Origin::File(file)
    };
    #[cfg(feature = "remote")]
    if matches!(&origin, Origin::Remote { object, .. } if object.length == 0) {
        return Err(empty());
    }
    let read = Arc::new(AtomicU64::new(0));
    let counted = Counted { origin, read: read.clone() };
    Ok(Source { reader: BufReader::with_capacity(BUFFER_BYTES, counted), read })
}

#[cfg(feature = "remote")]
fn open_remote(path: &Path) -> Result<Origin, Error> {
    let object = crate::remote::open(path)?;
    let stream = object.stream(0);
    Ok(Origin::Remote { object, stream })
}

#[cfg(not(feature = "remote"))]
fn open_remote(path: &Path) -> Result<Origin, Error> {
    Err(Error::NoRemote { path: shown(path) })
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
        let buffered = self.reader.buffer().len();
        self.reader.consume(buffered);
        self.reader.get_mut().seek(offset)
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
    origin: Origin,
    read: Arc<AtomicU64>,
}

enum Origin {
    File(File),
    #[cfg(feature = "remote")]
    Remote {
        object: RemoteObject,
        stream: RemoteStream,
    },
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.origin {
            Origin::File(file) => file.read(buffer)?,
            #[cfg(feature = "remote")]
            Origin::Remote { stream, .. } => stream.read(buffer)?,
        };
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Counted {
    fn seek(&mut self, offset: u64) -> io::Result<()> {
        match &mut self.origin {
            Origin::File(file) => drop(file.seek(SeekFrom::Start(offset))?),
            #[cfg(feature = "remote")]
            Origin::Remote { object, stream } => *stream = object.stream(offset),
        }
        self.read.store(offset, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether an input is the address of a remote object and not a path.
pub fn is_remote(path: &Path) -> bool {
    path.to_str()
        .is_some_and(|text| ["https://", "http://", "s3://"].iter().any(|scheme| text.starts_with(scheme)))
}

/// A path as it is; an address without its query, where signatures stand.
pub fn shown(path: &Path) -> PathBuf {
    match path.to_str().filter(|_| is_remote(path)).and_then(|text| text.split_once('?')) {
        Some((address, _)) => PathBuf::from(address),
        None => path.to_path_buf(),
    }
}
