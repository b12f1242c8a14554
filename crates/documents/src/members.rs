//! A compressed file as the sequence of its members (gzip) or frames (zstd), so that damage to one costs no other.
//!
//! WARC files are compressed record by record. When a member turns out damaged, [`Members::resume`] looks for the next
//! place that carries the format's magic number *and* unpacks to the beginning of a record, starting just after the
//! head of the damaged one, because a decoder that lost its way may have run over the next heads already.
//!
//! Sources: RFC 1952 (gzip), RFC 8878 (zstd), and for the dictionary at the head of a `.warc.zst` the IIPC's "Using
//! Zstandard with WARC files" 1.0: a skippable frame 0x184D2A5D with the dictionary, itself compressed or not.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use zstd::stream::raw::{InBuffer, Operation, OutBuffer};

use crate::decompress::{Compression, check_ratio};
use crate::source::Source;

const BUFFER_BYTES: usize = 1 << 17;

/// No published dictionary comes near; what is larger is a mistake or a trap.
const DICTIONARY_LIMIT_BYTES: u64 = 16 << 20;
const DICTIONARY_FRAME: [u8; 4] = 0x184D_2A5D_u32.to_le_bytes();
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
const GZIP_MAGIC: [u8; 3] = [0x1F, 0x8B, 0x08];

/// How a member must begin to be taken for one when the one before it is damaged.
const RECORD_HEAD: &[u8] = b"WARC/1.";

/// A stream of unpacked bytes that never mixes two members in one buffer.
pub struct Members {
    codec: Codec,
    /// Offset in the file where the current member begins.
    member_start: u64,
    /// Bytes of the current member unpacked so far.
    member_unpacked: u64,
    buffer: Box<[u8]>,
    begin: usize,
    end: usize,
}

/// A place in the unpacked stream.
pub struct Mark {
    member_start: u64,
    unpacked: u64,
}

enum Codec {
    Plain(Source),
    /// `None` only while a decoder is exchanged.
    Gzip(Option<GzipState>),
    Zstd(Box<ZstdState>),
}

enum GzipState {
    Between(Source),
    Inside(Box<GzDecoder<Source>>),
}

struct ZstdState {
    source: Source,
    decoder: zstd::stream::raw::Decoder<'static>,
    inside: bool,
}

impl Members {
    /// The error is about a dictionary that cannot be read.
    pub fn new(mut source: Source, compression: Compression) -> io::Result<Members> {
        let codec = match compression {
            Compression::None => Codec::Plain(source),
            Compression::Gzip => Codec::Gzip(Some(GzipState::Between(source))),
            Compression::Zstd => {
                let dictionary = read_dictionary(&mut source)?;
                let decoder = zstd::stream::raw::Decoder::with_dictionary(&dictionary)?;
                Codec::Zstd(Box::new(ZstdState { source, decoder, inside: false }))
            }
        };
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        let mut members = Members { codec, member_start: 0, member_unpacked: 0, buffer, begin: 0, end: 0 };
        members.member_start = members.offset();
        Ok(members)
    }

    /// Offset in the file where the current member begins; in an uncompressed file, where the reader stands.
    pub fn member_start(&self) -> u64 {
        match &self.codec {
            Codec::Plain(source) => source.offset() - (self.end - self.begin) as u64,
            _ => self.member_start,
        }
    }

    /// Whether the next byte is the first of a member.
    pub fn at_member_start(&self) -> bool {
        !matches!(self.codec, Codec::Plain(_)) && self.member_unpacked == (self.end - self.begin) as u64
    }

    /// Where the reader stands, to come back to.
    pub fn mark(&self) -> Mark {
        let held = (self.end - self.begin) as u64;
        Mark { member_start: self.member_start(), unpacked: self.member_unpacked.saturating_sub(held) }
    }

    /// Comes back to where [`Members::mark`] was: unpacks the member again up to there.
    pub fn rewind(&mut self, mark: &Mark) -> io::Result<()> {
        (self.begin, self.end) = (0, 0);
        self.restart(mark.member_start)?;
        let mut rest = mark.unpacked;
        while rest > 0 {
            let bytes = self.fill()?.len();
            if bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let passed = bytes.min(usize::try_from(rest).unwrap_or(usize::MAX));
            self.consume(passed);
            rest -= passed as u64;
        }
        Ok(())
    }

