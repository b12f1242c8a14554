//! What a workspace is said to take, beside what the allocator hands out for it.

use compute::allocation::held;
use model::testing::random_values;
use model::{CacheFormat, CallLimits, InferenceModel, LogitRows, ModelConfig, SequenceChunk, WeightFormat};

const LIMITS: CallLimits = CallLimits { rows: 96, logit_rows: 7, positions: 512 };

/// Calls that are as large as the limits allow: prompts to the end of the context, then rows of answers.
fn largest_calls(model: &InferenceModel) -> isize {
    let mut cache = model.new_cache_as(8, CacheFormat::F32);
    let blocks: Vec<u32> = (0..8).collect();
    let before = held();
    let mut workspace = model.new_workspace_for(LIMITS, 1);
    let taken_at_first = held() - before;
    let tokens = [3; 96];
    for answer in [false, true] {
        let mut first = 0;
        while first < LIMITS.positions {
            let count = LIMITS.rows.min(LIMITS.positions - first);
            let chunk = SequenceChunk {
                tokens: &tokens[..count],
                first_position: first,
                blocks: &blocks,
                adapter: None,
                logits: LogitRows::From(count - LIMITS.logit_rows),
                answer,
            };
            model.forward(&[chunk], &mut cache, &mut workspace).unwrap();
            first += count;
        }
    }
    let taken = held() - before;
    assert!(taken_at_first <= taken);
    drop(workspace);
    taken
}

#[test]
fn a_workspace_takes_what_was_planned() {
    for config in [ModelConfig::tiny_for_tests(900), ModelConfig::tiny_mixture_for_tests(900)] {
        let values = random_values(&config, 2);
        for format in WeightFormat::ALL {
            let model = InferenceModel::from_values_as(&config, &values, format).unwrap();
            // Buffers of the thread itself stay with it: a thread of its own begins without.
            let taken = std::thread::scope(|scope| scope.spawn(|| largest_calls(&model)).join().unwrap());
            let planned = model.workspace_bytes(LIMITS, 1) as isize;
            let apart = (planned - taken) as f64 / planned as f64;
            assert!((-0.02..0.1).contains(&apart), "{format:?}: planned {planned}, taken {taken}");
        }
    }
}
