//! National identifiers of the member states, each proved by its check digits.
//!
//! An identifier with a date of birth or a check letter in it proves itself (one number in some hundreds passes by
//! chance). Where the check alone would let one number in ten pass (tax and social-security numbers of nine to eleven
//! plain digits), a word that announces the number is asked for as well.
//!
//! Algorithms: the national descriptions collected in the `python-stdnum` documentation and in the OECD's TIN pages.
//! Malta's and Luxembourg's older numbers have no check digits: Malta's counts only after a word.

use std::sync::LazyLock;

use regex::Regex;

use super::banking::luhn;
use super::numbers::{Stretch, number};
use super::{Findings, PersonalData, is_announced};

/// Stems of the words that announce an identifier, in the languages of the countries that need one.
const CUES: [&str; 33] = [
    "bsn",
    "burgerservice",
    "sofi",
    "nif",
    "contribuinte",
    "fiscal",
    "taj",
    "adóazonosító",
    "adószám",
    "oib",
    "steuer",
    "idnr",
    "identifikationsnummer",
    "личен",
    "егн",
    "аφμ",
    "αφμ",
    "αμκα",
    "pps",
    "psp",
    "uimh",
    "id",
    "karta",
    "identit",
    "социал",
    "vat",
    "sozialversicherung",
    "svnr",
    "személyi",
    "matricule",
    "bis",
    "cnp",
    "davčna",
];

/// Whether a stretch of digits is an identifier.
pub fn is_identifier(stretch: &Stretch) -> bool {
    if stretch.has_plus || is_announced(stretch.text, stretch.start, 1, &["isbn", "issn", "ean", "doi"]) {
        return false;
    }
    let whole = |length: usize| stretch.lengths == [length];
    let joined = |lengths: &[usize], separators: &[&str]| stretch.has_form(lengths, separators);
    let digits = stretch.digits.as_slice();
    let announced = || is_announced(stretch.text, stretch.start, 6, &CUES);
    match digits.len() {
        9 | 10 if joined(&[6, digits.len() - 6], &["/"]) => is_czechoslovak(digits),
        9 => {
            whole(9)
                && announced()
                && (is_dutch(digits)
                    || is_portuguese(digits)
                    || is_hungarian_insurance(digits)
                    || is_greek_tax(digits))
        }
        10 if joined(&[6, 4], &["-"]) => is_danish(digits) || is_swedish(digits),
        10 if joined(&[4, 6], &[" "]) => is_austrian(digits),
        10 => {
            whole(10)
                && (is_bulgarian(digits) || announced() && (is_hungarian_tax(digits) || is_austrian(digits)))
        }
        11 if joined(&[6, 5], &["-"]) => is_latvian(digits),
        11 if joined(&[2, 2, 2, 3, 2], &[".", "-", " "]) || joined(&[6, 3, 2], &["-", " ", "."]) => {
            is_belgian(digits)
        }
        11 if joined(&[1, 6, 4], &["-", " "]) => is_hungarian_person(digits),
        11 => {
            whole(11)
                && (is_polish(digits)
                    || is_baltic(digits)
                    || is_greek_insurance(digits)
                    || is_belgian(digits)
                    || announced() && (is_croatian(digits) || is_german(digits)))
        }
        12 if joined(&[8, 4], &["-"]) => is_swedish(&digits[2..]),
        12 => {
            whole(12)
                && is_date_of(number(&digits[..4]), number(&digits[4..6]), number(&digits[6..8]))
                && is_swedish(&digits[2..])
        }
        13 => whole(13) && (is_romanian(digits) || is_yugoslav(digits) || is_luxembourgish(digits)),
        15 => (whole(15) || joined(&[1, 2, 2, 2, 3, 3, 2], &[" "])) && is_french(digits, 0),
        _ => false,
    }
}

static WITH_LETTERS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?-u:\b)[0-9A-Z](?:[0-9A-Z]|[\-+ ][0-9A-Z]){6,20}(?-u:\b)").expect("a fixed pattern")
});

