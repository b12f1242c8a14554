//! Telephone numbers: international form of any country, national forms of the 27 by `data/phone_numbers.toml`.

use std::sync::LazyLock;

use languages::Language;
use serde::Deserialize;

use super::numbers::{DOT, HYPHEN, MOST_DIGITS, SLASH, SPACE, Separators, Stretch};
use super::words::Name;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plans {
    other_calling_codes: Vec<String>,
    country: Vec<Country>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Country {
    #[serde(rename = "code")]
    _code: String,
    calling_code: String,
    trunks: Vec<String>,
    first_group: (usize, usize),
    #[serde(default)]
    trunk_stands_apart: bool,
    numbers: Vec<Numbers>,
    languages: Vec<Language>,
}

/// National numbers that begin alike.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    starts: Vec<String>,
    digits: (usize, usize),
}

static PLANS: LazyLock<Plans> = LazyLock::new(|| {
    toml::from_str(include_str!("../data/phone_numbers.toml"))
        .expect("data/phone_numbers.toml is built in and tested")
});

/// "1. 2. 2026"
const DOT_SPACE: Separators = DOT | SPACE;

/// Digits after the calling code, in countries whose plan is not in the table (ITU-T E.164: at most 15 with the code).
const FOREIGN_DIGITS: std::ops::RangeInclusive<usize> = 7..=12;

/// Still shorter ones count only right after a word that names them.
const LEAST_NATIONAL_DIGITS: usize = 7;

/// Numbers without their area code, right after a word that names them.
const LOCAL_DIGITS: std::ops::RangeInclusive<usize> = 6..=11;

/// Shorter numbers than this without a word that names them are something else.
const LEAST_UNNAMED_DIGITS: usize = 9;

/// Shorter numbers than this are looked for by the plans of the text's own countries alone.
const LEAST_FOREIGN_DIGITS: usize = 8;

/// Whether a stretch of digits is a telephone number, in a text of this language, where the words around it call it so.
/// `name` and `is_right_after_name` are asked only where they decide.
pub fn is_phone_number(
    stretch: &Stretch,
    language: Option<Language>,
    name: impl Fn() -> Option<Name>,
    is_right_after_name: impl Fn() -> bool,
) -> bool {
    let mut digits = [0; MOST_DIGITS];
    let digits = &mut digits[..stretch.digits.len()];
    digits.iter_mut().zip(stretch.digits).for_each(|(character, digit)| *character = b'0' + digit);
    let digits = std::str::from_utf8(digits).expect("digits");
    if stretch.has_plus {
        return is_international(digits);
    }
    if digits.starts_with("00") {
        return is_international_with_zeros(stretch, digits) && !is_named_otherwise(stretch, name());
    }
    if is_north_american(stretch) && speaks_english(language) {
        return has_brackets(stretch) || matches!(name(), None | Some(Name::Phone));
    }
    if looks_dialled(stretch) && countries_of(language).any(|country| country.has_area(stretch, digits)) {
        return matches!(name(), None | Some(Name::Phone)) && !looks_like_something_else(stretch);
    }
    name() == Some(Name::Phone)
        && !looks_like_something_else(stretch)
        && (fits_a_plan(digits, language) || LOCAL_DIGITS.contains(&digits.len()) && is_right_after_name())
}

fn countries_of(language: Option<Language>) -> impl Iterator<Item = &'static Country> {
    let speaks =
        move |country: &&Country| language.is_none_or(|language| country.languages.contains(&language));
    PLANS.country.iter().filter(speaks)
}

/// What a word for telephone asks of a number: the plan of a country where the language is spoken, or of any if it is
/// long enough to say something.
fn fits_a_plan(digits: &str, language: Option<Language>) -> bool {
    match digits.len() {
        ..LEAST_NATIONAL_DIGITS => false,
        LEAST_NATIONAL_DIGITS..LEAST_FOREIGN_DIGITS => {
            countries_of(language).any(|country| country.has_national(digits))
        }
        _ => PLANS
            .country
            .iter()
            .any(|country| country.has_national(digits) || country.has_international(digits)),
    }
}

