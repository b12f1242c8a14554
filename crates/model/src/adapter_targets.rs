//! Which modules of a model an adapter has a pair for, with what rank and α: the keys of peft's `adapter_config.json`, and what they
//! mean there (`check_target_module_exists`, `get_pattern_key`).

use crate::ModelError;
use crate::adapter::{AdapterConfig, Projection};
use regex::Regex;
use serde_json::{Map, Value};

/// What peft's users write for every matrix of the layers.
const ALL_LINEAR: &str = "all-linear";
/// What Python takes for characters of a class and Rust for set operations.
const SET_OPERATIONS: [&str; 4] = ["[[", "&&", "--", "~~"];

/// The pair of one module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pair {
    /// r
    pub rank: usize,
    /// α, times √r where the scale is rank-stabilised
    pub alpha: f64,
    /// Whether the module was asked for by its name, so that it has to be there.
    pub required: bool,
}

impl Pair {
    /// Refuses what makes no sense for a model of this width.
    pub fn check(&self, hidden_size: usize) -> Result<(), ModelError> {
        let Pair { rank, alpha, .. } = *self;
        if rank == 0 || rank > hidden_size {
            return Err(ModelError::Shape(format!(
                "an adapter of rank {rank} for a model of width {hidden_size}; expected 1 to {hidden_size}"
            )));
        }
        if !(alpha.is_finite() && alpha > 0.0) {
            return Err(ModelError::Shape(format!(
                "an adapter with alpha {alpha}; expected a positive number"
            )));
        }
        Ok(())
    }
}

/// What `adapter_config.json` says of every module.
pub(crate) struct Targets {
    rank: u64,
    alpha: f64,
    is_stabilised: bool,
    modules: Modules,
    excluded: Option<Modules>,
    /// Only these layers, counted behind one of some names.
    layers: Option<(Vec<u64>, Vec<Regex>)>,
    /// The first that fits counts.
    ranks: Vec<(Regex, u64)>,
    alphas: Vec<(Regex, f64)>,
}

enum Modules {
    /// Whole names, or what stands behind a full stop in them.
    Names(Vec<String>),
    Pattern(Regex),
    All,
}

impl Targets {
    /// Reads the keys; one that is not understood is named.
    pub fn read(keys: &Map<String, Value>) -> Result<Targets, String> {
        for (key, value) in keys {
            let fine = match key.as_str() {
                "peft_type" => value == "LORA",
                "task_type" => value.is_null() || value == "CAUSAL_LM",
                "bias" => value == "none",
                "r"
                | "lora_alpha"
                | "target_modules"
                | "exclude_modules"
                | "layers_to_transform"
                | "layers_pattern"
                | "rank_pattern"
                | "alpha_pattern" => true,
                // Without effect on a finished adapter.
                "lora_dropout"
                | "inference_mode"
                | "base_model_name_or_path"
                | "revision"
                | "auto_mapping"
                | "peft_version"
                | "megatron_core"
                | "qalora_group_size" => true,
                // Others changed the model's own weights before training, and would have to again.
                "init_lora_weights" => {
                    value.is_null()
                        || value.is_boolean()
                        || ["gaussian", "eva", "orthogonal"].iter().any(|name| value == name)
                }
                "use_rslora" => value.is_null() || value.is_boolean(),
                // Everything else only where it says nothing.
                _ => is_empty(value),
            };
            if !fine {
                return Err(unsupported(key, value));
            }
        }
        let key = |key: &str| keys.get(key).filter(|value| !is_empty(value));
        let modules = key("target_modules").ok_or("key target_modules is missing or empty")?;
        let excluded = key("exclude_modules").map(|value| Modules::read("exclude_modules", value));
        let layers =
            key("layers_to_transform").map(|value| layers(value, key("layers_pattern"))).transpose()?;
        if layers.is_some() && modules.is_string() {
            return Err("key layers_to_transform has no meaning beside a pattern in target_modules".into());
        }
        let modules = Modules::read("target_modules", modules)?;
        if let Modules::Names(names) = &modules {
            let last = |name: &str| Projection::from_name(name.rsplit('.').next().unwrap_or(name));
            if let Some(strange) = names.iter().find(|name| last(name).is_none()) {
                return Err(format!("target module {strange:?} is not supported"));
            }
        }
        Ok(Targets {
            rank: key("r").and_then(Value::as_u64).ok_or("key r is missing or not a whole number")?,
            alpha: key("lora_alpha")
                .and_then(Value::as_f64)
                .ok_or("key lora_alpha is missing or not a number")?,
            // arXiv 2312.03732: the pair counts α / √r times, not α / r.
            is_stabilised: keys.get("use_rslora") == Some(&Value::Bool(true)),
            modules,
            excluded: excluded.transpose()?,
            layers,
            ranks: patterns("rank_pattern", key("rank_pattern"), Value::as_u64)?,
            alphas: patterns("alpha_pattern", key("alpha_pattern"), Value::as_f64)?,
        })
    }

