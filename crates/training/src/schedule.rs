//! The learning rate of each step.

use compute::elementary::sine_cosine;
use serde::{Deserialize, Serialize};

/// What happens between warm-up and end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleKind {
    /// Constant, then linear decay over the last steps (Hu et al., arXiv 2404.06395): the checkpoint before the decay can be
    /// trained on.
    #[default]
    WarmupStableDecay,
    /// Half a cosine from the end of the warm-up to the last step.
    Cosine,
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
    /// Steps of linear decay at the end (not with a cosine).
    pub decay_steps: u64,
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
            ScheduleKind::WarmupStableDecay => (self.steps - step) as f64 / (self.decay_steps + 1) as f64,
            ScheduleKind::Cosine => {
                let done = (step - self.warmup_steps) as f64 / (self.steps - self.warmup_steps) as f64;
                0.5 + 0.5 * sine_cosine(std::f64::consts::PI * done).1
            }
        };
        to + (from - to) * left
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
            learning_rate: 1.0,
            minimum_learning_rate: 0.1,
        };
        let rates = |kind| -> Vec<f64> { (0..100).map(|step| schedule(kind).learning_rate(step)).collect() };
        let stable = rates(ScheduleKind::WarmupStableDecay);
        assert_eq!((stable[0], stable[9], stable[10], stable[79]), (0.1, 1.0, 1.0, 1.0));
        assert!(stable[79..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!(stable[99] > 0.1 && stable[99] < 0.2);
        let cosine = rates(ScheduleKind::Cosine);
        assert!((cosine[10] - 1.0).abs() < 1e-12 && (cosine[55] - 0.55).abs() < 1e-9 && cosine[99] < 0.11);
    }
}
