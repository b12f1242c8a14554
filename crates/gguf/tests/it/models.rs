//! Models of every family: from Hugging Face's terms into a file and back, number for number.

use gguf::{ElementType, Export, Format, GgufError, Metadata, Model, Source, Stop, TokenizerFiles};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A model in memory.
#[derive(Clone, Default)]
pub struct Memory(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Memory {
    fn add(&mut self, name: &str, shape: &[usize]) {
        let seed = self.0.len() as f32;
        let length = shape.iter().product::<usize>();
        let values = (0..length).map(|i| ((i as f32 * 0.37 + seed).sin() * 8.0).round() / 8.0).collect();
        self.0.insert(name.to_owned(), (shape.to_vec(), values));
    }
}

impl Source for Memory {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.get(name).map(|tensor| tensor.0.clone())
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn read(&mut self, name: &str, out: &mut [f32]) -> Result<(), Stop> {
        out.copy_from_slice(&self.0[name].1);
        Ok(())
    }
}

const HIDDEN: usize = 32;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD: usize = 16;
const WIDTH: usize = 64;
const VOCABULARY: usize = 12;
const LAYERS: usize = 4;
const EXPERTS: usize = 3;

fn config(class: &str, more: Value) -> Map<String, Value> {
    let base = json!({
        "architectures": [class], "hidden_size": HIDDEN, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD, "num_hidden_layers": LAYERS, "intermediate_size": WIDTH, "vocab_size": VOCABULARY,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "bos_token_id": 1, "eos_token_id": [2, 3],
        "rope_parameters": { "rope_type": "default", "rope_theta": 10000.0 }, "tie_word_embeddings": false,
    });
    let mut config = base.as_object().unwrap().clone();
    config.extend(more.as_object().unwrap().clone());
    config
}

/// The tensors of a layer: parts of their names after `model.layers.N.`.
fn memory(parts: &[(&str, &[usize])], head: bool) -> Memory {
    let mut memory = Memory::default();
    memory.add("model.embed_tokens.weight", &[VOCABULARY, HIDDEN]);
    memory.add("model.norm.weight", &[HIDDEN]);
    if head {
        memory.add("lm_head.weight", &[VOCABULARY, HIDDEN]);
    }
    for layer in 0..LAYERS {
        for (part, shape) in parts {
            memory.add(&format!("model.layers.{layer}.{part}"), shape);
        }
    }
    memory
}

const ATTENTION: [(&str, &[usize]); 4] = [
    ("self_attn.q_proj.weight", &[HEADS * HEAD, HIDDEN]),
    ("self_attn.k_proj.weight", &[KV_HEADS * HEAD, HIDDEN]),
    ("self_attn.v_proj.weight", &[KV_HEADS * HEAD, HIDDEN]),
    ("self_attn.o_proj.weight", &[HIDDEN, HEADS * HEAD]),
];
const EQUAL_HEADS: [(&str, &[usize]); 4] = [
    ("self_attn.q_proj.weight", &[HEADS * HEAD, HIDDEN]),
    ("self_attn.k_proj.weight", &[HEADS * HEAD, HIDDEN]),
    ("self_attn.v_proj.weight", &[HEADS * HEAD, HIDDEN]),
    ("self_attn.o_proj.weight", &[HIDDEN, HEADS * HEAD]),
];
const GATED: [(&str, &[usize]); 3] = [
    ("mlp.gate_proj.weight", &[WIDTH, HIDDEN]),
    ("mlp.up_proj.weight", &[WIDTH, HIDDEN]),
    ("mlp.down_proj.weight", &[HIDDEN, WIDTH]),
];
const NORMS: [(&str, &[usize]); 2] =
    [("input_layernorm.weight", &[HIDDEN]), ("post_attention_layernorm.weight", &[HIDDEN])];
const HEAD_NORMS: [(&str, &[usize]); 2] =
    [("self_attn.q_norm.weight", &[HEAD]), ("self_attn.k_norm.weight", &[HEAD])];

fn parts<'a>(lists: &[&[(&'a str, &'a [usize])]]) -> Vec<(&'a str, &'a [usize])> {
    lists.concat()
}

fn write(config: &Map<String, Value>, memory: &mut Memory, format: Format) -> Result<Vec<u8>, GgufError> {
    let export = Export::plan(config, None, memory, "test", format)?;
    let mut bytes = Vec::new();
    export.write(memory, &mut bytes, &mut |_| Ok(()))?;
    Ok(bytes)
}

