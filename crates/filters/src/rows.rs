//! Where personal data may stand in a text that has not ended: rows of words with digits, addresses, and what surrounds
//! them.
//!
//! A row goes from the first word that could belong to it to the last; what makes a row, where it ends, and how far its
//! context reaches depends on the text from there on alone, so every way of cutting a stream gives the same rows. Numbers
//! of a few digits ("in 2026, 35 % of") are no rows and do not hold a stream back.

use crate::stage::{ceiling, floor};

/// Longest row; beyond it a new one begins.
const LONGEST_ROW: usize = 512;
/// What is looked at after a row: words that name a number stand within 60 bytes.
const CONTEXT_AFTER: usize = 72;
/// After a row that did not end by itself: as much as an address of RFC 5321 may still need.
const CONTEXT_AFTER_CUT: usize = 400;
/// A boundary of characters is found within so many bytes.
const CHARACTER: usize = 4;

/// Characters of an address before its `@`.
const LONGEST_LOCAL_PART: usize = 65;
/// Bytes of what may stand before the first digit: `RSS MRA 85T10`, `DE 89`, `+(49`.
const LONGEST_PREFIX: usize = 12;
/// Fewer digits are no telephone number, account or identifier, but for what [`is_harmless`] asks for.
const LEAST_DIGITS: usize = 6;
/// Identifiers that are mostly letters have more characters than this.
const LEAST_LETTERED: usize = 15;
/// Groups of capital letters within an account: `NL91 ABNA 0417`.
const LONGEST_GROUP: usize = 6;
/// Signs between two groups of digits, and bytes that they and characters without width may take.
const MOST_SEPARATORS: usize = 4;
const LONGEST_SEPARATION: usize = 48;

/// What comes next in a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing up to the end; before `until` nothing can begin even if the text goes on.
    Nothing { until: usize },
    /// Something may begin at `start`; the text does not reach far enough to tell.
    Wait { start: usize },
    /// A row, and the end of what must be looked at with it.
    Row { start: usize, end: usize, context: usize },
}

/// The first row whose first sign stands at `from` or later; it begins at `row_floor` or later. All in byte places.
pub(crate) fn next_row(text: &str, row_floor: usize, from: usize, is_end: bool) -> Next {
    let mut at = from.max(row_floor);
    while let Some(offset) = text.as_bytes()[at..].iter().position(|byte| is_sign(*byte)) {
        let sign = at + offset;
        let is_bracket = matches!(text.as_bytes()[sign], b'(' | b'[');
        let start = earliest(text, sign, row_floor, is_bracket);
        let limit = start + LONGEST_ROW;
        let row = match text.as_bytes()[sign] {
            b'(' | b'[' => match at_in_brackets(&text[sign..], is_end) {
                Answer::No => {
                    at = sign + 1;
                    continue;
                }
                Answer::Unknown => return Next::Wait { start },
                // What the address ends in may belong to something else as well.
                Answer::Yes(length) => match hidden_end(text, sign + length, limit, is_end) {
                    Some((end, false)) => row_end(text, end, limit, is_end),
                    cut => cut,
                },
            },
            0xEF if !is_wide_digit(&text[sign..]) => {
                at = ceiling(text, sign + 1);
                continue;
            }
            _ => row_end(text, sign, limit, is_end),
        };
        let Some((end, is_cut)) = row else { return Next::Wait { start } };
        if !is_cut && is_harmless(text, start, sign, end) {
            at = end;
            continue;
        }
        let after = end + if is_cut { CONTEXT_AFTER_CUT } else { CONTEXT_AFTER };
        if after + CHARACTER > text.len() && !is_end {
            return Next::Wait { start };
        }
        return Next::Row { start, end, context: ceiling(text, after) };
    }
    Next::Nothing { until: if is_end { text.len() } else { earliest(text, text.len(), row_floor, true) } }
}

/// Bytes that personal data cannot do without.
fn is_sign(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'@' | b':' | b'(' | b'[' | 0xEF)
}

fn is_wide_digit(text: &str) -> bool {
    text.starts_with(|character| ('\u{FF10}'..='\u{FF19}').contains(&character))
}

fn is_digit(character: char) -> bool {
    character.is_ascii_digit() || ('\u{FF10}'..='\u{FF19}').contains(&character)
}

