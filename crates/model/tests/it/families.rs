//! Every family against transformers (`tools/oracles/make_families.py`): the same tokens at once, in chunks of odd sizes, and
//! one by one.

use model::{
    Adapter, AdapterConfig, InferenceModel, LogitRows, ModelConfig, ModelError, Projection, SequenceChunk,
    Tensors, WeightFormat, WeightsReader, write_safetensors,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const TOKENS: usize = 40;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families").join(name)
}

fn tokens(folder: &Path) -> Vec<u32> {
    serde_json::from_slice(&std::fs::read(folder.join("tokens.json")).unwrap()).unwrap()
}

/// The logits of all tokens, which must have the same bits whichever way (tokens of a chunk, threads) they come.
fn same_bits(name: &str, model: &InferenceModel, tokens: &[u32], ways: &[(usize, usize)]) -> Vec<f32> {
    let mut bits: Option<Vec<f32>> = None;
    for &(chunk, threads) in ways {
        let (mut cache, mut workspace) = (model.new_cache(1), model.new_workspace(1, threads));
        let mut found = Vec::new();
        for first_position in (0..tokens.len()).step_by(chunk) {
            let tokens = &tokens[first_position..(first_position + chunk).min(tokens.len())];
            let logits = LogitRows::All;
            let chunk =
                SequenceChunk { tokens, first_position, blocks: &[0], adapter: None, logits, answer: false };
            found.extend_from_slice(model.forward(&[chunk], &mut cache, &mut workspace).unwrap());
        }
        assert!(*bits.get_or_insert(found.clone()) == found, "{name}, chunks of {chunk}: other bits");
    }
    bits.unwrap()
}

fn check(name: &str) {
    let folder = folder(name);
    let tokens = tokens(&folder);
    let model = InferenceModel::load(&folder).unwrap();
    let vocabulary = model.config().vocabulary_size;
    let mut expected = vec![0.0; TOKENS * vocabulary];
    WeightsReader::open(&folder.join("logits.safetensors"))
        .unwrap()
        .read_shaped("logits", &[TOKENS, vocabulary], &mut expected)
        .unwrap();
    let scale = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();

    let all = [(TOKENS, 1), (17, 2), (5, 1), (1, 1)];
    let found = same_bits(name, &model, &tokens, &all);
    let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale;
    assert!(worst < 1e-4, "{name}: {worst:e} of the logits' scale");

    // Formats with fewer bits: near enough that no matrix is another's, and no less firm.
    for (format, most) in [(WeightFormat::Bf16, 0.2), (WeightFormat::Q8, 0.2), (WeightFormat::Q4, 1.0)] {
        let model = InferenceModel::load_as(&folder, format).unwrap();
        let found = same_bits(name, &model, &tokens, &[(TOKENS, 1), (7, 2)]);
        let error = found.iter().zip(&expected).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let error = (error / expected.len() as f32).sqrt() / scale;
        assert!(error < most, "{name}, {format:?}: {error} of the logits' scale");
    }

    // What is written again says the same.
    let again = tempfile::tempdir().unwrap();
    std::fs::write(again.path().join("config.json"), model.config().to_json()).unwrap();
    assert_eq!(&ModelConfig::load(&again.path().join("config.json")).unwrap(), model.config(), "{name}");
}

macro_rules! families {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            check(stringify!($name));
        }
    )*};
}

families!(
    llama,
    llama_linear,
    mistral,
    ministral,
    ministral3,
    mixtral,
    qwen2,
    qwen3,
    qwen3_moe,
    qwen3_moe_unnormed,
    apertus,
    olmo2,
    olmo3,
    gemma2,
    gemma3,
    smollm3,
    dots1,
    deepseek_v3,
    deepseek_v3_plain,
    gemma3_with_pictures,
    mistral3_with_pictures,
);

/// The logits of the family's tokens, with one key of its configuration changed.
fn logits_with(name: &str, change: impl FnOnce(&mut Value)) -> Vec<f32> {
    let folder = folder(name);
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    change(&mut config);
    let changed = tempfile::tempdir().unwrap();
    std::fs::write(changed.path().join("config.json"), config.to_string()).unwrap();
    std::fs::copy(folder.join("model.safetensors"), changed.path().join("model.safetensors")).unwrap();
    let model = InferenceModel::load(changed.path()).unwrap();
    let (mut cache, mut workspace) = (model.new_cache(1), model.new_workspace(1, 1));
    let tokens = tokens(&folder);
    let chunk = SequenceChunk {
        tokens: &tokens,
        first_position: 0,
        blocks: &[0],
        adapter: None,
        logits: LogitRows::All,
        answer: false,
    };
    model.forward(&[chunk], &mut cache, &mut workspace).unwrap().to_vec()
}

