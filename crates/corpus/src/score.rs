//! A score for each document: how much it reads like text that the owner calls good.
//!
//! One logistic regression a language over hashed words and pairs of words, trained inside the stage on the owner's good
//! text against a random sample of the input, as fastText classifiers are for web corpora (Joulin et al. 2016; Li et al.
//! 2024, "DataComp-LM", section 4.4), with AdaGrad (Duchi et al. 2011). Every sum has a fixed order and the exponential is
//! our own, so that the same texts give the same scores on every machine.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::words::{Words, mix};

/// Weights of a model: words that share one are few among the 30,000 most frequent.
const BUCKETS: usize = 1 << 18;
/// Words of a text that training looks at; good text is cut into pieces of so many.
const PIECE_WORDS: usize = 500;
const EPOCHS: u64 = 5;
const LEARNING_RATE: f32 = 0.5;
/// One text in so many is kept out of training, to see how well the two sides are told apart.
const HELD_OUT: usize = 5;
/// Fewer pieces of good text than this teach nothing.
pub const MINIMUM_GOOD_PIECES: usize = 10;
/// Bars of the histogram in `statistics.json`.
pub const HISTOGRAM_BARS: usize = 20;

/// Scores are kept as whole ten-thousandths: as many digits as anyone reads, and equal wherever they are written.
pub const ONE: u16 = 10_000;
/// The score of a document that has none.
pub const NO_SCORE: u16 = u16::MAX;

/// What happens with scores. Only used where the settings name good texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScoreSettings {
    /// A document with a lower score is dropped.
    pub minimum: f64,
    /// Of each language the best documents are kept, this share of them.
    pub keep_share: f64,
    /// Documents of the input that stand for ordinary text in training, of each language.
    pub sample_documents: usize,
    /// A language of the settings without enough good text: stop the run, or leave its documents without scores.
    pub missing_language: MissingLanguage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingLanguage {
    Stop,
    Unscored,
}

impl Default for ScoreSettings {
    fn default() -> Self {
        ScoreSettings {
            minimum: 0.0,
            keep_share: 1.0,
            sample_documents: 4_000,
            missing_language: MissingLanguage::Stop,
        }
    }
}

impl ScoreSettings {
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |key, expected, found: String| Err(Error::Setting { key, expected, found });
        if !(0.0..=1.0).contains(&self.minimum) {
            return wrong("score.minimum", "a score from 0 to 1", self.minimum.to_string());
        }
        if !(self.keep_share > 0.0 && self.keep_share <= 1.0) {
            return wrong("score.keep_share", "a share above 0, at most 1", self.keep_share.to_string());
        }
        if self.sample_documents < 100 {
            return wrong("score.sample_documents", "at least 100", self.sample_documents.to_string());
        }
        Ok(())
    }
}

/// The scores of a language, for `statistics.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoreStatistics {
    /// Texts that the model was trained with, on either side.
    pub good_pieces: u64,
    pub sample_documents: u64,
    /// How often a good text scores above an ordinary one, of texts that were not trained with: 0.5 is chance.
    pub good_above_ordinary: f64,
    /// The lowest score that was kept.
    pub cut: f64,
    /// Documents by score, from 0 to 1 in steps of a twentieth: before the cut.
    pub histogram: Vec<u64>,
}

/// The model of one language.
#[derive(Debug, Clone)]
pub struct Model {
    weights: Vec<f32>,
    bias: f32,
    pub good_above_ordinary: f64,
}

/// A score in whole ten-thousandths, as a number from 0 to 1.
pub fn as_share(score: u16) -> f64 {
    f64::from(score) / f64::from(ONE)
}

/// A text as the model sees it: the buckets of its words and pairs.
pub type Features = Vec<u32>;

/// The features of a text's first words.
pub fn features(words: &Words) -> Features {
    features_of(&words.hashes[..words.hashes.len().min(PIECE_WORDS)])
}

