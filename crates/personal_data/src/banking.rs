//! Bank accounts (IBAN, ISO 13616, proved by mod-97 of ISO 7064) and payment cards (ISO/IEC 7812, proved by Luhn).

use super::numbers::{HYPHEN, SPACE, Stretch};

/// The account after country and check digits, by the IBAN registry (SWIFT, release 99): how many digits (`n`), capital
/// letters (`a`), digits or letters (`c`). The 27, the rest of the Single Euro Payments Area, and the countries around.
const ACCOUNTS: [(&str, &str); 52] = [
    ("AD", "8n12c"),
    ("AL", "8n16c"),
    ("AT", "16n"),
    ("BA", "16n"),
    ("BE", "12n"),
    ("BG", "4a6n8c"),
    ("BY", "4c4n16c"),
    ("CH", "5n12c"),
    ("CY", "8n16c"),
    ("CZ", "20n"),
    ("DE", "18n"),
    ("DK", "14n"),
    ("EE", "16n"),
    ("ES", "20n"),
    ("FI", "14n"),
    ("FO", "14n"),
    ("FR", "10n11c2n"),
    ("GB", "4a14n"),
    ("GE", "2a16n"),
    ("GI", "4a15c"),
    ("GL", "14n"),
    ("GR", "7n16c"),
    ("HR", "17n"),
    ("HU", "24n"),
    ("IE", "4a14n"),
    ("IL", "19n"),
    ("IS", "22n"),
    ("IT", "1a10n12c"),
    ("LI", "5n12c"),
    ("LT", "16n"),
    ("LU", "3n13c"),
    ("LV", "4a13c"),
    ("MC", "10n11c2n"),
    ("MD", "20c"),
    ("ME", "18n"),
    ("MK", "3n10c2n"),
    ("MT", "4a5n18c"),
    ("NL", "4a10n"),
    ("NO", "11n"),
    ("PL", "24n"),
    ("PT", "21n"),
    ("RO", "4a16c"),
    ("RS", "18n"),
    ("SA", "2n18c"),
    ("SE", "20n"),
    ("SI", "15n"),
    ("SK", "20n"),
    ("SM", "1a10n12c"),
    ("TR", "6n16c"),
    ("UA", "6n19c"),
    ("VA", "18n"),
    ("XK", "16n"),
];

/// The longest IBAN that the registry allows.
const LONGEST_IBAN: usize = 34;

/// The end of an IBAN that begins at `start` with its country in capital letters, if there is one.
pub fn iban_end(text: &str, start: usize) -> Option<usize> {
    let country = text.get(start..start + 2)?;
    let place = ACCOUNTS.binary_search_by(|(code, _)| (*code).cmp(country)).ok()?;
    let structure = ACCOUNTS[place].1;
    let length = 4 + parts(structure).map(|(count, _)| count).sum::<usize>();
    let mut characters = [0; LONGEST_IBAN];
    let (mut count, mut end, mut is_separated) = (0, start, true);
    for (at, character) in text[start..].char_indices() {
        match character {
            'A'..='Z' | '0'..='9' => {
                characters[count] = character as u8;
                (count, end, is_separated) = (count + 1, start + at + 1, false);
                if count == length {
                    break;
                }
            }
            ' ' | '\u{A0}' | '\u{202F}' | '-' | '.' if !is_separated => is_separated = true,
            '\u{200B}'..='\u{200D}' | '\u{2060}' | '\u{FEFF}' | '\u{AD}' => (),
            _ => return None,
        }
    }
    let characters = &characters[..count];
    let goes_on = text[end..].starts_with(|next: char| next.is_alphanumeric());
    (count == length && !goes_on && has_structure(characters, structure) && is_iban(characters))
        .then_some(end)
}

fn parts(structure: &str) -> impl Iterator<Item = (usize, u8)> + '_ {
    structure.split_inclusive(|character: char| character.is_ascii_alphabetic()).map(|part| {
        let (count, kind) = part.split_at(part.len() - 1);
        (count.parse().expect("the table is tested"), kind.as_bytes()[0])
    })
}

fn has_structure(characters: &[u8], structure: &str) -> bool {
    let mut rest = &characters[4..];
    characters[2..4].iter().all(u8::is_ascii_digit)
        && parts(structure).all(|(count, kind)| {
            let (part, after) = rest.split_at(count);
            rest = after;
            part.iter().all(|character| match kind {
                b'n' => character.is_ascii_digit(),
                b'a' => character.is_ascii_uppercase(),
                _ => true,
            })
        })
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
    let is_grouped = match stretch.groups {
        [_] => true,
        [first, middle @ .., last] => {
            let fours = || middle.iter().all(|group| group.length == 4) && last.length <= 4;
            let american = || matches!(middle, [only] if only.length == 6) && matches!(last.length, 4 | 5);
            first.length == 4 && (fours() || american())
        }
        [] => false,
    };
    let mut separators = stretch.separators();
    let separator = separators.next().unwrap_or(SPACE);
    (12..=19).contains(&stretch.digits.len())
        && is_grouped
        && matches!(separator, SPACE | HYPHEN)
        && separators.all(|other| other == separator)
        && !stretch.has_plus
        && is_known_network(stretch.digits)
        && luhn(stretch.digits)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_whole() {
        assert!(ACCOUNTS.is_sorted());
        for (country, structure) in ACCOUNTS {
            let length = 4 + parts(structure).map(|(count, _)| count).sum::<usize>();
            assert!((15..=LONGEST_IBAN).contains(&length), "{country}");
        }
    }
}
