//! What a model is: read from and written to Hugging Face's `config.json`.
//!
//! Every key is either understood or refused by its name: a model that computes something slightly different from its
//! configuration is worse than one that does not load. Facts are held per layer, never as global flags.

use crate::ModelError;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The families that this decoder follows so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// RMSNorm, RoPE, grouped queries, SwiGLU, no biases.
    Llama,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with an RMS norm on each head of queries and keys: the shape of our own models.
    Qwen3,
}

impl Architecture {
    const ALL: [Architecture; 3] = [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3];

    fn class(self) -> &'static str {
        match self {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
            Architecture::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
        }
    }
}

/// How one layer attends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionSpecification {
    /// Heads of queries; a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Elements of a head; even.
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    pub rotary_theta: f64,
    /// RMS norm on each head of queries and keys.
    pub head_norm: bool,
    /// Biases on queries, keys and values.
    pub bias: bool,
}

/// The gated feed-forward part of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedForwardSpecification {
    /// Width between gate and down projection.
    pub intermediate_size: usize,
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerSpecification {
    /// Attention.
    pub attention: AttentionSpecification,
    /// Feed-forward.
    pub feed_forward: FeedForwardSpecification,
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

/// Keys without effect on what is computed here.
const INDIFFERENT_KEYS: [&str; 18] = [
    "_name_or_path",
    "attention_dropout",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "initializer_range",
    "label2id",
    "max_window_layers",
    "output_attentions",
    "output_hidden_states",
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    "is_encoder_decoder",
    "add_cross_attention",
];

/// Sizes beyond these are typing errors or attacks, not models.
const LARGEST_SIZE: usize = 1 << 24;
const LARGEST_PARAMETERS: u128 = 1 << 42;

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// Names the file, and the key that is missing, wrong or not supported.
    pub fn load(path: &Path) -> Result<ModelConfig, ModelError> {
        let text = std::fs::read(path).map_err(ModelError::read(path))?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|error| ModelError::config(path, format!("not valid JSON: {error}")))?;
        let Value::Object(keys) = value else {
            return Err(ModelError::config(path, "expected a JSON object"));
        };
        let config = ModelConfig::from_keys(&keys).map_err(|problem| ModelError::config(path, problem))?;
        config.check().map_err(|error| ModelError::config(path, error.to_string()))?;
        Ok(config)
    }

    /// `config.json` as transformers writes it.
    pub fn to_json(&self) -> String {
        let first = self.layers[0];
        let mut keys = json!({
            "architectures": [self.architecture.class()],
            "attention_dropout": 0.0,
            "bos_token_id": self.begin_of_text,
            "dtype": "float32",
            "eos_token_id": match &self.end_tokens[..] { [] => Value::Null, [one] => json!(one), many => json!(many) },
            "head_dim": first.attention.head_dim,
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": first.feed_forward.intermediate_size,
            "max_position_embeddings": self.maximum_positions,
            "model_type": self.architecture.model_type(),
            "num_attention_heads": first.attention.heads,
            "num_hidden_layers": self.layers.len(),
            "num_key_value_heads": first.attention.kv_heads,
            "pad_token_id": self.padding,
            "rms_norm_eps": self.norm_epsilon,
            // transformers 5 reads the second, everything older (and most other programs) the first
            "rope_theta": first.attention.rotary_theta,
            "rope_parameters": { "rope_theta": first.attention.rotary_theta, "rope_type": "default" },
            "tie_word_embeddings": self.tie_embeddings,
            "use_cache": true,
            "vocab_size": self.vocabulary_size,
        });
        let map = keys.as_object_mut().expect("an object");
        if self.architecture != Architecture::Qwen2 {
            map.insert("attention_bias".into(), json!(first.attention.bias));
        }
        match self.architecture {
            Architecture::Llama => drop(map.insert("mlp_bias".into(), json!(false))),
            Architecture::Qwen2 | Architecture::Qwen3 => {
                map.insert("layer_types".into(), json!(vec!["full_attention"; self.layers.len()]));
                map.insert("max_window_layers".into(), json!(self.layers.len()));
                map.insert("sliding_window".into(), Value::Null);
                map.insert("use_sliding_window".into(), json!(false));
            }
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
        for layer in &self.layers {
            let AttentionSpecification { heads, kv_heads, head_dim, rotary_theta, .. } = layer.attention;
            if heads == 0 || kv_heads == 0 || heads > 65_536 || heads % kv_heads != 0 {
                return fail(format!(
                    "{heads} attention heads cannot share {kv_heads} key-value heads: the first must be a multiple of the second"
                ));
            }
            if head_dim == 0 || head_dim % 2 != 0 || head_dim > 1024 {
                return fail(format!(
                    "head_dim is {head_dim}, expected an even number from 2 to 1024 (rotary embedding turns pairs)"
                ));
            }
            if !(rotary_theta.is_finite() && rotary_theta > 1.0) {
                return fail(format!("rope_theta is {rotary_theta}, expected a number above 1"));
            }
            let width = layer.feed_forward.intermediate_size;
            if width == 0 || width > LARGEST_SIZE {
                return fail(format!("intermediate_size is {width}, expected 1 to {LARGEST_SIZE}"));
            }
        }
        if self.parameter_bound() > LARGEST_PARAMETERS {
            return fail("the sizes multiply to more parameters than any model has".into());
        }
        Ok(())
    }

    /// An upper bound of the number of parameters that cannot overflow.
    fn parameter_bound(&self) -> u128 {
        let hidden = self.hidden_size as u128;
        let layers: u128 = self
            .layers
            .iter()
            .map(|layer| {
                let AttentionSpecification { heads, kv_heads, head_dim, .. } = layer.attention;
                (hidden + 1)
                    * ((2 * heads + 2 * kv_heads) as u128 * head_dim as u128
                        + 3 * layer.feed_forward.intermediate_size as u128
                        + 8)
            })
            .sum();
        layers + 2 * (hidden + 1) * self.vocabulary_size as u128
    }

    fn from_keys(keys: &Map<String, Value>) -> Result<ModelConfig, String> {
        let mut reader = Keys { keys, seen: Vec::new() };
        let architecture = reader.architecture()?;
        let hidden_size = reader.size("hidden_size")?;
        let heads = reader.size("num_attention_heads")?;
        let kv_heads = reader.optional_size("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = match reader.optional_size("head_dim")? {
            Some(head_dim) => head_dim,
            None if architecture == Architecture::Qwen3 => 128,
            None if heads == 0 || hidden_size % heads != 0 => {
                return Err(format!(
                    "hidden_size {hidden_size} is not a multiple of {heads} heads, and head_dim is missing"
                ));
            }
            None => hidden_size / heads,
        };
        reader.expect("hidden_act", &json!("silu"))?;
        reader.expect("mlp_bias", &json!(false))?;
        reader.expect("use_sliding_window", &json!(false))?;
        reader.window();
        let layer_count = reader.size("num_hidden_layers")?;
        if layer_count > 4096 {
            return Err(format!("num_hidden_layers is {layer_count}, expected at most 4096"));
        }
        reader.layer_types(layer_count)?;
        let bias = match architecture {
            Architecture::Qwen2 => true,
            // The output projection would have one too, which this decoder does not follow yet.
            Architecture::Llama | Architecture::Qwen3 => {
                reader.expect("attention_bias", &json!(false))?;
                false
            }
        };
        let attention = AttentionSpecification {
            heads,
            kv_heads,
            head_dim,
            rotary_theta: reader.rotary_theta()?,
            head_norm: architecture == Architecture::Qwen3,
            bias,
        };
        let feed_forward = FeedForwardSpecification { intermediate_size: reader.size("intermediate_size")? };
        let end_tokens = reader.tokens("eos_token_id")?;
        let config = ModelConfig {
            architecture,
            vocabulary_size: reader.size("vocab_size")?,
            hidden_size,
            layers: vec![LayerSpecification { attention, feed_forward }; layer_count],
            norm_epsilon: reader.number("rms_norm_eps")?.unwrap_or(1e-6),
            tie_embeddings: reader.boolean("tie_word_embeddings")?.unwrap_or(false),
            maximum_positions: reader.size("max_position_embeddings")?,
            begin_of_text: reader.tokens("bos_token_id")?.first().copied(),
            end_of_text: end_tokens.first().copied(),
            end_tokens,
            padding: reader.tokens("pad_token_id")?.first().copied(),
        };
        reader.nothing_left()?;
        Ok(config)
    }
}