    /// The next bytes, none at the end of the file. An error is damage (see [`Members::resume`]) or a failing disk.
    pub fn fill(&mut self) -> io::Result<&[u8]> {
        if self.begin == self.end {
            self.begin = 0;
            self.end = 0;
            self.end = self.unpack(0)?;
        }
        Ok(&self.buffer[self.begin..self.end])
    }

    pub fn consume(&mut self, amount: usize) {
        debug_assert!(amount <= self.end - self.begin);
        self.begin += amount;
    }

    /// After damage: goes to the next member that begins like a record; its offset, or `None` where there is no other.
    pub fn resume(&mut self) -> io::Result<Option<u64>> {
        (self.begin, self.end) = (0, 0);
        let mut from = self.member_start + 1;
        loop {
            self.restart(from)?;
            let magic: &[u8] = match &self.codec {
                Codec::Plain(_) => return Ok(None),
                Codec::Gzip(_) => &GZIP_MAGIC,
                Codec::Zstd(_) => &ZSTD_MAGIC,
            };
            if !find(self.source(), magic)? {
                return Ok(None);
            }
            self.member_start = self.offset();
            if self.begins_like_a_record()? {
                return Ok(Some(self.member_start));
            }
            (self.begin, self.end) = (0, 0);
            from = self.member_start + 1;
        }
    }

    /// Unpacks the head of the member without giving anything out.
    fn begins_like_a_record(&mut self) -> io::Result<bool> {
        while self.end < RECORD_HEAD.len() {
            match self.unpack(self.end) {
                Ok(0) => return Ok(false),
                Ok(more) => self.end += more,
                Err(error) if is_disk_failure(&error) => return Err(error),
                Err(_) => return Ok(false),
            }
        }
        Ok(self.buffer.starts_with(RECORD_HEAD))
    }

    fn offset(&mut self) -> u64 {
        self.source().offset()
    }

    fn source(&mut self) -> &mut Source {
        match &mut self.codec {
            Codec::Plain(source) => source,
            Codec::Gzip(Some(GzipState::Between(source))) => source,
            Codec::Gzip(Some(GzipState::Inside(decoder))) => decoder.get_mut(),
            Codec::Gzip(None) => unreachable!("a decoder is exchanged within one call"),
            Codec::Zstd(state) => &mut state.source,
        }
    }

    /// Forgets the member at hand and stands between members at this offset of the file.
    fn restart(&mut self, offset: u64) -> io::Result<()> {
        self.member_unpacked = 0;
        match &mut self.codec {
            Codec::Plain(_) => {}
            Codec::Gzip(state) => {
                let source = match state.take() {
                    Some(GzipState::Inside(decoder)) => decoder.into_inner(),
                    Some(GzipState::Between(source)) => source,
                    None => unreachable!("a decoder is exchanged within one call"),
                };
                *state = Some(GzipState::Between(source));
            }
            Codec::Zstd(state) => {
                state.inside = false;
                state.decoder.reinit()?;
            }
        }
        self.source().seek(offset)
    }

    /// Fills the buffer from `begin` on with bytes of one member; 0 at the end of the file.
    fn unpack(&mut self, begin: usize) -> io::Result<usize> {
        let buffer = &mut self.buffer[begin..];
        let unpacked = match &mut self.codec {
            Codec::Plain(source) => return source.read(buffer),
            Codec::Gzip(state) => {
                unpack_gzip(state, buffer, &mut self.member_start, &mut self.member_unpacked)
            }
            Codec::Zstd(state) => {
                unpack_zstd(state, buffer, &mut self.member_start, &mut self.member_unpacked)
            }
        }?;
        self.member_unpacked += unpacked as u64;
        let packed = self.offset().saturating_sub(self.member_start);
        check_ratio(packed, self.member_unpacked)?;
        Ok(unpacked)
    }
}

