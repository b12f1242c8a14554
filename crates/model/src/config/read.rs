//! From the keys of `config.json` to a configuration.

use super::families::Architecture;
use super::keys::Keys;
use super::rotary::{Rotary, RotaryScaling, yarn_magnitude};
use super::text_part::text_part;
use super::{
    Activation, AttentionSpecification, FeedForwardSpecification, LatentAttention, LayerSpecification,
    MixtureSpecification, ModelConfig, NormPlacement, QueryKeyNorm,
};
use compute::routing::Scoring;
use serde_json::{Map, Value, json};

impl ModelConfig {
    /// From the keys of a `config.json`, in the spelling of transformers 4 or 5. Of a model of pictures and text, its text
    /// part.
    ///
    /// # Errors
    /// Names the key that is missing, wrong or not supported.
    pub fn from_keys(keys: &Map<String, Value>) -> Result<ModelConfig, String> {
        let text = text_part(keys)?;
        let mut reader = Keys::new(text.as_ref().unwrap_or(keys));
        let architecture = reader.architecture()?;
        let defaults = architecture.defaults();
        let hidden_size = reader.size("hidden_size")?;
        let layer_count = reader.size("num_hidden_layers")?;
        if layer_count > 4096 {
            return Err(format!("num_hidden_layers is {layer_count}, expected at most 4096"));
        }
        let maximum_positions = reader.size("max_position_embeddings")?;
        let attentions = reader.attentions(architecture, hidden_size, layer_count, maximum_positions)?;
        let feed_forwards = reader.feed_forwards(architecture, layer_count)?;
        let norms = match architecture {
            Architecture::Olmo2 | Architecture::Olmo3 => NormPlacement::After,
            Architecture::Gemma2 | Architecture::Gemma3 => NormPlacement::Around,
            _ => NormPlacement::Before,
        };
        let end_tokens = reader.tokens("eos_token_id")?;
        let gemma = architecture.norms_count_from_one();
        let config = ModelConfig {
            architecture,
            vocabulary_size: reader.size("vocab_size")?,
            hidden_size,
            layers: attentions
                .into_iter()
                .zip(feed_forwards)
                .map(|(attention, feed_forward)| LayerSpecification { attention, feed_forward, norms })
                .collect(),
            norm_epsilon: reader.number("rms_norm_eps")?.unwrap_or(defaults.norm_epsilon),
            tie_embeddings: reader.boolean("tie_word_embeddings")?.unwrap_or(defaults.tie_embeddings),
            embedding_scale: gemma.then(|| (hidden_size as f64).sqrt()),
            logit_soft_cap: match architecture {
                Architecture::Gemma2 | Architecture::Gemma3 => {
                    reader.soft_cap("final_logit_softcapping", architecture, 30.0)?
                }
                _ => None,
            },
            maximum_positions,
            begin_of_text: reader.tokens("bos_token_id")?.first().copied(),
            end_of_text: end_tokens.first().copied(),
            end_tokens,
            padding: reader.tokens("pad_token_id")?.first().copied(),
        };
        if architecture == Architecture::DeepseekV3 {
            // Layers that predict further tokens stand behind the model's own and are not read.
            reader.get("num_nextn_predict_layers");
        }
        reader.nothing_left()?;
        Ok(config)
    }
}

