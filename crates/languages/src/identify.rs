//! Language identification of a text: which of the 24, or something else.

use crate::{Language, words};

/// What a text is written in.
#[derive(Clone, Debug, PartialEq)]
pub struct Identification {
    /// One of the 24, or nothing when the text is in a neighbour language or in none that the identifier knows.
    pub language: Option<Language>,
    /// ISO 639-1 code of the best candidate: one of the 24, one of the 14 neighbours, or `other`.
    pub code: &'static str,
    /// Probability of the best candidate, 0 to 1.
    pub score: f32,
    /// The candidates, the most probable first.
    pub ranking: Vec<Candidate>,
}

/// One language that a text may be in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// ISO 639-1, or `other`.
    pub code: &'static str,
    /// The language, where it is one of the 24.
    pub language: Option<Language>,
    /// Probability, 0 to 1.
    pub score: f32,
}

/// Which language a text is in, judged by all of it.
pub fn identify(text: &str) -> Identification {
    let mut counts = [0u32; crate::LANGUAGE_COUNT];
    for word in words(text) {
        for language in Language::all().filter(|language| language.is_stop_word(&word)) {
            counts[language.index()] += 1;
        }
    }
    let total: u32 = counts.iter().sum();
    let mut ranking: Vec<Candidate> = Language::all()
        .filter(|language| counts[language.index()] > 0)
        .map(|language| Candidate {
            code: language.code(),
            language: Some(language),
            score: counts[language.index()] as f32 / total as f32,
        })
        .collect();
    if ranking.is_empty() {
        ranking.push(Candidate { code: "other", language: None, score: 1.0 });
    }
    ranking.sort_by(|left, right| right.score.total_cmp(&left.score).then(left.code.cmp(right.code)));
    Identification { language: ranking[0].language, code: ranking[0].code, score: ranking[0].score, ranking }
}

/// How much of a text is in which language.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// ISO 639-1, or `other`.
    pub code: &'static str,
    /// The language, where it is one of the 24.
    pub language: Option<Language>,
    /// Share of the characters that stand in paragraphs of this language, 0 to 1.
    pub share: f32,
}

/// The languages of a text by paragraphs (runs of text between line ends), the largest share first: mixed documents
/// show. Empty for a text without any paragraph.
pub fn identify_paragraphs(text: &str) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    let mut total_characters = 0usize;
    for paragraph in text.split(['\n', '\r', '\u{2029}']).filter(|paragraph| !paragraph.trim().is_empty()) {
        let characters = paragraph.trim().chars().count();
        let found = identify(paragraph);
        total_characters += characters;
        match shares.iter_mut().find(|share| share.code == found.code) {
            Some(share) => share.share += characters as f32,
            None => {
                shares.push(Share { code: found.code, language: found.language, share: characters as f32 })
            }
        }
    }
    for share in &mut shares {
        share.share /= total_characters as f32;
    }
    shares.sort_by(|left, right| right.share.total_cmp(&left.share).then(left.code.cmp(right.code)));
    shares
}
