//! Names that people type: the same letters are the same name, however a keyboard, a file or an issuer of tokens writes
//! them. `é` is one character or two; names are kept and compared in Unicode's composed form (NFC, UAX #15).

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization, is_nfc};

/// A name in its composed form.
pub fn composed(name: &str) -> Cow<'_, str> {
    if name.is_ascii() || is_nfc(name) { Cow::Borrowed(name) } else { Cow::Owned(name.nfc().collect()) }
}

/// A name with its marks apart from their letters, as some file systems and issuers write it.
pub fn decomposed(name: &str) -> String {
    name.nfd().collect()
}

/// Whether two spellings are one name.
pub fn is_same(a: &str, b: &str) -> bool {
    a == b || composed(a) == composed(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_are_one() {
        for (one, other) in [
            ("Université", "Universite\u{301}"),
            ("Žilina", "Z\u{30C}ilina"),
            ("Αθήνα", "Αθη\u{301}να"),
            ("Край", "Краи\u{306}"),
        ] {
            assert!(one != other && is_same(one, other), "{one}");
            assert_eq!((composed(other).as_ref(), decomposed(one).as_str()), (one, other));
        }
        assert!(!is_same("Universität", "Universitat") && !is_same("Amt", "amt"));
    }
}
