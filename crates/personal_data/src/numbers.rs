//! Runs of digits with the separators that people write between them, cut into groups.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// Digits in groups, such as `+49 (0)30 / 23125-000`.
pub struct NumberRun {
    /// Byte ranges of the groups.
    pub groups: Vec<Range<usize>>,
}

/// Some neighbouring groups of a run.
pub struct Stretch<'a> {
    pub text: &'a str,
    /// The digits of all groups, one after the other.
    pub digits: Vec<u8>,
    /// Lengths of the groups.
    pub lengths: Vec<usize>,
    /// What stands between the groups.
    pub separators: Vec<&'a str>,
    /// Byte place of the first character: a digit, or the `+` or `(` before it.
    pub start: usize,
    pub end: usize,
    pub has_plus: bool,
    /// Whether the run of numbers begins with it.
    pub is_first: bool,
}

impl Stretch<'_> {
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// The groups have these lengths, and all separators are among these.
    pub fn has_form(&self, lengths: &[usize], separators: &[&str]) -> bool {
        self.lengths == lengths && self.separators.iter().all(|separator| separators.contains(separator))
    }
}

/// The value of some digits.
pub fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |value, digit| value.wrapping_mul(10).wrapping_add(u64::from(*digit)))
}

static RUN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[0-9](?:[ \x{A0}\x{202F}\-\x{2010}\x{2011}\x{2013}./()]{0,3}[0-9])*")
        .expect("a fixed pattern")
});

/// Every run with at least seven digits.
pub fn number_runs(text: &str) -> impl Iterator<Item = NumberRun> + '_ {
    RUN.find_iter(text).filter_map(move |found| {
        let digits = found.as_str().bytes().filter(u8::is_ascii_digit).count();
        if digits < 7 {
            return None;
        }
        let mut groups: Vec<Range<usize>> = Vec::new();
        for (place, _) in found.as_str().bytes().enumerate().filter(|(_, byte)| byte.is_ascii_digit()) {
            let place = found.start() + place;
            match groups.last_mut() {
                Some(group) if group.end == place => group.end += 1,
                _ => groups.push(place..place + 1),
            }
        }
        Some(NumberRun { groups })
    })
}

impl NumberRun {
    /// The groups from `first` to `last`, if they can stand for themselves: nothing is attached to either end.
    pub fn stretch<'a>(&self, text: &'a str, first: usize, last: usize) -> Option<Stretch<'a>> {
        let groups = &self.groups[first..=last];
        let (mut start, end) = (groups[0].start, groups[last - first].end);
        let digits: Vec<u8> =
            groups.iter().flat_map(|group| text[group.clone()].bytes()).map(|byte| byte - b'0').collect();
        if !(7..=19).contains(&digits.len()) {
            return None;
        }
        if !is_open_before(text, start) || !is_open_after(text, end) {
            return None;
        }
        let separators: Vec<&str> = groups.windows(2).map(|pair| &text[pair[0].end..pair[1].start]).collect();
        let has_plus = text[..start].ends_with('+');
        start -= usize::from(has_plus);
        // The bracket of an area code belongs to the number, the bracket around a whole number does not.
        let closes = separators.iter().any(|separator| separator.contains(')') && !separator.contains('('));
        start -= usize::from(closes && text[..start].ends_with('('));
        let lengths = groups.iter().map(|group| group.len()).collect();
        Some(Stretch { text, digits, lengths, separators, start, end, has_plus, is_first: first == 0 })
    }
}

/// No letter, decimal sign or tight separator ties the number to what stands before it.
fn is_open_before(text: &str, start: usize) -> bool {
    let mut before = text[..start].chars().rev();
    match before.next() {
        None => true,
        Some(character) if character.is_alphanumeric() || character == '_' => false,
        Some('.' | ',' | '-' | '/' | '\u{2010}' | '\u{2011}') => {
            !before.next().is_some_and(|character| character.is_ascii_digit())
        }
        Some(_) => true,
    }
}

fn is_open_after(text: &str, end: usize) -> bool {
    let mut after = text[end..].chars();
    match after.next() {
        None => true,
        Some(character) if character.is_alphanumeric() || character == '_' || character == '%' => false,
        Some('.' | ',' | '-' | '/' | ':' | '\u{2010}' | '\u{2011}') => {
            !after.next().is_some_and(|character| character.is_ascii_digit())
        }
        Some(_) => true,
    }
}
