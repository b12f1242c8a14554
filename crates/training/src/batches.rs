//! Which tokens each step sees: a pure function of (seed, step), open at any place.
//!
//! Every language is an endless stream: its documents in an order that is drawn anew each epoch, one behind another. Every
//! sequence is the next stretch of one language's stream. Which language has which turn is fixed by a table of 4,096 turns
//! that spreads the shares evenly, so that the n-th turn of a language, and with it its place in the stream, can be computed
//! for any step without the steps before it.

use crate::Error;
use crate::settings::Settings;
use crate::texts::{LanguageTokens, Texts};
use compute::elementary::power;
use compute::random;
use model::PackedBatch;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Turns of the table.
const TURNS: usize = 4096;

/// The training data in the order of the steps.
#[derive(Debug)]
pub struct Batches {
    texts: Texts,
    seed: u64,
    sequence_length: usize,
    sequences: usize,
    micro_sequences: usize,
    /// Language of each turn.
    turns: Vec<u16>,
    /// How many turns before this one in the table belong to the same language.
    before: Vec<u32>,
    /// Turns of each language in the table.
    counts: Vec<u64>,
    orders: Mutex<BTreeMap<(usize, u64), Arc<EpochOrder>>>,
}

/// The documents of one language in one epoch.
#[derive(Debug)]
struct EpochOrder {
    documents: Vec<u32>,
    /// Where each begins in the epoch's stream, and at last where all end.
    starts: Vec<usize>,
}

/// What one thread computes from end to end.
#[derive(Clone, Debug, Default)]
pub struct MicroBatch {
    /// Tokens of all sequences.
    pub tokens: Vec<u32>,
    /// The token after each, or `model::NO_TARGET`.
    pub targets: Vec<u32>,
    /// Positions within the documents.
    pub positions: Vec<u32>,
    /// Pieces of documents; attention does not cross them.
    pub documents: Vec<Range<usize>>,
    /// Index of the first token within the step.
    pub first_token: u32,
}

impl MicroBatch {
    /// As the decoder wants it.
    pub fn packed(&self) -> PackedBatch<'_> {
        PackedBatch {
            tokens: &self.tokens,
            targets: &self.targets,
            positions: &self.positions,
            documents: &self.documents,
            first_token: self.first_token,
        }
    }

    /// Appends a piece of a document with its targets.
    pub fn push(&mut self, tokens: &[u32], targets: &[u32]) {
        let begin = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.targets.extend_from_slice(targets);
        self.positions.extend(0..tokens.len() as u32);
        self.documents.push(begin..begin + tokens.len());
    }
}

/// All micro-batches of a step.
#[derive(Clone, Debug, Default)]
pub struct StepBatch {
    /// In the order in which the slots take them.
    pub micro_batches: Vec<MicroBatch>,
    /// Targets in all of them.
    pub targets: usize,
}

impl Batches {
    /// The data of a run.
    ///
    /// # Errors
    /// When a language that the settings weigh is not in the corpus.
    pub fn new(texts: Texts, settings: &Settings) -> Result<Batches, Error> {
        let shares = shares(&texts, settings)?;
        let (turns, counts) = spread(&shares);
        let mut seen = vec![0u32; counts.len()];
        let mut before = Vec::with_capacity(TURNS);
        for &language in &turns {
            before.push(seen[language as usize]);
            seen[language as usize] += 1;
        }
        Ok(Batches {
            texts,
            seed: settings.seed,
            sequence_length: settings.sequence_length,
            sequences: settings.sequences(),
            micro_sequences: settings.micro_sequences(),
            turns,
            before,
            counts,
            orders: Mutex::default(),
        })
    }

    /// Everything that the step computes with.
    pub fn step(&self, step: u64) -> StepBatch {
        let mut batch = StepBatch::default();
        let first = step * self.sequences as u64;
        for sequence in (0..self.sequences).step_by(self.micro_sequences) {
            let mut micro =
                MicroBatch { first_token: (sequence * self.sequence_length) as u32, ..MicroBatch::default() };
            for index in sequence..(sequence + self.micro_sequences).min(self.sequences) {
                self.append(first + index as u64, &mut micro);
            }
            batch.targets += micro.targets.len();
            batch.micro_batches.push(micro);
        }
        batch
    }