fn opened(bytes: &[u8], check: impl FnOnce(Result<Model, GgufError>)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    check(Model::open(&path));
}

/// A whole model, for damage.
pub fn tiny_llama() -> Vec<u8> {
    let mut memory = memory(&parts(&[&ATTENTION, &GATED, &NORMS]), true);
    write(&config("LlamaForCausalLM", json!({ "attention_bias": false })), &mut memory, Format::F32).unwrap()
}

/// Writes and reads: the same tensors, and every key of `config` that the file knows has the same value.
fn check(class: &str, more: Value, mut memory: Memory) -> Map<String, Value> {
    let config = config(class, more);
    let bytes = write(&config, &mut memory, Format::F32).unwrap_or_else(|error| panic!("{class}: {error}"));
    let again = write(&config, &mut memory, Format::F32).unwrap();
    assert_eq!(bytes, again);
    let mut found = Map::new();
    opened(&bytes, |model| {
        let model = model.unwrap_or_else(|error| panic!("{class}: {error}"));
        assert_eq!(model.config()["architectures"][0], class);
        assert_eq!(model.names().collect::<Vec<_>>(), memory.0.keys().collect::<Vec<_>>(), "{class}");
        for (name, (shape, values)) in &memory.0 {
            assert_eq!(model.shape(name), Some(&shape[..]), "{class} {name}");
            let mut read = vec![0.0; values.len()];
            model.read(name, &mut read).unwrap();
            assert_eq!(&read, values, "{class} {name}");
            if let &[rows, columns] = &shape[..] {
                let (first, last) = (rows / 3, rows - rows / 4);
                let mut some = vec![0.0; (last - first) * columns];
                model.read_rows(name, first, &mut some).unwrap();
                assert_eq!(some, values[first * columns..last * columns], "{class} {name} from row {first}");
                assert!(
                    model.read_rows(name, rows, &mut some).is_err(),
                    "{class} {name}: rows that are not there"
                );
            }
            if let (Some(element), 2) = (model.element_type(name), shape.len()) {
                let mut stored = vec![0; element.row_bytes(shape[1]).unwrap() * shape[0]];
                model.read_stored_rows(name, 0, &mut stored).unwrap();
                gguf::dequantise(element, &stored, &mut read);
                assert_eq!(&read, values, "{class} {name} as stored");
            }
        }
        for key in ["hidden_size", "head_dim", "rms_norm_eps", "num_key_value_heads", "tie_word_embeddings"] {
            assert_eq!(model.config()[key], config[key], "{class} {key}");
        }
        found = model.config().clone();
    });
    found
}

#[test]
fn dense_families_come_back() {
    let plain = parts(&[&ATTENTION, &GATED, &NORMS]);
    let with_norms = parts(&[&ATTENTION, &GATED, &NORMS, &HEAD_NORMS]);
    let biases: [(&str, &[usize]); 3] = [
        ("self_attn.q_proj.bias", &[HEADS * HEAD]),
        ("self_attn.k_proj.bias", &[KV_HEADS * HEAD]),
        ("self_attn.v_proj.bias", &[KV_HEADS * HEAD]),
    ];
    check("LlamaForCausalLM", json!({ "attention_bias": false }), memory(&plain, true));
    let tied = check("LlamaForCausalLM", json!({ "tie_word_embeddings": true }), memory(&plain, false));
    assert_eq!(tied["tie_word_embeddings"], true);
    let biased = parts(&[&plain, &biases, &[("self_attn.o_proj.bias", &[HIDDEN])]]);
    let found = check("LlamaForCausalLM", json!({ "attention_bias": true }), memory(&biased, true));
    assert_eq!(found["attention_bias"], true);
    check(
        "Qwen2ForCausalLM",
        json!({ "use_sliding_window": false }),
        memory(&parts(&[&plain, &biases]), true),
    );
    let found = check("Qwen3ForCausalLM", json!({ "attention_bias": false }), memory(&with_norms, true));
    assert_eq!(found["rope_theta"], 10_000.0);
    let found = check(
        "SmolLM3ForCausalLM",
        json!({ "no_rope_layers": [1, 1, 1, 0], "tie_word_embeddings": true }),
        memory(&plain, false),
    );
    assert_eq!(found["no_rope_layers"], json!([1, 1, 1, 0]));
}

