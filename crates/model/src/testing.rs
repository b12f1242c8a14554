//! Small models for the tests of other crates.

use crate::adapter::{Adapter, AdapterConfig, Projection};
use crate::config::{
    Architecture, AttentionSpecification, FeedForwardSpecification, LayerSpecification, MixtureSpecification,
    ModelConfig, NormPlacement, QueryKeyNorm,
};
use crate::parameters::ParameterKind;
use crate::spans::ModelSpans;
use crate::tensors::{Tensors, TensorsInMemory};
use crate::weights::write_safetensors;
use compute::random;
use compute::routing::Scoring;
use gguf::{ElementType, Export, Format, GgufFile, GgufWriter, Source, Stop, TensorPlan};
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

/// Random values as a GGUF file.
///
/// # Panics
/// When the family has no such file, or it cannot be written.
pub fn write_random_gguf(path: &Path, config: &ModelConfig, seed: u64) {
    struct Values<'a>(TensorsInMemory<'a>);
    impl Source for Values<'_> {
        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            self.0.shape(name)
        }
        fn names(&self) -> Vec<String> {
            self.0.names()
        }
        fn read(&mut self, name: &str, out: &mut [f32]) -> Result<(), Stop> {
            Ok(self.0.read(name, out)?)
        }
    }
    let (table, values) = (ModelSpans::new(config).table, random_values(config, seed));
    let mut source = Values(TensorsInMemory::new(&table, &values));
    let keys = serde_json::from_str(&config.to_json()).expect("keys of a configuration");
    let export = Export::plan(&keys, None, &mut source, "tiny", Format::F32).expect("a family of GGUF's");
    let mut file = std::fs::File::create(path).expect("a folder to write into");
    export.write(&mut source, &mut file, &mut |_| Ok(())).expect("room for a small file");
}

/// Blocks of `numbers` weights that are random in every bit but for their size: about 0.1.
///
/// # Panics
/// When they are no whole number of blocks.
pub fn random_blocks(element: ElementType, numbers: usize, seed: u64) -> Vec<u8> {
    use ElementType::{Bf16, F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
    // Where a block has its halves, and how large they are for weights around zero.
    let halves: &[(usize, f32)] = match element {
        Q8_0 => &[(0, 1e-3)],
        Q4_0 => &[(0, 0.02)],
        Q4_1 => &[(0, 0.02), (2, -0.15)],
        Q5_0 => &[(0, 0.01)],
        Q5_1 => &[(0, 0.01), (2, -0.15)],
        Q4K => &[(0, 6e-4), (2, 4.5e-3)],
        Q5K => &[(0, 3e-4), (2, 4.5e-3)],
        Q6K => &[(208, 7e-5)],
        F32 | F16 | Bf16 => &[],
    };
    let bytes = element.row_bytes(numbers).expect("whole blocks");
    let key = random::key(&[seed, element.code() as u64]);
    if halves.is_empty() {
        let values: Vec<f32> = (0..numbers).map(|i| 0.1 * random::normal(key, i as u64) as f32).collect();
        let mut stored = Vec::new();
        gguf::quantise(element, &values, &mut stored);
        return stored;
    }
    let mut stored: Vec<u8> = (0..bytes).map(|i| (random::uniform(key, i as u64) * 256.0) as u8).collect();
    for (block, stored) in stored.chunks_exact_mut(element.block_bytes()).enumerate() {
        for &(place, size) in halves {
            let half = size * (0.5 + random::uniform(key ^ 1, block as u64) as f32);
            stored[place..place + 2].copy_from_slice(&half::f16::from_f32(half).to_le_bytes());
        }
    }
    stored
}

/// The GGUF file `from` again as `to`, with random blocks of the types that `element` gives for some tensors' names.
///
/// # Panics
/// When the file cannot be read or written, or rows are no whole number of blocks.
pub fn rewrite_gguf(from: &Path, to: &Path, seed: u64, element: impl Fn(&str) -> Option<ElementType>) {
    let file = GgufFile::open(from).expect("a file that was written here");
    let metadata: Vec<_> = file.metadata().iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let plan = |(name, tensor): (&String, &gguf::TensorInfo)| TensorPlan {
        name: name.clone(),
        element: element(name).unwrap_or(tensor.element),
        shape: tensor.shape.clone(),
    };
    let plan: Vec<TensorPlan> = file.tensors().iter().map(plan).collect();
    let mut out = std::fs::File::create(to).expect("a folder to write into");
    let mut writer = GgufWriter::begin(&mut out, &metadata, &plan).expect("room for a small file");
    for (index, tensor) in plan.iter().enumerate() {
        let stored = match element(&tensor.name) {
            Some(element) => random_blocks(element, tensor.elements(), seed + index as u64),
            None => {
                let mut bytes = vec![0; tensor.bytes() as usize];
                file.read_bytes(&tensor.name, 0, &mut bytes).expect("a whole file");
                bytes
            }
        };
        writer.stored(&stored).expect("room for a small file");
    }
    writer.finish();
}

/// Writes an adapter of queries and values, with values that change what a model says, in peft's layout.
///
/// # Panics
/// When the folder cannot be written.
pub fn write_random_adapter(folder: &Path, config: &ModelConfig, seed: u64) {
    let targets = vec![Projection::Query, Projection::Value];
    let mut adapter = Adapter::new(config, AdapterConfig { rank: 4, alpha: 8.0, targets }, seed)
        .expect("projections of the model");
    for (index, value) in adapter.values.iter_mut().enumerate() {
        *value = 0.3 * random::normal(random::key(&[seed]), index as u64) as f32;
    }
    std::fs::write(folder.join("adapter_config.json"), adapter.to_json()).expect("a folder to write into");
    let mut file =
        std::fs::File::create(folder.join("adapter_model.safetensors")).expect("a folder to write into");
    write_safetensors(&mut file, adapter.table(), &adapter.values).expect("room for a small file");
}
