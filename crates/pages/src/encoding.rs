//! Bytes to text: byte order mark, HTTP header, the page's own declaration, and statistics, in this order.
//!
//! Declarations are often wrong in one of two ways, and both can be told: a single-byte encoding is declared for bytes
//! that are UTF-8 throughout (letters beyond ASCII almost never form UTF-8 by chance), and UTF-8 for bytes that are not.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// How far into a page its declaration is looked for. The standard says 1,024; scripts in front of it push it back.
const DECLARATION_BYTES: usize = 8192;
/// How many bytes the statistics see.
const STATISTICS_BYTES: usize = 1 << 18;

/// The text, and the name of the encoding that it was read by.
pub fn decode<'a>(
    bytes: &'a [u8],
    content_type: Option<&str>,
    url: Option<&str>,
) -> (Cow<'a, str>, &'static str) {
    if let Some((encoding, length)) = Encoding::for_bom(bytes) {
        return (encoding.decode_without_bom_handling(&bytes[length..]).0, encoding.name());
    }
    let whole_letters = without_cut_letter(bytes);
    let checked = std::str::from_utf8(whole_letters);
    let is_utf8 = checked.is_ok();
    let declared =
        content_type.and_then(|header| charset_of(header.as_bytes())).or_else(|| declaration(bytes));
    let encoding = match declared {
        Some(encoding) if encoding.is_single_byte() && is_utf8 && !whole_letters.is_ascii() => UTF_8,
        Some(encoding) if encoding == UTF_8 && !is_utf8 && is_far_from_utf8(bytes) => guess(bytes, url),
        Some(encoding) => encoding,
        None if has_zero_bytes(bytes, 1) => UTF_16LE,
        None if has_zero_bytes(bytes, 0) => UTF_16BE,
        None if is_utf8 => UTF_8,
        None => guess(bytes, url),
    };
    if encoding == UTF_8
        && let Ok(text) = checked
        && whole_letters.len() == bytes.len()
    {
        return (Cow::Borrowed(text), encoding.name());
    }
    (encoding.decode_without_bom_handling(bytes).0, encoding.name())
}

fn guess(bytes: &[u8], url: Option<&str>) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    // Markup says nothing about the encoding; what is looked at first is the part that has letters beyond ASCII.
    let start = bytes.iter().position(|byte| !byte.is_ascii()).unwrap_or(0).saturating_sub(64);
    detector.feed(&bytes[start..bytes.len().min(start + STATISTICS_BYTES)], true);
    let domain = url.and_then(top_level_domain);
    detector.guess(domain.as_deref().map(str::as_bytes), Utf8Detection::Deny)
}

/// The last label of the host, if it is one that the detector takes.
fn top_level_domain(url: &str) -> Option<String> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.split(':').next()?.trim_end_matches('.');
    let label = host.rsplit('.').next()?.to_lowercase();
    (!label.is_empty() && label.bytes().all(|byte| byte.is_ascii_lowercase())).then_some(label)
}

/// The encoding named behind `charset=`.
fn charset_of(value: &[u8]) -> Option<&'static Encoding> {
    let value = value.to_ascii_lowercase();
    let mut rest = &value[..];
    while let Some(place) = find(rest, b"charset") {
        rest = rest[place + 7..].trim_ascii_start();
        if let Some(label) = rest.strip_prefix(b"=") {
            let label = label.trim_ascii_start();
            let label = label.strip_prefix(b"\"").or_else(|| label.strip_prefix(b"'")).unwrap_or(label);
            let end = label.iter().position(|byte| b"\"' ;/>,\t\r\n".contains(byte)).unwrap_or(label.len());
            return Encoding::for_label(&label[..end]);
        }
    }
    None
}

/// What the page's head declares: `<meta charset=…>`, `<meta … content="…; charset=…">`, or an XML declaration.
fn declaration(bytes: &[u8]) -> Option<&'static Encoding> {
    let head = bytes[..bytes.len().min(DECLARATION_BYTES)].to_ascii_lowercase();
    let mut rest = &head[..];
    let mut found = None;
    while let Some(place) = find(rest, b"<meta") {
        rest = &rest[place + 5..];
        let tag = &rest[..rest.iter().position(|byte| *byte == b'>').unwrap_or(rest.len())];
        found = charset_of(tag);
        if found.is_some() {
            break;
        }
    }
    let found = found.or_else(|| {
        let declaration = head.trim_ascii_start().strip_prefix(b"<?xml")?;
        let declaration = &declaration[..find(declaration, b"?>")?];
        let value = &declaration[find(declaration, b"encoding")? + 8..];
        let start = value.iter().position(|byte| b"\"'".contains(byte))? + 1;
        let end = value[start..].iter().position(|byte| b"\"'".contains(byte))?;
        Encoding::for_label(&value[start..start + end])
    })?;
    // Whoever can read the declaration byte by byte does not read UTF-16.
    Some(if found == UTF_16LE || found == UTF_16BE { UTF_8 } else { found })
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// A page cut off by a size limit may end inside a letter.
fn without_cut_letter(bytes: &[u8]) -> &[u8] {
    let tail = bytes.len() - bytes.len().min(3);
    match bytes[tail..].iter().rposition(|byte| *byte >= 0xc0) {
        Some(start) if std::str::from_utf8(&bytes[tail + start..]).is_err() => &bytes[..tail + start],
        _ => bytes,
    }
}

