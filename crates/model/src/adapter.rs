//! Low-rank adapters (LoRA; Hu et al., arXiv 2106.09685) on a decoder's projections: y += (α / r) · B·A·x, in the layout of
//! the `peft` library.

use crate::ModelError;
use crate::config::{LayerSpecification, ModelConfig};
use crate::parameters::{ParameterKind, ParameterTable};
use crate::spans::ModelSpans;
use crate::weights::{WeightsReader, read_regular};
use compute::{MatrixMut, MatrixRef, Start, elementwise, multiply};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// A linear map of a layer that an adapter may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Projection {
    /// q_proj
    Query,
    /// k_proj
    Key,
    /// v_proj
    Value,
    /// o_proj
    Output,
    /// gate_proj
    Gate,
    /// up_proj
    Up,
    /// down_proj
    Down,
}

impl Projection {
    /// All of them, in the order of a layer.
    pub const ALL: [Projection; 7] = [
        Projection::Query,
        Projection::Key,
        Projection::Value,
        Projection::Output,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];

    /// Hugging Face's name, such as `q_proj`.
    pub fn name(self) -> &'static str {
        match self {
            Projection::Query => "q_proj",
            Projection::Key => "k_proj",
            Projection::Value => "v_proj",
            Projection::Output => "o_proj",
            Projection::Gate => "gate_proj",
            Projection::Up => "up_proj",
            Projection::Down => "down_proj",
        }
    }

    /// The projection with this name.
    pub fn from_name(name: &str) -> Option<Projection> {
        Projection::ALL.into_iter().find(|projection| projection.name() == name)
    }

    fn block(self, layer: &LayerSpecification) -> &'static str {
        match self {
            Projection::Query | Projection::Key | Projection::Value | Projection::Output => "self_attn",
            Projection::Gate | Projection::Up | Projection::Down => layer.feed_forward.block(),
        }
    }

    /// Whether a layer has it, as one matrix that all tokens pass.
    fn exists(self, layer: &LayerSpecification) -> bool {
        let width = layer.feed_forward.intermediate_size;
        match self {
            Projection::Query | Projection::Key | Projection::Value => layer.attention.latent.is_none(),
            Projection::Output => true,
            Projection::Gate => width > 0 && layer.feed_forward.activation.gated(),
            Projection::Up | Projection::Down => width > 0,
        }
    }

    /// (input, output) widths.
    fn sizes(self, layer: &LayerSpecification, hidden: usize) -> (usize, usize) {
        let (q, kv) = (
            layer.attention.heads * layer.attention.head_dim,
            layer.attention.kv_heads * layer.attention.head_dim,
        );
        let width = layer.feed_forward.intermediate_size;
        match self {
            Projection::Query => (hidden, q),
            Projection::Key | Projection::Value => (hidden, kv),
            Projection::Output => (layer.attention.output_width(), hidden),
            Projection::Gate | Projection::Up => (hidden, width),
            Projection::Down => (width, hidden),
        }
    }
}

/// The shape of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// r
    pub rank: usize,
    /// α
    pub alpha: f64,
    /// Which projections, sorted.
    pub targets: Vec<Projection>,
}

/// An adapter of one model.
#[derive(Clone, Debug)]
pub struct Adapter {
    config: AdapterConfig,
    table: ParameterTable,
    layers: Vec<Vec<(Projection, LowRankSpans)>>,
    /// Its numbers, in the order of its table.
    pub values: Vec<f32>,
}

/// Where one projection's pair stands: A [rank, input], B [output, rank].
#[derive(Clone, Debug)]
pub(crate) struct LowRankSpans {
    pub a: Range<usize>,
    pub b: Range<usize>,
    pub input: usize,
    pub output: usize,
}

/// One projection's pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRank<'a> {
    pub spans: &'a LowRankSpans,
    a: &'a [f32],
    b: &'a [f32],
    rank: usize,
    scaling: f32,
}

