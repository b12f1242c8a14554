//! Repairs what certain mistakes in encoding did to a text, and refuses what cannot be repaired with certainty.
//!
//! The classic mistake, UTF-8 read as Latin-1 or Windows-1252 ("Ã©" for "é"), is undone where nothing else explains the
//! text: every non-ASCII character of a line takes part in a well-formed UTF-8 sequence, and the document shows at
//! least three of them (the idea of `ftfy`, with a stricter rule instead of its heuristics: a wrong repair damages good
//! text, a missed one costs a document). Lost characters (U+FFFD) cannot come back.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::LazyLock;

use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::reason::{Drop, Reason, Repair};

/// Fewer misread sequences than this in a document may be chance: “Spaß“ ends in bytes that happen to be UTF-8.
const CERTAIN_SEQUENCES: usize = 3;
/// More misread sequences than this per character that are not repaired make a text unreadable.
const MAXIMUM_BROKEN_SHARE: f64 = 0.005;

/// A text in NFC with `\n` line ends and no invisible characters.
#[derive(Debug, PartialEq)]
pub struct Repaired {
    pub text: String,
    pub repairs: BTreeSet<Repair>,
}

/// The repaired text, or why it cannot be used; `None` where there is nothing to repair.
pub fn repair(original: &str) -> Result<Option<Repaired>, Drop> {
    if is_clean(original) {
        return Ok(None);
    }
    repair_thoroughly(original).map(|repaired| Some(repaired).filter(|found| !found.repairs.is_empty()))
}

/// Whether nothing in a text can need repair: seen in one pass, which almost every text passes.
fn is_clean(text: &str) -> bool {
    let classes = CLASSES.as_slice();
    let (mut before, mut before_that) = (0, 0);
    for character in text.chars() {
        let class = match classes.get(character as usize) {
            Some(&class) => class,
            None => class_of(character),
        };
        let two = before << 1 & class & LATER;
        let three_or_more = before_that >> 1 & before & class & LATER;
        if class & SUSPICIOUS | two | three_or_more > 0 {
            return false;
        }
        (before, before_that) = (class, before);
    }
    true
}

/// Something that a step below looks for.
const SUSPICIOUS: u8 = 1;
/// As a byte of Windows-1252: the first of a UTF-8 sequence of two, a later one, the first of three or four. The bits lie
/// one apart.
const FIRST_OF_TWO: u8 = 2;
const LATER: u8 = 4;
const FIRST_OF_MORE: u8 = 8;

/// The classes of the characters of European text.
static CLASSES: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..0x2400).map(|code_point| char::from_u32(code_point).map_or(0, class_of)).collect());

fn class_of(character: char) -> u8 {
    let is_suspicious = character.is_control() && !matches!(character, '\n' | '\t')
        || matches!(character, '\u{2028}' | '\u{2029}' | char::REPLACEMENT_CHARACTER)
        || is_invisible(character)
        || canonical_combining_class(character) != 0
        || is_nfc_quick(std::iter::once(character)) != IsNormalized::Yes;
    let byte = if character.is_ascii() { None } else { windows_1252_byte(character) };
    match byte {
        _ if is_suspicious => SUSPICIOUS,
        Some(0xC2..=0xDF) => FIRST_OF_TWO,
        Some(0xE0..=0xF4) => FIRST_OF_MORE,
        Some(0x80..=0xBF) => LATER,
        _ => 0,
    }
}

fn repair_thoroughly(original: &str) -> Result<Repaired, Drop> {
    let mut repairs = BTreeSet::new();
    let mut text = Cow::Borrowed(original);
    if let Some(unified) = unify_line_ends(&text) {
        repairs.insert(Repair::LineEnds);
        text = Cow::Owned(unified);
    }
    if let Some(undone) = undo_mojibake(&text) {
        repairs.insert(Repair::Mojibake);
        text = Cow::Owned(unify_line_ends(&undone).unwrap_or(undone));
    }
    if let Some(printable) = undo_c1_controls(&text) {
        repairs.insert(Repair::Mojibake);
        text = Cow::Owned(printable);
    }
    let lost = text.chars().filter(|&character| character == char::REPLACEMENT_CHARACTER).count();
    if lost > 0 {
        return Err(Drop::new(Reason::BrokenEncoding).with("lost_characters", lost));
    }
    if let Some(control) =
        text.chars().find(|&character| character.is_control() && !matches!(character, '\n' | '\t'))
    {
        return Err(
            Drop::new(Reason::ControlCharacters).with("code_point", format!("U+{:04X}", control as u32))
        );
    }
    if text.contains(is_invisible) {
        repairs.insert(Repair::InvisibleCharacters);
        text = Cow::Owned(text.replace(is_invisible, ""));
    }
    if is_nfc_quick(text.chars()) != IsNormalized::Yes {
        let composed: String = text.nfc().collect();
        if composed != text {
            repairs.insert(Repair::Composed);
            text = Cow::Owned(composed);
        }
    }
    let broken: usize = text.lines().map(|line| misread_sequences(line).sequences).sum();
    let characters = text.chars().count();
    if broken >= CERTAIN_SEQUENCES && broken as f64 > MAXIMUM_BROKEN_SHARE * characters as f64 {
        return Err(Drop::new(Reason::BrokenEncoding).with("misread_sequences", broken));
    }
    Ok(Repaired { text: text.into_owned(), repairs })
}

