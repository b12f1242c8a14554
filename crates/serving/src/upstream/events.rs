//! Server-sent events of an engine's stream, put together from pieces as they arrive (WHATWG HTML, 9.2).

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadStream {
    /// An event has more bytes than the limit.
    TooLarge,
    NotUtf8,
}

/// Takes bytes in and gives the data of whole events out.
pub struct Events {
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to here no line end was found.
    searched: usize,
    /// Data of the event that has begun.
    data: Vec<u8>,
    has_data: bool,
    limit: usize,
}

impl Events {
    /// No event may have more than `limit` bytes.
    pub fn new(limit: usize) -> Events {
        Events { buffer: Vec::new(), start: 0, searched: 0, data: Vec::new(), has_data: false, limit }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..self.start);
        }
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The data of the next whole event; `None` until more bytes come. Comments and other fields are passed over.
    pub fn next_event(&mut self) -> Result<Option<String>, BadStream> {
        while let Some(offset) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let end = self.searched + offset;
            let line = &self.buffer[self.start..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            (self.start, self.searched) = (end + 1, end + 1);
            if line.is_empty() {
                if std::mem::take(&mut self.has_data) {
                    let data = String::from_utf8(std::mem::take(&mut self.data));
                    return data.map(Some).map_err(|_| BadStream::NotUtf8);
                }
                continue;
            }
            let Some(value) = line.strip_prefix(b"data:") else { continue };
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            if self.data.len() > self.limit {
                return Err(BadStream::TooLarge);
            }
        }
        self.searched = self.buffer.len();
        if self.buffer.len() - self.start > self.limit {
            return Err(BadStream::TooLarge);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], piece: usize) -> Result<Vec<String>, BadStream> {
        let mut events = Events::new(64);
        let mut found = Vec::new();
        for piece in bytes.chunks(piece) {
            events.push(piece);
            while let Some(event) = events.next_event()? {
                found.push(event);
            }
        }
        Ok(found)
    }

    #[test]
    fn events_are_whole_however_they_arrive() {
        let stream = "data: {\"a\": 1}\n\n: comment\nevent: x\ndata:ζ\r\ndata: second\r\n\r\n\n\ndata: [DONE]\n\ndata: cut";
        for piece in [1, 2, 3, 7, 1000] {
            let found = read(stream.as_bytes(), piece).unwrap();
            assert_eq!(found, ["{\"a\": 1}", "ζ\nsecond", "[DONE]"]);
        }
    }

    #[test]
    fn nothing_grows_without_end() {
        for piece in [1, 50, 1000] {
            assert_eq!(read(&[b'a'; 200], piece), Err(BadStream::TooLarge));
            assert_eq!(read("data: 12345678\n".repeat(20).as_bytes(), piece), Err(BadStream::TooLarge));
            assert_eq!(read(b"data: \xFF\n\n", piece), Err(BadStream::NotUtf8));
        }
        assert_eq!(read(": 1234\n\n".repeat(100).as_bytes(), 3), Ok(Vec::new()));
    }
}
