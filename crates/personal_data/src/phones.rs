//! Telephone numbers: international form of any country, national forms of the 27 by `data/phone_numbers.toml`.

use std::sync::LazyLock;

use languages::Language;
use serde::Deserialize;

use super::is_announced;
use super::numbers::Stretch;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plans {
    cues: Vec<String>,
    country: Vec<Country>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Country {
    #[serde(rename = "code")]
    _code: String,
    calling_code: String,
    trunk: String,
    starts: Vec<String>,
    digits: (usize, usize),
    languages: Vec<Language>,
}

static PLANS: LazyLock<Plans> = LazyLock::new(|| {
    toml::from_str(include_str!("../data/phone_numbers.toml"))
        .expect("data/phone_numbers.toml is built in and tested")
});

/// ITU-T E.164: at most 15 digits; shorter than 8 with the country is no subscriber in any of the 27.
const INTERNATIONAL_DIGITS: std::ops::RangeInclusive<usize> = 8..=15;

/// Whether a stretch of digits is a telephone number, in a text of this language.
pub fn is_phone_number(stretch: &Stretch, language: Option<Language>) -> bool {
    if stretch.lengths.len() > 8 {
        return false;
    }
    if stretch.has_plus {
        return INTERNATIONAL_DIGITS.contains(&stretch.digits.len()) && stretch.digits[0] != 0;
    }
    if is_date(stretch) || is_announced(stretch.text, stretch.start, 1, &["isbn", "issn", "doi"]) {
        return false;
    }
    let digits: String = stretch.digits.iter().map(|digit| char::from(b'0' + digit)).collect();
    if let Some(rest) = digits.strip_prefix("00") {
        return PLANS.country.iter().any(|country| {
            rest.strip_prefix(country.calling_code.as_str())
                .is_some_and(|national| country.has_number(national))
        });
    }
    let here = |country: &&Country| language.is_none_or(|language| country.languages.contains(&language));
    let cues: Vec<&str> = PLANS.cues.iter().map(String::as_str).collect();
    let announced = is_announced(stretch.text, stretch.start, 4, &cues);
    PLANS.country.iter().filter(here).any(|country| {
        let national = match country.trunk.as_str() {
            "" => announced.then_some(digits.as_str()),
            trunk => digits.strip_prefix(trunk).filter(|_| announced || has_trunk_group(stretch)),
        };
        national.is_some_and(|national| country.has_number(national))
    })
}

impl Country {
    fn has_number(&self, national: &str) -> bool {
        (self.digits.0..=self.digits.1).contains(&national.len())
            && self.starts.iter().any(|start| national.starts_with(start.as_str()))
    }
}

/// Without a word that announces it, a number with a trunk digit must look dialled: at least nine digits, an area code
/// of two to five digits as its first group, another group, and no other number before it. (A lone `0` begins a decimal or a book number.)
fn has_trunk_group(stretch: &Stretch) -> bool {
    stretch.is_first
        && stretch.digits.len() >= 9
        && stretch.lengths.len() >= 2
        && (2..=5).contains(&stretch.lengths[0])
}

/// 01.02.2026, 1/2/26, 2026-01-02 at the head.
fn is_date(stretch: &Stretch) -> bool {
    let [first, second, ..] = stretch.separators[..] else { return false };
    first == second
        && matches!(first, "." | "/" | "-" | ". ")
        && matches!(stretch.lengths[..3], [1 | 2, 1 | 2, 4] | [4, 2, 2] | [2, 2, 2])
        && (stretch.lengths.len() == 3 || stretch.lengths[..3] != [2, 2, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_all_27() {
        assert_eq!(PLANS.country.len(), 27);
        for country in &PLANS.country {
            assert!(country.digits.0 <= country.digits.1 && !country.languages.is_empty());
            assert!(country.starts.iter().all(|start| start.bytes().all(|byte| byte.is_ascii_digit())));
        }
        let spoken = |language| PLANS.country.iter().any(|country| country.languages.contains(&language));
        assert!(Language::all().all(spoken), "every language has a country whose numbers are looked for");
    }
}
