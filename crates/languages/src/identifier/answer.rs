//! From scores to an answer: probabilities over the labels and `other`.

use std::sync::LazyLock;

use super::model::{LABEL_COUNT, Model, label_code};
use super::scoring::{Buffers, Scorer, Scores};
use crate::{LANGUAGE_COUNT, Language};

/// What a text is written in.
#[derive(Clone, Debug, PartialEq)]
pub struct Identification {
    /// One of the 24, or nothing when the text is in a neighbour language or in none that the identifier knows.
    pub language: Option<Language>,
    /// ISO 639-1 code of the best candidate: one of the 24, one of the 14 neighbours, or `other`.
    pub code: &'static str,
    /// Probability of the best candidate, 0 to 1.
    pub score: f32,
    /// The candidates that are not out of the question, the most probable first; never empty.
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

/// Which language a text is in, judged by all of it.
pub fn identify(text: &str) -> Identification {
    EMBEDDED.identify(text)
}

/// The languages of a text by paragraphs (runs of text between line ends), the largest share first: mixed documents
/// show. A paragraph that is too short to tell counts for the document's language where it may be in it. Empty for a text without paragraphs.
pub fn identify_paragraphs(text: &str) -> Vec<Share> {
    EMBEDDED.identify_document(text).1
}

/// [`identify`] and [`identify_paragraphs`] at once: the text is read once, which takes little longer than the first.
///
/// One thing differs from [`identify`]: a text that as a whole is in no language, because its paragraphs are in several,
/// has the language of the largest share, with that share as its score.
pub fn identify_document(text: &str) -> (Identification, Vec<Share>) {
    EMBEDDED.identify_document(text)
}

static EMBEDDED: LazyLock<Identifier> = LazyLock::new(|| {
    Model::from_bytes(include_bytes!("../../data/identifier.bin")).and_then(Identifier::new).unwrap_or_else(
        |problem| panic!("crates/languages/data/identifier.bin is built in and must be sound: {problem}"),
    )
});

/// The code of what is in no language that the identifier knows.
const OTHER: &str = "other";

/// `other` is as probable as a text of the best label that scores this share of what that label usually scores …
const OTHER_SHARE: f32 = 0.65;

/// … less this many deviations, which matter in short texts only.
const OTHER_DEVIATIONS: f32 = 1.0;

/// Candidates below this probability are left out of the ranking.
const LEAST_PROBABILITY: f32 = 1e-3;

/// exp of less than this adds nothing to a sum that is at least 1.
const NOTHING: f32 = -30.0;

/// Below this probability a paragraph is too short, or too mixed, to contradict its document …
const CERTAIN_PARAGRAPH: f32 = 0.9;

/// … unless the document's language is less probable than this for it: a Croatian paragraph, undecided between Croatian and
/// Bosnian, is not Polish because the rest is.
const POSSIBLE_PARAGRAPH: f32 = 0.01;

/// So much of a text must be paragraphs of a language for it to be the language of a text that as a whole is in none: less
/// may be chance in a text of short lines in a language that the identifier does not know.
const CLEAR_SHARE: f64 = 0.25;

/// A trained identifier. [`identify`] uses the embedded one.
pub struct Identifier {
    scorer: Scorer,
}

impl Identifier {
    /// An identifier with these numbers. The error says that there are too many.
    pub fn new(model: Model) -> Result<Identifier, String> {
        Ok(Identifier { scorer: Scorer::new(model)? })
    }

    /// What each label scores in a text.
    pub fn scores(&self, text: &str) -> Scores {
        self.scorer.score(text, &mut Buffers::default())
    }

    /// See [`identify`].
    pub fn identify(&self, text: &str) -> Identification {
        self.answer(&self.scores(text))
    }

    fn answer(&self, scores: &Scores) -> Identification {
        if scores.letters == 0 {
            return answer(vec![candidate(LABEL_COUNT, 1.0)]);
        }
        let probabilities = self.probabilities(scores);
        let mut ranking: Vec<Candidate> = probabilities
            .iter()
            .enumerate()
            .filter(|(_, probability)| **probability >= LEAST_PROBABILITY)
            .map(|(label, probability)| candidate(label, *probability))
            .collect();
        ranking.sort_by(|left, right| right.score.total_cmp(&left.score).then(left.code.cmp(right.code)));
        answer(ranking)
    }

    /// See [`identify_document`].
    pub fn identify_document(&self, text: &str) -> (Identification, Vec<Share>) {
        let mut document = Document::new(self);
        document.add(text);
        document.finish()
    }

