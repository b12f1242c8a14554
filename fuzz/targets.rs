//! What is fuzzed: each file format that eulalia opens from strangers, from its bytes to the place where the result would be
//! used. An input may be refused; it may not crash, hang, or take memory beyond its own size and that of a small model.
//!
//! The same functions run under `cargo fuzz` (`fuzz_targets/`) and over mutated seeds in the tests of crate `inference`.

use std::fs;
use std::path::{Path, PathBuf};

use model::testing::write_random_model;
use model::{
    Adapter, AdapterConfig, InferenceModel, LogitRows, ModelConfig, Projection, SequenceChunk, WeightFormat,
    write_safetensors,
};
use serde_json::{Value, json};
use tokenizer::{Conversation, Moment, Tokenizer};

/// What is done with an input.
pub type Run = fn(&Ground, &[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Run); 5] = [
    ("safetensors", safetensors),
    ("gguf", gguf_file),
    ("config", config),
    ("chat_template", chat_template),
    ("adapter", adapter),
];

/// A folder with a small sound model, tokenizer, GGUF file and adapter, in which targets put files in the place of sound
/// ones.
pub struct Ground {
    _folder: tempfile::TempDir,
    sound: PathBuf,
    adapter: PathBuf,
    gguf: PathBuf,
    model: InferenceModel,
}

impl Ground {
    /// Makes the files.
    pub fn new() -> Ground {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let [sound, adapter] = ["model", "adapter"].map(|name| folder.path().join(name));
        let gguf = folder.path().join("model.gguf");
        for path in [&sound, &adapter] {
            fs::create_dir(path).expect("a new folder");
        }
        let config = ModelConfig::tiny_for_tests(260);
        write_random_model(&sound, &config, 1);
        inference::testing::write_byte_tokenizer(&sound).expect("room for small files");
        write_adapter(&adapter, &config);
        write_gguf(&sound, &gguf);
        let model = InferenceModel::load(&sound).expect("a sound model");
        Ground { _folder: folder, sound, adapter, gguf, model }
    }

    /// Sound inputs of a target, to begin from.
    pub fn seeds(&self, target: &str) -> Vec<Vec<u8>> {
        let read = |path: PathBuf| fs::read(path).expect("a file of the ground");
        match target {
            "safetensors" => vec![read(self.sound.join("model.safetensors"))],
            "gguf" => vec![read(self.gguf.clone())],
            "config" => {
                let mut seeds = vec![read(self.sound.join("config.json"))];
                seeds.extend(CONFIGS.map(|text| text.as_bytes().to_vec()));
                seeds
            }
            "chat_template" => TEMPLATES.map(|text| text.as_bytes().to_vec()).to_vec(),
            "adapter" => vec![
                read(self.adapter.join("adapter_config.json")),
                read(self.adapter.join("adapter_model.safetensors")),
            ],
            _ => Vec::new(),
        }
    }

    /// Puts `bytes` in the place of a file while `run` looks at it.
    fn with_file(&self, path: &Path, bytes: &[u8], run: impl FnOnce()) {
        let sound = fs::read(path).expect("a file of the ground");
        fs::write(path, bytes).expect("room for a small file");
        run();
        fs::write(path, sound).expect("room for a small file");
    }
}

/// Weights beside a sound configuration.
pub fn safetensors(ground: &Ground, bytes: &[u8]) {
    let format = [WeightFormat::F32, WeightFormat::Q8][bytes.len() % 2];
    ground.with_file(&ground.sound.join("model.safetensors"), bytes, || {
        run(InferenceModel::load_as(&ground.sound, format).ok());
    });
}

/// A whole model with its tokenizer in one file.
pub fn gguf_file(ground: &Ground, bytes: &[u8]) {
    ground.with_file(&ground.gguf, bytes, || {
        run(InferenceModel::load(&ground.gguf).ok());
        if let Ok(tokenizer) = Tokenizer::load(&ground.gguf) {
            let _ = tokenizer.encode_prompt("Dzień dobry <|im_end|> 123");
            let _ = tokenizer.render_conversation(&conversation());
        }
    });
}

/// A configuration beside sound weights.
pub fn config(ground: &Ground, bytes: &[u8]) {
    ground.with_file(&ground.sound.join("config.json"), bytes, || {
        run(InferenceModel::load(&ground.sound).ok());
    });
}

/// A chat template over a conversation with everything in it.
pub fn chat_template(_: &Ground, bytes: &[u8]) {
    let template = String::from_utf8_lossy(bytes);
    let tokens = json!({"bos_token": "<s>", "eos_token": "</s>"});
    if let Ok(tokenizer) = Tokenizer::with_chat_template(&template, &tokens) {
        let _ = tokenizer.render_conversation(&conversation());
    }
}

/// Either file of an adapter beside the other: what begins like JSON is its configuration.
pub fn adapter(ground: &Ground, bytes: &[u8]) {
    let name = if bytes.starts_with(b"{") { "adapter_config.json" } else { "adapter_model.safetensors" };
    ground.with_file(&ground.adapter.join(name), bytes, || {
        let _ = ground.model.load_adapter(&ground.adapter);
    });
}