#[test]
fn families_with_windows_and_other_norms_come_back() {
    let four: [(&str, &[usize]); 4] = [
        ("input_layernorm.weight", &[HIDDEN]),
        ("post_attention_layernorm.weight", &[HIDDEN]),
        ("pre_feedforward_layernorm.weight", &[HIDDEN]),
        ("post_feedforward_layernorm.weight", &[HIDDEN]),
    ];
    let tied = json!({ "tie_word_embeddings": true });
    let with = |more: Value| {
        let mut all = tied.as_object().unwrap().clone();
        all.extend(more.as_object().unwrap().clone());
        Value::Object(all)
    };
    let capped = json!({
        "sliding_window": 128, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "query_pre_attn_scalar": HEAD,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    });
    let found =
        check("Gemma2ForCausalLM", with(capped.clone()), memory(&parts(&[&ATTENTION, &GATED, &four]), false));
    assert_eq!(found["layer_types"], capped["layer_types"]);
    assert_eq!(found["attn_logit_softcapping"], 50.0);
    let mut unsaid = capped.clone();
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        unsaid.as_object_mut().unwrap().remove(key);
    }
    let found = check("Gemma2ForCausalLM", with(unsaid), memory(&parts(&[&ATTENTION, &GATED, &four]), false));
    assert_eq!(
        (&found["attn_logit_softcapping"], &found["final_logit_softcapping"]),
        (&json!(50.0), &json!(30.0))
    );
    let bases = json!({
        "sliding_window": 64, "query_pre_attn_scalar": HEAD,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": { "rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0 },
            "sliding_attention": { "rope_type": "default", "rope_theta": 10000.0 },
        },
    });
    let gemma = parts(&[&ATTENTION, &GATED, &four, &HEAD_NORMS]);
    let found = check("Gemma3ForCausalLM", with(bases.clone()), memory(&gemma, false));
    assert_eq!(found["rope_parameters"], bases["rope_parameters"]);
    assert_eq!(found["layer_types"], bases["layer_types"]);
    // The same said by a number, as transformers 4 does.
    let mut by_number = bases.clone();
    by_number.as_object_mut().unwrap().remove("layer_types");
    by_number["sliding_window_pattern"] = json!(2);
    let found = check("Gemma3ForCausalLM", with(by_number), memory(&gemma, false));
    assert_eq!(found["layer_types"], bases["layer_types"]);
    let wide: [(&str, &[usize]); 2] =
        [("self_attn.q_norm.weight", &[HEADS * HEAD]), ("self_attn.k_norm.weight", &[KV_HEADS * HEAD])];
    let behind = parts(&[&ATTENTION, &GATED, &wide, &four[1..2], &four[3..]]);
    check("Olmo2ForCausalLM", json!({}), memory(&behind, true));
    let windows = json!({
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
    });
    let found = check("Olmo3ForCausalLM", windows.clone(), memory(&behind, true));
    assert_eq!(found["layer_types"], windows["layer_types"]);
    let apertus: [(&str, &[usize]); 8] = [
        ("attention_layernorm.weight", &[HIDDEN]),
        ("feedforward_layernorm.weight", &[HIDDEN]),
        ("mlp.up_proj.weight", &[WIDTH, HIDDEN]),
        ("mlp.down_proj.weight", &[HIDDEN, WIDTH]),
        ("mlp.act_fn.alpha_p", &[1]),
        ("mlp.act_fn.alpha_n", &[1]),
        ("mlp.act_fn.beta", &[]),
        ("mlp.act_fn.eps", &[]),
    ];
    let llama3 = json!({
        "rope_type": "llama3", "rope_theta": 12_000_000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    });
    let found = check(
        "ApertusForCausalLM",
        json!({ "hidden_act": "xielu", "rope_parameters": llama3 }),
        memory(&parts(&[&ATTENTION, &HEAD_NORMS, &apertus]), true),
    );
    assert_eq!(found["rope_parameters"], llama3);
}

