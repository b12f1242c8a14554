//! The engine's thread: continuous batching.
//!
//! Each step is one forward pass over rows of several sequences: one row for every answer under way, and with what is
//! left of the step's rows, pieces of the prompts that are being read. Prompts of the tenant that has used least come
//! first; those of one tenant share evenly, so that a long one does not keep short ones waiting. While several tenants are
//! there, steps are short: whoever comes waits for the one under way. Answers join and leave between steps. A request is
//! let in when the cache has blocks for all that it may come to need, so that nothing ever has to be thrown out again.
//!
//! A prompt that begins like an earlier text of its tenant starts with that text's blocks. Where the other text is still
//! being computed (several answers to one prompt, asked for together), it waits for it and then takes its blocks; the one
//! in which they part is copied.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use tokenizer::Tokenizer;

use crate::blocks::{Blocks, Scope};
use crate::decoder::{Chunk, Decoder, Rows};
use crate::engine::{EngineFigures, EngineSettings, Shared};
use crate::error::RequestFailure;
use crate::format::Form;
use crate::memory::scored_rows;
use crate::queue::Room;
use crate::request::{Event, Pooling, Request};
use crate::sequence::{Awaited, Sequence};

/// Most rows of prompts in a step while several tenants are there: a newcomer's first token waits for at most one such
/// step of somebody else. 128 rows share one reading of the weights, which is most of what larger steps would gain.
const SHARED_PROMPT_ROWS: usize = 128;

/// A request that was checked and queued.
pub(crate) struct Waiting {
    pub request: Request,
    /// Whose blocks it may read.
    pub scope: Scope,
    /// Index of its adapter.
    pub adapter: Option<usize>,
    /// Its compiled form.
    pub form: Option<Form>,
    pub most_tokens: usize,
    /// Cache blocks that it may come to need.
    pub blocks: usize,
    pub deadline: Option<Instant>,
    pub cancelled: Arc<AtomicBool>,
    pub deliver: Box<dyn FnMut(Event) + Send>,
}

impl Waiting {
    /// Whether every row of its prompt must be computed: something is wanted of each.
    fn wants_every_row(&self) -> bool {
        self.request.prompt_logprobs.is_some() || self.request.pooling == Some(Pooling::Mean)
    }

