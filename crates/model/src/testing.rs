//! Small models for the tests of other crates.

use crate::config::{
    Architecture, AttentionSpecification, FeedForwardSpecification, LayerSpecification, MixtureSpecification,
    ModelConfig, NormPlacement, QueryKeyNorm,
};
use crate::parameters::ParameterKind;
use crate::spans::ModelSpans;
use crate::weights::write_safetensors;
use compute::random;
use compute::routing::Scoring;
use std::path::Path;

impl ModelConfig {
    /// Two layers of width 32: enough to have everything, small enough to run at once.
    pub fn tiny_for_tests(vocabulary_size: usize) -> ModelConfig {
        let attention = AttentionSpecification {
            norm: QueryKeyNorm::Head,
            ..AttentionSpecification::plain(4, 2, 8, 10_000.0)
        };
        let feed_forward = FeedForwardSpecification::dense(48);
        ModelConfig {
            architecture: Architecture::Qwen3,
            vocabulary_size,
            hidden_size: 32,
            layers: vec![LayerSpecification { attention, feed_forward, norms: NormPlacement::Before }; 2],
            norm_epsilon: 1e-6,
            tie_embeddings: true,
            embedding_scale: None,
            logit_soft_cap: None,
            maximum_positions: 512,
            begin_of_text: Some(0),
            end_of_text: Some(0),
            end_tokens: vec![0],
            padding: None,
        }
    }

    /// A dense layer and two with eight experts in two groups, of which a token passes two of one group and one shared.
    pub fn tiny_mixture_for_tests(vocabulary_size: usize) -> ModelConfig {
        let mut config = ModelConfig::tiny_for_tests(vocabulary_size);
        let mixture = MixtureSpecification {
            experts: 8,
            experts_per_token: 2,
            intermediate_size: 20,
            scoring: Scoring::Sigmoid,
            groups: 2,
            active_groups: 1,
            normalise: true,
            scale: 1.5,
        };
        let feed_forward =
            FeedForwardSpecification { mixture: Some(mixture), ..FeedForwardSpecification::dense(20) };
        let sparse = LayerSpecification { feed_forward, ..config.layers[0] };
        config.architecture = Architecture::Dots1;
        config.layers.truncate(1);
        config.layers.extend([sparse; 2]);
        config
    }
}

/// Random values for every tensor, norms and biases included, wide enough that attention is peaked: initial values would
/// hide faults.
pub fn random_values(config: &ModelConfig, seed: u64) -> Vec<f32> {
    let table = ModelSpans::new(config).table;
    let mut values = vec![0.0; table.length()];
    for (index, parameter) in table.entries().iter().enumerate() {
        let key = random::key(&[seed, index as u64]);
        for (i, value) in values[parameter.span.clone()].iter_mut().enumerate() {
            let number = random::normal(key, i as u64);
            *value = match parameter.kind {
                ParameterKind::Norm => 1.0 + 0.3 * number,
                ParameterKind::Bias => 0.3 * number,
                // Scores lie between 0 and 1.
                ParameterKind::RouterBias => 0.1 * number,
                ParameterKind::Matrix | ParameterKind::Table => 0.2 * number,
            } as f32;
        }
    }
    values
}

/// Writes `config.json` and `model.safetensors` with random values into `folder`.
///
/// # Panics
/// When the folder cannot be written.
pub fn write_random_model(folder: &Path, config: &ModelConfig, seed: u64) {
    std::fs::write(folder.join("config.json"), config.to_json()).expect("a folder to write into");
    let mut file = std::fs::File::create(folder.join("model.safetensors")).expect("a folder to write into");
    write_safetensors(&mut file, &ModelSpans::new(config).table, &random_values(config, seed))
        .expect("room for a small file");
}
