//! What a model is, as far as its configuration and its headers say: parameters, cache, problems that stand in the way.

use std::path::{Path, PathBuf};

use hub::selection::{LeftOut, select};
use hub::{Address, Hub, Model};
use model::{ModelConfig, ModelSizes, WeightFormat};
use serde_json::{Value, json};

use super::headers::{self, Tensor};
use crate::run::World;

/// A configuration is a few kilobytes.
const LARGEST_CONFIG_BYTES: u64 = 4 << 20;
const PICKLED: [&str; 4] = ["bin", "pt", "pth", "ckpt"];
/// The rank that the LoRA estimate assumes.
pub const LORA_RANK: u64 = 16;

/// A model, judged from outside.
#[derive(Debug, Default)]
pub struct Facts {
    pub name: String,
    pub architecture: Option<String>,
    pub parameters: u64,
    /// Where that number is from.
    pub parameters_are: &'static str,
    /// Those that are only looked up: the input table, where the output has another.
    pub looked_up: u64,
    /// Those of the output projection, which prefill multiplies for the last token alone.
    pub output: u64,
    /// Those of routed experts.
    pub routed: u64,
    /// Share of the routed experts that a token meets.
    pub routed_share: f64,
    /// Longest sequence.
    pub positions: Option<u64>,
    /// Keys and values of one token in all layers.
    pub cache_numbers: Option<u64>,
    /// What a LoRA adapter of rank [`LORA_RANK`] on all projections would train.
    pub lora_parameters: Option<u64>,
    /// What a layer keeps of a token for the backward pass, times the layers; in numbers.
    pub activations: Option<u64>,
    /// Of the weights' files.
    pub stored_bytes: u64,
    /// Types of numbers in them.
    pub stored_as: String,
    /// What stands in the way of loading it.
    pub problems: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
    /// What sizes in memory are counted from.
    pub(super) counted_from: Option<CountedFrom>,
}

/// The nearest to the loaded model that there is.
#[derive(Debug)]
pub(super) enum CountedFrom {
    /// A folder, or a GGUF file.
    Path(PathBuf),
    Configuration(Box<ModelConfig>),
}

impl Facts {
    /// Sizes in memory with weights in a format, where the configuration is understood: those of the engine.
    pub fn sizes(&self, format: WeightFormat) -> Option<ModelSizes> {
        match self.counted_from.as_ref()? {
            CountedFrom::Path(path) => ModelSizes::of_path(path, format).ok(),
            CountedFrom::Configuration(config) => ModelSizes::of_config(config, None, format).ok(),
        }
    }

    /// The formats that weights may be kept in: of a GGUF file also the one that they are in.
    pub fn formats(&self) -> Vec<WeightFormat> {
        let is_file = matches!(&self.counted_from, Some(CountedFrom::Path(path)) if path.is_file());
        is_file.then_some(WeightFormat::Stored).into_iter().chain(WeightFormat::ALL).collect()
    }

    /// Where a model stands whose configuration is understood: what its headers say against that counts as a problem.
    fn count_from(&mut self, path: &Path, config: Option<ModelConfig>) {
        if let Err(error) = ModelSizes::of_path(path, WeightFormat::Stored) {
            let problem = error.to_string();
            if self.problems.is_empty() {
                self.problems.push(problem);
            }
            self.counted_from = config.map(|config| CountedFrom::Configuration(Box::new(config)));
        } else {
            self.counted_from = Some(CountedFrom::Path(path.to_path_buf()));
        }
    }