/// The form of an identifier with letters, its proof, and whether a word has to announce it.
struct Lettered {
    form: Regex,
    is_proved: fn(&[u8]) -> bool,
    asks_for_word: bool,
}

static LETTERED: LazyLock<Vec<Lettered>> = LazyLock::new(|| {
    let lettered = |pattern: &str, is_proved: fn(&[u8]) -> bool, asks_for_word| {
        let form = Regex::new(&format!("^(?:{pattern})$")).expect("a fixed pattern");
        Lettered { form, is_proved, asks_for_word }
    };
    vec![
        lettered("[0-9]{6}[-+A-FU-Y][0-9]{3}[0-9A-Y]", is_finnish, false),
        lettered("[0-9]{8}-?[A-Z]", is_spanish, false),
        lettered("[XYZ]-?[0-9]{7}-?[A-Z]", is_spanish_foreigner, false),
        lettered("[0-9]{7}[A-W][A-IW]?", is_irish, false),
        lettered("[0-9]{8}[A-Z]", is_cypriot, true),
        // Malta: no check digits.
        lettered("[0-9]{7}[MGAPLHBZ]", |_| true, true),
        lettered(
            "[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]",
            is_italian,
            false,
        ),
        lettered("[12] ?[0-9]{2} ?[0-9]{2} ?2[AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", is_corsican, false),
    ]
});

/// Identifiers with letters in them, looked for in whole words.
pub fn find_with_letters(text: &str, findings: &mut Findings) {
    let candidates = WITH_LETTERS.find_iter(text).filter(|found| {
        found.as_str().bytes().filter(u8::is_ascii_digit).count() >= 7
            || found.len() == 16 && found.as_str().bytes().any(|byte| byte.is_ascii_digit())
    });
    for found in candidates {
        let whole = found.range();
        // A run of capital words and numbers, or one word of it.
        let mut parts = vec![whole.clone()];
        if found.as_str().contains(' ') {
            let mut start = whole.start;
            for part in found.as_str().split(' ') {
                parts.push(start..start + part.len());
                start += part.len() + 1;
            }
        }
        for part in parts {
            let word = &text[part.clone()];
            let compact: Vec<u8> = word.bytes().filter(|byte| !matches!(byte, b' ')).collect();
            let is_match = LETTERED.iter().any(|lettered| {
                lettered.form.is_match(word)
                    && (lettered.is_proved)(&compact)
                    && (!lettered.asks_for_word || is_announced(text, part.start, 6, &CUES))
            });
            if is_match {
                findings.add(part, PersonalData::NationalIdentifier);
            }
        }
    }
}

fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| u32::from(*digit) * weight).sum()
}

fn is_date_of(year: u64, month: u64, day: u64) -> bool {
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) => 29,
        2 => 28,
        1..=12 => 31,
        _ => return false,
    };
    (1..=days).contains(&day)
}

fn pair(digits: &[u8], place: usize) -> u64 {
    number(&digits[place..place + 2])
}

/// BG, ЕГН: YYMMDD (month + 20 before 1900, + 40 from 2000), mod 11.
fn is_bulgarian(digits: &[u8]) -> bool {
    let month = match pair(digits, 2) {
        month @ 1..=12 => month,
        month @ 21..=32 => month - 20,
        month @ 41..=52 => month - 40,
        _ => return false,
    };
    let check = weighted(digits, &[2, 4, 8, 5, 10, 9, 7, 3, 6]) % 11 % 10;
    is_date_of(pair(digits, 0), month, pair(digits, 4)) && check == u32::from(digits[9])
}