/// A model that was not refused computes a few tokens.
fn run(model: Option<InferenceModel>) {
    let Some(model) = model else { return };
    let chunk = SequenceChunk {
        tokens: &[0, 1, 2],
        first_position: 0,
        blocks: &[0],
        adapter: None,
        logits: LogitRows::Last,
        answer: false,
    };
    let (mut cache, mut workspace) = (model.new_cache(1), model.new_workspace(3, 1));
    let _ = model.forward(&[chunk], &mut cache, &mut workspace);
}

fn conversation() -> Conversation {
    let call = json!({"type": "function", "id": "123456789", "function": {"name": "f", "arguments": {"a": [1, 2.5, null]}}});
    let messages = json!([
        {"role": "system", "content": "Ħelow"}, {"role": "user", "content": "<b>\"\\\n"},
        {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "4", "tool_call_id": "123456789"},
        {"role": "assistant", "content": "<think>\na\n</think>\n\nb"}, {"role": "user", "content": "?"}
    ]);
    let tool = json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "number"}}}, "required": ["a"]}}});
    Conversation {
        messages: messages.as_array().cloned().unwrap_or_default(),
        tools: Some(vec![tool]),
        add_generation_prompt: true,
        now: Some(Moment::from_unix(0)),
        ..Conversation::default()
    }
}

fn write_adapter(folder: &Path, model: &ModelConfig) {
    let targets = vec![Projection::Query, Projection::Value];
    let adapter =
        Adapter::new(model, AdapterConfig { rank: 4, alpha: 8.0, targets }, 3).expect("a sound adapter");
    fs::write(folder.join("adapter_config.json"), adapter.to_json()).expect("room for a small file");
    let mut file = fs::File::create(folder.join("adapter_model.safetensors")).expect("a new file");
    write_safetensors(&mut file, adapter.table(), &adapter.values).expect("room for a small file");
}

/// The model of a folder as a GGUF file.
fn write_gguf(folder: &Path, path: &Path) {
    struct Source(Box<dyn model::Tensors>);
    impl gguf::Source for Source {
        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            self.0.shape(name)
        }
        fn names(&self) -> Vec<String> {
            self.0.names()
        }
        fn read(&mut self, name: &str, out: &mut [f32]) -> Result<(), gguf::Stop> {
            Ok(self.0.read(name, out)?)
        }
    }
    let json = |name: &str| -> Value {
        let bytes = fs::read(folder.join(name)).expect("a file of the model");
        serde_json::from_slice(&bytes).expect("sound JSON")
    };
    let files =
        gguf::TokenizerFiles { tokenizer: json("tokenizer.json"), config: json("tokenizer_config.json") };
    let config = json("config.json").as_object().cloned().unwrap_or_default();
    let mut source = Source(Box::new(model::WeightsReader::open_folder(folder).expect("a sound model")));
    let export =
        gguf::Export::plan(&config, Some(&files), &mut source, "small", gguf::Format::Q8_0).expect("a plan");
    let mut file = fs::File::create(path).expect("a new file");
    export.write(&mut source, &mut file, &mut |_| Ok(())).expect("room for a small file");
}

/// Configurations of other families, whose keys the mutations then change.
const CONFIGS: [&str; 3] = [
    r#"{"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "intermediate_size": 48, "vocab_size": 260, "rms_norm_eps": 1e-6, "max_position_embeddings": 128, "rope_theta": 10000.0,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}, "tie_word_embeddings": true}"#,
    r#"{"model_type": "deepseek_v3", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "kv_lora_rank": 8,
        "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "intermediate_size": 48, "n_routed_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "vocab_size": 260, "max_position_embeddings": 128, "rms_norm_eps": 1e-6}"#,
    r#"{"model_type": "gemma2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
        "intermediate_size": 48, "vocab_size": 260, "sliding_window": 16, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0, "max_position_embeddings": 128, "rms_norm_eps": 1e-6}"#,
];

/// Templates whose pieces the mutations then mix.
const TEMPLATES: [&str; 5] = [
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content | trim }}[/INST]{% elif m.tool_calls %}{{ m.tool_calls | tojson(indent=2) }}{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}",
    "{% macro t(s, n=2) %}{% if n > 0 %}{{ s * n }}{{ t(s, n - 1) }}{% endif %}{% endmacro %}{{ t('ab', n=3) }}{{ strftime_now('%d %B %Y') }}{{ raise_exception('x') if messages | length == 0 }}",
    "{% set ns = namespace(a=[], s='') %}{% for m in messages[::-1] %}{% set ns.a = ns.a + [m.content.split('\\n')[-1]] %}{% set ns.s = ns.s ~ loop.index0 ~ '%s' % m.role %}{% endfor %}{{ ns.a }}{{ ns.s.title().replace('e', 'EE') }}",
    "{% for t in tools %}{% for k, v in t.function.parameters.properties.items() recursive %}{{ k ~ ': ' ~ v | tojson }}{{ loop.cycle(1, 2) }}{% endfor %}{% endfor %}{% generation %}{{ '{:>5}|{}'.format(1, 'x') }}{% endgeneration %}",
    "{%- set x = range(3) | list -%}{{ x[1:] }}{{ x | map('string') | join('-') }}{% filter upper %}abc{% endfilter %}{% set b %}cd{% endset %}{{ b | indent(2) }}{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
];