    /// Parameters that a token meets, the input table among them.
    pub fn active_parameters(&self) -> u64 {
        self.parameters - self.routed + (self.routed as f64 * self.routed_share) as u64
    }

    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "architecture": self.architecture,
            "parameters": self.parameters,
            "parameters_are": self.parameters_are,
            "active_parameters": self.active_parameters(),
            "looked_up_parameters": self.looked_up,
            "longest_context": self.positions,
            "stored_bytes": self.stored_bytes,
            "stored_as": self.stored_as,
        })
    }

    /// What the tensors say.
    fn count(&mut self, tensors: &[Tensor]) {
        let sum = |wanted: &dyn Fn(&Tensor) -> bool| -> u64 {
            tensors.iter().filter(|tensor| wanted(tensor)).map(Tensor::elements).fold(0, u64::saturating_add)
        };
        self.parameters = sum(&|_| true);
        self.parameters_are = "counted in the headers";
        self.output = sum(&|tensor| matches!(tensor.name.as_str(), "lm_head.weight" | "output.weight"));
        let input =
            sum(&|tensor| matches!(tensor.name.as_str(), "model.embed_tokens.weight" | "token_embd.weight"));
        match self.output {
            // Tied: the table is the output as well.
            0 => self.output = input,
            _ => self.looked_up = input,
        }
        self.routed = sum(&|tensor| tensor.name.contains(".experts.") || tensor.name.contains("_exps."));
        self.stored_bytes = tensors.iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add);
        let mut kinds: Vec<(&str, u64)> = Vec::new();
        for tensor in tensors {
            match kinds.iter_mut().find(|(kind, _)| *kind == tensor.kind) {
                Some((_, bytes)) => *bytes += tensor.bytes,
                None => kinds.push((&tensor.kind, tensor.bytes)),
            }
        }
        kinds.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        self.stored_as = kinds.iter().map(|(kind, _)| *kind).collect::<Vec<_>>().join(" and ");
        let projections = tensors.iter().filter(|tensor| {
            tensor.shape.len() == 2
                && tensor.name.ends_with("_proj.weight")
                && !tensor.name.contains(".experts.")
        });
        let lora: u64 = projections.map(|tensor| LORA_RANK * (tensor.shape[0] + tensor.shape[1])).sum();
        self.lora_parameters = Some(lora).filter(|parameters| *parameters > 0).or(self.lora_parameters);
    }

    /// What the keys of a configuration say, whether or not the family is supported.
    fn configure(&mut self, config: &Value) {
        // Models that also see keep the text's part apart.
        let keys = if config["hidden_size"].is_null() { &config["text_config"] } else { config };
        let number = |names: &[&str]| names.iter().find_map(|name| keys[*name].as_u64());
        let class = config["architectures"].get(0).and_then(Value::as_str).or(config["model_type"].as_str());
        self.architecture = class.map(str::to_string);
        self.positions = number(&["max_position_embeddings"]);
        let (Some(layers), Some(hidden), Some(heads)) =
            (number(&["num_hidden_layers"]), number(&["hidden_size"]), number(&["num_attention_heads"]))
        else {
            return;
        };
        let kv_heads = number(&["num_key_value_heads"]).unwrap_or(heads);
        let head = number(&["head_dim"]).unwrap_or(hidden / heads.max(1));
        let per_layer = match (number(&["kv_lora_rank"]), number(&["qk_rope_head_dim"])) {
            (Some(rank), Some(rotary)) => rank.saturating_add(rotary),
            _ => kv_heads.saturating_mul(head).saturating_mul(2),
        };
        self.cache_numbers = Some(per_layer.saturating_mul(layers));
        let width = number(&["intermediate_size"]).unwrap_or(4 * hidden);
        let (queries, values) = (heads.saturating_mul(head), kv_heads.saturating_mul(head));
        // Queries and outputs, keys and values, gate, up and down.
        let sums = (2 * (hidden + queries))
            .saturating_add(2 * (hidden + values))
            .saturating_add(3 * (hidden + width));
        self.lora_parameters = Some(layers.saturating_mul(LORA_RANK).saturating_mul(sums));
        // Inputs of both norms and of every projection, and the results that their gradients need.
        let kept = (6 * hidden).saturating_add(3 * queries + 2 * values).saturating_add(3 * width);
        self.activations = Some(layers.saturating_mul(kept));
        let experts = number(&["n_routed_experts", "num_experts", "num_local_experts"]).unwrap_or(0);
        let chosen = number(&["num_experts_per_tok", "num_experts_per_token"]).unwrap_or(experts);
        self.routed_share = if experts > 0 { chosen as f64 / experts as f64 } else { 1.0 };
        if let Some(vocabulary) = number(&["vocab_size"]) {
            let table = vocabulary.saturating_mul(hidden);
            self.output = table;
            self.looked_up = if keys["tie_word_embeddings"].as_bool().unwrap_or(false) { 0 } else { table };
        }
    }
}