/// CZ and SK, rodné číslo: YYMMDD/SSSC, divisible by 11 (nine digits, without check, before 1954).
fn is_czechoslovak(digits: &[u8]) -> bool {
    let month = match pair(digits, 2) {
        month @ 1..=12 => month,
        month @ 21..=32 => month - 20,
        month @ 51..=62 => month - 50,
        month @ 71..=82 => month - 70,
        _ => return false,
    };
    let checked = match digits.len() {
        9 => pair(digits, 0) < 54,
        _ => number(digits).is_multiple_of(11) || number(&digits[..9]) % 11 == 10 && digits[9] == 0,
    };
    checked && is_date_of(pair(digits, 0), month, pair(digits, 4))
}

/// DK, CPR: DDMMYY-SSSS; numbers given since 2007 need not satisfy mod 11, so the date and the form must do.
fn is_danish(digits: &[u8]) -> bool {
    is_date_of(pair(digits, 4), pair(digits, 2), pair(digits, 0))
}

/// SE, personnummer: YYMMDD-SSSC, Luhn; coordination numbers add 60 to the day.
fn is_swedish(digits: &[u8]) -> bool {
    let day = pair(digits, 4);
    is_date_of(pair(digits, 0), pair(digits, 2), if day > 60 { day - 60 } else { day }) && luhn(digits)
}

/// AT, Sozialversicherungsnummer: SSSC DDMMYY, mod 11.
fn is_austrian(digits: &[u8]) -> bool {
    let sum = weighted(digits, &[3, 7, 9, 0, 5, 8, 4, 2, 1, 6]) % 11;
    digits[0] != 0
        && sum == u32::from(digits[3])
        && is_date_of(pair(digits, 8), pair(digits, 6), pair(digits, 4))
}

/// LV, personas kods: DDMMYY-XXXXX with mod 11, or 32… without meaning (since 2017).
fn is_latvian(digits: &[u8]) -> bool {
    if pair(digits, 0) == 32 {
        return true;
    }
    let sum = weighted(digits, &[1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    is_date_of(pair(digits, 4), pair(digits, 2), pair(digits, 0))
        && (1101 - sum) % 11 % 10 == u32::from(digits[10])
}

/// BE, rijksregisternummer: YYMMDD SSS CC, 97 minus the remainder of the rest (with a 2 before it from 2000).
fn is_belgian(digits: &[u8]) -> bool {
    let (body, check) = (number(&digits[..9]), number(&digits[9..]));
    let checked = 97 - body % 97 == check || 97 - (2_000_000_000 + body) % 97 == check;
    checked && is_date_of(pair(digits, 0), pair(digits, 2) % 20, pair(digits, 4))
}

/// HU, személyi azonosító: G-YYMMDD-SSSC, mod 11 (weights turned round in 1997).
fn is_hungarian_person(digits: &[u8]) -> bool {
    let rising = weighted(digits, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) % 11;
    let falling = weighted(digits, &[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]) % 11;
    let check = u32::from(digits[10]);
    (1..=8).contains(&digits[0])
        && is_date_of(pair(digits, 1), pair(digits, 3), pair(digits, 5))
        && (rising == check || falling == check)
}

/// HU, adóazonosító jel: 8, days since 1867, serial, mod 11.
fn is_hungarian_tax(digits: &[u8]) -> bool {
    digits[0] == 8 && weighted(digits, &[1, 2, 3, 4, 5, 6, 7, 8, 9]) % 11 == u32::from(digits[9])
}

/// HU, TAJ: weights 3 and 7, mod 10.
fn is_hungarian_insurance(digits: &[u8]) -> bool {
    weighted(digits, &[3, 7, 3, 7, 3, 7, 3, 7]) % 10 == u32::from(digits[8])
}

/// PL, PESEL: YYMMDD (month + 20 for each century from 2000), weights 1 3 7 9.
fn is_polish(digits: &[u8]) -> bool {
    let sum = weighted(digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]);
    is_date_of(pair(digits, 0), pair(digits, 2) % 20, pair(digits, 4)) && sum.is_multiple_of(10)
}

/// EE, isikukood, and LT, asmens kodas: G YYMMDD SSS C, mod 11 in two rounds.
fn is_baltic(digits: &[u8]) -> bool {
    let first = weighted(digits, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 1]) % 11;
    let second = weighted(digits, &[3, 4, 5, 6, 7, 8, 9, 1, 2, 3]) % 11;
    let check = if first < 10 { first } else { second % 10 };
    (1..=6).contains(&digits[0])
        && is_date_of(pair(digits, 1), pair(digits, 3), pair(digits, 5))
        && check == u32::from(digits[10])
}

