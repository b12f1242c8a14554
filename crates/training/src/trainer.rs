//! One step of training: micro-batches one after another, clipping, AdamW or Muon.
//!
//! Every operation runs on the device, which shares it out over its threads. Gradients of all micro-batches are added to one
//! buffer in the order of the tokens, and stretches of parameters are moved each by itself, so that the number of threads
//! decides no bit. (The cutting into micro-batches does where the embedding is tied: its two gradients alternate.) The host reads two numbers back a step: loss and norm.

use crate::Error;
use crate::batches::StepBatch;
use crate::state::State;
use compute::device::{MomentFormat, Moments, Rule, Stretch};
use compute::elementary::power;
use compute::muon::MuonStep;
use compute::optimiser::AdamWStep;
use compute::{Buffer, Device};
use model::{
    Adapter, AdapterInTraining, Decoder, DropoutPlan, Gradients, ParameterKind, ParameterTable,
    TrainingWorkspace,
};
use serde::{Deserialize, Serialize};

/// What is trained.
#[derive(Debug)]
pub enum Subject {
    /// All of the model.
    Model,
    /// An adapter, above a model that stays as it is.
    Adapter {
        /// The model's parameters.
        parameters: Buffer,
        /// The adapter.
        adapter: Box<Adapter>,
    },
}

/// The rule that moves matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimiserKind {
    /// AdamW for everything (arXiv 1711.05101).
    #[default]
    AdamW,
    /// Muon for matrices, AdamW for the rest (arXiv 2502.16982).
    Muon,
}

/// How moments are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MomentStorage {
    /// As they are computed.
    #[default]
    F32,
    /// Rounded to bf16 after each step: half the memory.
    Bf16,
}

impl MomentStorage {
    pub(crate) fn of(moments: &Moments) -> MomentStorage {
        match moments.format() {
            MomentFormat::F32 => MomentStorage::F32,
            MomentFormat::Bf16 => MomentStorage::Bf16,
        }
    }

    pub(crate) fn format(self) -> MomentFormat {
        match self {
            MomentStorage::F32 => MomentFormat::F32,
            MomentStorage::Bf16 => MomentFormat::Bf16,
        }
    }
}

/// μ of Muon's momentum, as its authors chose it.
const MUON_MOMENTUM: f32 = 0.95;

/// Settings of the optimiser that do not change from step to step.
#[derive(Clone, Copy, Debug)]
pub struct Optimiser {
    /// Who moves the matrices; tables, norms and biases are always AdamW's.
    pub kind: OptimiserKind,
    /// Decoupled decay of matrices and tables.
    pub weight_decay: f64,
    /// β₁
    pub beta_1: f64,
    /// β₂
    pub beta_2: f64,
    /// ε
    pub epsilon: f64,
    /// Largest norm of the gradient.
    pub clip_norm: f64,
}

/// What a step needs to know besides its batch.
#[derive(Clone, Copy, Debug)]
pub struct StepControl {
    /// Dropout, where there is any.
    pub dropout: Option<DropoutPlan>,
    /// η
    pub learning_rate: f64,
    /// A step whose gradient is longer than this is not applied.
    pub largest_gradient_norm: Option<f64>,
    /// Decay of the parameters' running average, where one is kept: average ← average + (1 − decay) · (p − average).
    pub average_decay: Option<f64>,
}

impl StepControl {
    /// A plain step.
    pub fn new(learning_rate: f64) -> StepControl {
        StepControl { dropout: None, learning_rate, largest_gradient_norm: None, average_decay: None }
    }
}

/// What a step says about itself.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutcome {
    /// Mean over the targets, in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Whether the state was moved: not when a number is not finite, or the gradient longer than allowed.
    pub applied: bool,
    /// Of each layer with a mixture of experts: how many tokens each expert had in this step.
    pub expert_loads: Vec<Vec<u64>>,
}

/// A model, its device, and the buffers of a run.
#[derive(Debug)]
pub struct Trainer {
    device: Device,
    decoder: Decoder,
    subject: Subject,
    optimiser: Optimiser,
    gradient: Buffer,
    squared_norm: Buffer<f64>,
    workspace: TrainingWorkspace,
    stretches: Vec<Stretch>,
}

/// Floats that one task of AdamW takes.
const STRETCH: usize = 1 << 15;

impl Trainer {
    /// Buffers on `device` for micro-batches of up to `micro_tokens` tokens; with `recomputes`, activations are computed
    /// again in the backward pass instead of kept.
    pub fn new(
        device: &Device,
        decoder: Decoder,
        subject: Subject,
        optimiser: Optimiser,
        micro_tokens: usize,
        recomputes: bool,
    ) -> Trainer {
        let table = match &subject {
            Subject::Model => decoder.table(),
            Subject::Adapter { adapter, .. } => adapter.table(),
        };
        let stretches = stretches(table, optimiser.kind);
        let gradient = device.zeros(table.length());
        let workspace = TrainingWorkspace::new(device, decoder.config(), micro_tokens, recomputes);
        let squared_norm = device.zeros(1);
        Trainer {
            device: device.clone(),
            decoder,
            subject,
            optimiser,
            gradient,
            squared_norm,
            workspace,
            stretches,
        }
    }

