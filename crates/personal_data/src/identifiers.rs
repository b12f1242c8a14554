//! National identifiers of the member states, each proved by its check digits.
//!
//! How far the form and the check digits prove a number differs: a French number passes by chance once in some
//! thousands, a Croatian one once in ten. So some count anywhere, some in a language of their country (or where a word
//! names them), and some only where a word names them.

use std::sync::LazyLock;

use languages::Language;
use regex::Regex;

use super::check_digits::*;
use super::numbers::{DOT, HYPHEN, MOST_DIGITS, SLASH, SPACE, Separators, Stretch};

/// What has to stand with a number before it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Form and check digits suffice.
    Nothing,
    /// A text in one of these languages, or a word that names it.
    Language(&'static [&'static str]),
    /// A word that names it.
    Name,
}

impl Needs {
    /// Whether the need is met in a text of this language.
    pub fn are_met(self, language: Option<Language>, is_named: bool) -> bool {
        match self {
            Needs::Nothing => true,
            Needs::Language(codes) => {
                is_named || language.is_none_or(|language| codes.contains(&language.code()))
            }
            Needs::Name => is_named,
        }
    }
}

/// An identifier of digits alone.
struct Form {
    /// Lengths of its groups, and what may stand between them.
    lengths: &'static [usize],
    separators: &'static [Separators],
    is_proved: fn(&[u8]) -> bool,
    needs: Needs,
}

const fn form(
    lengths: &'static [usize],
    separators: &'static [Separators],
    is_proved: fn(&[u8]) -> bool,
    needs: Needs,
) -> Form {
    Form { lengths, separators, is_proved, needs }
}

const GERMAN: Needs = Needs::Language(&["de"]);
const GREEK: Needs = Needs::Language(&["el"]);
const CZECHOSLOVAK: Needs = Needs::Language(&["cs", "sk"]);
const DANISH: Needs = Needs::Language(&["da"]);
const SWEDISH: Needs = Needs::Language(&["sv", "fi"]);

