//! Which text has which turn: shares of languages and sources, and the table that spreads them evenly.
//!
//! Shares come from weights or from the amounts of text, are cut where a text would be repeated too often, and become a
//! table of turns that is gone through again and again.

use crate::Error;
use crate::settings::Settings;
use crate::texts::Texts;
use compute::elementary::power;
use serde::Serialize;

/// Turns of a plain table.
const TURNS: usize = 4096;
/// With a cap on repeats the rarest stream has at least this many turns, so that rounding is below two percent …
const CAPPED_TURNS: f64 = 64.0;
/// … unless the table would be longer than this.
const LONGEST_TABLE: usize = 1 << 18;

/// Documents that are gone through one behind another: a language, or the part of it that comes from one source.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Index of the language.
    pub language: usize,
    /// Index of the source, where sources are weighed.
    pub source: Option<u32>,
    /// Indices of its documents within the language.
    pub documents: Vec<u32>,
    /// Tokens of all of them.
    pub length: usize,
}

/// A text whose share was cut, because it would have been repeated too often.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cut {
    /// Code of the language.
    pub language: String,
    /// Name of the source, where sources are weighed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The share that weights or temperature give it.
    pub wanted_share: f64,
    /// The share that it has.
    pub share: f64,
}

/// The order of streams.
#[derive(Debug)]
pub(crate) struct Mixture {
    pub streams: Vec<Stream>,
    /// Stream of each turn.
    pub turns: Vec<u32>,
    /// How many turns before this one in the table belong to the same stream.
    pub before: Vec<u32>,
    /// Turns of each stream in the table.
    pub counts: Vec<u64>,
    pub cuts: Vec<Cut>,
}

impl Mixture {
    /// The mixture that the settings ask for.
    ///
    /// # Errors
    /// When a language or source that the settings weigh is not in the corpus, or the text is too little for the run.
    pub fn new(texts: &Texts, settings: &Settings) -> Result<Mixture, Error> {
        let streams = streams(texts, settings)?;
        let wanted = shares(texts, &streams, settings)?;
        let mut shares = wanted.clone();
        let mut length = TURNS;
        let mut cuts = Vec::new();
        if settings.maximum_epochs > 0.0 {
            cut(&mut shares, &streams, settings)?;
            let least = shares.iter().copied().filter(|share| *share > 0.0).fold(1.0, f64::min);
            while (length as f64) < CAPPED_TURNS / least && length < LONGEST_TABLE {
                length *= 2;
            }
            for (stream, (&wanted_share, &share)) in streams.iter().zip(wanted.iter().zip(&shares)) {
                if share < wanted_share {
                    let language = texts.languages[stream.language].language.clone();
                    let source = stream.source.map(|source| texts.sources[source as usize].clone());
                    cuts.push(Cut { language, source, wanted_share, share });
                }
            }
        }
        let (turns, counts) = spread(&shares, length);
        let mut seen = vec![0u32; counts.len()];
        let mut before = Vec::with_capacity(length);
        for &stream in &turns {
            before.push(seen[stream as usize]);
            seen[stream as usize] += 1;
        }
        Ok(Mixture { streams, turns, before, counts, cuts })
    }

    /// How many of the first `sequences` turns each stream has.
    pub fn sequences(&self, sequences: u64) -> Vec<u64> {
        let length = self.turns.len() as u64;
        let (rounds, rest) = (sequences / length, (sequences % length) as usize);
        let mut taken: Vec<u64> = self.counts.iter().map(|count| count * rounds).collect();
        for &stream in &self.turns[..rest] {
            taken[stream as usize] += 1;
        }
        taken
    }
}

/// One stream per language, or per language and weighed source.
fn streams(texts: &Texts, settings: &Settings) -> Result<Vec<Stream>, Error> {
    if let Some(strange) = settings.source_weights.keys().find(|name| !texts.sources.contains(name)) {
        let known = texts.sources.join(", ");
        let problem =
            format!("source_weights.{strange}: the corpus has no text of such a source; it has {known}");
        return Err(Error::Settings(problem));
    }
    let by_source = !settings.source_weights.is_empty();
    let mut streams: Vec<Stream> = Vec::new();
    for (index, language) in texts.languages.iter().enumerate() {
        let mut parts: Vec<Option<u32>> = vec![None];
        if by_source {
            let weighed = settings.source_weights.iter().filter(|(_, weight)| **weight > 0.0);
            parts = weighed
                .filter_map(|(name, _)| texts.sources.iter().position(|source| source == name))
                .map(|source| Some(source as u32))
                .collect();
        }
        for source in parts {
            let documents: Vec<u32> = (0..language.documents() as u32)
                .filter(|document| source.is_none_or(|source| language.source(*document as usize) == source))
                .collect();
            let length = documents.iter().map(|document| language.document(*document as usize).len()).sum();
            if length > 0 {
                streams.push(Stream { language: index, source, documents, length });
            }
        }
    }
    Ok(streams)
}

