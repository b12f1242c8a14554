//! Which tensors a decoder of each family has, by Hugging Face's names, and where they stand in the table.

use crate::config::{
    Activation, Architecture, AttentionSpecification, LatentAttention, LayerSpecification,
    MixtureSpecification, ModelConfig, NormPlacement, QueryKeyNorm,
};
use crate::parameters::ParameterKind::{self, Bias, Matrix, Norm, RouterBias, Table};
use crate::parameters::ParameterTable;
use compute::routing::Scoring;
use std::ops::Range;

/// GPT-2's width of initial weights, which Qwen3's configuration names as well.
const INITIAL_DEVIATION: f64 = 0.02;

/// Where a layer's tensors stand. Queries, keys and values lie one behind another and are used as one matrix; so do gate
/// and up. A span is empty where the family has no such tensor.
#[derive(Clone, Debug)]
pub(crate) struct LayerSpans {
    pub input_norm: Range<usize>,
    pub fused: Range<usize>,
    pub fused_bias: Option<Range<usize>>,
    pub query_norm: Option<Range<usize>>,
    pub key_norm: Option<Range<usize>>,
    /// Instead of `fused`.
    pub latent: Option<LatentSpans>,
    pub output: Range<usize>,
    pub output_bias: Option<Range<usize>>,
    /// Behind attention.
    pub attention_norm: Option<Range<usize>>,
    /// Before the feed-forward part.
    pub middle_norm: Range<usize>,
    /// Of a dense layer, or of a mixture's shared experts. Up alone where there is no gate.
    pub gate_up: Range<usize>,
    pub down: Range<usize>,
    /// Of gate and up, and of down.
    pub biases: Option<(Range<usize>, Range<usize>)>,
    /// xIELU's two numbers.
    pub activation: Option<Range<usize>>,
    pub mixture: Option<MixtureSpans>,
    /// Behind the feed-forward part.
    pub feed_forward_norm: Option<Range<usize>>,
}

/// Where latent attention's tensors stand.
#[derive(Clone, Debug)]
pub(crate) struct LatentSpans {
    /// The first projection of queries and its norm, where there are two.
    pub query_down: Option<(Range<usize>, Range<usize>)>,
    pub query_up: Range<usize>,
    /// To the vector of keys and values, and the rotary part of keys.
    pub down: Range<usize>,
    pub norm: Range<usize>,
    /// To each head's keys without position, then its values.
    pub up: Range<usize>,
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

impl ModelConfig {
    /// Every tensor of the model, by Hugging Face's names, in the order of a buffer that would hold them all. It takes no
    /// memory for their values, but does for their names: [`ModelConfig::check`] comes first.
    pub fn parameter_table(&self) -> ParameterTable {
        ModelSpans::new(self).table
    }
}

impl ModelSpans {
    pub fn new(config: &ModelConfig) -> ModelSpans {
        let mut table = ParameterTable::default();
        let hidden = config.hidden_size;
        let embedding = table.push(
            "model.embed_tokens.weight".into(),
            &[config.vocabulary_size, hidden],
            Table,
            INITIAL_DEVIATION,
        );
        let layers = (0..config.layers.len()).map(|index| push_layer(&mut table, config, index)).collect();
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

/// A part of the table that is filled one tensor at a time.
struct Filling<'a> {
    table: &'a mut ParameterTable,
    prefix: String,
}

impl Filling<'_> {
    fn push(&mut self, part: &str, shape: &[usize], kind: ParameterKind, deviation: f64) -> Range<usize> {
        self.table.push(format!("{}{part}", self.prefix), shape, kind, deviation)
    }

    fn matrix(&mut self, part: &str, shape: [usize; 2], deviation: f64) -> Range<usize> {
        self.push(&format!("{part}.weight"), &shape, Matrix, deviation)
    }

    fn norm(&mut self, part: &str, width: usize) -> Range<usize> {
        self.push(&format!("{part}.weight"), &[width], Norm, 0.0)
    }