/// Sorted by country. Forms with few digits in common use for other things stand with [`Needs::Name`].
static FORMS: &[Form] = &[
    // AT, Sozialversicherungsnummer
    form(&[4, 6], &[SPACE], is_austrian, GERMAN),
    form(&[4, 2, 2, 2], &[SPACE], is_austrian, GERMAN),
    form(&[10], &[], is_austrian, GERMAN),
    // BE, rijksregisternummer
    form(&[2, 2, 2, 3, 2], &[DOT, HYPHEN, SPACE], is_belgian, Needs::Nothing),
    form(&[6, 3, 2], &[DOT, HYPHEN, SPACE], is_belgian, Needs::Nothing),
    form(&[11], &[], is_belgian, Needs::Language(&["nl", "fr", "de"])),
    // BG, ЕГН
    form(&[10], &[], is_bulgarian, Needs::Language(&["bg"])),
    // CZ and SK, rodné číslo
    form(&[6, 4], &[SLASH, SLASH | SPACE], is_czechoslovak, Needs::Nothing),
    form(&[6, 3], &[SLASH, SLASH | SPACE], is_czechoslovak, CZECHOSLOVAK),
    form(&[10], &[], is_czechoslovak, CZECHOSLOVAK),
    form(&[6, 4], &[SPACE], is_czechoslovak, Needs::Name),
    form(&[9], &[], is_czechoslovak, Needs::Name),
    // DE, Steuer-Identifikationsnummer
    form(&[11], &[], is_german, GERMAN),
    form(&[2, 3, 3, 3], &[SPACE], is_german, GERMAN),
    // DK, CPR
    form(&[6, 4], &[HYPHEN], is_danish, DANISH),
    form(&[10], &[], is_danish_with_check, DANISH),
    form(&[6, 4], &[SPACE], is_danish_with_check, DANISH),
    form(&[6, 4], &[SPACE], is_danish, Needs::Name),
    form(&[10], &[], is_danish, Needs::Name),
    // EE, isikukood, and LT, asmens kodas
    form(&[11], &[], is_baltic, Needs::Language(&["et", "lt"])),
    // FR, NIR
    form(&[15], &[], |digits| is_french(digits, 0), Needs::Nothing),
    form(&[1, 2, 2, 2, 3, 3, 2], &[SPACE, DOT, HYPHEN], |digits| is_french(digits, 0), Needs::Nothing),
    form(&[13, 2], &[SPACE], |digits| is_french(digits, 0), Needs::Nothing),
    // GR, AMKA and ΑΦΜ
    form(&[11], &[], is_greek_insurance, GREEK),
    form(&[9], &[], is_greek_tax, Needs::Name),
    // HR, OIB
    form(&[11], &[], is_croatian, Needs::Name),
    // HU, személyi azonosító, adóazonosító jel, TAJ
    form(&[1, 6, 4], &[HYPHEN, SPACE], is_hungarian_person, Needs::Language(&["hu"])),
    form(&[11], &[], is_hungarian_person, Needs::Name),
    form(&[10], &[], is_hungarian_tax, Needs::Name),
    form(&[4, 3, 3], &[SPACE], is_hungarian_tax, Needs::Name),
    form(&[9], &[], is_hungarian_insurance, Needs::Name),
    form(&[3, 3, 3], &[SPACE, HYPHEN], is_hungarian_insurance, Needs::Name),
    // LU, matricule
    form(&[13], &[], is_luxembourgish, Needs::Nothing),
    form(&[4, 4, 5], &[SPACE], is_luxembourgish, Needs::Nothing),
    form(&[4, 2, 2, 5], &[SPACE], is_luxembourgish, Needs::Nothing),
    form(&[4, 2, 2, 3, 2], &[SPACE], is_luxembourgish, Needs::Nothing),
    // LV, personas kods
    form(&[6, 5], &[HYPHEN], is_latvian, Needs::Language(&["lv"])),
    form(&[11], &[], is_latvian_with_date, Needs::Language(&["lv"])),
    form(&[11], &[], is_latvian, Needs::Name),
    // NL, burgerservicenummer
    form(&[9], &[], is_dutch, Needs::Name),
    form(&[4, 2, 3], &[DOT, SPACE], is_dutch, Needs::Name),
    form(&[3, 3, 3], &[DOT, SPACE], is_dutch, Needs::Name),
    // PL, PESEL and NIP
    form(&[11], &[], is_polish, Needs::Language(&["pl"])),
    form(&[10], &[], is_polish_tax, Needs::Name),
    form(&[3, 3, 2, 2], &[HYPHEN, SPACE], is_polish_tax, Needs::Name),
    form(&[3, 2, 2, 3], &[HYPHEN, SPACE], is_polish_tax, Needs::Name),
    // PT, NIF
    form(&[9], &[], is_portuguese, Needs::Name),
    form(&[3, 3, 3], &[SPACE, DOT], is_portuguese, Needs::Name),
    // RO, CNP
    form(&[13], &[], is_romanian, Needs::Nothing),
    // SE, personnummer
    form(&[6, 4], &[HYPHEN], is_swedish, SWEDISH),
    form(&[8, 4], &[HYPHEN], |digits| is_swedish(&digits[2..]), Needs::Nothing),
    form(&[12], &[], is_swedish_with_century, SWEDISH),
    form(&[10], &[], is_swedish, SWEDISH),
    form(&[6, 4], &[SPACE], is_swedish, Needs::Name),
    // SI, EMŠO (and the JMBG of HR), davčna številka
    form(&[13], &[], is_yugoslav, Needs::Nothing),
    form(&[8], &[], is_slovenian_tax, Needs::Name),
];

/// The forms by how many digits they have.
static FORMS_BY_DIGITS: LazyLock<[Vec<&Form>; MOST_DIGITS + 1]> = LazyLock::new(|| {
    std::array::from_fn(|count| {
        FORMS.iter().filter(|form| form.lengths.iter().sum::<usize>() == count).collect()
    })
});

/// Whether a stretch of digits is an identifier. `is_named` is asked only where a form and its check digits are right.
pub fn is_identifier(stretch: &Stretch, language: Option<Language>, is_named: impl Fn() -> bool) -> bool {
    !stretch.has_plus
        && FORMS_BY_DIGITS[stretch.digits.len()].iter().any(|form| {
            stretch.has_form(form.lengths, form.separators)
                && (form.is_proved)(stretch.digits)
                && (form.needs.are_met(language, false) || is_named())
        })
}

