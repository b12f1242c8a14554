//! Keys that are read, written, and refused.

use super::*;
use serde_json::{Map, json};

fn parse(change: impl FnOnce(&mut Map<String, Value>)) -> Result<ModelConfig, String> {
    let mut keys: Map<String, Value> =
        serde_json::from_str(&ModelConfig::tiny_for_tests(64).to_json()).unwrap();
    change(&mut keys);
    let config = ModelConfig::from_keys(&keys)?;
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn what_is_written_reads_back() {
    assert_eq!(parse(|_| {}), Ok(ModelConfig::tiny_for_tests(64)));
    for architecture in [Architecture::Llama, Architecture::Qwen2] {
        let mut config = ModelConfig::tiny_for_tests(64);
        config.architecture = architecture;
        for layer in &mut config.layers {
            layer.attention.norm = QueryKeyNorm::None;
            layer.attention.bias = architecture == Architecture::Qwen2;
        }
        let keys: Map<String, Value> = serde_json::from_str(&config.to_json()).unwrap();
        assert_eq!(ModelConfig::from_keys(&keys), Ok(config));
    }
}

fn parse_mixture(change: impl FnOnce(&mut Map<String, Value>)) -> Result<ModelConfig, String> {
    let text = ModelConfig::tiny_mixture_for_tests(64).to_json();
    let mut keys: Map<String, Value> = serde_json::from_str(&text).unwrap();
    change(&mut keys);
    let config = ModelConfig::from_keys(&keys)?;
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn a_mixture_reads_back_and_nonsense_is_refused() {
    assert_eq!(parse_mixture(|_| {}), Ok(ModelConfig::tiny_mixture_for_tests(64)));
    for (key, value, expected) in [
        ("n_routed_experts", json!(0), "0 routed experts"),
        ("n_routed_experts", json!(7), "7 routed experts do not make 2"),
        ("n_routed_experts", Value::Null, "n_routed_experts is missing"),
        ("n_routed_experts", json!(1 << 20), "1048576 routed experts"),
        ("n_shared_experts", json!(0), "n_shared_experts is 0"),
        ("n_shared_experts", json!(1 << 23), "intermediate_size"),
        ("num_experts_per_tok", json!(5), "num_experts_per_tok is 5, expected 1 to 4"),
        ("num_experts_per_tok", json!(0), "num_experts_per_tok is 0"),
        ("moe_intermediate_size", json!(0), "intermediate_size is 0"),
        ("n_group", json!(0), "0 equal groups"),
        ("n_group", json!(8), "8 equal groups of two"),
        ("topk_group", json!(3), "topk_group is 3"),
        ("topk_group", json!(0), "topk_group is 0"),
        ("norm_topk_prob", json!("yes"), "norm_topk_prob"),
        ("routed_scaling_factor", json!(-1.0), "routed_scaling_factor"),
        ("first_k_dense_replace", json!(3), "first_k_dense_replace is 3 of 3 layers"),
        ("scoring_func", json!("softmax"), "scoring_func"),
        ("moe_layer_freq", json!(2), "moe_layer_freq"),
        ("attention_bias", json!(1), "attention_bias"),
        ("num_local_experts", json!(8), "num_local_experts"),
    ] {
        let problem = parse_mixture(|keys| drop(keys.insert(key.into(), value.clone())));
        assert!(
            problem.as_ref().is_err_and(|problem| problem.contains(expected)),
            "{key} {value}: {problem:?}"
        );
    }
    // Windows that transformers would put in by itself.
    let config = parse_mixture(|keys| {
        keys.remove("layer_types");
        keys.remove("sliding_window");
        keys.insert("max_window_layers".into(), json!(2));
    })
    .unwrap();
    let windows: Vec<Option<usize>> = config.layers.iter().map(|layer| layer.attention.window).collect();
    assert_eq!(windows, [None, None, Some(4096)]);
}

#[test]
fn experts_stand_only_where_the_family_has_them() {
    let refuse = |change: &dyn Fn(&mut ModelConfig)| {
        let mut config = ModelConfig::tiny_mixture_for_tests(64);
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    assert!(refuse(&|config| config.architecture = Architecture::Qwen3).contains("layer 1 has experts"));
    assert!(refuse(&|config| config.layers.truncate(1)).contains("no layer has experts"));
    assert!(refuse(&|config| config.layers.swap(0, 1)).contains("same experts in every layer"));
    let softmax = |config: &mut ModelConfig| {
        for mixture in config.layers.iter_mut().filter_map(|layer| layer.feed_forward.mixture.as_mut()) {
            mixture.scoring = Scoring::Softmax;
        }
    };
    assert!(refuse(&softmax).contains("sigmoid"));
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (key, value) in [
        ("architectures", json!(["MambaForCausalLM"])),
        ("hidden_act", json!("gelu")),
        ("rope_scaling", json!({"type": "yarn"})),
        ("rope_parameters", json!({"rope_type": "llama3", "rope_theta": 5.0})),
        ("use_sliding_window", json!("no")),
        ("sliding_window", json!(0)),
        ("attention_bias", json!("no")),
        ("mlp_bias", json!(true)),
        ("attn_logit_softcapping", json!(50.0)),
        ("layer_types", json!(["sliding_attention", "full_attention"])),
        ("num_experts", json!(8)),
        ("hidden_size", json!(-4)),
        ("vocab_size", json!("many")),
        ("num_hidden_layers", json!(1u64 << 40)),
        ("eos_token_id", json!(-1)),
    ] {
        let problem = parse(|keys| drop(keys.insert(key.into(), value))).unwrap_err();
        assert!(problem.contains(key.trim_end_matches('s')), "{key}: {problem}");
    }
    let problem = parse(|keys| drop(keys.remove("vocab_size"))).unwrap_err();
    assert!(problem.contains("vocab_size is missing"), "{problem}");
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    for (key, value, expected) in [
        ("num_key_value_heads", 3, "multiple"),
        ("num_attention_heads", 0, "heads"),
        ("head_dim", 7, "even"),
        ("vocab_size", 0, "vocab_size"),
        ("num_hidden_layers", 0, "layers"),
    ] {
        let problem = parse(|keys| {
            keys.insert(key.into(), json!(value));
            keys.remove("layer_types");
        });
        assert!(problem.as_ref().is_err_and(|problem| problem.contains(expected)), "{key}: {problem:?}");
    }
}

#[test]
fn what_training_does_not_compute_is_refused_there() {
    let keys = |key: &'static str, value: Value| {
        move |keys: &mut Map<String, Value>| {
            keys.insert(key.into(), value);
            keys.insert("sliding_window".into(), json!(8));
            keys.insert("layer_types".into(), json!(["full_attention", "full_attention"]));
        }
    };
    let yarn = json!({"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 2.0});
    for (key, value, expected) in [
        ("attention_bias", json!(true), "layer 0 has a bias on its attention's output"),
        ("rope_parameters", yarn, "layer 0 has a scaled rotary embedding"),
        ("use_cache", json!(true), ""),
    ] {
        let config = parse(keys(key, value)).unwrap();
        match crate::Decoder::new(&config, 8) {
            Ok(_) => assert_eq!(expected, "", "{key}"),
            Err(error) => assert!(error.to_string().contains(expected), "{key}: {error}"),
        }
    }
    let windowed = parse(|keys| {
        keys.insert("sliding_window".into(), json!(8));
        keys.insert("use_sliding_window".into(), json!(true));
        keys.insert("layer_types".into(), json!(["full_attention", "sliding_attention"]));
    });
    let problem = crate::Decoder::new(&windowed.unwrap(), 8).unwrap_err().to_string();
    assert!(problem.contains("layer 1 has a sliding window"), "{problem}");
}

/// A published configuration, shortened, in the spelling of transformers 4.
fn published(text: &str) -> Result<ModelConfig, String> {
    let keys: Map<String, Value> = serde_json::from_str(text).unwrap();
    let config = ModelConfig::from_keys(&keys)?;
    config.check().map_err(|error| error.to_string())?;
    let written: Map<String, Value> = serde_json::from_str(&config.to_json()).unwrap();
    assert_eq!(ModelConfig::from_keys(&written).as_ref(), Ok(&config));
    Ok(config)
}

#[test]
fn the_older_spelling_of_gemma_3_is_understood() {
    let config = published(
        r#"{"architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attn_logit_softcapping": null,
        "bos_token_id": 2, "cache_implementation": "hybrid", "eos_token_id": [1, 106], "final_logit_softcapping": null,
        "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 1152, "intermediate_size": 6912,
        "max_position_embeddings": 32768, "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 26,
        "num_key_value_heads": 1, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000,
        "rope_scaling": null, "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6,
        "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 262144}"#,
    )
    .unwrap();
    let attention = |layer: usize| config.layers[layer].attention;
    assert_eq!((attention(0).window, attention(5).window), (Some(512), None));
    assert_eq!(attention(0).rotary, Some(Rotary::plain(10_000.0)));
    assert_eq!(attention(5).rotary, Some(Rotary::plain(1_000_000.0)));
    assert!(config.tie_embeddings);
    assert_eq!(config.end_tokens, [1, 106]);
}

#[test]
fn the_older_spelling_of_scaled_rope_is_understood() {
    let config = published(
        r#"{"architectures": ["ApertusForCausalLM"], "attention_bias": false, "hidden_act": "xielu", "hidden_dropout": 0.0,
        "hidden_size": 4096, "intermediate_size": 21504, "max_position_embeddings": 65536, "mlp_bias": false,
        "model_type": "apertus", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "post_norm": false, "qk_norm": true, "rms_norm_eps": 1e-05, "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0,
        "low_freq_factor": 1.0, "original_max_position_embeddings": 8192, "rope_type": "llama3", "type": "llama3"},
        "rope_theta": 12000000, "tie_word_embeddings": false, "vocab_size": 131072}"#,
    )
    .unwrap();
    let scaling = RotaryScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192.0 };
    assert_eq!(config.layers[31].attention.rotary, Some(Rotary { theta: 12e6, scaling }));
    let config = published(
        r#"{"architectures": ["Olmo3ForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
        "max_position_embeddings": 65536, "num_attention_heads": 32, "num_hidden_layers": 4, "num_key_value_heads": 32,
        "rms_norm_eps": 1e-06, "rope_scaling": {"attention_factor": 1.2079, "beta_fast": 32, "beta_slow": 1, "factor": 8.0,
        "original_max_position_embeddings": 8192, "rope_type": "yarn"}, "rope_theta": 500000, "sliding_window": 4096,
        "vocab_size": 100278}"#,
    )
    .unwrap();
    assert_eq!(config.layers[2].attention.rotary, Some(Rotary::plain(500_000.0)));
    assert!(matches!(
        config.layers[3].attention.rotary,
        Some(Rotary { scaling: RotaryScaling::Yarn { attention_factor: 1.2079, .. }, .. })
    ));
}