/// The keys of a configuration, and which of them have been understood.
struct Keys<'a> {
    keys: &'a Map<String, Value>,
    seen: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.seen.push(key);
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn architecture(&mut self) -> Result<Architecture, String> {
        let known = Architecture::ALL.map(Architecture::class).join(", ");
        let found = self.get("architectures");
        let model_type = self.get("model_type");
        let class = match found {
            Some(Value::Array(classes)) if classes.len() == 1 => classes[0].as_str(),
            Some(other) => {
                return Err(format!("architectures is {other}, expected a list of one of: {known}"));
            }
            None => None,
        };
        let by_class = Architecture::ALL.into_iter().find(|known| class == Some(known.class()));
        let by_type = Architecture::ALL
            .into_iter()
            .find(|known| class.is_none() && model_type.and_then(Value::as_str) == Some(known.model_type()));
        by_class.or(by_type).ok_or_else(|| {
            let found = class.or(model_type.and_then(Value::as_str)).unwrap_or("missing");
            format!("architecture {found} is not supported; supported are: {known}")
        })
    }

    fn size(&mut self, key: &'static str) -> Result<usize, String> {
        self.optional_size(key)?.ok_or_else(|| format!("key {key} is missing"))
    }

    fn optional_size(&mut self, key: &'static str) -> Result<Option<usize>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size) if size <= LARGEST_SIZE as u64 => Ok(Some(size as usize)),
            _ => Err(format!("{key} is {value}, expected a whole number up to {LARGEST_SIZE}")),
        }
    }

    fn number(&mut self, key: &'static str) -> Result<Option<f64>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| format!("{key} is {value}, expected a number"))
    }

    fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| format!("{key} is {value}, expected true or false"))
    }

    /// A token id, a list of them, or nothing.
    fn tokens(&mut self, key: &'static str) -> Result<Vec<u32>, String> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        list.iter()
            .map(|token| token.as_u64().and_then(|token| u32::try_from(token).ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("{key} is {value}, expected a token id or a list of them"))
    }

    fn expect(&mut self, key: &'static str, expected: &Value) -> Result<(), String> {
        match self.get(key) {
            Some(value) if value != expected => {
                Err(format!("{key} is {value}; only {expected} is supported"))
            }
            _ => Ok(()),
        }
    }

    /// A window's width has no effect where no layer uses it.
    fn window(&mut self) {
        self.get("sliding_window");
    }

    fn layer_types(&mut self, layers: usize) -> Result<(), String> {
        let Some(value) = self.get("layer_types") else { return Ok(()) };
        let full = value
            .as_array()
            .is_some_and(|types| types.len() == layers && types.iter().all(|kind| kind == "full_attention"));
        if full {
            Ok(())
        } else {
            Err(format!(
                "layer_types is {value}; only full_attention for each of the {layers} layers is supported"
            ))
        }
    }

    fn rotary_theta(&mut self) -> Result<f64, String> {
        let top = self.number("rope_theta")?;
        self.expect("rope_scaling", &Value::Null)?;
        let Some(parameters) = self.get("rope_parameters") else { return Ok(top.unwrap_or(10_000.0)) };
        let Some(parameters) = parameters.as_object() else {
            return Err(format!("rope_parameters is {parameters}, expected an object"));
        };
        let mut theta = None;
        for (key, value) in parameters {
            match key.as_str() {
                "rope_theta" => {
                    theta =
                        Some(value.as_f64().ok_or_else(|| {
                            format!("rope_parameters.rope_theta is {value}, expected a number")
                        })?)
                }
                "rope_type" if value == "default" => {}
                _ => {
                    return Err(format!(
                        "rope_parameters.{key} is {value}; only rope_type \"default\" is supported"
                    ));
                }
            }
        }
        match (theta, top) {
            (Some(inner), Some(outer)) if inner != outer => {
                Err(format!("rope_theta is {outer}, but rope_parameters.rope_theta is {inner}"))
            }
            (inner, outer) => Ok(inner.or(outer).unwrap_or(10_000.0)),
        }
    }

    fn nothing_left(&self) -> Result<(), String> {
        let strange = self
            .keys
            .iter()
            .find(|(key, _)| !self.seen.contains(&key.as_str()) && !INDIFFERENT_KEYS.contains(&key.as_str()));
        match strange {
            Some((key, value)) => Err(format!(
                "key {key} = {value} is not understood; a model is not loaded while part of its configuration would be ignored"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(change: impl FnOnce(&mut Map<String, Value>)) -> Result<ModelConfig, String> {
        let mut keys: Map<String, Value> =
            serde_json::from_str(&ModelConfig::tiny_for_tests(64).to_json()).unwrap();
        change(&mut keys);
        let config = ModelConfig::from_keys(&keys)?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(parse(|_| {}), Ok(ModelConfig::tiny_for_tests(64)));
        for architecture in [Architecture::Llama, Architecture::Qwen2] {
            let mut config = ModelConfig::tiny_for_tests(64);
            config.architecture = architecture;
            for layer in &mut config.layers {
                layer.attention.head_norm = false;
                layer.attention.bias = architecture == Architecture::Qwen2;
            }
            let keys: Map<String, Value> = serde_json::from_str(&config.to_json()).unwrap();
            assert_eq!(ModelConfig::from_keys(&keys), Ok(config));
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (key, value) in [
            ("architectures", json!(["MambaForCausalLM"])),
            ("hidden_act", json!("gelu")),
            ("rope_scaling", json!({"type": "yarn"})),
            ("rope_parameters", json!({"rope_type": "llama3", "rope_theta": 5.0})),
            ("use_sliding_window", json!(true)),
            ("attention_bias", json!(true)),
            ("layer_types", json!(["sliding_attention", "full_attention"])),
            ("num_experts", json!(8)),
            ("hidden_size", json!(-4)),
            ("vocab_size", json!("many")),
            ("num_hidden_layers", json!(1u64 << 40)),
            ("eos_token_id", json!(-1)),
        ] {
            let problem = parse(|keys| drop(keys.insert(key.into(), value))).unwrap_err();
            assert!(problem.contains(key.trim_end_matches('s')), "{key}: {problem}");
        }
        let problem = parse(|keys| drop(keys.remove("vocab_size"))).unwrap_err();
        assert!(problem.contains("vocab_size is missing"), "{problem}");
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        for (key, value, expected) in [
            ("num_key_value_heads", 3, "multiple"),
            ("num_attention_heads", 0, "heads"),
            ("head_dim", 7, "even"),
            ("vocab_size", 0, "vocab_size"),
            ("num_hidden_layers", 0, "layers"),
        ] {
            let problem = parse(|keys| {
                keys.insert(key.into(), json!(value));
                keys.remove("layer_types");
            });
            assert!(problem.as_ref().is_err_and(|problem| problem.contains(expected)), "{key}: {problem:?}");
        }
    }
}