fn unpack_gzip(
    state: &mut Option<GzipState>,
    buffer: &mut [u8],
    member_start: &mut u64,
    member_unpacked: &mut u64,
) -> io::Result<usize> {
    loop {
        match state.take() {
            Some(GzipState::Between(mut source)) => {
                let head = source.fill_buf();
                // Zeros after the last member are padding, to a block of a tape for instance.
                let ended = matches!(&head, Ok(head) if head.iter().all(|&byte| byte == 0));
                if head.is_err() || ended {
                    let result = head.map(|_| 0);
                    *state = Some(GzipState::Between(source));
                    return result;
                }
                *member_start = source.offset();
                *member_unpacked = 0;
                *state = Some(GzipState::Inside(Box::new(GzDecoder::new(source))));
            }
            Some(GzipState::Inside(mut decoder)) => {
                let read = decoder.read(buffer);
                if matches!(read, Ok(0)) {
                    *state = Some(GzipState::Between(decoder.into_inner()));
                    continue;
                }
                *state = Some(GzipState::Inside(decoder));
                return read;
            }
            None => unreachable!("a decoder is exchanged within one call"),
        }
    }
}

fn unpack_zstd(
    state: &mut ZstdState,
    buffer: &mut [u8],
    member_start: &mut u64,
    member_unpacked: &mut u64,
) -> io::Result<usize> {
    loop {
        if !state.inside {
            *member_start = state.source.offset();
            *member_unpacked = 0;
        }
        let input = state.source.fill_buf()?;
        let at_end = input.is_empty();
        if at_end && !state.inside {
            return Ok(0);
        }
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(buffer);
        let hint = state.decoder.run(&mut input, &mut output)?;
        let consumed = input.pos();
        state.source.consume(consumed);
        // A hint of 0 says that the frame is whole and flushed.
        state.inside = hint != 0;
        let unpacked = output.pos();
        if unpacked > 0 {
            return Ok(unpacked);
        }
        if at_end && state.inside {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The dictionary at the head of the file; empty where there is none.
fn read_dictionary(source: &mut Source) -> io::Result<Vec<u8>> {
    if !source.fill_buf()?.starts_with(&DICTIONARY_FRAME) {
        return Ok(Vec::new());
    }
    let mut head = [0; 8];
    source.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as u64;
    let too_long = |length: u64| {
        let detail = format!("its dictionary has {length} bytes, more than {DICTIONARY_LIMIT_BYTES}");
        io::Error::new(io::ErrorKind::InvalidData, detail)
    };
    if length > DICTIONARY_LIMIT_BYTES {
        return Err(too_long(length));
    }
    let mut dictionary = Vec::new();
    source.take(length).read_to_end(&mut dictionary)?;
    if (dictionary.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if !dictionary.starts_with(&ZSTD_MAGIC) {
        return Ok(dictionary);
    }
    let mut unpacked = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(&dictionary[..])?;
    decoder.take(DICTIONARY_LIMIT_BYTES + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > DICTIONARY_LIMIT_BYTES {
        return Err(too_long(unpacked.len() as u64));
    }
    Ok(unpacked)
}

/// Moves to the next occurrence of `magic`, or to the end of the file.
fn find(source: &mut Source, magic: &[u8]) -> io::Result<bool> {
    // The end of the buffer before, and where it began: a magic number may lie across two buffers.
    let mut tail: Vec<u8> = Vec::new();
    loop {
        let offset = source.offset();
        let buffered = source.fill_buf()?;
        if buffered.is_empty() {
            return Ok(false);
        }
        let tail_start = offset - tail.len() as u64;
        tail.extend(buffered.iter().take(magic.len() - 1));
        if let Some(skip) = memchr::memmem::find(&tail, magic) {
            source.seek(tail_start + skip as u64)?;
            return Ok(true);
        }
        let length = buffered.len();
        if let Some(skip) = memchr::memmem::find(buffered, magic) {
            source.consume(skip);
            return Ok(true);
        }
        match length < magic.len() {
            true => drop(tail.drain(..tail.len().saturating_sub(magic.len() - 1))),
            false => tail = buffered[length - (magic.len() - 1)..].to_vec(),
        }
        source.consume(length);
    }
}

/// Whether an error comes from the disk or the network, and not from what the bytes say.
pub fn is_disk_failure(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other
    )
}
