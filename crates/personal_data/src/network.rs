//! E-mail addresses (the usual form of RFC 5322, letters of all scripts) and IP addresses.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::numbers::{DOT, Numbers};

/// RFC 5321, 4.5.3.1: octets of the part before the `@` (here characters), and of the domain.
const LONGEST_LOCAL_PART: usize = 64;
const LONGEST_DOMAIN: usize = 255;

/// RFC 1035, 2.3.4, and more labels than any address has.
const LONGEST_LABEL: usize = 63;
const MOST_LABELS: usize = 8;

/// Endings of file names: `logo@2x.png` is no address.
const FILE_ENDINGS: [&str; 12] =
    ["png", "jpg", "jpeg", "gif", "webp", "avif", "svg", "css", "js", "html", "php", "json"];

/// All e-mail addresses whose `@` stands at `from` or later, in their order; they begin at `floor` or later.
pub fn email_addresses(text: &str, floor: usize, from: usize) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for (place, _) in text[from..].match_indices('@') {
        let place = from + place;
        let floor = found.last().map_or(floor, |last| last.end);
        if let (Some(start), Some(end)) = (local_part(text, floor, place), domain(text, place + 1)) {
            found.push(start..end);
        }
    }
    found
}

/// An address written to hide, around the bracket at `place`: `anna (at) post.example`, `anna[at]post[dot]example`.
pub fn hidden_email_address(text: &str, floor: usize, place: usize) -> Option<Range<usize>> {
    let after = bracketed(text, place, &["at", "ät", "@"])?;
    let before = floor + text[floor..place].strip_suffix(' ').unwrap_or(&text[floor..place]).len();
    let start = local_part(text, floor, before)?;
    let (mut at, mut end) = (after + usize::from(text[after..].starts_with(' ')), None);
    for labels in 1..=MOST_LABELS {
        let is_part = |character: char| character.is_alphanumeric() || character == '-';
        let label = text[at..].split(|character| !is_part(character)).next().unwrap_or_default();
        if label.is_empty() || label.len() > LONGEST_LABEL {
            break;
        }
        at += label.len();
        if labels > 1 && label.chars().all(char::is_alphabetic) && label.chars().nth(1).is_some() {
            end = Some(at);
        }
        let bracket = at + usize::from(text[at..].starts_with(' '));
        at = match bracketed(text, bracket, &["dot", "punkt", "point", "punto", "."]) {
            Some(after) => after + usize::from(text[after..].starts_with(' ')),
            None if text[at..].starts_with('.') => at + 1,
            None => break,
        };
    }
    end.map(|end| start..end)
}

/// The place after one of these words in brackets.
fn bracketed(text: &str, place: usize, words: &[&str]) -> Option<usize> {
    let inner = text[place..].strip_prefix(['(', '['])?;
    words.iter().find_map(|word| {
        let found = inner.get(..word.len())?;
        let closes = inner[word.len()..].starts_with([')', ']']);
        (found.to_lowercase() == *word && closes).then_some(place + word.len() + 2)
    })
}

/// Where the part before the `@` at `place` begins.
fn local_part(text: &str, floor: usize, place: usize) -> Option<usize> {
    let mut start = place;
    for (count, (at, character)) in text[floor..place].char_indices().rev().enumerate() {
        if !(character.is_alphanumeric() || matches!(character, '.' | '_' | '%' | '+' | '-')) {
            break;
        }
        if count == LONGEST_LOCAL_PART {
            return None;
        }
        start = floor + at;
    }
    // A sentence may end in a full stop before the address; the address does not begin with one.
    let local = text[start..place].trim_start_matches('.');
    (!local.is_empty() && !local.ends_with('.')).then(|| place - local.len())
}

/// Where the domain that begins at `start` ends: labels with dots between them, the last of two letters or more.
fn domain(text: &str, start: usize) -> Option<usize> {
    let is_part = |character: char| character.is_alphanumeric() || matches!(character, '.' | '-');
    let rest = &text[start..];
    let length = rest.char_indices().take(LONGEST_DOMAIN).find(|(_, character)| !is_part(*character));
    let length = length.map_or_else(|| floor(rest, LONGEST_DOMAIN), |(place, _)| place);
    let (mut at, mut end, mut labels) = (start, None, 0);
    for label in rest[..length].split('.') {
        let trimmed = label.trim_end_matches('-');
        if trimmed.is_empty() || trimmed.starts_with('-') {
            break;
        }
        labels += 1;
        let is_top = trimmed.starts_with("xn--")
            || trimmed.chars().all(char::is_alphabetic) && trimmed.chars().nth(1).is_some();
        if labels > 1 && is_top && !FILE_ENDINGS.contains(&trimmed) {
            end = Some(at + trimmed.len());
        }
        if trimmed.len() < label.len() {
            break;
        }
        at += label.len() + 1;
    }
    end
}

