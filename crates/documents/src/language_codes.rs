//! The codes and names that corpora give languages (`deu_Latn`, `ger`, `German`), as ISO 639-1.

use std::collections::HashMap;
use std::sync::LazyLock;

/// ISO 639-1, ISO 639-3 and 639-2/B, and the reference name in English.
const TABLE: &str = include_str!("../data/language_codes.tsv");

static CODES: LazyLock<HashMap<String, &str>> = LazyLock::new(|| {
    let mut codes = HashMap::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split('\t');
        let (Some(code), Some(longer), Some(name)) = (columns.next(), columns.next(), columns.next()) else {
            continue;
        };
        codes.insert(code.to_string(), code);
        for other in longer.split(',').chain([name]) {
            codes.insert(other.to_lowercase(), code);
        }
    }
    // The names that corpora use beside the standard's own.
    codes.extend([("greek".to_string(), "el"), ("slovene".to_string(), "sl"), ("gaelic".to_string(), "gd")]);
    codes
});

/// The ISO 639-1 code behind a code with or without script or country (`deu_Latn`, `pt-BR`), or behind an English name.
/// What has none stays as it is.
pub fn two_letters(label: String) -> String {
    if label.len() == 2 && label.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return label;
    }
    let lower = label.trim().to_lowercase();
    let primary = lower.split(['_', '-', '.', '@']).next().unwrap_or_default();
    let found = CODES.get(lower.as_str()).or_else(|| CODES.get(primary));
    found.map_or(label, |code| code.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_public_corpora_become_iso_639_1() {
        for (label, expected) in [
            ("deu_Latn", "de"),
            ("ell_Grek", "el"),
            ("bul_Cyrl", "bg"),
            ("ekk_Latn", "et"),
            ("lvs_Latn", "lv"),
            ("nob_Latn", "nb"),
            ("mlt", "mt"),
            ("GER", "de"),
            ("gle", "ga"),
            ("pt-BR", "pt"),
            ("pt_PT.UTF-8", "pt"),
            ("hr", "hr"),
            ("German", "de"),
            ("Greek", "el"),
            ("Modern Greek", "el"),
            (" Irish ", "ga"),
            ("lmo_Latn", "lmo_Latn"),
            ("", ""),
        ] {
            assert_eq!(two_letters(label.to_string()), expected, "{label}");
        }
    }

    #[test]
    fn the_table_has_every_two_letter_code_once() {
        let codes: Vec<_> = TABLE
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split('\t').next().unwrap())
            .collect();
        assert_eq!(codes.len(), 184);
        assert!(codes.is_sorted() && codes.iter().all(|code| code.len() == 2));
    }
}