#[test]
fn a_window_is_there_unless_it_is_null() {
    let mistral = |window: &str| {
        published(&format!(
            r#"{{"architectures": ["MistralForCausalLM"], "hidden_size": 64, "intermediate_size": 64,
            "max_position_embeddings": 8192, "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
            {window} "vocab_size": 100}}"#
        ))
        .map(|config| config.layers[1].attention.window)
    };
    assert_eq!(mistral(""), Ok(Some(4096)));
    assert_eq!(mistral(r#""sliding_window": null,"#), Ok(None));
    assert_eq!(mistral(r#""sliding_window": 12,"#), Ok(Some(12)));
    assert!(mistral(r#""layer_types": ["full_attention", "sliding_attention"],"#).is_err());
}

#[test]
fn rope_that_is_not_understood_is_refused() {
    let parse = |rope: Value| parse(|keys| drop(keys.insert("rope_parameters".into(), rope))).unwrap_err();
    for (rope, expected) in [
        (json!({"rope_type": "longrope", "rope_theta": 10_000.0}), "longrope"),
        (json!({"rope_type": "linear", "rope_theta": 10_000.0}), "factor is missing"),
        (json!({"rope_type": "linear", "rope_theta": 10_000.0, "factor": -1.0}), "factor is -1"),
        (json!({"rope_theta": 10_000.0, "factor": 2.0}), "rope_parameters.factor"),
        (json!({"rope_theta": 10_000.0, "partial_rotary_factor": 0.5}), "partial_rotary_factor"),
        (json!({"rope_theta": 5.0}), "rope_theta is 10000"),
        (
            json!({"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "llama_4_scaling_beta": 0.1}),
            "llama_4",
        ),
        (json!([1]), "expected an object"),
    ] {
        let problem = parse(rope.clone());
        assert!(problem.contains(expected), "{rope}: {problem}");
    }
}

#[test]
fn what_the_classes_take_for_granted_is_taken_or_refused() {
    let sizes = r#""hidden_size": 64, "intermediate_size": 64, "max_position_embeddings": 8192, "num_attention_heads": 4,
        "num_hidden_layers": 5, "vocab_size": 100"#;
    let of =
        |class: &str, more: &str| published(&format!(r#"{{"architectures": ["{class}"], {sizes}{more}}}"#));
    // transformers 5 scales RoPE by itself where the key is null, version 4 does not.
    for class in ["ApertusForCausalLM", "Ministral3ForCausalLM"] {
        for more in ["", r#", "rope_scaling": null, "rope_theta": 1e6"#] {
            let problem = of(class, more).unwrap_err();
            assert!(problem.contains("rope_parameters is missing"), "{problem}");
        }
        of(class, r#", "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}"#).unwrap();
    }
    // transformers looks for it in another place.
    let truncate =
        r#", "rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2.0, "truncate": false}}"#;
    let problem = of("Olmo3ForCausalLM", truncate).unwrap_err();
    assert!(problem.contains("rope_parameters.full_attention.truncate is false"), "{problem}");
    // Gemma 3's class has the key and does nothing with it.
    let problem = of("Gemma3ForCausalLM", r#", "attn_logit_softcapping": 50.0"#).unwrap_err();
    assert!(problem.contains("attn_logit_softcapping is 50"), "{problem}");
    let experts = r#", "moe_intermediate_size": 16, "n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 2"#;
    let latent = r#", "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8"#;
    let config = of("DeepseekV3ForCausalLM", &format!("{experts}{latent}")).unwrap();
    let dense = config.layers.iter().take_while(|layer| layer.feed_forward.mixture.is_none()).count();
    let mixture = config.layers[4].feed_forward.mixture.unwrap();
    let found = (dense, mixture.groups, mixture.active_groups, mixture.normalise, mixture.scale);
    assert_eq!(found, (3, 8, 4, true, 2.5));
    // Trainers leave this behind; it changes nothing that is computed here.
    let experts = format!(r#"{experts}, "output_router_logits": true"#);
    let mixture = of("Dots1ForCausalLM", &experts).unwrap().layers[0].feed_forward.mixture.unwrap();
    assert_eq!((mixture.groups, mixture.active_groups, mixture.normalise, mixture.scale), (1, 1, false, 1.0));
}

#[test]
fn what_tuning_leaves_behind_does_not_matter() {
    let left = |keys: &mut Map<String, Value>| {
        let more = json!({
            "unsloth_version": "2025.3", "unsloth_fixed": true, "neftune_noise_alpha": 5, "tokenizer_class": "LlamaTokenizer",
            "use_mrope": false, "gradient_checkpointing": true, "transformers.js_config": {"dtype": "q4"},
        });
        keys.extend(more.as_object().unwrap().clone());
    };
    assert_eq!(parse(left), Ok(ModelConfig::tiny_for_tests(64)));
    for (key, value) in [("use_mrope", json!(true)), ("quantization_config", json!({"bits": 4}))] {
        let problem = parse(|keys| drop(keys.insert(key.into(), value))).unwrap_err();
        assert!(problem.contains(key), "{problem}");
    }
}

#[test]
fn of_pictures_and_text_the_text_is_read() {
    let gemma = |more: &str| {
        published(&format!(
            r#"{{"architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000,
            "eos_token_id": [1, 106], "image_token_index": 262144, "initializer_range": 0.02, "mm_tokens_per_image": 256,
            "model_type": "gemma3", {more} "vision_config": {{"hidden_size": 1152, "model_type": "siglip_vision_model"}}}}"#
        ))
    };
    let text = r#""text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
        "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},"#;
    let config = gemma(text).unwrap();
    assert_eq!(config.architecture, Architecture::Gemma3);
    assert_eq!((config.hidden_size, config.vocabulary_size, config.layers.len()), (2560, 262_208, 34));
    assert_eq!(config.layers[5].attention.rotary.unwrap().scaling, RotaryScaling::Linear { factor: 8.0 });
    assert_eq!(config.end_tokens, [1, 106]);
    for (more, expected) in [
        ("", "text_config"),
        (r#""text_config": {"model_type": "llama"},"#, "text_config.model_type is llama"),
        (r#""text_config": {"model_type": "gemma3_text", "speed": 3},"#, "key speed"),
        (&format!(r#"{text} "speed": 3,"#), "key speed"),
    ] {
        let problem = gemma(more).unwrap_err();
        assert!(problem.contains(expected), "{problem}");
    }
}