impl Adapter {
    /// A fresh adapter: A random, B zero, so that it changes nothing yet.
    ///
    /// # Errors
    /// When the shape makes no sense for the model.
    pub fn new(model: &ModelConfig, config: AdapterConfig, seed: u64) -> Result<Adapter, ModelError> {
        let largest = model.hidden_size;
        if config.rank == 0 || config.rank > largest {
            return Err(ModelError::Shape(format!(
                "an adapter of rank {} for a model of width {largest}; expected 1 to {largest}",
                config.rank
            )));
        }
        if !(config.alpha.is_finite() && config.alpha > 0.0) {
            return Err(ModelError::Shape(format!(
                "an adapter with alpha {}; expected a positive number",
                config.alpha
            )));
        }
        if config.targets.is_empty() {
            let known = Projection::ALL.map(Projection::name).join(", ");
            return Err(ModelError::Shape(format!(
                "an adapter without target modules; choose among {known}"
            )));
        }
        let mut table = ParameterTable::default();
        let mut layers = Vec::new();
        for (index, layer) in model.layers.iter().enumerate() {
            let mut pairs = Vec::new();
            for &projection in &config.targets {
                if !projection.exists(layer) {
                    return Err(ModelError::Shape(format!(
                        "an adapter on {}, which layer {index} of {} does not have as one matrix for all tokens",
                        projection.name(),
                        model.architecture.class()
                    )));
                }
                let (input, output) = projection.sizes(layer, model.hidden_size);
                let name = |part: &str| {
                    format!(
                        "base_model.model.model.layers.{index}.{}.{}.lora_{part}.weight",
                        projection.block(layer),
                        projection.name()
                    )
                };
                // The variance of peft's uniform initialisation.
                let deviation = 1.0 / (3.0 * input as f64).sqrt();
                let a = table.push(name("A"), &[config.rank, input], ParameterKind::Matrix, deviation);
                let b = table.push(name("B"), &[output, config.rank], ParameterKind::Matrix, 0.0);
                pairs.push((projection, LowRankSpans { a, b, input, output }));
            }
            layers.push(pairs);
        }
        let values = table.initial_values(seed);
        Ok(Adapter { config, table, layers, values })
    }

    /// Reads `adapter_config.json` and `adapter_model.safetensors` of a folder, checked against the model.
    ///
    /// # Errors
    /// Names the file and what does not fit.
    pub fn load(model: &ModelConfig, folder: &Path) -> Result<Adapter, ModelError> {
        let path = folder.join("adapter_config.json");
        let text = read_regular(&path).map_err(ModelError::read(&path))?;
        let keys: Map<String, Value> = serde_json::from_slice(&text)
            .map_err(|error| ModelError::config(&path, format!("not a JSON object: {error}")))?;
        let config = AdapterConfig::from_keys(&keys).map_err(|problem| ModelError::config(&path, problem))?;
        let mut adapter =
            Adapter::new(model, config, 0).map_err(|error| ModelError::config(&path, error.to_string()))?;
        let reader = WeightsReader::open(&folder.join("adapter_model.safetensors"))?;
        reader.read_all(&adapter.table, &mut adapter.values)?;
        Ok(adapter)
    }

    /// Its shape.
    pub fn config(&self) -> &AdapterConfig {
        &self.config
    }

    /// Names and places of its tensors.
    pub fn table(&self) -> &ParameterTable {
        &self.table
    }

    /// `adapter_config.json` as peft writes it. It names no base model: an adapter travels with its model, not with a path.
    pub fn to_json(&self) -> String {
        let targets: Vec<&str> = self.config.targets.iter().map(|projection| projection.name()).collect();
        let keys = json!({
            "alpha_pattern": {},
            "auto_mapping": null,
            "base_model_name_or_path": null,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_to_transform": null,
            "lora_alpha": self.config.alpha,
            "lora_dropout": 0.0,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.config.rank,
            "rank_pattern": {},
            "target_modules": targets,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": false,
        });
        let mut text = serde_json::to_string_pretty(&keys).expect("plain values");
        text.push('\n');
        text
    }

    /// Whether it was made for a model of this shape.
    pub fn fits(&self, model: &ModelConfig) -> bool {
        self.layers.len() == model.layers.len()
            && self.layers.iter().zip(&model.layers).all(|(pairs, layer)| {
                pairs.iter().all(|(projection, spans)| {
                    projection.exists(layer)
                        && projection.sizes(layer, model.hidden_size) == (spans.input, spans.output)
                })
            })
    }

