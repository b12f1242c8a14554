//! Every family against transformers (`tools/oracles/make_families.py`): the same tokens at once, in chunks of odd sizes, and
//! one by one.

use model::{InferenceModel, LogitRows, ModelConfig, SequenceChunk, WeightsReader};
use std::path::PathBuf;

const TOKENS: usize = 40;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families").join(name)
}

fn check(name: &str) {
    let folder = folder(name);
    let tokens: Vec<u32> =
        serde_json::from_slice(&std::fs::read(folder.join("tokens.json")).unwrap()).unwrap();
    let model = InferenceModel::load(&folder).unwrap();
    let vocabulary = model.config().vocabulary_size;
    let mut expected = vec![0.0; TOKENS * vocabulary];
    WeightsReader::open(&folder.join("logits.safetensors"))
        .unwrap()
        .read_shaped("logits", &[TOKENS, vocabulary], &mut expected)
        .unwrap();
    let scale = (expected.iter().map(|x| x * x).sum::<f32>() / expected.len() as f32).sqrt();

    let mut bits: Option<Vec<f32>> = None;
    for (chunk, threads) in [(TOKENS, 1), (17, 2), (5, 1), (1, 1)] {
        let (mut cache, mut workspace) = (model.new_cache(1), model.new_workspace(1, threads));
        let mut found = Vec::new();
        for first_position in (0..TOKENS).step_by(chunk) {
            let tokens = &tokens[first_position..(first_position + chunk).min(TOKENS)];
            let logits = LogitRows::All;
            let chunk = SequenceChunk { tokens, first_position, blocks: &[0], adapter: None, logits };
            found.extend_from_slice(model.forward(&[chunk], &mut cache, &mut workspace).unwrap());
        }
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / scale;
        assert!(worst < 1e-4, "{name}, chunks of {chunk}: {worst:e} of the logits' scale");
        assert!(*bits.get_or_insert(found.clone()) == found, "{name}, chunks of {chunk}: other bits");
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
);
