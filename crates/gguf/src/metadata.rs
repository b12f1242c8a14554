//! Hugging Face's `config.json` as a file's metadata: the way back from `config`.

use crate::families::{Family, Llama3Scaling};
use crate::value::{Array, Value as Entry};
use crate::vocabulary::token_ids;
use serde_json::{Map, Value};

/// What a configuration says, in GGUF's terms.
pub(crate) struct Described {
    pub family: Family,
    /// Keys without the architecture's prefix.
    pub keys: Vec<(&'static str, Entry)>,
    pub llama3: Option<(f64, usize, Llama3Scaling)>,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    /// How often each head of keys and values is written.
    pub repeat: usize,
    pub experts: usize,
    /// Whether the output projection is the embedding table.
    pub tied: bool,
    pub ends: Vec<u64>,
}

/// # Errors
/// Names the key that is missing, or says what cannot be written.
pub(crate) fn describe(config: &Map<String, Value>) -> Result<Described, String> {
    let source = Source(config);
    let class = config.get("architectures").and_then(|classes| classes[0].as_str());
    let family = Family::of_class(class.ok_or("config.json names no architecture")?)?;
    let hidden = source.size("hidden_size")?;
    let heads = source.size("num_attention_heads")?;
    let kv_heads = source.optional("num_key_value_heads")?.unwrap_or(heads);
    let layers = source.size("num_hidden_layers")?;
    if heads == 0 || kv_heads == 0 || layers == 0 {
        return Err("config.json has no heads or no layers".into());
    }
    let head_dim = match (source.optional("head_dim")?, family) {
        (Some(head_dim), _) => head_dim,
        (None, Family::Qwen3) => 128,
        (None, Family::Gemma2 | Family::Gemma3) => 256,
        (None, _) => hidden / heads,
    };
    let mut keys = Vec::new();
    let mut set = |key: &'static str, value: Entry| keys.push((key, value));
    let size = |value: u64| Entry::U32(u32::try_from(value).unwrap_or(u32::MAX));
    let number = |value: f64| Entry::F32(value as f32);
    set("block_count", size(layers));
    set("context_length", size(source.size("max_position_embeddings")?));
    set("embedding_length", size(hidden));
    set("vocab_size", size(source.size("vocab_size")?));
    set("attention.head_count", size(heads));
    let repeat = if family.repeats_heads() { heads / kv_heads } else { 1 };
    set("attention.head_count_kv", size(kv_heads * repeat));
    set("attention.key_length", size(head_dim));
    set("attention.value_length", size(head_dim));
    set("attention.layer_norm_rms_epsilon", number(source.number("rms_norm_eps")?.unwrap_or(1e-6)));
    set("rope.dimension_count", size(head_dim));
    let experts = ["num_local_experts", "num_experts", "n_routed_experts"]
        .iter()
        .find_map(|key| source.optional(key).ok().flatten())
        .filter(|_| !family.expert_names().is_empty())
        .unwrap_or(0);
    set("feed_forward_length", size(source.size("intermediate_size")?));
    if experts > 0 {
        set("expert_count", size(experts));
        set("expert_used_count", size(source.size("num_experts_per_tok")?));
    }
    match family {
        Family::Qwen3Moe => set("expert_feed_forward_length", size(source.size("moe_intermediate_size")?)),
        Family::Dots1 => {
            // llama.cpp chooses among all experts of this family.
            if source.optional("n_group")?.unwrap_or(1) > 1 {
                return Err(
                    "n_group is above 1: llama.cpp does not follow groups of experts in this family".into()
                );
            }
            set("expert_feed_forward_length", size(source.size("moe_intermediate_size")?));
            set("expert_shared_count", size(source.size("n_shared_experts")?));
            set("leading_dense_block_count", size(source.optional("first_k_dense_replace")?.unwrap_or(0)));
            set("expert_weights_scale", number(source.number("routed_scaling_factor")?.unwrap_or(1.0)));
            set("expert_weights_norm", Entry::Bool(config.get("norm_topk_prob") == Some(&Value::Bool(true))));
            set("expert_gating_func", Entry::U32(2));
        }
        Family::Gemma2 => {
            set("attention.sliding_window", size(source.optional("sliding_window")?.unwrap_or(4096)));
            set("attn_logit_softcapping", number(source.number("attn_logit_softcapping")?.unwrap_or(50.0)));
            set("final_logit_softcapping", number(source.number("final_logit_softcapping")?.unwrap_or(30.0)));
        }
        Family::Gemma3 | Family::Olmo3 => {
            set("attention.sliding_window", size(source.optional("sliding_window")?.unwrap_or(4096)));
            let types = config.get("layer_types").and_then(Value::as_array);
            let by_type = types.map(|types| types.iter().map(|kind| kind == "sliding_attention").collect());
            let windowed: Option<Vec<bool>> = match source.window_pattern(family)? {
                Some(pattern) if by_type.is_none() => {
                    Some((1..=layers).map(|layer| layer % pattern != 0).collect())
                }
                _ => by_type,
            };
            if let Some(windowed) = windowed {
                set("attention.sliding_window_pattern", Entry::Array(Array::Bool(windowed)));
            }
            if let Some(cap) = source.number("final_logit_softcapping")? {
                set("final_logit_softcapping", number(cap));
            }
        }
        _ => {}
    }
    let rotary = source.rotary(family)?;
    set("rope.freq_base", number(rotary.theta));
    if let Some(local) = rotary.local_theta {
        set("rope.freq_base_swa", number(local));
    }
    let mut llama3 = None;
    let parameters = Source(&rotary.parameters);
    rotary.check()?;
    source.check_llama_cpp(family, &rotary)?;
    match rotary.kind.as_str() {
        "default" => {}
        "linear" => {
            set("rope.scaling.type", Entry::String("linear".into()));
            set("rope.scaling.factor", number(parameters.need("factor")?));
        }
        "yarn" => {
            set("rope.scaling.type", Entry::String("yarn".into()));
            set("rope.scaling.factor", number(parameters.need("factor")?));
            let original = parameters.size("original_max_position_embeddings")?;
            set("rope.scaling.original_context_length", size(original));
            for (key, name) in [
                ("rope.scaling.yarn_beta_fast", "beta_fast"),
                ("rope.scaling.yarn_beta_slow", "beta_slow"),
                ("rope.scaling.yarn_log_multiplier", "mscale_all_dim"),
                ("attention.temperature_scale", "llama_4_scaling_beta"),
            ] {
                if let Some(value) = parameters.number(name)? {
                    set(key, number(value));
                }
            }
        }
        "llama3" => {
            let scaling = Llama3Scaling {
                factor: parameters.need("factor")?,
                low: parameters.need("low_freq_factor")?,
                high: parameters.need("high_freq_factor")?,
                original: parameters.need("original_max_position_embeddings")?,
            };
            llama3 = Some((rotary.theta, head_dim as usize, scaling));
        }
        other => return Err(format!("rope_type is {other:?}, which cannot be written")),
    }
    Ok(Described {
        family,
        keys,
        llama3,
        layers: layers as usize,
        heads: heads as usize,
        kv_heads: kv_heads as usize,
        repeat: repeat as usize,
        experts: experts as usize,
        tied: config.get("tie_word_embeddings") == Some(&Value::Bool(true)),
        ends: token_ids(config, "eos_token_id"),
    })
}

/// Rotary settings in the form of transformers 5.
struct Rotary {
    theta: f64,
    local_theta: Option<f64>,
    kind: String,
    /// Of layers with a window.
    local_kind: String,
    parameters: Map<String, Value>,
}

impl Rotary {
    /// Refuses what the file cannot say: llama.cpp would compute something else.
    fn check(&self) -> Result<(), String> {
        let known: &[&str] = match self.kind.as_str() {
            "linear" => &["factor"],
            "llama3" => {
                &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"]
            }
            "yarn" => &[
                "factor",
                "original_max_position_embeddings",
                "max_position_embeddings",
                "beta_fast",
                "beta_slow",
                "mscale_all_dim",
                "llama_4_scaling_beta",
            ],
            _ => &[],
        };
        let factor = self.parameters.get("factor").and_then(Value::as_f64).unwrap_or(1.0);
        for (key, value) in self.parameters.iter().filter(|(_, value)| !value.is_null()) {
            let taken_for_granted = match key.as_str() {
                "rope_theta" | "rope_type" | "type" => true,
                "truncate" => value == true,
                "partial_rotary_factor" | "mscale" => value.as_f64() == Some(1.0),
                "attention_factor" => {
                    value.as_f64().is_some_and(|value| (value - (0.1 * factor.ln() + 1.0)).abs() < 1e-6)
                }
                key => known.contains(&key),
            };
            if !taken_for_granted {
                return Err(format!(
                    "rope_parameters.{key} is {value}, which readers of the file would not follow"
                ));
            }
        }
        match self.local_kind.as_str() {
            "default" => Ok(()),
            other => {
                Err(format!("the rope_type of layers with a window is {other:?}, which cannot be written"))
            }
        }
    }
}

struct Source<'a>(&'a Map<String, Value>);

