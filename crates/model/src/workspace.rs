//! The buffers of a training pass, planned once for the largest micro-batch and reused in every step: large temporaries made
//! anew each time cost page faults, which is where other frameworks lose their time.

use crate::config::{LayerSpecification, ModelConfig};
use crate::mixture::{MixtureActivations, MixturePassing, MixtureSizes};
use compute::device::AttentionSums;
use compute::{Buffer, Device};

/// What the backward pass needs of one layer, besides its input. [tokens, …] each.
#[derive(Debug)]
pub(crate) struct LayerActivations {
    pub input_reciprocal: Buffer,
    pub normed: Buffer,
    pub fused: Buffer,
    pub query_reciprocal: Buffer,
    pub key_reciprocal: Buffer,
    pub queries: Buffer,
    pub keys: Buffer,
    pub sums: AttentionSums,
    pub attended: Buffer,
    pub middle: Buffer,
    pub middle_reciprocal: Buffer,
    pub middle_normed: Buffer,
    pub gate_up: Buffer,
    pub activated: Buffer,
    pub mixture: MixtureActivations,
}

/// Gradients on their way down, each overwritten in every layer. [tokens, …] each.
#[derive(Debug)]
pub(crate) struct Passing {
    /// By the residual stream.
    pub residual: Buffer,
    /// A branch's output, forward and backward.
    pub branch: Buffer,
    /// By the attention's output.
    pub attended: Buffer,
    /// By the activated rows.
    pub activated: Buffer,
    /// By gate and up.
    pub gate_up: Buffer,
    pub queries: Buffer,
    pub keys: Buffer,
    pub fused: Buffer,
    /// An adapter's inner rows, and the gradient by them.
    pub low_rank: [Buffer; 2],
    pub mixture: MixturePassing,
}

/// Buffers for forward and backward passes of micro-batches up to a number of tokens.
#[derive(Debug)]
pub struct TrainingWorkspace {
    pub(crate) device: Device,
    pub(crate) maximum_tokens: usize,
    pub(crate) tokens: Buffer<u32>,
    pub(crate) targets: Buffer<u32>,
    pub(crate) positions: Buffer<u32>,
    pub(crate) activations: Activations,
    pub(crate) losses: Buffer<f64>,
    pub(crate) total: Buffer<f64>,
}

/// What the operations of a pass write.
#[derive(Debug)]
pub(crate) struct Activations {
    /// Input of each layer, and the last one's output.
    pub inputs: Vec<Buffer>,
    /// Of each layer; of one alone, where the backward pass computes them again.
    pub layers: Vec<LayerActivations>,
    pub recomputes: bool,
    pub last_reciprocal: Buffer,
    pub last_normed: Buffer,
    pub passing: Passing,
    /// Tokens that each expert of each layer has had in backward passes: [layers, E].
    pub expert_loads: Buffer<u32>,
    /// E of each layer, 0 where it has no experts; and the largest of them.
    pub experts: Vec<usize>,
    pub most_experts: usize,
}

impl TrainingWorkspace {
    /// Buffers for micro-batches of up to `maximum_tokens`, on `device`. With `recomputes`, the backward pass computes each
    /// layer's activations again from the layer's input: a third more work, a fraction of the memory, the same bits.
    pub fn new(
        device: &Device,
        config: &ModelConfig,
        maximum_tokens: usize,
        recomputes: bool,
    ) -> TrainingWorkspace {
        let zeros = |width: usize| device.zeros::<f32>(maximum_tokens * width);
        let hidden = config.hidden_size;
        let widest =
            |of: &dyn Fn(&LayerSpecification) -> usize| config.layers.iter().map(of).max().unwrap_or(0);
        let q = widest(&|layer| layer.attention.heads * layer.attention.head_dim);
        let kv = widest(&|layer| layer.attention.kv_heads * layer.attention.head_dim);
        let width = widest(&|layer| layer.feed_forward.intermediate_size);
        let fused = widest(&|layer| {
            (layer.attention.heads + 2 * layer.attention.kv_heads) * layer.attention.head_dim
        });
        let heads = widest(&|layer| layer.attention.heads);
        // Recomputed activations share the buffers of the largest layer.
        let kept = if recomputes { 1 } else { config.layers.len() };
        let mixtures = MixtureSizes::new(config);
        let mixture = |layer: usize| match config.layers[layer].feed_forward.mixture {
            None if !recomputes => MixtureActivations::new(device, MixtureSizes::default(), 0),
            _ => MixtureActivations::new(device, mixtures, maximum_tokens),
        };
        let layers = (0..kept).map(|layer| LayerActivations {
            input_reciprocal: zeros(1),
            normed: zeros(hidden),
            fused: zeros(fused),
            query_reciprocal: zeros(heads),
            key_reciprocal: zeros(heads),
            queries: zeros(q),
            keys: zeros(kv),
            sums: AttentionSums::new(device, heads, maximum_tokens),
            attended: zeros(q),
            middle: zeros(hidden),
            middle_reciprocal: zeros(1),
            middle_normed: zeros(hidden),
            gate_up: zeros(2 * width),
            activated: zeros(width),
            mixture: mixture(layer),
        });
        let activations = Activations {
            inputs: (0..=config.layers.len()).map(|_| zeros(hidden)).collect(),
            layers: layers.collect(),
            recomputes,
            last_reciprocal: zeros(1),
            last_normed: zeros(hidden),
            passing: Passing {
                residual: zeros(hidden),
                branch: zeros(hidden),
                attended: zeros(q),
                activated: zeros(width),
                gate_up: zeros(2 * width),
                queries: zeros(q),
                keys: zeros(kv),
                fused: zeros(fused),
                low_rank: [device.zeros(0), device.zeros(0)],
                mixture: MixturePassing::new(device, mixtures, maximum_tokens),
            },
            expert_loads: device.zeros(config.layers.len() * mixtures.experts),
            experts: (config.layers.iter())
                .map(|layer| layer.feed_forward.mixture.map_or(0, |mixture| mixture.experts))
                .collect(),
            most_experts: mixtures.experts,
        };
        TrainingWorkspace {
            device: device.clone(),
            maximum_tokens,
            tokens: device.zeros(maximum_tokens),
            targets: device.zeros(maximum_tokens),
            positions: device.zeros(maximum_tokens),
            activations,
            losses: device.zeros(maximum_tokens),
            total: device.zeros(1),
        }
    }

    /// The device that it was planned on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Waits for what is queued, and returns how many tokens each expert has had in backward passes since the last call, for
    /// each layer that has experts.
    pub fn take_expert_loads(&mut self) -> Vec<Vec<u64>> {
        let Activations { expert_loads, most_experts, experts, .. } = &mut self.activations;
        let loads = self.device.read(expert_loads.at(..));
        self.device.fill(expert_loads.at_mut(..), 0);
        let layers =
            loads.chunks_exact((*most_experts).max(1)).zip(experts).filter(|(_, experts)| **experts > 0);
        layers.map(|(layer, experts)| layer[..*experts].iter().map(|&load| load as u64).collect()).collect()
    }

    /// Waits for what is queued, and returns the sum of the losses since the last call, in nats.
    pub fn take_loss(&mut self) -> f64 {
        let total = self.device.read(self.total.at(..))[0];
        self.device.fill(self.total.at_mut(..), 0.0);
        total
    }
}