    /// Adds what the adapter does to the model's own weights.
    ///
    /// # Panics
    /// When `values` are not those of the model that the adapter was made for.
    pub fn merge_into(&self, model: &ModelConfig, values: &mut [f32]) {
        let table = ModelSpans::new(model).table;
        for (name, (layer, projection)) in self.changed_tensors(model) {
            let target = table.find(&name).expect("an adapter of this model").span.clone();
            self.low_rank(layer, projection).expect("a changed tensor").merge_into(&mut values[target]);
        }
    }

    /// The model's tensors that the adapter adds something to.
    pub(crate) fn changed_tensors(&self, model: &ModelConfig) -> BTreeMap<String, (usize, Projection)> {
        let mut names = BTreeMap::new();
        for (index, pairs) in self.layers.iter().enumerate() {
            for (projection, _) in pairs {
                let block = projection.block(&model.layers[index]);
                let name = format!("model.layers.{index}.{block}.{}.weight", projection.name());
                names.insert(name, (index, *projection));
            }
        }
        names
    }

    /// The pair of a projection, where the adapter has one.
    pub(crate) fn low_rank(&self, layer: usize, projection: Projection) -> Option<LowRank<'_>> {
        Some(self.pair(self.spans(layer, projection)?))
    }

    /// Where a projection's pair stands, where the adapter has one.
    pub(crate) fn spans(&self, layer: usize, projection: Projection) -> Option<&LowRankSpans> {
        self.layers[layer].iter().find(|(target, _)| *target == projection).map(|(_, spans)| spans)
    }

    /// α / r
    pub(crate) fn scaling(&self) -> f32 {
        (self.config.alpha / self.config.rank as f64) as f32
    }

    fn pair<'a>(&'a self, spans: &'a LowRankSpans) -> LowRank<'a> {
        LowRank {
            spans,
            a: &self.values[spans.a.clone()],
            b: &self.values[spans.b.clone()],
            rank: self.config.rank,
            scaling: self.scaling(),
        }
    }
}

impl AdapterConfig {
    fn from_keys(keys: &Map<String, Value>) -> Result<AdapterConfig, String> {
        for (key, value) in keys {
            let fine = match key.as_str() {
                "peft_type" => value == "LORA",
                "task_type" => value.is_null() || value == "CAUSAL_LM",
                "bias" => value == "none",
                "r" | "lora_alpha" | "target_modules" => true,
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
                _ => match value {
                    Value::Null | Value::Bool(false) => true,
                    Value::Object(map) => map.is_empty(),
                    Value::Array(list) => list.is_empty(),
                    _ => false,
                },
            };
            if !fine {
                return Err(format!("key {key} = {value} is not supported"));
            }
        }
        let rank = keys.get("r").and_then(Value::as_u64).ok_or("key r is missing or not a whole number")?;
        let alpha = keys
            .get("lora_alpha")
            .and_then(Value::as_f64)
            .ok_or("key lora_alpha is missing or not a number")?;
        // Rank-stabilised (arXiv 2312.03732): the pair counts α / √r times, not α / r.
        let alpha = match keys.get("use_rslora") {
            Some(Value::Bool(true)) => alpha * (rank as f64).sqrt(),
            _ => alpha,
        };
        let modules = keys
            .get("target_modules")
            .and_then(Value::as_array)
            .ok_or("key target_modules is missing or not a list")?;
        let mut targets = modules
            .iter()
            .map(|module| {
                let name = module.as_str().map(|name| name.rsplit('.').next().unwrap_or(name));
                name.and_then(Projection::from_name)
                    .ok_or_else(|| format!("target module {module} is not supported"))
            })
            .collect::<Result<Vec<_>, _>>()?;
        targets.sort_unstable();
        targets.dedup();
        Ok(AdapterConfig { rank: rank.min(u32::MAX as u64) as usize, alpha, targets })
    }
}

