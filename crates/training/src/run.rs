//! The loop of a run: step after step, with what happens between them.
//!
//! The order after each step: metrics, held-out text where it is due, the state before the decay where it is wanted, the
//! checkpoint. A checkpoint therefore holds all that came before it.

use crate::batches::Batches;
use crate::checkpoint::Checkpoints;
use crate::error::Error;
use crate::heldout::HeldOut;
use crate::journal::Journal;
use crate::metrics::{MACHINE_STEPS, Metrics, StepLine};
use crate::outliers;
use crate::settings::Settings;
use crate::state::State;
use crate::trainer::{Optimiser, StepControl, StepOutcome, Subject, Trainer};
use compute::Device;
use model::{Decoder, DropoutPlan};
use provenance::Context;

/// The name of the state before the decay in the scratch folder.
pub(crate) const BEFORE_DECAY: &str = "before-decay";

/// Percent of the steps: if more are left out, it is not the data that is at fault.
const LARGEST_SHARE_LEFT_OUT: f64 = 1.0;

/// What the loop works with; none of it changes a byte that the settings and the data do not.
pub(crate) struct Run<'a> {
    pub settings: &'a Settings,
    pub device: &'a Device,
    pub decoder: &'a Decoder,
    pub batches: &'a Batches,
    pub heldout: &'a HeldOut,
    pub checkpoints: &'a Checkpoints<'a>,
    pub context: &'a Context,
}

