//! The buffers of one training thread, planned once for the largest micro-batch and reused in every step: large
//! temporaries made anew each time cost page faults, which is where other frameworks lose their time.

use crate::config::ModelConfig;
use compute::attention::{AttentionWorkspace, RowSums};

/// What the forward pass keeps of one layer for the backward pass. [tokens, …] each.
#[derive(Debug, Default)]
pub(crate) struct LayerActivations {
    pub input: Vec<f32>,
    pub input_reciprocal: Vec<f32>,
    pub normed: Vec<f32>,
    pub fused: Vec<f32>,
    pub query_reciprocal: Vec<f32>,
    pub key_reciprocal: Vec<f32>,
    pub queries: Vec<f32>,
    pub keys: Vec<f32>,
    pub sums: RowSums,
    pub attended: Vec<f32>,
    pub middle: Vec<f32>,
    pub middle_reciprocal: Vec<f32>,
    pub middle_normed: Vec<f32>,
    pub gate_up: Vec<f32>,
    pub activated: Vec<f32>,
}

/// Buffers for forward and backward passes of micro-batches up to a number of tokens.
#[derive(Debug)]
pub struct TrainingWorkspace {
    pub(crate) maximum_tokens: usize,
    pub(crate) layers: Vec<LayerActivations>,
    pub(crate) last: Vec<f32>,
    pub(crate) last_reciprocal: Vec<f32>,
    pub(crate) last_normed: Vec<f32>,
    pub(crate) logits: Vec<f32>,
    pub(crate) gradient: Vec<f32>,
    pub(crate) branch: Vec<f32>,
    pub(crate) narrow: Vec<f32>,
    pub(crate) wide: Vec<f32>,
    pub(crate) wider: Vec<f32>,
    pub(crate) query_gradient: Vec<f32>,
    pub(crate) key_gradient: Vec<f32>,
    pub(crate) fused_gradient: Vec<f32>,
    pub(crate) low_rank: [Vec<f32>; 2],
    pub(crate) attention: AttentionWorkspace,
}

impl TrainingWorkspace {
    /// Buffers for micro-batches of up to `maximum_tokens`.
    pub fn new(config: &ModelConfig, maximum_tokens: usize) -> TrainingWorkspace {
        let zeros = |width: usize| vec![0.0f32; maximum_tokens * width];
        let hidden = config.hidden_size;
        let layers = config.layers.iter().map(|layer| {
            let attention = layer.attention;
            let (q, kv) = (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
            let width = layer.feed_forward.intermediate_size;
            LayerActivations {
                input: zeros(hidden),
                input_reciprocal: zeros(1),
                normed: zeros(hidden),
                fused: zeros(q + 2 * kv),
                query_reciprocal: zeros(attention.heads),
                key_reciprocal: zeros(attention.kv_heads),
                queries: zeros(q),
                keys: zeros(kv),
                sums: RowSums::new(attention.heads, maximum_tokens),
                attended: zeros(q),
                middle: zeros(hidden),
                middle_reciprocal: zeros(1),
                middle_normed: zeros(hidden),
                gate_up: zeros(2 * width),
                activated: zeros(width),
            }
        });
        let widest = |of: &dyn Fn(&crate::LayerSpecification) -> usize| {
            config.layers.iter().map(of).max().unwrap_or(0)
        };
        let q = widest(&|layer| layer.attention.heads * layer.attention.head_dim);
        let kv = widest(&|layer| layer.attention.kv_heads * layer.attention.head_dim);
        let width = widest(&|layer| layer.feed_forward.intermediate_size);
        TrainingWorkspace {
            maximum_tokens,
            layers: layers.collect(),
            last: zeros(hidden),
            last_reciprocal: zeros(1),
            last_normed: zeros(hidden),
            logits: Vec::new(),
            gradient: zeros(hidden),
            branch: zeros(hidden),
            narrow: zeros(hidden.max(q)),
            wide: zeros(width),
            wider: zeros(2 * width),
            query_gradient: zeros(q),
            key_gradient: zeros(kv),
            fused_gradient: zeros(q + 2 * kv),
            low_rank: [Vec::new(), Vec::new()],
            attention: AttentionWorkspace::default(),
        }
    }
}
