//! The families that both sides know, and what their tensors are called in a GGUF file and in Hugging Face's layout
//! (`gguf-py/gguf/tensor_mapping.py` and `conversion/` of llama.cpp).

/// A family of decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Llama,
    Mixtral,
    Ministral3,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Dots1,
    Gemma2,
    Gemma3,
    Olmo2,
    Olmo3,
    Apertus,
    SmolLm3,
}

/// Family, architecture in GGUF, class and `model_type` in Hugging Face's layout.
const FAMILIES: [(Family, &str, &str, &str); 13] = [
    (Family::Llama, "llama", "LlamaForCausalLM", "llama"),
    (Family::Mixtral, "llama", "MixtralForCausalLM", "mixtral"),
    (Family::Ministral3, "mistral3", "Ministral3ForCausalLM", "ministral3"),
    (Family::Qwen2, "qwen2", "Qwen2ForCausalLM", "qwen2"),
    (Family::Qwen3, "qwen3", "Qwen3ForCausalLM", "qwen3"),
    (Family::Qwen3Moe, "qwen3moe", "Qwen3MoeForCausalLM", "qwen3_moe"),
    (Family::Dots1, "dots1", "Dots1ForCausalLM", "dots1"),
    (Family::Gemma2, "gemma2", "Gemma2ForCausalLM", "gemma2"),
    (Family::Gemma3, "gemma3", "Gemma3ForCausalLM", "gemma3_text"),
    (Family::Olmo2, "olmo2", "Olmo2ForCausalLM", "olmo2"),
    (Family::Olmo3, "olmo2", "Olmo3ForCausalLM", "olmo3"),
    (Family::Apertus, "apertus", "ApertusForCausalLM", "apertus"),
    (Family::SmolLm3, "smollm3", "SmolLM3ForCausalLM", "smollm3"),
];

impl Family {
    /// The family of an architecture; the two that share a name with another are told apart later.
    pub fn of_architecture(architecture: &str) -> Result<Family, String> {
        FAMILIES.iter().find(|entry| entry.1 == architecture).map(|entry| entry.0).ok_or_else(|| {
            let mut known: Vec<&str> = FAMILIES.iter().map(|entry| entry.1).collect();
            known.dedup();
            format!(
                "general.architecture {architecture:?} is not supported; supported are: {}",
                known.join(", ")
            )
        })
    }

    /// The family of a class in `config.json`. Mistral's models are Llama's as long as no layer has a window.
    pub fn of_class(class: &str) -> Result<Family, String> {
        if class == "MistralForCausalLM" {
            return Ok(Family::Llama);
        }
        FAMILIES.iter().find(|entry| entry.2 == class).map(|entry| entry.0).ok_or_else(|| {
            let known: Vec<&str> = FAMILIES.iter().map(|entry| entry.2).collect();
            format!("the architecture {class} is not one of {}", known.join(", "))
        })
    }

    fn entry(self) -> &'static (Family, &'static str, &'static str, &'static str) {
        FAMILIES.iter().find(|entry| entry.0 == self).unwrap_or(&FAMILIES[0])
    }

    pub fn architecture(self) -> &'static str {
        self.entry().1
    }

    pub fn class(self) -> &'static str {
        self.entry().2
    }

    pub fn model_type(self) -> &'static str {
        self.entry().3
    }

    /// Whether the rows of queries and keys stand in the rotary order of the first Llama: pairs that turn together are
    /// neighbours, where Hugging Face's layout has them half a head apart.
    pub fn turns_neighbours(self) -> bool {
        matches!(self, Family::Llama | Family::Mixtral | Family::Ministral3 | Family::SmolLm3)
    }

    /// Whether norms are stored as 1 + w.
    pub fn norms_hold_one_more(self) -> bool {
        matches!(self, Family::Gemma2 | Family::Gemma3)
    }

    /// Whether llama.cpp wants an output projection even where it is the embedding table.
    pub fn repeats_table(self) -> bool {
        matches!(self, Family::Dots1 | Family::Olmo2 | Family::Olmo3 | Family::Apertus)
    }

    /// Whether llama.cpp wants as many heads of keys and values as of queries.
    pub fn repeats_heads(self) -> bool {
        self == Family::Dots1
    }

    /// Whether llama.cpp loads Llama 3's factors of the rotary frequencies; it opens no file that holds more than it loads.
    pub fn loads_rotary_factors(self) -> bool {
        matches!(self, Family::Llama | Family::Mixtral | Family::Ministral3 | Family::Apertus)
    }

    /// Whether llama.cpp loads a bias on the attention's output.
    pub fn loads_output_bias(self) -> bool {
        self.loads_rotary_factors()
    }

    /// Whether llama.cpp loads biases of the feed-forward part.
    pub fn loads_feed_forward_biases(self) -> bool {
        matches!(self, Family::Llama | Family::Ministral3)
    }

    /// Whether llama.cpp follows YaRN's bounds where they are not 32 and 1 turns.
    pub fn follows_yarn_bounds(self) -> bool {
        self == Family::Ministral3
    }

    /// The names of a layer's tensors: in the file, and in Hugging Face's layout. Endings (`.weight`, `.bias`) are the same.
    pub fn layer_names(self) -> Vec<(&'static str, &'static str)> {
        let mut names = vec![
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("attn_q_norm", "self_attn.q_norm"),
            ("attn_k_norm", "self_attn.k_norm"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ];
        match self {
            Family::Gemma2 | Family::Gemma3 => names.extend([
                ("attn_norm", "input_layernorm"),
                ("post_attention_norm", "post_attention_layernorm"),
                ("ffn_norm", "pre_feedforward_layernorm"),
                ("post_ffw_norm", "post_feedforward_layernorm"),
            ]),
            Family::Olmo2 | Family::Olmo3 => names.extend([
                ("post_attention_norm", "post_attention_layernorm"),
                ("post_ffw_norm", "post_feedforward_layernorm"),
            ]),
            Family::Apertus => {
                names.extend([("attn_norm", "attention_layernorm"), ("ffn_norm", "feedforward_layernorm")]);
            }
            _ => names.extend([("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")]),
        }
        match self {
            Family::Mixtral => names.push(("ffn_gate_inp", "block_sparse_moe.gate")),
            Family::Qwen3Moe | Family::Dots1 => names.push(("ffn_gate_inp", "mlp.gate")),
            _ => {}
        }
        if self == Family::Dots1 {
            names.extend([
                ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
                ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
                ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
            ]);
        }
        names
    }

    /// The names of the matrices that a layer's experts have each: in the file, where all experts are one tensor, and in
    /// Hugging Face's layout, before and after the expert's number.
    pub fn expert_names(self) -> &'static [(&'static str, &'static str, &'static str)] {
        match self {
            Family::Mixtral => &[
                ("ffn_gate_exps", "block_sparse_moe.experts", "w1"),
                ("ffn_up_exps", "block_sparse_moe.experts", "w3"),
                ("ffn_down_exps", "block_sparse_moe.experts", "w2"),
            ],
            Family::Qwen3Moe | Family::Dots1 => &[
                ("ffn_gate_exps", "mlp.experts", "gate_proj"),
                ("ffn_up_exps", "mlp.experts", "up_proj"),
                ("ffn_down_exps", "mlp.experts", "down_proj"),
            ],
            _ => &[],
        }
    }
}

