//! The records of a WARC file (ISO 28500:2017, WARC 1.0 and 1.1; WET files are WARC files of `conversion` records).
//!
//! Crawls are large, and some bytes of a large thing are always wrong. A record whose frame does not hold (a wrong
//! `Content-Length`, a head that is none, a damaged member) is a bad record with its place, and reading goes on at the
//! next `WARC/1.` that stands where a record may begin. Only records that can become documents are given out: responses
//! with status 2xx and `resource` and `conversion` records, of text; and every `robots.txt`, whatever its status.

use std::io;
use std::sync::Arc;

use crate::decompress::Compression;
use crate::members::{Members, is_disk_failure};
use crate::reader::{Place, Problem, RawContent, RawRecord, ReadOptions};
use crate::source::Source;
use crate::web_record::{WebRecord, is_wanted};

/// No head of a record comes near; what is longer is not a head.
const HEAD_LIMIT_BYTES: usize = 1 << 18;
/// A file is read again from a record that lied about its length so many times; one made to waste time has more.
const REWIND_LIMIT: u32 = 3;
const VERSION: &[u8] = b"WARC/1.";

/// The records of one file.
pub struct WarcInput {
    name: Arc<str>,
    members: Members,
    options: ReadOptions,
    /// Bytes that a record with a wrong length had swallowed: read again before the members.
    pushed_back: Vec<u8>,
    /// How many of them were read.
    pushed_back_read: usize,
    /// How often the reader came back from the end of the file.
    rewinds: u32,
    /// Damage that the search for a record met: the next thing to report.
    damage: Option<io::Error>,
    /// Offset in the unpacked stream of the next byte.
    offset: u64,
    /// `isPartOf` of the last `warcinfo` record: the name of the crawl.
    collection: Option<Arc<str>>,
}

/// Why a record ended here.
enum Fault {
    /// The frame does not hold; the reader stands where it noticed.
    Frame(String),
    /// The bytes cannot be unpacked, or not be read.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl WarcInput {
    pub fn new(
        name: &str,
        source: Source,
        compression: Compression,
        options: ReadOptions,
    ) -> io::Result<WarcInput> {
        Ok(WarcInput {
            name: name.into(),
            members: Members::new(source, compression)?,
            options,
            pushed_back: Vec::new(),
            pushed_back_read: 0,
            rewinds: 0,
            damage: None,
            offset: 0,
            collection: None,
        })
    }

    /// Bytes of the unpacked stream read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record that may become a document, or a bad one; `number` is its own, from 1. An error is damage with
    /// nothing behind it, or a failing disk.
    pub fn next_record(&mut self, number: u64) -> io::Result<Option<RawRecord>> {
        loop {
            let start = self.offset;
            let member = self.members.member_start();
            let read = match self.damage.take() {
                Some(error) => Err(Fault::Io(error)),
                None => self.read_one(),
            };
            let (offset, content) = match read {
                Ok(None) => return Ok(None),
                Ok(Some((_, None))) => continue,
                Ok(Some((offset, Some(content)))) => (offset, content),
                Err(Fault::Frame(message)) => {
                    self.damage = self.find_record().err();
                    (start, RawContent::Bad(Problem::NotARecord { message }))
                }
                Err(Fault::Io(error)) => (start, RawContent::Bad(self.recover(member, error)?)),
            };
            let place = Place { file: self.name.clone(), line: number, offset };
            return Ok(Some(RawRecord { place, content }));
        }
    }

    /// Goes on behind damage, or hands the error on where there is nothing to go on with.
    fn recover(&mut self, member: u64, error: io::Error) -> io::Result<Problem> {
        if is_disk_failure(&error) {
            return Err(error);
        }
        // The member where the damage is may be a later one than that where the record began.
        let from = member.max(self.members.member_start());
        self.pushed_back.clear();
        self.pushed_back_read = 0;
        match self.members.resume()? {
            Some(to) => Ok(Problem::Damaged { from, to, detail: error.to_string() }),
            None => Err(error),
        }
    }

