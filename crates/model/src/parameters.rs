//! Where a model's numbers stand: a table of named views (Hugging Face's tensor names) over one flat f32 buffer, cut at
//! whole matrices. Optimisers, checkpoints and reductions see the buffer; files and people see the names.

use crate::config::ModelConfig;
use compute::random;
use std::ops::Range;

/// What a parameter is to the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A linear map.
    Matrix,
    /// A table of rows: embedding, untied output projection.
    Table,
    /// The weight of a norm: never decayed.
    Norm,
    /// A bias: never decayed.
    Bias,
    /// What is added to the scores of a mixture's experts where they are chosen. It has no gradient and is not decayed:
    /// it moves by the experts' loads (`compute::routing::balance`).
    RouterBias,
}

/// One named tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Hugging Face's name.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Its place in the buffer.
    pub span: Range<usize>,
    /// Its kind.
    pub kind: ParameterKind,
    /// Standard deviation of its initialisation (norms begin at 1, biases at 0).
    deviation: f64,
}

/// All tensors of a model or an adapter, in the order of the buffer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParameterTable {
    entries: Vec<Parameter>,
}

/// GPT-2's width of initial weights, which Qwen3's configuration names as well.
const INITIAL_DEVIATION: f64 = 0.02;

impl ParameterTable {
    /// Appends a tensor; returns its place.
    pub(crate) fn push(
        &mut self,
        name: String,
        shape: &[usize],
        kind: ParameterKind,
        deviation: f64,
    ) -> Range<usize> {
        let begin = self.length();
        let span = begin..begin + shape.iter().product::<usize>();
        self.entries.push(Parameter { name, shape: shape.to_vec(), span: span.clone(), kind, deviation });
        span
    }

    /// All tensors in order.
    pub fn entries(&self) -> &[Parameter] {
        &self.entries
    }

    /// Floats in the buffer.
    pub fn length(&self) -> usize {
        self.entries.last().map_or(0, |last| last.span.end)
    }

    /// The tensor with this name.
    pub fn find(&self, name: &str) -> Option<&Parameter> {
        self.entries.iter().find(|parameter| parameter.name == name)
    }

    /// Fresh values: a pure function of the seed and each tensor's place in the table.
    pub fn initial_values(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.length()];
        for (index, parameter) in self.entries.iter().enumerate() {
            let target = &mut values[parameter.span.clone()];
            match parameter.kind {
                ParameterKind::Norm => target.fill(1.0),
                ParameterKind::Bias | ParameterKind::RouterBias => {}
                ParameterKind::Matrix | ParameterKind::Table if parameter.deviation == 0.0 => {}
                ParameterKind::Matrix | ParameterKind::Table => {
                    let key = random::key(&[seed, index as u64]);
                    for (i, value) in target.iter_mut().enumerate() {
                        *value = (random::normal(key, i as u64) * parameter.deviation) as f32;
                    }
                }
            }
        }
        values
    }
}

/// The values of a model beside their table.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Names and places.
    pub table: ParameterTable,
    /// The buffer.
    pub values: Vec<f32>,
}

/// Where a layer's tensors stand. Queries, keys and values lie one behind another and are used as one matrix; so do gate
/// and up.
#[derive(Clone, Debug)]
pub(crate) struct LayerSpans {
    pub input_norm: Range<usize>,
    pub fused: Range<usize>,
    pub fused_bias: Option<Range<usize>>,
    pub query_norm: Option<Range<usize>>,
    pub key_norm: Option<Range<usize>>,
    pub output: Range<usize>,
    pub middle_norm: Range<usize>,
    /// Of a dense layer, or of a mixture's shared experts.
    pub gate_up: Range<usize>,
    pub down: Range<usize>,
    pub mixture: Option<MixtureSpans>,
}

/// Where a mixture's tensors stand: experts lie one behind another, each its gate, up and down projection.
#[derive(Clone, Debug)]
pub(crate) struct MixtureSpans {
    pub router: Range<usize>,
    pub router_bias: Range<usize>,
    pub experts: Range<usize>,
    /// Floats of one expert.
    pub expert_length: usize,
}

impl MixtureSpans {
    /// Gate and up projection of an expert, as one matrix [2·width, hidden].
    pub fn gate_up(&self, expert: usize) -> Range<usize> {
        let begin = self.experts.start + expert * self.expert_length;
        begin..begin + self.expert_length / 3 * 2
    }

    /// Down projection of an expert, [hidden, width].
    pub fn down(&self, expert: usize) -> Range<usize> {
        let begin = self.gate_up(expert).end;
        begin..begin + self.expert_length / 3
    }
}

/// Where everything stands.
#[derive(Clone, Debug)]
pub(crate) struct ModelSpans {
    pub table: ParameterTable,
    pub embedding: Range<usize>,
    pub layers: Vec<LayerSpans>,
    pub final_norm: Range<usize>,
    /// The embedding's, where they are tied.
    pub head: Range<usize>,
}

