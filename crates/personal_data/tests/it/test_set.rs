//! The test set in 24 languages (`tests/data/`, made by `tools/datasets/personal_data/`) and how findings are held
//! against it.

use std::collections::BTreeMap;
use std::path::Path;

use languages::Language;
use personal_data::{Finding, PersonalData};
use serde::Deserialize;

/// Half of the set: sentences that the detector was tuned on, or sentences it had not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Half {
    Tune,
    HeldOut,
}

/// A text and all personal data in it.
pub struct Case {
    pub language: Language,
    pub half: Half,
    pub text: String,
    pub expected: Vec<Expected>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Expected {
    pub kind: PersonalData,
    /// Country, network or name of the number.
    pub form: String,
    pub start: usize,
    pub end: usize,
}

/// All cases, by language.
pub fn read() -> Vec<Case> {
    #[derive(Deserialize)]
    struct Line {
        half: Half,
        text: String,
        expected: Vec<Expected>,
    }
    let mut cases = Vec::new();
    for language in Language::all() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{language}.jsonl"));
        let lines =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (number, line) in lines.lines().enumerate() {
            let Line { half, text, expected } = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{}:{}: {error}", path.display(), number + 1));
            cases.push(Case { language, half, text, expected });
        }
    }
    cases
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Score {
    /// Expected and found, whole and of the right kind.
    pub hits: usize,
    pub missed: usize,
    /// Found where nothing, another kind or only a part of it stands.
    pub wrong: usize,
}

impl Score {
    pub fn precision(&self) -> f64 {
        self.hits as f64 / (self.hits + self.wrong).max(1) as f64
    }

    pub fn recall(&self) -> f64 {
        self.hits as f64 / (self.hits + self.missed).max(1) as f64
    }

    pub fn add(&mut self, other: Score) {
        self.hits += other.hits;
        self.missed += other.missed;
        self.wrong += other.wrong;
    }
}

/// What was missed and what was found wrongly in one case.
pub struct Compared<'a> {
    pub scores: BTreeMap<PersonalData, Score>,
    pub missed: Vec<&'a Expected>,
    pub wrong: Vec<Finding>,
}

/// Looks for personal data in a case and compares: a finding is right if it has the kind and the letters and digits of
/// what is expected (a bracket around it may belong to either).
/// `language` is what the detector is told of the text.
pub fn compare(case: &Case, language: Option<Language>) -> Compared<'_> {
    let findings = personal_data::find(&case.text, language);
    let mut compared = Compared { scores: BTreeMap::new(), missed: Vec::new(), wrong: Vec::new() };
    let mut taken = vec![false; findings.len()];
    for expected in &case.expected {
        let hit = findings.iter().zip(&mut taken).find(|(finding, taken)| {
            !**taken
                && finding.kind == expected.kind
                && core(&case.text[finding.range.clone()]) == core(&case.text[expected.start..expected.end])
                && finding.range.start < expected.end
                && expected.start < finding.range.end
        });
        let score = compared.scores.entry(expected.kind).or_default();
        match hit {
            Some((_, taken)) => {
                *taken = true;
                score.hits += 1;
            }
            None => {
                score.missed += 1;
                compared.missed.push(expected);
            }
        }
    }
    for (finding, _) in findings.into_iter().zip(taken).filter(|(_, taken)| !taken) {
        compared.scores.entry(finding.kind).or_default().wrong += 1;
        compared.wrong.push(finding);
    }
    compared
}

fn core(text: &str) -> &str {
    text.trim_matches(|character: char| !character.is_alphanumeric() && character != '+')
}
