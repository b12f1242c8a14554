//! What a model is: read from and written to Hugging Face's `config.json`.
//!
//! Every key is either understood or refused by its name: a model that computes something slightly different from its
//! configuration is worse than one that does not load. Facts are held per layer, never as global flags.

use crate::ModelError;
use compute::routing::{Routing, Scoring};
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
    /// Qwen3's attention with DeepSeek-V3's mixture of experts: the shape of our own sparse models.
    Dots1,
}

impl Architecture {
    const ALL: [Architecture; 4] =
        [Architecture::Llama, Architecture::Qwen2, Architecture::Qwen3, Architecture::Dots1];

    fn class(self) -> &'static str {
        match self {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
            Architecture::Qwen3 => "Qwen3ForCausalLM",
            Architecture::Dots1 => "Dots1ForCausalLM",
        }
    }

    fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
            Architecture::Dots1 => "dots1",
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
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeedForwardSpecification {
    /// Width between gate and down projection of what every token passes: the whole of a dense layer, the shared experts
    /// of a mixture.
    pub intermediate_size: usize,
    /// The experts among which each token is sent to a few, where there are any.
    pub mixture: Option<MixtureSpecification>,
}

impl FeedForwardSpecification {
    /// A layer without experts.
    pub fn dense(intermediate_size: usize) -> FeedForwardSpecification {
        FeedForwardSpecification { intermediate_size, mixture: None }
    }