    /// Tokens of each language that the first `steps` steps see, by code, and how often that goes through its text.
    pub fn seen(&self, steps: u64) -> BTreeMap<String, (u64, f64)> {
        let sequences = steps * self.sequences as u64;
        let (rounds, rest) = (sequences / TURNS as u64, (sequences % TURNS as u64) as usize);
        let languages = self.texts.languages.iter().enumerate();
        languages
            .map(|(index, language)| {
                let partial =
                    self.turns[..rest].iter().filter(|turn| **turn as usize == index).count() as u64;
                let tokens = (rounds * self.counts[index] + partial) * self.sequence_length as u64;
                (language.language.clone(), (tokens, tokens as f64 / language.length() as f64))
            })
            .collect()
    }

    /// The texts behind the batches.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// Appends a sequence to a micro-batch.
    fn append(&self, sequence: u64, micro: &mut MicroBatch) {
        let turn = (sequence % TURNS as u64) as usize;
        let index = self.turns[turn] as usize;
        let nth = sequence / TURNS as u64 * self.counts[index] + self.before[turn] as u64;
        let language = &self.texts.languages[index];
        let length = language.length() as u64;
        let mut place = nth * self.sequence_length as u64;
        let mut left = self.sequence_length;
        while left > 0 {
            let order = self.order(index, place / length);
            let offset = (place % length) as usize;
            let document = order.starts.partition_point(|start| *start <= offset) - 1;
            let tokens =
                &language.document(order.documents[document] as usize)[offset - order.starts[document]..];
            let count = tokens.len().min(left);
            // The last token of a document is followed by the next one's separator, which says that it has ended.
            let after = match tokens.get(count) {
                Some(&next) => next,
                None => language.document(0)[0],
            };
            let begin = micro.tokens.len();
            micro.tokens.extend_from_slice(&tokens[..count]);
            micro.targets.extend_from_slice(&tokens[1..count]);
            micro.targets.push(after);
            micro.positions.extend(0..count as u32);
            micro.documents.push(begin..begin + count);
            place += count as u64;
            left -= count;
        }
    }

    fn order(&self, language: usize, epoch: u64) -> Arc<EpochOrder> {
        let mut orders = self.orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(order) = orders.get(&(language, epoch)) {
            return order.clone();
        }
        let order = Arc::new(EpochOrder::new(
            &self.texts.languages[language],
            random::key(&[self.seed, language as u64, epoch]),
        ));
        // Steps go forward: what lies two epochs back is not needed again soon.
        orders.retain(|(other, old), _| *other != language || *old + 1 >= epoch);
        orders.insert((language, epoch), order.clone());
        order
    }
}

impl EpochOrder {
    fn new(language: &LanguageTokens, key: u64) -> EpochOrder {
        let documents = random::permutation(key, language.documents());
        let mut starts = vec![0];
        for &document in &documents {
            starts.push(starts[starts.len() - 1] + language.document(document as usize).len());
        }
        EpochOrder { documents, starts }
    }
}

/// Share of each language, adding up to 1.
fn shares(texts: &Texts, settings: &Settings) -> Result<Vec<f64>, Error> {
    let known: Vec<&str> = texts.languages.iter().map(|language| language.language.as_str()).collect();
    if let Some(strange) =
        settings.language_weights.keys().find(|language| !known.contains(&language.as_str()))
    {
        let problem = format!(
            "language_weights.{strange}: the corpus has no such language; it has {}",
            known.join(", ")
        );
        return Err(Error::Settings(problem));
    }
    let weigh = |language: &LanguageTokens| match settings.language_weights.is_empty() {
        true => power(language.length() as f64, 1.0 / settings.language_temperature),
        false => settings.language_weights.get(&language.language).copied().unwrap_or(0.0),
    };
    let weights: Vec<f64> = texts.languages.iter().map(weigh).collect();
    let sum: f64 = weights.iter().sum();
    Ok(weights.into_iter().map(|weight| weight / sum).collect())
}