#[test]
fn every_switch_counts() {
    let rope = |key: &'static str, value: Value| (["rope_parameters", key], value);
    let top = |key: &'static str, value: Value| (["", key], value);
    for (name, ([outer, key], value)) in [
        ("llama", rope("factor", json!(4.0))),
        ("llama", rope("original_max_position_embeddings", json!(32))),
        ("llama", rope("high_freq_factor", json!(2.0))),
        ("llama_linear", rope("factor", json!(2.0))),
        ("mistral", top("sliding_window", json!(8))),
        ("ministral", top("layer_types", json!(["full_attention", "sliding_attention"]))),
        ("ministral3", rope("llama_4_scaling_beta", json!(0.2))),
        ("ministral3", rope("mscale_all_dim", json!(1.0))),
        ("ministral3", rope("beta_fast", json!(4.0))),
        ("ministral3", rope("beta_slow", json!(0.9))),
        ("mixtral", top("num_experts_per_tok", json!(3))),
        ("mixtral", top("sliding_window", Value::Null)),
        ("qwen2", top("use_sliding_window", json!(false))),
        ("qwen3", rope("truncate", json!(true))),
        ("qwen3", top("rms_norm_eps", json!(1e-2))),
        ("qwen3_moe", top("norm_topk_prob", json!(false))),
        ("apertus", rope("factor", json!(4.0))),
        ("olmo3", top("sliding_window", json!(7))),
        ("gemma2", top("attn_logit_softcapping", Value::Null)),
        ("gemma2", top("final_logit_softcapping", json!(8.0))),
        ("gemma2", top("query_pre_attn_scalar", json!(21))),
        ("gemma3", top("sliding_window", json!(9))),
        ("smollm3", top("no_rope_layers", json!([1, 1, 1]))),
        ("dots1", top("routed_scaling_factor", json!(1.0))),
        ("dots1", top("topk_group", json!(4))),
        ("deepseek_v3", rope("mscale_all_dim", json!(0.0))),
        ("deepseek_v3", top("rope_interleave", json!(false))),
        ("deepseek_v3", top("norm_topk_prob", json!(false))),
    ] {
        let before = logits_with(name, |_| {});
        let after = logits_with(name, |config| match outer {
            "" if key == "use_sliding_window" => {
                config[key] = value.clone();
                config["layer_types"] = Value::Null;
            }
            "" => config[key] = value.clone(),
            outer => config[outer][key] = value.clone(),
        });
        let worst = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst > 1e-3, "{name}: {key} = {value} changes the logits by {worst:e} only");
    }
}

#[test]
fn tensors_that_follow_from_the_configuration_may_be_there() {
    let folder = folder("llama_linear");
    let config = ModelConfig::load(&folder.join("config.json")).unwrap();
    /// The folder's tensors, and one more.
    struct OneMore(WeightsReader, &'static str);
    impl Tensors for OneMore {
        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            if name == self.1 { Some(vec![1]) } else { self.0.shape(name) }
        }
        fn names(&self) -> Vec<String> {
            self.0.names().into_iter().chain([self.1.to_string()]).collect()
        }
        fn read_rows(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), ModelError> {
            assert_ne!(name, self.1);
            self.0.read_rows(name, first, out)
        }
    }
    for (name, fine) in [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", true),
        ("lm_head.weight", true),
        ("model.layers.2.mlp.up_proj.weight", false),
        ("model.layers.0.mlp.act_fn.beta", false),
    ] {
        let tensors = OneMore(WeightsReader::open_folder(&folder).unwrap(), name);
        let result = InferenceModel::load_with(&config, &tensors, WeightFormat::F32, 1);
        match result {
            Ok(_) => assert!(fine, "{name}"),
            Err(error) => {
                assert!(!fine && error.to_string().contains(name), "{name}: {error}");
            }
        }
    }
}

