//! Check digits of national identifiers, one function a number.
//!
//! Algorithms: the national descriptions collected in the `python-stdnum` documentation and in the OECD's TIN pages.
//! Malta's numbers have no check digits.

use super::banking::luhn;
use super::numbers::number;

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

/// The last year of this century that anybody is taken to be born in: identifiers with a century in them whose year
/// lies behind it, or before 1900, belong to nobody alive.
const LAST_YEAR: u64 = 30;

/// BG, ЕГН: YYMMDD (month + 40 from 2000; + 20 before 1900), mod 11.
pub fn is_bulgarian(digits: &[u8]) -> bool {
    let month = match pair(digits, 2) {
        month @ 1..=12 => month,
        month @ 41..=52 if pair(digits, 0) <= LAST_YEAR => month - 40,
        _ => return false,
    };
    let check = weighted(digits, &[2, 4, 8, 5, 10, 9, 7, 3, 6]) % 11 % 10;
    is_date_of(pair(digits, 0), month, pair(digits, 4)) && check == u32::from(digits[9])
}

/// CZ and SK, rodné číslo: YYMMDD/SSSC (month + 50 for women, + 20 more since 2004), divisible by 11 (nine digits,
/// without check, before 1954).
pub fn is_czechoslovak(digits: &[u8]) -> bool {
    let year = pair(digits, 0);
    let month = match pair(digits, 2) {
        month @ 1..=12 => month,
        month @ 51..=62 => month - 50,
        month @ 21..=32 if year <= LAST_YEAR => month - 20,
        month @ 71..=82 if year <= LAST_YEAR => month - 70,
        _ => return false,
    };
    let checked = match digits.len() {
        9 => year < 54,
        _ if !(54..100).contains(&year) && year > LAST_YEAR => false,
        _ => number(digits).is_multiple_of(11) || number(&digits[..9]) % 11 == 10 && digits[9] == 0,
    };
    checked && is_date_of(pair(digits, 0), month, pair(digits, 4))
}

/// DK, CPR: DDMMYY-SSSS; numbers given since 2007 need not satisfy mod 11, so the date and the form must do.
pub fn is_danish(digits: &[u8]) -> bool {
    is_date_of(pair(digits, 4), pair(digits, 2), pair(digits, 0))
}

