//! What a recipe may say about pretraining. Defaults are those of the tiny recipe's model.

use crate::Error;
use crate::schedule::{DecayShape, Schedule, ScheduleKind};
use crate::trainer::{MomentStorage, OptimiserKind};
use model::{
    Architecture, AttentionSpecification, FeedForwardSpecification, LayerSpecification, MixtureSpecification,
    ModelConfig, NormPlacement, QueryKeyNorm, RouterTraining, Scoring,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Settings of the pretraining stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values; `heads` must be a multiple.
    pub kv_heads: usize,
    /// Elements of a head; even.
    pub head_dim: usize,
    /// Width between gate and down projection.
    pub intermediate_size: usize,
    /// Entries of the vocabulary, for recipes that state it: the tokenizer must have as many. 0: as many as it has.
    pub vocabulary_size: usize,
    /// Experts of a layer, among which a router sends each token to a few; 0: a dense model, and the keys below say nothing.
    pub experts: usize,
    /// How many of them a token passes.
    pub experts_per_token: usize,
    /// How many more every token passes.
    pub shared_experts: usize,
    /// Width between gate and down projection of one expert.
    pub moe_intermediate_size: usize,
    /// Layers at the beginning that are dense, of `intermediate_size`.
    pub first_dense_layers: usize,
    /// By how much a step moves the bias of an expert that had more or fewer tokens than the mean (DeepSeek-V3's balancing
    /// without a loss of its own); 0: never.
    pub router_bias_update: f64,
    /// Coefficient of the router's z-loss, which keeps its logits small; 0: none.
    pub router_z_loss: f64,
    /// Whether the output projection is the embedding table.
    pub tie_embeddings: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Longest sequence that the finished model accepts; at least `sequence_length`.
    pub maximum_positions: usize,

    /// Tokens of a training sequence.
    pub sequence_length: usize,
    /// Tokens of a step; a multiple of `sequence_length`.
    pub batch_tokens: usize,
    /// Steps of the optimiser.
    pub steps: u64,
    /// `adamw`, or `muon`: Muon for matrices, AdamW for the rest.
    pub optimizer: OptimiserKind,
    /// `f32`, or `bf16`: moments rounded after each step, in half the memory.
    pub moments: MomentStorage,
    /// Learning rate at its height.
    pub learning_rate: f64,
    /// Learning rate at the end.
    pub minimum_learning_rate: f64,
    /// `warmup-stable-decay` or `cosine`.
    pub schedule: ScheduleKind,
    /// Share of the steps that warm up linearly.
    pub warmup_ratio: f64,
    /// Share of the steps that decay at the end (not with a cosine).
    pub decay_ratio: f64,
    /// `linear` or `one-minus-sqrt`.
    pub decay_shape: DecayShape,
    /// Decoupled decay of matrices and tables.
    pub weight_decay: f64,
    /// AdamW's β₁.
    pub beta_1: f64,
    /// AdamW's β₂.
    pub beta_2: f64,
    /// AdamW's ε.
    pub epsilon: f64,
    /// Largest norm of the whole gradient; a longer one is scaled down to it.
    pub clip_norm: f64,
    /// A step whose gradient norm is above so many times the median of the last 128 is left out; 0: none is.
    pub skip_outliers: f64,
    /// Decay of an average of the weights over the steps; with it on, the average is the model that comes out. 0: off.
    pub weight_average_decay: f64,
    /// Share of elements dropped from the embedding and from both branches of each layer.
    pub dropout: f64,
    /// Seed of weights, order and dropout.
    pub seed: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Whether a checkpoint is written while the training goes on: faster, with memory for a copy of the state meanwhile.
    pub checkpoint_beside: bool,
    /// How many checkpoints stand beside each other while the run lasts.
    pub checkpoints_kept: usize,
    /// Whether the model before the decay is kept, in the folder `before-decay` of the result: it can be trained on.
    pub keep_before_decay: bool,
    /// Steps between measurements of held-out text; 0: none.
    pub evaluate_every: u64,
    /// Bytes of held-out text of each language that are measured.
    pub evaluate_bytes: usize,
    /// Tokens of a micro-batch, rounded to whole sequences: more are faster, fewer need less memory.
    pub micro_batch_tokens: usize,
    /// Whether the backward pass computes activations again instead of keeping them: a third more work, less memory.
    pub recompute: bool,

    /// Share of a language ∝ tokens^(1 / temperature): 1 keeps the corpus's proportions, more evens them out.
    pub language_temperature: f64,
    /// Shares by language code, instead of the temperature; languages that are not named are left out.
    pub language_weights: BTreeMap<String, f64>,
    /// Shares by source within each language (documents name their source; those that do not are `unstated`); sources that
    /// are not named are left out. Empty: each has what it has.
    pub source_weights: BTreeMap<String, f64>,
    /// A language or source that would be gone through more often than this has its share cut, and the others grow; 0: no
    /// limit.
    pub maximum_epochs: f64,
    /// Goldfish loss: about every k-th token is never learned from, so that no passage is learned word for word; 0: off.
    pub goldfish_k: u64,
    /// Tokens before a token that decide whether it is left out.
    pub goldfish_context: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            hidden_size: 128,
            layers: 4,
            heads: 4,
            kv_heads: 2,
            head_dim: 32,
            intermediate_size: 384,
            vocabulary_size: 0,
            experts: 0,
            experts_per_token: 2,
            shared_experts: 1,
            moe_intermediate_size: 128,
            first_dense_layers: 1,
            router_bias_update: 1e-3,
            router_z_loss: 0.0,
            tie_embeddings: true,
            rope_theta: 10_000.0,
            maximum_positions: 2_048,
            sequence_length: 512,
            batch_tokens: 4_096,
            steps: 1_200,
            optimizer: OptimiserKind::AdamW,
            moments: MomentStorage::F32,
            learning_rate: 4e-3,
            minimum_learning_rate: 4e-5,
            schedule: ScheduleKind::WarmupStableDecay,
            warmup_ratio: 0.05,
            decay_ratio: 0.35,
            decay_shape: DecayShape::Linear,
            weight_decay: 0.1,
            beta_1: 0.9,
            beta_2: 0.95,
            epsilon: 1e-8,
            clip_norm: 1.0,
            skip_outliers: 0.0,
            weight_average_decay: 0.0,
            dropout: 0.15,
            seed: 1,
            checkpoint_every: 200,
            checkpoint_beside: true,
            checkpoints_kept: 2,
            keep_before_decay: false,
            evaluate_every: 0,
            evaluate_bytes: 20_000,
            micro_batch_tokens: 2_048,
            recompute: false,
            language_temperature: 1.0,
            language_weights: BTreeMap::new(),
            source_weights: BTreeMap::new(),
            maximum_epochs: 0.0,
            goldfish_k: 0,
            goldfish_context: 50,
        }
    }
}

