//! Bank accounts (IBAN, ISO 13616, proved by mod-97 of ISO 7064) and payment cards (ISO/IEC 7812, proved by Luhn).

use std::sync::LazyLock;

use regex::Regex;

use super::numbers::Stretch;
use super::{Findings, PersonalData};

static IBAN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?-u:\b)[A-Z]{2}[0-9]{2}(?:[ \x{A0}\x{202F}\-]?[A-Z0-9]{1,4}){3,9}")
        .expect("a fixed pattern")
});

/// Lengths of the IBAN registry (SWIFT, release 99): the 27, and the countries around them.
const IBAN_LENGTHS: [(&str, usize); 52] = [
    ("AD", 24),
    ("AL", 28),
    ("AT", 20),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BY", 28),
    ("CH", 21),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DK", 18),
    ("EE", 20),
    ("ES", 24),
    ("FI", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IS", 26),
    ("IT", 27),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MT", 31),
    ("NL", 18),
    ("NO", 15),
    ("PL", 28),
    ("PT", 25),
    ("RO", 24),
    ("RS", 22),
    ("SA", 24),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("XK", 20),
];

pub fn find_ibans(text: &str, findings: &mut Findings) {
    for found in IBAN.find_iter(text) {
        let Ok(country) = IBAN_LENGTHS.binary_search_by(|(code, _)| (*code).cmp(&found.as_str()[..2])) else {
            continue;
        };
        // The pattern may run on into the next word; the registry knows where the number ends.
        let mut characters = Vec::new();
        for (place, character) in found.as_str().char_indices() {
            if character.is_ascii_alphanumeric() {
                characters.push(character as u8);
            }
            let end = found.start() + place + character.len_utf8();
            if characters.len() == IBAN_LENGTHS[country].1 {
                let goes_on = text[end..].starts_with(|next: char| next.is_alphanumeric());
                if !goes_on && is_iban(&characters) {
                    findings.add(found.start()..end, PersonalData::Iban);
                }
                break;
            }
        }
    }
}

/// Mod-97: country and check digits go to the end, letters become 10 to 35, the remainder is 1.
fn is_iban(characters: &[u8]) -> bool {
    let (head, body) = characters.split_at(4);
    let remainder = body.iter().chain(head).fold(0u32, |remainder, &character| match character {
        b'0'..=b'9' => (remainder * 10 + u32::from(character - b'0')) % 97,
        _ => (remainder * 100 + u32::from(character - b'A') + 10) % 97,
    });
    remainder == 1
}

/// A card number: prefix and length of a known network, usual grouping, Luhn.
pub fn is_payment_card(stretch: &Stretch) -> bool {
    let digits = &stretch.digits;
    let grouped = match stretch.lengths.as_slice() {
        [_] => true,
        [4, middle @ .., last] => {
            middle.iter().all(|length| *length == 4) && *last <= 4 || *middle == [6] && matches!(last, 4 | 5)
        }
        _ => false,
    };
    let separated =
        stretch.separators.iter().all(|separator| matches!(*separator, " " | "-" | "\u{A0}" | "\u{202F}"));
    grouped && separated && !stretch.has_plus && is_known_network(digits) && luhn(digits)
}

/// Visa, Mastercard, American Express, Diners, Discover, JCB, UnionPay, Maestro.
fn is_known_network(digits: &[u8]) -> bool {
    let prefix = |length: usize| super::numbers::number(&digits[..length]);
    match digits.len() {
        14 => matches!(prefix(2), 36 | 38 | 39) || matches!(prefix(3), 300..=305),
        15 => matches!(prefix(2), 34 | 37),
        16 => {
            prefix(1) == 4
                || matches!(prefix(2), 51..=55 | 35 | 62 | 65)
                || matches!(prefix(4), 2221..=2720 | 6011 | 5018 | 5020 | 5038 | 6304 | 6759 | 6761..=6763)
        }
        12 | 13 | 17..=19 => matches!(prefix(4), 5018 | 5020 | 5038 | 6304 | 6759 | 6761..=6763),
        _ => false,
    }
}

/// ISO/IEC 7812-1, annex B.
pub fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit) * 2) {
            (0, _) => u32::from(*digit),
            (_, doubled) => doubled / 10 + doubled % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}
