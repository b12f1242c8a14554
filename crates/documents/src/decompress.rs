//! A file as a stream of text bytes: plain, gzip (also of many members) or zstd (also of many frames), by its name.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::source::{self, Source};

const BUFFER_BYTES: usize = 1 << 18;

/// A stream that grows beyond both of these is a bomb: prose shrinks to a third or a tenth, the same page over and over
/// to a few hundredths of a percent.
const BOMB_BYTES: u64 = 256 << 20;
const BOMB_RATIO: u64 = 5_000;

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
    let source = source::open(path)?;
    let consumed = source.progress();
    let stream =
        stream_of(source, compression).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    Ok(OpenFile { stream, consumed })
}

/// The decompressed stream of a source.
pub fn stream_of(source: Source, compression: Compression) -> io::Result<Box<dyn BufRead + Send>> {
    let consumed = source.progress();
    Ok(match compression {
        Compression::None => Box::new(source),
        Compression::Gzip => guarded(flate2::bufread::MultiGzDecoder::new(source), consumed),
        Compression::Zstd => guarded(zstd::stream::read::Decoder::with_buffer(source)?, consumed),
    })
}

fn guarded(decoder: impl Read + Send + 'static, consumed: Arc<AtomicU64>) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, Guarded { decoder, consumed, unpacked: 0 }))
}

/// Stops a stream that unpacks without end. Memory is bounded without it, because records have a limit; time is not.
struct Guarded<R> {
    decoder: R,
    consumed: Arc<AtomicU64>,
    unpacked: u64,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.unpacked += read as u64;
        check_ratio(self.consumed.load(Ordering::Relaxed), self.unpacked)?;
        Ok(read)
    }
}

/// An error where so many bytes came out of so few that no text explains it.
pub fn check_ratio(packed: u64, unpacked: u64) -> io::Result<()> {
    if unpacked > BOMB_BYTES && unpacked / BOMB_RATIO > packed {
        let detail = format!("{packed} bytes unpack to more than {unpacked}: a decompression bomb");
        return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
    }
    Ok(())
}