/// A step adds about 1 − β₂ of the second moment's size to it, and bf16 rounds at 1/256.
const LARGEST_BETA_2_OF_BF16: f64 = 0.98;

/// That share of the steps, rounded down.
fn share_of(steps: u64, ratio: f64) -> u64 {
    (steps as f64 * ratio) as u64
}

impl Settings {
    /// Whether the settings can be trained with, as far as that is known before the tokenizer is.
    ///
    /// # Errors
    /// Names the key, its value, and what is expected.
    pub fn check(&self) -> Result<(), Error> {
        let fail = |problem: String| Err(Error::Settings(problem));
        for (key, value, least, most) in [
            ("learning_rate", self.learning_rate, f64::MIN_POSITIVE, 10.0),
            ("minimum_learning_rate", self.minimum_learning_rate, 0.0, self.learning_rate),
            ("weight_decay", self.weight_decay, 0.0, 10.0),
            ("beta_1", self.beta_1, 0.0, 0.999_999),
            ("beta_2", self.beta_2, 0.0, 0.999_999),
            ("epsilon", self.epsilon, 1e-30, 1.0),
            ("clip_norm", self.clip_norm, 1e-9, 1e9),
            ("dropout", self.dropout, 0.0, 0.95),
            ("warmup_ratio", self.warmup_ratio, 0.0, 0.9),
            ("decay_ratio", self.decay_ratio, 0.0, 1.0),
            ("language_temperature", self.language_temperature, 0.1, 1e6),
            ("weight_average_decay", self.weight_average_decay, 0.0, 0.999_999_9),
            ("skip_outliers", self.skip_outliers, 0.0, 1e9),
            ("maximum_epochs", self.maximum_epochs, 0.0, 1e9),
            ("router_bias_update", self.router_bias_update, 0.0, 1.0),
            ("router_z_loss", self.router_z_loss, 0.0, 1.0),
        ] {
            if !(least..=most).contains(&value) {
                let least =
                    if least == f64::MIN_POSITIVE { "above 0".into() } else { format!("from {least}") };
                return fail(format!("{key} = {value}, expected a number {least} to {most}"));
            }
        }
        for (key, value) in [
            ("sequence_length", self.sequence_length as u64),
            ("batch_tokens", self.batch_tokens as u64),
            ("steps", self.steps),
            ("checkpoint_every", self.checkpoint_every),
            ("micro_batch_tokens", self.micro_batch_tokens as u64),
            ("checkpoints_kept", self.checkpoints_kept as u64),
            ("evaluate_bytes", self.evaluate_bytes as u64),
        ] {
            if value == 0 || value > 1 << 40 {
                return fail(format!("{key} = {value}, expected a whole number from 1 on"));
            }
        }
        if self.experts == 1 {
            return fail("experts = 1, expected 0 (a dense model) or at least 2 to choose from".into());
        }
        if self.experts > 1 && !(1..=self.experts).contains(&self.experts_per_token) {
            let (chosen, experts) = (self.experts_per_token, self.experts);
            return fail(format!("experts_per_token = {chosen}, expected from 1 to experts = {experts}"));
        }
        if self.experts > 1 && self.moe_intermediate_size == 0 {
            return fail("moe_intermediate_size = 0, expected the width of an expert".into());
        }
        if self.moments == MomentStorage::Bf16 && self.beta_2 > LARGEST_BETA_2_OF_BF16 {
            return fail(format!(
                "moments = \"bf16\" with beta_2 = {}: what a step adds to the second moment would be lost in the rounding; \
                 expected beta_2 of at most {LARGEST_BETA_2_OF_BF16}, or moments = \"f32\"",
                self.beta_2
            ));
        }
        if self.sequence_length < 2 || !self.batch_tokens.is_multiple_of(self.sequence_length) {
            return fail(format!(
                "batch_tokens = {} is not a multiple of sequence_length = {} (which must be at least 2)",
                self.batch_tokens, self.sequence_length
            ));
        }
        if self.batch_tokens > 1 << 26 {
            return fail(format!("batch_tokens = {}, expected at most {}", self.batch_tokens, 1 << 26));
        }
        if self.sequence_length > self.maximum_positions {
            return fail(format!(
                "sequence_length = {} is longer than maximum_positions = {}; raise maximum_positions or shorten the sequences",
                self.sequence_length, self.maximum_positions
            ));
        }
        let decay = if self.schedule == ScheduleKind::Cosine { 0.0 } else { self.decay_ratio };
        if self.warmup_ratio + decay > 1.0 {
            return fail(format!(
                "warmup_ratio = {} and decay_ratio = {} are more than all steps together",
                self.warmup_ratio, self.decay_ratio
            ));
        }
        for (key, weights) in
            [("language_weights", &self.language_weights), ("source_weights", &self.source_weights)]
        {
            for (name, weight) in weights {
                if !(weight.is_finite() && *weight >= 0.0) {
                    return fail(format!("{key}.{name} = {weight}, expected a number from 0 on"));
                }
            }
            if !weights.is_empty() && weights.values().all(|weight| *weight == 0.0) {
                return fail(format!("{key} are all 0"));
            }
        }
        if self.skip_outliers > 0.0 && self.skip_outliers < 1.0 {
            return fail(format!(
                "skip_outliers = {}, expected 0 (off) or from 1 on: below 1 every ordinary step would be left out",
                self.skip_outliers
            ));
        }
        if self.keep_before_decay && self.schedule().decay_start().is_none() {
            return fail(format!(
                "keep_before_decay = true, but nothing decays at the end: schedule = {}, decay_ratio = {} of {} steps",
                serde_json::json!(self.schedule),
                self.decay_ratio,
                self.steps
            ));
        }
        if self.goldfish_k == 1 || self.goldfish_k > 1 << 32 {
            return fail(format!(
                "goldfish_k = {}, expected 0 (off) or from 2 on: of every k tokens about one is left out",
                self.goldfish_k
            ));
        }
        if !(1..=4096).contains(&self.goldfish_context) {
            return fail(format!("goldfish_context = {}, expected 1 to 4096", self.goldfish_context));
        }
        if self.experts > 0 && self.first_dense_layers >= self.layers {
            return fail(format!(
                "first_dense_layers = {} of {} layers: none would have the {} experts",
                self.first_dense_layers, self.layers, self.experts
            ));
        }
        if self.experts > 0 && self.shared_experts == 0 {
            return fail("shared_experts = 0, expected 1 or more where there are experts".into());
        }
        self.shape(1, None).check().map_err(|error| Error::Settings(error.to_string()))
    }

