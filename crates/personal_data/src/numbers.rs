//! Numbers as people write them: groups of digits with separators between them, read from one place of a text.
//!
//! Full-width digits count as digits, and characters without width (which break a pattern but not what a reader sees) are
//! passed over.

use std::ops::Range;

/// No identifier, card or telephone number has more digits (a card has at most 19).
pub const MOST_DIGITS: usize = 19;
/// `+49 (0) 12 34 56 78 90` and a French identifier have seven, an IP address and a card fewer.
const MOST_GROUPS: usize = 8;
/// Between two groups: `) / `.
const MOST_SEPARATORS: usize = 3;
/// More characters without width in a row than this are no accident of typesetting.
const MOST_WITHOUT_WIDTH: usize = 8;

/// What stands between two groups: a set of kinds of characters.
pub type Separators = u8;
pub const SPACE: Separators = 1;
pub const HYPHEN: Separators = 2;
pub const DOT: Separators = 4;
pub const SLASH: Separators = 8;
pub const OPEN: Separators = 16;
pub const CLOSE: Separators = 32;

#[derive(Debug, Clone, Copy, Default)]
pub struct Group {
    /// Byte places in the text.
    pub start: usize,
    pub end: usize,
    /// How many digits.
    pub length: usize,
    /// What stands before it, after the group before.
    pub before: Separators,
}

/// A number, or the beginning of a row of numbers.
pub struct Numbers<'a> {
    text: &'a str,
    digits: [u8; MOST_DIGITS + 1],
    digit_count: usize,
    groups: [Group; MOST_GROUPS],
    group_count: usize,
    /// Whether all of the row was read.
    pub is_whole: bool,
    /// Where it begins with the plus before it, if there is one.
    start: usize,
    has_plus: bool,
    is_open_before: bool,
}

impl<'a> Numbers<'a> {
    /// Reads from a digit on.
    pub fn read(text: &'a str, start: usize) -> Numbers<'a> {
        let mut numbers = Numbers {
            text,
            digits: [0; MOST_DIGITS + 1],
            digit_count: 0,
            groups: [Group::default(); MOST_GROUPS],
            group_count: 0,
            is_whole: false,
            start,
            has_plus: false,
            is_open_before: is_open_before(text, start),
        };
        let before = text[..start].strip_suffix(' ').unwrap_or(&text[..start]);
        if let Some(plus) = ['+', '\u{FF0B}'].into_iter().find(|plus| before.ends_with(*plus)) {
            numbers.has_plus = true;
            numbers.start = before.len() - plus.len_utf8();
        }
        let (mut at, mut before) = (start, 0);
        loop {
            let group = numbers.read_group(at, before);
            numbers.groups[numbers.group_count] = group;
            numbers.group_count += 1;
            match separators_after(text.as_bytes(), group.end) {
                None => numbers.is_whole = true,
                Some(_) if numbers.group_count == MOST_GROUPS || numbers.digit_count > MOST_DIGITS => (),
                Some((separators, next)) => {
                    (at, before) = (next, separators);
                    continue;
                }
            }
            return numbers;
        }
    }

    fn read_group(&mut self, start: usize, before: Separators) -> Group {
        let bytes = self.text.as_bytes();
        let mut group = Group { start, end: start, length: 0, before };
        let mut at = start;
        while let Some((digit, width)) = digit_at(bytes, at) {
            if let Some(place) = self.digits.get_mut(self.digit_count) {
                *place = digit;
                self.digit_count += 1;
            }
            group.length += 1;
            group.end = at + width;
            at = after_widthless(bytes, group.end);
        }
        group
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups[..self.group_count]
    }

    /// Digits that were read: at most one more than any number has.
    pub fn digit_count(&self) -> usize {
        self.digit_count
    }

    pub fn end(&self) -> usize {
        self.groups[self.group_count - 1].end
    }

    /// The first `count` groups, if they can stand for themselves: of seven to nineteen digits (six, where a word names
    /// them), nothing attached to either end.
    pub fn stretch(&self, count: usize) -> Option<Stretch<'_>> {
        let groups = &self.groups[..count];
        let digit_count: usize = groups.iter().map(|group| group.length).sum();
        if !(6..=MOST_DIGITS).contains(&digit_count) {
            return None;
        }
        let (mut start, end) = (self.start, groups[count - 1].end);
        if !self.is_open_before || !is_open_after(self.text, end) {
            return None;
        }
        // The bracket of an area code belongs to the number, the bracket around a whole number does not.
        let closing = groups[1..].iter().find(|group| group.before & (OPEN | CLOSE) != 0);
        let closes = closing.is_some_and(|group| group.before & CLOSE != 0 && group.before & OPEN == 0);
        start -= usize::from(closes && self.text[..start].ends_with('('));
        let digits = &self.digits[..digit_count];
        Some(Stretch { text: self.text, digits, groups, start, end, has_plus: self.has_plus })
    }
}