/// GR, AMKA: DDMMYY SSSS C, Luhn.
fn is_greek_insurance(digits: &[u8]) -> bool {
    is_date_of(pair(digits, 4), pair(digits, 2), pair(digits, 0)) && luhn(digits)
}

/// GR, ΑΦΜ: powers of two, mod 11.
fn is_greek_tax(digits: &[u8]) -> bool {
    weighted(digits, &[256, 128, 64, 32, 16, 8, 4, 2]) % 11 % 10 == u32::from(digits[8])
}

/// HR, OIB, and the second half of DE: ISO 7064, mod 11, 10.
fn is_croatian(digits: &[u8]) -> bool {
    let mut product = 10;
    for digit in &digits[..10] {
        let sum = (u32::from(*digit) + product) % 10;
        product = (if sum == 0 { 10 } else { sum }) * 2 % 11;
    }
    (11 - product) % 10 == u32::from(digits[10])
}

/// DE, Steuer-Identifikationsnummer: no leading zero, one digit of the first ten two or three times, mod 11, 10.
fn is_german(digits: &[u8]) -> bool {
    let mut times = [0; 10];
    digits[..10].iter().for_each(|digit| times[usize::from(*digit)] += 1);
    let repeated: Vec<i32> = times.into_iter().filter(|count| *count > 1).collect();
    digits[0] != 0 && matches!(repeated[..], [2 | 3]) && is_croatian(digits)
}

/// NL, burgerservicenummer: the eleven test.
fn is_dutch(digits: &[u8]) -> bool {
    let sum = weighted(&digits[..8], &[9, 8, 7, 6, 5, 4, 3, 2]);
    sum > 0 && sum % 11 == u32::from(digits[8])
}

