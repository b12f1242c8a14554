//! Choosing the next token from the logits of one row.
//!
//! Order: what a form of the answer rules out, logit bias, repetition penalty, presence and frequency penalty, temperature, top-k, top-p, min-p, draw. The
//! draw is a pure function of (seed, number of the token), and equal logits are ordered by id, so the same request gives
//! the same tokens whatever else runs beside it. Sums run in f64 over a fixed order.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use compute::cross_entropy::cross_entropy_rows;

use crate::format::Allowed;
use crate::request::Sampling;

/// Below this, the likeliest token is all that is left.
const LOWEST_TEMPERATURE: f32 = 1e-4;

/// The logit of what a form rules out: low enough for a probability of zero at any temperature, and finite after all
/// arithmetic.
const RULED_OUT: f32 = -1e30;

/// Chooses the tokens of one request.
pub struct Sampler {
    sampling: Sampling,
    /// How often the prompt (first) and the answer (second) hold a token.
    counts: BTreeMap<u32, (u32, u32)>,
    drawn: u64,
    adjusted: Vec<f32>,
    probabilities: Probabilities,
    candidates: Vec<u32>,
}

impl Sampler {
    pub fn new(sampling: Sampling, prompt: &[u32]) -> Sampler {
        let mut counts = BTreeMap::new();
        if sampling.repetition_penalty != 1.0 {
            for &token in prompt {
                counts.entry(token).or_insert((0, 0)).0 += 1;
            }
        }
        Sampler {
            sampling,
            counts,
            drawn: 0,
            adjusted: Vec::new(),
            probabilities: Probabilities::default(),
            candidates: Vec::new(),
        }
    }

    /// The next token for a row of logits, `[vocabulary_size]`; one of `allowed`, if that is given (at least one is).
    pub fn next(&mut self, logits: &[f32], allowed: Option<&Allowed>) -> u32 {
        self.adjust(logits);
        let is_allowed = |token| allowed.is_none_or(|allowed| allowed.contains(token));
        if allowed.is_some() {
            for (_, logit) in (0..).zip(&mut self.adjusted).filter(|(token, _)| !is_allowed(*token)) {
                *logit = RULED_OUT;
            }
        }
        let token = if self.sampling.temperature < LOWEST_TEMPERATURE {
            argmax(&self.adjusted) as u32
        } else {
            self.candidates.clear();
            self.candidates.extend((0..logits.len() as u32).filter(|token| is_allowed(*token)));
            self.draw()
        };
        self.drawn += 1;
        self.counts.entry(token).or_insert((0, 0)).1 += 1;
        token
    }

    fn adjust(&mut self, logits: &[f32]) {
        let Sampling { repetition_penalty, presence_penalty, frequency_penalty, ref logit_bias, .. } =
            self.sampling;
        self.adjusted.clear();
        self.adjusted.extend_from_slice(logits);
        for (&token, bias) in logit_bias {
            self.adjusted[token as usize] += bias;
        }
        for (&token, &(_, in_answer)) in &self.counts {
            let logit = &mut self.adjusted[token as usize];
            *logit = if *logit > 0.0 { *logit / repetition_penalty } else { *logit * repetition_penalty };
            if in_answer > 0 {
                *logit -= presence_penalty + frequency_penalty * in_answer as f32;
            }
        }
    }