/// The features of a long text, piece by piece; a rest of less than half a piece is left out unless it is all there is.
pub fn pieces(words: &Words) -> Vec<Features> {
    let pieces = words.hashes.chunks(PIECE_WORDS).enumerate();
    pieces
        .filter(|(place, piece)| *place == 0 && !piece.is_empty() || piece.len() >= PIECE_WORDS / 2)
        .map(|(_, piece)| features_of(piece))
        .collect()
}

fn features_of(hashes: &[u64]) -> Features {
    let single = hashes.iter().map(|hash| bucket(*hash));
    let pairs = hashes.windows(2).map(|pair| bucket(pair_hash(pair[0], pair[1])));
    single.chain(pairs).collect()
}

#[inline(always)]
fn pair_hash(left: u64, right: u64) -> u64 {
    left.rotate_left(21).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ right
}

#[inline(always)]
fn bucket(hash: u64) -> u32 {
    (hash.wrapping_mul(0xd6e8_feb8_6659_fd93) >> (64 - BUCKETS.trailing_zeros())) as u32
}

impl Model {
    /// Trains on good texts and ordinary ones; the order of both decides the weights, so it must follow from their content.
    pub fn train(good: &[Features], ordinary: &[Features], seed: u64) -> Model {
        let held_out = |place: usize| place % HELD_OUT == HELD_OUT - 1;
        let part = |texts: &[Features], wanted: bool| -> Vec<usize> {
            (0..texts.len()).filter(|&place| held_out(place) == wanted).collect()
        };
        let (good_train, ordinary_train) = (part(good, false), part(ordinary, false));
        let mut model = Model { weights: vec![0.0; BUCKETS], bias: 0.0, good_above_ordinary: 0.5 };
        let mut squares = vec![0.0f32; BUCKETS];
        let mut bias_square = 0.0f32;
        let steps = good_train.len().max(ordinary_train.len());
        for epoch in 0..EPOCHS {
            let (good_order, ordinary_order) = (
                shuffled(&good_train, seed ^ (2 * epoch)),
                shuffled(&ordinary_train, seed ^ (2 * epoch + 1)),
            );
            // One of each in turn: neither side counts for more because there is more of it.
            for step in 0..steps {
                for (texts, order, target) in [(good, &good_order, 1.0), (ordinary, &ordinary_order, 0.0)] {
                    if !order.is_empty() {
                        let text = &texts[order[step % order.len()]];
                        model.learn(text, target, &mut squares, &mut bias_square);
                    }
                }
            }
        }
        let scores = |texts: &[Features]| -> Vec<f32> {
            part(texts, true).iter().map(|&place| model.score_features(&texts[place])).collect()
        };
        let share = share_above(&scores(good), &scores(ordinary));
        Model { good_above_ordinary: share, ..model }
    }

    fn learn(&mut self, text: &Features, target: f32, squares: &mut [f32], bias_square: &mut f32) {
        let error = self.score_features(text) - target;
        *bias_square += error * error;
        self.bias -= LEARNING_RATE * error / (bias_square.sqrt() + 1e-6);
        let gradient = error / text.len().max(1) as f32;
        for &bucket in text {
            let bucket = bucket as usize;
            squares[bucket] += gradient * gradient;
            self.weights[bucket] -= LEARNING_RATE * gradient / (squares[bucket].sqrt() + 1e-6);
        }
    }

    /// The score of a text whose words were read, in ten-thousandths.
    pub fn score(&self, words: &Words) -> u16 {
        (self.probability(words) * f32::from(ONE)).round() as u16
    }