    /// The model's configuration, once the vocabulary is known.
    pub(crate) fn shape(&self, vocabulary_size: usize, separator: Option<u32>) -> ModelConfig {
        let attention = AttentionSpecification {
            norm: QueryKeyNorm::Head,
            ..AttentionSpecification::plain(self.heads, self.kv_heads, self.head_dim, self.rope_theta)
        };
        let dense = FeedForwardSpecification::dense(self.intermediate_size);
        let dense_layers = if self.experts == 0 { self.layers } else { self.first_dense_layers };
        let layers = (0..self.layers.min(4097)).map(|layer| LayerSpecification {
            attention,
            feed_forward: if layer < dense_layers { dense } else { self.mixture() },
            norms: NormPlacement::Before,
        });
        ModelConfig {
            architecture: if self.experts == 0 { Architecture::Qwen3 } else { Architecture::Dots1 },
            vocabulary_size,
            hidden_size: self.hidden_size,
            layers: layers.collect(),
            norm_epsilon: 1e-6,
            tie_embeddings: self.tie_embeddings,
            embedding_scale: None,
            logit_soft_cap: None,
            maximum_positions: self.maximum_positions,
            begin_of_text: separator,
            end_of_text: separator,
            end_tokens: separator.into_iter().collect(),
            padding: None,
        }
    }

