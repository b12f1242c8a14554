//! Low-rank adapters (LoRA; Hu et al., arXiv 2106.09685) on a decoder's projections: y += (α / r) · B·A·x, in the layout of
//! the `peft` library.

use crate::ModelError;
use crate::adapter_targets::{Pair, Targets};
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

/// The shape of an adapter; of one that was loaded, what its files say where no pattern says otherwise.
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
    pub rank: usize,
    /// α / r
    pub scaling: f32,
}

/// One projection's pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowRank<'a> {
    pub spans: &'a LowRankSpans,
    a: &'a [f32],
    b: &'a [f32],
}

impl Adapter {
    /// A fresh adapter: A random, B zero, so that it changes nothing yet.
    ///
    /// # Errors
    /// When the shape makes no sense for the model.
    pub fn new(model: &ModelConfig, config: AdapterConfig, seed: u64) -> Result<Adapter, ModelError> {
        if config.targets.is_empty() {
            let known = Projection::ALL.map(Projection::name).join(", ");
            return Err(ModelError::Shape(format!(
                "an adapter without target modules; choose among {known}"
            )));
        }
        let pair = Pair { rank: config.rank, alpha: config.alpha, required: true };
        Adapter::of(model, config, seed, |_| Some(pair))
    }

    /// An adapter with a pair where `pair_of` has one for a module's name (`model.layers.0.self_attn.q_proj`).
    fn of(
        model: &ModelConfig,
        config: AdapterConfig,
        seed: u64,
        pair_of: impl Fn(&str) -> Option<Pair>,
    ) -> Result<Adapter, ModelError> {
        let mut table = ParameterTable::default();
        let mut layers = Vec::new();
        for (index, layer) in model.layers.iter().enumerate() {
            let mut pairs = Vec::new();
            for &projection in &config.targets {
                let module =
                    format!("model.layers.{index}.{}.{}", projection.block(layer), projection.name());
                let Some(pair) = pair_of(&module) else { continue };
                if !projection.exists(layer) {
                    if !pair.required {
                        continue;
                    }
                    return Err(ModelError::Shape(format!(
                        "an adapter on {}, which layer {index} of {} does not have as one matrix for all tokens",
                        projection.name(),
                        model.architecture.class()
                    )));
                }
                pair.check(model.hidden_size)?;
                let Pair { rank, alpha, .. } = pair;
                let (input, output) = projection.sizes(layer, model.hidden_size);
                let name = |part: &str| format!("base_model.model.{module}.lora_{part}.weight");
                // The variance of peft's uniform initialisation.
                let deviation = 1.0 / (3.0 * input as f64).sqrt();
                let a = table.push(name("A"), &[rank, input], ParameterKind::Matrix, deviation);
                let b = table.push(name("B"), &[output, rank], ParameterKind::Matrix, 0.0);
                let scaling = (alpha / rank as f64) as f32;
                pairs.push((projection, LowRankSpans { a, b, input, output, rank, scaling }));
            }
            layers.push(pairs);
        }
        if table.entries().is_empty() {
            return Err(ModelError::Shape("an adapter that changes no projection of this model".into()));
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
        let targets = Targets::read(&keys).map_err(|problem| ModelError::config(&path, problem))?;
        let mut adapter = Adapter::of(model, targets.config(), 0, |module| targets.pair(module))
            .map_err(|error| ModelError::config(&path, error.to_string()))?;
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

    fn pair<'a>(&'a self, spans: &'a LowRankSpans) -> LowRank<'a> {
        LowRank { spans, a: &self.values[spans.a.clone()], b: &self.values[spans.b.clone()] }
    }
}

impl LowRank<'_> {
    /// Adds the adapter's part to `output`, whose rows begin `stride` apart. `scratch` holds rows · rank floats.
    pub fn add(&self, x: &[f32], rows: usize, scratch: &mut Vec<f32>, output: &mut [f32], stride: usize) {
        self.reduce(x, rows, scratch);
        let reduced = MatrixRef::new(scratch, rows, self.spans.rank);
        let b = MatrixRef::new(self.b, self.spans.output, self.spans.rank);
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
        let mut scaled = self.b[first * self.spans.rank..(first + count) * self.spans.rank].to_vec();
        elementwise::scale(&mut scaled, self.spans.scaling);
        let b = MatrixRef::new(&scaled, count, self.spans.rank);
        let a = MatrixRef::new(self.a, self.spans.rank, input);
        multiply(b, a, MatrixMut::new(rows, count, input), Start::Continue);
    }

    /// scratch ← (α / r) · x·Aᵀ
    fn reduce(&self, x: &[f32], rows: usize, scratch: &mut Vec<f32>) {
        scratch.resize(rows * self.spans.rank, 0.0);
        let a = MatrixRef::new(self.a, self.spans.rank, self.spans.input);
        multiply(
            MatrixRef::new(x, rows, self.spans.input),
            a.transposed(),
            MatrixMut::new(scratch, rows, self.spans.rank),
            Start::Zero,
        );
        elementwise::scale(scratch, self.spans.scaling);
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
        assert_eq!(Targets::read(&keys).unwrap().config().alpha, adapter.config().alpha);
        for (key, value) in [
            ("use_dora", json!(true)),
            ("peft_type", json!("IA3")),
            ("rank_pattern", json!({"q_proj": "3"})),
            ("alpha_pattern", json!({"q_proj(?=x)": 3})),
            ("target_modules", json!("[a&&b]")),
            ("layers_to_transform", json!("first")),
            ("target_modules", json!(["lm_head"])),
            ("r", json!(-1)),
            ("bias", json!("all")),
            ("use_rslora", json!("yes")),
            ("init_lora_weights", json!("pissa_niter_16")),
        ] {
            let before = keys.insert(key.into(), value).unwrap();
            assert!(Targets::read(&keys).is_err(), "{key}");
            keys.insert(key.into(), before);
        }
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