/// A table of turns in which every stretch holds about the wanted shares: each turn goes to the language that is furthest
/// behind. A language with any share has at least one turn.
fn spread(shares: &[f64]) -> (Vec<u16>, Vec<u64>) {
    let least = 1.5 / TURNS as f64;
    let raised: Vec<f64> =
        shares.iter().map(|share| if *share > 0.0 { share.max(least) } else { 0.0 }).collect();
    let sum: f64 = raised.iter().sum();
    let mut counts = vec![0u64; shares.len()];
    let mut turns = Vec::with_capacity(TURNS);
    for turn in 0..TURNS {
        let behind = |index: usize| raised[index] / sum * (turn + 1) as f64 - counts[index] as f64;
        let mut next = 0;
        for index in 1..shares.len() {
            if behind(index) > behind(next) {
                next = index;
            }
        }
        counts[next] += 1;
        turns.push(next as u16);
    }
    (turns, counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Texts {
        let mut languages = Vec::new();
        for (code, documents) in [("bg", 5), ("el", 9), ("mt", 2)] {
            let mut language = LanguageTokens::new(code);
            for document in 0..documents {
                let text: Vec<u32> = (0..7 + document * 3).map(|i| 1 + (document * 31 + i) % 50).collect();
                language.push(0, &text);
            }
            languages.push(language);
        }
        Texts { languages }
    }

    fn settings() -> Settings {
        Settings { sequence_length: 16, batch_tokens: 96, seed: 5, ..Settings::default() }
    }

    #[test]
    fn sequences_follow_each_other_in_every_language() {
        let batches = Batches::new(texts(), &settings()).unwrap();
        let mut streams: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
        for step in 0..40 {
            let batch = batches.step(step);
            let micro = &batch.micro_batches[0];
            assert_eq!((batch.micro_batches.len(), batch.targets, micro.tokens.len()), (1, 96, 96));
            for sequence in 0..6 {
                let language = batches.turns[(step as usize * 6 + sequence) % TURNS];
                let span = sequence * 16..(sequence + 1) * 16;
                let stream = streams.entry(language).or_default();
                if let Some(&expected) = stream.last() {
                    assert_eq!(micro.tokens[span.start], expected, "the target before");
                    stream.pop();
                }
                stream.extend(&micro.tokens[span.clone()]);
                stream.push(micro.targets[span.end - 1]);
                assert_eq!(micro.tokens[span.start + 1..span.end], micro.targets[span.start..span.end - 1]);
            }
        }
        // Each epoch holds every document once.
        for (language, stream) in streams {
            let texts = &batches.texts().languages[language as usize];
            for epoch in stream.chunks_exact(texts.length()) {
                let mut found: Vec<Vec<u32>> =
                    epoch.split(|token| *token == 0).map(<[u32]>::to_vec).filter(|d| !d.is_empty()).collect();
                let mut expected: Vec<Vec<u32>> =
                    (0..texts.documents()).map(|i| texts.document(i)[1..].to_vec()).collect();
                found.sort();
                expected.sort();
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn attention_stays_within_documents() {
        let batches = Batches::new(texts(), &settings()).unwrap();
        for step in 0..20 {
            let micro = &batches.step(step).micro_batches[0];
            for document in &micro.documents {
                assert!(micro.tokens[document.start + 1..document.end].iter().all(|token| *token != 0));
                assert_eq!(micro.positions[document.start], 0);
                assert!(
                    document.start / 16 == (document.end - 1) / 16,
                    "a document piece lies in one sequence"
                );
            }
        }
    }

    #[test]
    fn any_step_can_be_made_on_its_own() {
        let (one, other) =
            (Batches::new(texts(), &settings()).unwrap(), Batches::new(texts(), &settings()).unwrap());
        let forward: Vec<Vec<u32>> =
            (0..30).map(|step| one.step(step).micro_batches[0].tokens.clone()).collect();
        for step in (0..30).rev() {
            assert_eq!(other.step(step).micro_batches[0].tokens, forward[step as usize]);
        }
        let reseeded = Batches::new(texts(), &Settings { seed: 6, ..settings() }).unwrap();
        assert_ne!(reseeded.step(0).micro_batches[0].tokens, forward[0]);
    }

    #[test]
    fn shares_follow_temperature_and_weights() {
        let count = |settings: &Settings| {
            let seen = Batches::new(texts(), settings).unwrap().seen(10_000);
            seen.into_values().map(|(tokens, _)| tokens as f64 / 960_000.0).collect::<Vec<_>>()
        };
        let lengths = [5.0 * 8.0 + 30.0, 9.0 * 8.0 + 108.0, 2.0 * 8.0 + 3.0];
        let total: f64 = lengths.iter().sum();
        for (found, length) in count(&settings()).iter().zip(lengths) {
            assert!((found - length / total).abs() < 1e-3);
        }
        for found in count(&Settings { language_temperature: 1e6, ..settings() }) {
            assert!((found - 1.0 / 3.0).abs() < 1e-3);
        }
        let weights = BTreeMap::from([("mt".to_string(), 3.0), ("bg".to_string(), 1.0)]);
        let found = count(&Settings { language_weights: weights, ..settings() });
        assert!((found[0] - 0.25).abs() < 1e-3 && found[1] == 0.0 && (found[2] - 0.75).abs() < 1e-3);
        let strange = Settings { language_weights: BTreeMap::from([("xx".to_string(), 1.0)]), ..settings() };
        assert!(Batches::new(texts(), &strange).unwrap_err().to_string().contains("language_weights.xx"));
    }
}