    /// Probabilities of the labels, and of `other` behind them.
    fn probabilities(&self, scores: &Scores) -> [f32; LABEL_COUNT + 1] {
        let parameters = &self.scorer.parameters;
        let letters = scores.letters as f32;
        let mut values = [0.0f32; LABEL_COUNT + 1];
        for (label, steps) in scores.steps.iter().enumerate() {
            // Per letter, so that a text of gigabytes is no more than a number.
            let nats = (*steps as f64 / scores.letters as f64) as f32 * parameters.step_nats;
            values[label] = nats + parameters.labels[label].bias_per_letter;
        }
        let best =
            (0..LABEL_COUNT).fold(0, |best, label| if values[label] > values[best] { label } else { best });
        let [mean, deviation] = parameters.labels[best].usual_score;
        values[LABEL_COUNT] = OTHER_SHARE * mean - OTHER_DEVIATIONS * deviation / letters.sqrt();
        let [scale, exponent] = parameters.calibration;
        let sharpness = scale * letters.powf(1.0 + exponent);
        let highest = values.iter().copied().fold(f32::MIN, f32::max);
        for value in &mut values {
            let exponent = sharpness * (*value - highest);
            *value = if exponent < NOTHING { 0.0 } else { exponent.exp() };
        }
        let sum: f32 = values.iter().sum();
        values.map(|value| value / sum)
    }
}

/// A text that is read piece by piece, for texts larger than memory. [`identify_document`] reads one at once.
pub struct Document<'a> {
    identifier: &'a Identifier,
    sum: Scores,
    /// Characters of the paragraphs that are certain, by label (`other` is the last).
    certain: [u64; LABEL_COUNT + 1],
    /// Characters of the undecided ones, by their best label; and of these those that may be in each label.
    undecided: [u64; LABEL_COUNT + 1],
    possible: Box<[[u64; LABEL_COUNT + 1]; LABEL_COUNT + 1]>,
    /// Characters of paragraphs without letters.
    without_letters: u64,
    buffers: Buffers,
}

impl Document<'static> {
    /// A document for the embedded identifier.
    pub fn embedded() -> Self {
        Document::new(&EMBEDDED)
    }
}

impl<'a> Document<'a> {
    pub fn new(identifier: &'a Identifier) -> Self {
        Document {
            identifier,
            sum: Scores::default(),
            certain: [0; LABEL_COUNT + 1],
            undecided: [0; LABEL_COUNT + 1],
            possible: Box::new([[0; LABEL_COUNT + 1]; LABEL_COUNT + 1]),
            without_letters: 0,
            buffers: Buffers::default(),
        }
    }

    /// Reads on. Pieces must end between words; a paragraph that is cut counts as two.
    pub fn add(&mut self, text: &str) {
        // Paragraphs end between words, so their scores add up to the document's: all text is read once.
        let paragraphs = text.split(['\n', '\r', '\u{2029}']).map(str::trim);
        for paragraph in paragraphs.filter(|paragraph| !paragraph.is_empty()) {
            let scores = self.identifier.scorer.score(paragraph, &mut self.buffers);
            self.sum.add(&scores);
            let characters = paragraph.chars().count() as u64;
            if scores.letters == 0 {
                self.without_letters += characters;
                continue;
            }
            let probabilities = self.identifier.probabilities(&scores);
            let best = (0..=LABEL_COUNT)
                .fold(0, |best, label| if probabilities[label] > probabilities[best] { label } else { best });
            if probabilities[best] >= CERTAIN_PARAGRAPH {
                self.certain[best] += characters;
                continue;
            }
            self.undecided[best] += characters;
            for (possible, probability) in self.possible[best].iter_mut().zip(probabilities) {
                *possible += if probability >= POSSIBLE_PARAGRAPH { characters } else { 0 };
            }
        }
    }

    /// See [`identify_document`].
    pub fn finish(self) -> (Identification, Vec<Share>) {
        let mut document = self.identifier.answer(&self.sum);
        if document.code == OTHER {
            document = self.largest_part().unwrap_or(document);
        }
        let own = (0..LABEL_COUNT).find(|label| label_code(*label) == document.code).unwrap_or(LABEL_COUNT);
        // An undecided paragraph is in the document's language if it can be.
        let mut characters = self.certain;
        characters[own] += self.without_letters;
        for (best, of_best) in self.undecided.iter().enumerate() {
            characters[own] += self.possible[best][own];
            characters[best] += of_best - self.possible[best][own];
        }
        let total: u64 = characters.iter().sum();
        let mut shares: Vec<Share> = characters
            .iter()
            .enumerate()
            .filter(|(_, characters)| **characters > 0)
            .map(|(label, characters)| {
                let Candidate { code, language, .. } = candidate(label, 1.0);
                Share { code, language, share: (*characters as f64 / total as f64) as f32 }
            })
            .collect();
        shares.sort_by(|left, right| right.share.total_cmp(&left.share).then(left.code.cmp(right.code)));
        (document, shares)
    }

    /// The answer of a mixed document: its parts by their share of all characters, if the largest is clear and in a
    /// language.
    fn largest_part(&self) -> Option<Identification> {
        let total: u64 = self.certain.iter().chain(&self.undecided).sum();
        let share = |characters: u64| characters as f64 / total.max(1) as f64;
        let mut parts: Vec<(usize, u64)> =
            self.certain.iter().copied().enumerate().filter(|(_, characters)| *characters > 0).collect();
        parts.sort_by_key(|&(label, characters)| (std::cmp::Reverse(characters), label));
        let &(largest, characters) = parts.first()?;
        if largest == LABEL_COUNT || share(characters) < CLEAR_SHARE {
            return None;
        }
        let ranking = parts.into_iter().map(|(label, characters)| candidate(label, share(characters) as f32));
        Some(answer(ranking.collect()))
    }
}

fn candidate(label: usize, score: f32) -> Candidate {
    if label == LABEL_COUNT {
        return Candidate { code: OTHER, language: None, score };
    }
    let language = if label < LANGUAGE_COUNT { Language::all().nth(label) } else { None };
    Candidate { code: label_code(label), language, score }
}

fn answer(ranking: Vec<Candidate>) -> Identification {
    let best = ranking[0];
    Identification { language: best.language, code: best.code, score: best.score, ranking }
}