/// Share of each stream, adding up to 1: that of its language, and within it that of its source.
fn shares(texts: &Texts, streams: &[Stream], settings: &Settings) -> Result<Vec<f64>, Error> {
    let known: Vec<&str> = texts.languages.iter().map(|language| language.language.as_str()).collect();
    for (language, weight) in &settings.language_weights {
        let Some(index) = known.iter().position(|code| code == language) else {
            let problem = format!(
                "language_weights.{language}: the corpus has no such language; it has {}",
                known.join(", ")
            );
            return Err(Error::Settings(problem));
        };
        if *weight > 0.0 && !streams.iter().any(|stream| stream.language == index) {
            let problem = format!(
                "language_weights.{language} = {weight}: none of the sources in source_weights has text in it"
            );
            return Err(Error::Settings(problem));
        }
    }
    let source_weight = |stream: &Stream| {
        stream.source.map_or(1.0, |source| settings.source_weights[&texts.sources[source as usize]])
    };
    let mut lengths = vec![0usize; known.len()];
    let mut source_sums = vec![0.0; known.len()];
    for stream in streams {
        lengths[stream.language] += stream.length;
        source_sums[stream.language] += source_weight(stream);
    }
    let weights: Vec<f64> = (0..known.len())
        .map(|index| match (lengths[index], settings.language_weights.is_empty()) {
            (0, _) => 0.0,
            (length, true) => power(length as f64, 1.0 / settings.language_temperature),
            (_, false) => settings.language_weights.get(known[index]).copied().unwrap_or(0.0),
        })
        .collect();
    let sum: f64 = weights.iter().sum();
    if sum <= 0.0 {
        let problem = "language_weights and source_weights together leave no text to train on".to_string();
        return Err(Error::Settings(problem));
    }
    let share = |stream: &Stream| {
        let language = weights[stream.language] / sum;
        match stream.source {
            None => language,
            Some(_) => language * source_weight(stream) / source_sums[stream.language],
        }
    };
    Ok(streams.iter().map(share).collect())
}

/// Cuts shares to what `maximum_epochs` times the text fills; the others grow in proportion.
fn cut(shares: &mut [f64], streams: &[Stream], settings: &Settings) -> Result<(), Error> {
    let run = settings.steps as f64 * settings.batch_tokens as f64;
    let limits: Vec<f64> =
        streams.iter().map(|stream| settings.maximum_epochs * stream.length as f64 / run).collect();
    let mut is_cut = vec![false; shares.len()];
    loop {
        let (mut room, mut free) = (1.0, 0.0);
        for ((share, limit), is_cut) in shares.iter().zip(&limits).zip(&is_cut) {
            if *is_cut {
                room -= limit;
            } else {
                free += share;
            }
        }
        if free <= 0.0 {
            if room < 1e-9 {
                break;
            }
            let problem = format!(
                "maximum_epochs = {}: the text that is weighed gives at most {:.0} tokens, the run asks for {run:.0} (steps × \
                 batch_tokens); take fewer steps, more text or more epochs",
                settings.maximum_epochs,
                run * (1.0 - room)
            );
            return Err(Error::Settings(problem));
        }
        let scale = room / free;
        let mut settled = true;
        for ((share, limit), is_cut) in shares.iter().zip(&limits).zip(&mut is_cut) {
            if !*is_cut && share * scale > limit * (1.0 + 1e-9) {
                *is_cut = true;
                settled = false;
            }
        }
        if settled {
            for ((share, limit), is_cut) in shares.iter_mut().zip(&limits).zip(&is_cut) {
                *share = if *is_cut { *limit } else { *share * scale };
            }
            return Ok(());
        }
    }
    shares.copy_from_slice(&limits);
    Ok(())
}

