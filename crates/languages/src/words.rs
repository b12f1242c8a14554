//! What counts as a word when stop words and word lengths are counted: a run of letters, in lower case.
//!
//! Apostrophes and hyphens end a word in every language alike (`l'homme` is `l`, `homme`; `il-ktieb` is `il`, `ktieb`),
//! and the stop-word lists are written accordingly.

/// The words of a text in order, lower case.
pub fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|character: char| !character.is_alphabetic() && !is_combining_mark(character))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// Combining diacritical marks, as they stand in decomposed text (U+0300 to U+036F).
fn is_combining_mark(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36F}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_in_lower_case() {
        let check =
            |text: &str, expected: &[&str]| assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text}");
        check("L'homme, 3 fois.", &["l", "homme", "fois"]);
        check("Il-ktieb ta' Ġanni", &["il", "ktieb", "ta", "ġanni"]);
        check("Τι είναι; ΝΑΙ", &["τι", "είναι", "ναι"]);
        check("e\u{301}te\u{301}", &["e\u{301}te\u{301}"]);
        check(" 12 – ", &[]);
    }
}
