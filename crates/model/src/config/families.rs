//! The families of decoders that open here, and what each of them takes for granted.

/// A family, as transformers' class names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// RMSNorm, RoPE, grouped queries, SwiGLU, no biases.
    Llama,
    /// Llama with biases on queries, keys and values.
    Qwen2,
    /// Llama with an RMS norm on each head of queries and keys: the shape of our own models.
    Qwen3,
    /// Qwen3's attention with DeepSeek-V3's mixture of experts: the shape of our own sparse models.
    Dots1,
    /// Llama with a sliding window.
    Mistral,
    /// Mistral with the window in some layers.
    Ministral,
    /// Mistral with YaRN and queries that grow with their position.
    Ministral3,
    /// Mistral with experts instead of a feed-forward layer.
    Mixtral,
    /// Qwen3 with experts in most layers.
    Qwen3Moe,
    /// Qwen3's attention, and a feed-forward layer without a gate and with xIELU.
    Apertus,
    /// Norms behind attention and feed-forward layer, and over the whole of queries and keys.
    Olmo2,
    /// Olmo2 with a sliding window in three of four layers.
    Olmo3,
    /// Norms before and behind, GELU, capped scores and logits, a window in every other layer.
    Gemma2,
    /// Gemma2 with head norms instead of caps, a window in five of six layers, and another RoPE base in those.
    Gemma3,
    /// Llama without RoPE in every fourth layer.
    SmolLm3,
    /// Latent attention and DeepSeek's mixture of experts.
    DeepseekV3,
}

/// What a configuration of a family need not say.
pub(super) struct Defaults {
    pub class: &'static str,
    pub model_type: &'static str,
    pub rope_theta: f64,
    pub norm_epsilon: f64,
    pub tie_embeddings: bool,
    /// Where it is not hidden_size / num_attention_heads.
    pub head_dim: Option<usize>,
    /// Width of the windows, where the key is absent (null says that there are none).
    pub window: Option<usize>,
    pub activation: &'static str,
}

impl Architecture {
    pub(super) const ALL: [Architecture; 16] = [
        Architecture::Llama,
        Architecture::Qwen2,
        Architecture::Qwen3,
        Architecture::Dots1,
        Architecture::Mistral,
        Architecture::Ministral,
        Architecture::Ministral3,
        Architecture::Mixtral,
        Architecture::Qwen3Moe,
        Architecture::Apertus,
        Architecture::Olmo2,
        Architecture::Olmo3,
        Architecture::Gemma2,
        Architecture::Gemma3,
        Architecture::SmolLm3,
        Architecture::DeepseekV3,
    ];

    /// The name of transformers' class.
    pub fn class(self) -> &'static str {
        self.defaults().class
    }

    pub(super) fn defaults(self) -> Defaults {
        let plain = |class, model_type| Defaults {
            class,
            model_type,
            rope_theta: 10_000.0,
            norm_epsilon: 1e-6,
            tie_embeddings: false,
            head_dim: None,
            window: None,
            activation: "silu",
        };
        let gemma = |class, model_type| Defaults {
            tie_embeddings: true,
            head_dim: Some(256),
            window: Some(4096),
            activation: "gelu_pytorch_tanh",
            ..plain(class, model_type)
        };
        match self {
            Architecture::Llama => plain("LlamaForCausalLM", "llama"),
            Architecture::Qwen2 => Defaults { window: Some(4096), ..plain("Qwen2ForCausalLM", "qwen2") },
            Architecture::Qwen3 => {
                Defaults { head_dim: Some(128), window: Some(4096), ..plain("Qwen3ForCausalLM", "qwen3") }
            }
            Architecture::Dots1 => Defaults { window: Some(4096), ..plain("Dots1ForCausalLM", "dots1") },
            Architecture::Mistral => {
                Defaults { window: Some(4096), ..plain("MistralForCausalLM", "mistral") }
            }
            Architecture::Ministral => {
                Defaults { window: Some(4096), ..plain("MinistralForCausalLM", "ministral") }
            }
            Architecture::Ministral3 => Defaults {
                head_dim: Some(128),
                norm_epsilon: 1e-5,
                rope_theta: 1_000_000.0,
                ..plain("Ministral3ForCausalLM", "ministral3")
            },
            Architecture::Mixtral => Defaults {
                norm_epsilon: 1e-5,
                rope_theta: 1_000_000.0,
                ..plain("MixtralForCausalLM", "mixtral")
            },
            Architecture::Qwen3Moe => {
                Defaults { window: Some(4096), ..plain("Qwen3MoeForCausalLM", "qwen3_moe") }
            }
            Architecture::Apertus => Defaults {
                norm_epsilon: 1e-5,
                rope_theta: 12_000_000.0,
                activation: "xielu",
                ..plain("ApertusForCausalLM", "apertus")
            },
            Architecture::Olmo2 => Defaults { norm_epsilon: 1e-5, ..plain("Olmo2ForCausalLM", "olmo2") },
            Architecture::Olmo3 => Defaults {
                norm_epsilon: 1e-5,
                rope_theta: 500_000.0,
                window: Some(4096),
                ..plain("Olmo3ForCausalLM", "olmo3")
            },
            Architecture::Gemma2 => gemma("Gemma2ForCausalLM", "gemma2"),
            Architecture::Gemma3 => {
                Defaults { rope_theta: 1_000_000.0, ..gemma("Gemma3ForCausalLM", "gemma3_text") }
            }
            Architecture::SmolLm3 => Defaults {
                rope_theta: 2_000_000.0,
                tie_embeddings: true,
                ..plain("SmolLM3ForCausalLM", "smollm3")
            },
            Architecture::DeepseekV3 => plain("DeepseekV3ForCausalLM", "deepseek_v3"),
        }
    }

    /// Whether `attention_bias` may put biases on queries, keys, values and the output.
    pub(super) fn attention_bias_is_a_choice(self) -> bool {
        !matches!(
            self,
            Architecture::Qwen2
                | Architecture::Mistral
                | Architecture::Ministral
                | Architecture::Ministral3
                | Architecture::Mixtral
        )
    }

    /// Whether RoPE has parameters for each kind of layer.
    pub(super) fn rotary_by_kind(self) -> bool {
        matches!(self, Architecture::Olmo3 | Architecture::Gemma3)
    }

    /// Whether the class of transformers has a scaling of its own where the configuration names none. Version 4 took it where
    /// the key was absent, version 5 takes it where the key is null as well.
    pub(super) fn scales_rope_unasked(self) -> bool {
        matches!(self, Architecture::Apertus | Architecture::Ministral3)
    }

    /// Whether `use_sliding_window` says if there are windows at all.
    pub(super) fn windows_are_a_switch(self) -> bool {
        matches!(
            self,
            Architecture::Qwen2 | Architecture::Qwen3 | Architecture::Qwen3Moe | Architecture::SmolLm3
        )
    }

    /// Whether a mixture has experts that every token passes.
    pub(crate) fn has_shared_experts(self) -> bool {
        matches!(self, Architecture::Dots1 | Architecture::DeepseekV3)
    }

    /// Whether an RMS norm's weight counts from 1.
    pub(crate) fn norms_count_from_one(self) -> bool {
        matches!(self, Architecture::Gemma2 | Architecture::Gemma3)
    }
}
