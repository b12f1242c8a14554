//! How positions are turned into angles: RoPE's base, and the ways in which families stretch it to longer texts.

use compute::elementary::{ln, power};
use compute::rotary::frequencies;
use std::f64::consts::TAU;

/// Rotary embedding of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// Base of the frequencies.
    pub theta: f64,
    /// How the frequencies are changed for longer texts.
    pub scaling: RotaryScaling,
}

/// From trained to longer texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RotaryScaling {
    /// As trained.
    None,
    /// All frequencies divided by a factor.
    Linear {
        /// By what.
        factor: f64,
    },
    /// Low frequencies divided by a factor, high ones kept (Llama 3.1).
    Llama3 {
        /// By what.
        factor: f64,
        /// Turns over the original length below which a frequency is divided in full.
        low: f64,
        /// Turns over the original length above which it is kept.
        high: f64,
        /// Original length in positions.
        original: f64,
    },
    /// YaRN (Peng et al., arXiv 2309.00071).
    Yarn {
        /// By what low frequencies are divided.
        factor: f64,
        /// Turns over the original length above which a frequency is kept.
        fast: f64,
        /// Turns below which it is divided in full.
        slow: f64,
        /// Original length in positions.
        original: f64,
        /// Whether the bounds between are rounded to whole pairs.
        truncate: bool,
        /// Factor of cosines and sines.
        attention_factor: f32,
    },
}

impl Rotary {
    /// The rotation that Su et al. describe (arXiv 2104.09864).
    pub fn plain(theta: f64) -> Rotary {
        Rotary { theta, scaling: RotaryScaling::None }
    }

    /// The inverse frequency of each pair of `dimensions` elements, and the factor of cosines and sines.
    pub(crate) fn frequencies(&self, dimensions: usize) -> (Vec<f32>, f32) {
        let plain = frequencies(dimensions, self.theta);
        match self.scaling {
            RotaryScaling::None => (plain, 1.0),
            RotaryScaling::Linear { factor } => {
                (plain.into_iter().map(|frequency| frequency / factor as f32).collect(), 1.0)
            }
            RotaryScaling::Llama3 { factor, low, high, original } => {
                let stretched = |frequency: f32| {
                    let frequency = frequency as f64;
                    let turns = original * frequency / TAU;
                    // The part that is kept grows from nothing at `low` turns to all at `high`.
                    let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    ((1.0 - kept) * frequency / factor + kept * frequency) as f32
                };
                (plain.into_iter().map(stretched).collect(), 1.0)
            }
            RotaryScaling::Yarn { factor, fast, slow, original, truncate, attention_factor } => {
                let pair_with_turns =
                    |turns: f64| dimensions as f64 * ln(original / (turns * TAU)) / (2.0 * ln(self.theta));
                let (mut first, mut last) = (pair_with_turns(fast), pair_with_turns(slow));
                if truncate {
                    (first, last) = (first.floor(), last.ceil());
                }
                first = first.max(0.0);
                last = last.min(dimensions as f64 - 1.0);
                if first == last {
                    last += 0.001;
                }
                let stretched = (0..dimensions / 2).map(|pair| {
                    let divided = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
                    let frequency = power(self.theta, -2.0 * pair as f64 / dimensions as f64);
                    (frequency / factor * divided + frequency * (1.0 - divided)) as f32
                });
                (stretched.collect(), attention_factor)
            }
        }
    }

    /// Whether the numbers make sense; says which do not.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(self.theta.is_finite() && self.theta > 1.0) {
            return Err(format!("rope_theta is {}, expected a number above 1", self.theta));
        }
        let positive: &[(&str, f64)] = match &self.scaling {
            RotaryScaling::None => &[],
            RotaryScaling::Linear { factor } => &[("factor", *factor)],
            RotaryScaling::Llama3 { factor, low, high, original } => {
                if high <= low {
                    return Err(format!("high_freq_factor {high} is not above low_freq_factor {low}"));
                }
                &[
                    ("factor", *factor),
                    ("low_freq_factor", *low),
                    ("high_freq_factor", *high),
                    ("original_max_position_embeddings", *original),
                ]
            }
            RotaryScaling::Yarn { factor, fast, slow, original, attention_factor, .. } => &[
                ("factor", *factor),
                ("beta_fast", *fast),
                ("beta_slow", *slow),
                ("original_max_position_embeddings", *original),
                ("attention_factor", *attention_factor as f64),
            ],
        };
        match positive.iter().find(|(_, value)| !(value.is_finite() && *value > 0.0)) {
            Some((key, value)) => Err(format!("rope scaling's {key} is {value}, expected a positive number")),
            None => Ok(()),
        }
    }
}

/// YaRN's factor of cosines and sines for a stretching by `factor`.
pub(super) fn yarn_magnitude(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * ln(factor) + 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = RotaryScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
        let plain = frequencies(128, 500_000.0);
        let (found, factor) = Rotary { theta: 500_000.0, scaling }.frequencies(128);
        assert_eq!((found[0], factor), (plain[0], 1.0));
        assert!((found[63] * 8.0 / plain[63] - 1.0).abs() < 1e-6);
        assert!(found.windows(2).all(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn numbers_without_sense_are_named() {
        let llama = |factor, low, high| RotaryScaling::Llama3 { factor, low, high, original: 64.0 };
        for (theta, scaling, expected) in [
            (1.0, RotaryScaling::None, "rope_theta is 1"),
            (f64::NAN, RotaryScaling::None, "rope_theta"),
            (10.0, RotaryScaling::Linear { factor: 0.0 }, "factor is 0"),
            (10.0, llama(8.0, 4.0, 4.0), "high_freq_factor 4"),
            (10.0, llama(-8.0, 1.0, 4.0), "factor is -8"),
        ] {
            let problem = Rotary { theta, scaling }.check().unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
