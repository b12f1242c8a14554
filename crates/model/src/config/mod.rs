//! What a model is: read from and written to Hugging Face's `config.json`.
//!
//! Every key is either understood or refused by its name: a model that computes something slightly different from its
//! configuration is worse than one that does not load. Facts are held per layer, never as global flags.
//!
//! `families` lists the families and what they take for granted, `keys` and `read` follow a file's keys, `write` makes
//! them again, `rotary` turns positions into angles, and `check` says whether the sizes make a decoder.

mod check;
mod families;
mod keys;
mod read;
mod rotary;
mod text_part;
mod write;

#[cfg(test)]
mod tests;

pub use families::Architecture;
pub use rotary::{Rotary, RotaryScaling};

use crate::ModelError;
use crate::weights::read_regular;
use compute::activations::Gate;
use compute::attention::AttentionShape;
use compute::cached_attention::ScoreRule;
use compute::routing::{Routing, Scoring};
use serde_json::{Map, Value};
use std::path::Path;

/// How one layer attends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpecification {
    /// Heads of queries; a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Elements of a head of queries; even.
    pub head_dim: usize,
    /// How queries and keys are turned by their position, if they are.
    pub rotary: Option<Rotary>,
    /// RMS norms on queries and keys.
    pub norm: QueryKeyNorm,
    /// Biases on queries, keys and values.
    pub bias: bool,
    /// Bias on the output projection.
    pub output_bias: bool,
    /// How many positions a token sees, its own among them; all before it without.
    pub window: Option<usize>,
    /// Factor of the scores, where it is not 1 / √head_dim.
    pub scale: Option<f64>,
    /// c, where a score becomes c · tanh(score / c).
    pub soft_cap: Option<f64>,
    /// How queries grow with their position.
    pub temperature: Option<Temperature>,
    /// Keys and values kept as one short vector (DeepSeek).
    pub latent: Option<LatentAttention>,
}

/// Where queries and keys are normed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKeyNorm {
    /// Nowhere.
    None,
    /// Each head for itself, all with the same weight.
    Head,
    /// All heads together.
    Projection,
}

/// Queries times 1 + β · ln(1 + ⌊position / original⌋): Llama 4's and Ministral 3's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Temperature {
    /// β
    pub beta: f64,
    /// Original length in positions.
    pub original: f64,
}

/// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values of all heads come from one
/// vector of `rank` elements, and one more of `rotary_dim` holds the position. The head's other elements have none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentAttention {
    /// Elements between the two projections of queries, where there are two.
    pub query_rank: Option<usize>,
    /// Elements of the vector of keys and values.
    pub rank: usize,
    /// Elements of a head that are turned by their position, the last ones.
    pub rotary_dim: usize,
    /// Elements of a head of values.
    pub value_dim: usize,
    /// Whether pairs are turned that stand side by side, rather than half a head apart.
    pub interleaved: bool,
    /// Weight of YaRN's magnitude in the scale of the scores (`mscale_all_dim`), 0 where it has no part in it.
    pub yarn_weight: f64,
}

impl AttentionSpecification {
    /// Llama's attention.
    pub fn plain(
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        rotary_theta: f64,
    ) -> AttentionSpecification {
        AttentionSpecification {
            heads,
            kv_heads,
            head_dim,
            rotary: Some(Rotary::plain(rotary_theta)),
            norm: QueryKeyNorm::None,
            bias: false,
            output_bias: false,
            window: None,
            scale: None,
            soft_cap: None,
            temperature: None,
            latent: None,
        }
    }

    /// The shape of what is attended over. With latent attention all heads see the same keys, of which the first elements
    /// are the values too.
    pub(crate) fn shape(&self) -> AttentionShape {
        match self.latent {
            None => AttentionShape { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim },
            Some(LatentAttention { rank, rotary_dim, .. }) => {
                AttentionShape { heads: self.heads, kv_heads: 1, head_dim: rank + rotary_dim }
            }
        }
    }

    /// What happens to the scores.
    pub(crate) fn rule(&self) -> ScoreRule {
        // As in training, where nothing else is said: the same bits.
        let plain = 1.0 / (self.head_dim as f32).sqrt();
        ScoreRule {
            scale: self.scale.map_or(plain, |scale| scale as f32),
            soft_cap: self.soft_cap.map(|cap| cap as f32),
            window: self.window,
        }
    }

    /// Elements of a row that the output projection takes.
    pub(crate) fn output_width(&self) -> usize {
        self.heads * self.latent.map_or(self.head_dim, |latent| latent.value_dim)
    }
}

/// The feed-forward part of one layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeedForwardSpecification {
    /// Width between the projections of what every token passes: the whole of a dense layer, the shared experts of a
    /// mixture. 0 where a mixture has none.
    pub intermediate_size: usize,
    /// The experts among which each token is sent to a few, where there are any.
    pub mixture: Option<MixtureSpecification>,
    /// What stands between the projections.
    pub activation: Activation,
    /// Biases on all projections.
    pub bias: bool,
}

/// What stands between the projections of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// silu(gate) · up
    Silu,
    /// gelu(gate) · up, GELU by a hyperbolic tangent.
    GeluTanh,
    /// xIELU of up alone; there is no gate.
    Xielu,
}

impl Activation {
    /// What is done to the gate beside up, if there is one.
    pub fn gate(self) -> Option<Gate> {
        match self {
            Activation::Silu => Some(Gate::Silu),
            Activation::GeluTanh => Some(Gate::GeluTanh),
            Activation::Xielu => None,
        }
    }