#[test]
fn mixtures_come_back() {
    let experts = |block: &str, names: [&str; 3], router: &str| {
        let mut all: Vec<(String, Vec<usize>)> = vec![(router.to_owned(), vec![EXPERTS, HIDDEN])];
        for expert in 0..EXPERTS {
            for (name, shape) in names.iter().zip([[WIDTH, HIDDEN], [WIDTH, HIDDEN], [HIDDEN, WIDTH]]) {
                all.push((format!("{block}.experts.{expert}.{name}.weight"), shape.to_vec()));
            }
        }
        all
    };
    let add = |mut memory: Memory, layers: std::ops::Range<usize>, parts: &[(String, Vec<usize>)]| {
        for layer in layers {
            parts.iter().for_each(|(part, shape)| memory.add(&format!("model.layers.{layer}.{part}"), shape));
        }
        memory
    };
    let proj = ["gate_proj", "up_proj", "down_proj"];
    let base = memory(&parts(&[&ATTENTION, &NORMS, &HEAD_NORMS]), true);
    let moe = add(base.clone(), 0..LAYERS, &experts("mlp", proj, "mlp.gate.weight"));
    let settings = json!({
        "num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": WIDTH, "norm_topk_prob": true,
    });
    check("Qwen3MoeForCausalLM", settings.clone(), moe.clone());
    // Where the width of a head is not said, it is this family's hidden_size / num_attention_heads.
    let mut unsaid = config("Qwen3MoeForCausalLM", settings.clone());
    unsaid.remove("head_dim");
    opened(&write(&unsaid, &mut moe.clone(), Format::F32).unwrap(), |model| {
        assert_eq!(model.unwrap().config()["head_dim"], HIDDEN / HEADS);
    });
    let mut unlike = settings;
    unlike["norm_topk_prob"] = json!(false);
    let error = write(&config("Qwen3MoeForCausalLM", unlike), &mut moe.clone(), Format::F32).unwrap_err();
    assert!(error.to_string().contains("norm_topk_prob is false"), "{error}");

    let plain = memory(&parts(&[&ATTENTION, &NORMS]), true);
    let names = ["w1", "w3", "w2"];
    let mixtral = add(plain, 0..LAYERS, &experts("block_sparse_moe", names, "block_sparse_moe.gate.weight"));
    check("MixtralForCausalLM", json!({ "num_local_experts": EXPERTS, "num_experts_per_tok": 2 }), mixtral);

    let dense: Vec<_> = GATED.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    let mut routed = experts("mlp", proj, "mlp.gate.weight");
    routed.push(("mlp.gate.e_score_correction_bias".into(), vec![EXPERTS]));
    for (name, shape) in GATED {
        routed.push((name.replace("mlp.", "mlp.shared_experts."), shape.to_vec()));
    }
    let base = memory(&parts(&[&EQUAL_HEADS, &NORMS, &HEAD_NORMS]), true);
    let dots = add(add(base, 0..1, &dense), 1..LAYERS, &routed);
    let settings = json!({
        "n_routed_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": WIDTH, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "norm_topk_prob": true, "routed_scaling_factor": 2.5, "n_group": 1, "topk_group": 1,
        "num_key_value_heads": HEADS,
    });
    let found = check("Dots1ForCausalLM", settings.clone(), dots.clone());
    for key in settings.as_object().unwrap().keys() {
        assert_eq!(found[key], settings[key], "{key}");
    }
    let mut grouped = settings;
    grouped["n_group"] = json!(3);
    assert!(write(&config("Dots1ForCausalLM", grouped), &mut dots.clone(), Format::F32).is_err());
}

/// llama.cpp wants as many heads of keys as of queries from Dots1, and an output projection: both are written out.
#[test]
fn shared_heads_and_tables_are_written_out_where_llama_cpp_shares_nothing() {
    let mut memory = memory(&parts(&[&ATTENTION, &NORMS, &HEAD_NORMS, &GATED]), false);
    let settings = json!({
        "n_routed_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": WIDTH, "n_shared_experts": 1,
        "first_k_dense_replace": LAYERS, "norm_topk_prob": true, "tie_word_embeddings": true,
    });
    let bytes = write(&config("Dots1ForCausalLM", settings), &mut memory, Format::F32).unwrap();
    opened(&bytes, |model| {
        let model = model.unwrap();
        assert_eq!(model.config()["num_key_value_heads"], HEADS);
        assert_eq!(model.config()["tie_word_embeddings"], false);
        let mut table = vec![0.0; VOCABULARY * HIDDEN];
        model.read("lm_head.weight", &mut table).unwrap();
        assert_eq!(table, memory.0["model.embed_tokens.weight"].1);
        let mut keys = vec![0.0; HEADS * HEAD * HIDDEN];
        model.read("model.layers.1.self_attn.k_proj.weight", &mut keys).unwrap();
        let head = HEAD * HIDDEN;
        for (index, found) in keys.chunks_exact(head).enumerate() {
            let shared = index / (HEADS / KV_HEADS);
            assert_eq!(found, &memory.0["model.layers.1.self_attn.k_proj.weight"].1[shared * head..][..head]);
        }
    });
}