/// A folder in the Hugging Face layout.
pub fn of_folder(folder: &Path) -> anyhow::Result<Facts> {
    let name = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let name =
        name.file_name().map_or_else(|| "model".to_string(), |name| name.to_string_lossy().into_owned());
    let mut facts = Facts { name, routed_share: 1.0, ..Facts::default() };
    let config = folder.join("config.json");
    let mut understood = None;
    match std::fs::metadata(&config) {
        Err(_) => facts.problems.push("config.json is missing: nothing says what the model is".to_string()),
        Ok(found) if found.len() > LARGEST_CONFIG_BYTES => {
            facts.problems.push("config.json is too large".to_string())
        }
        Ok(_) => {
            let keys = serde_json::from_slice::<Value>(&std::fs::read(&config)?).unwrap_or_default();
            facts.configure(&keys);
            match ModelConfig::load(&config) {
                Ok(config) => understood = Some(config),
                Err(error) => facts.problems.push(error.to_string()),
            }
        }
    }
    let mut names: Vec<String> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    weights(folder, &names, &mut facts);
    texts(folder, &names, &mut facts);
    if understood.is_some() {
        facts.count_from(folder, understood);
    }
    if names.iter().any(|name| name == ".pull") {
        facts.problems.push("a pull was not finished here: run the same `eulalia pull` again".to_string());
    }
    Ok(facts)
}

/// The headers of all weights' files that belong together.
fn weights(folder: &Path, names: &[String], facts: &mut Facts) {
    let ends = |name: &str, end: &str| Path::new(name).extension().is_some_and(|found| found == end);
    let mut files: Vec<&String> = names.iter().filter(|name| ends(name, "safetensors")).collect();
    if files.iter().any(|name| name.starts_with("model")) {
        files.retain(|name| name.starts_with("model"));
    }
    if let Ok(index) = std::fs::read(folder.join("model.safetensors.index.json")) {
        let index: Value = serde_json::from_slice(&index).unwrap_or_default();
        let listed =
            index["weight_map"].as_object().into_iter().flatten().filter_map(|(_, file)| file.as_str());
        let mut missing: Vec<&str> = listed.filter(|file| !names.iter().any(|name| name == file)).collect();
        missing.sort_unstable();
        missing.dedup();
        for file in missing {
            facts.problems.push(format!("{file}, which the index names, is missing"));
        }
    }
    if files.is_empty() {
        let pickled: Vec<&str> = names
            .iter()
            .filter(|name| PICKLED.iter().any(|end| ends(name, end)))
            .map(String::as_str)
            .collect();
        facts.problems.push(match (pickled.is_empty(), names.iter().find(|name| ends(name, "gguf"))) {
            (_, Some(gguf)) => format!("no .safetensors here; look at the GGUF file itself: eulalia doctor {gguf}"),
            (false, None) => format!(
                "the weights are pickled ({}), and such files can run code when they are opened: look for .safetensors",
                pickled.join(", ")
            ),
            (true, None) => "no weights (.safetensors) here".to_string(),
        });
        return;
    }
    let mut tensors = Vec::new();
    for name in files {
        match headers::of_safetensors(&folder.join(name)) {
            Ok(found) => tensors.extend(found),
            Err(problem) => facts.problems.push(format!("{name}: {problem}")),
        }
    }
    if !tensors.is_empty() {
        facts.count(&tensors);
    }
}

