//! The engine and the scorer over a real decoder with random weights: the same bits alone and in company.

use std::fs;
use std::path::{Path, PathBuf};

use inference::testing::write_byte_tokenizer;
use inference::{
    Answer, Engine, EngineError, EngineSettings, Request, Sampling, ScoreError, Scorer, forecast,
};
use model::testing::write_random_model;
use model::{Adapter, AdapterConfig, ModelConfig, ModelSizes, Projection, WeightFormat, write_safetensors};

pub struct Folders {
    _folder: tempfile::TempDir,
    base: PathBuf,
    adapter: PathBuf,
}

/// A random model over the tokenizer of bytes, and a random adapter for it.
pub fn folders() -> Folders {
    let folder = tempfile::tempdir().unwrap();
    let (base, adapter) = (folder.path().join("base"), folder.path().join("adapter"));
    fs::create_dir_all(&base).unwrap();
    fs::create_dir_all(&adapter).unwrap();
    let config = ModelConfig::tiny_for_tests(260);
    write_random_model(&base, &config, 1);
    write_byte_tokenizer(&base).unwrap();
    write_adapter(&adapter, &config);
    Folders { _folder: folder, base, adapter }
}

fn write_adapter(folder: &Path, model: &ModelConfig) {
    let targets = vec![Projection::Query, Projection::Value];
    let mut adapter = Adapter::new(model, AdapterConfig { rank: 4, alpha: 8.0, targets }, 3).unwrap();
    for (index, value) in adapter.values.iter_mut().enumerate() {
        *value = ((index * 37 % 101) as f32 - 50.0) * 0.01;
    }
    fs::write(folder.join("adapter_config.json"), adapter.to_json()).unwrap();
    let mut file = fs::File::create(folder.join("adapter_model.safetensors")).unwrap();
    write_safetensors(&mut file, adapter.table(), &adapter.values).unwrap();
}

pub fn start(folders: &Folders, settings: EngineSettings) -> Engine {
    let adapters = [("chat".to_string(), folders.adapter.clone())].into();
    Engine::start(&folders.base, &EngineSettings { adapters, ..settings }).unwrap()
}

fn requests(engine: &Engine) -> Vec<Request> {
    let texts = ["Ċ", "Ένα κείμενο", "Един по-дълъг текст, който не се побира в една стъпка", "x"];
    let request = |number: usize| Request {
        max_tokens: Some(6 + number),
        logprobs: Some(2),
        prompt_logprobs: number.is_multiple_of(2).then_some(1),
        adapter: (number % 3 == 1).then(|| "chat".to_string()),
        sampling: Sampling { temperature: 0.9, top_p: 0.95, seed: number as u64, ..Sampling::default() },
        ..Request::new(
            "a",
            engine.tokenizer().encode_ordinary(&texts[number % 4].repeat(1 + number / 4)).unwrap(),
        )
    };
    (0..8).map(request).collect()
}

#[test]
fn answers_have_the_same_bits_alone_and_in_company() {
    let folders = folders();
    let engine = start(&folders, EngineSettings::default());
    let requests = requests(&engine);
    let alone: Vec<Answer> =
        requests.iter().map(|request| engine.submit(request.clone()).unwrap().wait().unwrap()).collect();
    assert_ne!(alone[0].text, alone[3].text);
    for (threads, tokens_per_step) in [(1, 9), (2, 64), (2, 512)] {
        let engine =
            start(&folders, EngineSettings { threads, tokens_per_step, ..EngineSettings::default() });
        let handles: Vec<_> =
            requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
        for (number, handle) in handles.into_iter().enumerate() {
            let answer = handle.wait().unwrap();
            assert_eq!(
                answer, alone[number],
                "request {number}, {threads} threads, {tokens_per_step} a step"
            );
        }
    }
}