#[test]
fn heads_are_turned_as_llama_cpp_wants_them() {
    let mut memory = memory(&parts(&[&ATTENTION, &GATED, &NORMS]), true);
    let bytes = write(&config("LlamaForCausalLM", json!({})), &mut memory, Format::F32).unwrap();
    opened(&bytes, |model| {
        let model = model.unwrap();
        let mut stored = vec![0; HEADS * HEAD * HIDDEN * 4];
        model.file().read_bytes("blk.1.attn_q.weight", 0, &mut stored).unwrap();
        let values = &memory.0["model.layers.1.self_attn.q_proj.weight"].1;
        let row = |row: usize| {
            values[row * HIDDEN..][..HIDDEN].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()
        };
        // Second head: its first row, then the row half a head on, which turns with it.
        assert_eq!(stored[HEAD * HIDDEN * 4..][..HIDDEN * 4], row(HEAD));
        assert_eq!(stored[(HEAD + 1) * HIDDEN * 4..][..HIDDEN * 4], row(HEAD + HEAD / 2));
        assert_eq!(stored[(HEAD + 2) * HIDDEN * 4..][..HIDDEN * 4], row(HEAD + 1));
    });
}

#[test]
fn formats_store_matrices_alone() {
    let mut memory = memory(&parts(&[&ATTENTION, &GATED, &NORMS]), true);
    let config = config("LlamaForCausalLM", json!({}));
    for (format, matrix, head) in [
        (Format::F16, ElementType::F16, ElementType::F16),
        (Format::Bf16, ElementType::Bf16, ElementType::Bf16),
        (Format::Q8_0, ElementType::Q8_0, ElementType::Q8_0),
        (Format::Q4_0, ElementType::Q4_0, ElementType::Q8_0),
    ] {
        let bytes = write(&config, &mut memory, format).unwrap();
        opened(&bytes, |model| {
            let model = model.unwrap();
            assert_eq!(model.element_type("model.layers.0.mlp.up_proj.weight"), Some(matrix));
            assert_eq!(model.element_type("lm_head.weight"), Some(head));
            assert_eq!(model.element_type("model.norm.weight"), Some(ElementType::F32));
            let name = "model.layers.3.self_attn.k_proj.weight";
            let mut read = vec![0.0; KV_HEADS * HEAD * HIDDEN];
            model.read(name, &mut read).unwrap();
            let worst = read.iter().zip(&memory.0[name].1).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Half a step of Q4_0, and a whole one where 1 is cut to 7/8.
            assert!(worst <= 0.125, "{format:?} {worst}");
        });
    }
    memory.0.get_mut("lm_head.weight").unwrap().1[7] = f32::NAN;
    let error = write(&config, &mut memory, Format::Q8_0).unwrap_err().to_string();
    assert!(error.contains("output.weight holds a number that is not finite"), "{error}");
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let plain = parts(&[&ATTENTION, &GATED, &NORMS]);
    let refuse = |class: &str, more: Value, mut memory: Memory, expected: &str| {
        let error = write(&config(class, more), &mut memory, Format::F32).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}\n  expected: {expected}");
    };
    refuse("GPT2LMHeadModel", json!({}), memory(&plain, true), "GPT2LMHeadModel is not one of");
    refuse(
        "LlamaForCausalLM",
        json!({ "hidden_size": null }),
        memory(&plain, true),
        "hidden_size is missing",
    );
    refuse(
        "MistralForCausalLM",
        json!({ "sliding_window": 64 }),
        memory(&plain, true),
        "sliding_window is 64",
    );
    let dynamic = json!({ "rope_parameters": { "rope_type": "dynamic", "rope_theta": 1e4 } });
    refuse("LlamaForCausalLM", dynamic, memory(&plain, true), "rope_type is \"dynamic\"");
    let yarn = |more: Value| {
        let mut yarn = json!({ "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0,
                               "original_max_position_embeddings": 64 });
        yarn.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "rope_parameters": yarn })
    };
    assert!(
        write(&config("LlamaForCausalLM", yarn(json!({}))), &mut memory(&plain, true), Format::F32).is_ok()
    );
    for (more, expected) in [
        (json!({ "truncate": false }), "rope_parameters.truncate is false"),
        (json!({ "attention_factor": 1.5 }), "rope_parameters.attention_factor is 1.5"),
        (json!({ "mscale": 0.7 }), "rope_parameters.mscale is 0.7"),
        (json!({ "long_factor": [1] }), "rope_parameters.long_factor is [1]"),
    ] {
        refuse("LlamaForCausalLM", yarn(more), memory(&plain, true), expected);
    }
    // What llama.cpp would not open, or compute otherwise.
    let llama3 = json!({ "rope_parameters": { "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192 } });
    let two_bases = json!({ "sliding_window": 64, "rope_parameters": {
        "full_attention": { "rope_type": "default", "rope_theta": 1e6 },
        "sliding_attention": { "rope_type": "default", "rope_theta": 1e4 } } });
    for (class, more, expected) in [
        ("LlamaForCausalLM", yarn(json!({ "beta_fast": 8.0 })), "rope_parameters.beta_fast is 8"),
        ("Qwen2ForCausalLM", yarn(json!({ "beta_slow": 2.0 })), "rope_parameters.beta_slow is 2"),
        ("Qwen3ForCausalLM", llama3, "rope_type is llama3"),
        ("Qwen3ForCausalLM", json!({ "attention_bias": true }), "attention_bias is true"),
        ("SmolLM3ForCausalLM", json!({ "mlp_bias": true }), "mlp_bias is true"),
        ("Olmo3ForCausalLM", two_bases, "rope_theta of layers with a window"),
        ("Gemma2ForCausalLM", json!({ "attn_logit_softcapping": null }), "attn_logit_softcapping is null"),
        ("Gemma2ForCausalLM", json!({}), "tie_word_embeddings is false"),
    ] {
        refuse(class, more, memory(&plain, true), expected);
    }
    let mut strange = memory(&plain, true);
    strange.add("model.layers.0.mlp.extra.weight", &[2, 2]);
    refuse("LlamaForCausalLM", json!({}), strange, "mlp.extra.weight belongs to no part");

    // A key of the file that nobody asked for: the same file with one letter of a key changed.
    let bytes = tiny_llama();
    let key = b"llama.rope.freq_base";
    let place = bytes.windows(key.len()).position(|window| window == key).unwrap();
    let mut changed = bytes.clone();
    changed[place + key.len() - 1] = b'X';
    opened(&changed, |model| {
        let error = model.unwrap_err().to_string();
        assert!(error.contains("key llama.rope.freq_basX is not understood"), "{error}");
    });
    let name = b"blk.2.ffn_up";
    let place = bytes.windows(name.len()).position(|window| window == name).unwrap();
    let mut changed = bytes;
    changed[place + name.len() - 1] = b'X';
    opened(&changed, |model| {
        let error = model.unwrap_err().to_string();
        assert!(error.contains("tensor blk.2.ffn_uX.weight belongs to no part"), "{error}");
    });
    assert!(Model::open(Path::new("nowhere.gguf")).unwrap_err().to_string().contains("nowhere.gguf"));
}

/// A model with a tokenizer and `rows` embeddings, and the warning of its writer.
pub fn tiny_with_tokenizer(files: &TokenizerFiles, rows: usize) -> (Vec<u8>, Option<String>) {
    let (export, mut memory) = plan_with_tokenizer(files, rows).unwrap();
    let mut bytes = Vec::new();
    export.write(&mut memory, &mut bytes, &mut |_| Ok(())).unwrap();
    (bytes, export.warning)
}

/// What such a file would be, or why it is refused.
pub fn plan_with_tokenizer(files: &TokenizerFiles, rows: usize) -> Result<(Export, Memory), GgufError> {
    let mut memory = memory(&[], false);
    memory.0.insert("model.embed_tokens.weight".into(), (vec![rows, HIDDEN], vec![0.0; rows * HIDDEN]));
    let config = config(
        "LlamaForCausalLM",
        json!({ "vocab_size": rows, "eos_token_id": [1, 2], "tie_word_embeddings": true }),
    );
    Ok((Export::plan(&config, Some(files), &mut memory, "test", Format::F32)?, memory))
}

/// The metadata of a model without a tokenizer.
pub fn metadata_of_tiny_llama() -> Metadata {
    let mut found = Metadata::new();
    opened(&tiny_llama(), |model| found = model.unwrap().file().metadata().clone());
    found
}
