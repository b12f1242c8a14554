//! The engine's thread: continuous batching.
//!
//! Each step is one forward pass over rows of several sequences: one row for every answer under way, and with what is
//! left of the step's rows, pieces of the prompts that are being read, shared evenly so that a long prompt does not keep
//! short ones waiting. Answers join and leave between steps. A request is let in when the cache has blocks for all that
//! it may come to need, so that nothing ever has to be thrown out again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokenizer::Tokenizer;

use crate::decoder::{Chunk, Decoder, Rows};
use crate::engine::{EngineSettings, Shared};
use crate::error::RequestFailure;
use crate::request::{Event, Request};
use crate::sequence::Sequence;

/// Most logits that a step may ask of one prompt whose probabilities are wanted: 16 M of f32 are 64 MiB.
const PROMPT_LOGITS_PER_STEP: usize = 16 << 20;

/// A request that was checked and queued.
pub(crate) struct Waiting {
    pub request: Request,
    /// Index of its adapter.
    pub adapter: Option<usize>,
    pub most_tokens: usize,
    /// Cache blocks that it may come to need.
    pub blocks: usize,
    pub deadline: Option<Instant>,
    pub cancelled: Arc<AtomicBool>,
    pub deliver: Box<dyn FnMut(Event) + Send>,
}

impl Waiting {
    /// Why it need not be computed any more.
    fn gone(&self, now: Instant) -> Option<RequestFailure> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Some(RequestFailure::Cancelled);
        }
        self.deadline.filter(|deadline| *deadline <= now).map(|_| RequestFailure::TimeLimit)
    }
}

pub(crate) struct Worker {
    decoder: Box<dyn Decoder>,
    tokenizer: Arc<Tokenizer>,
    end_tokens: Vec<u32>,
    shared: Arc<Shared>,
    free_blocks: Vec<u32>,
    running: Vec<Sequence>,
    running_requests: usize,
    tokens_per_step: usize,
    vocabulary_size: usize,
}

impl Worker {
    pub fn new(
        decoder: Box<dyn Decoder>,
        tokenizer: Arc<Tokenizer>,
        end_tokens: Vec<u32>,
        shared: Arc<Shared>,
        settings: &EngineSettings,
    ) -> Worker {
        let shape = decoder.shape();
        Worker {
            decoder,
            tokenizer,
            end_tokens,
            shared,
            free_blocks: (0..shape.blocks as u32).rev().collect(),
            running: Vec::new(),
            running_requests: settings.running_requests,
            tokens_per_step: settings.tokens_per_step,
            vocabulary_size: shape.vocabulary_size,
        }
    }

    /// Works until the engine stops.
    pub fn run(mut self) {
        // Also when a panic unwinds: nobody shall queue for a thread that is gone.
        let _closing = Closing(self.shared.clone());
        while self.admit() {
            self.end_gone();
            self.retire();
            if !self.running.is_empty() {
                self.step();
                self.retire();
            }
        }
        for sequence in &mut self.running {
            sequence.end(Event::Failed(RequestFailure::EngineStopped));
        }
    }