/// Tokenizer and chat template.
fn texts(folder: &Path, names: &[String], facts: &mut Facts) {
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    if !has("tokenizer.json") {
        facts.problems.push(match has("tokenizer.model") {
            true => {
                "tokenizer.json is missing; the SentencePiece model alone (tokenizer.model) cannot be read"
                    .into()
            }
            false => "tokenizer.json is missing: text cannot be turned into tokens".into(),
        });
    }
    let template = has("chat_template.jinja")
        || std::fs::read(folder.join("tokenizer_config.json")).is_ok_and(|text| {
            serde_json::from_slice::<Value>(&text).is_ok_and(|keys| !keys["chat_template"].is_null())
        });
    if !template {
        facts.notes.push("no chat template: it continues texts, and `chat` needs one".to_string());
    }
}

/// A GGUF file.
pub fn of_gguf(path: &Path) -> anyhow::Result<Facts> {
    let file = gguf::GgufFile::open(path)?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut facts = Facts { name, routed_share: 1.0, ..Facts::default() };
    facts.architecture =
        file.metadata().get("general.architecture").and_then(gguf::Value::as_str).map(str::to_string);
    match gguf::Model::open(path) {
        Ok(model) => {
            let keys = Value::Object(model.config().clone());
            facts.configure(&keys);
            match understood(&keys) {
                Ok(config) => facts.count_from(path, Some(config)),
                Err(problem) => facts.problems.push(problem),
            }
        }
        Err(error) => facts.problems.push(error.to_string()),
    }
    let tensor = |(name, info): (&String, &gguf::TensorInfo)| Tensor {
        name: name.clone(),
        kind: info.element.name().to_string(),
        shape: info.shape.iter().map(|size| *size as u64).collect(),
        bytes: info.bytes,
    };
    facts.count(&file.tensors().iter().map(tensor).collect::<Vec<_>>());
    Ok(facts)
}

/// A repository of a hub, of which the list of files and the configuration are fetched.
pub fn of_repository(hub: &Hub, address: &Address, world: &World) -> anyhow::Result<Facts> {
    let listing = hub.listing(address, &world.cancellation)?;
    let mut facts = Facts { name: address.to_string(), routed_share: 1.0, ..Facts::default() };
    let (wanted, left_out) = match select(&listing, &[]) {
        Ok(selection) => (selection.wanted, selection.left_out),
        Err(error) => {
            facts.problems.push(error.to_string());
            (Vec::new(), Vec::new())
        }
    };
    let weights = wanted.iter().filter(|file| file.path.ends_with(".safetensors"));
    facts.stored_bytes = weights.map(|file| file.bytes).sum();
    facts.stored_as = format!(
        "on the hub; {} to fetch in all",
        crate::console::bytes(wanted.iter().map(|file| file.bytes).sum())
    );
    let config = hub::read_small(hub, &listing, "config.json", LARGEST_CONFIG_BYTES, &world.cancellation)?;
    let keys = serde_json::from_slice::<Value>(&config).unwrap_or_default();
    facts.configure(&keys);
    match understood(&keys) {
        Ok(config) => facts.counted_from = Some(CountedFrom::Configuration(Box::new(config))),
        Err(problem) => facts.problems.push(problem),
    }
    let bytes_each = match keys["torch_dtype"].as_str().or(keys["dtype"].as_str()) {
        Some("float32") => 4,
        _ => 2,
    };
    (facts.parameters, facts.parameters_are) = match listing.parameters {
        Some(counted) => (counted, "as the hub counts them"),
        None => (facts.stored_bytes / bytes_each, "from the size of the files"),
    };
    if !wanted.iter().any(|file| file.path == "tokenizer.json") {
        facts.problems.push("it has no tokenizer.json: text cannot be turned into tokens".to_string());
    }
    if left_out.iter().any(|(_, why)| *why == LeftOut::Pickle) {
        facts.notes.push("it has pickled files as well, which are never fetched".to_string());
    }
    if listing.gated {
        facts.notes.push("it is gated: its publisher's conditions have to be accepted first".to_string());
    }
    Ok(facts)
}

