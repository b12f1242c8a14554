//! The keys of a configuration, and which of them have been understood.

use super::families::Architecture;
use super::rotary::{Rotary, RotaryScaling, yarn_magnitude};
use super::{LARGEST_SIZE, Temperature};
use serde_json::{Map, Value};

/// Keys without effect on what is computed here: of transformers, and what programs that tune models leave behind.
pub(super) const INDIFFERENT_KEYS: [&str; 42] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_name_or_path",
    "add_cross_attention",
    "attention_dropout",
    "auto_map",
    "aux_loss_alpha",
    "cache_implementation",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "dtype",
    "ep_size",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "max_window_layers",
    "neftune_noise_alpha",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pretraining_tp",
    "problem_type",
    "return_dict",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sep_token_id",
    "seq_aux",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
];

/// The keys of a configuration, and which of them have been asked for.
pub(super) struct Keys<'a> {
    pub keys: &'a Map<String, Value>,
    pub seen: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    pub fn new(keys: &'a Map<String, Value>) -> Keys<'a> {
        Keys { keys, seen: Vec::new() }
    }

    pub fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.seen.push(key);
        self.keys.get(key).filter(|value| !value.is_null())
    }

    pub fn architecture(&mut self) -> Result<Architecture, String> {
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
        let by_type = Architecture::ALL.into_iter().find(|known| {
            class.is_none() && model_type.and_then(Value::as_str) == Some(known.defaults().model_type)
        });
        by_class.or(by_type).ok_or_else(|| {
            let found = class.or(model_type.and_then(Value::as_str)).unwrap_or("missing");
            format!("architecture {found} is not supported; supported are: {known}")
        })
    }

    pub fn size(&mut self, key: &'static str) -> Result<usize, String> {
        self.optional_size(key)?.ok_or_else(|| format!("key {key} is missing"))
    }

    pub fn optional_size(&mut self, key: &'static str) -> Result<Option<usize>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64() {
            Some(size) if size <= LARGEST_SIZE as u64 => Ok(Some(size as usize)),
            _ => Err(format!("{key} is {value}, expected a whole number up to {LARGEST_SIZE}")),
        }
    }

    pub fn number(&mut self, key: &'static str) -> Result<Option<f64>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| format!("{key} is {value}, expected a number"))
    }

    pub fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| format!("{key} is {value}, expected true or false"))
    }

    /// A token id, a list of them, or nothing.
    pub fn tokens(&mut self, key: &'static str) -> Result<Vec<u32>, String> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        list.iter()
            .map(|token| token.as_u64().and_then(|token| u32::try_from(token).ok()))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("{key} is {value}, expected a token id or a list of them"))
    }

    /// A list of numbers of layers.
    pub fn layer_numbers(&mut self, key: &'static str, layers: usize) -> Result<Vec<usize>, String> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let numbers: Option<Vec<usize>> = value.as_array().and_then(|list| {
            list.iter().map(|number| number.as_u64().map(|n| n as usize).filter(|n| *n < layers)).collect()
        });
        numbers.ok_or_else(|| format!("{key} is {value}, expected a list of layers below {layers}"))
    }

    pub fn expect(&mut self, key: &'static str, expected: &Value) -> Result<(), String> {
        match self.get(key) {
            Some(value) if value != expected => {
                Err(format!("{key} is {value}; only {expected} is supported"))
            }
            _ => Ok(()),
        }
    }

    /// Width of the sliding windows: the family's where the key is absent, none where it is null.
    pub fn window(&mut self, default: Option<usize>) -> Result<Option<usize>, String> {
        let window = match self.keys.contains_key("sliding_window") {
            true => self.optional_size("sliding_window")?,
            false => default,
        };
        // Gemma 2 says it twice.
        match (window, self.optional_size("sliding_window_size")?) {
            (Some(0), _) => Err("sliding_window is 0, expected 1 or more, or null".into()),
            (Some(window), Some(other)) if window != other => {
                Err(format!("sliding_window is {window}, but sliding_window_size is {other}"))
            }
            (window, _) => Ok(window),
        }
    }

    /// Which layers have a window, where that is said.
    pub fn layer_types(&mut self, layers: usize) -> Result<Option<Vec<bool>>, String> {
        let Some(value) = self.get("layer_types") else { return Ok(None) };
        let kind = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Some(false),
            Some("sliding_attention") => Some(true),
            _ => None,
        };
        let kinds: Option<Vec<bool>> =
            value.as_array().filter(|kinds| kinds.len() == layers).and_then(|k| k.iter().map(kind).collect());
        kinds.map(Some).ok_or_else(|| {
            format!(
                "layer_types is {value}; expected full_attention or sliding_attention for each of the {layers} layers"
            )
        })
    }

    /// Where each layer has RoPE (1) and where not (0): SmolLM3's two keys.
    pub fn rotary_layers(&mut self, layers: usize) -> Result<Vec<bool>, String> {
        let interval = self.optional_size("no_rope_layer_interval")?.unwrap_or(4);
        let Some(value) = self.get("no_rope_layers") else {
            if interval == 0 {
                return Err("no_rope_layer_interval is 0, expected 1 or more".into());
            }
            return Ok((0..layers).map(|layer| (layer + 1) % interval != 0).collect());
        };
        let flag = |value: &Value| match value.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        };
        let flags: Option<Vec<bool>> =
            value.as_array().filter(|list| list.len() == layers).and_then(|l| l.iter().map(flag).collect());
        flags.ok_or_else(|| {
            format!(
                "no_rope_layers is {value}, expected 1 (RoPE) or 0 (none) for each of the {layers} layers"
            )
        })
    }

    /// Rotations of the layers without a window and of those with one, and how queries grow with their position.
    pub fn rotary(
        &mut self,
        architecture: Architecture,
        positions: usize,
    ) -> Result<(Rotary, Rotary, Option<Temperature>), String> {
        let theta = self.number("rope_theta")?;
        let default = architecture.defaults().rope_theta;
        let scaling = self.object("rope_scaling")?;
        let parameters = self.object("rope_parameters")?;
        if scaling.is_none() && parameters.is_none() && architecture.scales_rope_unasked() {
            return Err(format!(
                "rope_parameters is missing, and rope_scaling too; some programs then scale RoPE in {} and others do not: write it \
                 out, {{\"rope_type\": \"default\"}} where nothing is scaled",
                architecture.class()
            ));
        }
        if !architecture.rotary_by_kind() {
            let (rotary, temperature) = one_rotary(scaling, parameters, theta, default, positions)?;
            if temperature.is_some() && architecture != Architecture::Ministral3 {
                return Err(format!(
                    "llama_4_scaling_beta is not something that {} has",
                    architecture.class()
                ));
            }
            return Ok((rotary, rotary, temperature));
        }
        // Of layers with a window, where their own parameters do not say it.
        let local = match architecture {
            Architecture::Gemma3 => self.number("rope_local_base_freq")?.unwrap_or(10_000.0),
            _ => theta.unwrap_or(default),
        };
        let part = |kind: &str| -> Result<Option<&'a Map<String, Value>>, String> {
            match parameters.and_then(|parameters| parameters.get(kind)) {
                None | Some(Value::Null) => Ok(None),
                // transformers 5 looks for it beside the two kinds, and so does not follow it.
                Some(Value::Object(part)) if part.get("truncate") == Some(&Value::Bool(false)) => {
                    Err(format!(
                        "rope_parameters.{kind}.truncate is false, which programs understand differently where each kind of layer has \
                     its own"
                    ))
                }
                Some(Value::Object(part)) => Ok(Some(part)),
                Some(other) => Err(format!("rope_parameters.{kind} is {other}, expected an object")),
            }
        };
        let strange = parameters.and_then(|parameters| {
            parameters.keys().find(|key| !["full_attention", "sliding_attention"].contains(&key.as_str()))
        });
        if let Some(key) = strange {
            return Err(format!(
                "rope_parameters.{key} is not understood; expected full_attention and sliding_attention"
            ));
        }
        let (full, _) = one_rotary(scaling, part("full_attention")?, theta, default, positions)?;
        let (sliding, _) = one_rotary(None, part("sliding_attention")?, None, local, positions)?;
        Ok((full, sliding, None))
    }

    fn object(&mut self, key: &'static str) -> Result<Option<&'a Map<String, Value>>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(format!("{key} is {other}, expected an object")),
        }
    }

    pub fn nothing_left(&self) -> Result<(), String> {
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

/// From the older key, rope_scaling, and the newer one, rope_parameters, which may both be there if they agree.
fn one_rotary(
    scaling: Option<&Map<String, Value>>,
    parameters: Option<&Map<String, Value>>,
    theta: Option<f64>,
    default_theta: f64,
    positions: usize,
) -> Result<(Rotary, Option<Temperature>), String> {
    let read = |map: Option<&Map<String, Value>>, key: &'static str| {
        map.filter(|map| !map.is_empty())
            .map(|map| read_rotary(map, theta, default_theta, positions, key))
            .transpose()
    };
    match (read(scaling, "rope_scaling")?, read(parameters, "rope_parameters")?) {
        (Some(older), Some(newer)) if older != newer => {
            Err("rope_scaling and rope_parameters say different things".into())
        }
        (older, newer) => {
            Ok(newer.or(older).unwrap_or_else(|| (Rotary::plain(theta.unwrap_or(default_theta)), None)))
        }
    }
}