    /// Waits for work and lets in what fits. `false` when the engine stops.
    fn admit(&mut self) -> bool {
        let shared = self.shared.clone();
        let mut inbox = shared.inbox();
        while !inbox.stopping && self.running.is_empty() && inbox.queue.waiting() == 0 {
            inbox = shared.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        if inbox.stopping {
            return false;
        }
        let now = Instant::now();
        let gone = inbox.queue.remove(|waiting| waiting.gone(now).is_some());
        // One tenant leaves room, so that another one's request starts at once.
        let most_of_one_tenant = (self.running_requests - self.running_requests / 4).max(1);
        while self.running.len() < self.running_requests {
            let free = self.free_blocks.len();
            let Some(waiting) = inbox.queue.take(most_of_one_tenant, |waiting| waiting.blocks <= free) else {
                break;
            };
            let blocks = self.free_blocks.split_off(free - waiting.blocks);
            self.running.push(Sequence::new(waiting, blocks));
        }
        inbox.running = self.running.len();
        drop(inbox);
        for mut waiting in gone {
            let failure = waiting.gone(now).unwrap_or(RequestFailure::Cancelled);
            (waiting.deliver)(Event::Failed(failure));
        }
        true
    }

    fn end_gone(&mut self) {
        let now = Instant::now();
        for sequence in &mut self.running {
            if let Some(failure) = sequence.waiting.gone(now) {
                sequence.end(Event::Failed(failure));
            }
        }
    }

    /// One forward pass, and what follows from it for each sequence.
    fn step(&mut self) {
        let lengths = self.chunk_lengths();
        let chunks: Vec<Chunk<'_>> = self
            .running
            .iter()
            .zip(&lengths)
            .filter(|(_, length)| **length > 0)
            .map(|(sequence, &length)| sequence.chunk(length))
            .collect();
        let row_counts: Vec<usize> = chunks.iter().map(wanted_rows).collect();
        let logits = match self.decoder.forward(&chunks) {
            Ok(logits) => logits,
            Err(problem) => {
                for sequence in &mut self.running {
                    sequence.end(Event::Failed(RequestFailure::Computing(problem.clone())));
                }
                return;
            }
        };
        let mut rows = logits.chunks_exact(self.vocabulary_size);
        let computed = self.running.iter_mut().zip(&lengths).filter(|(_, length)| **length > 0);
        for ((sequence, &length), count) in computed.zip(row_counts) {
            let rows: Vec<&[f32]> = rows.by_ref().take(count).collect();
            sequence.advance(length, &rows, &self.tokenizer, &self.end_tokens);
        }
        let mut inbox = self.shared.inbox();
        for (sequence, length) in self.running.iter().zip(lengths) {
            inbox.queue.charge(&sequence.waiting.request.tenant, length);
        }
    }

    /// Rows of each running sequence in the next pass: one each, then even shares of what is left.
    fn chunk_lengths(&self) -> Vec<usize> {
        let mut lengths = vec![1; self.running.len()];
        let mut budget = self.tokens_per_step.saturating_sub(lengths.len());
        loop {
            let hungry: Vec<usize> =
                (0..lengths.len()).filter(|&index| lengths[index] < self.most_rows(index)).collect();
            if hungry.is_empty() || budget == 0 {
                return lengths;
            }
            let share = (budget / hungry.len()).max(1);
            for index in hungry {
                let more = share.min(budget).min(self.most_rows(index) - lengths[index]);
                lengths[index] += more;
                budget -= more;
            }
        }
    }

    fn most_rows(&self, index: usize) -> usize {
        let sequence = &self.running[index];
        let scored = (PROMPT_LOGITS_PER_STEP / self.vocabulary_size).max(1);
        if sequence.scores_prompt() { sequence.left().min(scored) } else { sequence.left() }
    }

    /// Lets go of what has ended.
    fn retire(&mut self) {
        if self.running.iter().all(|sequence| !sequence.ended) {
            return;
        }
        let mut inbox = self.shared.inbox();
        for sequence in self.running.extract_if(.., |sequence| sequence.ended) {
            self.free_blocks.extend(&sequence.blocks);
            inbox.queue.finished(&sequence.waiting.request.tenant);
        }
        inbox.running = self.running.len();
    }
}

fn wanted_rows(chunk: &Chunk<'_>) -> usize {
    match chunk.rows {
        Rows::None => 0,
        Rows::Last => 1,
        Rows::All => chunk.tokens.len(),
    }
}

/// Takes no more requests once the thread ends, and fails those that wait.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        let waiting = {
            let mut inbox = self.0.inbox();
            inbox.stopping = true;
            inbox.queue.remove(|_| true)
        };
        for mut waiting in waiting {
            (waiting.deliver)(Event::Failed(RequestFailure::EngineStopped));
        }
    }
}
