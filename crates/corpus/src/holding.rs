//! Where documents wait between the phases: a file in the stage's scratch folder, read in order or at any place, so that
//! memory holds fingerprints and never the texts.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use documents::Document;
use provenance::{Storage, StoredFile};

use crate::error::Error;

const BUFFER_BYTES: usize = 1 << 20;

pub struct HoldingWriter {
    path: PathBuf,
    file: BufWriter<StoredFile>,
    /// Where each document begins, and where the next one will.
    starts: Vec<u64>,
}

impl HoldingWriter {
    /// Begins an empty file; what an interrupted run left there is gone.
    pub fn create(storage: &Storage, path: &Path) -> Result<HoldingWriter, Error> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, storage.create(path)?);
        Ok(HoldingWriter { path: path.to_path_buf(), file, starts: vec![0] })
    }

    pub fn push(&mut self, document: &Document) -> Result<(), Error> {
        let json = document.to_json();
        let start = self.starts[self.starts.len() - 1];
        let written = self.file.write_all(json.as_bytes());
        written.map_err(|source| documents::Error::Write { path: self.path.clone(), source })?;
        self.starts.push(start + json.len() as u64);
        Ok(())
    }

    pub fn finish(self) -> Result<Holding, Error> {
        let write_error = |source| documents::Error::Write { path: self.path.clone(), source };
        let file = self.file.into_inner().map_err(|error| write_error(error.into_error()))?;
        file.finish()?;
        let file =
            File::open(&self.path).map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(Holding { path: self.path, file, starts: self.starts })
    }
}

/// Documents by number, readable from many threads at once.
pub struct Holding {
    path: PathBuf,
    file: File,
    starts: Vec<u64>,
}

impl Holding {
    pub fn get(&self, index: usize) -> Result<Document, Error> {
        let (start, end) = (self.starts[index], self.starts[index + 1]);
        let mut bytes = vec![0; (end - start) as usize];
        let read_error = |source| Error::Read { path: self.path.clone(), source };
        read_at(&self.file, &mut bytes, start).map_err(read_error)?;
        std::str::from_utf8(&bytes)
            .map_err(|error| error.to_string())
            .and_then(|json| Document::from_json(json).map_err(|error| error.message))
            .map_err(|detail| read_error(std::io::Error::new(std::io::ErrorKind::InvalidData, detail)))
    }
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt;
    let mut done = 0;
    while done < bytes.len() {
        match file.seek_read(&mut bytes[done..], start + done as u64)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}