impl Keys<'_> {
    fn attentions(
        &mut self,
        architecture: Architecture,
        hidden_size: usize,
        layers: usize,
        positions: usize,
    ) -> Result<Vec<AttentionSpecification>, String> {
        let heads = self.size("num_attention_heads")?;
        let kv_heads = self.optional_size("num_key_value_heads")?.unwrap_or(heads);
        let (full, sliding, temperature) = self.rotary(architecture, positions)?;
        if architecture == Architecture::DeepseekV3 {
            let attention = self.latent(heads, kv_heads, full)?;
            return Ok(vec![attention; layers]);
        }
        let head_dim = match self.optional_size("head_dim")?.or(architecture.defaults().head_dim) {
            Some(head_dim) => head_dim,
            None if heads == 0 || !hidden_size.is_multiple_of(heads) => {
                return Err(format!(
                    "hidden_size {hidden_size} is not a multiple of {heads} heads, and head_dim is missing"
                ));
            }
            None => hidden_size / heads,
        };
        let output_bias = match architecture.attention_bias_is_a_choice() {
            true => self.boolean("attention_bias")?.unwrap_or(false),
            false => false,
        };
        let gemma = matches!(architecture, Architecture::Gemma2 | Architecture::Gemma3);
        let scale = match gemma {
            true => Some(1.0 / (self.optional_size("query_pre_attn_scalar")?.unwrap_or(256) as f64).sqrt()),
            false => None,
        };
        let soft_cap = match architecture {
            Architecture::Gemma2 => self.soft_cap("attn_logit_softcapping", architecture, 50.0)?,
            Architecture::Gemma3 => {
                // The class has the key and computes nothing with it.
                self.expect("attn_logit_softcapping", &Value::Null)?;
                None
            }
            _ => None,
        };
        if gemma {
            self.expect("use_bidirectional_attention", &json!(false))?;
        }
        if architecture == Architecture::Apertus {
            self.expect("qk_norm", &json!(true))?;
            self.expect("post_norm", &json!(false))?;
        }
        // Of pictures and text it would turn positions in three dimensions.
        self.expect("use_mrope", &json!(false))?;
        let with_rope = match architecture {
            Architecture::SmolLm3 => self.rotary_layers(layers)?,
            _ => vec![true; layers],
        };
        let windows = self.windows(architecture, &with_rope)?;
        let attention = AttentionSpecification {
            bias: output_bias || architecture == Architecture::Qwen2,
            output_bias,
            norm: match architecture {
                Architecture::Qwen3
                | Architecture::Qwen3Moe
                | Architecture::Dots1
                | Architecture::Apertus
                | Architecture::Gemma3 => QueryKeyNorm::Head,
                Architecture::Olmo2 | Architecture::Olmo3 => QueryKeyNorm::Projection,
                _ => QueryKeyNorm::None,
            },
            scale,
            soft_cap,
            temperature,
            ..AttentionSpecification::plain(heads, kv_heads, head_dim, full.theta)
        };
        Ok(windows
            .into_iter()
            .zip(with_rope)
            .map(|(window, with_rope)| AttentionSpecification {
                window,
                rotary: with_rope.then_some(if window.is_some() { sliding } else { full }),
                ..attention
            })
            .collect())
    }

    /// The window of each layer.
    fn windows(
        &mut self,
        architecture: Architecture,
        with_rope: &[bool],
    ) -> Result<Vec<Option<usize>>, String> {
        let layers = with_rope.len();
        let width = self.window(architecture.defaults().window)?;
        let switched_on =
            !architecture.windows_are_a_switch() || self.boolean("use_sliding_window")?.unwrap_or(false);
        if !architecture.windows_are_a_switch() {
            self.expect("use_sliding_window", &json!(false))?;
        }
        let first = |reader: &mut Self, default: usize| -> Result<usize, String> {
            Ok(reader.optional_size("max_window_layers")?.unwrap_or(default))
        };
        let present = switched_on && width.is_some();
        let by_default: Vec<bool> = match architecture {
            Architecture::Llama | Architecture::Apertus | Architecture::Olmo2 | Architecture::DeepseekV3 => {
                vec![false; layers]
            }
            Architecture::Mistral
            | Architecture::Ministral
            | Architecture::Ministral3
            | Architecture::Mixtral
            | Architecture::Qwen3Moe => vec![present; layers],
            Architecture::Qwen2 | Architecture::Qwen3 => {
                let first = first(self, 28)?;
                (0..layers).map(|layer| present && layer >= first).collect()
            }
            Architecture::Dots1 => {
                let first = first(self, 62)?;
                (0..layers).map(|layer| present && layer >= first).collect()
            }
            Architecture::SmolLm3 => with_rope.iter().map(|with_rope| present && !with_rope).collect(),
            Architecture::Olmo3 => (0..layers).map(|layer| (layer + 1) % 4 != 0).collect(),
            Architecture::Gemma2 => (0..layers).map(|layer| (layer + 1) % 2 != 0).collect(),
            Architecture::Gemma3 => {
                let private = self.optional_size("_sliding_window_pattern")?;
                let pattern = self.optional_size("sliding_window_pattern")?.or(private).unwrap_or(6);
                if pattern == 0 {
                    return Err("sliding_window_pattern is 0, expected 1 or more".into());
                }
                (0..layers).map(|layer| (layer + 1) % pattern != 0).collect()
            }
        };
        let kinds = match self.layer_types(layers)? {
            None => by_default,
            // These classes of transformers do not look at the key.
            Some(kinds)
                if matches!(
                    architecture,
                    Architecture::Llama
                        | Architecture::Mistral
                        | Architecture::Ministral3
                        | Architecture::Mixtral
                        | Architecture::Qwen3Moe
                        | Architecture::Apertus
                        | Architecture::Olmo2
                ) && kinds != by_default =>
            {
                return Err(format!(
                    "layer_types says something else than sliding_window; {} has the same window in all layers",
                    architecture.class()
                ));
            }
            Some(kinds) => kinds,
        };
        match kinds.iter().position(|windowed| *windowed) {
            Some(layer) if !present => Err(format!(
                "layer_types gives layer {layer} a window, but sliding_window or use_sliding_window gives it no width"
            )),
            _ => Ok(kinds.into_iter().map(|windowed| width.filter(|_| windowed)).collect()),
        }
    }

    fn latent(
        &mut self,
        heads: usize,
        kv_heads: usize,
        rotary: Rotary,
    ) -> Result<AttentionSpecification, String> {
        if kv_heads != heads {
            return Err(format!(
                "num_key_value_heads is {kv_heads}; with latent attention it is num_attention_heads, {heads}"
            ));
        }
        self.expect("attention_bias", &json!(false))?;
        let rotary_dim = self.size("qk_rope_head_dim")?;
        // transformers 5 writes the rotary part again as head_dim.
        self.expect("head_dim", &json!(rotary_dim))?;
        let plain_dim = self.size("qk_nope_head_dim")?;
        self.expect("qk_head_dim", &json!(plain_dim + rotary_dim))?;
        let head_dim = plain_dim + rotary_dim;
        let (yarn_weight, scale) = match rotary.scaling {
            RotaryScaling::Yarn { factor, .. } => match self.yarn_weight_of_all() {
                0.0 => (0.0, None),
                // The same correction as of cosines and sines, on all elements of a head.
                weight => {
                    let magnitude = yarn_magnitude(factor, weight);
                    (weight, Some(magnitude * magnitude / (head_dim as f64).sqrt()))
                }
            },
            _ => (0.0, None),
        };
        let latent = LatentAttention {
            query_rank: self.optional_size("q_lora_rank")?,
            rank: self.size("kv_lora_rank")?,
            rotary_dim,
            value_dim: self.size("v_head_dim")?,
            interleaved: self.boolean("rope_interleave")?.unwrap_or(true),
            yarn_weight,
        };
        Ok(AttentionSpecification {
            latent: Some(latent),
            rotary: Some(rotary),
            scale,
            ..AttentionSpecification::plain(heads, heads, head_dim, rotary.theta)
        })
    }

    /// `mscale_all_dim`, which DeepSeek-V3 uses a second time, on the scores.
    fn yarn_weight_of_all(&self) -> f64 {
        let inside = |key: &str| self.keys.get(key).and_then(|map| map.get("mscale_all_dim")?.as_f64());
        inside("rope_parameters").or(inside("rope_scaling")).unwrap_or(0.0)
    }

    /// A cap of scores or logits: Gemma 2's where the key is absent, none where it is null.
    fn soft_cap(
        &mut self,
        key: &'static str,
        architecture: Architecture,
        of_gemma_2: f64,
    ) -> Result<Option<f64>, String> {
        let default = (architecture == Architecture::Gemma2).then_some(of_gemma_2);
        match self.keys.contains_key(key) {
            true => self.number(key),
            false => Ok(default),
        }
    }

    fn feed_forwards(
        &mut self,
        architecture: Architecture,
        layers: usize,
    ) -> Result<Vec<FeedForwardSpecification>, String> {
        let activation = architecture.defaults().activation;
        self.expect("hidden_act", &json!(activation))?;
        if matches!(architecture, Architecture::Gemma2 | Architecture::Gemma3) {
            self.expect("hidden_activation", &json!(activation))?;
        }
        let bias = match architecture {
            Architecture::Llama | Architecture::SmolLm3 => self.boolean("mlp_bias")?.unwrap_or(false),
            _ => {
                self.expect("mlp_bias", &json!(false))?;
                false
            }
        };
        let dense = FeedForwardSpecification {
            activation: match architecture {
                Architecture::Gemma2 | Architecture::Gemma3 => Activation::GeluTanh,
                Architecture::Apertus => Activation::Xielu,
                _ => Activation::Silu,
            },
            bias,
            ..FeedForwardSpecification::dense(self.size("intermediate_size")?)
        };
        let mut all = vec![dense; layers];
        match architecture {
            Architecture::Dots1 | Architecture::DeepseekV3 => {
                let (first, mixture) = self.mixture_of_deepseek(architecture, layers)?;
                all[first..].fill(mixture);
            }
            Architecture::Mixtral => {
                let mixture = MixtureSpecification::softmax(
                    self.size("num_local_experts")?,
                    self.optional_size("num_experts_per_tok")?.unwrap_or(2),
                    dense.intermediate_size,
                    true,
                );
                all.fill(FeedForwardSpecification { mixture: Some(mixture), intermediate_size: 0, ..dense });
            }
            Architecture::Qwen3Moe => {
                // transformers 5 writes the second.
                let experts = match self.optional_size("num_experts")? {
                    Some(experts) => experts,
                    None => self.size("num_local_experts")?,
                };
                let mixture = MixtureSpecification::softmax(
                    experts,
                    self.size("num_experts_per_tok")?,
                    self.size("moe_intermediate_size")?,
                    self.boolean("norm_topk_prob")?.unwrap_or(false),
                );
                let routed =
                    FeedForwardSpecification { mixture: Some(mixture), intermediate_size: 0, ..dense };
                let step = self.optional_size("decoder_sparse_step")?.unwrap_or(1);
                if step == 0 {
                    return Err("decoder_sparse_step is 0, expected 1 or more".into());
                }
                let dense_layers = self.layer_numbers("mlp_only_layers", layers)?;
                for (layer, feed_forward) in all.iter_mut().enumerate() {
                    if (layer + 1) % step == 0 && !dense_layers.contains(&layer) {
                        *feed_forward = routed;
                    }
                }
            }
            _ => {}
        }
        Ok(all)
    }

    /// How many layers are dense, and what the others have instead.
    fn mixture_of_deepseek(
        &mut self,
        architecture: Architecture,
        layers: usize,
    ) -> Result<(usize, FeedForwardSpecification), String> {
        // What the two classes take where a key is absent.
        let (first, groups, active_groups, normalise, scale) = match architecture {
            Architecture::DeepseekV3 => (3, 8, 4, true, 2.5),
            _ => (0, 1, 1, false, 1.0),
        };
        let dense = self.optional_size("first_k_dense_replace")?.unwrap_or(first);
        if dense >= layers {
            return Err(format!(
                "first_k_dense_replace is {dense} of {layers} layers: none would have experts"
            ));
        }
        // DeepSeek's further keys, as the published models have them.
        self.expect("moe_layer_freq", &json!(1))?;
        self.expect("topk_method", &json!("noaux_tc"))?;
        match self.get("scoring_func").map(|value| (value.as_str(), value)) {
            None | Some((Some("sigmoid" | "noaux_tc"), _)) => {}
            Some((_, value)) => {
                return Err(format!("scoring_func is {value}; only \"sigmoid\" is supported"));
            }
        }
        let intermediate_size = self.size("moe_intermediate_size")?;
        let shared = self.size("n_shared_experts")?;
        if shared == 0 {
            return Err("n_shared_experts is 0, expected 1 or more".into());
        }
        let mixture = MixtureSpecification {
            experts: self.size("n_routed_experts")?,
            experts_per_token: self.size("num_experts_per_tok")?,
            intermediate_size,
            scoring: Scoring::Sigmoid,
            groups: self.optional_size("n_group")?.unwrap_or(groups),
            active_groups: self.optional_size("topk_group")?.unwrap_or(active_groups),
            normalise: match self.keys.contains_key("norm_topk_prob") {
                true => self.boolean("norm_topk_prob")?.unwrap_or(false),
                false => normalise,
            },
            scale: self.number("routed_scaling_factor")?.unwrap_or(scale),
        };
        // Neither factor exceeds 2^24.
        let feed_forward = FeedForwardSpecification {
            mixture: Some(mixture),
            ..FeedForwardSpecification::dense(shared * intermediate_size)
        };
        Ok((dense, feed_forward))
    }
}