    /// One record: its offset, and its content where somebody wants it.
    fn read_one(&mut self) -> Result<Option<(u64, Option<RawContent>)>, Fault> {
        if self.skip_line_ends()?.is_none() {
            return Ok(None);
        }
        let start = self.offset;
        let member = self.members.member_start();
        let heads_member = self.members.at_member_start();
        let Some(head) = self.read_head()? else {
            return Err(Fault::Frame("expected a record that begins with \"WARC/1.\"".to_string()));
        };
        let mut record = WebRecord::from_head(&head);
        let Some(length) = record.content_length else {
            return Err(Fault::Frame("its head has no Content-Length that is a number".to_string()));
        };
        let is_info = record.kind.eq_ignore_ascii_case("warcinfo");
        let held = (record.may_be_document() || is_info) && length <= self.options.record_limit_bytes as u64;
        let block = if held { self.read_block(length)? } else { self.skip_block(length)? };
        match self.check_end(length, block.as_deref()) {
            // Damage behind this record: in a later member, or in one that holds many records and says of none whether
            // it is whole.
            Err(Fault::Io(error)) if !heads_member || self.members.member_start() != member => {
                self.damage = Some(error);
            }
            result => result?,
        }
        let content = match block {
            Some(block) if is_info => {
                self.collection = collection_of(&block).map(Arc::from).or(self.collection.take());
                None
            }
            Some(block) => is_wanted(&record, &block).then(|| {
                record.block = block;
                record.collection = self.collection.clone();
                let limit_bytes = self.options.record_limit_bytes;
                RawContent::Web { record: Box::new(record), limit_bytes }
            }),
            None => record.may_be_document().then_some(RawContent::Bad(Problem::TooLong {
                length_bytes: length,
                limit_bytes: self.options.record_limit_bytes as u64,
            })),
        };
        Ok(Some((start, content)))
    }

