//! The pass over a text: from one place where personal data may stand to the next.

use std::cell::Cell;
use std::ops::Range;

use languages::Language;

use super::network::{self, Ipv4};
use super::numbers::{Numbers, Stretch, digit_at};
use super::words::{self, Name};
use super::{Finding, PersonalData, banking, identifiers, phones};

/// Bytes at which something may begin: digits, colons (IPv6), brackets ("anna (at) post.example"), and the first byte of
/// full-width digits.
const STOPS: [bool; 256] = {
    let mut stops = [false; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        stops[digit as usize] = true;
        digit += 1;
    }
    stops[b':' as usize] = true;
    stops[b'(' as usize] = true;
    stops[b'[' as usize] = true;
    stops[0xEF] = true;
    stops
};

/// A row of fewer digits than this is nothing but an IP address or a part of something with letters.
const LEAST_DIGITS: usize = 6;

/// How far from the last place its name is still of use.
const LONGEST_KNOWN: usize = 64;

/// A number in a web address belongs to the page, not to a person; longer addresses are looked back into this far.
const LONGEST_WEB_ADDRESS: usize = 2048;

pub fn scan(text: &str, language: Option<Language>) -> Vec<Finding> {
    scan_from(text, 0, 0, language)
}

/// Scans from the place `from` on; findings begin at `floor` or later.
pub fn scan_from(text: &str, floor: usize, mut from: usize, language: Option<Language>) -> Vec<Finding> {
    let addresses = network::email_addresses(text, floor, from);
    let mut scan =
        Scan { text, language, findings: Vec::new(), floor, last_name: Cell::new((usize::MAX, None)) };
    for address in addresses {
        scan.stretch(from, address.start.max(from));
        from = address.end;
        scan.add(address, PersonalData::EmailAddress);
    }
    scan.stretch(from, text.len());
    scan.findings
}

struct Scan<'a> {
    text: &'a str,
    language: Option<Language>,
    findings: Vec<Finding>,
    /// Nothing begins before this place: the end of the last finding.
    floor: usize,
    /// The last place where the words before were looked at, and what they said: in a row of numbers there are no new ones.
    last_name: Cell<(usize, Option<Name>)>,
}

