//! Whether the sizes of a configuration make a decoder, and one that can be trained.

use super::families::Architecture;
use super::{
    Activation, AttentionSpecification, FeedForwardSpecification, LayerSpecification, MixtureSpecification,
    ModelConfig, NormPlacement, QueryKeyNorm, RotaryScaling,
};
use super::{LARGEST_PARAMETERS, LARGEST_SIZE, MOST_EXPERTS, MOST_EXPERTS_IN_ALL};
use crate::ModelError;
use compute::routing::Scoring;

impl ModelConfig {
    /// Whether the sizes make a decoder.
    ///
    /// # Errors
    /// Says which sizes do not fit together.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |problem: String| Err(ModelError::Shape(problem));
        let sizes = [
            ("vocab_size", self.vocabulary_size),
            ("hidden_size", self.hidden_size),
            ("max_position_embeddings", self.maximum_positions),
        ];
        for (name, size) in sizes {
            if size == 0 || size > LARGEST_SIZE {
                return fail(format!("{name} is {size}, expected 1 to {LARGEST_SIZE}"));
            }
        }
        if self.layers.is_empty() || self.layers.len() > 4096 {
            return fail(format!("{} layers, expected 1 to 4096", self.layers.len()));
        }
        if !(self.norm_epsilon.is_finite() && self.norm_epsilon > 0.0) {
            return fail(format!("rms_norm_eps is {}, expected a small positive number", self.norm_epsilon));
        }
        self.check_family_of_mixtures().map_err(ModelError::Shape)?;
        for layer in &self.layers {
            check_attention(&layer.attention).map_err(ModelError::Shape)?;
            let FeedForwardSpecification { intermediate_size: width, mixture, .. } = layer.feed_forward;
            let without = mixture.is_some() && !self.architecture.has_shared_experts();
            if (width == 0) != without || width > LARGEST_SIZE {
                return fail(format!("intermediate_size is {width}, expected 1 to {LARGEST_SIZE}"));
            }
            if let Some(mixture) = mixture {
                check_mixture(width, &mixture).map_err(ModelError::Shape)?;
            }
        }
        for (name, value) in
            [("embedding scale", self.embedding_scale), ("final_logit_softcapping", self.logit_soft_cap)]
        {
            check_positive(name, value).map_err(ModelError::Shape)?;
        }
        let experts: usize =
            self.layers.iter().filter_map(|layer| layer.feed_forward.mixture).map(|m| m.experts).sum();
        if experts > MOST_EXPERTS_IN_ALL {
            return fail(format!("{experts} experts in all layers, expected at most {MOST_EXPERTS_IN_ALL}"));
        }
        if self.parameter_bound() > LARGEST_PARAMETERS {
            return fail("the sizes multiply to more parameters than any model has".into());
        }
        Ok(())
    }

    /// The family's configuration has to be able to say which layers have which experts.
    fn check_family_of_mixtures(&self) -> Result<(), String> {
        let mixtures = || self.layers.iter().map(|layer| layer.feed_forward.mixture);
        let class = self.architecture.class();
        let scoring = match self.architecture {
            Architecture::Dots1 | Architecture::DeepseekV3 => Scoring::Sigmoid,
            Architecture::Mixtral | Architecture::Qwen3Moe => Scoring::Softmax,
            _ => {
                return match mixtures().position(|mixture| mixture.is_some()) {
                    Some(layer) => Err(format!("layer {layer} has experts, which {class} does not have")),
                    None => Ok(()),
                };
            }
        };
        let dense = mixtures().take_while(|mixture| mixture.is_none()).count();
        let Some(first) = self.layers.get(dense) else {
            return Err(format!("no layer has experts; expected some in {class}"));
        };
        let routed = |layer: &&LayerSpecification| {
            self.architecture != Architecture::Qwen3Moe || layer.feed_forward.mixture.is_some()
        };
        if let Some(other) =
            self.layers[dense..].iter().filter(routed).find(|layer| layer.feed_forward != first.feed_forward)
        {
            return Err(format!(
                "{class} has the same experts in every layer after the dense ones; found {:?} and {:?}",
                first.feed_forward, other.feed_forward
            ));
        }
        match first.feed_forward.mixture.map(|mixture| mixture.scoring) {
            Some(found) if found != scoring => Err(match scoring {
                Scoring::Sigmoid => format!("{class} scores experts with a sigmoid; found a softmax"),
                Scoring::Softmax => format!("{class} scores experts with a softmax; found a sigmoid"),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the training pass computes this model.
    ///
    /// # Errors
    /// Names what it does not compute.
    pub fn check_trainable(&self) -> Result<(), ModelError> {
        let class = self.architecture.class();
        let problem = self.layers.iter().enumerate().find_map(|(index, layer)| {
            let LayerSpecification { attention, feed_forward, norms } = layer;
            let what = [
                (attention.latent.is_some(), "latent attention"),
                (attention.window.is_some(), "a sliding window"),
                (attention.rotary.is_none(), "no rotary embedding"),
                (
                    attention.rotary.is_some_and(|rotary| rotary.scaling != RotaryScaling::None),
                    "a scaled rotary embedding",
                ),
                (attention.norm == QueryKeyNorm::Projection, "norms over whole queries and keys"),
                (attention.output_bias, "a bias on its attention's output"),
                (attention.scale.is_some(), "a scale of its own for scores"),
                (attention.soft_cap.is_some(), "capped scores"),
                (attention.temperature.is_some(), "queries that grow with their position"),
                (feed_forward.activation != Activation::Silu, "another activation than SwiGLU"),
                (feed_forward.bias, "biases in its feed-forward part"),
                (
                    feed_forward.mixture.is_some_and(|mixture| mixture.scoring != Scoring::Sigmoid),
                    "experts that are scored by a softmax",
                ),
                (*norms != NormPlacement::Before, "norms behind its parts"),
            ];
            what.into_iter().find(|(there, _)| *there).map(|(_, what)| format!("layer {index} has {what}"))
        });
        let problem = problem.or_else(|| {
            let scaled = self.embedding_scale.is_some() || self.logit_soft_cap.is_some();
            scaled.then(|| "its embedding is scaled, or its logits are capped".to_string())
        });
        match problem {
            Some(problem) => Err(ModelError::Shape(format!(
                "{class} opens for inference, but training does not compute it: {problem}"
            ))),
            None => Ok(()),
        }
    }

    /// An upper bound of the number of parameters that cannot overflow.
    fn parameter_bound(&self) -> u128 {
        let hidden = self.hidden_size as u128;
        let layers: u128 = self
            .layers
            .iter()
            .map(|layer| {
                let AttentionSpecification { heads, kv_heads, head_dim, latent, .. } = layer.attention;
                let FeedForwardSpecification { intermediate_size, mixture, .. } = layer.feed_forward;
                let latent = latent.map_or(0, |latent| {
                    let ranks = latent.query_rank.unwrap_or(0) + latent.rank + latent.rotary_dim;
                    (ranks as u128) * (1 + 3 * heads as u128) + heads as u128 * latent.value_dim as u128
                });
                let routed = mixture.map_or(0, |mixture| {
                    mixture.experts as u128 * (3 * mixture.intermediate_size as u128 + 1)
                });
                (hidden + 1)
                    * ((2 * heads + 2 * kv_heads) as u128 * head_dim as u128
                        + 3 * intermediate_size as u128
                        + routed
                        + latent
                        + 8)
            })
            .sum();
        layers + 2 * (hidden + 1) * self.vocabulary_size as u128
    }
}

fn check_attention(attention: &AttentionSpecification) -> Result<(), String> {
    let AttentionSpecification { heads, kv_heads, head_dim, rotary, .. } = *attention;
    if heads == 0 || kv_heads == 0 || heads > 65_536 || heads % kv_heads != 0 {
        return Err(format!(
            "{heads} attention heads cannot share {kv_heads} key-value heads: the first must be a multiple of the second"
        ));
    }
    if head_dim == 0 || head_dim % 2 != 0 || head_dim > 1024 {
        return Err(format!(
            "head_dim is {head_dim}, expected an even number from 2 to 1024 (rotary embedding turns pairs)"
        ));
    }
    if let Some(rotary) = rotary {
        rotary.check()?;
    }
    if attention.window == Some(0) {
        return Err("sliding_window is 0, expected 1 or more".into());
    }
    check_positive("the scale of scores", attention.scale)?;
    check_positive("attn_logit_softcapping", attention.soft_cap)?;
    if let Some(temperature) = attention.temperature {
        check_positive("original_max_position_embeddings", Some(temperature.original))?;
        check_positive("llama_4_scaling_beta", Some(temperature.beta))?;
    }
    let Some(latent) = attention.latent else { return Ok(()) };
    for (key, size) in [
        ("q_lora_rank", latent.query_rank.unwrap_or(1)),
        ("kv_lora_rank", latent.rank),
        ("qk_rope_head_dim", latent.rotary_dim),
        ("v_head_dim", latent.value_dim),
    ] {
        if size == 0 || size > 1 << 16 {
            return Err(format!("{key} is {size}, expected 1 to {}", 1 << 16));
        }
    }
    if latent.rotary_dim % 2 != 0 || latent.rotary_dim >= head_dim {
        return Err(format!(
            "qk_rope_head_dim is {}, expected an even number below the head's {head_dim}",
            latent.rotary_dim
        ));
    }
    Ok(())
}

fn check_positive(name: &str, value: Option<f64>) -> Result<(), String> {
    match value.filter(|value| !(value.is_finite() && *value > 0.0)) {
        Some(value) => Err(format!("{name} is {value}, expected a positive number")),
        None => Ok(()),
    }
}

fn check_mixture(shared: usize, mixture: &MixtureSpecification) -> Result<(), String> {
    let MixtureSpecification { experts, experts_per_token, intermediate_size: width, groups, .. } = *mixture;
    let active = mixture.active_groups;
    if experts == 0 || experts > MOST_EXPERTS {
        return Err(format!("{experts} routed experts, expected 1 to {MOST_EXPERTS}"));
    }
    if width == 0 || width > LARGEST_SIZE {
        return Err(format!("moe_intermediate_size is {width}, expected 1 to {LARGEST_SIZE}"));
    }
    if !shared.is_multiple_of(width) {
        return Err(format!(
            "shared experts of width {shared} in all are not a number of experts of width {width}"
        ));
    }
    // A group's score is the sum of its two best experts.
    if groups == 0 || experts % groups != 0 || experts / groups < 2 {
        return Err(format!("{experts} routed experts do not make {groups} equal groups of two or more"));
    }
    if active == 0 || active > groups {
        return Err(format!("topk_group is {active}, expected 1 to {groups} (n_group)"));
    }
    let reach = experts / groups * active;
    if experts_per_token == 0 || experts_per_token > reach {
        return Err(format!(
            "num_experts_per_tok is {experts_per_token}, expected 1 to {reach} (the experts that a token may choose from)"
        ));
    }
    if !(mixture.scale.is_finite() && mixture.scale > 0.0) {
        return Err(format!("routed_scaling_factor is {}, expected a positive number", mixture.scale));
    }
    Ok(())
}