/// An identifier with letters in it.
struct Lettered {
    /// How many digits it may begin with.
    digits_first: &'static [usize],
    form: Regex,
    is_proved: fn(&[u8]) -> bool,
    needs: Needs,
}

/// Longer than any identifier with its separators.
const LONGEST: usize = 26;

static LETTERED: LazyLock<Vec<Lettered>> = LazyLock::new(|| {
    let lettered = |digits_first, pattern: &str, is_proved: fn(&[u8]) -> bool, needs| {
        let form = Regex::new(&format!("^(?:{pattern})")).expect("a fixed pattern");
        Lettered { digits_first, form, is_proved, needs }
    };
    let italian = "[A-Z]{3} ?[A-Z]{3} ?[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2} ?[A-Z][0-9LMNP-V]{3}[A-Z]";
    vec![
        // FI, henkilötunnus
        lettered(&[6], "[0-9]{6}[-+A-FU-Y][0-9]{3}[0-9A-Y]", is_finnish, Needs::Nothing),
        // ES, DNI and NIE
        lettered(&[8], r"[0-9]{8}[-. ]?[A-Z]", is_spanish, Needs::Language(&["es"])),
        lettered(&[2], r"[0-9]{2}\.[0-9]{3}\.[0-9]{3}[-. ]?[A-Z]", is_spanish, Needs::Nothing),
        lettered(&[0], "[XYZ][-. ]?[0-9]{7}[-. ]?[A-Z]", is_spanish_foreigner, Needs::Language(&["es"])),
        // IE, PPSN
        lettered(&[7], "[0-9]{7}[A-W][A-IW]?", is_irish, Needs::Language(&["en", "ga"])),
        lettered(&[7], "[0-9]{7} [A-W][A-IW]?", is_irish, Needs::Name),
        // CY, TIC
        lettered(&[8], "[0-9]{8}[A-Z]", is_cypriot, Needs::Language(&["el"])),
        // MT: no check digits
        lettered(&[3, 4, 5, 6, 7], "[0-9]{3,7} ?[MGAPLHBZ]", |_| true, Needs::Name),
        // IT, codice fiscale
        lettered(&[0], italian, is_italian, Needs::Nothing),
        lettered(&[0], &italian.to_lowercase(), is_italian, Needs::Nothing),
        // FR, NIR of Corsica
        lettered(
            &[1, 3, 5, 6],
            "[12] ?[0-9]{2} ?[0-9]{2} ?2[AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}",
            is_corsican,
            Needs::Nothing,
        ),
    ]
});

/// The end of an identifier with letters in it that begins at `start`, if there is one.
pub fn find_with_letters(
    text: &str,
    start: usize,
    language: Option<Language>,
    is_named: impl Fn(usize) -> bool,
) -> Option<usize> {
    let bytes = text.as_bytes();
    let window = &bytes[start..bytes.len().min(start + LONGEST)];
    let ascii = window.iter().position(|byte| !byte.is_ascii()).unwrap_or(window.len());
    let window = std::str::from_utf8(&window[..ascii]).unwrap_or_default();
    let digits_first = window.bytes().take_while(u8::is_ascii_digit).count();
    let mut candidates = LETTERED.iter().filter(|lettered| lettered.digits_first.contains(&digits_first));
    candidates.find_map(|lettered| {
        let found = lettered.form.find(window)?;
        let end = start + found.end();
        let goes_on = text[end..].starts_with(|next: char| next.is_alphanumeric() || next == '_');
        let compact: Vec<u8> = found.as_str().bytes().filter(|byte| !matches!(byte, b' ' | b'.')).collect();
        // The mark of the century stays, the hyphen before a check letter goes.
        let compact = match compact.iter().position(|byte| *byte == b'-') {
            Some(6) => compact,
            _ => compact.into_iter().filter(|byte| *byte != b'-').collect(),
        };
        let is_right = !goes_on
            && (lettered.is_proved)(&compact.to_ascii_uppercase())
            && (lettered.needs.are_met(language, false) || is_named(end));
        is_right.then_some(end)
    })
}
