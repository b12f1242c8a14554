//! A file's metadata as Hugging Face's `config.json`.
//!
//! Every key of the architecture is understood or refused by its name: a model that computes something slightly different
//! from its file is worse than one that does not load.

use crate::error::GgufError;
use crate::families::{Family, Llama3Scaling, ROTARY_FACTORS, XIELU};
use crate::reader::GgufFile;
use crate::value::{Array, Metadata, Value as Entry};
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Larger sizes are typing errors or attacks, not models.
const LARGEST_SIZE: u64 = 1 << 24;
const MOST_LAYERS: u64 = 4096;
const MOST_EXPERTS: u64 = 4096;
/// Each has three tensors with names of their own.
const MOST_EXPERTS_IN_ALL: u64 = 1 << 17;

/// Beginnings of keys that have no effect on what a model computes.
const INDIFFERENT: [&str; 5] = ["general.", "tokenizer.", "quantize.", "split.", "imatrix."];

/// What a model is, as far as its tensors need to know.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub family: Family,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub experts: usize,
    pub xielu: Vec<Vec<f32>>,
}

/// What a configuration is made from.
pub(crate) struct Facts<'a> {
    pub metadata: &'a Metadata,
    /// Shapes of the tensors, by their names in the file.
    pub tensors: BTreeMap<&'a str, &'a [usize]>,
    /// Llama 3's factors, where the file has them.
    pub rotary_factors: Option<Vec<f32>>,
}

impl Facts<'_> {
    pub fn of(file: &GgufFile) -> Result<Facts<'_>, GgufError> {
        let tensors = file.tensors().iter().map(|(name, tensor)| (&name[..], &tensor.shape[..])).collect();
        Ok(Facts { metadata: file.metadata(), tensors, rotary_factors: rotary_factors(file)? })
    }
}