impl ModelSpans {
    pub fn new(config: &ModelConfig) -> ModelSpans {
        use ParameterKind::{Bias, Matrix, Norm, RouterBias, Table};
        let mut table = ParameterTable::default();
        let hidden = config.hidden_size;
        let embedding = table.push(
            "model.embed_tokens.weight".into(),
            &[config.vocabulary_size, hidden],
            Table,
            INITIAL_DEVIATION,
        );
        // Projections back into the residual stream are scaled down by the number of additions to it (GPT-2).
        let residual = INITIAL_DEVIATION / (2.0 * config.layers.len() as f64).sqrt();
        let mut layers = Vec::new();
        for (index, layer) in config.layers.iter().enumerate() {
            let attention = layer.attention;
            let (q, kv) = (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
            let width = layer.feed_forward.intermediate_size;
            let name = |part: &str| format!("model.layers.{index}.{part}");
            let mut push =
                |part: &str, shape: &[usize], kind, deviation| table.push(name(part), shape, kind, deviation);
            let input_norm = push("input_layernorm.weight", &[hidden], Norm, 0.0);
            let first = push("self_attn.q_proj.weight", &[q, hidden], Matrix, INITIAL_DEVIATION);
            push("self_attn.k_proj.weight", &[kv, hidden], Matrix, INITIAL_DEVIATION);
            let last = push("self_attn.v_proj.weight", &[kv, hidden], Matrix, INITIAL_DEVIATION);
            let fused_bias = attention.bias.then(|| {
                let first = push("self_attn.q_proj.bias", &[q], Bias, 0.0);
                push("self_attn.k_proj.bias", &[kv], Bias, 0.0);
                first.start..push("self_attn.v_proj.bias", &[kv], Bias, 0.0).end
            });
            let query_norm = attention
                .head_norm
                .then(|| push("self_attn.q_norm.weight", &[attention.head_dim], Norm, 0.0));
            let key_norm = attention
                .head_norm
                .then(|| push("self_attn.k_norm.weight", &[attention.head_dim], Norm, 0.0));
            let output = push("self_attn.o_proj.weight", &[hidden, q], Matrix, residual);
            let middle_norm = push("post_attention_layernorm.weight", &[hidden], Norm, 0.0);
            let (gate_up, down) =
                push_feed_forward(&mut table, name(layer.feed_forward.block()), hidden, width, residual);
            let mixture = layer.feed_forward.mixture.map(|mixture| {
                let width = mixture.intermediate_size;
                let router_shape = [mixture.experts, hidden];
                let router = table.push(name("mlp.gate.weight"), &router_shape, Matrix, INITIAL_DEVIATION);
                let bias = name("mlp.gate.e_score_correction_bias");
                let router_bias = table.push(bias, &[mixture.experts], RouterBias, 0.0);
                let first = table.length();
                for expert in 0..mixture.experts {
                    let block = name(&format!("mlp.experts.{expert}"));
                    push_feed_forward(&mut table, block, hidden, width, residual);
                }
                let experts = first..table.length();
                MixtureSpans { router, router_bias, experts, expert_length: 3 * width * hidden }
            });
            layers.push(LayerSpans {
                input_norm,
                fused: first.start..last.end,
                fused_bias,
                query_norm,
                key_norm,
                output,
                middle_norm,
                gate_up,
                down,
                mixture,
            });
        }
        let final_norm = table.push("model.norm.weight".into(), &[hidden], Norm, 0.0);
        let head = match config.tie_embeddings {
            true => embedding.clone(),
            false => table.push(
                "lm_head.weight".into(),
                &[config.vocabulary_size, hidden],
                Table,
                INITIAL_DEVIATION,
            ),
        };
        ModelSpans { table, embedding, layers, final_norm, head }
    }
}

/// Appends a gated feed-forward block; returns gate and up as one matrix, and down.
fn push_feed_forward(
    table: &mut ParameterTable,
    block: String,
    hidden: usize,
    width: usize,
    residual: f64,
) -> (Range<usize>, Range<usize>) {
    let mut push = |part: &str, shape: &[usize], deviation| {
        table.push(format!("{block}.{part}_proj.weight"), shape, ParameterKind::Matrix, deviation)
    };
    let gate = push("gate", &[width, hidden], INITIAL_DEVIATION);
    let up = push("up", &[width, hidden], INITIAL_DEVIATION);
    (gate.start..up.end, push("down", &[hidden, width], residual))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_gaps_and_every_name_once() {
        for config in [ModelConfig::tiny_for_tests(64), ModelConfig::tiny_mixture_for_tests(64)] {
            let spans = ModelSpans::new(&config);
            let mut end = 0;
            let mut names = std::collections::BTreeSet::new();
            for parameter in spans.table.entries() {
                assert_eq!(parameter.span.start, end);
                end = parameter.span.end;
                assert!(names.insert(&parameter.name), "{}", parameter.name);
            }
            assert_eq!(end, spans.table.length());
        }
    }

    #[test]
    fn experts_are_where_their_names_say() {
        let spans = ModelSpans::new(&ModelConfig::tiny_mixture_for_tests(64));
        let place =
            |part: &str| spans.table.find(&format!("model.layers.1.mlp.{part}.weight")).unwrap().span.clone();
        let mixture = spans.layers[1].mixture.as_ref().unwrap();
        for expert in [0, 7] {
            let part = |part: &str| place(&format!("experts.{expert}.{part}_proj"));
            assert_eq!(mixture.gate_up(expert), part("gate").start..part("up").end);
            assert_eq!(mixture.down(expert), part("down"));
        }
        assert_eq!(mixture.experts.end, mixture.down(7).end);
        assert_eq!(mixture.router, place("gate"));
        assert_eq!(
            spans.layers[1].gate_up,
            place("shared_experts.gate_proj").start..place("shared_experts.up_proj").end
        );
    }

    #[test]
    fn initial_values_are_a_function_of_the_seed() {
        let table = ModelSpans::new(&ModelConfig::tiny_for_tests(64)).table;
        assert_eq!(table.initial_values(1), table.initial_values(1));
        assert_ne!(table.initial_values(1), table.initial_values(2));
    }
}