    /// The shape without patterns, over every projection.
    pub fn config(&self) -> AdapterConfig {
        let Pair { rank, alpha, .. } = self.sized(self.rank, self.alpha);
        AdapterConfig { rank, alpha, targets: Projection::ALL.to_vec() }
    }

    /// The pair of a module, if it has one.
    pub fn pair(&self, module: &str) -> Option<Pair> {
        if self.excluded.as_ref().is_some_and(|excluded| excluded.fit(module)) || !self.modules.fit(module) {
            return None;
        }
        // One that is named whole is meant in any case.
        let is_named =
            matches!(&self.modules, Modules::Names(names) if names.iter().any(|name| name == module));
        if let Some((layers, patterns)) = self.layers.as_ref().filter(|_| !is_named) {
            let found = patterns.iter().find_map(|pattern| pattern.captures(module))?;
            if !layers.contains(&found.get(1)?.as_str().parse().ok()?) {
                return None;
            }
        }
        Some(self.sized(
            first(&self.ranks, module).unwrap_or(self.rank),
            first(&self.alphas, module).unwrap_or(self.alpha),
        ))
    }

    fn sized(&self, rank: u64, alpha: f64) -> Pair {
        Pair {
            rank: usize::try_from(rank).unwrap_or(usize::MAX),
            alpha: if self.is_stabilised { alpha * (rank as f64).sqrt() } else { alpha },
            required: matches!(self.modules, Modules::Names(_)),
        }
    }
}

impl Modules {
    fn read(key: &str, value: &Value) -> Result<Modules, String> {
        match value {
            Value::String(all) if all == ALL_LINEAR => Ok(Modules::All),
            Value::String(pattern) => Ok(Modules::Pattern(regex(key, &format!("^(?:{pattern})$"))?)),
            Value::Array(names) => {
                let names = names.iter().map(|name| name.as_str().map(str::to_owned));
                Ok(Modules::Names(names.collect::<Option<_>>().ok_or_else(|| unsupported(key, value))?))
            }
            _ => Err(unsupported(key, value)),
        }
    }

    fn fit(&self, module: &str) -> bool {
        match self {
            Modules::Names(names) => names.iter().any(|name| {
                module
                    .strip_suffix(&name[..])
                    .is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }),
            Modules::Pattern(pattern) => pattern.is_match(module),
            Modules::All => true,
        }
    }
}

/// `layers_to_transform`, and how `layers_pattern` finds the number of a layer in a module's name.
fn layers(layers: &Value, pattern: Option<&Value>) -> Result<(Vec<u64>, Vec<Regex>), String> {
    let list = layers.as_array().map_or(std::slice::from_ref(layers), Vec::as_slice);
    let numbers: Option<Vec<u64>> = list.iter().map(Value::as_u64).collect();
    let numbers = numbers.ok_or_else(|| unsupported("layers_to_transform", layers))?;
    let Some(pattern) = pattern else {
        return Ok((numbers, vec![regex("layers_pattern", r"^.*?\.[^.]*\.(\d+)\.")?]));
    };
    let list = pattern.as_array().map_or(std::slice::from_ref(pattern), Vec::as_slice);
    let patterns = list.iter().map(|name| {
        // A group of its own would be counted before the number.
        let name = name.as_str().filter(|name| !name.contains('('));
        let name = name.ok_or_else(|| unsupported("layers_pattern", pattern))?;
        regex("layers_pattern", &format!(r"^(?:|.*?\.){name}\.(\d+)\."))
    });
    Ok((numbers, patterns.collect::<Result<_, _>>()?))
}