    /// Whether there is a gate beside up.
    pub fn gated(self) -> bool {
        self.gate().is_some()
    }
}

impl FeedForwardSpecification {
    /// A layer with SwiGLU and without experts.
    pub fn dense(intermediate_size: usize) -> FeedForwardSpecification {
        FeedForwardSpecification {
            intermediate_size,
            mixture: None,
            activation: Activation::Silu,
            bias: false,
        }
    }

    /// Where the tensors of what every token passes stand in a layer.
    pub(crate) fn block(&self) -> &'static str {
        match self.mixture {
            None => "mlp",
            Some(_) => "mlp.shared_experts",
        }
    }

    /// Elements of a row before the activation: gate and up, or up alone.
    pub(crate) fn wide(&self) -> usize {
        self.intermediate_size * if self.activation.gated() { 2 } else { 1 }
    }
}

/// The routed experts of one layer (DeepSeek-V3, arXiv 2412.19437, section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MixtureSpecification {
    /// How many experts there are.
    pub experts: usize,
    /// How many of them a token passes.
    pub experts_per_token: usize,
    /// Width between gate and down projection of one expert.
    pub intermediate_size: usize,
    /// From logits to scores. Where it is a sigmoid, a bias counts in the choice.
    pub scoring: Scoring,
    /// Experts stand in this many groups of equal size.
    pub groups: usize,
    /// Groups among whose experts a token may choose.
    pub active_groups: usize,
    /// Whether the chosen scores are divided by their sum.
    pub normalise: bool,
    /// Factor of the weights.
    pub scale: f64,
}

impl MixtureSpecification {
    /// Experts that are scored by a softmax, in one group (Mixtral, arXiv 2401.04088).
    pub fn softmax(
        experts: usize,
        experts_per_token: usize,
        intermediate_size: usize,
        normalise: bool,
    ) -> MixtureSpecification {
        MixtureSpecification {
            experts,
            experts_per_token,
            intermediate_size,
            scoring: Scoring::Softmax,
            groups: 1,
            active_groups: 1,
            normalise,
            scale: 1.0,
        }
    }

    pub(crate) fn routing(&self) -> Routing {
        Routing {
            experts: self.experts,
            chosen: self.experts_per_token,
            scoring: self.scoring,
            groups: self.groups,
            active_groups: self.active_groups,
            normalise: self.normalise,
            scale: self.scale as f32,
        }
    }
}

/// Where a layer's RMS norms stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlacement {
    /// Before attention and before the feed-forward part.
    Before,
    /// Behind each of them, before the result is added to the stream.
    After,
    /// Before and behind each.
    Around,
}

impl NormPlacement {
    pub(crate) fn before(self) -> bool {
        self != NormPlacement::After
    }

    pub(crate) fn after(self) -> bool {
        self != NormPlacement::Before
    }
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerSpecification {
    /// Attention.
    pub attention: AttentionSpecification,
    /// Feed-forward.
    pub feed_forward: FeedForwardSpecification,
    /// Norms.
    pub norms: NormPlacement,
}

/// A whole decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The family whose class opens it elsewhere.
    pub architecture: Architecture,
    /// Entries of the embedding table.
    pub vocabulary_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// From the first to the last.
    pub layers: Vec<LayerSpecification>,
    /// ε of all RMS norms.
    pub norm_epsilon: f64,
    /// Whether the output projection is the embedding table.
    pub tie_embeddings: bool,
    /// Factor of the embedding's rows.
    pub embedding_scale: Option<f64>,
    /// c, where a logit becomes c · tanh(logit / c).
    pub logit_soft_cap: Option<f64>,
    /// Longest sequence.
    pub maximum_positions: usize,
    /// Token that begins a document.
    pub begin_of_text: Option<u32>,
    /// Token that ends a document (the first, where several do).
    pub end_of_text: Option<u32>,
    /// All tokens that end a document.
    pub end_tokens: Vec<u32>,
    /// Token that fills up.
    pub padding: Option<u32>,
}

/// Sizes beyond these are typing errors or attacks, not models.
const LARGEST_SIZE: usize = 1 << 24;
const LARGEST_PARAMETERS: u128 = 1 << 42;
const MOST_EXPERTS: usize = 1 << 12;
/// In all layers together: each has three tensors with names.
const MOST_EXPERTS_IN_ALL: usize = 1 << 17;

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// Names the file, and the key that is missing, wrong or not supported.
    pub fn load(path: &Path) -> Result<ModelConfig, ModelError> {
        let text = read_regular(path).map_err(ModelError::read(path))?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|error| ModelError::config(path, format!("not valid JSON: {error}")))?;
        let Value::Object(keys) = value else {
            return Err(ModelError::config(path, "expected a JSON object"));
        };
        ModelConfig::from_map(&keys, path)
    }

    /// Reads what stands in a `config.json`; messages name `path` as its place.
    ///
    /// # Errors
    /// As [`ModelConfig::load`].
    pub fn from_map(keys: &Map<String, Value>, path: &Path) -> Result<ModelConfig, ModelError> {
        let config = ModelConfig::from_keys(keys).map_err(|problem| ModelError::config(path, problem))?;
        config.check().map_err(|error| ModelError::config(path, error.to_string()))?;
        Ok(config)
    }
}