    /// Its numbers: the share, the bias, the weights.
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = std::iter::once(&self.bias).chain(&self.weights);
        let share = self.good_above_ordinary.to_le_bytes();
        share.into_iter().chain(numbers.flat_map(|number| number.to_le_bytes())).collect()
    }

    /// A model from the start of these bytes, and the bytes behind it; nothing where there are too few.
    pub fn from_bytes(bytes: &[u8]) -> Option<(Model, &[u8])> {
        let (share, rest) = bytes.split_first_chunk::<8>()?;
        let (numbers, rest) = rest.split_at_checked(4 * (BUCKETS + 1))?;
        let mut numbers = numbers.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number));
        let bias = numbers.next()?;
        let model =
            Model { weights: numbers.collect(), bias, good_above_ordinary: f64::from_le_bytes(*share) };
        Some((model, rest))
    }

    fn probability(&self, words: &Words) -> f32 {
        let hashes = &words.hashes;
        let single = hashes.iter().map(|hash| self.weights[bucket(*hash) as usize]);
        let pairs = hashes.windows(2).map(|pair| self.weights[bucket(pair_hash(pair[0], pair[1])) as usize]);
        self.squashed(single.sum::<f32>() + pairs.sum::<f32>(), (2 * hashes.len()).saturating_sub(1))
    }

    fn score_features(&self, text: &Features) -> f32 {
        self.squashed(text.iter().map(|&bucket| self.weights[bucket as usize]).sum(), text.len())
    }

    fn squashed(&self, sum: f32, features: usize) -> f32 {
        let logit = f64::from(self.bias) + f64::from(sum) / features.max(1) as f64;
        (1.0 / (1.0 + exponential(-logit))) as f32
    }
}

/// e^x for |x| ≤ 30, beyond that of the nearest such x: by additions and multiplications alone, equal on all machines.
fn exponential(x: f64) -> f64 {
    let x = x.clamp(-30.0, 30.0);
    let whole = (x / std::f64::consts::LN_2).round();
    let rest = x - whole * std::f64::consts::LN_2;
    let series = (1..=14).rev().fold(1.0, |sum, n| 1.0 + sum * rest / f64::from(n));
    series * f64::from_bits(((1023 + whole as i64) as u64) << 52)
}

fn shuffled(places: &[usize], seed: u64) -> Vec<usize> {
    let mut order = places.to_vec();
    order.sort_by_key(|&place| (mix(mix(seed) ^ place as u64), place));
    order
}

/// How often a value of the left is above one of the right; ties count half.
fn share_above(left: &[f32], right: &[f32]) -> f64 {
    if left.is_empty() || right.is_empty() {
        return 0.5;
    }
    let mut sorted = right.to_vec();
    sorted.sort_by(f32::total_cmp);
    let wins: f64 = left
        .iter()
        .map(|value| {
            let below = sorted.partition_point(|other| other < value);
            let not_above = sorted.partition_point(|other| other <= value);
            (below + not_above) as f64 / 2.0
        })
        .sum();
    wins / (left.len() * right.len()) as f64
}

/// The score below which documents of a language are dropped, given all its scores.
pub fn cut(scores: &[u16], settings: &ScoreSettings) -> u16 {
    let mut sorted = scores.to_vec();
    sorted.sort_unstable();
    let dropped = ((1.0 - settings.keep_share) * sorted.len() as f64).floor() as usize;
    let quantile = match dropped {
        0 => 0,
        dropped => sorted.get(dropped).copied().unwrap_or(0),
    };
    quantile.max((settings.minimum * f64::from(ONE)).round() as u16)
}

