//! Inference gives the bits of training, however the tokens come.

use crate::{Batch, decoder, device, workspace};
use model::testing::{random_values, write_random_model};
use model::{
    Adapter, AdapterConfig, AdapterInTraining, BLOCK_POSITIONS, InferenceModel, LogitRows, ModelConfig,
    ModelError, Projection, SequenceChunk, WeightFormat, write_safetensors,
};

const VOCABULARY: usize = 70;

fn chunk<'a>(tokens: &'a [u32], first_position: usize, blocks: &'a [u32]) -> SequenceChunk<'a> {
    SequenceChunk { tokens, first_position, blocks, adapter: None, logits: LogitRows::All, answer: false }
}

fn adapter(config: &ModelConfig, seed: u64) -> Adapter {
    let shape = AdapterConfig { rank: 4, alpha: 8.0, targets: Projection::ALL.to_vec() };
    let mut adapter = Adapter::new(config, shape, seed).unwrap();
    for (i, value) in adapter.values.iter_mut().enumerate() {
        *value = 0.2 * compute::random::normal(seed, i as u64) as f32;
    }
    adapter
}

#[test]
fn logits_are_those_of_training_in_any_chunks_and_company() {
    same_logits_as_training(ModelConfig::tiny_for_tests(VOCABULARY));
    same_logits_as_training(ModelConfig::tiny_mixture_for_tests(VOCABULARY));
}

fn same_logits_as_training(config: ModelConfig) {
    let values = random_values(&config, 9);
    let model = InferenceModel::from_values(&config, &values).unwrap();
    let lengths = [150, 90];
    let batch = Batch::new(4, VOCABULARY as u64, &lengths);
    let adapter = adapter(&config, 31);
    let expected: Vec<Vec<f32>> = [None, Some(&adapter)]
        .into_iter()
        .map(|adapter| {
            let own = adapter.map(|adapter: &Adapter| device().upload(adapter.values.clone()));
            let adapter =
                adapter.zip(own.as_ref()).map(|(adapter, values)| AdapterInTraining { adapter, values });
            let parameters = device().upload(values.clone());
            decoder(&config)
                .logits(&parameters, adapter, batch.packed(), &mut workspace(&config, 240))
                .unwrap()
        })
        .collect();
    for (step, threads) in [(1, 1), (7, 2), (64, 1), (150, 2)] {
        let mut workspace = model.new_workspace(8, threads);
        let mut cache = model.new_cache(8);
        // The first sequence runs with the adapter, the second without.
        let blocks = [[5, 0, 3], [7, 2, 6]];
        let mut found = [Vec::new(), Vec::new()];
        for from in (0..150).step_by(step) {
            let mut chunks = Vec::new();
            let mut rows = Vec::new();
            for (sequence, begin) in [(0, 0), (1, 150)] {
                let end = (from + step).min(lengths[sequence]);
                if from < end {
                    let tokens = &batch.tokens[begin + from..begin + end];
                    let adapter = (sequence == 0).then_some(&adapter);
                    chunks.push(SequenceChunk { adapter, ..chunk(tokens, from, &blocks[sequence]) });
                    rows.push((sequence, end - from));
                }
            }
            let logits = model.forward(&chunks, &mut cache, &mut workspace).unwrap();
            let mut first = 0;
            for (sequence, count) in rows {
                found[sequence].extend_from_slice(&logits[first * VOCABULARY..(first + count) * VOCABULARY]);
                first += count;
            }
        }
        assert!(
            found[0] == expected[1][..150 * VOCABULARY],
            "with adapter, chunks of {step}, {threads} threads"
        );
        assert!(
            found[1] == expected[0][150 * VOCABULARY..],
            "without adapter, chunks of {step}, {threads} threads"
        );
    }
}

