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
use crate::settings::Settings;
use crate::state::State;
use crate::trainer::{Optimiser, StepControl, StepOutcome, Subject, Trainer};
use compute::Device;
use model::{Decoder, DropoutPlan};
use provenance::Context;

/// The name of the state before the decay in the scratch folder.
pub(crate) const BEFORE_DECAY: &str = "before-decay";

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
        let Run { settings, context, .. } = self;
        let schedule = settings.schedule();
        let mut trainer = self.trainer();
        context.progress.begin("training", Some(settings.steps), "steps");
        context.progress.already(state.step);
        while state.step < settings.steps {
            if context.cancellation.is_cancelled() {
                self.write_checkpoint(state, journal, metrics)?;
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
            let control = StepControl { dropout, ..StepControl::new(learning_rate) };
            let outcome = trainer.step(state, &self.batches.step(step), control)?;
            if !outcome.applied {
                return Err(self.diverged(step, &outcome));
            }
            metrics.step(&StepLine {
                step: state.step,
                loss: outcome.loss,
                gradient_norm: outcome.gradient_norm,
                learning_rate,
                skipped: false,
                expert_load: Vec::new(),
            });
            context.progress.advance(1);
            self.after_step(&mut trainer, state, journal, metrics)?;
        }
        context.progress.end();
        Ok(())
    }

    fn after_step(
        &self,
        trainer: &mut Trainer,
        state: &State,
        journal: &mut Journal,
        metrics: &mut Metrics,
    ) -> Result<(), Error> {
        let Run { settings, context, .. } = self;
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
        self.checkpoints.write_with_notes(state, &journal.to_bytes())
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
        let last_good = match self.checkpoints.newest_path() {
            Some(path) => format!("The last good checkpoint is {}.", path.display()),
            None => "There is no checkpoint before it.".into(),
        };
        let what = if outcome.loss.is_finite() { "gradient" } else { "loss" };
        Error::Diverged { step: step + 1, what, last_good }
    }
}
