//! The learning rate of each step.

use compute::elementary::sine_cosine;
use serde::{Deserialize, Serialize};

/// What happens between warm-up and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Constant, then decay over the last steps (Hu et al., arXiv 2404.06395): the checkpoint before the decay can be
    /// trained on.
    #[default]
    WarmupStableDecay,
    /// Half a cosine from the end of the warm-up to the last step.
    Cosine,
}

/// How the rate falls in the last steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecayShape {
    /// In a straight line.
    #[default]
    Linear,
    /// As 1 − √t, fast at first (Hägele et al., arXiv 2405.18392).
    OneMinusSqrt,
}

/// A schedule over a fixed number of steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Its kind.
    pub kind: ScheduleKind,
    /// All steps.
    pub steps: u64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Steps of decay at the end (not with a cosine).
    pub decay_steps: u64,
    /// Its shape.
    pub decay_shape: DecayShape,
    /// The rate at its height.
    pub learning_rate: f64,
    /// The rate at the end.
    pub minimum_learning_rate: f64,
}

impl Schedule {
    /// The rate of a step, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let (from, to) = (self.learning_rate, self.minimum_learning_rate);
        let left = match self.kind {
            ScheduleKind::WarmupStableDecay if step + self.decay_steps < self.steps => 1.0,
            ScheduleKind::WarmupStableDecay => {
                let left = (self.steps - step) as f64 / (self.decay_steps + 1) as f64;
                match self.decay_shape {
                    DecayShape::Linear => left,
                    DecayShape::OneMinusSqrt => 1.0 - (1.0 - left).sqrt(),
                }
            }
            ScheduleKind::Cosine => {
                let done = (step - self.warmup_steps) as f64 / (self.steps - self.warmup_steps) as f64;
                0.5 + 0.5 * sine_cosine(std::f64::consts::PI * done).1
            }
        };
        to + (from - to) * left
    }

    /// The step at which the rate begins to fall for good: the state there can be trained on. None with a cosine, which
    /// falls from the start, and where nothing decays.
    pub fn decay_start(&self) -> Option<u64> {
        let decays = self.kind == ScheduleKind::WarmupStableDecay && self.decay_steps > 0;
        decays.then(|| self.steps - self.decay_steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_stays_and_falls() {
        let schedule = |kind| Schedule {
            kind,
            steps: 100,
            warmup_steps: 10,
            decay_steps: 20,
            decay_shape: DecayShape::Linear,
            learning_rate: 1.0,
            minimum_learning_rate: 0.1,
        };
        let rates = |kind| -> Vec<f64> { (0..100).map(|step| schedule(kind).learning_rate(step)).collect() };
        let stable = rates(ScheduleKind::WarmupStableDecay);
        assert_eq!((stable[0], stable[9], stable[10], stable[79]), (0.1, 1.0, 1.0, 1.0));
        assert!(stable[79..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!(stable[99] > 0.1 && stable[99] < 0.2);
        let bent =
            Schedule { decay_shape: DecayShape::OneMinusSqrt, ..schedule(ScheduleKind::WarmupStableDecay) };
        assert_eq!((bent.decay_start(), bent.learning_rate(79)), (Some(80), 1.0));
        for step in 80..100 {
            assert!(bent.learning_rate(step) < stable[step as usize]);
            assert!(
                bent.learning_rate(step) < bent.learning_rate(step - 1) && bent.learning_rate(step) > 0.1
            );
        }
        assert!((bent.learning_rate(84) - (0.1 + 0.9 * (1.0 - (5.0f64 / 21.0).sqrt()))).abs() < 1e-12);
        assert_eq!(schedule(ScheduleKind::Cosine).decay_start(), None);
        let cosine = rates(ScheduleKind::Cosine);
        assert!((cosine[10] - 1.0).abs() < 1e-12 && (cosine[55] - 0.55).abs() < 1e-9 && cosine[99] < 0.11);
    }
}