    /// Draws one of the candidates.
    fn draw(&mut self) -> u32 {
        let Sampling { temperature, top_k, top_p, min_p, seed, .. } = self.sampling;
        let logits = &self.adjusted;
        self.probabilities.compute(logits, 1.0 / temperature);
        let probabilities = &self.probabilities.of;
        let probability = |id: u32| f64::from(probabilities[id as usize]);
        let least = f64::from(min_p) * probability(argmax(logits) as u32);
        let by_likelihood = |a: &u32, b: &u32| descending(logits, *a, *b);

        let candidates = &mut self.candidates;
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, by_likelihood);
            candidates.truncate(top_k);
        }
        // In the order of ids: a selection leaves them in no order that a sum could rely on.
        candidates.sort_unstable();
        let nucleus = f64::from(top_p) * candidates.iter().map(|&id| probability(id)).sum::<f64>();
        // Sorting in growing prefixes: what is kept is nearly always a few hundred of a hundred thousand.
        let (mut kept, mut mass, mut sorted) = (0, 0.0, 0);
        loop {
            if kept == sorted {
                if sorted == candidates.len() {
                    break;
                }
                let next = (sorted * 8).max(256).min(candidates.len());
                if next < candidates.len() {
                    candidates[sorted..].select_nth_unstable_by(next - sorted - 1, by_likelihood);
                }
                candidates[sorted..next].sort_unstable_by(by_likelihood);
                sorted = next;
            }
            let next = probability(candidates[kept]);
            if kept > 0 && (next < least || (top_p < 1.0 && mass >= nucleus)) {
                break;
            }
            mass += next;
            kept += 1;
        }
        let target = uniform(seed, self.drawn) * mass;
        let mut reached = 0.0;
        for &id in &candidates[..kept] {
            reached += probability(id);
            if reached > target {
                return id;
            }
        }
        candidates[kept - 1]
    }
}

/// The probabilities of a row of logits. Kept to be used again for the next row.
#[derive(Default)]
pub struct Probabilities {
    of: Vec<f32>,
}

impl Probabilities {
    /// ln Σ exp(logit) of a row: a token's log probability is its logit less this.
    pub fn log_sum(&mut self, logits: &[f32]) -> f64 {
        self.compute(logits, 1.0)
    }

    /// Computes softmax(logits · scale) and returns ln Σ exp(logit · scale). The kernel is that of the training loss.
    fn compute(&mut self, logits: &[f32], scale: f32) -> f64 {
        let likeliest = argmax(logits);
        let highest = logits[likeliest];
        self.of.clear();
        // Less the highest first: at a low temperature, products of large logits would lose what tells them apart.
        self.of.extend(logits.iter().map(|logit| (logit - highest) * scale));
        let mut loss = [0.0];
        cross_entropy_rows(&mut self.of, logits.len(), &[likeliest as u32], 1.0, &mut loss);
        // The kernel leaves the gradient of the loss: probabilities, less one at the target.
        self.of[likeliest] += 1.0;
        f64::from(highest * scale) + loss[0]
    }
}

/// The index of the highest value, the lowest of equals.
fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] || values[best].is_nan() {
            best = index;
        }
    }
    best
}

/// The `count` likeliest ids, likeliest first, the lower id of equals first.
pub fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if count == 0 {
        return Vec::new();
    }
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, |a, b| descending(logits, *a, *b));
        ids.truncate(count);
    }
    ids.sort_unstable_by(|a, b| descending(logits, *a, *b));
    ids
}

fn descending(logits: &[f32], a: u32, b: u32) -> Ordering {
    logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b))
}