/// Whether the decoder follows a configuration.
fn understood(keys: &Value) -> Result<ModelConfig, String> {
    let keys = keys.as_object().ok_or("config.json: expected a JSON object")?;
    let config = ModelConfig::from_keys(keys).map_err(|problem| format!("config.json: {problem}"))?;
    config.check().map_err(|problem| format!("config.json: {problem}"))?;
    Ok(config)
}

/// What the catalogue says of a model that cannot be asked for.
pub fn of_entry(entry: &Model) -> Facts {
    let mut facts = Facts {
        name: entry.name.clone(),
        architecture: Some(entry.architecture.clone()),
        parameters: (entry.parameters_billions * 1e9) as u64,
        parameters_are: "as published",
        routed_share: 1.0,
        stored_bytes: entry.approximate_bytes,
        stored_as: "as published".to_string(),
        ..Facts::default()
    };
    if !entry.note.is_empty() {
        facts.notes.push(entry.note.clone());
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16, "vocab_size": 32,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu"}"#;

    fn tensor(name: &str, shape: &[u64]) -> Tensor {
        let bytes = 2 * shape.iter().product::<u64>();
        Tensor { name: name.into(), kind: "BF16".into(), shape: shape.to_vec(), bytes }
    }

    #[test]
    fn parameters_are_counted_by_what_a_token_does_with_them() {
        let mut facts = Facts { routed_share: 0.25, ..Facts::default() };
        facts.count(&[
            tensor("model.embed_tokens.weight", &[32, 8]),
            tensor("model.layers.0.mlp.experts.0.up_proj.weight", &[100, 8]),
            tensor("model.layers.0.self_attn.q_proj.weight", &[8, 8]),
            tensor("lm_head.weight", &[32, 8]),
        ]);
        assert_eq!((facts.parameters, facts.looked_up, facts.output, facts.routed), (1376, 256, 256, 800));
        assert_eq!(facts.active_parameters(), 776);
        assert_eq!(facts.lora_parameters, Some(16 * LORA_RANK));
        facts.count(&[tensor("model.embed_tokens.weight", &[32, 8])]);
        assert_eq!(facts.output, 256, "a table that is also the output");
    }

    #[test]
    fn a_cache_is_counted_from_the_configuration() {
        let mut facts = Facts::default();
        facts.configure(&serde_json::from_str(CONFIG).unwrap());
        // Keys and values of one head of four numbers in two layers.
        assert_eq!(facts.cache_numbers, Some(16));
        assert_eq!(facts.positions, Some(64));
        let mut latent = Facts::default();
        let keys = json!({"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "kv_lora_rank": 5, "qk_rope_head_dim": 2});
        latent.configure(&keys);
        assert_eq!(latent.cache_numbers, Some(21));
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let check = |files: &[(&str, &str)], expected: &[&str]| {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                std::fs::write(folder.path().join(name), text).unwrap();
            }
            let problems = of_folder(folder.path()).unwrap().problems.join("\n");
            for part in expected {
                assert!(problems.contains(part), "{part}: {problems}");
            }
        };
        check(&[], &["config.json is missing", "no weights", "tokenizer.json is missing"]);
        check(&[("config.json", CONFIG), ("pytorch_model.bin", "")], &["pickled (pytorch_model.bin)"]);
        check(&[("config.json", CONFIG), ("tokenizer.model", "")], &["SentencePiece"]);
        check(&[("model.safetensors", "short")], &["model.safetensors: is too short"]);
        let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
        check(
            &[("model.safetensors.index.json", index), ("model-00001-of-00002.safetensors", "")],
            &["model-00002-of-00002.safetensors, which the index names, is missing"],
        );
        let unknown = CONFIG.replace("\"hidden_act\"", "\"clip_everything\": 3, \"hidden_act\"");
        check(&[("config.json", &unknown)], &["clip_everything"]);
        check(&[("config.json", &CONFIG.replace("Llama", "Mamba"))], &["MambaForCausalLM"]);
    }
}