impl Run<'_> {
    /// Goes on from `state` to the last step.
    ///
    /// # Errors
    /// Divergence, storage, cancellation.
    pub fn train(
        &self,
        state: &mut State,
        journal: &mut Journal,
        metrics: &mut Metrics,
    ) -> Result<(), Error> {
        let result = self.steps(state, journal, metrics);
        if result.is_err() {
            // What led to the end is what a person wants to see; the error itself says more than a failure of this.
            let _ = metrics.sync();
        }
        result?;
        self.say_what_was_left_out(journal);
        Ok(())
    }

    fn steps(&self, state: &mut State, journal: &mut Journal, metrics: &mut Metrics) -> Result<(), Error> {
        let Run { settings, context, .. } = self;
        let schedule = settings.schedule();
        let mut trainer = self.trainer();
        context.progress.begin("training", Some(settings.steps), "steps");
        context.progress.already(state.step);
        while state.step < settings.steps {
            if context.cancellation.is_cancelled() {
                self.write_checkpoint(state, journal, metrics)?;
                self.checkpoints.wait()?;
                context.cancellation.check()?;
            }
            let step = state.step;
            let dropout = (settings.dropout > 0.0).then_some(DropoutPlan {
                probability: settings.dropout as f32,
                seed: settings.seed,
                step,
            });
            let learning_rate = schedule.learning_rate(step);
            metrics.begin_step();
            let largest_gradient_norm = outliers::largest_norm(settings.skip_outliers, &journal.norms);
            let average_decay = settings.average_decay(step);
            let control = StepControl { dropout, learning_rate, largest_gradient_norm, average_decay };
            let outcome = trainer.step(state, &self.batches.step(step), control)?;
            if !(outcome.loss.is_finite() && outcome.gradient_norm.is_finite()) {
                return Err(self.diverged(step, &outcome));
            }
            if outcome.applied {
                if settings.skip_outliers > 0.0 {
                    outliers::remember(&mut journal.norms, outcome.gradient_norm);
                }
            } else {
                self.leave_out(state, journal, &outcome, largest_gradient_norm.unwrap_or_default())?;
            }
            metrics.step(&StepLine {
                step: state.step,
                loss: outcome.loss,
                gradient_norm: outcome.gradient_norm,
                learning_rate,
                skipped: !outcome.applied,
                expert_load: outcome.expert_loads.iter().map(|loads| largest_over_mean(loads)).collect(),
            });
            context.progress.advance(1);
            self.after_step(&mut trainer, state, journal, metrics)?;
        }
        self.checkpoints.wait()?;
        context.progress.end();
        Ok(())
    }

    /// The step is over, and the model is as it was.
    fn leave_out(
        &self,
        state: &mut State,
        journal: &mut Journal,
        outcome: &StepOutcome,
        limit: f64,
    ) -> Result<(), Error> {
        state.step += 1;
        state.losses.push(outcome.loss);
        journal.skipped.push(state.step);
        let (step, norm) = (state.step, outcome.gradient_norm);
        let in_a_row = outliers::in_a_row(&journal.skipped);
        if in_a_row >= outliers::MOST_IN_A_ROW {
            return Err(Error::Outliers { step, in_a_row, norm, limit, last_good: self.last_good() });
        }
        self.context.progress.warn(&format!(
            "step {step} is left out: its gradient norm {norm:.3} is above {limit:.3}, skip_outliers = {} times the median",
            self.settings.skip_outliers
        ));
        Ok(())
    }

    fn say_what_was_left_out(&self, journal: &Journal) {
        let (skipped, steps) = (journal.skipped.len() as u64, self.settings.steps);
        if skipped == 0 {
            return;
        }
        let share = 100.0 * skipped as f64 / steps as f64;
        let text = format!("{skipped} of {steps} steps ({share:.1} %) were left out as outliers");
        if share > LARGEST_SHARE_LEFT_OUT {
            let factor = self.settings.skip_outliers;
            self.context.progress.warn(&format!(
                "{text}: that is more than a fault here and there, and may be whole languages; raise skip_outliers = {factor}"
            ));
        } else {
            self.context.progress.say(&text);
        }
    }

    fn after_step(
        &self,
        trainer: &mut Trainer,
        state: &State,
        journal: &mut Journal,
        metrics: &mut Metrics,
    ) -> Result<(), Error> {
        let Run { settings, context, .. } = self;
        self.checkpoints.settle()?;
        let last = state.step == settings.steps;
        let every = settings.evaluate_every;
        if every > 0 && (state.step.is_multiple_of(every) || last) {
            let point = self.heldout.measure(state.step, |batch| trainer.loss(state, batch))?;
            metrics.heldout(&point);
            journal.heldout.push(point);
        }
        if state.step.is_multiple_of(MACHINE_STEPS) || last {
            context.progress.note(&metrics.status()?);
        }
        if settings.keep_before_decay && settings.schedule().decay_start() == Some(state.step) {
            self.checkpoints.write_named(BEFORE_DECAY, state)?;
        }
        if state.step.is_multiple_of(settings.checkpoint_every) || last {
            self.write_checkpoint(state, journal, metrics)?;
        }
        Ok(())
    }

    /// Metrics first: a checkpoint that stands has them all.
    fn write_checkpoint(&self, state: &State, journal: &Journal, metrics: &mut Metrics) -> Result<(), Error> {
        metrics.sync()?;
        let notes = journal.to_bytes();
        match self.settings.checkpoint_beside {
            true => self.checkpoints.write_beside(state, &notes),
            false => self.checkpoints.write_with_notes(state, &notes),
        }
    }

    fn trainer(&self) -> Trainer {
        let settings = self.settings;
        let optimiser = Optimiser {
            kind: settings.optimizer,
            weight_decay: settings.weight_decay,
            beta_1: settings.beta_1,
            beta_2: settings.beta_2,
            epsilon: settings.epsilon,
            clip_norm: settings.clip_norm,
        };
        let (decoder, micro_tokens) = (self.decoder.clone(), settings.micro_tokens());
        Trainer::new(self.device, decoder, Subject::Model, optimiser, micro_tokens, settings.recompute)
    }

    fn diverged(&self, step: u64, outcome: &StepOutcome) -> Error {
        let what = if outcome.loss.is_finite() { "gradient" } else { "loss" };
        Error::Diverged { step: step + 1, what, last_good: self.last_good() }
    }

    fn last_good(&self) -> String {
        // Whether or not the last one could be written: the newest that stands is named.
        let _ = self.checkpoints.wait();
        match self.checkpoints.newest_path() {
            Some(path) => format!("The last good checkpoint is {}.", path.display()),
            None => "There is no checkpoint before it.".into(),
        }
    }
}

/// How far the busiest expert is above the mean.
fn largest_over_mean(loads: &[u64]) -> f64 {
    let (largest, sum) = (loads.iter().max().copied().unwrap_or(0), loads.iter().sum::<u64>());
    largest as f64 * loads.len() as f64 / sum.max(1) as f64
}