/// `config.json`, and the shape. The problem of a refusal names the key.
pub(crate) fn config(facts: &Facts) -> Result<(Map<String, Value>, Shape), String> {
    let Facts { metadata, tensors, rotary_factors } = facts;
    let text = |key: &str| metadata.get(key).and_then(Entry::as_str);
    match text("general.type") {
        None | Some("model") => {}
        Some(other) => return Err(format!("general.type is {other:?}, expected \"model\"")),
    }
    let architecture = text("general.architecture").ok_or("key general.architecture is missing")?;
    let mut family = Family::of_architecture(architecture)?;
    let keys = Keys { metadata, architecture, seen: RefCell::default() };

    let experts = keys.optional("expert_count")?.unwrap_or(0);
    if family == Family::Llama && experts > 0 {
        family = Family::Mixtral;
    }
    if family == Family::Olmo2 && keys.optional("attention.sliding_window")?.unwrap_or(0) > 0 {
        family = Family::Olmo3;
    }
    if experts > MOST_EXPERTS {
        return Err(keys.wrong("expert_count", format!("is {experts}, expected at most {MOST_EXPERTS}")));
    }
    let layers = keys.size("block_count")?;
    if layers == 0 || layers > MOST_LAYERS {
        return Err(keys.wrong("block_count", format!("is {layers}, expected 1 to {MOST_LAYERS}")));
    }
    if experts * layers > MOST_EXPERTS_IN_ALL {
        return Err(keys.wrong("expert_count", format!("is {experts} in each of {layers} layers: too many")));
    }
    let hidden = keys.size("embedding_length")?;
    let heads = keys.size("attention.head_count")?;
    let kv_heads = keys.optional("attention.head_count_kv")?.unwrap_or(heads);
    if heads == 0 || kv_heads == 0 || hidden == 0 {
        return Err(format!("{hidden} hidden, {heads} heads and {kv_heads} key-value heads make no model"));
    }
    let head_dim = keys.optional("attention.key_length")?.unwrap_or(hidden / heads);
    if let Some(values) = keys.optional("attention.value_length")?.filter(|values| *values != head_dim) {
        return Err(keys.wrong(
            "attention.value_length",
            format!("is {values}; only the length of keys, {head_dim}, is supported"),
        ));
    }
    if let Some(rotary) = keys.optional("rope.dimension_count")?.filter(|rotary| *rotary != head_dim) {
        return Err(keys.wrong("rope.dimension_count", format!("is {rotary}; only {head_dim} is supported")));
    }
    if keys.get("attention.causal").is_some_and(|value| value.as_bool() != Some(true)) {
        return Err(keys.wrong("attention.causal", "is not true: the model is no decoder".into()));
    }
    let has = |name: &str| tensors.contains_key(name);
    let Some(&&[vocabulary, _]) = tensors.get("token_embd.weight") else {
        return Err("tensor token_embd.weight is missing or no matrix".into());
    };
    if let Some(claimed) = keys.optional("vocab_size")?.filter(|claimed| *claimed != vocabulary as u64) {
        return Err(
            keys.wrong("vocab_size", format!("is {claimed}, but token_embd.weight has {vocabulary} rows"))
        );
    }
    let tokens = Tokens::read(metadata)?;
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| drop(config.insert(key.to_owned(), value));
    set("architectures", json!([family.class()]));
    set("model_type", json!(family.model_type()));
    set("bos_token_id", json!(tokens.begin));
    set("eos_token_id", tokens.end());
    set("pad_token_id", json!(tokens.padding));
    set("head_dim", json!(head_dim));
    set("hidden_size", json!(hidden));
    set("max_position_embeddings", json!(keys.size("context_length")?));
    set("num_attention_heads", json!(heads));
    set("num_hidden_layers", json!(layers));
    set("num_key_value_heads", json!(kv_heads));
    set(
        "rms_norm_eps",
        json!(
            keys.number("attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| { keys.wrong("attention.layer_norm_rms_epsilon", "is missing".into()) })?
        ),
    );
    set("tie_word_embeddings", json!(!has("output.weight")));
    set("vocab_size", json!(vocabulary));
    set("dtype", json!("float32"));
    let intermediate = keys.optional("feed_forward_length")?;
    if let Some(size) = intermediate {
        set("intermediate_size", json!(size));
    } else if family != Family::Qwen3Moe {
        return Err(keys.wrong("feed_forward_length", "is missing".into()));
    }
    let activation = match family {
        Family::Gemma2 | Family::Gemma3 => ("hidden_activation", "gelu_pytorch_tanh"),
        Family::Apertus => ("hidden_act", "xielu"),
        _ => ("hidden_act", "silu"),
    };
    set(activation.0, json!(activation.1));

    let theta = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
    let rotary = keys.rotary(theta, head_dim as usize, rotary_factors.as_deref())?;
    if !matches!(family, Family::Gemma3 | Family::Olmo3) {
        set("rope_theta", json!(theta));
        set("rope_parameters", rotary.clone());
    }
    let full = || vec!["full_attention"; layers as usize];
    match family {
        Family::Llama | Family::SmolLm3 => {
            set("attention_bias", json!(has("blk.0.attn_q.bias")));
            set("mlp_bias", json!(has("blk.0.ffn_up.bias")));
        }
        Family::Apertus | Family::Olmo2 | Family::Olmo3 | Family::Gemma2 | Family::Gemma3 => {
            set("attention_bias", json!(has("blk.0.attn_q.bias")));
        }
        Family::Qwen3 | Family::Qwen3Moe | Family::Dots1 => set("attention_bias", json!(false)),
        Family::Mixtral | Family::Ministral3 | Family::Qwen2 => {}
    }
    match family {
        Family::Qwen2 | Family::Qwen3 => {
            set("layer_types", json!(full()));
            set("max_window_layers", json!(layers));
            set("sliding_window", Value::Null);
            set("use_sliding_window", json!(false));
        }
        Family::Mixtral | Family::Ministral3 => set("sliding_window", Value::Null),
        Family::SmolLm3 => {
            let rotates: Vec<u8> = (0..layers).map(|layer| u8::from((layer + 1) % 4 != 0)).collect();
            set("no_rope_layers", json!(rotates));
            set("no_rope_layer_interval", json!(4));
            set("layer_types", json!(full()));
            set("sliding_window", Value::Null);
            set("use_sliding_window", json!(false));
        }
        Family::Gemma2 | Family::Gemma3 | Family::Olmo3 => {
            let period = match family {
                Family::Gemma2 => 2,
                Family::Gemma3 => 6,
                _ => 4,
            };
            let window = match (family, keys.optional("attention.sliding_window")?) {
                (Family::Gemma2, None) => Some(4096),
                (_, window) => window.filter(|window| *window > 0),
            };
            let types = keys.layer_types(layers, window.map_or(1, |_| period))?;
            set("layer_types", json!(types));
            set("sliding_window", json!(window));
            let local = keys.number("rope.freq_base_swa")?;
            match family {
                Family::Gemma2 => {
                    if local.is_some_and(|local| local != theta) {
                        return Err(keys.wrong("rope.freq_base_swa", format!("differs from {theta}")));
                    }
                }
                _ => {
                    let local = local.unwrap_or(if family == Family::Gemma3 { 10_000.0 } else { theta });
                    set(
                        "rope_parameters",
                        json!({
                            "full_attention": rotary,
                            "sliding_attention": { "rope_theta": local, "rope_type": "default" },
                        }),
                    );
                }
            }
        }
        Family::Llama | Family::Apertus | Family::Olmo2 | Family::Qwen3Moe | Family::Dots1 => {}
    }
    if matches!(family, Family::Gemma2 | Family::Gemma3) {
        // The 27B models of both families, which llama.cpp knows by their layers, scale by the mean width of a head.
        let mean = (family == Family::Gemma2 && layers == 46) || (family == Family::Gemma3 && layers == 62);
        set("query_pre_attn_scalar", json!(if mean { hidden / heads } else { head_dim }));
        // The first files of Gemma 2 do not say its caps.
        for (key, of_gemma_2) in [("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)] {
            let absent = (family == Family::Gemma2).then_some(of_gemma_2);
            set(key, json!(keys.number(key)?.or(absent).filter(|cap| *cap > 0.0)));
        }
    }
    if experts > 0 {
        mixture(&keys, family, experts, intermediate, layers, &mut set)?;
    }
    let mut xielu = Vec::new();
    if family == Family::Apertus {
        for (key, _, _) in XIELU {
            xielu.push(keys.bare_number_per_layer(key, layers as usize)?);
        }
    }
    keys.nothing_left()?;
    let shape = Shape {
        family,
        layers: layers as usize,
        heads: heads as usize,
        kv_heads: kv_heads as usize,
        experts: experts as usize,
        xielu,
    };
    Ok((config, shape))
}

fn mixture(
    keys: &Keys,
    family: Family,
    experts: u64,
    intermediate: Option<u64>,
    layers: u64,
    set: &mut dyn FnMut(&str, Value),
) -> Result<(), String> {
    let scoring = keys.optional("expert_gating_func")?;
    let expect_scoring =
        |expected: u64, name: &str| match scoring {
            Some(found) if found != expected => Err(keys
                .wrong("expert_gating_func", format!("is {found}; only {expected} ({name}) is supported"))),
            _ => Ok(()),
        };
    let normalise = keys.get("expert_weights_norm").map(|value| value.as_bool());
    let scale = keys.number("expert_weights_scale")?;
    set("num_experts_per_tok", json!(keys.size("expert_used_count")?));
    match family {
        Family::Mixtral => {
            expect_scoring(1, "softmax")?;
            set("num_local_experts", json!(experts));
            if let Some(width) = keys.optional("expert_feed_forward_length")? {
                set("intermediate_size", json!(width));
            }
        }
        Family::Qwen3Moe => {
            expect_scoring(1, "softmax")?;
            set("num_experts", json!(experts));
            let width = match (keys.optional("expert_feed_forward_length")?, intermediate) {
                (Some(width), _) | (None, Some(width)) => width,
                (None, None) => return Err(keys.wrong("expert_feed_forward_length", "is missing".into())),
            };
            set("moe_intermediate_size", json!(width));
            set("intermediate_size", json!(intermediate.unwrap_or(width)));
            set("decoder_sparse_step", json!(1));
            set("mlp_only_layers", json!([]));
            // llama.cpp divides the chosen scores by their sum whatever the file says.
            set("norm_topk_prob", json!(true));
            set("use_sliding_window", json!(false));
            set("sliding_window", Value::Null);
        }
        Family::Dots1 => {
            expect_scoring(2, "sigmoid")?;
            set("n_routed_experts", json!(experts));
            set("n_shared_experts", json!(keys.size("expert_shared_count")?));
            set("moe_intermediate_size", json!(keys.size("expert_feed_forward_length")?));
            set("first_k_dense_replace", json!(keys.optional("leading_dense_block_count")?.unwrap_or(0)));
            set("routed_scaling_factor", json!(scale.unwrap_or(1.0)));
            set("norm_topk_prob", json!(normalise == Some(Some(true))));
            set("n_group", json!(keys.optional("expert_group_count")?.unwrap_or(1)));
            set("topk_group", json!(keys.optional("expert_group_used_count")?.unwrap_or(1)));
            set("layer_types", json!(vec!["full_attention"; layers as usize]));
            set("max_window_layers", json!(layers));
            set("sliding_window", Value::Null);
        }
        _ => {
            return Err(
                keys.wrong("expert_count", format!("is {experts}, but {} has no experts", family.class()))
            );
        }
    }
    if family != Family::Dots1 && (scale.is_some_and(|scale| scale != 1.0) || normalise == Some(Some(false)))
    {
        return Err(keys.wrong("expert_weights_scale", "or expert_weights_norm is not the family's".into()));
    }
    Ok(())
}

/// Llama 3's factors, where the file has them.
fn rotary_factors(file: &GgufFile) -> Result<Option<Vec<f32>>, GgufError> {
    let Some(tensor) = file.tensors().get(ROTARY_FACTORS) else { return Ok(None) };
    if tensor.shape.len() != 1 || tensor.bytes > 1 << 16 {
        let problem = format!("tensor {ROTARY_FACTORS} has shape {:?}, expected one dimension", tensor.shape);
        return Err(GgufError::malformed(file.path(), problem));
    }
    let mut stored = vec![0; tensor.bytes as usize];
    file.read_bytes(ROTARY_FACTORS, 0, &mut stored)?;
    let mut factors = vec![0.0; tensor.shape[0]];
    crate::dequantise(tensor.element, &stored, &mut factors);
    Ok(Some(factors))
}

/// The tokens that the configuration names.
struct Tokens {
    begin: Option<u64>,
    ends: Vec<u64>,
    padding: Option<u64>,
}

impl Tokens {
    fn read(metadata: &Metadata) -> Result<Tokens, String> {
        let token = |name: &str| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match metadata.get(&key).map(|value| (value.as_u64(), value)) {
                None => Ok(None),
                Some((Some(id), _)) => Ok(Some(id)),
                Some((None, value)) => Err(format!("key {key} is {value:?}, expected a token id")),
            }
        };
        let mut ends: Vec<u64> = Vec::new();
        for end in [token("eos")?, token("eot")?].into_iter().flatten() {
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        Ok(Tokens { begin: token("bos")?, ends, padding: token("padding")? })
    }

    fn end(&self) -> Value {
        match self.ends[..] {
            [] => Value::Null,
            [one] => json!(one),
            _ => json!(self.ends),
        }
    }
}

/// The keys of an architecture, and which of them have been understood.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
    seen: RefCell<BTreeSet<String>>,
}

impl Keys<'_> {
    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn wrong(&self, key: &str, problem: String) -> String {
        format!("key {} {problem}", self.name(key))
    }

    fn get(&self, key: &str) -> Option<&Entry> {
        let name = self.name(key);
        let value = self.metadata.get(&name);
        self.seen.borrow_mut().insert(name);
        value
    }

    fn size(&self, key: &str) -> Result<u64, String> {
        self.optional(key)?.ok_or_else(|| self.wrong(key, "is missing".into()))
    }

    /// A size, or one a layer where all are the same.
    fn optional(&self, key: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = match value.as_array().map(Array::to_u64s) {
            None => value.as_u64(),
            Some(Some(sizes)) => match sizes[..] {
                [first, ref rest @ ..] if rest.iter().all(|size| *size == first) => Some(first),
                _ => return Err(self.wrong(key, "differs between the layers, which is not supported".into())),
            },
            Some(None) => None,
        };
        match size.filter(|size| *size <= LARGEST_SIZE) {
            Some(size) => Ok(Some(size)),
            None => Err(self.wrong(key, format!("is no whole number up to {LARGEST_SIZE}"))),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().filter(|number| number.is_finite()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, "is no finite number".into())),
        }
    }

    /// A number above zero; zero means that there is none.
    fn positive(&self, key: &str) -> Result<Option<f64>, String> {
        Ok(self.number(key)?.filter(|number| *number > 0.0))
    }

    /// Numbers of each layer, under a key that stands without the architecture's name.
    fn bare_number_per_layer(&self, key: &str, layers: usize) -> Result<Vec<f32>, String> {
        self.seen.borrow_mut().insert(key.to_owned());
        let value = self.metadata.get(key).ok_or_else(|| format!("key {key} is missing"))?;
        let numbers = match value.as_array() {
            Some(array) => array.to_f32s(),
            None => value.as_f64().map(|number| vec![number as f32; layers]),
        };
        numbers
            .filter(|numbers| numbers.len() == layers && numbers.iter().all(|number| number.is_finite()))
            .ok_or_else(|| format!("key {key} is not a finite number for each of the {layers} layers"))
    }

    /// Which layers have the window: those that the file says, else all but every `period`-th.
    fn layer_types(&self, layers: u64, period: u64) -> Result<Vec<&'static str>, String> {
        const KEY: &str = "attention.sliding_window_pattern";
        let kind = |windowed| if windowed { "sliding_attention" } else { "full_attention" };
        let every = |period: u64| (0..layers).map(|layer| kind((layer + 1) % period != 0)).collect();
        match self.get(KEY) {
            None => Ok(every(period)),
            Some(value) => {
                match (value.as_array().and_then(Array::as_bools), value.as_u64()) {
                    (Some(pattern), _) if pattern.len() as u64 == layers => {
                        Ok(pattern.iter().map(|&windowed| kind(windowed)).collect())
                    }
                    (_, Some(period)) if period > 0 => Ok(every(period)),
                    _ => Err(self
                        .wrong(KEY, format!("is neither a period nor a truth for each of {layers} layers"))),
                }
            }
        }
    }

    /// `rope_parameters`.
    fn rotary(&self, theta: f64, head_dim: usize, factors: Option<&[f32]>) -> Result<Value, String> {
        let scaling = self.get("rope.scaling.type").map(|value| value.as_str().unwrap_or("unknown"));
        let factor = self.number("rope.scaling.factor")?;
        let original = self.optional("rope.scaling.original_context_length")?;
        // Says how the model was trained, not what it computes.
        self.get("rope.scaling.finetuned");
        if let Some(factors) = factors {
            if scaling.is_some_and(|scaling| scaling != "none") {
                return Err(
                    self.wrong("rope.scaling.type", format!("and tensor {ROTARY_FACTORS} contradict"))
                );
            }
            let Llama3Scaling { factor, low, high, original } =
                Llama3Scaling::recover(theta, head_dim, factors).ok_or_else(|| {
                    format!("the numbers of tensor {ROTARY_FACTORS} are not those of Llama 3's scaling")
                })?;
            return Ok(json!({
                "rope_theta": theta, "rope_type": "llama3", "factor": factor, "low_freq_factor": low,
                "high_freq_factor": high, "original_max_position_embeddings": original as u64,
            }));
        }
        let factor_or = |kind: &str| {
            factor.ok_or_else(|| {
                self.wrong("rope.scaling.factor", format!("is missing, but the type is {kind}"))
            })
        };
        match scaling {
            None | Some("none") => match factor {
                None | Some(0.0 | 1.0) => Ok(json!({ "rope_theta": theta, "rope_type": "default" })),
                // As llama.cpp reads it.
                Some(factor) => Ok(json!({ "rope_theta": theta, "rope_type": "linear", "factor": factor })),
            },
            Some("linear") => {
                Ok(json!({ "rope_theta": theta, "rope_type": "linear", "factor": factor_or("linear")? }))
            }
            Some("yarn") => self.yarn(theta, factor_or("yarn")?, original),
            Some(other) => {
                Err(self.wrong("rope.scaling.type", format!("is {other:?}, which is not supported")))
            }
        }
    }

    fn yarn(&self, theta: f64, factor: f64, original: Option<u64>) -> Result<Value, String> {
        let original = original
            .ok_or_else(|| self.wrong("rope.scaling.original_context_length", "is missing".into()))?;
        let mut parameters = Map::new();
        let mut set = |key: &str, value: Value| drop(parameters.insert(key.to_owned(), value));
        set("rope_theta", json!(theta));
        set("rope_type", json!("yarn"));
        set("factor", json!(factor));
        set("original_max_position_embeddings", json!(original));
        for (key, name) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
            if let Some(number) = self.number(&format!("rope.scaling.{key}"))? {
                set(name, json!(number));
            }
        }
        if let Some(multiplier) = self.number("rope.scaling.yarn_log_multiplier")? {
            set("mscale", json!(1.0));
            set("mscale_all_dim", json!(multiplier));
        }
        if let Some(scale) = self.positive("attention.temperature_scale")? {
            set("llama_4_scaling_beta", json!(scale));
        }
        Ok(Value::Object(parameters))
    }

    /// Refuses keys that nobody asked for.
    fn nothing_left(&self) -> Result<(), String> {
        let seen = self.seen.borrow();
        let indifferent = |key: &str| INDIFFERENT.iter().any(|beginning| key.starts_with(beginning));
        match self.metadata.keys().find(|key| !seen.contains(*key) && !indifferent(key)) {
            Some(key) => Err(format!("key {key} is not understood, and may change what the model computes")),
            None => Ok(()),
        }
    }
}