#[test]
fn an_output_table_of_its_own_counts_though_the_configuration_ties_it() {
    let source = folder("llama_linear");
    let tokens = tokens(&source);
    let reader = WeightsReader::open_folder(&source).unwrap();
    let shape = reader.shape("model.embed_tokens.weight").unwrap();
    let mut table = vec![0.0; shape.iter().product()];
    reader.read("model.embed_tokens.weight", &mut table).unwrap();
    let logits = |head: Option<(&[f32], bool)>| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(source.join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(source.join("config.json")).unwrap()).unwrap();
        if let Some((head, tied)) = head {
            config["tie_word_embeddings"] = json!(tied);
            add_tensor(&folder.path().join("model.safetensors"), "lm_head.weight", &shape, head);
        }
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let model = InferenceModel::load(folder.path()).unwrap();
        let sizes = model::ModelSizes::of_path(folder.path(), WeightFormat::F32).unwrap();
        assert_eq!(sizes.weight_bytes(), model.weight_bytes());
        (model.config().tie_embeddings, same_bits("tied", &model, &tokens, &[(TOKENS, 1)]))
    };
    let other: Vec<f32> = table.iter().rev().copied().collect();
    assert!(logits(Some((&table, true))) == logits(None), "the same table twice is one");
    let untied = logits(Some((&other, false)));
    assert!(untied != logits(None));
    assert!(logits(Some((&other, true))) == untied, "the tensors count");
}

/// Adds an F32 tensor to a safetensors file.
fn add_tensor(path: &Path, name: &str, shape: &[usize], values: &[f32]) {
    let whole = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut header: serde_json::Map<String, Value> = serde_json::from_slice(&whole[8..8 + length]).unwrap();
    let data = &whole[8 + length..];
    let offsets = json!([data.len(), data.len() + 4 * values.len()]);
    header.insert(name.into(), json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets }));
    let text = serde_json::to_string(&header).unwrap();
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

#[cfg(unix)]
#[test]
fn what_has_no_end_is_not_read() {
    let source = folder("olmo2");
    for name in ["config.json", "model.safetensors", "model.safetensors.index.json"] {
        let target = tempfile::tempdir().unwrap();
        for other in ["config.json", "model.safetensors"].iter().filter(|other| !name.starts_with(**other)) {
            std::fs::copy(source.join(other), target.path().join(other)).unwrap();
        }
        std::os::unix::fs::symlink("/dev/zero", target.path().join(name)).unwrap();
        let problem = InferenceModel::load(target.path()).unwrap_err().to_string();
        assert!(problem.contains(name) && problem.contains("no regular file"), "{problem}");
    }
}

#[test]
fn shards_are_read_as_one_model() {
    let source = folder("olmo2");
    let whole = std::fs::read(source.join("model.safetensors")).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&whole[8..8 + length]).unwrap();
    let target = tempfile::tempdir().unwrap();
    let mut map = serde_json::Map::new();
    let names: Vec<&String> = header.keys().filter(|name| *name != "__metadata__").collect();
    for (shard, names) in names.chunks(names.len().div_ceil(3)).enumerate() {
        let file = format!("model-{shard}.safetensors");
        let (mut part, mut data) = (serde_json::Map::new(), Vec::new());
        for name in names {
            let entry = &header[*name];
            let at = |i: usize| 8 + length + entry["data_offsets"][i].as_u64().unwrap() as usize;
            let begin = data.len();
            data.extend_from_slice(&whole[at(0)..at(1)]);
            let offsets = json!([begin, data.len()]);
            part.insert(
                (*name).clone(),
                json!({ "dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": offsets }),
            );
            map.insert((*name).clone(), json!(file));
        }
        let text = serde_json::to_string(&part).unwrap();
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.extend(data);
        std::fs::write(target.path().join(file), bytes).unwrap();
    }
    std::fs::copy(source.join("config.json"), target.path().join("config.json")).unwrap();
    let index = |map: &serde_json::Map<String, Value>| {
        let path = target.path().join("model.safetensors.index.json");
        std::fs::write(path, json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    };
    index(&map);
    InferenceModel::load(target.path()).unwrap();
    std::fs::remove_file(target.path().join("model-1.safetensors")).unwrap();
    assert!(InferenceModel::load(target.path()).unwrap_err().to_string().contains("model-1.safetensors"));
    map.retain(|_, file| file != "model-1.safetensors");
    index(&map);
    assert!(InferenceModel::load(target.path()).unwrap_err().to_string().contains("is missing"));
}

