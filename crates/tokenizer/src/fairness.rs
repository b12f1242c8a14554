//! How evenly a vocabulary serves the languages: what the same content costs in each of them.
//!
//! Two views. Over parallel sentences, where the content is the same: tokens in all, and the ratio to the language that
//! needs fewest. Over the training text: tokens per word and bytes per token. The Gini coefficient sums up the first
//! (0: all languages cost the same), as in Petrov et al. 2023 and in the work on parity-aware BPE.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use languages::Language;
use serde::Serialize;

/// The report: `fairness.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fairness {
    pub vocabulary_size: usize,
    /// By ISO 639-1 code.
    pub languages: BTreeMap<&'static str, LanguageFairness>,
    /// Gini coefficient of tokens over the languages, for the same parallel sentences.
    pub parallel_gini: Option<f64>,
    /// Mean over the languages of the ratio to the cheapest.
    pub parallel_mean_ratio: Option<f64>,
    /// Highest ratio to the cheapest.
    pub parallel_maximum_ratio: Option<f64>,
    /// Mean over the languages of tokens per word, parallel sentences if there are any, else training text.
    pub mean_tokens_per_word: f64,
}

/// One language's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LanguageFairness {
    /// Over the text that the vocabulary was trained on.
    pub training: Option<Cost>,
    /// Over parallel sentences.
    pub parallel: Option<Cost>,
    /// Tokens of the parallel sentences, divided by those of the language that needs fewest.
    pub parallel_ratio: Option<f64>,
}

/// What a text costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// UTF-8 bytes.
    pub bytes: u64,
    /// Words between white space.
    pub words: u64,
    pub tokens: u64,
    pub tokens_per_word: f64,
    pub bytes_per_token: f64,
}

impl Cost {
    pub fn new(bytes: u64, words: u64, tokens: u64) -> Cost {
        let ratio = |above: u64, below: u64| if below == 0 { 0.0 } else { above as f64 / below as f64 };
        Cost {
            bytes,
            words,
            tokens,
            tokens_per_word: ratio(tokens, words),
            bytes_per_token: ratio(bytes, tokens),
        }
    }
}

impl Fairness {
    /// Compares languages by their costs over training text and, where there are any, over parallel sentences.
    pub fn compare(
        vocabulary_size: usize,
        training: &BTreeMap<Language, Cost>,
        parallel: &BTreeMap<Language, Cost>,
    ) -> Fairness {
        let fewest = parallel.values().map(|cost| cost.tokens).min().unwrap_or(0).max(1);
        let mut languages: BTreeMap<&'static str, LanguageFairness> = BTreeMap::new();
        for (language, cost) in training {
            languages.entry(language.code()).or_default().training = Some(*cost);
        }
        for (language, cost) in parallel {
            let entry = languages.entry(language.code()).or_default();
            entry.parallel = Some(*cost);
            entry.parallel_ratio = Some(cost.tokens as f64 / fewest as f64);
        }
        let tokens: Vec<f64> = parallel.values().map(|cost| cost.tokens as f64).collect();
        let ratios: Vec<f64> = languages.values().filter_map(|language| language.parallel_ratio).collect();
        let costs = if parallel.is_empty() { training } else { parallel };
        let tokens_per_word: Vec<f64> = costs.values().map(|cost| cost.tokens_per_word).collect();
        Fairness {
            vocabulary_size,
            languages,
            parallel_gini: (!tokens.is_empty()).then(|| gini(&tokens)),
            parallel_mean_ratio: (!ratios.is_empty()).then(|| mean(&ratios)),
            parallel_maximum_ratio: ratios.iter().copied().reduce(f64::max),
            mean_tokens_per_word: mean(&tokens_per_word),
        }
    }

    /// The report as a table: `fairness.md`.
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "# What a text costs in each language\n\nVocabulary: {} entries. Mean tokens per word: {:.2}.",
            self.vocabulary_size, self.mean_tokens_per_word
        );
        if let (Some(gini), Some(mean), Some(maximum)) =
            (self.parallel_gini, self.parallel_mean_ratio, self.parallel_maximum_ratio)
        {
            let _ = write!(
                text,
                " The same sentences in all languages: Gini {gini:.3}, ratio to the cheapest {mean:.2} in the mean and \
                 {maximum:.2} at most."
            );
        }
        text.push_str(
            "\n\n| language | tokens per word, parallel | ratio to the cheapest | bytes per token, parallel | tokens per word, \
             training | bytes per token, training |\n|---|---:|---:|---:|---:|---:|\n",
        );
        for (code, language) in &self.languages {
            let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.2}"));
            let _ = writeln!(
                text,
                "| {code} | {} | {} | {} | {} | {} |",
                number(language.parallel.map(|cost| cost.tokens_per_word)),
                number(language.parallel_ratio),
                number(language.parallel.map(|cost| cost.bytes_per_token)),
                number(language.training.map(|cost| cost.tokens_per_word)),
                number(language.training.map(|cost| cost.bytes_per_token)),
            );
        }
        text
    }
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Gini coefficient: mean absolute difference over all pairs, divided by twice the mean.
fn gini(values: &[f64]) -> f64 {
    let total: f64 = values.iter().sum();
    if total == 0.0 {
        return 0.0;
    }
    let differences: f64 = values.iter().flat_map(|a| values.iter().map(move |b| (a - b).abs())).sum();
    differences / (2.0 * values.len() as f64 * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gini_is_0_for_equals_and_rises_with_inequality() {
        let check =
            |values: &[f64], expected: f64| assert!((gini(values) - expected).abs() < 1e-12, "{values:?}");
        check(&[5.0, 5.0, 5.0], 0.0);
        check(&[0.0, 1.0], 0.5);
        check(&[1.0, 3.0], 0.25);
        check(&[], 0.0);
    }

    #[test]
    fn the_cheapest_language_has_ratio_1() {
        let cost = |tokens| Cost::new(100, 10, tokens);
        let language = |code| Language::from_code(code).unwrap();
        let parallel = BTreeMap::from([(language("mt"), cost(30)), (language("en"), cost(20))]);
        let report = Fairness::compare(512, &BTreeMap::new(), &parallel);
        assert_eq!(report.languages["en"].parallel_ratio, Some(1.0));
        assert_eq!(report.languages["mt"].parallel_ratio, Some(1.5));
        assert_eq!(report.parallel_maximum_ratio, Some(1.5));
        assert!(
            report.to_markdown().contains("| mt | 3.00 | 1.50 | 3.33 | – | – |"),
            "{}",
            report.to_markdown()
        );
    }
}
