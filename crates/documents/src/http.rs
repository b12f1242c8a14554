//! The answer of a web server as a crawler stored it: head, transfer coding, content coding.
//!
//! Crawlers disagree on what they store: some keep the bytes of the wire, some undo chunks and compression and leave the
//! head as it was. A body that does not look like what its head says is therefore taken as already undone.
//!
//! Source: RFC 9112 (HTTP/1.1 messages), RFC 9110 (content codings).

use std::borrow::Cow;
use std::io::{self, Read};

/// A response's status and headers.
pub struct Response<'a> {
    pub status: u16,
    headers: Vec<(&'a [u8], &'a [u8])>,
    pub body: &'a [u8],
}

/// What stands in the way of a body.
#[derive(Debug, PartialEq)]
pub enum BodyFault {
    /// More than the limit of bytes come out.
    TooLarge,
    /// The compressed bytes are damaged.
    Damaged(String),
}

/// A page of prose shrinks to a fifth, a table of zeros to a hundredth.
const UNPACKED_RATIO: usize = 300;
/// Below this, no ratio is suspicious.
const UNSUSPICIOUS_BYTES: usize = 4 << 20;

impl<'a> Response<'a> {
    /// `None` where the bytes do not begin like a response.
    pub fn parse(bytes: &'a [u8]) -> Option<Response<'a>> {
        let (status_line, mut rest) = line_of(bytes)?;
        let status_line = std::str::from_utf8(status_line).ok()?;
        if !status_line.starts_with("HTTP/") {
            return None;
        }
        let status = status_line.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        // A head without an end has no body.
        let mut body: &[u8] = &[];
        while let Some((line, after)) = line_of(rest) {
            rest = after;
            if line.is_empty() {
                body = after;
                break;
            }
            if let Some(colon) = memchr::memchr(b':', line) {
                headers.push((line[..colon].trim_ascii(), line[colon + 1..].trim_ascii()));
            }
        }
        Some(Response { status, headers, body })
    }

    /// Every value of a header, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
        let found = self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| String::from_utf8_lossy(value))
    }

    /// The first value of a header.
    pub fn first(&self, name: &str) -> Option<Cow<'a, str>> {
        self.all(name).next()
    }

    /// The body with transfer and content coding undone, at most `limit_bytes` of it. A body that the crawler cut off
    /// (`is_cut`) gives what can be had of it.
    pub fn body(&self, limit_bytes: usize, is_cut: bool) -> Result<Cow<'a, [u8]>, BodyFault> {
        let mut body = Cow::Borrowed(self.body);
        if has_token(self.all("transfer-encoding"), "chunked")
            && let Some(joined) = without_chunks(self.body)
        {
            body = Cow::Owned(joined);
        }
        let codings: Vec<String> = self
            .all("content-encoding")
            .flat_map(|value| tokens(&value))
            .filter(|coding| coding != "identity")
            .collect();
        for coding in codings.iter().rev() {
            match unpacked(&body, coding, limit_bytes, is_cut)? {
                Some(unpacked) => body = Cow::Owned(unpacked),
                None => break,
            }
        }
        Ok(body)
    }
}

/// A line without its end, and what follows; the last line needs no end.
fn line_of(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if bytes.is_empty() {
        return None;
    }
    let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    Some((line, &bytes[(end + 1).min(bytes.len())..]))
}

fn tokens(value: &str) -> Vec<String> {
    value
        .split(',')
        .map(|token| token.trim().to_ascii_lowercase())
        .filter(|token| !token.is_empty())
        .collect()
}

fn has_token<'a>(mut values: impl Iterator<Item = Cow<'a, str>>, token: &str) -> bool {
    values.any(|value| tokens(&value).iter().any(|found| found == token))
}

