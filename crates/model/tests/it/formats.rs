//! Weights in fewer bits: near the exact ones, and as independent of company, chunks and threads.

use model::testing::random_values;
use model::{CacheFormat, InferenceModel, LogitRows, ModelConfig, SequenceChunk, WeightFormat};

const VOCABULARY: usize = 70;
const PROMPT: usize = 101;
const ANSWER: usize = 9;

/// Logits of a prompt in chunks and of an answer token by token, beside `others` sequences that do the same, a step behind.
fn logits(model: &InferenceModel, step: usize, threads: usize, others: usize) -> Vec<f32> {
    logits_with(model, model.default_cache_format(), step, threads, others)
}

fn logits_with(
    model: &InferenceModel,
    cache: CacheFormat,
    step: usize,
    threads: usize,
    others: usize,
) -> Vec<f32> {
    let tokens: Vec<Vec<u32>> = (0..=others)
        .map(|s| (0..PROMPT + ANSWER).map(|i| ((i * 7 + s * 13) % VOCABULARY) as u32).collect())
        .collect();
    let blocks: Vec<[u32; 2]> = (0..=others as u32).map(|s| [2 * s + 1, 2 * s]).collect();
    let mut cache = model.new_cache_as(2 * (others + 1), cache);
    let mut workspace = model.new_workspace(8, threads);
    let mut computed = vec![0; others + 1];
    let mut found = Vec::new();
    while computed[0] < PROMPT + ANSWER {
        let mut chunks = Vec::new();
        for s in (0..=others).rev() {
            let from = computed[s];
            let answer = from >= PROMPT;
            let end = if answer { from + 1 } else { (from + step + s).min(PROMPT) };
            if from < PROMPT + ANSWER {
                chunks.push(SequenceChunk {
                    tokens: &tokens[s][from..end],
                    first_position: from,
                    blocks: &blocks[s],
                    adapter: None,
                    logits: if s == 0 { LogitRows::All } else { LogitRows::Last },
                    answer,
                });
                computed[s] = end;
            }
        }
        let own = chunks.last().unwrap().tokens.len() * VOCABULARY;
        let rows = model.forward(&chunks, &mut cache, &mut workspace).unwrap();
        found.extend_from_slice(&rows[rows.len() - own..]);
    }
    found
}

#[test]
fn every_format_gives_the_same_bits_in_any_chunks_company_and_threads() {
    for config in [ModelConfig::tiny_for_tests(VOCABULARY), ModelConfig::tiny_mixture_for_tests(VOCABULARY)] {
        let values = random_values(&config, 9);
        for format in WeightFormat::ALL {
            let model = InferenceModel::from_values_as(&config, &values, format).unwrap();
            let expected = logits(&model, PROMPT, 1, 0);
            for (step, threads, others) in [(1, 1, 0), (7, 2, 0), (64, 1, 3), (33, 2, 5)] {
                let found = logits(&model, step, threads, others);
                assert!(
                    found == expected,
                    "{format:?}, chunks of {step}, {threads} threads, {others} others"
                );
            }
        }
    }
}

#[test]
fn fewer_bits_stay_near_the_exact_numbers() {
    let config = ModelConfig::tiny_for_tests(VOCABULARY);
    let values = random_values(&config, 9);
    let exact = logits(&InferenceModel::from_values(&config, &values).unwrap(), PROMPT, 1, 0);
    let scale: f64 = exact.iter().map(|&x| (x as f64).powi(2)).sum();
    let mut before = 0.0;
    for (format, most) in [(WeightFormat::Bf16, 0.05), (WeightFormat::Q8, 0.1), (WeightFormat::Q4, 0.8)] {
        let model = InferenceModel::from_values_as(&config, &values, format).unwrap();
        let found = logits(&model, PROMPT, 1, 0);
        let error: f64 = found.iter().zip(&exact).map(|(&x, &e)| (x as f64 - e as f64).powi(2)).sum();
        let error = (error / scale).sqrt();
        assert!(error < most && error > 1e-5, "{format:?}: {error}");
        assert!(error > before * 0.5, "{format:?}: {error} after {before}");
        before = error;
    }
}

/// What formats of the cache alone cost, with weights in f32; and what weights say of the format that goes with them.
#[test]
fn keys_and_values_in_fewer_bits_stay_near_the_exact_numbers() {
    let mut config = ModelConfig::tiny_for_tests(VOCABULARY);
    // Heads of a whole step: shorter ones are filled up.
    config.layers.iter_mut().for_each(|layer| layer.attention.head_dim = 32);
    let model = InferenceModel::from_values(&config, &random_values(&config, 9)).unwrap();
    assert_eq!(model.default_cache_format(), CacheFormat::F32);
    let exact = logits(&model, PROMPT, 1, 0);
    let scale: f64 = exact.iter().map(|&x| (x as f64).powi(2)).sum();
    for (cache, most) in [(CacheFormat::Bf16, 0.01), (CacheFormat::Q8, 0.015)] {
        let found = logits_with(&model, cache, PROMPT, 1, 0);
        let error: f64 = found.iter().zip(&exact).map(|(&x, &e)| (x as f64 - e as f64).powi(2)).sum();
        let error = (error / scale).sqrt();
        assert!(error < most && error > 1e-5, "{cache:?}: {error}");
        for (step, threads, others) in [(1, 1, 0), (7, 2, 3)] {
            assert!(
                logits_with(&model, cache, step, threads, others) == found,
                "{cache:?}, chunks of {step}"
            );
        }
        let bytes = [cache, CacheFormat::F32].map(|format| model.cache_block_bytes(format));
        assert!(bytes[0] < bytes[1], "{cache:?}: {bytes:?}");
    }
    for weights in [WeightFormat::Bf16, WeightFormat::Q8, WeightFormat::Q4] {
        let model = InferenceModel::from_values_as(&config, &random_values(&config, 9), weights).unwrap();
        assert_eq!(
            (model.default_cache_format(), model.new_cache(1).format()),
            (CacheFormat::Bf16, CacheFormat::Bf16)
        );
    }
}