/// More wrong sequences than a few pasted letters account for.
fn is_far_from_utf8(bytes: &[u8]) -> bool {
    let beyond_ascii = bytes.iter().filter(|byte| !byte.is_ascii()).count();
    let wrong: usize = bytes.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    wrong * 4 > beyond_ascii
}

/// Whether every other byte of the start is zero, as in the Latin part of UTF-16.
fn has_zero_bytes(bytes: &[u8], parity: usize) -> bool {
    let start = &bytes[..bytes.len().min(64)];
    start.len() >= 8
        && start.iter().skip(parity).step_by(2).filter(|byte| **byte == 0).count() * 5 >= start.len() * 2
        && start.iter().skip(1 - parity).step_by(2).all(|byte| *byte != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_found_in_the_order_of_the_standard() {
        let check = |bytes: &[u8], content_type: Option<&str>, encoding: &str, text: &str| {
            let (found, name) = decode(bytes, content_type, Some("https://a.example/"));
            assert_eq!((found.as_ref(), name), (text, encoding), "{content_type:?} {bytes:?}");
        };
        let html = Some("text/html");
        check(b"\xef\xbb\xbf\xc5\xbc", Some("text/html; charset=iso-8859-2"), "UTF-8", "ż");
        check(b"\xff\xfe\x7c\x01", html, "UTF-16LE", "ż");
        check(b"\xfe\xff\x01\x7c", html, "UTF-16BE", "ż");
        check(b"\xbf", Some("text/html; Charset=\"ISO-8859-2\""), "ISO-8859-2", "ż");
        check(
            b"<meta charset=utf-8>\xbf",
            Some("text/html; charset=iso-8859-2"),
            "ISO-8859-2",
            "<meta charset=utf-8>ż",
        );
        check(b"<META charset=windows-1253>\xe1", html, "windows-1253", "<META charset=windows-1253>α");
        let old = b"<meta http-equiv=Content-Type content='text/html; charset=windows-1251'>\xe1";
        check(
            old,
            None,
            "windows-1251",
            "<meta http-equiv=Content-Type content='text/html; charset=windows-1251'>б",
        );
        check(
            b"<?xml version='1.0' encoding='koi8-r'?>\xc1",
            None,
            "KOI8-R",
            "<?xml version='1.0' encoding='koi8-r'?>а",
        );
        check(b"<meta charset=utf-16>\xc5\xbc", None, "UTF-8", "<meta charset=utf-16>ż");
        check(b"<meta charset=unknown>\xc5\xbc", None, "UTF-8", "<meta charset=unknown>ż");
        // UTF-8 under a wrong name, and a page cut inside a letter.
        check("ż, ħ".as_bytes(), Some("text/html; charset=iso-8859-1"), "UTF-8", "ż, ħ");
        check(b"\xc5\xbc\xc5", None, "UTF-8", "ż\u{fffd}");
        check(b"<\0p\0>\0a\0b\0c\0", None, "UTF-16LE", "<p>abc");
        check(b"\0<\0p\0>\0a\0b\0c", None, "UTF-16BE", "<p>abc");
        check(b"", None, "UTF-8", "");
    }

    #[test]
    fn statistics_tell_legacy_encodings_apart() {
        for (text, encoding, expected) in [
            ("Водата в реката се покачи през нощта и мостът беше затворен.", "windows-1251", "windows-1251"),
            ("Η γέφυρα έκλεισε γιατί το νερό ανέβηκε μέσα στη νύχτα.", "windows-1253", "windows-1253"),
            (
                "W środę most był zamknięty, bo w nocy podniósł się poziom wody, żółtej od gliny; są objazdy.",
                "iso-8859-2",
                "ISO-8859-2",
            ),
            (
                "Die Brücke war gesperrt, weil das Wasser über Nacht gestiegen war.",
                "windows-1252",
                "windows-1252",
            ),
        ] {
            let bytes = Encoding::for_label(encoding.as_bytes()).unwrap().encode(text).0;
            // What was declared is UTF-8, and wrong.
            for header in [None, Some("text/html; charset=utf-8")] {
                assert_eq!(decode(&bytes, header, None), (Cow::Borrowed(text), expected), "{encoding}");
            }
        }
    }
}