/// A table of turns in which every stretch holds about the wanted shares: each turn goes to the stream that is furthest
/// behind. A stream with any share has at least one turn.
fn spread(shares: &[f64], length: usize) -> (Vec<u32>, Vec<u64>) {
    let least = 1.5 / length as f64;
    let raised: Vec<f64> =
        shares.iter().map(|share| if *share > 0.0 { share.max(least) } else { 0.0 }).collect();
    let sum: f64 = raised.iter().sum();
    let mut counts = vec![0u64; shares.len()];
    let mut turns = Vec::with_capacity(length);
    for turn in 0..length {
        let behind = |index: usize| raised[index] / sum * (turn + 1) as f64 - counts[index] as f64;
        let mut next = 0;
        for index in 1..shares.len() {
            if behind(index) > behind(next) {
                next = index;
            }
        }
        counts[next] += 1;
        turns.push(next as u32);
    }
    (turns, counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::texts::LanguageTokens;
    use std::collections::BTreeMap;

    /// Three languages; "web" and "books" in two of them, documents without a source in the third.
    fn texts() -> Texts {
        let mut texts = Texts::default();
        for (code, parts) in
            [("bg", vec![("web", 900), ("books", 100)]), ("el", vec![("web", 3000)]), ("mt", vec![("", 50)])]
        {
            let mut language = LanguageTokens::new(code);
            for (source, tokens) in parts {
                let source = texts.source_index((!source.is_empty()).then_some(source));
                for document in 0..10 {
                    language.push(source, 0, &vec![1 + document; tokens / 10 - 1]);
                }
            }
            texts.languages.push(language);
        }
        texts
    }

    fn weights(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|(name, weight)| (name.to_string(), *weight)).collect()
    }

    /// Shares of (language, source), as the table has them.
    fn found(settings: &Settings) -> Vec<(String, f64)> {
        let texts = texts();
        let mixture = Mixture::new(&texts, settings).unwrap();
        let name = |stream: &Stream| {
            let source = stream.source.map_or("", |source| texts.sources[source as usize].as_str());
            format!("{} {source}", texts.languages[stream.language].language).trim().to_string()
        };
        let length = mixture.turns.len() as f64;
        mixture
            .streams
            .iter()
            .map(name)
            .zip(mixture.counts.iter().map(|count| *count as f64 / length))
            .collect()
    }

    fn check(settings: &Settings, expected: &[(&str, f64)]) {
        let found = found(settings);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((name, share), (expected_name, expected_share)) in found.iter().zip(expected) {
            assert_eq!(name, expected_name);
            assert!((share - expected_share).abs() < 1e-3, "{name}: {share}, expected {expected_share}");
        }
    }

    #[test]
    fn sources_divide_the_share_of_their_language() {
        let base = Settings::default();
        check(&base, &[("bg", 1000.0 / 4050.0), ("el", 3000.0 / 4050.0), ("mt", 50.0 / 4050.0)]);
        let all = weights(&[("web", 1.0), ("books", 3.0), ("unstated", 1.0)]);
        check(
            &Settings { source_weights: all, ..base.clone() },
            &[
                ("bg books", 0.75 * 1000.0 / 4050.0),
                ("bg web", 0.25 * 1000.0 / 4050.0),
                ("el web", 3000.0 / 4050.0),
                ("mt unstated", 50.0 / 4050.0),
            ],
        );
        // A source that is not named, or weighs nothing, is left out, and with it what only it has.
        let books = weights(&[("books", 1.0), ("web", 0.0)]);
        check(&Settings { source_weights: books, ..base.clone() }, &[("bg books", 1.0)]);
        let both = Settings {
            source_weights: weights(&[("web", 1.0)]),
            language_weights: weights(&[("bg", 1.0), ("el", 3.0)]),
            ..base
        };
        check(&both, &[("bg web", 0.25), ("el web", 0.75)]);
    }

    #[test]
    fn what_would_be_repeated_too_often_is_cut_and_the_rest_grows() {
        let even = Settings {
            language_temperature: 1e6,
            maximum_epochs: 2.0,
            steps: 10,
            batch_tokens: 512,
            ..Settings::default()
        };
        // mt may have 100 of 5,120 tokens, bg 2,000; el takes the rest.
        let (mt, bg) = (100.0 / 5120.0, 1.0 / 3.0 * 1.0f64.min(2000.0 / 5120.0 * 3.0));
        let bg = bg.max((1.0 - mt) / 2.0).min(2000.0 / 5120.0);
        check(&even, &[("bg", bg), ("el", 1.0 - mt - bg), ("mt", mt)]);
        let cuts = Mixture::new(&texts(), &even).unwrap().cuts;
        assert_eq!(cuts.iter().map(|cut| cut.language.as_str()).collect::<Vec<_>>(), ["mt"]);
        assert!(cuts[0].share < cuts[0].wanted_share);

        let too_long = Settings { steps: 100, ..even.clone() };
        let problem = Mixture::new(&texts(), &too_long).unwrap_err().to_string();
        assert!(problem.contains("maximum_epochs = 2") && problem.contains("8100"), "{problem}");
        // Exactly all of the text, exactly twice.
        let whole = Settings { steps: 1, batch_tokens: 8100, sequence_length: 2, ..even };
        let mixture = Mixture::new(&texts(), &whole).unwrap();
        assert!(mixture.turns.len() >= TURNS);
    }

    #[test]
    fn unknown_names_are_refused() {
        let refuse = |settings: Settings| Mixture::new(&texts(), &settings).unwrap_err().to_string();
        let base = Settings::default();
        let source = Settings { source_weights: weights(&[("radio", 1.0)]), ..base.clone() };
        assert!(refuse(source).contains("source_weights.radio"));
        let language = Settings { language_weights: weights(&[("xx", 1.0)]), ..base.clone() };
        assert!(refuse(language).contains("language_weights.xx"));
        let without_text = Settings {
            source_weights: weights(&[("books", 1.0)]),
            language_weights: weights(&[("mt", 1.0)]),
            ..base
        };
        assert!(refuse(without_text).contains("language_weights.mt = 1"));
    }
}