    /// Decay of the weight average after a step, counted from 0. It rises to what is set, so that the first weights, which
    /// are chance, are soon forgotten.
    pub(crate) fn average_decay(&self, step: u64) -> Option<f64> {
        let rising = (step + 1) as f64 / (step + 10) as f64;
        (self.weight_average_decay > 0.0).then(|| self.weight_average_decay.min(rising))
    }

    pub(crate) fn routers(&self) -> RouterTraining {
        RouterTraining { z_loss: self.router_z_loss, bias_update: self.router_bias_update }
    }

    fn mixture(&self) -> FeedForwardSpecification {
        let mixture = MixtureSpecification {
            experts: self.experts,
            experts_per_token: self.experts_per_token,
            intermediate_size: self.moe_intermediate_size,
            scoring: Scoring::Sigmoid,
            groups: 1,
            active_groups: 1,
            normalise: true,
            // k equal weights of 1/k make a sum as large as one expert (DeepSeek-V3's 2.5 for k = 8, Moonlight's 2.446 for 6).
            scale: (self.experts_per_token as f64).sqrt(),
        };
        let shared = self.shared_experts.saturating_mul(self.moe_intermediate_size);
        FeedForwardSpecification { mixture: Some(mixture), ..FeedForwardSpecification::dense(shared) }
    }

    pub(crate) fn schedule(&self) -> Schedule {
        Schedule {
            kind: self.schedule,
            steps: self.steps,
            warmup_steps: share_of(self.steps, self.warmup_ratio),
            decay_steps: share_of(self.steps, self.decay_ratio),
            decay_shape: self.decay_shape,
            learning_rate: self.learning_rate,
            minimum_learning_rate: self.minimum_learning_rate,
        }
    }

