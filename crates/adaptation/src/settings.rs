//! What a recipe may say about adaptation.

use crate::Error;
use model::{AdapterConfig, Projection};
use serde::{Deserialize, Serialize};
use training::{DecayShape, Schedule, ScheduleKind};

/// Settings of the adaptation stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Rank of the adapter's pairs.
    pub rank: usize,
    /// Scale: the adapter counts alpha / rank.
    pub alpha: f64,
    /// Projections with an adapter, by Hugging Face's names.
    pub target_modules: Vec<String>,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Conversations are taken into a step until it has this many tokens.
    pub batch_tokens: usize,
    /// Longer conversations are cut here.
    pub maximum_length: usize,
    /// Learning rate at its height; a cosine leads down to a tenth of it.
    pub learning_rate: f64,
    /// Share of the steps that warm up linearly.
    pub warmup_ratio: f64,
    /// Decoupled decay.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient.
    pub clip_norm: f64,
    /// Seed of the adapter and of the order.
    pub seed: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            rank: 8,
            alpha: 16.0,
            target_modules: Projection::ALL.map(|projection| projection.name().to_string()).to_vec(),
            steps: 100,
            batch_tokens: 4_096,
            maximum_length: 512,
            learning_rate: 2e-3,
            warmup_ratio: 0.1,
            weight_decay: 0.0,
            clip_norm: 1.0,
            seed: 1,
            checkpoint_every: 100,
        }
    }
}

impl Settings {
    /// Whether the settings make sense, as far as that is known before the model is.
    ///
    /// # Errors
    /// Names the key, its value, and what is expected.
    pub fn check(&self) -> Result<(), Error> {
        let fail = |problem: String| Err(Error::Settings(problem));
        for (key, value, least, most) in [
            ("alpha", self.alpha, 1e-6, 1e6),
            ("warmup_ratio", self.warmup_ratio, 0.0, 0.9),
            ("learning_rate", self.learning_rate, f64::MIN_POSITIVE, 10.0),
            ("weight_decay", self.weight_decay, 0.0, 10.0),
            ("clip_norm", self.clip_norm, 1e-9, 1e9),
        ] {
            if !(least..=most).contains(&value) {
                return fail(format!("{key} = {value}, expected a number from {least} to {most}"));
            }
        }
        for (key, value, least, most) in [
            ("rank", self.rank as u64, 1, 1 << 16),
            ("steps", self.steps, 1, 1 << 40),
            ("batch_tokens", self.batch_tokens as u64, 1, 1 << 26),
            ("maximum_length", self.maximum_length as u64, 2, 1 << 24),
            ("checkpoint_every", self.checkpoint_every, 1, u64::MAX),
        ] {
            if !(least..=most).contains(&value) {
                return fail(format!("{key} = {value}, expected a whole number from {least} to {most}"));
            }
        }
        self.adapter().map(|_| ())
    }

    /// The adapter's shape.
    pub(crate) fn adapter(&self) -> Result<AdapterConfig, Error> {
        let find = |name: &String| {
            Projection::from_name(name).ok_or_else(|| {
                let known = Projection::ALL.map(Projection::name).join(", ");
                Error::Settings(format!("target_modules names {name:?}; expected some of {known}"))
            })
        };
        let mut targets = self.target_modules.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        targets.sort_unstable();
        targets.dedup();
        if targets.is_empty() {
            return Err(Error::Settings("target_modules is empty: there would be nothing to tune".into()));
        }
        Ok(AdapterConfig { rank: self.rank, alpha: self.alpha, targets })
    }

    pub(crate) fn schedule(&self) -> Schedule {
        Schedule {
            kind: ScheduleKind::Cosine,
            steps: self.steps,
            warmup_steps: (self.steps as f64 * self.warmup_ratio) as u64,
            decay_steps: 0,
            decay_shape: DecayShape::Linear,
            learning_rate: self.learning_rate,
            minimum_learning_rate: self.learning_rate / 10.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_refused_by_name() {
        Settings::default().check().unwrap();
        let refuse = |change: &dyn Fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        for (problem, expected) in [
            (refuse(&|s| s.rank = 0), "rank = 0"),
            (refuse(&|s| s.learning_rate = f64::NAN), "learning_rate = NaN"),
            (refuse(&|s| s.warmup_ratio = 1.0), "warmup_ratio = 1"),
            (refuse(&|s| s.target_modules = vec!["lm_head".into()]), "lm_head"),
            (refuse(&|s| s.target_modules.clear()), "target_modules is empty"),
        ] {
            assert!(problem.contains(expected), "{expected}: {problem}");
        }
    }
}
