//! The scripts of the 24 languages, told apart by code point ranges (Unicode `Blocks.txt`; only letters count).

use serde::{Deserialize, Serialize};

/// A script in which one of the 24 languages is written, or any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Script {
    /// All but Bulgarian and Greek.
    Latin,
    /// Bulgarian.
    Cyrillic,
    /// Greek.
    Greek,
    /// Letters of any other script, and characters that are no letters.
    Other,
}

impl Script {
    /// The script of a letter; `Other` for what is no letter.
    pub fn of(character: char) -> Script {
        match character {
            'a'..='z' | 'A'..='Z' => Script::Latin,
            '\0'..='\u{A9}' => Script::Other,
            _ if !character.is_alphabetic() => Script::Other,
            '\u{AA}'..='\u{2AF}' | '\u{1E00}'..='\u{1EFF}' | '\u{FB00}'..='\u{FB06}' => Script::Latin,
            '\u{370}'..='\u{3FF}' | '\u{1F00}'..='\u{1FFF}' => Script::Greek,
            '\u{400}'..='\u{52F}' | '\u{1C80}'..='\u{1C8F}' => Script::Cyrillic,
            _ => Script::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_filed_under_their_script() {
        let check = |text: &str, expected: Script| {
            for character in text.chars() {
                assert_eq!(Script::of(character), expected, "{character}");
            }
        };
        check("azAZéßżħőțșłŻ", Script::Latin);
        check("жщъьюяЯѝ", Script::Cyrillic);
        check("αωάΐϋςΩἀ", Script::Greek);
        check("漢ع한א 1-×÷§", Script::Other);
    }
}