/// `0049 30 123456`: a country of the table alone, because much else begins with two zeros.
fn is_international_with_zeros(stretch: &Stretch, digits: &str) -> bool {
    stretch.groups[0].length >= 2
        && PLANS.country.iter().any(|country| country.has_international(&digits[2..]))
        && !looks_like_something_else(stretch)
}

fn is_named_otherwise(stretch: &Stretch, name: Option<Name>) -> bool {
    match name {
        Some(Name::Other | Name::Identifier) => true,
        // "On the card stood 0049 30 123456": digits in groups are no account.
        Some(Name::Account) => stretch.groups.len() == 1,
        _ => false,
    }
}

/// `(212) 555-0123`, 212-555-0123, 212.555.0123: no country of the 27, but in English text as frequent as theirs.
fn is_north_american(stretch: &Stretch) -> bool {
    let is_exchange = |place: usize| stretch.digits[place] >= 2;
    let is_joined = |separator| stretch.separators().all(|other| other == separator);
    stretch.has_lengths(&[3, 3, 4])
        && (has_brackets(stretch) || is_joined(HYPHEN) || is_joined(DOT))
        && is_exchange(0)
        && is_exchange(3)
}

fn has_brackets(stretch: &Stretch) -> bool {
    stretch.text[stretch.start..].starts_with('(')
}

fn speaks_english(language: Option<Language>) -> bool {
    language.is_none_or(|language| language.code() == "en")
}

/// Calling code and number, without `+` or `00`.
fn is_international(digits: &str) -> bool {
    PLANS.country.iter().any(|country| country.has_international(digits))
        || PLANS.other_calling_codes.iter().any(|code| {
            digits.strip_prefix(code.as_str()).is_some_and(|national| {
                FOREIGN_DIGITS.contains(&national.len()) && !national.starts_with("00")
            })
        })
}

impl Country {
    fn has_number(&self, national: &str) -> bool {
        let starts = self.numbers.iter().flat_map(|numbers| {
            let fits = |start: &&String| national.starts_with(start.as_str());
            numbers.starts.iter().filter(fits).map(|start| (start.len(), numbers.digits))
        });
        let longest = starts.max_by_key(|(length, _)| *length);
        longest.is_some_and(|(_, (shortest, longest))| (shortest..=longest).contains(&national.len()))
    }

    /// A number with a trunk digit whose first group is as long as an area code is.
    fn has_area(&self, stretch: &Stretch, digits: &str) -> bool {
        let trunks = || self.trunks.iter().filter_map(|trunk| digits.strip_prefix(trunk.as_str()));
        let group = stretch.groups[0].length;
        // Some write the trunk as a group of its own: "06 20 123 4567", "8 612 34567".
        let is_apart = self.trunk_stands_apart
            && self.trunks.iter().any(|trunk| trunk.len() == group)
            && stretch.groups[1].length <= 3;
        (is_apart || (self.first_group.0..=self.first_group.1).contains(&group))
            && trunks().any(|national| self.has_number(national))
    }

    /// A number as it is dialled at home.
    fn has_national(&self, digits: &str) -> bool {
        match self.trunks.as_slice() {
            [] => self.has_number(digits),
            trunks => trunks.iter().any(|trunk| {
                digits.strip_prefix(trunk.as_str()).is_some_and(|national| self.has_number(national))
            }),
        }
    }

    /// Many write the trunk digit in brackets after the calling code, and some without.
    fn has_international(&self, digits: &str) -> bool {
        digits.strip_prefix(self.calling_code.as_str()).is_some_and(|national| {
            let without_trunk =
                || self.trunks.iter().filter_map(|trunk| national.strip_prefix(trunk.as_str()));
            self.has_number(national) || without_trunk().any(|national| self.has_number(national))
        })
    }
}

/// Without a word that names it, a number must look dialled: at least nine digits, another group after the area code,
/// and no other number before it. (A lone `0` begins a decimal or a book number, and `01.234567` is a decimal as well.)
fn looks_dialled(stretch: &Stretch) -> bool {
    stretch.digits.len() >= LEAST_UNNAMED_DIGITS
        && stretch.groups.len() >= 2
        && matches!(stretch.digits[0], 0 | 8)
        && stretch.is_first()
}