/// A number in [0, 1) that depends on nothing but its arguments (SplitMix64, Steele et al. 2014).
fn uniform(seed: u64, index: u64) -> f64 {
    let mixed = mix(mix(seed) ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

/// The seed of the `index`-th of several answers to one request; the first keeps the request's own.
pub fn seed_of_answer(seed: u64, index: u64) -> u64 {
    if index == 0 { seed } else { mix(seed ^ mix(index)) }
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares of tokens over many draws.
    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let draws = 10_000;
        let mut counts = vec![0.0; logits.len()];
        for seed in 0..draws {
            let sampling = Sampling { seed, ..sampling.clone() };
            counts[Sampler::new(sampling, &[]).next(logits, None) as usize] += 1.0 / draws as f64;
        }
        counts
    }

    fn check(sampling: Sampling, logits: &[f32], expected: &[f64]) {
        for (id, (share, expected)) in shares(sampling, logits).iter().zip(expected).enumerate() {
            assert!((share - expected).abs() < 0.02, "token {id}: {share} drawn, {expected} expected");
        }
    }

    fn logits_of(probabilities: &[f64]) -> Vec<f32> {
        probabilities.iter().map(|probability| probability.ln() as f32).collect()
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = logits_of(&[0.1, 0.5, 0.15, 0.25]);
        let warm = Sampling { temperature: 1.0, ..Sampling::default() };
        check(warm.clone(), &logits, &[0.1, 0.5, 0.15, 0.25]);
        check(Sampling { top_k: 2, ..warm.clone() }, &logits, &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        check(Sampling { top_p: 0.7, ..warm.clone() }, &logits, &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
        check(Sampling { min_p: 0.29, ..warm.clone() }, &logits, &[0.0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9]);
        // At temperature 0.5 probabilities are squared: 0.01, 0.25, 0.0225, 0.0625 of 0.345.
        let cool = Sampling { temperature: 0.5, ..warm };
        check(cool, &logits, &[0.029, 0.7246, 0.0652, 0.1812]);
    }

    #[test]
    fn a_large_vocabulary_is_cut_exactly() {
        let logits: Vec<f32> = (0..2_000).map(|id| -(id as f32) * 0.0025).collect();
        let warm = Sampling { temperature: 1.0, top_p: 0.5, ..Sampling::default() };
        let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        let mut mass = 0.0;
        let size = logits.iter().take_while(|&&logit| {
            let inside = mass < 0.5 * total;
            mass += f64::from(logit).exp();
            inside
        });
        let size = size.count() as u32;
        let drawn: Vec<u32> = (0..500)
            .map(|seed| Sampler::new(Sampling { seed, ..warm.clone() }, &[]).next(&logits, None))
            .collect();
        assert!(drawn.iter().all(|&id| id < size));
        assert!(drawn.iter().any(|&id| id > size - 20));
    }

    #[test]
    fn greedy_takes_the_lowest_of_equals() {
        assert_eq!(Sampler::new(Sampling::default(), &[]).next(&[1.0, 3.0, 3.0], None), 1);
    }

    #[test]
    fn penalties_and_bias_move_the_choice() {
        let logits = [2.0, 1.9, 1.0];
        let next = |sampling: Sampling, prompt: &[u32], count: usize| -> Vec<u32> {
            let mut sampler = Sampler::new(sampling, prompt);
            (0..count).map(|_| sampler.next(&logits, None)).collect()
        };
        let off = Sampling::default();
        assert_eq!(next(off.clone(), &[], 3), [0, 0, 0]);
        assert_eq!(next(Sampling { presence_penalty: 0.5, ..off.clone() }, &[0], 3), [0, 1, 0]);
        assert_eq!(next(Sampling { frequency_penalty: 0.5, ..off.clone() }, &[], 4), [0, 1, 0, 1]);
        assert_eq!(next(Sampling { repetition_penalty: 1.5, ..off.clone() }, &[0], 1), [1]);
        assert_eq!(next(Sampling { logit_bias: [(2, 5.0)].into(), ..off }, &[], 1), [2]);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let logits: Vec<f32> = (0..100).map(|id| (id % 7) as f32 * 0.1).collect();
        let draw = |seed| -> Vec<u32> {
            let mut sampler = Sampler::new(Sampling { temperature: 1.0, seed, ..Sampling::default() }, &[]);
            (0..20).map(|_| sampler.next(&logits, None)).collect()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(draw(seed_of_answer(7, 1)), draw(seed_of_answer(7, 2)));
    }

    #[test]
    fn log_probabilities_add_up() {
        let logits = [3.0, -1.0, 0.5, 100.0];
        let log_sum = Probabilities::default().log_sum(&logits) as f32;
        let sum: f32 = logits.iter().map(|logit| (logit - log_sum).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert_eq!(likeliest(&logits, 2), [3, 0]);
        assert_eq!(likeliest(&logits, 9), [3, 0, 2, 1]);
    }
}