/// Where something may begin whose first sign stands at `sign`; with `may_be_bracket` where something may begin whose first
/// sign, of any kind, stands there or later.
fn earliest(text: &str, sign: usize, row_floor: usize, may_be_bracket: bool) -> usize {
    let before = &text[row_floor.min(sign)..sign];
    let run = |text: &str| {
        let is_part = |character: &char| {
            character.is_alphanumeric() || matches!(character, '.' | '_' | '%' | '+' | '-')
        };
        let length: usize =
            text.chars().rev().take(LONGEST_LOCAL_PART).take_while(is_part).map(char::len_utf8).sum();
        text.len() - length
    };
    let mut start = run(before);
    // "anna (at) post.example"
    if may_be_bracket && let Some(before) = before.strip_suffix(' ') {
        start = start.min(run(before));
    }
    let mut prefix = before.len();
    for character in before.chars().rev() {
        let is_part = matches!(character, 'A'..='Z' | ' ' | '+' | '\u{FF0B}' | '(' | '-' | '.');
        if !is_part || before.len() - prefix + character.len_utf8() > LONGEST_PREFIX {
            break;
        }
        prefix -= character.len_utf8();
    }
    sign - before.len() + start.min(prefix)
}

/// The end of the row around `sign`, and whether it was cut there; `None` if the text must go on first.
fn row_end(text: &str, sign: usize, limit: usize, is_end: bool) -> Option<(usize, bool)> {
    let mut at = sign;
    loop {
        // No further than the limit: of a text without spaces every row would look through all the rest.
        let most = ceiling(text, limit.max(at));
        let word = text[at..most].find(char::is_whitespace).map_or(most, |length| at + length);
        if word >= limit {
            return Some((floor(text, limit), true));
        }
        if word == text.len() {
            return is_end.then_some((word, false));
        }
        match goes_on(&text[word..], is_end) {
            Answer::No => return Some((word, false)),
            Answer::Unknown => return None,
            Answer::Yes(length) => {
                at = word + length;
                if text.as_bytes().get(at).is_some_and(|byte| matches!(byte, b'(' | b'[')) {
                    // Far more may belong to it than another group.
                    return Some((at, true));
                }
            }
        }
    }
}

enum Answer {
    No,
    /// The text ends too early to tell.
    Unknown,
    /// After so many bytes.
    Yes(usize),
}

/// Whether a row goes on after the space at the head of this text, with digits, capital letters, or an `(at)`.
fn goes_on(text: &str, is_end: bool) -> Answer {
    let unknown = if is_end { Answer::No } else { Answer::Unknown };
    let mut separators = 0;
    for (place, character) in text.char_indices() {
        if is_digit(character) {
            return Answer::Yes(place);
        }
        if place > LONGEST_SEPARATION || separators > MOST_SEPARATORS {
            return Answer::No;
        }
        match character {
            '(' | '[' if separators == 1 => match at_in_brackets(&text[place..], is_end) {
                Answer::No => separators += 1,
                Answer::Unknown => return unknown,
                Answer::Yes(_) => return Answer::Yes(place),
            },
            ' ' | '\u{A0}' | '\u{2007}' | '\u{2009}' | '\u{202F}' => separators += 1,
            '-' | '.' | '/' | '(' | ')' | '+' | '\u{FF0B}' | '\u{2010}'..='\u{2015}' | '\u{2212}' => {
                separators += 1;
            }
            '\u{AD}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}' | '\u{FEFF}' => (),
            'A'..='Z' if separators == 1 => {
                let rest = &text[place..];
                let length = rest.bytes().take(LONGEST_GROUP + 1).take_while(u8::is_ascii_uppercase).count();
                return match rest[length..].chars().next() {
                    _ if length > LONGEST_GROUP => Answer::No,
                    None if is_end => Answer::Yes(place),
                    None => Answer::Unknown,
                    Some(next) if next.is_alphabetic() => Answer::No,
                    Some(_) => Answer::Yes(place),
                };
            }
            _ => return Answer::No,
        }
    }
    unknown
}

/// Whether a text begins with `(at)` in one of its forms.
fn at_in_brackets(text: &str, is_end: bool) -> Answer {
    let mut characters = text.chars().flat_map(char::to_lowercase).skip(1).take(3);
    let unknown = if is_end { Answer::No } else { Answer::Unknown };
    let closes = |character| matches!(character, ')' | ']');
    match (characters.next(), characters.next(), characters.next()) {
        (None, ..) | (Some('@' | 'a' | 'ä'), None, _) => unknown,
        (Some('@'), Some(close), _) if closes(close) => Answer::Yes(3),
        (Some('a' | 'ä'), Some('t'), None) => unknown,
        (Some(first @ ('a' | 'ä')), Some('t'), Some(close)) if closes(close) => {
            Answer::Yes(3 + first.len_utf8())
        }
        _ => Answer::No,
    }
}