    /// Where the tensors of what every token passes stand in a layer.
    pub(crate) fn block(&self) -> &'static str {
        match self.mixture {
            None => "mlp",
            Some(_) => "mlp.shared_experts",
        }
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
    /// From logits to scores.
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
const MOST_EXPERTS: usize = 1 << 12;
/// In all layers together: each has three tensors with names.
const MOST_EXPERTS_IN_ALL: usize = 1 << 17;

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
        let (first, last) = (self.layers[0], self.layers[self.layers.len() - 1]);
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
            Architecture::Dots1 => {
                let mixture = last.feed_forward.mixture.expect("a checked configuration");
                let dense =
                    self.layers.iter().take_while(|layer| layer.feed_forward.mixture.is_none()).count();
                for (key, value) in [
                    ("first_k_dense_replace", json!(dense)),
                    ("layer_types", json!(vec!["full_attention"; self.layers.len()])),
                    ("max_window_layers", json!(self.layers.len())),
                    ("moe_intermediate_size", json!(mixture.intermediate_size)),
                    ("n_group", json!(mixture.groups)),
                    ("n_routed_experts", json!(mixture.experts)),
                    (
                        "n_shared_experts",
                        json!(last.feed_forward.intermediate_size / mixture.intermediate_size),
                    ),
                    ("norm_topk_prob", json!(mixture.normalise)),
                    ("num_experts_per_tok", json!(mixture.experts_per_token)),
                    ("routed_scaling_factor", json!(mixture.scale)),
                    ("sliding_window", Value::Null),
                    ("topk_group", json!(mixture.active_groups)),
                ] {
                    map.insert(key.into(), value);
                }
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
            if let Some(mixture) = layer.feed_forward.mixture {
                check_mixture(width, &mixture).map_err(ModelError::Shape)?;
            }
        }
        let experts: usize =
            self.layers.iter().filter_map(|layer| layer.feed_forward.mixture).map(|m| m.experts).sum();
        if experts > MOST_EXPERTS_IN_ALL {
            return fail(format!("{experts} experts in all layers, expected at most {MOST_EXPERTS_IN_ALL}"));
        }
        self.check_family_of_mixtures().map_err(ModelError::Shape)?;
        if self.parameter_bound() > LARGEST_PARAMETERS {
            return fail("the sizes multiply to more parameters than any model has".into());
        }
        Ok(())
    }

    /// The family's configuration has to be able to say which layers have which experts.
    fn check_family_of_mixtures(&self) -> Result<(), String> {
        let mixtures = || self.layers.iter().map(|layer| layer.feed_forward.mixture);
        let class = self.architecture.class();
        if self.architecture != Architecture::Dots1 {
            return match mixtures().position(|mixture| mixture.is_some()) {
                Some(layer) => Err(format!("layer {layer} has experts, which {class} does not have")),
                None => Ok(()),
            };
        }
        let dense = mixtures().take_while(|mixture| mixture.is_none()).count();
        let Some(first) = self.layers.get(dense) else {
            return Err(format!("no layer has experts; expected some in {class}"));
        };
        if let Some(other) =
            self.layers[dense..].iter().find(|layer| layer.feed_forward != first.feed_forward)
        {
            return Err(format!(
                "{class} has the same experts in every layer after the dense ones; found {:?} and {:?}",
                first.feed_forward, other.feed_forward
            ));
        }
        if first.feed_forward.mixture.is_some_and(|mixture| mixture.scoring != Scoring::Sigmoid) {
            return Err(format!("{class} scores experts with a sigmoid; found a softmax"));
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
                let FeedForwardSpecification { intermediate_size, mixture } = layer.feed_forward;
                let routed = mixture.map_or(0, |mixture| {
                    mixture.experts as u128 * (3 * mixture.intermediate_size as u128 + 1)
                });
                (hidden + 1)
                    * ((2 * heads + 2 * kv_heads) as u128 * head_dim as u128
                        + 3 * intermediate_size as u128
                        + routed
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
        if architecture == Architecture::Dots1 {
            reader.no_window_by_default(layer_count)?;
        }
        let bias = match architecture {
            Architecture::Qwen2 => true,
            // The output projection would have one too, which this decoder does not follow yet.
            Architecture::Llama | Architecture::Qwen3 | Architecture::Dots1 => {
                reader.expect("attention_bias", &json!(false))?;
                false
            }
        };
        let attention = AttentionSpecification {
            heads,
            kv_heads,
            head_dim,
            rotary_theta: reader.rotary_theta()?,
            head_norm: matches!(architecture, Architecture::Qwen3 | Architecture::Dots1),
            bias,
        };
        let feed_forward = FeedForwardSpecification::dense(reader.size("intermediate_size")?);
        let mut layers = vec![LayerSpecification { attention, feed_forward }; layer_count];
        if architecture == Architecture::Dots1 {
            let (dense, feed_forward) = reader.mixture(layer_count)?;
            layers[dense..].fill(LayerSpecification { attention, feed_forward });
        }
        let end_tokens = reader.tokens("eos_token_id")?;
        let config = ModelConfig {
            architecture,
            vocabulary_size: reader.size("vocab_size")?,
            hidden_size,
            layers,
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

    /// Where Dots1 says nothing of its layers' kinds, those after `max_window_layers` have a window, unless
    /// `sliding_window` is null: transformers' defaults.
    fn no_window_by_default(&mut self, layers: usize) -> Result<(), String> {
        let windowed = self.keys.get("sliding_window").is_none_or(|window| !window.is_null());
        let first = self.optional_size("max_window_layers")?.unwrap_or(62);
        match self.get("layer_types") {
            None if windowed && first < layers => Err(format!(
                "max_window_layers is {first} of {layers} layers: those after it would have a sliding window, which is not supported"
            )),
            _ => Ok(()),
        }
    }

    /// How many layers are dense, and what the others have instead.
    fn mixture(&mut self, layers: usize) -> Result<(usize, FeedForwardSpecification), String> {
        let dense = self.optional_size("first_k_dense_replace")?.unwrap_or(0);
        if dense >= layers {
            return Err(format!(
                "first_k_dense_replace is {dense} of {layers} layers: none would have experts"
            ));
        }
        // DeepSeek's further keys, as the published models of this family have them.
        self.expect("moe_layer_freq", &json!(1))?;
        self.expect("topk_method", &json!("noaux_tc"))?;
        self.expect("output_router_logits", &json!(false))?;
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
            groups: self.optional_size("n_group")?.unwrap_or(1),
            active_groups: self.optional_size("topk_group")?.unwrap_or(1),
            normalise: self.boolean("norm_topk_prob")?.unwrap_or(false),
            scale: self.number("routed_scaling_factor")?.unwrap_or(1.0),
        };
        // Neither factor exceeds 2^24.
        Ok((
            dense,
            FeedForwardSpecification {
                intermediate_size: shared * intermediate_size,
                mixture: Some(mixture),
            },
        ))
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

    fn parse_mixture(change: impl FnOnce(&mut Map<String, Value>)) -> Result<ModelConfig, String> {
        let text = ModelConfig::tiny_mixture_for_tests(64).to_json();
        let mut keys: Map<String, Value> = serde_json::from_str(&text).unwrap();
        change(&mut keys);
        let config = ModelConfig::from_keys(&keys)?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_mixture_reads_back_and_nonsense_is_refused() {
        assert_eq!(parse_mixture(|_| {}), Ok(ModelConfig::tiny_mixture_for_tests(64)));
        for (key, value, expected) in [
            ("n_routed_experts", json!(0), "0 routed experts"),
            ("n_routed_experts", json!(7), "7 routed experts do not make 2"),
            ("n_routed_experts", Value::Null, "n_routed_experts is missing"),
            ("n_routed_experts", json!(1 << 20), "1048576 routed experts"),
            ("n_shared_experts", json!(0), "n_shared_experts is 0"),
            ("n_shared_experts", json!(1 << 23), "intermediate_size"),
            ("num_experts_per_tok", json!(5), "num_experts_per_tok is 5, expected 1 to 4"),
            ("num_experts_per_tok", json!(0), "num_experts_per_tok is 0"),
            ("moe_intermediate_size", json!(0), "intermediate_size is 0"),
            ("n_group", json!(0), "0 equal groups"),
            ("n_group", json!(8), "8 equal groups of two"),
            ("topk_group", json!(3), "topk_group is 3"),
            ("topk_group", json!(0), "topk_group is 0"),
            ("norm_topk_prob", json!("yes"), "norm_topk_prob"),
            ("routed_scaling_factor", json!(-1.0), "routed_scaling_factor"),
            ("first_k_dense_replace", json!(3), "first_k_dense_replace is 3 of 3 layers"),
            ("scoring_func", json!("softmax"), "scoring_func"),
            ("moe_layer_freq", json!(2), "moe_layer_freq"),
            ("attention_bias", json!(true), "attention_bias"),
            ("num_local_experts", json!(8), "num_local_experts"),
        ] {
            let problem = parse_mixture(|keys| drop(keys.insert(key.into(), value.clone())));
            assert!(
                problem.as_ref().is_err_and(|problem| problem.contains(expected)),
                "{key} {value}: {problem:?}"
            );
        }
        // Windows that transformers would put in by itself.
        let problem = parse_mixture(|keys| {
            keys.remove("layer_types");
            keys.remove("sliding_window");
            keys.insert("max_window_layers".into(), json!(2));
        });
        assert!(
            problem.as_ref().is_err_and(|problem| problem.contains("max_window_layers is 2")),
            "{problem:?}"
        );
    }

    #[test]
    fn experts_stand_only_where_the_family_has_them() {
        let refuse = |change: &dyn Fn(&mut ModelConfig)| {
            let mut config = ModelConfig::tiny_mixture_for_tests(64);
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(refuse(&|config| config.architecture = Architecture::Qwen3).contains("layer 1 has experts"));
        assert!(refuse(&|config| config.layers.truncate(1)).contains("no layer has experts"));
        assert!(refuse(&|config| config.layers.swap(0, 1)).contains("same experts in every layer"));
        let softmax = |config: &mut ModelConfig| {
            for mixture in config.layers.iter_mut().filter_map(|layer| layer.feed_forward.mixture.as_mut()) {
                mixture.scoring = Scoring::Softmax;
            }
        };
        assert!(refuse(&softmax).contains("sigmoid"));
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
