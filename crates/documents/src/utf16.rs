//! UTF-16 files, known by their byte order mark, as the stream of UTF-8 that all else expects.

use std::io::{self, BufRead, Read};

use encoding_rs::{CoderResult, Decoder, Encoding, UTF_16BE, UTF_16LE};

/// The stream itself, or what it says in UTF-8 where it begins with the byte order mark of UTF-16. What is no UTF-16
/// comes out as U+FFFD.
pub fn as_utf8(mut stream: Box<dyn BufRead + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let encoding = match stream.fill_buf()? {
        [0xFF, 0xFE, ..] => UTF_16LE,
        [0xFE, 0xFF, ..] => UTF_16BE,
        _ => return Ok(stream),
    };
    Ok(Box::new(Transcoder::new(stream, encoding)))
}

struct Transcoder {
    stream: Box<dyn BufRead + Send>,
    decoder: Decoder,
    text: Box<[u8]>,
    begin: usize,
    end: usize,
    ended: bool,
}

impl Transcoder {
    fn new(stream: Box<dyn BufRead + Send>, encoding: &'static Encoding) -> Transcoder {
        let decoder = encoding.new_decoder_with_bom_removal();
        Transcoder { stream, decoder, text: vec![0; 1 << 16].into(), begin: 0, end: 0, ended: false }
    }
}

impl BufRead for Transcoder {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.begin == self.end && !self.ended {
            let bytes = self.stream.fill_buf()?;
            let last = bytes.is_empty();
            let (result, read, written, _) = self.decoder.decode_to_utf8(bytes, &mut self.text, last);
            self.stream.consume(read);
            (self.begin, self.end) = (0, written);
            self.ended = last && result == CoderResult::InputEmpty;
        }
        Ok(&self.text[self.begin..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.begin += amount;
    }
}

impl Read for Transcoder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let held = self.fill_buf()?;
        let read = held.len().min(buffer.len());
        buffer[..read].copy_from_slice(&held[..read]);
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_byte_orders_are_read() {
        let text = "Šodien līst. Σήμερα βρέχει. 𝄞".repeat(9_000);
        let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in
            [[&[0xFF, 0xFE], &little[..]].concat(), [&[0xFE, 0xFF], &big[..]].concat(), text.clone().into()]
        {
            let mut found = String::new();
            let stream = io::BufReader::with_capacity(7, io::Cursor::new(bytes));
            as_utf8(Box::new(stream)).unwrap().read_to_string(&mut found).unwrap();
            assert!(found == text);
        }
    }
}