impl LowRank<'_> {
    /// Adds the adapter's part to `output`, whose rows begin `stride` apart. `scratch` holds rows · rank floats.
    pub fn add(&self, x: &[f32], rows: usize, scratch: &mut Vec<f32>, output: &mut [f32], stride: usize) {
        self.reduce(x, rows, scratch);
        let reduced = MatrixRef::new(scratch, rows, self.rank);
        let b = MatrixRef::new(self.b, self.spans.output, self.rank);
        multiply(
            reduced,
            b.transposed(),
            MatrixMut::strided(output, rows, self.spans.output, stride),
            Start::Continue,
        );
    }

    /// Adds (α / r) · B·A to a matrix [output, input].
    pub fn merge_into(&self, matrix: &mut [f32]) {
        self.merge_into_rows(0, matrix);
    }

    /// Adds its part of (α / r) · B·A to rows of a matrix from row `first` on.
    pub fn merge_into_rows(&self, first: usize, rows: &mut [f32]) {
        let input = self.spans.input;
        let count = rows.len() / input;
        let mut scaled = self.b[first * self.rank..(first + count) * self.rank].to_vec();
        elementwise::scale(&mut scaled, self.scaling);
        let b = MatrixRef::new(&scaled, count, self.rank);
        let a = MatrixRef::new(self.a, self.rank, input);
        multiply(b, a, MatrixMut::new(rows, count, input), Start::Continue);
    }

    /// scratch ← (α / r) · x·Aᵀ
    fn reduce(&self, x: &[f32], rows: usize, scratch: &mut Vec<f32>) {
        scratch.resize(rows * self.rank, 0.0);
        let a = MatrixRef::new(self.a, self.rank, self.spans.input);
        multiply(
            MatrixRef::new(x, rows, self.spans.input),
            a.transposed(),
            MatrixMut::new(scratch, rows, self.rank),
            Start::Zero,
        );
        elementwise::scale(scratch, self.scaling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Activation;

    fn config(rank: usize, targets: &[Projection]) -> AdapterConfig {
        AdapterConfig { rank, alpha: 16.0, targets: targets.to_vec() }
    }

    #[test]
    fn the_configuration_reads_back_and_strange_ones_are_refused() {
        let model = ModelConfig::tiny_for_tests(64);
        let adapter = Adapter::new(&model, config(4, &[Projection::Query, Projection::Down]), 1).unwrap();
        let mut keys: Map<String, Value> = serde_json::from_str(&adapter.to_json()).unwrap();
        assert_eq!(AdapterConfig::from_keys(&keys).unwrap(), *adapter.config());
        for (key, value) in [
            ("use_dora", json!(true)),
            ("peft_type", json!("IA3")),
            ("rank_pattern", json!({"q_proj": 3})),
            ("target_modules", json!(["lm_head"])),
            ("r", json!(-1)),
            ("bias", json!("all")),
            ("use_rslora", json!("yes")),
            ("init_lora_weights", json!("pissa_niter_16")),
        ] {
            let before = keys.insert(key.into(), value).unwrap();
            assert!(AdapterConfig::from_keys(&keys).is_err(), "{key}");
            keys.insert(key.into(), before);
        }
    }

    #[test]
    fn a_rank_stabilised_scale_grows_with_the_root_of_the_rank() {
        let model = ModelConfig::tiny_for_tests(64);
        let adapter = Adapter::new(&model, config(4, &[Projection::Query]), 1).unwrap();
        let mut keys: Map<String, Value> = serde_json::from_str(&adapter.to_json()).unwrap();
        keys.insert("use_rslora".into(), json!(true));
        let stabilised = AdapterConfig::from_keys(&keys).unwrap();
        assert_eq!(stabilised.alpha / stabilised.rank as f64, 16.0 / 2.0);
    }

    #[test]
    fn shapes_without_sense_are_refused() {
        let model = ModelConfig::tiny_for_tests(64);
        assert!(Adapter::new(&model, config(0, &[Projection::Query]), 1).is_err());
        assert!(Adapter::new(&model, config(33, &[Projection::Query]), 1).is_err());
        assert!(Adapter::new(&model, config(4, &[]), 1).is_err());
    }

    #[test]
    fn projections_that_a_layer_does_not_have_are_named() {
        let mut model = ModelConfig::tiny_for_tests(64);
        model.layers[1].feed_forward.activation = Activation::Xielu;
        assert!(Adapter::new(&model, config(4, &[Projection::Up]), 1).is_ok());
        let problem = Adapter::new(&model, config(4, &[Projection::Gate]), 1).unwrap_err().to_string();
        assert!(problem.contains("gate_proj, which layer 1"), "{problem}");
    }
}