/// Every place in a configuration, as a JSON pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        found.push(format!("{at}/{key}"));
        places(value, &format!("{at}/{key}"), found);
    }
}

#[test]
fn hostile_configurations_end_in_errors() {
    let values = [
        json!(null),
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(1 << 24),
        json!(u64::MAX),
        json!(1e-308),
        json!(1e308),
        json!(-0.5),
        json!("x"),
        json!([]),
        json!([0, 1u64 << 40]),
        json!({}),
        json!(true),
        json!(false),
    ];
    let (mut accepted, mut refused) = (0, 0);
    for name in std::fs::read_dir(folder("")).unwrap() {
        let folder = name.unwrap().path();
        let text = std::fs::read(folder.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&text).unwrap();
        let mut all = Vec::new();
        places(&config, "", &mut all);
        for place in all {
            for value in &values {
                let mut config = config.clone();
                *config.pointer_mut(&place).unwrap() = value.clone();
                let Value::Object(keys) = config else { unreachable!() };
                let Ok(config) = ModelConfig::from_keys(&keys) else {
                    refused += 1;
                    continue;
                };
                if config.check().is_err() {
                    refused += 1;
                    continue;
                }
                accepted += 1;
                let text = config.to_json();
                let again = ModelConfig::from_keys(&serde_json::from_str(&text).unwrap());
                assert_eq!(again.as_ref(), Ok(&config), "{folder:?}: {place} = {value}");
                // Loading looks at the tensors' shapes before it takes memory.
                if let Ok(tensors) = WeightsReader::open_folder(&folder) {
                    drop(InferenceModel::load_with(&config, &tensors, WeightFormat::F32, 1));
                }
            }
        }
    }
    assert!(accepted > 100 && refused > 1000, "{accepted} accepted, {refused} refused");
}

#[test]
fn an_adapter_beside_a_model_does_what_it_does_merged() {
    use Projection::{Down, Gate, Key, Output, Query, Up};
    for (name, targets) in [
        ("apertus", vec![Query, Key, Projection::Value, Output, Up, Down]),
        ("olmo2", Projection::ALL.to_vec()),
        ("gemma3", Projection::ALL.to_vec()),
        ("gemma3_with_pictures", Projection::ALL.to_vec()),
        ("mixtral", vec![Query, Key, Projection::Value, Output]),
        ("dots1", vec![Projection::Value, Gate, Up, Down]),
        ("deepseek_v3", vec![Output, Gate, Up, Down]),
    ] {
        let folder = folder(name);
        let model = InferenceModel::load(&folder).unwrap();
        let shape = AdapterConfig { rank: 4, alpha: 8.0, targets };
        let mut adapter = Adapter::new(model.config(), shape, 7).unwrap();
        for (i, value) in adapter.values.iter_mut().enumerate() {
            *value = 0.05 * compute::random::normal(7, i as u64) as f32;
        }
        let written = tempfile::tempdir().unwrap();
        std::fs::write(written.path().join("adapter_config.json"), adapter.to_json()).unwrap();
        let mut file = std::fs::File::create(written.path().join("adapter_model.safetensors")).unwrap();
        write_safetensors(&mut file, adapter.table(), &adapter.values).unwrap();
        let merged = InferenceModel::load_merged(&folder, written.path(), WeightFormat::F32, 2).unwrap();
        let tokens = tokens(&folder);
        let run = |model: &InferenceModel, adapter: Option<&Adapter>| {
            let chunk = SequenceChunk {
                tokens: &tokens,
                first_position: 0,
                blocks: &[0],
                adapter,
                logits: LogitRows::All,
                answer: false,
            };
            model.forward(&[chunk], &mut model.new_cache(1), &mut model.new_workspace(1, 1)).unwrap().to_vec()
        };
        let (plain, apart, together) = (run(&model, None), run(&model, Some(&adapter)), run(&merged, None));
        let furthest = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(furthest(&apart, &together) < 1e-3, "{name}: {}", furthest(&apart, &together));
        assert!(furthest(&plain, &together) > 0.05, "{name}: {}", furthest(&plain, &together));
    }
    let mixtral = ModelConfig::load(&folder("mixtral").join("config.json")).unwrap();
    let shape = AdapterConfig { rank: 4, alpha: 8.0, targets: vec![Gate] };
    assert!(Adapter::new(&mixtral, shape, 7).unwrap_err().to_string().contains("gate_proj"));
}