impl Scan<'_> {
    fn add(&mut self, range: Range<usize>, kind: PersonalData) {
        self.floor = range.end;
        self.findings.push(Finding { kind, range });
    }

    /// Looks through the text from `from` to `to`; what is found ends there at the latest.
    fn stretch(&mut self, from: usize, to: usize) {
        let bytes = self.text.as_bytes();
        let mut at = from;
        while let Some(offset) = bytes[at..to].iter().position(|byte| STOPS[usize::from(*byte)]) {
            at += offset;
            at = match bytes[at] {
                b':' => self.colon(at, to),
                b'(' | b'[' => self.bracket(at, to),
                _ if digit_at(bytes, at).is_some() => self.digit(at, to),
                // Another character of three bytes.
                _ => at + 3,
            };
            if at >= to {
                break;
            }
        }
    }

    /// Each of these looks at one stop, adds what begins there, and gives the place to go on from.
    fn colon(&mut self, at: usize, to: usize) -> usize {
        match network::ipv6(self.text, self.floor, at) {
            Some(range) if range.end <= to => {
                let end = range.end;
                if !self.is_in_web_address(range.start) {
                    self.add(range, PersonalData::IpAddress);
                }
                end
            }
            _ => at + 1,
        }
    }

    fn bracket(&mut self, at: usize, to: usize) -> usize {
        match network::hidden_email_address(self.text, self.floor, at) {
            Some(range) if range.end <= to => {
                let end = range.end;
                self.add(range, PersonalData::EmailAddress);
                end
            }
            _ => at + 1,
        }
    }

    fn digit(&mut self, at: usize, to: usize) -> usize {
        let before = Before::of(self.text, self.floor, at);
        if let Some(start) = before.lettered
            && let Some((end, kind)) = self.with_letters(start, to)
        {
            return self.add_unless_in_web_address(start..end, kind);
        }
        if before.is_tied {
            return self.token_end(at);
        }
        let numbers = Numbers::read(self.text, at);
        if let Some(range) = self.ipv4(&numbers).filter(|range| range.end <= to) {
            return self.add_unless_in_web_address(range, PersonalData::IpAddress);
        }
        let has_letter_after = has_letter_after(self.text, numbers.end());
        // "123M" is an identifier in Malta.
        let is_too_short = numbers.digit_count() < if has_letter_after { 3 } else { LEAST_DIGITS };
        if is_too_short && numbers.is_whole {
            return numbers.end();
        }
        if (has_letter_after || !numbers.is_whole)
            && let Some((end, kind)) = self.with_letters(at, to)
        {
            return self.add_unless_in_web_address(at..end, kind);
        }
        for count in (1..=numbers.groups().len()).rev() {
            let Some(stretch) = numbers.stretch(count) else { continue };
            if stretch.end > to || stretch.start < self.floor {
                continue;
            }
            if let Some(kind) = self.kind(&stretch, at) {
                return self.add_unless_in_web_address(stretch.range(), kind);
            }
        }
        numbers.groups()[0].end
    }

    fn ipv4(&self, numbers: &Numbers) -> Option<Range<usize>> {
        let found = network::ipv4(self.text, numbers)?;
        match found {
            Ipv4::Surely(range) if !matches!(self.name(&range), Some(Name::Phone | Name::Other)) => {
                Some(range)
            }
            Ipv4::IfNamed(range) if self.name(&range) == Some(Name::Network) => Some(range),
            _ => None,
        }
    }

    /// What the words around call what stands in this range: the words before it count first.
    fn name(&self, range: &Range<usize>) -> Option<Name> {
        self.name_before(range.start).or_else(|| words::name_after(self.text, range.end, self.language))
    }

    fn name_before(&self, place: usize) -> Option<Name> {
        let (last, name) = self.last_name.get();
        if last == place {
            return name;
        }
        let is_near = last <= place && place - last <= LONGEST_KNOWN;
        let name = if is_near && name.is_none() && !words::may_hold_words(&self.text[last..place]) {
            None
        } else {
            words::name_before(self.text, place, self.language)
        };
        self.last_name.set((place, name));
        name
    }

    /// What a stretch of digits that begins at `at` is.
    fn kind(&self, stretch: &Stretch, at: usize) -> Option<PersonalData> {
        let name = || self.name(&(at..stretch.end));
        if banking::is_payment_card(stretch) && !matches!(name(), Some(Name::Other | Name::Phone)) {
            return Some(PersonalData::PaymentCard);
        }
        let is_identifier =
            identifiers::is_identifier(stretch, self.language, || name() == Some(Name::Identifier))
                && !matches!(name(), Some(Name::Other | Name::Phone | Name::Account));
        if is_identifier {
            return Some(PersonalData::NationalIdentifier);
        }
        let is_right_after_name = || words::names_phone_right_before(self.text, at, self.language);
        let is_phone_number = phones::is_phone_number(stretch, self.language, name, is_right_after_name)
            && !words::is_amount(self.text, &stretch.range(), self.language);
        is_phone_number.then_some(PersonalData::PhoneNumber)
    }

    /// The end of an account number or an identifier with letters in it that begins at `start`.
    fn with_letters(&self, start: usize, to: usize) -> Option<(usize, PersonalData)> {
        let found = if let Some(end) = banking::iban_end(self.text, start) {
            (end, PersonalData::Iban)
        } else {
            let is_named = |end| self.name(&(start..end)) == Some(Name::Identifier);
            let end = identifiers::find_with_letters(self.text, start, self.language, is_named)?;
            if self.name(&(start..end)) == Some(Name::Other) {
                return None;
            }
            (end, PersonalData::NationalIdentifier)
        };
        (found.0 <= to).then_some(found)
    }

    fn add_unless_in_web_address(&mut self, range: Range<usize>, kind: PersonalData) -> usize {
        let end = range.end;
        if !self.is_in_web_address(range.start) {
            self.add(range, kind);
        }
        end
    }

    fn is_in_web_address(&self, place: usize) -> bool {
        let bytes = &self.text.as_bytes()[self.floor.max(place.saturating_sub(LONGEST_WEB_ADDRESS))..place];
        let word = bytes.iter().rposition(u8::is_ascii_whitespace).map_or(bytes, |space| &bytes[space + 1..]);
        word.windows(3).any(|window| window == b"://")
            || word.windows(4).any(|window| window.eq_ignore_ascii_case(b"www."))
    }

    /// The end of the letters and digits around `at`.
    fn token_end(&self, at: usize) -> usize {
        let bytes = &self.text.as_bytes()[at..];
        let length = bytes.iter().position(|byte| !byte.is_ascii_alphanumeric());
        // A digit of full width is left as one character.
        at + length.unwrap_or(bytes.len()).max(if bytes[0] == 0xEF { 3 } else { 1 })
    }
}

/// What stands right before a digit.
struct Before {
    /// Where an identifier or account may begin whose first characters are letters.
    lettered: Option<usize>,
    /// A letter stands right before the digit: it begins no number of digits.
    is_tied: bool,
}

impl Before {
    /// The codice fiscale has six letters before its first digit, with two spaces between them at most.
    const MOST: usize = 8;

    fn of(text: &str, floor: usize, at: usize) -> Before {
        let bytes = text.as_bytes();
        let window = &bytes[floor.max(at.saturating_sub(Before::MOST + 1))..at];
        let letters = window.iter().rev().take_while(|byte| byte.is_ascii_alphabetic()).count();
        let begins = |length: usize| {
            let start = at - length;
            let is_free = !text[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_');
            (start >= floor && is_free).then_some(start)
        };
        let is_tied = text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
        let lettered = match (letters, window) {
            (1..=6, _) => begins(letters),
            // "X-1234567-L", "DE 89 3704", "RSS MRA 85T10"
            (0, [.., b'X' | b'Y' | b'Z', b'-' | b'.' | b' ']) => begins(2),
            (0, [.., first, second, b' ']) if first.is_ascii_uppercase() && second.is_ascii_uppercase() => {
                match window {
                    [.., a, b, c, b' ', d, _, _, b' ']
                        if [a, b, c, d].iter().all(|letter| letter.is_ascii_uppercase()) =>
                    {
                        begins(8)
                    }
                    _ => begins(3),
                }
            }
            _ => None,
        };
        Before { lettered, is_tied }
    }
}

/// Whether one or two letters follow, right away or after one separator: "131052-308T", "12345678-Z", "123M".
fn has_letter_after(text: &str, end: usize) -> bool {
    let after = match &text.as_bytes()[end..] {
        [b'-' | b'+' | b' ' | b'.', after @ ..] => after,
        after => after,
    };
    let letters = after.iter().take(3).take_while(|byte| byte.is_ascii_alphabetic()).count();
    matches!(letters, 1 | 2)
}