    fn bias(&mut self, part: &str, width: usize) -> Range<usize> {
        self.push(&format!("{part}.bias"), &[width], Bias, 0.0)
    }
}

fn push_layer(table: &mut ParameterTable, config: &ModelConfig, index: usize) -> LayerSpans {
    let LayerSpecification { attention, feed_forward, norms } = config.layers[index];
    let hidden = config.hidden_size;
    // Projections back into the residual stream are scaled down by the number of additions to it (GPT-2).
    let residual = INITIAL_DEVIATION / (2.0 * config.layers.len() as f64).sqrt();
    let mut filling = Filling { table, prefix: format!("model.layers.{index}.") };
    let (before_attention, before_feed_forward) = match (config.architecture, norms) {
        (Architecture::Apertus, _) => ("attention_layernorm", "feedforward_layernorm"),
        (_, NormPlacement::Around) => ("input_layernorm", "pre_feedforward_layernorm"),
        _ => ("input_layernorm", "post_attention_layernorm"),
    };
    let input_norm = if norms.before() { filling.norm(before_attention, hidden) } else { 0..0 };
    let latent = attention.latent.map(|latent| filling.latent(&attention, latent, hidden));
    let (q, kv) = (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
    let mut fused = 0..0;
    let mut fused_bias = None;
    if latent.is_none() {
        let first = filling.matrix("self_attn.q_proj", [q, hidden], INITIAL_DEVIATION);
        filling.matrix("self_attn.k_proj", [kv, hidden], INITIAL_DEVIATION);
        let last = filling.matrix("self_attn.v_proj", [kv, hidden], INITIAL_DEVIATION);
        fused = first.start..last.end;
        fused_bias = attention.bias.then(|| {
            let first = filling.bias("self_attn.q_proj", q);
            filling.bias("self_attn.k_proj", kv);
            first.start..filling.bias("self_attn.v_proj", kv).end
        });
    }
    let (mut query_norm, mut key_norm) = (None, None);
    if attention.norm != QueryKeyNorm::None {
        let whole = attention.norm == QueryKeyNorm::Projection;
        let width = |heads: usize| attention.head_dim * if whole { heads } else { 1 };
        query_norm = Some(filling.norm("self_attn.q_norm", width(attention.heads)));
        key_norm = Some(filling.norm("self_attn.k_norm", width(attention.kv_heads)));
    }
    let output = filling.matrix("self_attn.o_proj", [hidden, attention.output_width()], residual);
    let output_bias = attention.output_bias.then(|| filling.bias("self_attn.o_proj", hidden));
    let attention_norm = norms.after().then(|| filling.norm("post_attention_layernorm", hidden));
    let middle_norm = if norms.before() { filling.norm(before_feed_forward, hidden) } else { 0..0 };
    let block = feed_forward.block();
    let (gate_up, down) = match feed_forward.intermediate_size {
        0 => (0..0, 0..0),
        width if feed_forward.activation.gated() => filling.gated(
            [&format!("{block}.gate_proj"), &format!("{block}.up_proj"), &format!("{block}.down_proj")],
            hidden,
            width,
            residual,
        ),
        width => (
            filling.matrix(&format!("{block}.up_proj"), [width, hidden], INITIAL_DEVIATION),
            filling.matrix(&format!("{block}.down_proj"), [hidden, width], residual),
        ),
    };
    let biases = feed_forward.bias.then(|| {
        let width = feed_forward.intermediate_size;
        let first = filling.bias(&format!("{block}.gate_proj"), width);
        let gate_up = first.start..filling.bias(&format!("{block}.up_proj"), width).end;
        (gate_up, filling.bias(&format!("{block}.down_proj"), hidden))
    });
    let activation = (feed_forward.activation == Activation::Xielu).then(|| {
        let first = filling.push("mlp.act_fn.alpha_p", &[1], Bias, 0.0);
        first.start..filling.push("mlp.act_fn.alpha_n", &[1], Bias, 0.0).end
    });
    let mixture =
        feed_forward.mixture.map(|mixture| filling.mixture(config.architecture, mixture, hidden, residual));
    let feed_forward_norm = norms.after().then(|| filling.norm("post_feedforward_layernorm", hidden));
    LayerSpans {
        input_norm,
        fused,
        fused_bias,
        query_norm,
        key_norm,
        latent,
        output,
        output_bias,
        attention_norm,
        middle_norm,
        gate_up,
        down,
        biases,
        activation,
        mixture,
        feed_forward_norm,
    }
}

impl Filling<'_> {
    fn latent(
        &mut self,
        attention: &AttentionSpecification,
        latent: LatentAttention,
        hidden: usize,
    ) -> LatentSpans {
        let LatentAttention { query_rank, rank, rotary_dim, value_dim, .. } = latent;
        let queries = attention.heads * attention.head_dim;
        let plain_dim = attention.head_dim - rotary_dim;
        let query_down = query_rank.map(|width| {
            let down = self.matrix("self_attn.q_a_proj", [width, hidden], INITIAL_DEVIATION);
            (down, self.norm("self_attn.q_a_layernorm", width))
        });
        let query_up = match query_rank {
            Some(width) => self.matrix("self_attn.q_b_proj", [queries, width], INITIAL_DEVIATION),
            None => self.matrix("self_attn.q_proj", [queries, hidden], INITIAL_DEVIATION),
        };
        LatentSpans {
            query_down,
            query_up,
            down: self.matrix("self_attn.kv_a_proj_with_mqa", [rank + rotary_dim, hidden], INITIAL_DEVIATION),
            norm: self.norm("self_attn.kv_a_layernorm", rank),
            up: self.matrix(
                "self_attn.kv_b_proj",
                [attention.heads * (plain_dim + value_dim), rank],
                INITIAL_DEVIATION,
            ),
        }
    }

    fn mixture(
        &mut self,
        architecture: Architecture,
        mixture: MixtureSpecification,
        hidden: usize,
        residual: f64,
    ) -> MixtureSpans {
        let width = mixture.intermediate_size;
        let (block, [gate, up, down]) = match architecture {
            Architecture::Mixtral => ("block_sparse_moe", ["w1", "w3", "w2"]),
            _ => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
        };
        let router = self.matrix(&format!("{block}.gate"), [mixture.experts, hidden], INITIAL_DEVIATION);
        let router_bias = match mixture.scoring {
            Scoring::Sigmoid => {
                self.push("mlp.gate.e_score_correction_bias", &[mixture.experts], RouterBias, 0.0)
            }
            Scoring::Softmax => 0..0,
        };
        let first = self.table.length();
        for expert in 0..mixture.experts {
            let name = |part: &str| format!("{block}.experts.{expert}.{part}");
            self.gated([&name(gate), &name(up), &name(down)], hidden, width, residual);
        }
        let experts = first..self.table.length();
        MixtureSpans { router, router_bias, experts, expert_length: 3 * width * hidden }
    }

    /// Gate and up as one matrix, and down.
    fn gated(
        &mut self,
        [gate, up, down]: [&str; 3],
        hidden: usize,
        width: usize,
        residual: f64,
    ) -> (Range<usize>, Range<usize>) {
        let gate = self.matrix(gate, [width, hidden], INITIAL_DEVIATION);
        let up = self.matrix(up, [width, hidden], INITIAL_DEVIATION);
        (gate.start..up.end, self.matrix(down, [hidden, width], residual))
    }
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
}