    /// Sequences of a step.
    pub(crate) fn sequences(&self) -> usize {
        self.batch_tokens / self.sequence_length
    }

    /// Tokens of a micro-batch.
    pub(crate) fn micro_tokens(&self) -> usize {
        self.micro_sequences() * self.sequence_length
    }

    /// Sequences of a micro-batch.
    pub(crate) fn micro_sequences(&self) -> usize {
        (self.micro_batch_tokens / self.sequence_length).clamp(1, self.sequences())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_can_be_trained_with() {
        Settings::default().check().unwrap();
    }

    #[test]
    fn settings_that_cannot_be_trained_with_are_refused_by_name() {
        let refuse = |change: &dyn Fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        for (problem, expected) in [
            (refuse(&|s| s.learning_rate = 0.0), "learning_rate = 0"),
            (refuse(&|s| s.learning_rate = f64::NAN), "learning_rate = NaN"),
            (refuse(&|s| s.minimum_learning_rate = 1.0), "minimum_learning_rate = 1"),
            (refuse(&|s| s.heads = 3), "3 attention heads"),
            (refuse(&|s| s.head_dim = 31), "head_dim is 31"),
            (refuse(&|s| s.hidden_size = 0), "hidden_size is 0"),
            (refuse(&|s| s.layers = 0), "0 layers"),
            (refuse(&|s| s.batch_tokens = 1000), "batch_tokens = 1000"),
            (refuse(&|s| s.sequence_length = 4096), "maximum_positions = 2048"),
            (refuse(&|s| s.dropout = 1.0), "dropout = 1"),
            (refuse(&|s| (s.experts, s.experts_per_token) = (8, 9)), "experts_per_token = 9"),
            (refuse(&|s| (s.experts, s.shared_experts) = (8, 0)), "shared_experts = 0"),
            (refuse(&|s| (s.experts, s.first_dense_layers) = (8, 4)), "first_dense_layers = 4 of 4 layers"),
            (refuse(&|s| (s.experts, s.moe_intermediate_size) = (8, 0)), "moe_intermediate_size = 0"),
            (refuse(&|s| s.experts = 1), "experts = 1"),
            (refuse(&|s| s.router_bias_update = -1.0), "router_bias_update = -1"),
            (refuse(&|s| s.steps = 0), "steps = 0"),
            (refuse(&|s| s.decay_ratio = 0.99), "decay_ratio = 0.99"),
            (refuse(&|s| s.micro_batch_tokens = 0), "micro_batch_tokens = 0"),
            (
                refuse(&|s| s.language_weights = BTreeMap::from([("mt".into(), -1.0)])),
                "language_weights.mt = -1",
            ),
            (
                refuse(&|s| s.source_weights = BTreeMap::from([("web".into(), 0.0)])),
                "source_weights are all 0",
            ),
            (refuse(&|s| s.skip_outliers = 0.5), "skip_outliers = 0.5"),
            (refuse(&|s| s.skip_outliers = f64::INFINITY), "skip_outliers = inf"),
            (refuse(&|s| s.weight_average_decay = 1.0), "weight_average_decay = 1"),
            (refuse(&|s| s.maximum_epochs = f64::NAN), "maximum_epochs = NaN"),
            (refuse(&|s| s.maximum_epochs = -1.0), "maximum_epochs = -1"),
            (refuse(&|s| s.checkpoints_kept = 0), "checkpoints_kept = 0"),
            (
                refuse(&|s| (s.moments, s.beta_2) = (MomentStorage::Bf16, 0.999)),
                "moments = \"bf16\" with beta_2 = 0.999",
            ),
            (refuse(&|s| s.evaluate_bytes = 0), "evaluate_bytes = 0"),
            (
                refuse(&|s| {
                    s.keep_before_decay = true;
                    s.schedule = ScheduleKind::Cosine;
                }),
                "schedule = \"cosine\"",
            ),
            (refuse(&|s| s.goldfish_k = 1), "goldfish_k = 1"),
            (refuse(&|s| s.goldfish_context = 0), "goldfish_context = 0"),
        ] {
            assert!(problem.contains(expected), "{expected}: {problem}");
        }
    }
}
