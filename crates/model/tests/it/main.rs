//! The decoder as a whole: gradients, training against inference, adapters, and PyTorch's numbers.

mod families;
mod formats;
mod gradients;
mod inference;
mod memory;
mod oracle;
mod stored;

use compute::Device;
use compute::allocation::Counting;
use model::{Decoder, ModelConfig, PackedBatch, TrainingWorkspace};
use std::ops::Range;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tokens in documents of the given lengths, with the positions and targets that belong to them.
pub struct Batch {
    tokens: Vec<u32>,
    targets: Vec<u32>,
    positions: Vec<u32>,
    documents: Vec<Range<usize>>,
}

impl Batch {
    pub fn new(seed: u64, vocabulary: u64, lengths: &[usize]) -> Batch {
        let total: usize = lengths.iter().sum();
        let token = |stream: u64, i: usize| {
            compute::random::below(compute::random::key(&[seed, stream]), i as u64, vocabulary) as u32
        };
        let mut batch = Batch {
            tokens: (0..total).map(|i| token(0, i)).collect(),
            targets: (0..total).map(|i| token(1, i)).collect(),
            positions: Vec::new(),
            documents: Vec::new(),
        };
        for &length in lengths {
            let begin = batch.positions.len();
            batch.documents.push(begin..begin + length);
            batch.positions.extend(0..length as u32);
        }
        batch
    }

    pub fn packed(&self) -> PackedBatch<'_> {
        PackedBatch {
            tokens: &self.tokens,
            targets: &self.targets,
            positions: &self.positions,
            documents: &self.documents,
            first_token: 0,
        }
    }
}

pub fn decoder(config: &ModelConfig) -> Decoder {
    Decoder::new(config, config.maximum_positions).unwrap()
}

/// A device of two threads, shared by the tests of this binary.
pub fn device() -> &'static Device {
    static DEVICE: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    DEVICE.get_or_init(|| Device::cpu(2).unwrap())
}

pub fn workspace(config: &ModelConfig, tokens: usize) -> TrainingWorkspace {
    TrainingWorkspace::new(device(), config, tokens, false)
}
