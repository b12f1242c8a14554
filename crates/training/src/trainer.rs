//! One step of training: micro-batches over threads, gradients in slots, clipping, AdamW or Muon.
//!
//! Threads never share a product. Each takes a whole slot: its micro-batches in order, forward and backward, added to the
//! slot's gradient. Slots are summed in a fixed tree, the optimiser runs over fixed blocks. So the number of threads
//! decides the speed alone.

use crate::Error;
use crate::batches::StepBatch;
use crate::checkpoint::State;
use compute::elementary::power;
use compute::elementwise;
use compute::muon::{MuonBuffers, MuonStep, muon};
use compute::optimiser::{AdamWStep, adamw, squared_norm};
use model::{Adapter, Decoder, DropoutPlan, Gradients, ParameterKind, ParameterTable, TrainingWorkspace};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Mutex;

/// What is trained.
#[derive(Debug)]
pub enum Subject {
    /// All of the model.
    Model,
    /// An adapter, above a model that stays as it is.
    Adapter {
        /// The model's parameters.
        parameters: Vec<f32>,
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

/// What a step says about itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutcome {
    /// Mean over the targets, in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub gradient_norm: f64,
}

/// Buffers and threads of a run.
#[derive(Debug)]
pub struct Trainer {
    decoder: Decoder,
    subject: Subject,
    optimiser: Optimiser,
    slots: Vec<Vec<f32>>,
    workspaces: Vec<Mutex<TrainingWorkspace>>,
    pool: rayon::ThreadPool,
    blocks: Vec<Block>,
    muon_buffers: Vec<Mutex<MuonBuffers>>,
}

/// A stretch of parameters that one task of the optimiser takes.
#[derive(Clone, Debug)]
struct Block {
    span: Range<usize>,
    rule: Rule,
}

/// How a stretch is moved.
#[derive(Clone, Copy, Debug)]
enum Rule {
    AdamW { decays: bool },
    Muon { rows: usize, columns: usize },
}

/// Floats that one task of the optimiser takes.
const BLOCK: usize = 1 << 15;

impl Trainer {
    /// Buffers for micro-batches of up to `micro_tokens` tokens.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(
        decoder: Decoder,
        subject: Subject,
        optimiser: Optimiser,
        gradient_slots: usize,
        micro_tokens: usize,
        threads: usize,
    ) -> Result<Trainer, Error> {
        // More threads than slots would have nothing to do.
        let threads = threads.clamp(1, gradient_slots);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Threads { threads, problem: error.to_string() })?;
        let table = match &subject {
            Subject::Model => decoder.table(),
            Subject::Adapter { adapter, .. } => adapter.table(),
        };
        let blocks = blocks(table, optimiser.kind);
        let length = table.length();
        let workspaces = (0..threads)
            .map(|_| Mutex::new(TrainingWorkspace::new(decoder.config(), micro_tokens)))
            .collect();
        let slots = vec![vec![0.0; length]; gradient_slots];
        let muon_buffers = (0..threads).map(|_| Mutex::new(MuonBuffers::default())).collect();
        Ok(Trainer { decoder, subject, optimiser, slots, workspaces, pool, blocks, muon_buffers })
    }

    /// The decoder that is trained with.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// What is trained; an adapter's values are those of the last step's beginning.
    pub fn into_subject(self) -> Subject {
        self.subject
    }

    /// Runs one step and moves `state` by it, unless loss or gradient are not finite: then the state stays as it is.
    ///
    /// # Errors
    /// When the batch does not suit the decoder.
    pub fn step(
        &mut self,
        state: &mut State,
        batch: &StepBatch,
        dropout: Option<DropoutPlan>,
        learning_rate: f64,
    ) -> Result<StepOutcome, Error> {
        let scale = (1.0 / batch.targets.max(1) as f64) as f32;
        if let Subject::Adapter { adapter, .. } = &mut self.subject {
            adapter.values.copy_from_slice(&state.parameters);
        }
        let Trainer { decoder, subject, slots, workspaces, pool, .. } = self;
        let slot_count = slots.len();
        let subject = &*subject;
        let state_parameters = &state.parameters;
        let run_slot = |(slot, gradient): (usize, &mut Vec<f32>)| -> Result<f64, Error> {
            let thread = rayon::current_thread_index().unwrap_or(0);
            let mut workspace = workspaces[thread].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            gradient.fill(0.0);
            let mut loss = 0.0;
            for micro in batch.micro_batches.iter().skip(slot).step_by(slot_count) {
                let packed = micro.packed();
                loss += match subject {
                    Subject::Model => decoder.loss(
                        state_parameters,
                        None,
                        packed,
                        dropout,
                        scale,
                        Gradients::Model(gradient),
                        &mut workspace,
                    )?,
                    Subject::Adapter { parameters, adapter } => decoder.loss(
                        parameters,
                        Some(adapter),
                        packed,
                        dropout,
                        scale,
                        Gradients::Adapter(gradient),
                        &mut workspace,
                    )?,
                };
            }
            Ok(loss)
        };
        let losses: Vec<Result<f64, Error>> =
            pool.install(|| slots.par_iter_mut().enumerate().with_max_len(1).map(run_slot).collect());
        let mut loss = 0.0;
        for slot in losses {
            loss += slot?;
        }
        let outcome =
            StepOutcome { loss: loss / batch.targets.max(1) as f64, gradient_norm: self.sum_slots().sqrt() };
        if outcome.loss.is_finite() && outcome.gradient_norm.is_finite() {
            self.optimise(state, outcome.gradient_norm, learning_rate);
            state.step += 1;
            state.losses.push(outcome.loss);
        }
        Ok(outcome)
    }

    /// Sums the slots into the first, in a tree; returns the squared norm.
    fn sum_slots(&mut self) -> f64 {
        let Trainer { slots, pool, .. } = self;
        pool.install(|| {
            let mut distance = 1;
            while distance < slots.len() {
                for pair in slots.chunks_mut(2 * distance) {
                    if let Some((left, right)) = pair.split_at_mut_checked(distance)
                        && let Some(right) = right.first()
                    {
                        left[0]
                            .par_chunks_mut(BLOCK)
                            .zip(right.par_chunks(BLOCK))
                            .for_each(|(left, right)| elementwise::add(left, right));
                    }
                }
                distance *= 2;
            }
            let parts: Vec<f64> = slots[0].par_chunks(BLOCK).map(squared_norm).collect();
            parts.into_iter().sum()
        })
    }

    fn optimise(&mut self, state: &mut State, gradient_norm: f64, learning_rate: f64) {
        let Optimiser { kind: _, weight_decay, beta_1, beta_2, epsilon, clip_norm } = self.optimiser;
        let correction =
            |beta: f64| if beta == 0.0 { 1.0 } else { 1.0 / (1.0 - power(beta, (state.step + 1) as f64)) };
        let step = AdamWStep {
            learning_rate: learning_rate as f32,
            weight_decay: weight_decay as f32,
            beta_1: beta_1 as f32,
            beta_2: beta_2 as f32,
            epsilon: epsilon as f32,
            first_correction: correction(beta_1) as f32,
            second_correction: correction(beta_2) as f32,
            gradient_scale: if gradient_norm > clip_norm { (clip_norm / gradient_norm) as f32 } else { 1.0 },
        };
        let gradient = &self.slots[0];
        let mut tasks = Vec::with_capacity(self.blocks.len());
        let (mut parameters, mut first, mut second) =
            (&mut state.parameters[..], &mut state.first[..], &mut state.second[..]);
        for Block { span, rule } in &self.blocks {
            let (p, m, v);
            (p, parameters) = parameters.split_at_mut(span.len());
            (m, first) = first.split_at_mut(span.len());
            (v, second) = second.split_at_mut(span.len());
            tasks.push((p, &gradient[span.clone()], m, v, *rule));
        }
        let muon_step = MuonStep {
            learning_rate: step.learning_rate,
            weight_decay: step.weight_decay,
            momentum: MUON_MOMENTUM,
            gradient_scale: step.gradient_scale,
        };
        let buffers = &self.muon_buffers;
        self.pool.install(|| {
            tasks.into_par_iter().with_max_len(1).for_each(|(p, g, m, v, rule)| match rule {
                Rule::AdamW { decays } => {
                    let weight_decay = if decays { step.weight_decay } else { 0.0 };
                    adamw(p, g, m, v, AdamWStep { weight_decay, ..step });
                }
                Rule::Muon { rows, columns } => {
                    let thread = rayon::current_thread_index().unwrap_or(0);
                    let mut buffers =
                        buffers[thread].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    muon(p, g, m, (rows, columns), muon_step, &mut buffers);
                }
            });
        });
    }
}

/// Stretches of parameters that are moved alike, one behind another: whole matrices for Muon, else none longer than
/// [`BLOCK`].
fn blocks(table: &ParameterTable, kind: OptimiserKind) -> Vec<Block> {
    let mut blocks = Vec::new();
    for parameter in table.entries() {
        if let (OptimiserKind::Muon, ParameterKind::Matrix, [rows, columns]) =
            (kind, parameter.kind, parameter.shape.as_slice())
        {
            let rule = Rule::Muon { rows: *rows, columns: *columns };
            blocks.push(Block { span: parameter.span.clone(), rule });
            continue;
        }
        let decays = matches!(parameter.kind, ParameterKind::Matrix | ParameterKind::Table);
        for begin in parameter.span.clone().step_by(BLOCK) {
            let span = begin..(begin + BLOCK).min(parameter.span.end);
            blocks.push(Block { span, rule: Rule::AdamW { decays } });
        }
    }
    blocks
}
