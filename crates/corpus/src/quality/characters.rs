//! What a character is, as far as quality counts: one table look-up instead of six questions.

use std::sync::LazyLock;

use languages::Script;

/// Part of a word: a letter, or a mark upon one.
pub const WORD: u32 = 1 << 24;
pub const LETTER: u32 = 1 << 25;
/// Neither letter, mark, white space nor common punctuation.
pub const SYMBOL: u32 = 1 << 26;
const LATIN: u32 = 1 << 27;
const CYRILLIC: u32 = 1 << 28;
const GREEK: u32 = 1 << 29;
/// The letter in lower case: the low bits.
pub const LOWER: u32 = (1 << 21) - 1;

/// Latin, Greek, Cyrillic and general punctuation lie below; others are described when they come.
const TABLE_LENGTH: usize = 0x2400;

/// Descriptions of the characters that the 24 languages are written with.
pub struct Characters {
    table: Box<[u32; TABLE_LENGTH]>,
}

static CHARACTERS: LazyLock<Characters> = LazyLock::new(|| {
    let mut table = Box::new([0; TABLE_LENGTH]);
    for (code, entry) in table.iter_mut().enumerate() {
        *entry = char::from_u32(code as u32).map_or(SYMBOL, description);
    }
    Characters { table }
});

impl Characters {
    pub fn get() -> &'static Characters {
        &CHARACTERS
    }

    /// The bits of a character, and its lower case below them.
    #[inline(always)]
    pub fn describe(&self, character: char) -> u32 {
        match self.table.get(character as usize) {
            Some(description) => *description,
            None => description(character),
        }
    }

    /// The description of an ASCII character.
    #[inline(always)]
    pub fn describe_ascii(&self, byte: u8) -> u32 {
        self.table[usize::from(byte)]
    }
}

/// The bit of the letters of a script.
pub fn bit_of(script: Script) -> u32 {
    match script {
        Script::Latin => LATIN,
        Script::Cyrillic => CYRILLIC,
        Script::Greek => GREEK,
        Script::Other => 0,
    }
}

fn description(character: char) -> u32 {
    let mut bits = bit_of(Script::of(character));
    if character.is_alphabetic() {
        bits |= LETTER | WORD;
    }
    if is_combining_mark(character) {
        bits |= WORD;
    }
    if !is_plain(character) {
        bits |= SYMBOL;
    }
    // Sigma has two lower cases; words are the same with either.
    let lower = match character.to_lowercase().next().unwrap_or(character) {
        'ς' => 'σ',
        lower => lower,
    };
    bits | lower as u32
}

fn is_combining_mark(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36F}')
}

/// Placeholders for personal data (`<…_…>`) count as the words they are.
fn is_plain(character: char) -> bool {
    character.is_alphabetic()
        || character.is_whitespace()
        || is_combining_mark(character)
        || matches!(
            character,
            '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '"' | '(' | ')' | '-' | '\u{2010}'
                ..='\u{2026}'
                    | '«'
                    | '»'
                    | '‹'
                    | '›'
                    | '·'
                    | '¿'
                    | '¡'
                    | '\u{37E}'
                    | '\u{387}'
                    | '<'
                    | '>'
                    | '_'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_the_questions_say() {
        for character in ('\0'..='\u{30000}').step_by(7).chain("ςΣÀ\u{301}7§漢𝕬ĦțЖ".chars()) {
            let found = Characters::get().describe(character);
            assert_eq!(found, description(character), "{character}");
            assert_eq!(found & LETTER != 0, character.is_alphabetic(), "{character}");
        }
        assert_eq!(Characters::get().describe('Σ') & LOWER, 'σ' as u32);
        assert_eq!(Characters::get().describe('ς') & LOWER, 'σ' as u32);
        assert_eq!(Characters::get().describe_ascii(b'Q') & LOWER, 'q' as u32);
    }
}