#[test]
fn only_the_wanted_rows_come() {
    let config = ModelConfig::tiny_for_tests(VOCABULARY);
    let model = InferenceModel::from_values(&config, &random_values(&config, 9)).unwrap();
    let tokens = [3, 4, 5, 6, 7];
    let run = |logits: LogitRows| {
        let mut workspace = model.new_workspace(1, 1);
        let chunks = [
            SequenceChunk { logits, ..chunk(&tokens, 0, &[0]) },
            SequenceChunk { logits: LogitRows::None, ..chunk(&tokens, 0, &[1]) },
        ];
        model.forward(&chunks, &mut model.new_cache(2), &mut workspace).unwrap().to_vec()
    };
    let all = run(LogitRows::All);
    assert_eq!(all.len(), 5 * VOCABULARY);
    assert_eq!(run(LogitRows::Last), all[4 * VOCABULARY..]);
    assert_eq!(run(LogitRows::From(2)), all[2 * VOCABULARY..]);
    assert_eq!(run(LogitRows::From(9)), [] as [f32; 0]);
}

#[test]
fn a_shared_prefix_block_serves_two_sequences() {
    let config = ModelConfig::tiny_for_tests(VOCABULARY);
    let model = InferenceModel::from_values(&config, &random_values(&config, 9)).unwrap();
    let prefix: Vec<u32> = (0..BLOCK_POSITIONS as u32).collect();
    let (mut cache, mut workspace) = (model.new_cache(3), model.new_workspace(1, 1));
    model.forward(&[chunk(&prefix, 0, &[0])], &mut cache, &mut workspace).unwrap();
    let both = [chunk(&[1, 2], 64, &[0, 1]), chunk(&[3, 4], 64, &[0, 2])];
    let together = model.forward(&both, &mut cache, &mut workspace).unwrap().to_vec();
    let whole: Vec<u32> = prefix.iter().copied().chain([3, 4]).collect();
    let alone = model.forward(&[chunk(&whole, 0, &[0, 1])], &mut model.new_cache(2), &mut workspace).unwrap();
    assert_eq!(together[2 * VOCABULARY..], alone[64 * VOCABULARY..]);
}

#[test]
fn sequences_part_inside_a_copied_block() {
    let config = ModelConfig::tiny_for_tests(VOCABULARY);
    let model = InferenceModel::from_values(&config, &random_values(&config, 9)).unwrap();
    let prefix: Vec<u32> = (0..BLOCK_POSITIONS as u32 + 6).map(|token| token % VOCABULARY as u32).collect();
    let (mut cache, mut workspace) = (model.new_cache(3), model.new_workspace(1, 1));
    model.forward(&[chunk(&prefix, 0, &[0, 1])], &mut cache, &mut workspace).unwrap();
    cache.copy_block(1, 2);
    let both = [chunk(&[1, 2], 70, &[0, 1]), chunk(&[3, 4], 70, &[0, 2])];
    let together = model.forward(&both, &mut cache, &mut workspace).unwrap().to_vec();
    for (tokens, rows) in [([1, 2], &together[..2 * VOCABULARY]), ([3, 4], &together[2 * VOCABULARY..])] {
        let whole: Vec<u32> = prefix.iter().copied().chain(tokens).collect();
        let alone =
            model.forward(&[chunk(&whole, 0, &[0, 1])], &mut model.new_cache(2), &mut workspace).unwrap();
        assert_eq!(rows, &alone[70 * VOCABULARY..]);
    }
}

#[test]
fn hidden_states_are_rows_of_their_own() {
    let config = ModelConfig::tiny_for_tests(VOCABULARY);
    let model = InferenceModel::from_values(&config, &random_values(&config, 9)).unwrap();
    let tokens: Vec<u32> = (0..9).collect();
    let (mut cache, mut workspace) = (model.new_cache(2), model.new_workspace(1, 1));
    let all = model.hidden_states(&[chunk(&tokens, 0, &[0])], &mut cache, &mut workspace).unwrap().to_vec();
    assert_eq!(all.len(), 9 * config.hidden_size);
    // The final norm leaves rows whose mean square is one, scaled by its weights; all zeros would pass other checks.
    assert!(all.iter().any(|value| value.abs() > 0.1) && all.iter().all(|value| value.is_finite()));
    let first = chunk(&tokens[..4], 0, &[1]);
    let pieces = [
        model.hidden_states(&[first], &mut cache, &mut workspace).unwrap().to_vec(),
        model.hidden_states(&[chunk(&tokens[4..], 4, &[1])], &mut cache, &mut workspace).unwrap().to_vec(),
    ];
    assert_eq!(pieces.concat(), all);
    let last = SequenceChunk { logits: LogitRows::Last, ..chunk(&tokens, 0, &[1]) };
    let last = model.hidden_states(&[last], &mut cache, &mut workspace).unwrap();
    assert_eq!(last, &all[8 * config.hidden_size..]);
}