/// Tensors outside of the layers, in the file and in Hugging Face's layout.
pub(crate) const OUTER_NAMES: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Llama 3's factors of the rotary frequencies, which stand in a tensor instead of the metadata.
pub(crate) const ROTARY_FACTORS: &str = "rope_freqs.weight";

/// What is added to the experts' scores where they are chosen, in the file and in Hugging Face's layout.
pub(crate) const ROUTER_BIAS: (&str, &str) = ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias");

/// Apertus' activation has four numbers a layer, which are metadata in the file and tensors in Hugging Face's layout:
/// key, tensor, whether the tensor has a dimension.
pub(crate) const XIELU: [(&str, &str, bool); 4] = [
    ("xielu.alpha_p", "mlp.act_fn.alpha_p", true),
    ("xielu.alpha_n", "mlp.act_fn.alpha_n", true),
    ("xielu.beta", "mlp.act_fn.beta", false),
    ("xielu.eps", "mlp.act_fn.eps", false),
];

/// Where row `row` of a head of `rows` rows in Hugging Face's order stands in the order of neighbours.
pub(crate) fn neighbour_row(row: usize, rows: usize) -> usize {
    let half = rows / 2;
    if row < half { 2 * row } else { 2 * (row - half) + 1 }
}

/// Llama 3's factors of the rotary frequencies (`_compute_llama3_parameters` of transformers), [head_dim / 2].
pub(crate) fn llama3_factors(theta: f64, head_dim: usize, scaling: &Llama3Scaling) -> Vec<f32> {
    let Llama3Scaling { factor, low, high, original } = *scaling;
    (0..head_dim / 2)
        .map(|pair| {
            let wavelength = 2.0 * std::f64::consts::PI * theta.powf(2.0 * pair as f64 / head_dim as f64);
            let factor = if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                1.0 / ((1.0 - smooth) / factor + smooth)
            };
            factor as f32
        })
        .collect()
}

/// Llama 3's stretching of the rotary frequencies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Llama3Scaling {
    pub factor: f64,
    pub low: f64,
    pub high: f64,
    pub original: f64,
}

impl Llama3Scaling {
    /// The setting that gives these factors, among those that published models have.
    pub fn recover(theta: f64, head_dim: usize, factors: &[f32]) -> Option<Llama3Scaling> {
        let factor = f64::from(factors.iter().fold(1.0f32, |most, &factor| most.max(factor)));
        for (low, high) in [(1.0, 4.0), (1.0, 8.0), (1.0, 2.0), (2.0, 4.0), (1.0, 32.0)] {
            for power in (4..=20).rev() {
                let scaling = Llama3Scaling { factor, low, high, original: f64::from(1 << power) };
                let expected = llama3_factors(theta, head_dim, &scaling);
                let same = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * b.abs();
                if expected.len() == factors.len() && factors.iter().zip(&expected).all(same) {
                    return Some(scaling);
                }
            }
        }
        None
    }
}