    /// Kept blocks that it can begin with.
    fn find(&self, blocks: &Blocks) -> Vec<u32> {
        if self.wants_every_row() { Vec::new() } else { blocks.find(&self.scope, &self.request.prompt) }
    }

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
    blocks: Blocks,
    running: Vec<Sequence>,
    /// Requests admitted so far.
    admitted: u64,
    /// Since they were last told.
    figures: EngineFigures,
    running_requests: usize,
    tokens_per_step: usize,
    speculation: usize,
    sharing: bool,
    /// Whether only what was computed for prompts may be shared.
    only_prompts: bool,
    block_positions: usize,
    vocabulary_size: usize,
    hidden_size: usize,
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
        let only_prompts = decoder.tells_prompts_from_answers();
        Worker {
            decoder,
            tokenizer,
            end_tokens,
            shared,
            blocks: Blocks::new(shape.blocks, shape.block_positions, settings.prefix_cache),
            running: Vec::new(),
            admitted: 0,
            figures: EngineFigures::default(),
            running_requests: settings.running_requests,
            tokens_per_step: settings.tokens_per_step,
            speculation: settings.speculation,
            sharing: settings.prefix_cache,
            only_prompts,
            block_positions: shape.block_positions,
            vocabulary_size: shape.vocabulary_size,
            hidden_size: shape.hidden_size,
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
                self.share();
                self.step();
                self.retire();
            }
        }
        for sequence in &mut self.running {
            sequence.end(Event::Failed(RequestFailure::EngineStopped));
            sequence.tell();
        }
    }

    /// Waits for work and lets in what fits. `false` when the engine stops.
    fn admit(&mut self) -> bool {
        let shared = self.shared.clone();
        let mut inbox = shared.inbox();
        (inbox.cache_blocks, inbox.cache_blocks_used) = (self.blocks.count(), self.blocks.held());
        while !inbox.stopping && self.running.is_empty() && inbox.queue.waiting() == 0 {
            inbox = shared.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        if inbox.stopping {
            return false;
        }
        let now = Instant::now();
        let gone = inbox.queue.remove(|waiting| waiting.gone(now).is_some());
        while self.running.len() < self.running_requests {
            let blocks = &self.blocks;
            let fits = |waiting: &Waiting| {
                let found = waiting.find(blocks);
                blocks.has_room(&found, waiting.blocks - found.len())
            };
            let room =
                Room { places: self.running_requests - self.running.len(), blocks: blocks.available() };
            let Some(waiting) = inbox.queue.take(room, fits) else { break };
            self.begin(waiting);
        }
        inbox.running = self.running.len();
        inbox.cache_blocks_used = self.blocks.held();
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

    /// Starts a request whose blocks were seen to be there.
    fn begin(&mut self, waiting: Waiting) {
        if let Some(admitted) = &waiting.request.admitted {
            // Whoever set it before knows better.
            let _ = admitted.set(Instant::now());
        }
        let found = waiting.find(&self.blocks);
        self.blocks.hold(&found);
        let own = self.blocks.take(waiting.blocks - found.len()).unwrap_or_default();
        self.admitted += 1;
        let size = self.block_positions;
        let skipped = found.len() * size;
        let mut sequence = Sequence::new(waiting, self.admitted, found, own, size, self.speculation);
        if self.sharing && !sequence.waiting.wants_every_row() {
            sequence.awaited = self.longest_beginning(&sequence);
        }
        self.count_saved(0, skipped);
        self.running.push(sequence);
    }

    /// The running sequence that shares, or soon will, the longest beginning with a prompt.
    fn longest_beginning(&self, sequence: &Sequence) -> Option<Awaited> {
        let prompt = sequence.tokens();
        let others = self.running.iter().filter(|other| other.waiting.scope == sequence.waiting.scope);
        let beginnings = others.map(|other| {
            let same = prompt.iter().zip(other.tokens()).take_while(|(a, b)| a == b).count();
            let same = if self.only_prompts { same.min(other.prompt_length()) } else { same };
            Awaited { number: other.number, length: same.min(prompt.len() - 1) }
        });
        // Less than a quarter of a block is computed as fast as it is copied.
        let worth = sequence.computed() + (self.block_positions / 4).max(1);
        beginnings.filter(|awaited| awaited.length >= worth).max_by_key(|awaited| awaited.length)
    }

    /// Gives sequences that wait for another one's work what is there.
    fn share(&mut self) {
        for index in 0..self.running.len() {
            let Some(awaited) = self.running[index].awaited else { continue };
            match self.running.iter().position(|other| other.number == awaited.number) {
                Some(other) if self.running[other].computed() < awaited.length => {}
                Some(other) => self.take_over(index, other, awaited.length),
                None => {
                    // It ended early; complete blocks of it are kept.
                    let sequence = &self.running[index];
                    let found = sequence.waiting.find(&self.blocks);
                    let length = found.len() * self.block_positions;
                    self.read_kept(index, &found, length);
                }
            }
        }
    }

    /// One sequence goes on after the first `length` tokens of another.
    fn take_over(&mut self, index: usize, other: usize, length: usize) {
        let whole = (length / self.block_positions).min(self.running[other].kept);
        let kept = self.running[other].blocks[..whole].to_vec();
        let parting = self.running[other].blocks.get(whole).copied();
        self.read_kept(index, &kept, length);
        if length > whole * self.block_positions
            && let (Some(from), Some(&to)) = (parting, self.running[index].blocks.get(whole))
        {
            self.decoder.copy_block(from, to);
        }
    }

    /// A sequence reads kept blocks instead of its first own ones, and goes on after `length` tokens.
    fn read_kept(&mut self, index: usize, kept: &[u32], length: usize) {
        let sequence = &mut self.running[index];
        sequence.awaited = None;
        let before = sequence.computed();
        if length <= before {
            return;
        }
        if let Some(more) = kept.get(sequence.kept..) {
            self.blocks.hold(more);
            let own = &mut sequence.blocks[sequence.kept..kept.len()];
            self.blocks.give_back(own);
            own.copy_from_slice(more);
            sequence.kept = kept.len();
        }
        sequence.skip_to(length);
        self.count_saved(before, length);
    }

    fn count_saved(&mut self, before: usize, after: usize) {
        if after > before {
            self.figures.prefix_hits += u64::from(before == 0);
            self.figures.prefix_tokens_saved += (after - before) as u64;
        }
    }

    /// One forward pass (two, if there are texts to embed as well), and what follows from it for each sequence.
    fn step(&mut self) {
        let lengths = self.chunk_lengths();
        for embedding in [false, true] {
            let taking_part: Vec<usize> = (0..lengths.len())
                .filter(|&index| {
                    let pooling = self.running[index].waiting.request.pooling;
                    lengths[index] > 0 && pooling.is_some() == embedding
                })
                .collect();
            if !taking_part.is_empty() {
                self.pass(embedding, &taking_part, &lengths);
            }
        }
        self.keep_complete_blocks();
        let figures = std::mem::take(&mut self.figures);
        let mut inbox = self.shared.inbox();
        inbox.figures.add(figures);
        for (sequence, length) in self.running.iter().zip(lengths) {
            inbox.queue.charge(&sequence.waiting.request.tenant, length);
        }
    }

    fn pass(&mut self, embedding: bool, taking_part: &[usize], lengths: &[usize]) {
        let chunks: Vec<Chunk<'_>> =
            taking_part.iter().map(|&index| self.running[index].chunk(lengths[index])).collect();
        let row_counts: Vec<usize> = chunks.iter().map(wanted_rows).collect();
        self.figures.steps += 1;
        self.figures.computed_tokens += chunks.iter().map(|chunk| chunk.tokens.len() as u64).sum::<u64>();
        let (result, width) = if embedding {
            (self.decoder.hidden_states(&chunks), self.hidden_size)
        } else {
            (self.decoder.forward(&chunks), self.vocabulary_size)
        };
        let values = match result {
            Ok(values) => values,
            Err(problem) => {
                for &index in taking_part {
                    self.running[index].end(Event::Failed(RequestFailure::Computing(problem.clone())));
                }
                return;
            }
        };
        let mut rows = values.chunks_exact(width);
        for (&index, count) in taking_part.iter().zip(row_counts) {
            let rows: Vec<&[f32]> = rows.by_ref().take(count).collect();
            let (sequence, length) = (&mut self.running[index], lengths[index]);
            if embedding {
                sequence.advance_pooling(length, &rows);
            } else {
                let progress = sequence.advance(length, &rows, &self.tokenizer, &self.end_tokens);
                self.figures.guessed_tokens += progress.guessed as u64;
                self.figures.accepted_tokens += progress.accepted as u64;
            }
        }
    }

    /// Blocks that this step has completed are there for others from now on.
    fn keep_complete_blocks(&mut self) {
        let size = self.block_positions;
        for sequence in &mut self.running {
            let end = if self.only_prompts { sequence.prompt_length() } else { usize::MAX };
            while (sequence.kept + 1) * size <= sequence.computed().min(end) {
                let number = sequence.kept;
                let tokens = &sequence.tokens()[number * size..(number + 1) * size];
                let before = number.checked_sub(1).map(|before| sequence.blocks[before]);
                let own = sequence.blocks[number];
                let Some(block) = self.blocks.keep(&sequence.waiting.scope, before, tokens, own) else {
                    break;
                };
                sequence.blocks[number] = block;
                sequence.kept += 1;
            }
        }
    }

    /// Rows of each running sequence in the next pass; none for those that wait for another. Every answer gets one; what
    /// is left goes to prompts (and guesses), tenant by tenant from the one that has used least, and evenly within each.
    fn chunk_lengths(&self) -> Vec<usize> {
        let mut lengths: Vec<usize> = self
            .running
            .iter()
            .map(|sequence| usize::from(sequence.awaited.is_none() && sequence.is_answering()))
            .collect();
        let mut budget = self.tokens_per_step.saturating_sub(lengths.iter().sum());
        // What each tenant has used, and how much it has under way: of equals, the newcomer comes first.
        let mut tenants: BTreeMap<&str, (u64, usize)> = BTreeMap::new();
        for sequence in &self.running {
            tenants.entry(sequence.waiting.request.tenant.as_str()).or_default().1 += 1;
        }
        {
            let inbox = self.shared.inbox();
            if inbox.queue.is_shared(Instant::now()) {
                budget = budget.min(SHARED_PROMPT_ROWS);
            }
            for (tenant, (used, _)) in &mut tenants {
                *used = inbox.queue.used_tokens(tenant);
            }
        }
        // Also when answers alone fill the step: else prompts might never be read.
        budget = budget.max(1);
        let mut order: Vec<(&str, (u64, usize))> = tenants.into_iter().collect();
        order.sort_by_key(|(_, standing)| *standing);
        for (tenant, _) in order {
            budget = self.share_rows(tenant, budget, &mut lengths);
        }
        lengths
    }

    /// Gives the sequences of one tenant even shares of `budget` rows. Returns what is left of them.
    fn share_rows(&self, tenant: &str, mut budget: usize, lengths: &mut [usize]) -> usize {
        loop {
            let hungry: Vec<usize> = (0..lengths.len())
                .filter(|&index| self.running[index].waiting.request.tenant == tenant)
                .filter(|&index| lengths[index] < self.most_rows(index))
                .collect();
            if hungry.is_empty() || budget == 0 {
                return budget;
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
        if sequence.awaited.is_some() {
            return 0;
        }
        if !sequence.scores_prompt() {
            return sequence.left();
        }
        let scoring = self.running.iter().filter(|sequence| sequence.scores_prompt()).count();
        sequence.left().min((scored_rows(self.vocabulary_size) / scoring.max(1)).max(1))
    }

    /// Lets go of what has ended, then tells everybody what there is: a client that has its last event finds itself gone.
    fn retire(&mut self) {
        let ended: Vec<Sequence> = self.running.extract_if(.., |sequence| sequence.ended).collect();
        if !ended.is_empty() {
            let mut inbox = self.shared.inbox();
            for sequence in &ended {
                let (kept, own) = sequence.blocks.split_at(sequence.kept);
                self.blocks.leave(kept);
                self.blocks.give_back(own);
                inbox.queue.finished(&sequence.waiting.request.tenant, sequence.waiting.blocks);
            }
            inbox.running = self.running.len();
            inbox.cache_blocks_used = self.blocks.held();
        }
        ended.into_iter().for_each(|mut sequence| sequence.tell());
        self.running.iter_mut().for_each(Sequence::tell);
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