impl Source<'_> {
    fn size(&self, key: &str) -> Result<u64, String> {
        self.optional(key)?.ok_or_else(|| format!("key {key} is missing"))
    }

    fn optional(&self, key: &str) -> Result<Option<u64>, String> {
        match self.0.get(key).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => match value.as_u64().filter(|size| u32::try_from(*size).is_ok()) {
                Some(size) => Ok(Some(size)),
                None => Err(format!("{key} is {value}, expected a whole number")),
            },
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, String> {
        match self.0.get(key).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => {
                value.as_f64().map(Some).ok_or_else(|| format!("{key} is {value}, expected a number"))
            }
        }
    }

    fn need(&self, key: &str) -> Result<f64, String> {
        self.number(key)?.ok_or_else(|| format!("key {key} is missing"))
    }

    /// Every which layer of Gemma 3 has no window, where the configuration says it by a number.
    fn window_pattern(&self, family: Family) -> Result<Option<u64>, String> {
        let pattern = match self.optional("sliding_window_pattern")? {
            None => self.optional("_sliding_window_pattern")?,
            pattern => pattern,
        };
        match pattern {
            Some(0) => Err("sliding_window_pattern is 0, expected 1 or more".into()),
            pattern => Ok(pattern.filter(|_| family == Family::Gemma3)),
        }
    }

    /// Refuses what llama.cpp's code of the family has no place for: it would not open the file, or compute something else.
    fn check_llama_cpp(&self, family: Family, rotary: &Rotary) -> Result<(), String> {
        let class = family.class();
        let is_true = |key: &str| self.0.get(key) == Some(&Value::Bool(true));
        if is_true("attention_bias") && !family.loads_output_bias() {
            return Err(format!(
                "attention_bias is true: llama.cpp knows no bias on the attention's output in {class}"
            ));
        }
        if is_true("mlp_bias") && !family.loads_feed_forward_biases() {
            return Err(format!(
                "mlp_bias is true: llama.cpp knows no biases in the feed-forward part of {class}"
            ));
        }
        if rotary.kind == "llama3" && !family.loads_rotary_factors() {
            return Err(format!("rope_type is llama3: llama.cpp does not know it in {class}"));
        }
        let parameters = Source(&rotary.parameters);
        for (key, usual) in [("beta_fast", 32.0), ("beta_slow", 1.0)] {
            let bound = parameters.number(key)?.unwrap_or(usual);
            if rotary.kind == "yarn" && bound != usual && !family.follows_yarn_bounds() {
                return Err(format!(
                    "rope_parameters.{key} is {bound}: llama.cpp takes it for {usual} in {class}"
                ));
            }
        }
        if family == Family::Olmo3 && rotary.local_theta != Some(rotary.theta) {
            return Err("rope_theta of layers with a window is another: llama.cpp has one for all in Olmo3ForCausalLM".into());
        }
        if family == Family::Gemma2 {
            // Absent, they are the class's.
            for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
                if self.0.get(key).is_some_and(Value::is_null) {
                    return Err(format!("{key} is null: llama.cpp always caps in {class}"));
                }
            }
            if self.0.get("tie_word_embeddings") == Some(&Value::Bool(false)) {
                return Err(format!(
                    "tie_word_embeddings is false: llama.cpp knows one table only in {class}"
                ));
            }
        }
        Ok(())
    }

    /// Rotary settings from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before).
    fn rotary(&self, family: Family) -> Result<Rotary, String> {
        let object = |key: &str| self.0.get(key).and_then(Value::as_object);
        let named = object("rope_parameters").or_else(|| object("rope_scaling")).cloned().unwrap_or_default();
        let part = |name: &str| named.get(name).and_then(Value::as_object).cloned();
        let parameters = part("full_attention").unwrap_or_else(|| named.clone());
        let local = part("sliding_attention").unwrap_or_default();
        // Published configurations of the other families name it; the first Llamas did not.
        let theta = match (Source(&parameters).number("rope_theta")?, self.number("rope_theta")?) {
            (Some(theta), _) | (None, Some(theta)) => theta,
            (None, None) if family == Family::Llama => 10_000.0,
            (None, None) => return Err("key rope_theta is missing".into()),
        };
        let local_theta = match (Source(&local).number("rope_theta")?, self.number("rope_local_base_freq")?) {
            (Some(theta), _) | (None, Some(theta)) => Some(theta),
            (None, None) if family == Family::Gemma3 => Some(10_000.0),
            (None, None) if family == Family::Olmo3 => Some(theta),
            (None, None) => None,
        };
        let kind = |parameters: &Map<String, Value>| {
            let kind = parameters.get("rope_type").or_else(|| parameters.get("type"));
            kind.and_then(Value::as_str).unwrap_or("default").to_owned()
        };
        Ok(Rotary { theta, local_theta, kind: kind(&parameters), local_kind: kind(&local), parameters })
    }
}