fn read_rotary(
    map: &Map<String, Value>,
    outer_theta: Option<f64>,
    default_theta: f64,
    positions: usize,
    place: &str,
) -> Result<(Rotary, Option<Temperature>), String> {
    let number = |key: &str| match map.get(key).filter(|value| !value.is_null()) {
        None => Ok(None),
        Some(value) => {
            value.as_f64().map(Some).ok_or_else(|| format!("{place}.{key} is {value}, expected a number"))
        }
    };
    let needed = |key: &str| number(key)?.ok_or_else(|| format!("{place}.{key} is missing"));
    let kind = match map.get("rope_type").or_else(|| map.get("type")) {
        None => "default",
        Some(kind) => kind.as_str().ok_or_else(|| format!("{place}.rope_type is {kind}, expected a name"))?,
    };
    let theta = match (number("rope_theta")?, outer_theta) {
        (Some(inner), Some(outer)) if inner != outer => {
            return Err(format!("rope_theta is {outer}, but {place}.rope_theta is {inner}"));
        }
        (inner, outer) => inner.or(outer).unwrap_or(default_theta),
    };
    let original = || match number("original_max_position_embeddings")?.unwrap_or(positions as f64) {
        length if length >= 1.0 && length.fract() == 0.0 && length <= LARGEST_SIZE as f64 => Ok(length),
        other => Err(format!(
            "{place}.original_max_position_embeddings is {other}, expected a whole number up to {LARGEST_SIZE}"
        )),
    };
    let mut known = vec!["rope_type", "type", "rope_theta"];
    let scaling = match kind {
        "default" => RotaryScaling::None,
        "linear" => {
            known.push("factor");
            RotaryScaling::Linear { factor: needed("factor")? }
        }
        // It changes nothing up to max_position_embeddings, and longer sequences are not computed.
        "dynamic" => {
            known.extend(["factor", "original_max_position_embeddings"]);
            if original()? < positions as f64 {
                return Err(format!(
                    "{place}.original_max_position_embeddings is below max_position_embeddings; that is not supported for \"dynamic\""
                ));
            }
            RotaryScaling::None
        }
        "llama3" => {
            known.extend(["factor", "low_freq_factor", "high_freq_factor"]);
            known.push("original_max_position_embeddings");
            RotaryScaling::Llama3 {
                factor: needed("factor")?,
                low: needed("low_freq_factor")?,
                high: needed("high_freq_factor")?,
                original: original()?,
            }
        }
        "yarn" => {
            known.extend(["factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"]);
            known.extend(["attention_factor", "original_max_position_embeddings", "llama_4_scaling_beta"]);
            // Ministral 3 repeats it here.
            known.push("max_position_embeddings");
            let original = original()?;
            let factor = number("factor")?.unwrap_or(positions as f64 / original);
            let (weight, all) = (number("mscale")?.unwrap_or(0.0), number("mscale_all_dim")?.unwrap_or(0.0));
            let attention_factor = match number("attention_factor")? {
                Some(attention_factor) => attention_factor,
                None if weight != 0.0 && all != 0.0 => {
                    yarn_magnitude(factor, weight) / yarn_magnitude(factor, all)
                }
                None => yarn_magnitude(factor, 1.0),
            };
            let truncate = match map.get("truncate") {
                None | Some(Value::Null) => true,
                Some(Value::Bool(truncate)) => *truncate,
                Some(other) => return Err(format!("{place}.truncate is {other}, expected true or false")),
            };
            let or = |value: Option<f64>, default: f64| value.filter(|v| *v != 0.0).unwrap_or(default);
            RotaryScaling::Yarn {
                factor,
                fast: or(number("beta_fast")?, 32.0),
                slow: or(number("beta_slow")?, 1.0),
                original,
                truncate,
                attention_factor: attention_factor as f32,
            }
        }
        other => {
            return Err(format!(
                "{place}.rope_type is {other}; supported are default, linear, dynamic, llama3 and yarn"
            ));
        }
    };
    // A share of each head, which some families rotate; here always the whole.
    if number("partial_rotary_factor")?.is_some_and(|share| share != 1.0) {
        return Err(format!("{place}.partial_rotary_factor is not 1; only whole heads are rotated"));
    }
    known.push("partial_rotary_factor");
    if let Some((key, value)) = map.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        return Err(format!("{place}.{key} is {value}, which is not understood with rope_type {kind}"));
    }
    let temperature = match (number("llama_4_scaling_beta")?, scaling) {
        (Some(beta), RotaryScaling::Yarn { original, .. }) => Some(Temperature { beta, original }),
        _ => None,
    };
    Ok((Rotary { theta, scaling }, temperature))
}