fn floor(text: &str, place: usize) -> usize {
    let mut place = place.min(text.len());
    while !text.is_char_boundary(place) {
        place -= 1;
    }
    place
}

/// An IPv4 address at the head of a row of numbers. Numbers of chapters and versions have small parts: where all are
/// small, a word has to name the address.
pub enum Ipv4 {
    Surely(Range<usize>),
    IfNamed(Range<usize>),
}

/// The largest part that a chapter, a version or a day and month are likely to have.
const SMALL: u8 = 31;

pub fn ipv4(text: &str, numbers: &Numbers) -> Option<Ipv4> {
    let groups = numbers.groups().get(..4)?;
    if groups.iter().any(|group| group.length > 3) || groups[1..].iter().any(|group| group.before != DOT) {
        return None;
    }
    let range = groups[0].start..groups[3].end;
    let address: Ipv4Addr = text[range.clone()].parse().ok()?;
    let is_tied =
        |character: char| character.is_alphanumeric() || matches!(character, '.' | '-' | '/' | '_' | ',');
    if text[..range.start].ends_with(is_tied) || goes_on(&text[range.end..]) || !is_public(address) {
        return None;
    }
    let is_small = address.octets().iter().all(|part| *part <= SMALL);
    Some(if is_small { Ipv4::IfNamed(range) } else { Ipv4::Surely(range) })
}

/// Whether a number goes on after what was found: `1.2.3.4.5` is no address, `1.2.3.4.` ends a sentence.
fn goes_on(after: &str) -> bool {
    let mut after = after.chars();
    match after.next() {
        Some('.' | '-' | ',') => after.next().is_some_and(|character| character.is_ascii_digit()),
        Some(character) => character.is_alphanumeric() || character == '_',
        None => false,
    }
}

/// Addresses that may lead to a person: private, loopback and broadcast ones lead nowhere.
fn is_public(address: Ipv4Addr) -> bool {
    !(address.is_private()
        || address.is_loopback()
        || address.is_broadcast()
        || address.is_link_local()
        || address.is_multicast()
        || address.octets()[0] == 0)
}

/// An IPv6 address around the colon at `place`, beginning at `floor` or later.
pub fn ipv6(text: &str, floor: usize, place: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let is_hexadecimal = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let first = (floor..place).rev().take_while(|at| is_hexadecimal(*at)).take(5).count();
    let next = bytes.get(place + 1)?;
    if first > 4 || !(next.is_ascii_hexdigit() || *next == b':') || first == 0 && *next != b':' {
        return None;
    }
    let start = place - first;
    // RFC 4291: 39 characters, 45 with an IPv4 address at the end.
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let length = bytes[start..].iter().take(46).take_while(|byte| is_part(byte)).count();
    let end = start + text[start..start + length].trim_end_matches('.').len();
    let is_tied = |character: char| character.is_alphanumeric() || matches!(character, ':' | '.' | '_' | '-');
    let ends_alone = !text[end..].starts_with(|next: char| next.is_alphanumeric() || next == '_');
    if text[..start].ends_with(is_tied) || !ends_alone {
        return None;
    }
    // A colon after the address belongs to the sentence.
    let address = text[start..end].strip_suffix(':').filter(|address| !address.ends_with(':'));
    let address = address.unwrap_or(&text[start..end]);
    let parsed: Ipv6Addr = address.parse().ok()?;
    leads_somewhere(parsed).then(|| start..start + address.len())
}

/// Global unicast (RFC 4291, 2.4, as assigned: 2000::/3), or IPv4 addresses mapped into it.
fn leads_somewhere(address: Ipv6Addr) -> bool {
    address.segments()[0] >> 13 == 1 || address.to_ipv4_mapped().is_some_and(is_public)
}