/// The end of a domain written to hide, as of `post [dot] example`, that begins at `at` or after a space.
fn hidden_end(text: &str, at: usize, limit: usize, is_end: bool) -> Option<(usize, bool)> {
    /// More than the longest word for a full stop, with its brackets and spaces.
    const DOT: usize = 16;
    let mut end = at;
    let after_space = |place: usize| place + usize::from(text[place..].starts_with(' '));
    loop {
        let label = after_space(end);
        let is_part = |character: char| character.is_alphanumeric() || matches!(character, '-' | '.');
        let most = ceiling(text, limit.max(label));
        let length = text[label..most].find(|character| !is_part(character));
        let label_end = length.map_or(most, |length| label + length);
        if label_end >= limit {
            return Some((floor(text, limit), true));
        }
        if label_end + DOT > text.len() && !is_end {
            return None;
        }
        end = label_end;
        let bracket = after_space(label_end);
        if label_end == label || !text[bracket..].starts_with(['(', '[']) {
            return Some((end, false));
        }
        let inner = floor(text, bracket + DOT - 2);
        match text[bracket..inner].find([')', ']']) {
            Some(length) => end = bracket + length + 1,
            None => return Some((end, false)),
        }
    }
}

/// Whether a row is too short to be anything: a year, a percentage, a version, a time.
fn is_harmless(text: &str, start: usize, sign: usize, end: usize) -> bool {
    let row = &text[sign..end];
    let (mut digits, mut colons, mut dots) = (0, 0, 0);
    for character in row.chars() {
        match character {
            '@' | '(' | '[' => return false,
            ':' => colons += 1,
            '.' => dots += 1,
            character if is_digit(character) => digits += 1,
            _ => (),
        }
    }
    let lettered = text[start..end].bytes().filter(u8::is_ascii_alphanumeric).count();
    digits < LEAST_DIGITS
        && colons < 2
        && (dots < 3 || digits < 4)
        && lettered < LEAST_LETTERED
        && !is_maltese(row)
}

/// "123M", "1234 G": three digits or more and one capital letter.
fn is_maltese(row: &str) -> bool {
    let bytes = row.as_bytes();
    bytes.iter().enumerate().any(|(place, byte)| {
        if !matches!(byte, b'M' | b'G' | b'A' | b'P' | b'L' | b'H' | b'B' | b'Z') {
            return false;
        }
        let before = bytes[..place].strip_suffix(b" ").unwrap_or(&bytes[..place]);
        before.len() >= 3 && before[before.len() - 3..].iter().all(u8::is_ascii_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_begin_is_held_back() {
        let check = |text: &str, expected: &str| match next_row(text, 0, 0, false) {
            Next::Nothing { until } => assert_eq!(&text[until..], expected, "{text}"),
            Next::Wait { start } => assert_eq!(&text[start..], expected, "{text}"),
            Next::Row { start, .. } => panic!("{text}: a row at {start}"),
        };
        check("Sie erreichen anna", "anna");
        check("Sie erreichen anna.", "anna.");
        check("Sie erreichen anna, ", " ");
        check("Sie erreichen anna (a", "anna (a");
        check("Im Jahr 2026 waren es ", "es ");
        check("Im Jahr 20", " 20");
        check("Tel. 030 1234567, heute", ". 030 1234567, heute");
        check("κείμενο χωρίς τίποτα", "τίποτα");
        check("IBAN: DE 89 3704", "IBAN: DE 89 3704");
    }

    /// Each row looks at what is its own: less than a second in all. Were each to look for a space through all the rest, this
    /// would take far more than five minutes on any machine.
    #[test]
    fn a_text_without_spaces_is_looked_through_once() {
        let started = std::time::Instant::now();
        for part in ["12-", "a@", "1(at)", "é:", "１２"] {
            let text = part.repeat((4 << 20) / part.len());
            let (mut at, mut rows) = (0, 0);
            while let Next::Row { end, .. } = next_row(&text, at, at, true) {
                (at, rows) = (end, rows + 1);
            }
            let most = LONGEST_ROW + CHARACTER;
            assert!(text.len() - at < most && rows >= text.len() / most, "{part}: {rows} rows to {at}");
        }
        assert!(started.elapsed().as_secs() < 300, "{:?}", started.elapsed());
    }
}