/// Numbers by patterns of the ends of modules' names.
fn patterns<T>(
    key: &str,
    value: Option<&Value>,
    number: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<(Regex, T)>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let entries = value.as_object().ok_or_else(|| unsupported(key, value))?;
    let entry = |(pattern, entry): (&String, &Value)| {
        let number = number(entry).ok_or_else(|| unsupported(key, value))?;
        Ok((regex(key, &format!(r"^(?:.*\.)?(?:{pattern})$"))?, number))
    };
    entries.iter().map(entry).collect()
}

fn first<T: Copy>(patterns: &[(Regex, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, number)| *number)
}

/// A pattern of Python's, where it means the same here.
fn regex(key: &str, pattern: &str) -> Result<Regex, String> {
    if SET_OPERATIONS.iter().any(|operation| pattern.contains(operation)) {
        return Err(format!("key {key}: the pattern {pattern:?} is not supported"));
    }
    Regex::new(pattern)
        .map_err(|error| format!("key {key}: the pattern {pattern:?} is not supported: {error}"))
}

/// Whether a key says nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn unsupported(key: &str, value: &Value) -> String {
    format!("key {key} = {value} is not supported")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The pairs of two layers' modules as (layer, module, r, α), under these keys beside rank 4 and α 8.
    fn pairs(keys: Value) -> Vec<(usize, &'static str, usize, f64)> {
        let mut all = json!({ "r": 4, "lora_alpha": 8 });
        all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let targets = Targets::read(all.as_object().unwrap()).unwrap();
        let mut found = Vec::new();
        for layer in 0..2 {
            for module in ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"] {
                let pair = targets.pair(&format!("model.layers.{layer}.{module}"));
                found.extend(pair.map(|pair| (layer, module, pair.rank, pair.alpha)));
            }
        }
        found
    }

    #[test]
    fn modules_are_chosen_by_name_ending_or_pattern() {
        let (q, v, up) = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj");
        let chosen = |keys: Value| -> Vec<(usize, &str)> {
            pairs(keys).into_iter().map(|(layer, module, ..)| (layer, module)).collect()
        };
        let list = json!(["q_proj", "layers.1.mlp.up_proj"]);
        assert_eq!(chosen(json!({ "target_modules": list })), [(0, q), (1, q), (1, up)]);
        assert_eq!(chosen(json!({ "target_modules": r".*layers\.0\..*(up|v)_proj" })), [(0, v), (0, up)]);
        assert_eq!(chosen(json!({ "target_modules": "all-linear" })).len(), 6);
        let without =
            json!({ "target_modules": "all-linear", "exclude_modules": ["self_attn.q_proj", "up_proj"] });
        assert_eq!(chosen(without), [(0, v), (1, v)]);
        for pattern in [json!(null), json!("layers"), json!(["h", "layers"])] {
            let some =
                json!({ "target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": pattern });
            assert_eq!(chosen(some), [(1, q)]);
        }
        let other =
            json!({ "target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "blocks" });
        assert_eq!(chosen(other), []);
    }

    #[test]
    fn ranks_and_scales_go_by_the_first_pattern_that_fits() {
        let (q, v) = ("self_attn.q_proj", "self_attn.v_proj");
        let keys = json!({ "target_modules": ["q_proj", "v_proj"],
            "rank_pattern": { r"layers\.0\..*proj": 2, "q_proj": 9 }, "alpha_pattern": { "v_proj": 3 } });
        assert_eq!(pairs(keys.clone()), [(0, q, 2, 8.0), (0, v, 2, 3.0), (1, q, 9, 8.0), (1, v, 4, 3.0)]);
        // Rank-stabilised: the scale is α / √r, for each by its own rank.
        let mut stabilised = keys;
        stabilised["use_rslora"] = json!(true);
        let scales = pairs(stabilised).into_iter().map(|(_, _, rank, alpha)| alpha / rank as f64);
        let expected = [8.0 / 2f64.sqrt(), 3.0 / 2f64.sqrt(), 8.0 / 3.0, 3.0 / 2.0];
        assert!(scales.zip(expected).all(|(scale, expected)| (scale - expected).abs() < 1e-12));
    }
}
