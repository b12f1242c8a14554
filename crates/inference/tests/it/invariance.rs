//! The promise of the engine, over a real decoder: a request has the same bits alone and in any company, with any
//! chunking, with and without the prefix cache, with and without guesses, on one thread and on two.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use inference::testing::byte_tokenizer;
use inference::{
    Answer, AnswerFormat, Engine, EngineSettings, ModelDecoder, Pooling, Request, RequestHandle, Sampling,
    seed_of_answer,
};
use model::{CacheFormat, InferenceModel, WeightFormat};
use serde_json::json;

use crate::real::{Folders, folders, start};

/// Numbers that depend on nothing but the seed.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 += 1;
        (seed_of_answer(self.0, 1) >> 33) as usize % count
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }
}

fn random_request(random: &mut Random, engine: &Engine) -> Request {
    // Few beginnings and repetitive endings: prefixes are shared, guesses are right now and then.
    let beginning =
        random.one_of(&["Ένα κείμενο που αρχίζει πάντα έτσι. ", "Текст, който винаги започва така. ", ""]);
    let beginning = beginning.repeat(random.below(4));
    let ending = random.one_of(&["la la la la ", "ħobż", "x"]).repeat(1 + random.below(8));
    let prompt = engine.tokenizer().encode_ordinary(&(beginning + &ending)).unwrap();
    let tenant = random.one_of(&["a", "b"]);
    let adapter = random.chance(30).then(|| "chat".to_string());
    if random.chance(10) {
        let pooling = random.one_of(&[Pooling::Mean, Pooling::Last]);
        return Request { adapter, ..Request::embedding(tenant, prompt, pooling) };
    }
    let formats = [
        AnswerFormat::JsonSchema(
            json!({"type": "array", "items": {"enum": ["ναι", "όχι", 1, null]}, "maxItems": 5}),
        ),
        AnswerFormat::Regex("([a-f]{2,3} |ла ){4,}".to_string()),
    ];
    Request {
        adapter,
        sampling: Sampling {
            temperature: random.one_of(&[0.0, 0.2, 1.0, 1.7]),
            top_k: random.one_of(&[0, 0, 7]),
            top_p: random.one_of(&[1.0, 0.8]),
            min_p: random.one_of(&[0.0, 0.05]),
            repetition_penalty: random.one_of(&[1.0, 1.0, 1.2]),
            frequency_penalty: random.one_of(&[0.0, 0.3]),
            seed: random.below(1_000) as u64,
            ..Sampling::default()
        },
        max_tokens: Some(random.below(40)),
        stop: random.chance(20).then(|| "e".to_string()).into_iter().collect(),
        logprobs: random.chance(50).then(|| random.below(4)),
        prompt_logprobs: random.chance(20).then(|| random.below(3)),
        format: random.chance(30).then(|| random.one_of(&formats)),
        speculation: random.one_of(&[None, None, Some(0), Some(5)]),
        ..Request::new(tenant, prompt)
    }
}

fn wait(handles: Vec<RequestHandle>) -> Vec<Answer> {
    handles.into_iter().map(|handle| handle.wait().unwrap()).collect()
}

#[test]
fn a_request_has_the_same_bits_in_any_company() {
    let folders: Folders = folders();
    let plain = EngineSettings { prefix_cache: false, ..EngineSettings::default() };
    let engine = start(&folders, plain.clone());
    let mut random = Random(11);
    let requests: Vec<Request> = (0..60).map(|_| random_request(&mut random, &engine)).collect();
    let alone: Vec<Answer> = requests
        .iter()
        .map(|request| {
            let request = Request { speculation: Some(0), ..request.clone() };
            engine.submit(request).unwrap().wait().unwrap()
        })
        .collect();
    assert!(alone.iter().filter(|answer| answer.ids.len() > 5).count() > 20, "there is something to compare");
    let (mut saved, mut accepted) = (0, 0);
    for round in 0..8 {
        let settings = EngineSettings {
            threads: 1 + round % 2,
            tokens_per_step: random.one_of(&[3, 17, 64, 512]),
            running_requests: random.one_of(&[2, 5, 16]),
            prefix_cache: round % 4 != 3,
            speculation: random.one_of(&[0, 3, 16]),
            ..EngineSettings::default()
        };
        let engine = start(&folders, settings.clone());
        let mut order: Vec<usize> = (0..requests.len()).collect();
        for place in (1..order.len()).rev() {
            order.swap(place, random.below(place + 1));
        }
        for part in order.chunks(20) {
            let handles = part.iter().map(|&number| engine.submit(requests[number].clone()).unwrap());
            for (&number, found) in part.iter().zip(wait(handles.collect())) {
                assert_eq!(found, alone[number], "request {number}, {settings:?}: {:?}", requests[number]);
            }
        }
        let figures = engine.load().figures;
        saved += figures.prefix_tokens_saved;
        accepted += figures.accepted_tokens;
        assert!(settings.prefix_cache || figures.prefix_tokens_saved == 0);
    }
    assert!(saved > 1_000 && accepted > 20, "{saved} rows were saved, {accepted} guesses held");
}

