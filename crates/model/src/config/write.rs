//! From a configuration to the keys of `config.json`.

use super::families::Architecture;
use super::rotary::{Rotary, RotaryScaling};
use super::{AttentionSpecification, LayerSpecification, MixtureSpecification, ModelConfig};
use serde_json::{Value, json};

impl ModelConfig {
    /// `config.json` as transformers writes it.
    pub fn to_json(&self) -> String {
        let first = self.layers[0];
        let mixture = self.layers.iter().find_map(|layer| layer.feed_forward.mixture);
        let (attention, defaults) = (first.attention, self.architecture.defaults());
        let dense = self.layers.iter().find(|layer| layer.feed_forward.mixture.is_none());
        let mut keys = json!({
            "architectures": [defaults.class],
            "attention_dropout": 0.0,
            "bos_token_id": self.begin_of_text,
            "dtype": "float32",
            "eos_token_id": match &self.end_tokens[..] { [] => Value::Null, [one] => json!(one), many => json!(many) },
            "hidden_act": defaults.activation,
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": match (dense, mixture) {
                (Some(dense), _) => dense.feed_forward.intermediate_size,
                // Dots1's dense layers have their own width, even where there are none; Mixtral's is that of its experts.
                (None, Some(mixture)) => first.feed_forward.intermediate_size.max(mixture.intermediate_size),
                (None, None) => 0,
            },
            "max_position_embeddings": self.maximum_positions,
            "model_type": defaults.model_type,
            "num_attention_heads": attention.heads,
            "num_hidden_layers": self.layers.len(),
            "num_key_value_heads": attention.kv_heads,
            "pad_token_id": self.padding,
            "rms_norm_eps": self.norm_epsilon,
            "tie_word_embeddings": self.tie_embeddings,
            "use_cache": true,
            "vocab_size": self.vocabulary_size,
        });
        let map = keys.as_object_mut().expect("an object");
        let mut put = |key: &str, value: Value| drop(map.insert(key.into(), value));
        self.put_rotary(&mut put);
        self.put_windows(&mut put);
        match attention.latent {
            None => put("head_dim", json!(attention.head_dim)),
            Some(latent) => {
                put("kv_lora_rank", json!(latent.rank));
                put("q_lora_rank", json!(latent.query_rank));
                put("qk_nope_head_dim", json!(attention.head_dim - latent.rotary_dim));
                put("qk_rope_head_dim", json!(latent.rotary_dim));
                put("rope_interleave", json!(latent.interleaved));
                put("v_head_dim", json!(latent.value_dim));
            }
        }
        if self.architecture.attention_bias_is_a_choice() {
            put("attention_bias", json!(attention.bias));
        }
        match self.architecture {
            Architecture::Llama | Architecture::SmolLm3 => put("mlp_bias", json!(first.feed_forward.bias)),
            Architecture::Gemma2 | Architecture::Gemma3 => {
                put("hidden_activation", json!(defaults.activation));
                put("attn_logit_softcapping", json!(attention.soft_cap));
                put("final_logit_softcapping", json!(self.logit_soft_cap));
                let scale = attention.scale.unwrap_or(1.0 / 16.0);
                // The published scalars are whole numbers; the scale is their reciprocal root.
                let scalar = (1.0 / (scale * scale)).round();
                put("query_pre_attn_scalar", json!(scalar as u64));
            }
            _ => {}
        }
        if let Some(mixture) = mixture {
            self.put_mixture(mixture, &mut put);
        }
        let sorted: std::collections::BTreeMap<_, _> = map.iter().collect();
        let mut text = serde_json::to_string_pretty(&sorted).expect("plain values");
        text.push('\n');
        text
    }

    /// `generation_config.json` beside it.
    pub fn generation_json(&self) -> String {
        let keys = json!({
            "bos_token_id": self.begin_of_text,
            "eos_token_id": self.end_tokens,
            "pad_token_id": self.padding,
        });
        let mut text = serde_json::to_string_pretty(&keys).expect("plain values");
        text.push('\n');
        text
    }

    /// transformers 5 reads rope_parameters, everything older (and most other programs) rope_theta and rope_scaling.
    fn put_rotary(&self, put: &mut impl FnMut(&str, Value)) {
        let of = |windowed: bool| {
            let mut layers = self.layers.iter().map(|layer| layer.attention);
            let chosen = layers.find(|attention| {
                attention.rotary.is_some()
                    && (!self.architecture.rotary_by_kind() || attention.window.is_some() == windowed)
            });
            chosen.map(|attention| {
                let rotary = attention.rotary.unwrap_or(Rotary::plain(10_000.0));
                (rotary.theta, rotary_keys(rotary, attention))
            })
        };
        let (full, sliding) = (of(false), of(true));
        let default = self.architecture.defaults().rope_theta;
        put("rope_theta", json!(full.as_ref().or(sliding.as_ref()).map_or(default, |(theta, _)| *theta)));
        if !self.architecture.rotary_by_kind() {
            let (theta, keys) = full.unwrap_or_else(|| (default, json!({ "rope_type": "default" })));
            if keys["rope_type"] != "default" {
                put("rope_scaling", keys.clone());
            }
            return put("rope_parameters", with_theta(keys, theta));
        }
        if let Some((_, keys)) = full.as_ref().filter(|(_, keys)| keys["rope_type"] != "default") {
            put("rope_scaling", keys.clone());
        }
        if let Some((theta, _)) = sliding.as_ref().filter(|_| self.architecture == Architecture::Gemma3) {
            put("rope_local_base_freq", json!(theta));
        }
        let kind = |part: Option<(f64, Value)>| part.map(|(theta, keys)| with_theta(keys, theta));
        put("rope_parameters", json!({ "full_attention": kind(full), "sliding_attention": kind(sliding) }));
    }

    fn put_windows(&self, put: &mut impl FnMut(&str, Value)) {
        let layers = self.layers.len();
        let window = self.layers.iter().find_map(|layer| layer.attention.window);
        let kinds: Vec<&str> = self
            .layers
            .iter()
            .map(|layer| match layer.attention.window {
                Some(_) => "sliding_attention",
                None => "full_attention",
            })
            .collect();
        match self.architecture {
            Architecture::Llama | Architecture::Apertus | Architecture::Olmo2 | Architecture::DeepseekV3 => {}
            Architecture::Mistral | Architecture::Mixtral | Architecture::Ministral3 => {
                put("sliding_window", json!(window));
            }
            _ => {
                put("layer_types", json!(kinds));
                put("sliding_window", json!(window));
            }
        }
        match self.architecture {
            Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Dots1 => {
                put("max_window_layers", json!(layers));
            }
            _ => {}
        }
        if self.architecture.windows_are_a_switch() {
            put("use_sliding_window", json!(window.is_some()));
        }
        if self.architecture == Architecture::SmolLm3 {
            let rotary = self.layers.iter().map(|layer| u8::from(layer.attention.rotary.is_some()));
            put("no_rope_layers", json!(rotary.collect::<Vec<u8>>()));
        }
    }

    fn put_mixture(&self, mixture: MixtureSpecification, put: &mut impl FnMut(&str, Value)) {
        let dense = |layer: &LayerSpecification| layer.feed_forward.mixture.is_none();
        put("num_experts_per_tok", json!(mixture.experts_per_token));
        match self.architecture {
            Architecture::Mixtral => put("num_local_experts", json!(mixture.experts)),
            Architecture::Qwen3Moe => {
                let layers = self.layers.iter().enumerate().filter(|(_, layer)| dense(layer));
                put("decoder_sparse_step", json!(1));
                put("mlp_only_layers", json!(layers.map(|(index, _)| index).collect::<Vec<usize>>()));
                put("moe_intermediate_size", json!(mixture.intermediate_size));
                put("norm_topk_prob", json!(mixture.normalise));
                put("num_experts", json!(mixture.experts));
            }
            _ => {
                let first = self.layers.iter().take_while(|layer| dense(layer)).count();
                let shared = self.layers[first].feed_forward.intermediate_size / mixture.intermediate_size;
                put("first_k_dense_replace", json!(first));
                put("moe_intermediate_size", json!(mixture.intermediate_size));
                put("n_group", json!(mixture.groups));
                put("n_routed_experts", json!(mixture.experts));
                put("n_shared_experts", json!(shared));
                put("norm_topk_prob", json!(mixture.normalise));
                put("routed_scaling_factor", json!(mixture.scale));
                put("topk_group", json!(mixture.active_groups));
            }
        }
    }
}

fn with_theta(mut keys: Value, theta: f64) -> Value {
    keys["rope_theta"] = json!(theta);
    keys
}

/// The keys of a scaling, without the base.
fn rotary_keys(rotary: Rotary, attention: AttentionSpecification) -> Value {
    match rotary.scaling {
        RotaryScaling::None => json!({ "rope_type": "default" }),
        RotaryScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RotaryScaling::Llama3 { factor, low, high, original } => json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original as u64,
        }),
        RotaryScaling::Yarn { factor, fast, slow, original, truncate, attention_factor } => {
            let mut keys = json!({
                "rope_type": "yarn",
                "factor": factor,
                "beta_fast": fast,
                "beta_slow": slow,
                "original_max_position_embeddings": original as u64,
                "attention_factor": attention_factor,
            });
            if !truncate {
                keys["truncate"] = json!(false);
            }
            if let Some(temperature) = attention.temperature {
                keys["llama_4_scaling_beta"] = json!(temperature.beta);
            }
            if let Some(latent) = attention.latent.filter(|latent| latent.yarn_weight != 0.0) {
                keys["mscale_all_dim"] = json!(latent.yarn_weight);
            }
            keys
        }
    }
}