/// DK, CPR: mod 11 as well, which numbers given before 2007 satisfy.
pub fn is_danish_with_check(digits: &[u8]) -> bool {
    is_danish(digits) && weighted(digits, &[4, 3, 2, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11)
}

/// SE, personnummer: YYMMDD-SSSC, Luhn; coordination numbers add 60 to the day.
pub fn is_swedish(digits: &[u8]) -> bool {
    let day = pair(digits, 4);
    is_date_of(pair(digits, 0), pair(digits, 2), if day > 60 { day - 60 } else { day }) && luhn(digits)
}

/// The same with the century before it.
pub fn is_swedish_with_century(digits: &[u8]) -> bool {
    matches!(pair(digits, 0), 18..=20) && is_swedish(&digits[2..])
}

/// AT, Sozialversicherungsnummer: SSSC DDMMYY, mod 11.
pub fn is_austrian(digits: &[u8]) -> bool {
    let sum = weighted(digits, &[3, 7, 9, 0, 5, 8, 4, 2, 1, 6]) % 11;
    digits[0] != 0
        && sum == u32::from(digits[3])
        && is_date_of(pair(digits, 8), pair(digits, 6), pair(digits, 4))
}

/// LV, personas kods: DDMMYY-XXXXX with mod 11, or 32… without meaning (since 2017).
pub fn is_latvian(digits: &[u8]) -> bool {
    pair(digits, 0) == 32 || is_latvian_with_date(digits)
}

pub fn is_latvian_with_date(digits: &[u8]) -> bool {
    let sum = weighted(digits, &[1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    is_date_of(pair(digits, 4), pair(digits, 2), pair(digits, 0))
        && (1101 - sum) % 11 % 10 == u32::from(digits[10])
}

/// BE, rijksregisternummer: YYMMDD SSS CC, 97 minus the remainder of the rest (with a 2 before it from 2000).
pub fn is_belgian(digits: &[u8]) -> bool {
    let (body, check) = (number(&digits[..9]), number(&digits[9..]));
    let checked = 97 - body % 97 == check || 97 - (2_000_000_000 + body) % 97 == check;
    checked && is_date_of(pair(digits, 0), pair(digits, 2) % 20, pair(digits, 4))
}

/// HU, személyi azonosító: G-YYMMDD-SSSC, mod 11 (weights turned round in 1997).
pub fn is_hungarian_person(digits: &[u8]) -> bool {
    let rising = weighted(digits, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) % 11;
    let falling = weighted(digits, &[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]) % 11;
    let check = u32::from(digits[10]);
    (1..=8).contains(&digits[0])
        && is_date_of(pair(digits, 1), pair(digits, 3), pair(digits, 5))
        && (rising == check || falling == check)
}

/// HU, adóazonosító jel: 8, days since 1867, serial, mod 11.
pub fn is_hungarian_tax(digits: &[u8]) -> bool {
    digits[0] == 8 && weighted(digits, &[1, 2, 3, 4, 5, 6, 7, 8, 9]) % 11 == u32::from(digits[9])
}

/// HU, TAJ: weights 3 and 7, mod 10.
pub fn is_hungarian_insurance(digits: &[u8]) -> bool {
    weighted(digits, &[3, 7, 3, 7, 3, 7, 3, 7]) % 10 == u32::from(digits[8])
}

/// PL, PESEL: YYMMDD (month + 20 from 2000), weights 1 3 7 9.
pub fn is_polish(digits: &[u8]) -> bool {
    let month = match pair(digits, 2) {
        month @ 21..=32 if pair(digits, 0) <= LAST_YEAR => month - 20,
        month => month,
    };
    let sum = weighted(digits, &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1]);
    is_date_of(pair(digits, 0), month, pair(digits, 4)) && sum.is_multiple_of(10)
}

/// PL, NIP: mod 11, never 10.
pub fn is_polish_tax(digits: &[u8]) -> bool {
    weighted(digits, &[6, 5, 7, 2, 3, 4, 5, 6, 7]) % 11 == u32::from(digits[9])
}

/// EE, isikukood, and LT, asmens kodas: G YYMMDD SSS C, mod 11 in two rounds.
pub fn is_baltic(digits: &[u8]) -> bool {
    let first = weighted(digits, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 1]) % 11;
    let second = weighted(digits, &[3, 4, 5, 6, 7, 8, 9, 1, 2, 3]) % 11;
    let check = if first < 10 { first } else { second % 10 };
    let is_of_now = match digits[0] {
        3 | 4 => true,
        5 | 6 => pair(digits, 1) <= LAST_YEAR,
        _ => false,
    };
    is_of_now
        && is_date_of(pair(digits, 1), pair(digits, 3), pair(digits, 5))
        && check == u32::from(digits[10])
}

/// GR, AMKA: DDMMYY SSSS C, Luhn.
pub fn is_greek_insurance(digits: &[u8]) -> bool {
    is_date_of(pair(digits, 4), pair(digits, 2), pair(digits, 0)) && luhn(digits)
}

/// GR, ΑΦΜ: powers of two, mod 11.
pub fn is_greek_tax(digits: &[u8]) -> bool {
    weighted(digits, &[256, 128, 64, 32, 16, 8, 4, 2]) % 11 % 10 == u32::from(digits[8])
}

/// HR, OIB, and the second half of DE: ISO 7064, mod 11, 10.
pub fn is_croatian(digits: &[u8]) -> bool {
    let mut product = 10;
    for digit in &digits[..10] {
        let sum = (u32::from(*digit) + product) % 10;
        product = (if sum == 0 { 10 } else { sum }) * 2 % 11;
    }
    (11 - product) % 10 == u32::from(digits[10])
}

/// DE, Steuer-Identifikationsnummer: no leading zero, one digit of the first ten two or three times, mod 11, 10.
pub fn is_german(digits: &[u8]) -> bool {
    let mut times = [0; 10];
    digits[..10].iter().for_each(|digit| times[usize::from(*digit)] += 1);
    let repeated: Vec<i32> = times.into_iter().filter(|count| *count > 1).collect();
    digits[0] != 0 && matches!(repeated[..], [2 | 3]) && is_croatian(digits)
}

/// NL, burgerservicenummer: the eleven test.
pub fn is_dutch(digits: &[u8]) -> bool {
    let sum = weighted(&digits[..8], &[9, 8, 7, 6, 5, 4, 3, 2]);
    sum > 0 && sum % 11 == u32::from(digits[8])
}

/// PT, NIF: mod 11.
pub fn is_portuguese(digits: &[u8]) -> bool {
    let remainder = weighted(&digits[..8], &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    let check = if remainder < 2 { 0 } else { 11 - remainder };
    matches!(digits[0], 1..=3 | 5 | 6 | 8 | 9) && check == u32::from(digits[8])
}

/// RO, CNP: S YYMMDD county SSS C, mod 11.
pub fn is_romanian(digits: &[u8]) -> bool {
    let check = weighted(digits, &[2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9]) % 11;
    (1..=8).contains(&digits[0])
        && is_date_of(pair(digits, 1), pair(digits, 3), pair(digits, 5))
        && matches!(pair(digits, 7), 1..=48 | 51 | 52 | 70)
        && (if check == 10 { 1 } else { check }) == u32::from(digits[12])
}

/// SI, EMŠO (and the older JMBG of HR): DDMMYYY RR SSS C, mod 11.
pub fn is_yugoslav(digits: &[u8]) -> bool {
    let remainder = weighted(digits, &[7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    let check = if remainder == 0 { 0 } else { 11 - remainder };
    is_date_of(number(&digits[4..7]), pair(digits, 2), pair(digits, 0))
        && matches!(digits[4], 0 | 8 | 9)
        && check == u32::from(digits[12])
}

/// SI, davčna številka: mod 11.
pub fn is_slovenian_tax(digits: &[u8]) -> bool {
    let check = 11 - weighted(&digits[..7], &[8, 7, 6, 5, 4, 3, 2]) % 11;
    digits[0] != 0 && check != 11 && check % 10 == u32::from(digits[7])
}

/// LU, matricule: YYYYMMDD SSS, Luhn, Verhoeff (only Luhn is asked for; the date and the century do the rest).
pub fn is_luxembourgish(digits: &[u8]) -> bool {
    let year = number(&digits[..4]);
    (1900..=2030).contains(&year) && is_date_of(year, pair(digits, 4), pair(digits, 6)) && luhn(&digits[..12])
}

/// FR, NIR: S YY MM department commune serial, key 97 minus the remainder. `subtract` stands for the letter of Corsica.
pub fn is_french(digits: &[u8], subtract: u64) -> bool {
    let body = number(&digits[..13]);
    matches!(digits[0], 1 | 2)
        && matches!(pair(digits, 3), 1..=12 | 20..=42 | 50..=99)
        && body > subtract
        && 97 - (body - subtract) % 97 == number(&digits[13..])
}

/// FR, NIR of Corsica: department 2A counts as 19, 2B as 18 (the number as 20 with a million or two taken off).
pub fn is_corsican(characters: &[u8]) -> bool {
    let subtract = if characters.contains(&b'A') { 1_000_000 } else { 2_000_000 };
    let digits: Vec<u8> = characters
        .iter()
        .map(|character| if character.is_ascii_digit() { character - b'0' } else { 0 })
        .collect();
    digits.len() == 15 && is_french(&digits, subtract)
}

/// FI, henkilötunnus: DDMMYY century SSS check, mod 31.
pub fn is_finnish(characters: &[u8]) -> bool {
    const CHECKS: &[u8; 31] = b"0123456789ABCDEFHJKLMNPRSTUVWXY";
    let digits: Vec<u8> = characters[..6].iter().chain(&characters[7..10]).map(|byte| byte - b'0').collect();
    is_date_of(pair(&digits, 4), pair(&digits, 2), pair(&digits, 0))
        && CHECKS[(number(&digits) % 31) as usize] == characters[10]
}

const SPANISH_CHECKS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";

/// ES, DNI: eight digits, letter by mod 23.
pub fn is_spanish(characters: &[u8]) -> bool {
    let digits: Vec<u8> = characters[..8].iter().map(|byte| byte - b'0').collect();
    characters.last() == Some(&SPANISH_CHECKS[(number(&digits) % 23) as usize])
}

/// ES, NIE: X, Y or Z for 0, 1, 2, then as the DNI.
pub fn is_spanish_foreigner(characters: &[u8]) -> bool {
    let digits = characters[1..].iter().filter(|byte| byte.is_ascii_digit()).map(|byte| byte - b'0');
    let digits: Vec<u8> = std::iter::once(characters[0] - b'X').chain(digits).collect();
    characters.last() == Some(&SPANISH_CHECKS[(number(&digits) % 23) as usize])
}

/// IE, PPSN: seven digits, check letter by mod 23, since 2013 a second letter that counts nine times.
pub fn is_irish(characters: &[u8]) -> bool {
    let digits: Vec<u8> = characters[..7].iter().map(|byte| byte - b'0').collect();
    let second = match characters.get(8) {
        Some(b'W') | None => 0,
        Some(letter) => u32::from(letter - b'A') + 1,
    };
    let sum = weighted(&digits, &[8, 7, 6, 5, 4, 3, 2]) + 9 * second;
    b"WABCDEFGHIJKLMNOPQRSTUV"[(sum % 23) as usize] == characters[7]
}

/// CY, TIC: eight digits, letter by mod 26 with translated odd places.
pub fn is_cypriot(characters: &[u8]) -> bool {
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
pub fn is_italian(characters: &[u8]) -> bool {
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