#[test]
fn calls_out_of_range_are_errors() {
    let config = ModelConfig::tiny_for_tests(VOCABULARY);
    let model = InferenceModel::from_values(&config, &random_values(&config, 9)).unwrap();
    let many = vec![1; 100];
    for (bad, expected) in [
        (chunk(&[], 0, &[0]), "no tokens"),
        (chunk(&[70], 0, &[0]), "token 70"),
        (chunk(&[1], 512, &[0]), "position 513"),
        (chunk(&[1], usize::MAX, &[0]), "the model has 512"),
        (chunk(&many, 0, &[0]), "needs 2 cache blocks"),
        (chunk(&[1], 0, &[2]), "cache block 2 of 2"),
    ] {
        let result = model
            .forward(&[bad], &mut model.new_cache(2), &mut model.new_workspace(1, 1))
            .map(<[f32]>::to_vec);
        assert!(
            matches!(&result, Err(ModelError::Input(problem)) if problem.contains(expected)),
            "{expected}: {result:?}"
        );
    }
}

#[test]
fn a_folder_loads_and_a_merged_adapter_changes_it_alike() {
    loads_and_merges(ModelConfig::tiny_for_tests(VOCABULARY));
    loads_and_merges(ModelConfig::tiny_mixture_for_tests(VOCABULARY));
}

fn loads_and_merges(config: ModelConfig) {
    let folder = tempfile::tempdir().unwrap();
    write_random_model(folder.path(), &config, 9);
    let adapter = adapter(&config, 31);
    let adapter_folder = tempfile::tempdir().unwrap();
    std::fs::write(adapter_folder.path().join("adapter_config.json"), adapter.to_json()).unwrap();
    let mut file = std::fs::File::create(adapter_folder.path().join("adapter_model.safetensors")).unwrap();
    write_safetensors(&mut file, adapter.table(), &adapter.values).unwrap();

    let model = InferenceModel::load(folder.path()).unwrap();
    assert_eq!(model.config(), &config);
    let merged =
        InferenceModel::load_merged(folder.path(), adapter_folder.path(), WeightFormat::F32, 1).unwrap();
    let adapter = model.load_adapter(adapter_folder.path()).unwrap();
    let tokens = [1, 2, 3];
    let run = |model: &InferenceModel, adapter: Option<&Adapter>| {
        let chunks = [SequenceChunk { adapter, ..chunk(&tokens, 0, &[0]) }];
        model.forward(&chunks, &mut model.new_cache(1), &mut model.new_workspace(1, 1)).unwrap().to_vec()
    };
    let (plain, apart, together) = (run(&model, None), run(&model, Some(&adapter)), run(&merged, None));
    assert!(apart.iter().zip(&together).all(|(a, b)| (a - b).abs() < 1e-3 * b.abs().max(1.0)));
    assert!(plain.iter().zip(&together).any(|(a, b)| (a - b).abs() > 0.1));
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_refused() {
    let mut config = ModelConfig::tiny_for_tests(VOCABULARY);
    let folder = tempfile::tempdir().unwrap();
    write_random_model(folder.path(), &config, 9);
    config.hidden_size = 1 << 20;
    std::fs::write(folder.path().join("config.json"), config.to_json()).unwrap();
    let problem = InferenceModel::load(folder.path()).unwrap_err().to_string();
    assert!(problem.contains("model.embed_tokens.weight has shape [70, 32]"), "{problem}");
}