pub fn histogram(scores: &[u16]) -> Vec<u64> {
    let mut bars = vec![0; HISTOGRAM_BARS];
    for score in scores {
        bars[(usize::from(*score) * HISTOGRAM_BARS / usize::from(ONE)).min(HISTOGRAM_BARS - 1)] += 1;
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 8] =
        ["měření", "ukazuje", "rozdíl", "mezi", "hodnotami", "vzorek", "přesnost", "výsledek"];
    const BAD: [&str; 8] = ["sleva", "kupte", "hned", "akce", "levně", "dnes", "klikněte", "zdarma"];
    const BOTH: [&str; 8] = ["a", "je", "na", "že", "se", "pro", "jako", "ale"];

    fn texts(kind: &[&str; 8], count: u64) -> Vec<String> {
        let text = |number: u64| {
            let word = |place: u64| {
                let drawn = mix(number * 1000 + place + kind[0].len() as u64);
                if drawn % 5 < 2 { kind[(drawn >> 8) as usize % 8] } else { BOTH[(drawn >> 8) as usize % 8] }
            };
            (0..80).map(word).collect::<Vec<_>>().join(" ")
        };
        (0..count).map(text).collect()
    }

    fn all_features(texts: &[String]) -> Vec<Features> {
        texts.iter().map(|text| features(&Words::of(text))).collect()
    }

    #[test]
    fn good_text_scores_above_other_text() {
        let (good, bad) = (texts(&GOOD, 60), texts(&BAD, 200));
        let model = Model::train(&all_features(&good), &all_features(&bad), 7);
        assert!(model.good_above_ordinary > 0.99, "{}", model.good_above_ordinary);
        let score = |text: &str| model.score(&Words::of(text));
        let (high, low) = (score(&texts(&GOOD, 70)[65]), score(&texts(&BAD, 300)[250]));
        assert!(high > 6_000 && low < 4_000, "{high} {low}");
        assert!(score("") <= ONE);
        let bytes = model.to_bytes();
        let (read, rest) = Model::from_bytes(&bytes).unwrap();
        assert!(rest.is_empty() && read.weights == model.weights && read.bias == model.bias);
        assert!(Model::from_bytes(&bytes[1..]).is_none());
        let again = Model::train(&all_features(&good), &all_features(&bad), 7);
        assert_eq!(again.weights, model.weights);
        let equal = Model::train(&all_features(&bad[..100]), &all_features(&bad[100..]), 7);
        assert!((0.2..0.8).contains(&equal.good_above_ordinary), "{}", equal.good_above_ordinary);
    }

    #[test]
    fn the_sum_over_words_is_that_over_features() {
        let (good, bad) = (texts(&GOOD, 30), texts(&BAD, 30));
        let model = Model::train(&all_features(&good), &all_features(&bad), 1);
        let words = Words::of(&good[3]);
        assert!((model.probability(&words) - model.score_features(&features(&words))).abs() < 1e-5);
    }

    #[test]
    fn the_exponential_is_that_of_mathematics() {
        for x in [-40.0, -30.0, -3.7, -0.1, 0.0, 0.5, 1.0, 9.9, 30.0] {
            let expected = f64::exp(f64::clamp(x, -30.0, 30.0));
            assert!((exponential(x) / expected - 1.0).abs() < 1e-12, "{x}");
        }
    }

    #[test]
    fn long_texts_are_cut_into_pieces() {
        let words = |count: usize| Words::of(&(0..count).map(|n| format!("w{n} ")).collect::<String>());
        let check =
            |count: usize, expected: usize| assert_eq!(pieces(&words(count)).len(), expected, "{count}");
        check(0, 0);
        check(3, 1);
        check(500, 1);
        check(700, 1);
        check(760, 2);
        check(1500, 3);
    }

    #[test]
    fn cuts_and_bars() {
        let scores: Vec<u16> = (0..100).map(|n| n * 100).collect();
        let settings =
            |minimum: f64, keep_share: f64| ScoreSettings { minimum, keep_share, ..ScoreSettings::default() };
        assert_eq!(cut(&scores, &settings(0.0, 1.0)), 0);
        assert_eq!(cut(&scores, &settings(0.3, 1.0)), 3_000);
        assert_eq!(cut(&scores, &settings(0.3, 0.25)), 7_500);
        assert_eq!(cut(&[], &settings(0.0, 0.5)), 0);
        assert_eq!(histogram(&scores), vec![5; 20]);
        assert_eq!(histogram(&[ONE])[19], 1);
        let wrong = |settings: ScoreSettings| settings.check().unwrap_err().to_string();
        assert!(wrong(settings(1.5, 1.0)).contains("score.minimum"));
        assert!(wrong(settings(0.5, 0.0)).contains("score.keep_share"));
    }
}
