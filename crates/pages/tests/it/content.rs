//! The main content of pages in 24 languages and sixteen layouts.

use std::collections::BTreeMap;

use crate::site;

/// A floor a little below the worst that was measured; the layouts held out are measured like the others.
#[test]
fn main_content_is_found_in_every_language_and_layout() {
    let mut scores: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for (place, language) in site::LANGUAGES.into_iter().enumerate() {
        // Building the pages takes longer than reading them: of every third language all variants.
        let variants = if place % 3 == 0 { &site::VARIANTS[..] } else { &site::VARIANTS[..1] };
        for page in site::pages(language, 1, variants) {
            let found = pages::extract(&page.bytes, Some(&page.content_type), None);
            let score = word_f1(&found.text, &page.expected);
            scores.entry((page.variant, page.layout)).or_default().push(score);
            scores.entry((page.variant, page.language)).or_default().push(score);
        }
    }
    assert_eq!(scores.len(), 24 + 2 * 8 + 3 * site::LAYOUTS.len());
    for ((variant, group), scores) in &scores {
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        assert!(mean > 0.95, "{group}, {variant}: word F1 {mean:.3} over {} pages", scores.len());
    }
}

#[test]
fn legacy_encodings_are_read_declared_or_not() {
    for language in site::LANGUAGES {
        let page =
            site::pages(language, 1, &["whole"]).into_iter().find(|page| page.layout == "tables").unwrap();
        let found = pages::extract(&page.bytes, Some(&page.content_type), None);
        let declared = page.content_type.contains("charset") || page.encoding == encoding_rs::UTF_8;
        assert!(!declared || found.encoding == page.encoding.name(), "{}: {}", page.name, found.encoding);
    }
}

/// The words of a text, lower case: what two texts are compared by.
fn words(text: &str) -> Vec<String> {
    text.split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// The F1 of the words (a word counts as often as it stands in both).
fn word_f1(found: &str, expected: &str) -> f64 {
    let (mut found, mut expected) = (words(found), words(expected));
    if found.is_empty() || expected.is_empty() {
        return if found.len() == expected.len() { 1.0 } else { 0.0 };
    }
    found.sort();
    expected.sort();
    let (mut i, mut j, mut common) = (0, 0, 0);
    while i < found.len() && j < expected.len() {
        match found[i].cmp(&expected[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => (i, j, common) = (i + 1, j + 1, common + 1),
        }
    }
    2.0 * common as f64 / (found.len() + expected.len()) as f64
}