/// Some neighbouring groups of digits.
pub struct Stretch<'a> {
    pub text: &'a str,
    /// The digits of all groups, one after the other.
    pub digits: &'a [u8],
    pub groups: &'a [Group],
    /// Byte place of the first character: a digit, or the `+` or `(` before it.
    pub start: usize,
    pub end: usize,
    pub has_plus: bool,
}

impl Stretch<'_> {
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The groups have these lengths.
    pub fn has_lengths(&self, lengths: &[usize]) -> bool {
        self.groups.len() == lengths.len()
            && self.groups.iter().zip(lengths).all(|(group, length)| group.length == *length)
    }

    /// What stands between the groups.
    pub fn separators(&self) -> impl Iterator<Item = Separators> + '_ {
        self.groups[1..].iter().map(|group| group.before)
    }

    /// The groups have these lengths, and each separator is one of these.
    pub fn has_form(&self, lengths: &[usize], separators: &[Separators]) -> bool {
        self.has_lengths(lengths) && self.separators().all(|separator| separators.contains(&separator))
    }

    /// Whether no other number stands right before it.
    pub fn is_first(&self) -> bool {
        let before = self.text[..self.start].trim_end_matches([' ', '\u{A0}', '\u{202F}']);
        !before.ends_with(|character: char| character.is_ascii_digit())
    }

    /// The value of the digits from `place` on.
    pub fn number(&self, place: usize, count: usize) -> u64 {
        number(&self.digits[place..place + count])
    }
}

/// The value of some digits.
pub fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(*digit)))
}

/// A digit and how many bytes it takes.
pub fn digit_at(bytes: &[u8], at: usize) -> Option<(u8, usize)> {
    match bytes.get(at..)? {
        [digit @ b'0'..=b'9', ..] => Some((digit - b'0', 1)),
        // U+FF10 to U+FF19
        [0xEF, 0xBC, digit @ 0x90..=0x99, ..] => Some((digit - 0x90, 3)),
        _ => None,
    }
}

/// The place after characters without width: soft hyphen, zero-width space and joiners, direction marks, byte order mark.
fn after_widthless(bytes: &[u8], mut at: usize) -> usize {
    for _ in 0..MOST_WITHOUT_WIDTH {
        if bytes.get(at).is_none_or(u8::is_ascii) {
            return at;
        }
        at += match bytes.get(at..) {
            Some([0xC2, 0xAD, ..]) => 2,
            Some(
                [0xE2, 0x80, 0x8B..=0x8F | 0xAA..=0xAE, ..] | [0xE2, 0x81, 0xA0, ..] | [0xEF, 0xBB, 0xBF, ..],
            ) => 3,
            _ => return at,
        };
    }
    at
}

/// The separators after a group and the place of the digit after them.
fn separators_after(bytes: &[u8], mut at: usize) -> Option<(Separators, usize)> {
    let mut separators = 0;
    for _ in 0..=MOST_SEPARATORS {
        at = after_widthless(bytes, at);
        if digit_at(bytes, at).is_some() {
            return Some((separators, at));
        }
        let (separator, width) = separator_at(bytes, at)?;
        // Two spaces stand between the columns of a table.
        if separators == SPACE && separator == SPACE {
            return None;
        }
        separators |= separator;
        at += width;
    }
    None
}

fn separator_at(bytes: &[u8], at: usize) -> Option<(Separators, usize)> {
    Some(match bytes.get(at..)? {
        [b' ', ..] => (SPACE, 1),
        [b'-', ..] => (HYPHEN, 1),
        [b'.', ..] => (DOT, 1),
        [b'/', ..] => (SLASH, 1),
        [b'(', ..] => (OPEN, 1),
        [b')', ..] => (CLOSE, 1),
        // No-break, figure, thin and narrow no-break space.
        [0xC2, 0xA0, ..] => (SPACE, 2),
        [0xE2, 0x80, 0x87 | 0x89 | 0xAF, ..] => (SPACE, 3),
        // Hyphens and dashes U+2010 to U+2015, the minus sign.
        [0xE2, 0x80, 0x90..=0x95, ..] | [0xE2, 0x88, 0x92, ..] => (HYPHEN, 3),
        _ => return None,
    })
}

/// No letter, decimal sign or tight separator ties the number to what stands before it.
fn is_open_before(text: &str, start: usize) -> bool {
    let mut before = text[..start].chars().rev();
    match before.next() {
        None => true,
        Some(character) if character.is_alphanumeric() || character == '_' => false,
        Some('.' | ',' | '-' | '/' | '\u{2010}'..='\u{2013}') => {
            !before.next().is_some_and(|character| character.is_ascii_digit())
        }
        Some(_) => true,
    }
}

fn is_open_after(text: &str, end: usize) -> bool {
    let mut after = text[end..].chars();
    match after.next() {
        None => true,
        Some(character) if character.is_alphanumeric() || matches!(character, '_' | '%' | '@' | '°') => {
            false
        }
        Some('.' | ',' | '-' | '/' | ':' | '\u{2010}'..='\u{2013}') => {
            !after.next().is_some_and(|character| character.is_ascii_digit())
        }
        Some(_) => true,
    }
}
