//! Where the pages of a Parquet file come from: ranges of a file, or of a remote object by windows that are kept.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::error::Error;
use crate::source::{self, is_remote, shown};

/// Random access to the bytes of a file.
pub enum Chunks {
    File(File),
    #[cfg(feature = "remote")]
    Remote(RemoteWindows),
}

impl Chunks {
    pub fn open(path: &Path) -> Result<Chunks, Error> {
        if is_remote(path) {
            return open_remote(path);
        }
        let file = source::open_file(path)?;
        if file.len() == 0 {
            return Err(Error::EmptyFile { path: shown(path) });
        }
        Ok(Chunks::File(file))
    }
}

#[cfg(feature = "remote")]
fn open_remote(path: &Path) -> Result<Chunks, Error> {
    let object = crate::remote::open(path)?;
    if object.length == 0 {
        return Err(Error::EmptyFile { path: shown(path) });
    }
    Ok(Chunks::Remote(RemoteWindows { object, windows: Default::default() }))
}

#[cfg(not(feature = "remote"))]
fn open_remote(path: &Path) -> Result<Chunks, Error> {
    Err(Error::NoRemote { path: shown(path) })
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        match self {
            Chunks::File(file) => file.len(),
            #[cfg(feature = "remote")]
            Chunks::Remote(windows) => windows.object.length,
        }
    }
}

impl ChunkReader for Chunks {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Box<dyn Read>, ParquetError> {
        match self {
            Chunks::File(file) => Ok(Box::new(file.get_read(start)?)),
            #[cfg(feature = "remote")]
            Chunks::Remote(windows) => Ok(Box::new(io::Cursor::new(windows.from(start)?))),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        match self {
            Chunks::File(file) => file.get_bytes(start, length),
            #[cfg(feature = "remote")]
            Chunks::Remote(windows) => Ok(windows.get(start, length)?),
        }
    }
}

/// What an error of the library says as an error of reading: damage, where the disk or the network did not fail.
pub fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
        },
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    }
}

#[cfg(feature = "remote")]
pub use windows::RemoteWindows;

#[cfg(feature = "remote")]
mod windows {
    use std::io;
    use std::sync::Mutex;

    use bytes::Bytes;

    use crate::remote::RemoteObject;

    /// A request brings so many bytes at least: pages of a column are asked for one after the other.
    const WINDOW_BYTES: u64 = 2 << 20;
    /// One window for each column that is read, within 64 MiB.
    const WINDOWS: usize = 32;

    /// Parts of a remote object, the last used ones kept.
    pub struct RemoteWindows {
        pub object: RemoteObject,
        /// Offset and bytes, the last used at the end.
        pub windows: Mutex<Vec<(u64, Bytes)>>,
    }

    impl RemoteWindows {
        /// Some bytes from `start` on: to the end of a window.
        pub fn from(&self, start: u64) -> io::Result<Bytes> {
            self.window(start, 1)
        }

        pub fn get(&self, start: u64, length: usize) -> io::Result<Bytes> {
            let window = self.window(start, length as u64)?;
            match length <= window.len() {
                true => Ok(window.slice(..length)),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }

        /// The bytes from `start` on, at least `length` of them where the object has so many.
        fn window(&self, start: u64, length: u64) -> io::Result<Bytes> {
            let mut windows = self.windows.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let end = start.saturating_add(length);
            let found = windows
                .iter()
                .position(|(offset, bytes)| *offset <= start && end <= offset + bytes.len() as u64);
            if let Some(place) = found {
                let window = windows.remove(place);
                let rest = window.1.slice((start - window.0) as usize..);
                windows.push(window);
                return Ok(rest);
            }
            let fetch_end = end.max(start.saturating_add(WINDOW_BYTES)).min(self.object.length);
            if fetch_end <= start {
                return Ok(Bytes::new());
            }
            let bytes = self.object.range(start..fetch_end)?;
            if windows.len() == WINDOWS {
                windows.remove(0);
            }
            windows.push((start, bytes.clone()));
            Ok(bytes)
        }
    }
}
