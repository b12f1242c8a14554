//! Lines of a stream, each at most so many bytes in memory, each with its number and byte offset.
//!
//! A line without an end (a 1 GB line, a binary file that calls itself `.jsonl`) is skipped to its end without being
//! held; what is left of it is its length.

use std::io::{self, BufRead, Read};

/// A line as it stands in the stream, without its line end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Bytes(Vec<u8>),
    /// Longer than the limit; only its length is known.
    TooLong {
        length_bytes: u64,
    },
}

/// A line with its place: number from 1, byte offset of its first byte in the (decompressed) stream from 0.
#[derive(Debug, PartialEq, Eq)]
pub struct PlacedLine {
    pub number: u64,
    pub offset: u64,
    pub line: Line,
}

pub struct LineReader<R> {
    stream: R,
    limit_bytes: usize,
    lines: u64,
    offset: u64,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl<R: BufRead> LineReader<R> {
    pub fn new(stream: R, limit_bytes: usize) -> LineReader<R> {
        LineReader { stream, limit_bytes, lines: 0, offset: 0 }
    }

    /// Lines read so far, and bytes of the decompressed stream.
    pub fn position(&self) -> (u64, u64) {
        (self.lines, self.offset)
    }

    /// The next line; a byte order mark at the head, and LF or CRLF at the end, are taken off.
    pub fn next_line(&mut self) -> io::Result<Option<PlacedLine>> {
        let mut bytes = Vec::new();
        // Two more bytes than the limit: room for the line end, so that a line of just the limit passes.
        let window = self.limit_bytes as u64 + 2;
        let read = (&mut self.stream).take(window).read_until(b'\n', &mut bytes)? as u64;
        if read == 0 {
            return Ok(None);
        }
        let mut offset = self.offset;
        self.lines += 1;
        self.offset += read;
        let mut length = read;
        if bytes.last() != Some(&b'\n') && read == window {
            length += self.skip_to_line_end()?;
        } else {
            trim_line_end(&mut bytes);
            length = bytes.len() as u64;
        }
        if offset == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
            offset = BYTE_ORDER_MARK.len() as u64;
            length -= offset;
        }
        let line = match length > self.limit_bytes as u64 {
            true => Line::TooLong { length_bytes: length },
            false => Line::Bytes(bytes),
        };
        Ok(Some(PlacedLine { number: self.lines, offset, line }))
    }

    /// The rest of the stream as one text, up to the limit; `None` at the end of the stream.
    pub fn next_rest(&mut self) -> io::Result<Option<PlacedLine>> {
        let mut bytes = Vec::new();
        let window = self.limit_bytes as u64 + BYTE_ORDER_MARK.len() as u64 + 1;
        let read = (&mut self.stream).take(window).read_to_end(&mut bytes)? as u64;
        if read == 0 {
            return Ok(None);
        }
        let mut offset = self.offset;
        self.offset += read;
        if read == window {
            self.offset += io::copy(&mut self.stream, &mut io::sink())?;
        }
        let mut length = self.offset - offset;
        let number = self.lines + 1;
        self.lines += bytes.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1;
        if offset == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
            offset = BYTE_ORDER_MARK.len() as u64;
            length -= offset;
        }
        let line = match length > self.limit_bytes as u64 {
            true => Line::TooLong { length_bytes: length },
            false => Line::Bytes(bytes),
        };
        Ok(Some(PlacedLine { number, offset, line }))
    }

    /// Bytes up to the next line end, which is consumed but not counted.
    fn skip_to_line_end(&mut self) -> io::Result<u64> {
        const CHUNK_BYTES: u64 = 1 << 16;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES as usize);
        let mut skipped = 0;
        loop {
            chunk.clear();
            let read = (&mut self.stream).take(CHUNK_BYTES).read_until(b'\n', &mut chunk)? as u64;
            self.offset += read;
            if chunk.last() == Some(&b'\n') {
                return Ok(skipped + read - 1);
            }
            skipped += read;
            if read == 0 {
                return Ok(skipped);
            }
        }
    }
}

fn trim_line_end(bytes: &mut Vec<u8>) {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], limit: usize, expected: &[(u64, u64, Result<&str, u64>)]) {
        let mut reader = LineReader::new(input, limit);
        let mut found = Vec::new();
        while let Some(PlacedLine { number, offset, line }) = reader.next_line().unwrap() {
            found.push((
                number,
                offset,
                match line {
                    Line::Bytes(bytes) => Ok(String::from_utf8(bytes).unwrap()),
                    Line::TooLong { length_bytes } => Err(length_bytes),
                },
            ));
        }
        let expected: Vec<_> = expected.iter().map(|(n, o, line)| (*n, *o, line.map(String::from))).collect();
        assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(input));
        assert_eq!(reader.position().1, input.len() as u64);
    }

    #[test]
    fn lines_have_places() {
        check(b"", 9, &[]);
        check(b"a\nbc\n", 9, &[(1, 0, Ok("a")), (2, 2, Ok("bc"))]);
        check(b"a\r\n\r\nb", 9, &[(1, 0, Ok("a")), (2, 3, Ok("")), (3, 5, Ok("b"))]);
        check(b"\xEF\xBB\xBFa\nb", 9, &[(1, 3, Ok("a")), (2, 5, Ok("b"))]);
    }

    #[test]
    fn the_limit_holds_exactly() {
        check(b"abc\nd", 3, &[(1, 0, Ok("abc")), (2, 4, Ok("d"))]);
        check(b"abc\r\nd", 3, &[(1, 0, Ok("abc")), (2, 5, Ok("d"))]);
        check(b"abcd\nd", 3, &[(1, 0, Err(4)), (2, 5, Ok("d"))]);
        check(b"abcdefgh\nd", 3, &[(1, 0, Err(8)), (2, 9, Ok("d"))]);
        check(b"abcdefgh", 3, &[(1, 0, Err(8))]);
    }

    #[test]
    fn a_huge_line_is_skipped_without_being_held() {
        let mut stream = io::BufReader::new(io::repeat(b'x').take(300 << 20).chain(&b"\nnext\n"[..]));
        let mut reader = LineReader::new(&mut stream, 1 << 20);
        let first = reader.next_line().unwrap().unwrap();
        assert_eq!(first.line, Line::TooLong { length_bytes: 300 << 20 });
        assert_eq!(reader.next_line().unwrap().unwrap().line, Line::Bytes(b"next".to_vec()));
    }

    #[test]
    fn the_rest_is_one_text() {
        let mut reader = LineReader::new(&b"\xEF\xBB\xBFa\nb\n"[..], 5);
        assert_eq!(reader.next_rest().unwrap().unwrap().line, Line::Bytes(b"a\nb\n".to_vec()));
        assert_eq!(reader.next_rest().unwrap(), None);
        let mut reader = LineReader::new(&b"abcdefghijkl"[..], 5);
        assert_eq!(reader.next_rest().unwrap().unwrap().line, Line::TooLong { length_bytes: 12 });
    }
}