/// Ids below the families' small vocabularies; the beginnings are longer than a block of the cache.
fn request_of_ids(random: &mut Random) -> Request {
    let beginning = [3, 31, 47][random.below(3)];
    let length = [0, 40, 66][random.below(3)];
    let mut prompt: Vec<u32> = (0..length).map(|place| 4 + (place * beginning + place / 7) % 90).collect();
    prompt.extend([8, 9, 10, 8, 9, 10, 8, 9][..1 + random.below(8)].iter());
    let tenant = random.one_of(&["a", "b"]);
    if random.chance(10) {
        return Request::embedding(tenant, prompt, random.one_of(&[Pooling::Mean, Pooling::Last]));
    }
    Request {
        sampling: Sampling {
            temperature: random.one_of(&[0.0, 0.5, 1.2]),
            seed: random.below(1_000) as u64,
            ..Sampling::default()
        },
        max_tokens: Some(random.below(36)),
        logprobs: random.chance(50).then_some(2),
        prompt_logprobs: random.chance(15).then_some(1),
        speculation: random.one_of(&[None, Some(6)]),
        ..Request::new(tenant, prompt)
    }
}

fn engine_over(model: &Arc<InferenceModel>, settings: &EngineSettings) -> Engine {
    let context = model.config().maximum_positions;
    let (rows, threads) = (settings.tokens_per_step, settings.threads);
    let format = settings.cache_format(model);
    let cache = model.new_cache_as(24, format);
    let decoder = ModelDecoder::new(model.clone(), &[], context, cache, rows, threads).unwrap();
    Engine::over(Box::new(decoder), Vec::new(), Arc::new(byte_tokenizer()), vec![], settings).unwrap()
}

/// Windows, latent attention, experts, biases, every format of weights and of the cache: nothing of a model lets company show.
#[test]
fn every_family_in_every_format_keeps_the_promise() {
    let families = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/families");
    let mut folders: Vec<_> = fs::read_dir(families).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() > 15, "{folders:?}");
    let mut random = Random(5_000);
    let (mut saved, mut accepted) = (0, 0);
    for (number, folder) in folders.iter().enumerate() {
        for (place, format) in WeightFormat::ALL.into_iter().enumerate() {
            let model = Arc::new(InferenceModel::load_as(folder, format).unwrap());
            let requests: Vec<Request> = (0..8).map(|_| request_of_ids(&mut random)).collect();
            // Over the families, each format of weights meets each format of the cache.
            let kv_cache = Some(CacheFormat::ALL[(number + place) % CacheFormat::ALL.len()]);
            let plain = EngineSettings { kv_cache, prefix_cache: false, ..EngineSettings::default() };
            let engine = engine_over(&model, &plain);
            let alone: Vec<Answer> = requests
                .iter()
                .map(|request| {
                    let request = Request { speculation: Some(0), ..request.clone() };
                    engine.submit(request).unwrap().wait().unwrap()
                })
                .collect();
            let settings = EngineSettings {
                kv_cache,
                threads: 1 + (number + place) % 2,
                tokens_per_step: random.one_of(&[5, 33, 512]),
                speculation: random.one_of(&[0, 4]),
                ..EngineSettings::default()
            };
            let engine = engine_over(&model, &settings);
            // Twice: the second time everything has been there before.
            for _ in 0..2 {
                let handles = requests.iter().map(|request| engine.submit(request.clone()).unwrap());
                for (found, (request, alone)) in
                    wait(handles.collect()).iter().zip(requests.iter().zip(&alone))
                {
                    assert_eq!(found, alone, "{folder:?}, {format:?}, {settings:?}: {request:?}");
                }
            }
            let figures = engine.load().figures;
            saved += figures.prefix_tokens_saved;
            accepted += figures.accepted_tokens;
        }
    }
    assert!(saved > 3_000 && accepted > 30, "{saved} rows were saved, {accepted} guesses held");
}
