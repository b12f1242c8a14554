//! Which tokens each step sees: a pure function of (seed, step), open at any place.
//!
//! Every language (or the part of it that comes from one source) is an endless stream: its documents in an order that is
//! drawn anew each epoch, one behind another. Every sequence is the next stretch of one stream. Which stream has which turn
//! is fixed by a table that spreads the shares evenly (`mixture`), so that the n-th turn of a stream, and with it its place
//! in the stream, can be computed for any step without the steps before it.

use crate::Error;
use crate::goldfish::Goldfish;
use crate::mixture::{Cut, Mixture, Stream};
use crate::settings::Settings;
use crate::texts::{LanguageTokens, Texts};
use compute::random;
use model::{NO_TARGET, PackedBatch};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// The training data in the order of the steps.
#[derive(Debug)]
pub struct Batches {
    texts: Texts,
    seed: u64,
    sequence_length: usize,
    sequences: usize,
    micro_sequences: usize,
    goldfish: Goldfish,
    mixture: Mixture,
    orders: Mutex<BTreeMap<(usize, u64), Arc<EpochOrder>>>,
}

/// The documents of one stream in one epoch.
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
    /// When the settings weigh a language or source that the corpus has not, or its text is too little for the run.
    pub fn new(texts: Texts, settings: &Settings) -> Result<Batches, Error> {
        let mixture = Mixture::new(&texts, settings)?;
        Ok(Batches {
            texts,
            seed: settings.seed,
            sequence_length: settings.sequence_length,
            sequences: settings.sequences(),
            micro_sequences: settings.micro_sequences(),
            goldfish: Goldfish { k: settings.goldfish_k, context: settings.goldfish_context },
            mixture,
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
            batch.targets += micro.targets.iter().filter(|target| **target != NO_TARGET).count();
            batch.micro_batches.push(micro);
        }
        batch
    }

    /// Tokens of each language and each source that the first `steps` steps see, in the order of the texts.
    pub fn seen(&self, steps: u64) -> Seen {
        let mut seen = Seen {
            languages: vec![0; self.texts.languages.len()],
            sources: vec![0; self.texts.sources.len()],
        };
        let sequences = self.mixture.sequences(steps * self.sequences as u64);
        for (index, (stream, sequences)) in self.mixture.streams.iter().zip(sequences).enumerate() {
            let tokens = sequences * self.sequence_length as u64;
            let language = &self.texts.languages[stream.language];
            seen.languages[stream.language] += tokens;
            let (epochs, mut rest) =
                (tokens / stream.length as u64, (tokens % stream.length as u64) as usize);
            for &document in &stream.documents {
                let length = language.document(document as usize).len() as u64;
                seen.sources[language.source(document as usize) as usize] += epochs * length;
            }
            // The last epoch is not over.
            for &document in &self.order(index, epochs).documents {
                let taken = language.document(document as usize).len().min(rest);
                seen.sources[language.source(document as usize) as usize] += taken as u64;
                rest -= taken;
                if rest == 0 {
                    break;
                }
            }
        }
        seen
    }

    /// [`Batches::seen`] without what stood in these steps, counted from 1.
    pub(crate) fn seen_without(&self, steps: u64, left_out: &[u64]) -> Seen {
        let mut seen = self.seen(steps);
        for &step in left_out {
            let (before, after) = (self.seen(step - 1), self.seen(step));
            let counts = seen.languages.iter_mut().zip(after.languages.iter().zip(&before.languages));
            let counts = counts.chain(seen.sources.iter_mut().zip(after.sources.iter().zip(&before.sources)));
            counts.for_each(|(count, (after, before))| *count -= after - before);
        }
        seen
    }

    /// Texts whose share was cut, because they would have been repeated too often.
    pub fn cuts(&self) -> &[Cut] {
        &self.mixture.cuts
    }

    /// The texts behind the batches.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// Appends a sequence to a micro-batch.
    fn append(&self, sequence: u64, micro: &mut MicroBatch) {
        let Mixture { streams, turns, before, counts, .. } = &self.mixture;
        let turn = (sequence % turns.len() as u64) as usize;
        let index = turns[turn] as usize;
        let nth = sequence / turns.len() as u64 * counts[index] + u64::from(before[turn]);
        let stream = &streams[index];
        let language = &self.texts.languages[stream.language];
        let length = stream.length as u64;
        let mut place = nth * self.sequence_length as u64;
        let mut left = self.sequence_length;
        while left > 0 {
            let order = self.order(index, place / length);
            let offset = (place % length) as usize;
            let nth_document = order.starts.partition_point(|start| *start <= offset) - 1;
            let document = language.document(order.documents[nth_document] as usize);
            let first = offset - order.starts[nth_document];
            let tokens = &document[first..];
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
            if self.goldfish.k > 0 {
                for (index, target) in micro.targets[begin..].iter_mut().enumerate() {
                    if self.goldfish.leaves_out(&document[..first + index + 1]) {
                        *target = NO_TARGET;
                    }
                }
            }
            micro.positions.extend(0..count as u32);
            micro.documents.push(begin..begin + count);
            place += count as u64;
            left -= count;
        }
    }

    fn order(&self, stream: usize, epoch: u64) -> Arc<EpochOrder> {
        let mut orders = self.orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(order) = orders.get(&(stream, epoch)) {
            return order.clone();
        }
        let documents = &self.mixture.streams[stream];
        let order = Arc::new(EpochOrder::new(
            &self.texts.languages[documents.language],
            documents,
            random::key(&[self.seed, stream as u64, epoch]),
        ));
        // Steps go forward: what lies two epochs back is not needed again soon.
        orders.retain(|(other, old), _| *other != stream || *old + 1 >= epoch);
        orders.insert((stream, epoch), order.clone());
        order
    }
}