/// CRLF, CR, NEL, line and paragraph separators, form feeds and vertical tabs as `\n`; `None` where there are none.
fn unify_line_ends(text: &str) -> Option<String> {
    const OTHER_ENDS: [char; 6] = ['\r', '\u{85}', '\u{2028}', '\u{2029}', '\u{0B}', '\u{0C}'];
    // NEL is also the Windows-1252 byte of an ellipsis: in a misread text it is not a line end yet.
    let is_end = |character: char| match character {
        '\u{85}' => {
            text.chars().filter(|other| ('\u{80}'..'\u{A0}').contains(other)).all(|other| other == '\u{85}')
        }
        other => OTHER_ENDS.contains(&other),
    };
    text.contains(is_end).then(|| text.replace("\r\n", "\n").replace(is_end, "\n"))
}

/// Characters that take no room and mean nothing in the 24 languages.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{AD}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2060}' | '\u{FEFF}' | '\u{202A}'..='\u{202E}'
    )
}

/// The text as it was before UTF-8 was read as Windows-1252, line by line; `None` unless that is certain.
fn undo_mojibake(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let found: Vec<Misread> = text.split('\n').map(misread_sequences).collect();
    let certain: usize = found.iter().filter(|line| line.others == 0).map(|line| line.sequences).sum();
    if certain < CERTAIN_SEQUENCES {
        return None;
    }
    let lines: Vec<String> = text
        .split('\n')
        .zip(found)
        .map(|(line, misread)| if misread.others == 0 { misread.decoded } else { line.to_string() })
        .collect();
    Some(lines.join("\n"))
}

/// Windows-1252 that was read as Latin-1: its quotation marks and dashes became control characters, which no text holds
/// on purpose (the HTML standard makes the same repair). `None` where there is nothing to do or one has no meaning.
fn undo_c1_controls(text: &str) -> Option<String> {
    let is_c1 = |character: char| ('\u{80}'..'\u{A0}').contains(&character);
    if !text.contains(is_c1) {
        return None;
    }
    let printable: String = text
        .chars()
        .map(
            |character| {
                if is_c1(character) { WINDOWS_1252_HIGH[character as usize - 0x80] } else { character }
            },
        )
        .collect();
    (!printable.contains(is_c1)).then_some(printable)
}

#[derive(Default)]
struct Misread {
    /// Runs of characters whose Windows-1252 bytes are one UTF-8 sequence of a plausible character.
    sequences: usize,
    /// Non-ASCII characters outside such runs.
    others: usize,
    decoded: String,
}

fn misread_sequences(line: &str) -> Misread {
    let mut found = Misread::default();
    if line.is_ascii() {
        found.decoded = line.to_string();
        return found;
    }
    let characters: Vec<char> = line.chars().collect();
    let mut place = 0;
    while place < characters.len() {
        let character = characters[place];
        if character.is_ascii() {
            found.decoded.push(character);
            place += 1;
        } else if let Some((decoded, length)) = sequence_at(&characters[place..]) {
            found.decoded.push(decoded);
            found.sequences += 1;
            place += length;
        } else {
            found.decoded.push(character);
            found.others += 1;
            place += 1;
        }
    }
    found
}

/// The character whose UTF-8 bytes, read as Windows-1252, stand at the head, and how many characters that takes.
fn sequence_at(characters: &[char]) -> Option<(char, usize)> {
    let lead = windows_1252_byte(*characters.first()?)?;
    let length = match lead {
        0xC2..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xF4 => 4,
        _ => return None,
    };
    let mut bytes = [0u8; 4];
    for (slot, character) in bytes.iter_mut().zip(characters.get(..length)?) {
        *slot = windows_1252_byte(*character)?;
    }
    let decoded = std::str::from_utf8(&bytes[..length]).ok()?.chars().next()?;
    is_plausible(decoded).then_some((decoded, length))
}