/// The chunks joined; `None` where the body has none, because the crawler joined them. Chunks that break off give what
/// came before.
fn without_chunks(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    let mut chunks = 0;
    loop {
        let size = line_of(bytes).and_then(|(line, rest)| Some((chunk_size(line)?, rest)));
        let Some((size, rest)) = size else { return (chunks > 0).then_some(joined) };
        if size == 0 {
            return Some(joined);
        }
        chunks += 1;
        joined.extend_from_slice(&rest[..size.min(rest.len())]);
        bytes = &rest[size.min(rest.len())..];
        bytes = bytes.strip_prefix(b"\r\n").or_else(|| bytes.strip_prefix(b"\n")).unwrap_or(bytes);
    }
}

fn chunk_size(line: &[u8]) -> Option<usize> {
    let digits = line.split(|&byte| byte == b';').next()?.trim_ascii();
    if digits.is_empty() || digits.len() > 15 {
        return None;
    }
    usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The bytes unpacked; `None` where they are not packed as `coding` says, or the coding is unknown.
fn unpacked(
    bytes: &[u8],
    coding: &str,
    limit_bytes: usize,
    is_cut: bool,
) -> Result<Option<Vec<u8>>, BodyFault> {
    let limit_bytes = limit_bytes.min((bytes.len().saturating_mul(UNPACKED_RATIO)).max(UNSUSPICIOUS_BYTES));
    let unpack = |reader: &mut dyn Read| read_limited(reader, limit_bytes, is_cut).map(Some);
    match coding {
        "gzip" | "x-gzip" if bytes.starts_with(&[0x1F, 0x8B]) => {
            unpack(&mut flate2::bufread::MultiGzDecoder::new(bytes))
        }
        "deflate" if is_zlib(bytes) => unpack(&mut flate2::bufread::ZlibDecoder::new(bytes)),
        // The name says zlib, but some servers send the bare stream.
        "deflate" if !looks_like_text(bytes) => unpack(&mut flate2::bufread::DeflateDecoder::new(bytes)),
        "zstd" if bytes.starts_with(&0xFD2F_B528_u32.to_le_bytes()) => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes)
                .map_err(|error| BodyFault::Damaged(error.to_string()))?;
            unpack(&mut decoder)
        }
        "br" if !looks_like_text(bytes) => {
            unpack(&mut brotli_decompressor::Decompressor::new(bytes, 1 << 14))
        }
        _ => Ok(None),
    }
}

fn is_zlib(bytes: &[u8]) -> bool {
    bytes.len() >= 2
        && bytes[0] & 0x0F == 8
        && (u16::from(bytes[0]) * 256 + u16::from(bytes[1])).is_multiple_of(31)
}

/// Formats without a magic number: whether these bytes are no compressed ones.
fn looks_like_text(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(64)];
    let control = |&byte: &u8| byte < 0x20 && !matches!(byte, b'\n' | b'\r' | b'\t');
    !head.iter().any(control) && std::str::from_utf8(head).is_ok_and(|head| !head.is_empty())
}