#[test]
fn the_scorer_and_the_engine_agree() {
    let folders = folders();
    let engine = start(&folders, EngineSettings::default());
    let text = "Tá an aimsir go breá inniu, agus beidh sí mar sin amárach. ".repeat(6);
    let tokens = engine.tokenizer().encode_ordinary(&text).unwrap();
    let prompt_logprobs = |adapter: Option<&str>| -> Vec<f32> {
        let request = Request {
            max_tokens: Some(0),
            prompt_logprobs: Some(0),
            adapter: adapter.map(str::to_string),
            ..Request::new("a", tokens.clone())
        };
        let answer = engine.submit(request).unwrap().wait().unwrap();
        answer.prompt_logprobs.into_iter().flatten().map(|logprob| logprob.token.logprob).collect()
    };
    let mut scorer = Scorer::load(&folders.base, None, WeightFormat::F32, 2).unwrap();
    let scores = scorer.score(&tokens).unwrap();
    assert_eq!(scores.len(), tokens.len() - 1);
    assert_eq!(scores, prompt_logprobs(None), "to the bit");
    assert_eq!(scores[..20], scorer.score(&tokens[..21]).unwrap(), "what follows does not matter");
    let mut adapted = Scorer::load(&folders.base, Some(&folders.adapter), WeightFormat::F32, 1).unwrap();
    let adapted = adapted.score(&tokens).unwrap();
    for (merged, beside) in adapted.iter().zip(prompt_logprobs(Some("chat"))) {
        assert!((merged - beside).abs() < 1e-3, "merged {merged}, beside {beside}");
    }
    assert_ne!(adapted, scores);
    let mut rounded = Scorer::load(&folders.base, None, WeightFormat::Q8, 1).unwrap();
    let rounded = rounded.score(&tokens).unwrap();
    assert!(rounded != scores, "weights in 8 bits are other weights");
    for (rounded, exact) in rounded.iter().zip(&scores) {
        assert!((rounded - exact).abs() < 0.5, "{rounded} in 8 bits, {exact}");
    }
}

#[test]
fn what_cannot_be_scored_says_why() {
    let folders = folders();
    let mut scorer = Scorer::load(&folders.base, None, WeightFormat::F32, 1).unwrap();
    assert!(matches!(scorer.score(&[1]), Err(ScoreError::TooShort { found: 1 })));
    assert!(matches!(scorer.score(&[1; 513]), Err(ScoreError::TooLong { found: 513, context: 512 })));
    assert!(matches!(scorer.score(&[1, 999]), Err(ScoreError::UnknownToken { token: 999, .. })));
    assert!(scorer.score(&[1; 512]).is_ok());
}

#[test]
fn memory_is_known_before_the_start() {
    let folders = folders();
    let memory =
        start(&folders, EngineSettings { running_requests: 2, ..EngineSettings::default() }).memory();
    // 2 requests of 512 positions: 2 layers of keys and values, 2 heads of width 8, 4 bytes each.
    assert_eq!(memory.cache_bytes, 2 * 512 * 2 * 2 * 2 * 8 * 4);
    let budget = |bytes| {
        let settings = EngineSettings { memory_bytes: Some(bytes), ..EngineSettings::default() };
        Engine::start(&folders.base, &settings)
    };
    for settings in [
        EngineSettings::default(),
        EngineSettings { threads: 2, weights: WeightFormat::Q8, ..EngineSettings::default() },
    ] {
        let sizes = ModelSizes::of_path(&folders.base, settings.weights).unwrap();
        let forecast = forecast(&sizes, &settings).unwrap().memory;
        assert_eq!(forecast, start(&folders, settings).memory(), "before it is loaded");
    }
    let sixteen = start(&folders, EngineSettings::default()).memory();
    assert!(sixteen.workspace_bytes >= memory.workspace_bytes);
    let small = budget(sixteen.weights_bytes + sixteen.workspace_bytes + 200 * 256).unwrap();
    assert_eq!(small.context_length(), 3 * 64, "the context shrinks to what fits");
    let without = budget(sixteen.weights_bytes + sixteen.workspace_bytes);
    assert!(matches!(without, Err(EngineError::Memory { .. })));
}

#[test]
fn what_does_not_belong_together_does_not_start() {
    let folders = folders();
    let check = |expected: &str| {
        let error = Engine::start(&folders.base, &EngineSettings::default()).err().unwrap().to_string();
        assert!(error.contains(expected), "{error:?} should say {expected:?}");
    };
    fs::write(folders.base.join("generation_config.json"), "{\"eos_token_id\": \"end\"}").unwrap();
    check("generation_config.json");
    fs::remove_file(folders.base.join("generation_config.json")).unwrap();
    write_random_model(&folders.base, &ModelConfig::tiny_for_tests(100), 1);
    check("the tokenizer has 260 entries");
    fs::remove_file(folders.base.join("tokenizer.json")).unwrap();
    check("tokenizer.json");
    let settings = EngineSettings { running_requests: 0, ..EngineSettings::default() };
    let error = Engine::start(&folders.base, &settings).err().unwrap().to_string();
    assert_eq!(error, "setting `running_requests`: expected at least 1, found 0");
}