/// Characters of European text: Latin, Greek, Cyrillic, punctuation, currency, arrows to symbols, emoji.
fn is_plausible(character: char) -> bool {
    matches!(character,
        '\u{A0}'..='\u{24F}' | '\u{300}'..='\u{52F}' | '\u{1E00}'..='\u{206F}' | '\u{20A0}'..='\u{20BF}'
        | '\u{2100}'..='\u{27BF}' | '\u{FEFF}' | '\u{FFFD}' | '\u{1F300}'..='\u{1FAFF}')
}

/// The WHATWG index of windows-1252 for bytes 0x80 to 0x9F; above them it is Latin-1.
const WINDOWS_1252_HIGH: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
];

/// The byte that Windows-1252 (or, in the gaps, Latin-1) shows as this character.
fn windows_1252_byte(character: char) -> Option<u8> {
    match character {
        '\u{80}'..='\u{FF}' => Some(character as u32 as u8),
        _ => WINDOWS_1252_HIGH.iter().position(|&high| high == character).map(|place| 0x80 + place as u8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program makes of UTF-8 when it takes it for Windows-1252 (`gaps_as_controls`) or Latin-1.
    fn misread(text: &str, latin_1: bool) -> String {
        text.bytes()
            .map(|byte| match byte {
                0x80..=0x9F if !latin_1 => ('\u{80}'..='\u{FFFF}')
                    .find(|&c| windows_1252_byte(c) == Some(byte) && c > '\u{9F}')
                    .unwrap_or(byte as char),
                _ => byte as char,
            })
            .collect()
    }

    fn check(text: &str, expected: &str, expected_repairs: &[Repair]) {
        let repaired = repair_thoroughly(text).unwrap_or_else(|drop| panic!("{text:?}: {drop:?}"));
        assert_eq!(repaired.text, expected);
        assert_eq!(repaired.repairs.iter().copied().collect::<Vec<_>>(), expected_repairs, "{text:?}");
        // What passes as clean is what needs no repair.
        assert_eq!(
            repair(text).unwrap(),
            Some(repaired).filter(|found| !found.repairs.is_empty()),
            "{text:?}"
        );
        // Repairing again changes nothing.
        assert_eq!(repair(expected).unwrap(), None);
    }

    const SAMPLES: [&str; 8] = [
        "Dès l’été, les élèves préparent « la fête » à Évreux.",
        "Příliš žluťoučký kůň úpěl ďábelské ódy.",
        "Η θάλασσα ήταν ήρεμη το πρωί.",
        "Щастливият кон препускаше – към морето.",
        "Il-ħobż tal-Malti jinħema fil-forn u jinżamm sħun…",
        "Tá an fhuinneog oscailte agus táimid ag ól tae sa chistin.",
        "Știința și învățătura țin de „răbdare”.",
        "Žąsys, ūkis, ėjimas, čiužinys ir šaltis.",
    ];

    #[test]
    fn misread_utf8_is_read_again() {
        for sample in SAMPLES {
            check(&misread(sample, false), sample, &[Repair::Mojibake]);
            check(&misread(sample, true), sample, &[Repair::Mojibake]);
        }
    }

    #[test]
    fn good_text_stays_as_it_is() {
        for sample in SAMPLES {
            check(sample, sample, &[]);
        }
        check(
            "„Was für ein Spaß“, „so ein Spaß“, „mehr Spaß“",
            "„Was für ein Spaß“, „so ein Spaß“, „mehr Spaß“",
            &[],
        );
        check("« CAFÉ», «ENTRÉ», «FERMÉ»", "« CAFÉ», «ENTRÉ», «FERMÉ»", &[]);
        check("tab\tstays", "tab\tstays", &[]);
    }

    #[test]
    fn form_is_unified() {
        check("a\r\nb\rc\u{2028}d", "a\nb\nc\nd", &[Repair::LineEnds]);
        check("l\u{92}eau \u{93}x\u{94}", "l’eau “x”", &[Repair::Mojibake]);
        check("ile\u{301}", "ilé", &[Repair::Composed]);
        check("\u{FEFF}Wort\u{AD}teil\u{200B}", "Wortteil", &[Repair::InvisibleCharacters]);
    }

    #[test]
    fn prose_needs_one_look_only() {
        for sample in SAMPLES {
            assert!(is_clean(sample), "{sample}");
        }
    }

    #[test]
    fn what_is_lost_is_dropped() {
        let check = |text: &str, expected: Reason| {
            assert_eq!(repair(text).unwrap_err().reason, expected, "{text:?}");
        };
        check("caf\u{FFFD}", Reason::BrokenEncoding);
        check("a\u{81}b", Reason::ControlCharacters);
        check("a\u{0}b", Reason::ControlCharacters);
        check("\u{1B}[31mred", Reason::ControlCharacters);
        // Misread text mixed with good text in every line: what belongs to what is no longer certain.
        check("Ã©tÃ© Ã  dÃ©jÃ\u{a0} – žluť", Reason::BrokenEncoding);
    }
}