fn read_limited(reader: &mut dyn Read, limit_bytes: usize, is_cut: bool) -> Result<Vec<u8>, BodyFault> {
    let mut bytes = Vec::new();
    match reader.take(limit_bytes as u64 + 1).read_to_end(&mut bytes) {
        _ if bytes.len() > limit_bytes => Err(BodyFault::TooLarge),
        Ok(_) => Ok(bytes),
        Err(_) if is_cut && !bytes.is_empty() => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(BodyFault::Damaged("it ends in the middle".to_string()))
        }
        Err(error) => Err(BodyFault::Damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn body(head: &str, body: &[u8]) -> Result<Vec<u8>, BodyFault> {
        let bytes = [format!("HTTP/1.1 200 OK\r\n{head}\r\n").as_bytes(), body].concat();
        Response::parse(&bytes).unwrap().body(1 << 20, false).map(Cow::into_owned)
    }

    fn check(head: &str, packed: &[u8], expected: &str) {
        let found = body(head, packed).unwrap();
        assert_eq!(String::from_utf8_lossy(&found), expected, "{head}");
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn codings_are_undone() {
        let text = "Τα παιδιά παίζουν στην αυλή. Дъжд вали. Ġimgħa.";
        check("", text.as_bytes(), text);
        check("Content-Encoding: gzip\r\n", &gzip(text.as_bytes()), text);
        check("content-encoding : x-gzip\r\n", &gzip(text.as_bytes()), text);
        check("Content-Encoding: zstd\n", &zstd::encode_all(text.as_bytes(), 3).unwrap(), text);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(text.as_bytes()).unwrap();
        check("Content-Encoding: deflate\r\n", &zlib.finish().unwrap(), text);
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        bare.write_all(text.as_bytes()).unwrap();
        check("Content-Encoding: deflate\r\n", &bare.finish().unwrap(), text);
        check("Content-Encoding: gzip, gzip\r\n", &gzip(&gzip(text.as_bytes())), text);
        // What Google's encoder makes of it.
        let brotli =
            b"\x1bM\x00\xf8\x8d\xd4Q\x8d\xcb\xdd\xf4d\xa9~\xdd\x94\xf4\x94\x8c\x8a\x11B4\x8d\x18\xda\xda+\
            \xbc\x8a\x14\xd2,\x9b\x1b\x1e\x8f\xc03\x16=\xef\xa5 ";
        check("Content-Encoding: br\r\n", brotli, &"Dobrý deň, dnes prší. ".repeat(3));
    }

    #[test]
    fn chunks_are_joined() {
        check(
            "Transfer-Encoding: chunked\r\n",
            b"4\r\nFran\r\n6;x=1\r\n\xC3\xA7ais.\r\n0\r\n\r\n",
            "Français.",
        );
        check("Transfer-Encoding: chunked\r\n", b"4\r\nFran\r\nff\r\ncut", "Francut");
        check("Transfer-Encoding: chunked\r\n", b"<p>joined by the crawler", "<p>joined by the crawler");
    }

    #[test]
    fn what_the_crawler_undid_is_not_undone_again() {
        for coding in ["gzip", "deflate", "br", "zstd", "unheard-of"] {
            check(
                &format!("Content-Encoding: {coding}\r\n"),
                "<p>Sníh padá.</p>".as_bytes(),
                "<p>Sníh padá.</p>",
            );
        }
    }

    #[test]
    fn bombs_and_damage_are_refused() {
        let bomb = gzip(&vec![b' '; 50 << 20]);
        assert!(bomb.len() < 60_000);
        assert_eq!(body("Content-Encoding: gzip\r\n", &bomb), Err(BodyFault::TooLarge));
        let nested = gzip(&bomb);
        assert_eq!(body("Content-Encoding: gzip, gzip\r\n", &nested), Err(BodyFault::TooLarge));
        let text: String = (0..500).map(|day| format!("Vihma sajab {day}. päeval. ")).collect();
        let whole = gzip(text.as_bytes());
        let cut = [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", &whole[..whole.len() - 30]].concat();
        let response = Response::parse(&cut).unwrap();
        assert!(matches!(response.body(1 << 20, false), Err(BodyFault::Damaged(_))));
        assert!(
            response.body(1 << 20, true).unwrap().starts_with(b"Vihma"),
            "what was fetched before the cut"
        );
    }

    #[test]
    fn heads_are_read_as_servers_write_them() {
        let response = Response::parse(
            b"HTTP/1.0 404\nX-Robots-Tag: noai\r\nx-robots-tag:noindex\r\nbroken\r\n\r\nBody",
        )
        .unwrap();
        assert_eq!((response.status, response.body), (404, &b"Body"[..]));
        assert_eq!(response.all("X-Robots-Tag").collect::<Vec<_>>(), ["noai", "noindex"]);
        assert_eq!(Response::parse(b"HTTP/1.1 200 OK\r\nContent-Type: text/html").unwrap().body, b"");
        assert!(Response::parse(b"<html>").is_none() && Response::parse(b"").is_none());
    }
}
