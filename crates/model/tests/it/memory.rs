//! What a workspace is said to take, beside what the allocator hands out for it.

use compute::allocation::held;
use model::testing::random_values;
use model::{
    CacheFormat, CallLimits, InferenceModel, LogitRows, ModelConfig, ModelSizes, SequenceChunk, WeightFormat,
};

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

/// Whether all that is known before a model is loaded is what is known of the loaded one.
fn check_sizes(name: &str, sizes: &ModelSizes, model: &InferenceModel) {
    assert_eq!(sizes.weight_bytes(), model.weight_bytes(), "{name}");
    assert_eq!(sizes.bytes_per_token(), model.bytes_per_token(), "{name}");
    assert_eq!(sizes.default_cache_format(), model.default_cache_format(), "{name}");
    for format in CacheFormat::ALL {
        assert_eq!(sizes.cache_block_bytes(format), model.cache_block_bytes(format), "{name}, {format:?}");
    }
    assert_eq!(sizes.workspace_bytes(LIMITS, 2), model.workspace_bytes(LIMITS, 2), "{name}");
}

#[test]
fn sizes_are_known_before_a_model_is_loaded() {
    let families = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families");
    let mut counted = 0;
    for entry in std::fs::read_dir(families).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        for format in WeightFormat::ALL {
            let model = InferenceModel::load_as(&folder, format).unwrap();
            let sizes = ModelSizes::of_path(&folder, format).unwrap();
            check_sizes(&format!("{name}, {format:?}"), &sizes, &model);
            let of_config = ModelSizes::of_config(model.config(), None, format).unwrap();
            check_sizes(&format!("configuration of {name}, {format:?}"), &of_config, &model);
            counted += 1;
        }
    }
    assert!(counted > 50, "{counted}");
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