/// Postal codes, dates, years, times, numbers of chemicals, results of matches.
fn looks_like_something_else(stretch: &Stretch) -> bool {
    let groups = stretch.groups;
    let length = |place: usize| groups.get(place).map_or(0, |group| group.length);
    let separator = |place: usize| groups.get(place).map_or(0, |group| group.before);

    // 01.02.2026, 1/2/26, 2026-01-02, alone or before a time.
    let is_even = separator(1) == separator(2) && matches!(separator(1), DOT | SLASH | HYPHEN | DOT_SPACE);
    let is_date = is_even
        && match (length(0), length(1), length(2)) {
            (1 | 2, 1 | 2, 4) | (4, 2, 2) => is_day_and_month(stretch),
            (2, 2, 2) => groups.len() == 3,
            _ => false,
        };
    // 1939-1945
    let is_years = groups.len() >= 2
        && groups.iter().all(|group| group.length == 4)
        && stretch.separators().any(|separator| separator & (HYPHEN | SLASH) != 0)
        && (0..groups.len()).all(|group| (1000..2100).contains(&stretch.number(4 * group, 4)));
    // 20240131
    let is_compact_date = stretch.has_lengths(&[8])
        && (1900..2100).contains(&stretch.number(0, 4))
        && (1..=12).contains(&stretch.number(4, 2))
        && (1..=31).contains(&stretch.number(6, 2));
    // 18.00-20.00
    let is_times = stretch.has_lengths(&[2, 2, 2, 2]) && separator(1) == DOT && separator(2) & HYPHEN != 0;
    // 64-17-5 (CAS)
    let is_chemical = groups.len() == 3
        && stretch.separators().all(|separator| separator == HYPHEN)
        && (length(1), length(2)) == (2, 1);
    // 20006-3700 (a postal code of the United States)
    let is_postal = stretch.has_form(&[5, 4], &[HYPHEN]) && stretch.digits[0] != 0;
    // 6-4 3-6 7-6
    let single = groups.iter().filter(|group| group.length == 1).count();
    let is_result = single > 3 || single == groups.len();
    is_postal || is_date || is_years || is_compact_date || is_times || is_chemical || is_result
}

/// The first three groups are day, month and year, or year, month and day.
fn is_day_and_month(stretch: &Stretch) -> bool {
    let lengths: Vec<usize> = stretch.groups[..3].iter().map(|group| group.length).collect();
    let first = stretch.number(0, lengths[0]);
    let second = stretch.number(lengths[0], lengths[1]);
    let third = stretch.number(lengths[0] + lengths[1], lengths[2]);
    let (day, month) = if lengths[0] == 4 { (third, second) } else { (first, second) };
    (1..=31).contains(&day) && (1..=12).contains(&month)
        || (1..=31).contains(&month) && (1..=12).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_all_27() {
        let members =
            "AT BE BG HR CY CZ DK EE FI FR DE GR HU IE IT LV LT LU MT NL PL PT RO SK SI ES SE".split(' ');
        let codes: Vec<&str> = PLANS.country.iter().map(|country| country._code.as_str()).collect();
        assert!(members.clone().count() == 27 && members.into_iter().all(|member| codes.contains(&member)));
        for country in &PLANS.country {
            assert_eq!(country.trunks.is_empty(), country.first_group == (0, 0), "{}", country._code);
            for numbers in &country.numbers {
                assert!(numbers.digits.0 <= numbers.digits.1, "{}", country._code);
                let is_digits = |start: &String| start.bytes().all(|byte| byte.is_ascii_digit());
                assert!(numbers.starts.iter().all(is_digits), "{}", country._code);
            }
        }
        let spoken = |language| PLANS.country.iter().any(|country| country.languages.contains(&language));
        assert!(Language::all().all(spoken), "every language has a country whose numbers are looked for");
    }
}