/// PT, NIF: mod 11.
fn is_portuguese(digits: &[u8]) -> bool {
    let remainder = weighted(&digits[..8], &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    let check = if remainder < 2 { 0 } else { 11 - remainder };
    matches!(digits[0], 1..=3 | 5 | 6 | 8 | 9) && check == u32::from(digits[8])
}

/// RO, CNP: S YYMMDD county SSS C, mod 11.
fn is_romanian(digits: &[u8]) -> bool {
    let check = weighted(digits, &[2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9]) % 11;
    (1..=8).contains(&digits[0])
        && is_date_of(pair(digits, 1), pair(digits, 3), pair(digits, 5))
        && matches!(pair(digits, 7), 1..=48 | 51 | 52 | 70)
        && (if check == 10 { 1 } else { check }) == u32::from(digits[12])
}

/// SI, EMŠO (and the older JMBG of HR): DDMMYYY RR SSS C, mod 11.
fn is_yugoslav(digits: &[u8]) -> bool {
    let remainder = weighted(digits, &[7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    let check = if remainder == 0 { 0 } else { 11 - remainder };
    is_date_of(number(&digits[4..7]), pair(digits, 2), pair(digits, 0))
        && matches!(digits[4], 0 | 8 | 9)
        && check == u32::from(digits[12])
}

/// LU, matricule: YYYYMMDD SSS, Luhn, Verhoeff (only Luhn is asked for; the date and the century do the rest).
fn is_luxembourgish(digits: &[u8]) -> bool {
    let year = number(&digits[..4]);
    (1900..=2030).contains(&year) && is_date_of(year, pair(digits, 4), pair(digits, 6)) && luhn(&digits[..12])
}

/// FR, NIR: S YY MM department commune serial, key 97 minus the remainder. `subtract` stands for the letter of Corsica.
fn is_french(digits: &[u8], subtract: u64) -> bool {
    let body = number(&digits[..13]);
    matches!(digits[0], 1 | 2)
        && matches!(pair(digits, 3), 1..=12 | 20..=42 | 50..=99)
        && body > subtract
        && 97 - (body - subtract) % 97 == number(&digits[13..])
}

/// FR, NIR of Corsica: department 2A counts as 19, 2B as 18 (the number as 20 with a million or two taken off).
fn is_corsican(characters: &[u8]) -> bool {
    let subtract = if characters.contains(&b'A') { 1_000_000 } else { 2_000_000 };
    let digits: Vec<u8> = characters
        .iter()
        .map(|character| if character.is_ascii_digit() { character - b'0' } else { 0 })
        .collect();
    digits.len() == 15 && is_french(&digits, subtract)
}

/// FI, henkilötunnus: DDMMYY century SSS check, mod 31.
fn is_finnish(characters: &[u8]) -> bool {
    const CHECKS: &[u8; 31] = b"0123456789ABCDEFHJKLMNPRSTUVWXY";
    let digits: Vec<u8> = characters[..6].iter().chain(&characters[7..10]).map(|byte| byte - b'0').collect();
    is_date_of(pair(&digits, 4), pair(&digits, 2), pair(&digits, 0))
        && CHECKS[(number(&digits) % 31) as usize] == characters[10]
}

const SPANISH_CHECKS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";

/// ES, DNI: eight digits, letter by mod 23.
fn is_spanish(characters: &[u8]) -> bool {
    let digits: Vec<u8> = characters[..8].iter().map(|byte| byte - b'0').collect();
    characters.last() == Some(&SPANISH_CHECKS[(number(&digits) % 23) as usize])
}

/// ES, NIE: X, Y or Z for 0, 1, 2, then as the DNI.
fn is_spanish_foreigner(characters: &[u8]) -> bool {
    let digits = characters[1..].iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0');
    let digits: Vec<u8> = std::iter::once(characters[0] - b'X').chain(digits).collect();
    characters.last() == Some(&SPANISH_CHECKS[(number(&digits) % 23) as usize])
}

/// IE, PPSN: seven digits, check letter by mod 23, since 2013 a second letter that counts nine times.
fn is_irish(characters: &[u8]) -> bool {
    let digits: Vec<u8> = characters[..7].iter().map(|byte| byte - b'0').collect();
    let second = match characters.get(8) {
        Some(b'W') | None => 0,
        Some(letter) => u32::from(letter - b'A') + 1,
    };
    let sum = weighted(&digits, &[8, 7, 6, 5, 4, 3, 2]) + 9 * second;
    b"WABCDEFGHIJKLMNOPQRSTUV"[(sum % 23) as usize] == characters[7]
}

/// CY, TIC: eight digits, letter by mod 26 with translated odd places.
fn is_cypriot(characters: &[u8]) -> bool {
    const TRANSLATED: [u32; 10] = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21];
    let sum: u32 = characters[..8]
        .iter()
        .enumerate()
        .map(|(place, byte)| match place % 2 {
            0 => TRANSLATED[usize::from(byte - b'0')],
            _ => u32::from(byte - b'0'),
        })
        .sum();
    u32::from(characters[8] - b'A') == sum % 26
}

/// IT, codice fiscale: check letter by mod 26 with translated odd places (DM 23.12.1976).
fn is_italian(characters: &[u8]) -> bool {
    const ODD: [u32; 26] =
        [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23];
    let value = |byte: u8| u32::from(if byte.is_ascii_digit() { byte - b'0' } else { byte - b'A' });
    let sum: u32 = characters[..15]
        .iter()
        .enumerate()
        .map(|(place, &byte)| if place % 2 == 0 { ODD[value(byte) as usize] } else { value(byte) })
        .sum();
    u32::from(characters[15] - b'A') == sum % 26
}