    /// Passes over the line ends between records, and says how many there were; `None` where nothing follows. Asks for
    /// the byte behind them, and so lets the checksum of a member that ended be checked before its record counts.
    fn skip_line_ends(&mut self) -> io::Result<Option<usize>> {
        let mut line_ends = 0;
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            line_ends += memchr::memchr_iter(b'\n', &bytes[..blank]).count();
            let more = blank == bytes.len();
            self.consume(blank);
            if !more {
                return Ok(Some(line_ends));
            }
        }
    }

    /// The head without its version line; `None` where there is none.
    fn read_head(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        let mut head = Vec::new();
        loop {
            let begin = head.len();
            if !self.read_line(&mut head)? {
                if head.is_empty() || begin == 0 {
                    return Ok(None);
                }
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            if begin == 0 && !head.starts_with(VERSION) {
                return Ok(None);
            }
            if head.len() > HEAD_LIMIT_BYTES {
                return Err(Fault::Frame(format!("its head is longer than {HEAD_LIMIT_BYTES} bytes")));
            }
            if matches!(&head[begin..], b"\r\n" | b"\n") {
                return Ok(Some(head));
            }
        }
    }

    /// Appends a line with its end, or as much of it as a head may have; `false` where the stream ended before.
    fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        let begin = line.len();
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(false);
            }
            let end = memchr::memchr(b'\n', bytes).map(|end| end + 1);
            let taken = end.unwrap_or(bytes.len());
            line.extend_from_slice(&bytes[..taken]);
            self.consume(taken);
            // The first line tells whether this is a record at all: what is garbage is looked at only so far.
            let hopeless = begin == 0 && line.len() >= VERSION.len() && !line.starts_with(VERSION);
            if end.is_some() || hopeless || line.len() > HEAD_LIMIT_BYTES {
                return Ok(true);
            }
        }
    }

    /// The block; room is made as bytes arrive, not as the head promises.
    fn read_block(&mut self, length: u64) -> Result<Option<Vec<u8>>, Fault> {
        let mut block = Vec::with_capacity(length.min(1 << 16) as usize);
        self.take_block(length, |bytes| block.extend_from_slice(bytes))?;
        if (block.len() as u64) < length {
            return self.return_swallowed(length, &block).map(|()| None);
        }
        Ok(Some(block))
    }

    fn skip_block(&mut self, length: u64) -> Result<Option<Vec<u8>>, Fault> {
        let mark = (!self.has_pushed_back()).then(|| self.members.mark());
        let mut skipped = 0;
        self.take_block(length, |bytes| skipped += bytes.len() as u64)?;
        if skipped == length {
            return Ok(None);
        }
        // A length beyond the end of the file may have led past all its records.
        if let Some(mark) = mark
            && self.fill()?.is_empty()
            && self.rewinds < REWIND_LIMIT
        {
            self.rewinds += 1;
            self.members.rewind(&mark)?;
            self.offset -= skipped;
        }
        self.return_swallowed(length, &[]).map(|()| None)
    }

    /// Takes `length` bytes, or fewer where the stream ends or the next member begins like a record.
    fn take_block(&mut self, length: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let mut rest = length;
        while rest > 0 {
            let at_member_start = !self.has_pushed_back() && {
                self.members.fill()?;
                self.members.at_member_start()
            };
            let bytes = self.fill()?;
            if bytes.is_empty() || (at_member_start && bytes.starts_with(VERSION)) {
                return Ok(());
            }
            let taken = bytes.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
            take(&bytes[..taken]);
            self.consume(taken);
            rest -= taken as u64;
        }
        Ok(())
    }

    /// A record ends with two line ends; fewer are forgiven where another record or nothing follows.
    fn check_end(&mut self, length: u64, block: Option<&[u8]>) -> Result<(), Fault> {
        match self.skip_line_ends()? {
            None | Some(2..) => Ok(()),
            Some(_) if self.begins_like_a_record()? => Ok(()),
            Some(_) => self.return_swallowed(length, block.unwrap_or_default()),
        }
    }

    fn begins_like_a_record(&mut self) -> io::Result<bool> {
        Ok(self.peek(VERSION.len())?.starts_with(VERSION))
    }

    /// A block of the wrong length may hold the heads of the records behind it: it is put back, to be searched.
    fn return_swallowed(&mut self, length: u64, block: &[u8]) -> Result<(), Fault> {
        self.push_back(block);
        Err(Fault::Frame(format!("its Content-Length of {length} does not lead to the record's end")))
    }

    /// Goes to the next head of a record, or to the end of the stream.
    fn find_record(&mut self) -> io::Result<()> {
        let mut at_line_start = true;
        loop {
            let at_member_start = !self.has_pushed_back() && {
                self.members.fill()?;
                self.members.at_member_start()
            };
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(());
            }
            let candidate = memchr::memchr(VERSION[0], bytes);
            let passed = candidate.unwrap_or(bytes.len());
            at_line_start = match passed {
                0 => at_line_start || at_member_start,
                _ => bytes[passed - 1] == b'\n',
            };
            self.consume(passed);
            if candidate.is_none() {
                continue;
            }
            if is_head(&self.peek(HEAD_BEGIN_BYTES)?, at_line_start) {
                return Ok(());
            }
            self.consume(1);
            at_line_start = false;
        }
    }

    /// The next bytes, fewer at the end of the stream, without passing them.
    fn peek(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut peeked = Vec::with_capacity(length);
        while peeked.len() < length {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                break;
            }
            let taken = bytes.len().min(length - peeked.len());
            peeked.extend_from_slice(&bytes[..taken]);
            self.consume(taken);
        }
        self.push_back(&peeked);
        Ok(peeked)
    }

    fn has_pushed_back(&self) -> bool {
        self.pushed_back_read < self.pushed_back.len()
    }

    fn fill(&mut self) -> io::Result<&[u8]> {
        if self.has_pushed_back() {
            return Ok(&self.pushed_back[self.pushed_back_read..]);
        }
        self.members.fill()
    }

    fn consume(&mut self, amount: usize) {
        self.offset += amount as u64;
        match self.has_pushed_back() {
            true => self.pushed_back_read += amount,
            false => self.members.consume(amount),
        }
    }

    fn push_back(&mut self, bytes: &[u8]) {
        self.offset -= bytes.len() as u64;
        match self.pushed_back_read.checked_sub(bytes.len()) {
            Some(begin) => {
                self.pushed_back[begin..self.pushed_back_read].copy_from_slice(bytes);
                self.pushed_back_read = begin;
            }
            None => {
                self.pushed_back.splice(..self.pushed_back_read, bytes.iter().copied());
                self.pushed_back_read = 0;
            }
        }
    }
}

/// Enough of a head to know it in the middle of a line.
const HEAD_BEGIN_BYTES: usize = VERSION.len() + "0\r\nWARC-".len();

/// Whether a record may begin here: with its version at the head of a line, or, where the record before was cut off in
/// the middle of a line, with its version and its first field.
fn is_head(bytes: &[u8], at_line_start: bool) -> bool {
    let Some(rest) = bytes.strip_prefix(VERSION) else { return false };
    let field = rest.get(1..).unwrap_or_default();
    at_line_start || field.starts_with(b"\r\nWARC-") || field.starts_with(b"\nWARC-")
}

/// The name of the crawl in a `warcinfo` block (`application/warc-fields`).
fn collection_of(block: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(block);
    let named = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.trim().eq_ignore_ascii_case("isPartOf").then(|| value.trim().to_string())
    });
    named.filter(|name| !name.is_empty())
}