    /// The decoder that is trained with.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Where it trains.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs one step and moves `state` by it, unless loss or gradient are not finite or the gradient is longer than the
    /// control allows: then parameters and moments stay as they are.
    ///
    /// # Errors
    /// When the batch does not suit the decoder.
    pub fn step(
        &mut self,
        state: &mut State,
        batch: &StepBatch,
        control: StepControl,
    ) -> Result<StepOutcome, Error> {
        let device = self.device.clone();
        device.run(|| {
            let targets = batch.targets.max(1) as f64;
            device.fill(self.gradient.at_mut(..), 0.0);
            self.accumulate(state, batch, control.dropout, Some((1.0 / targets) as f32))?;
            device.squared_norm(self.gradient.at(..), self.squared_norm.at_mut(..));
            let loss = self.workspace.take_loss() / targets;
            let gradient_norm = device.read(self.squared_norm.at(..))[0].sqrt();
            let longest = control.largest_gradient_norm.unwrap_or(f64::INFINITY);
            let expert_loads = self.workspace.take_expert_loads();
            let applied = loss.is_finite() && gradient_norm.is_finite() && gradient_norm <= longest;
            if applied {
                self.optimise(state, gradient_norm, control.learning_rate);
                if let Subject::Model = self.subject {
                    self.decoder.balance_experts(&device, &mut state.parameters, &expert_loads);
                }
                self.average(state, control.average_decay);
                state.step += 1;
                state.losses.push(loss);
            }
            Ok(StepOutcome { loss, gradient_norm, applied, expert_loads })
        })
    }

    /// Σ −ln p(target) over a batch, in nats: for held-out text. Nothing moves.
    ///
    /// # Errors
    /// When the batch does not suit the decoder.
    pub fn loss(&mut self, state: &State, batch: &StepBatch) -> Result<f64, Error> {
        let device = self.device.clone();
        device.run(|| {
            self.accumulate(state, batch, None, None)?;
            Ok(self.workspace.take_loss())
        })
    }

    /// Loss, and gradients of `scale` times the loss, of all micro-batches.
    fn accumulate(
        &mut self,
        state: &State,
        batch: &StepBatch,
        dropout: Option<DropoutPlan>,
        scale: Option<f32>,
    ) -> Result<(), Error> {
        let Trainer { decoder, subject, gradient, workspace, .. } = self;
        for micro in &batch.micro_batches {
            let (parameters, adapter) = match &*subject {
                Subject::Model => (&state.parameters, None),
                Subject::Adapter { parameters, adapter } => {
                    (parameters, Some(AdapterInTraining { adapter, values: &state.parameters }))
                }
            };
            let gradients = match (scale, adapter) {
                (None, _) => Gradients::None,
                (Some(_), None) => Gradients::Model(gradient),
                (Some(_), Some(_)) => Gradients::Adapter(gradient),
            };
            let scale = scale.unwrap_or(0.0);
            decoder.accumulate(parameters, adapter, micro.packed(), dropout, scale, gradients, workspace)?;
        }
        Ok(())
    }

    fn optimise(&mut self, state: &mut State, gradient_norm: f64, learning_rate: f64) {
        let Optimiser { kind: _, weight_decay, beta_1, beta_2, epsilon, clip_norm } = self.optimiser;
        let correction =
            |beta: f64| if beta == 0.0 { 1.0 } else { 1.0 / (1.0 - power(beta, (state.step + 1) as f64)) };
        let adamw = AdamWStep {
            learning_rate: learning_rate as f32,
            weight_decay: weight_decay as f32,
            beta_1: beta_1 as f32,
            beta_2: beta_2 as f32,
            epsilon: epsilon as f32,
            first_correction: correction(beta_1) as f32,
            second_correction: correction(beta_2) as f32,
            gradient_scale: if gradient_norm > clip_norm { (clip_norm / gradient_norm) as f32 } else { 1.0 },
        };
        let muon = MuonStep {
            learning_rate: adamw.learning_rate,
            weight_decay: adamw.weight_decay,
            momentum: MUON_MOMENTUM,
            gradient_scale: adamw.gradient_scale,
        };
        self.device.optimise(
            &self.stretches,
            state.parameters.at_mut(..),
            self.gradient.at(..),
            &mut state.first,
            &mut state.second,
            adamw,
            muon,
        );
    }

    fn average(&self, state: &mut State, decay: Option<f64>) {
        let Some(decay) = decay else { return };
        let State { parameters, average, .. } = state;
        match average {
            Some(average) => {
                self.device.average(average.at_mut(..), parameters.at(..), (1.0 - decay) as f32);
            }
            None => {
                let mut first = self.device.zeros(parameters.len());
                self.device.copy(parameters.at(..), first.at_mut(..));
                *average = Some(first);
            }
        }
    }
}

/// Stretches of parameters that are moved alike, one behind another: whole matrices for Muon, else none longer than
/// [`STRETCH`].
fn stretches(table: &ParameterTable, kind: OptimiserKind) -> Vec<Stretch> {
    let mut stretches = Vec::new();
    for parameter in table.entries() {
        if let (OptimiserKind::Muon, ParameterKind::Matrix, [rows, columns]) =
            (kind, parameter.kind, parameter.shape.as_slice())
        {
            let rule = Rule::Muon { rows: *rows, columns: *columns };
            stretches.push(Stretch { span: parameter.span.clone(), rule });
            continue;
        }
        let decays = matches!(parameter.kind, ParameterKind::Matrix | ParameterKind::Table);
        for begin in parameter.span.clone().step_by(STRETCH) {
            let span = begin..(begin + STRETCH).min(parameter.span.end);
            stretches.push(Stretch { span, rule: Rule::AdamW { decays } });
        }
    }
    stretches
}