/// What a run has truly seen, repeats counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Tokens of each of the texts' languages.
    pub languages: Vec<u64>,
    /// Tokens of each of the texts' sources.
    pub sources: Vec<u64>,
}

impl EpochOrder {
    fn new(language: &LanguageTokens, stream: &Stream, key: u64) -> EpochOrder {
        let order = random::permutation(key, stream.documents.len());
        let documents: Vec<u32> = order.into_iter().map(|index| stream.documents[index as usize]).collect();
        let mut starts = vec![0];
        for &document in &documents {
            starts.push(starts[starts.len() - 1] + language.document(document as usize).len());
        }
        EpochOrder { documents, starts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> Texts {
        let mut texts = Texts::default();
        for (code, documents) in [("bg", 5), ("el", 9), ("mt", 2)] {
            let mut language = LanguageTokens::new(code);
            for document in 0..documents {
                let text: Vec<u32> = (0..7 + document * 3).map(|i| 1 + (document * 31 + i) % 50).collect();
                let source = texts.source_index([None, Some("web")][(document % 2) as usize]);
                language.push(source, 0, &text);
            }
            texts.languages.push(language);
        }
        texts
    }

    fn settings() -> Settings {
        Settings { sequence_length: 16, batch_tokens: 96, seed: 5, ..Settings::default() }
    }

    #[test]
    fn sequences_follow_each_other_in_every_language() {
        let batches = Batches::new(texts(), &settings()).unwrap();
        let mut streams: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for step in 0..40 {
            let batch = batches.step(step);
            let micro = &batch.micro_batches[0];
            assert_eq!((batch.micro_batches.len(), batch.targets, micro.tokens.len()), (1, 96, 96));
            for sequence in 0..6 {
                let turns = &batches.mixture.turns;
                let language = turns[(step as usize * 6 + sequence) % turns.len()];
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
            seen.languages.into_iter().map(|tokens| tokens as f64 / 960_000.0).collect::<Vec<_>>()
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

    /// What was seen, counted by hand: every text token of these documents says where it comes from.
    #[test]
    fn what_was_seen_is_told_by_language_and_source() {
        let mut texts = Texts::default();
        for (index, code) in ["bg", "el", "mt"].into_iter().enumerate() {
            let mut language = LanguageTokens::new(code);
            for document in 0..7u32 {
                let name = ["books", "web", "law"][document as usize % 3];
                let source = texts.source_index(Some(name));
                language.push(source, 0, &vec![1 + 10 * index as u32 + source; 5 + document as usize * 4]);
            }
            texts.languages.push(language);
        }
        for source_weights in
            [BTreeMap::new(), BTreeMap::from([("web".to_string(), 1.0), ("law".to_string(), 4.0)])]
        {
            let settings = Settings { source_weights, ..settings() };
            let copy = Texts {
                sources: texts.sources.clone(),
                languages: texts
                    .languages
                    .iter()
                    .map(|language| {
                        let mut copy = LanguageTokens::new(language.language.clone());
                        for document in 0..language.documents() {
                            copy.push(language.source(document), 0, &language.document(document)[1..]);
                        }
                        copy
                    })
                    .collect(),
            };
            let batches = Batches::new(copy, &settings).unwrap();
            let mut languages = [0u64; 3];
            let mut sources = [0u64; 3];
            for step in 0..60 {
                let seen = batches.seen(step);
                assert_eq!(seen.languages.iter().sum::<u64>(), step * 96);
                assert_eq!(seen.sources.iter().sum::<u64>(), step * 96);
                let separators = step * 96 - languages.iter().sum::<u64>();
                for (found, counted) in seen.languages.iter().zip(languages) {
                    assert!((counted..=counted + separators).contains(found));
                }
                for (found, counted) in seen.sources.iter().zip(sources) {
                    assert!((counted..=counted + separators).contains(found));
                }
                for token in batches.step(step).micro_batches.iter().flat_map(|micro| &micro.tokens) {
                    if let Some(token) = token.checked_sub(1) {
                        languages[token as usize / 10] += 1;
                        sources[token as usize % 10] += 1;
                    }
                }
            }
            assert_eq!(sources[0] == 0, !settings.source_weights.is_empty(), "books are left out");
        }
    }

    #[test]
    fn goldfish_leaves_out_targets_wherever_a_sequence_is_cut() {
        let goldfish = |k: u64, sequence_length: usize| {
            let settings = Settings {
                goldfish_k: k,
                goldfish_context: 3,
                sequence_length,
                batch_tokens: 96,
                ..settings()
            };
            Batches::new(texts(), &settings).unwrap()
        };
        let (with, without) = (goldfish(4, 16), goldfish(0, 16));
        let mut out = 0;
        for step in 0..30 {
            let (with, without) = (with.step(step), without.step(step));
            let pairs = with.micro_batches[0].targets.iter().zip(&without.micro_batches[0].targets);
            let holes =
                pairs.filter(|(with, without)| with != without).map(|(with, _)| *with).collect::<Vec<_>>();
            assert!(holes.iter().all(|target| *target == NO_TARGET));
            assert_eq!(with.targets + holes.len(), 96);
            out += holes.len();
        }
        assert!((400..=900).contains(&out), "{out} of 2,880");
        // The same document cut in other places has the same holes.
        let holes = |batches: &Batches, length: usize| {
            let mut found = std::collections::BTreeSet::new();
            let language = &batches.texts().languages[1];
            for step in 0..40 {
                let micro = &batches.step(step).micro_batches[0];
                for sequence in 0..96 / length {
                    let turns = &batches.mixture.turns;
                    if turns[(step as usize * (96 / length) + sequence) % turns.len()] != 1 {
                        continue;
                    }
                    for place in sequence * length..(sequence + 1) * length {
                        if micro.targets[place] == NO_TARGET && place % length > 3 {
                            found.insert(micro.tokens[place - 3..=place].to_vec());
                        }
                    }
                }
            }
            assert!(language.documents() > 0 && !found.is_empty());
            found
        };
        let (long, short) = (holes(&with, 16), holes(&goldfish(4, 32), 32));
        assert!(short.intersection(&long).count() * 10 >= long.len().min(short.len()) * 9);
    }
}
