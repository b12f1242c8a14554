//! Which conversations each step sees: whole ones, in an order drawn anew each epoch, until a step has its tokens.

use crate::conversations::Conversation;
use compute::random;
use training::{MicroBatch, StepBatch};

/// Micro-batches are filled up to this many tokens; a longer conversation is one by itself.
const MICRO_BATCH_TOKENS: usize = 2048;

/// The conversations of each step.
#[derive(Debug)]
pub(crate) struct Plan {
    steps: Vec<Vec<u32>>,
    /// How often the conversations are gone through.
    pub epochs: f64,
}

impl Plan {
    pub fn new(conversations: &[Conversation], steps: u64, batch_tokens: usize, seed: u64) -> Plan {
        let (mut plan, mut taken) = (Vec::new(), 0usize);
        let mut order = Vec::new();
        while (plan.len() as u64) < steps {
            let (mut step, mut tokens) = (Vec::new(), 0);
            while tokens < batch_tokens {
                let place = taken % conversations.len();
                if place == 0 {
                    let epoch = (taken / conversations.len()) as u64;
                    order = random::permutation(random::key(&[seed, epoch]), conversations.len());
                }
                step.push(order[place]);
                tokens += conversations[order[place] as usize].tokens.len();
                taken += 1;
            }
            plan.push(step);
        }
        Plan { steps: plan, epochs: taken as f64 / conversations.len() as f64 }
    }

    pub fn step(&self, step: u64, conversations: &[Conversation]) -> StepBatch {
        let mut batch = StepBatch::default();
        let mut tokens = 0;
        for &index in &self.steps[step as usize] {
            let conversation = &conversations[index as usize];
            let length = conversation.tokens.len();
            let full = batch
                .micro_batches
                .last()
                .is_none_or(|micro| micro.tokens.len() + length > MICRO_BATCH_TOKENS);
            if full {
                batch.micro_batches.push(MicroBatch { first_token: tokens, ..MicroBatch::default() });
            }
            let micro = batch.micro_batches.last_mut().expect("one was just pushed");
            micro.push(&conversation.tokens, &conversation.targets);
            tokens += length as u32;
            batch.targets +=
                conversation.targets.iter().filter(|target| **target != model::NO_TARGET).count();
        }
        batch
    }

    /// Tokens of the largest micro-batch.
    pub fn micro_tokens(conversations: &[Conversation]) -> usize {
        let longest = conversations.iter().map(|conversation| conversation.tokens.len()).max().unwrap_or(0);
        longest.max(MICRO_BATCH_TOKENS)
    }
}
