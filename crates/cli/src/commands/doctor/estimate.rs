//! From a model's facts and a machine's speed to what one may expect of the other.

use inference::{EngineSettings, forecast};
use model::{BLOCK_POSITIONS, CacheFormat, WeightFormat};
use serde_json::{Value, json};

use super::facts::{Facts, LORA_RANK};
use super::speed::Speed;
use crate::console;
use crate::machine;

const F32_BYTES: u64 = 4;
/// Tokens of one step of adapting.
const ADAPTING_TOKENS: u64 = 2048;
/// What a step of training reaches of its matrix products' speed, as `bench training` measures it.
const ADAPTING_SHARE: f64 = 0.8;

/// Bytes of a parameter, where nothing but their number is known.
fn bytes_of_parameter(format: WeightFormat) -> f64 {
    match format {
        WeightFormat::F32 | WeightFormat::Stored => 4.0,
        WeightFormat::Bf16 => 2.0,
        WeightFormat::Q8 => 34.0 / 32.0,
        WeightFormat::Q4 => 18.0 / 32.0,
    }
}

/// What to expect.
pub struct Estimate {
    formats: Vec<Format>,
    context: u64,
    available: Option<u64>,
    adapting_bytes: Option<u64>,
    adapting_tokens_per_second: f64,
}

struct Format {
    name: &'static str,
    weight_bytes: u64,
    /// Buffers of the engine's largest step; `None` where the configuration is not known.
    workspace_bytes: Option<u64>,
    /// What keys and values are kept in, and the bytes of one token of them.
    cache: Option<(CacheFormat, u64)>,
    /// All that an engine holds for as many requests as it runs at once, as `serve` says when it starts.
    engine_bytes: Option<u64>,
    /// Tokens of context that fit beside the weights; `None` where that is not known.
    longest_context: Option<u64>,
    fits: Option<bool>,
    decode: f64,
    prefill: f64,
    joules_per_token: Option<f64>,
}

impl Estimate {
    pub fn new(
        facts: &Facts,
        speed: &Speed,
        context: u64,
        rated_watts: Option<f64>,
        threads: usize,
    ) -> Estimate {
        Self::with_memory(facts, speed, context, rated_watts, threads, machine::available_bytes())
    }

    fn with_memory(
        facts: &Facts,
        speed: &Speed,
        context: u64,
        rated_watts: Option<f64>,
        threads: usize,
        available: Option<u64>,
    ) -> Estimate {
        let context = facts.positions.map_or(context, |positions| context.min(positions));
        let watts = rated_watts.or_else(|| speed.watts());
        let read = facts.active_parameters().saturating_sub(facts.looked_up).max(1) as f64;
        let multiplied = (read - facts.output as f64).max(1.0);
        let format = |format: WeightFormat| {
            let Counted { weight_bytes, workspace_bytes, cache, engine_bytes, read_bytes } =
                count(facts, format, read, threads);
            let fixed = weight_bytes.saturating_add(workspace_bytes.unwrap_or(0));
            let left = available.map(|bytes| bytes.saturating_sub(fixed));
            let longest_context = left.zip(cache).map(|(left, (_, cache))| {
                // Memory for a context is given out in whole blocks.
                let block = cache.max(1).saturating_mul(BLOCK_POSITIONS as u64);
                let tokens = (left / block).saturating_mul(BLOCK_POSITIONS as u64);
                facts.positions.map_or(tokens, |positions| tokens.min(positions))
            });
            let fits = match (available, longest_context) {
                (Some(available), None) => Some(fixed <= available),
                (_, longest) => longest.map(|longest| longest >= context.max(1)),
            };
            let arithmetic = match format {
                WeightFormat::F32 => speed.f32,
                WeightFormat::Bf16 => speed.bf16,
                _ => speed.quantised(),
            };
            let decode = speed.bandwidth / read_bytes.max(1.0);
            Format {
                name: format.name(),
                weight_bytes,
                workspace_bytes,
                cache,
                engine_bytes,
                longest_context,
                fits,
                decode,
                prefill: arithmetic / (2.0 * multiplied),
                joules_per_token: watts.map(|watts| watts / decode),
            }
        };
        let formats = facts.formats().into_iter().map(format).collect();
        let adapting_bytes = facts.lora_parameters.zip(facts.activations).map(|(lora, activations)| {
            // Weights as f32; of the adapter its values, gradients and two moments; activations of one step.
            F32_BYTES.saturating_mul(
                facts
                    .parameters
                    .saturating_add(4 * lora)
                    .saturating_add(activations.saturating_mul(ADAPTING_TOKENS)),
            )
        });
        // Forward, and backward to the activations: the weights themselves get no gradient.
        let adapting_tokens_per_second =
            speed.f32 * ADAPTING_SHARE / (4.0 * (multiplied + facts.output as f64));
        Estimate { formats, context, available, adapting_bytes, adapting_tokens_per_second }
    }

    /// What adapting would take, in words.
    pub fn adapting(&self) -> String {
        let Some(bytes) = self.adapting_bytes else {
            return "not known: the configuration says too little".into();
        };
        let room = match self.available {
            Some(available) if bytes > available => "more than is available",
            Some(_) => "fits",
            None => "as far as that is known",
        };
        let seconds = 1e6 / self.adapting_tokens_per_second.max(1e-9);
        let span = std::time::Duration::try_from_secs_f64(seconds).unwrap_or(std::time::Duration::MAX);
        format!(
            "rank {LORA_RANK}: roughly {} of memory ({room}), {} for a million tokens",
            console::bytes(bytes),
            console::duration(span)
        )
    }

    /// For people.
    pub fn table(&self) -> String {
        let number = |value: f64| if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") };
        let rows: Vec<Vec<String>> = self
            .formats
            .iter()
            .map(|format| {
                vec![
                    format.name.to_string(),
                    match format.fits {
                        Some(true) => "yes",
                        Some(false) => "no",
                        None => "not known",
                    }
                    .to_string(),
                    console::bytes(format.weight_bytes),
                    format.workspace_bytes.map_or("not known".into(), console::bytes),
                    format.cache.map_or("not known".into(), |(cache, bytes)| {
                        format!("{} ({})", console::bytes(bytes), cache.name())
                    }),
                    format.longest_context.map_or("not known".into(), |tokens| tokens.to_string()),
                    number(format.decode),
                    number(format.prefill),
                    format.joules_per_token.map_or("absent".into(), |joules| format!("{joules:.2}")),
                ]
            })
            .collect();
        let header = [
            "kept as",
            "fits",
            "weights",
            "buffers",
            "a token of context",
            "room for context",
            "decode ≤ t/s",
            "prefill ≤ t/s",
            "J/token",
        ];
        let available = self.available.map_or("an unknown amount".into(), console::bytes);
        format!(
            "{}\n\n  fits: weights, buffers and {} tokens of context in {available} of memory",
            console::table(&header, &rows, 2),
            self.context
        )
    }

    pub fn to_json(&self) -> Value {
        let formats: Vec<Value> = self
            .formats
            .iter()
            .map(|format| {
                json!({
                    "format": format.name,
                    "weight_bytes": format.weight_bytes,
                    "workspace_bytes": format.workspace_bytes,
                    "cache_format": format.cache.map(|(cache, _)| cache),
                    "cache_bytes_per_token": format.cache.map(|(_, bytes)| bytes),
                    "engine_bytes": format.engine_bytes,
                    "fits": format.fits,
                    "room_for_context_tokens": format.longest_context,
                    "decode_tokens_per_second_at_most": format.decode,
                    "prefill_tokens_per_second_at_most": format.prefill,
                    "joules_per_decoded_token": format.joules_per_token,
                })
            })
            .collect();
        json!({
            "context_tokens": self.context,
            "memory_available_bytes": self.available,
            "formats": formats,
            "adapting": {
                "rank": LORA_RANK,
                "memory_bytes": self.adapting_bytes,
                "tokens_per_second": self.adapting_tokens_per_second,
            },
        })
    }
}

/// Sizes of a model with weights in one format.
struct Counted {
    weight_bytes: u64,
    workspace_bytes: Option<u64>,
    cache: Option<(CacheFormat, u64)>,
    engine_bytes: Option<u64>,
    /// Of weights, for one token of an answer.
    read_bytes: f64,
}

/// Counts as the engine does where the configuration is understood, else from the number of parameters; `read` is how many of
/// them a token meets.
fn count(facts: &Facts, format: WeightFormat, read: f64, threads: usize) -> Counted {
    let settings = EngineSettings { threads, weights: format, ..EngineSettings::default() };
    let sizes = facts.sizes(format);
    if let Some((sizes, engine)) =
        sizes.and_then(|sizes| forecast(&sizes, &settings).ok().map(|found| (sizes, found)))
    {
        let memory = engine.memory;
        let per_token = engine.block_bytes.div_ceil(BLOCK_POSITIONS as u64);
        return Counted {
            weight_bytes: memory.weights_bytes,
            workspace_bytes: Some(memory.workspace_bytes),
            cache: Some((engine.cache_format, per_token)),
            engine_bytes: Some(memory.weights_bytes + memory.cache_bytes + memory.workspace_bytes),
            read_bytes: sizes.bytes_per_token() as f64,
        };
    }
    let (cache, bytes) = match format {
        WeightFormat::F32 | WeightFormat::Stored => (CacheFormat::F32, 4),
        _ => (CacheFormat::Bf16, 2),
    };
    Counted {
        weight_bytes: (facts.parameters as f64 * bytes_of_parameter(format)) as u64,
        workspace_bytes: None,
        cache: facts.cache_numbers.map(|numbers| (cache, numbers.saturating_mul(bytes))),
        engine_bytes: None,
        read_bytes: read * bytes_of_parameter(format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use provenance::energy::Energy;

    #[test]
    fn limits_are_bandwidth_and_arithmetic_over_what_a_token_needs() {
        let facts = Facts {
            parameters: 1_000_000_000,
            looked_up: 200_000_000,
            output: 200_000_000,
            routed_share: 1.0,
            positions: Some(8192),
            cache_numbers: Some(25_000),
            ..Facts::default()
        };
        let speed = Speed {
            bandwidth: 32e9,
            bandwidth_bytes: 1 << 30,
            f32: 400e9,
            bf16: 800e9,
            int8: Some(1500e9),
            energy: Energy::absent(),
            seconds: 1.0,
        };
        let memory = Some(4_000_000_000 + 100_000 * 5_000);
        let estimate = Estimate::with_memory(&facts, &speed, 4096, Some(100.0), 2, memory);
        let [f32, bf16, q8, _] = &estimate.formats[..] else { panic!() };
        assert_eq!((f32.decode, f32.prefill), (32e9 / 3.2e9, 400e9 / 1.2e9));
        assert_eq!(f32.joules_per_token, Some(10.0));
        assert_eq!((f32.longest_context, f32.fits), (Some(78 * 64), Some(true)));
        assert_eq!((bf16.longest_context, bf16.fits), (Some(8192), Some(true)));
        assert_eq!(bf16.prefill, 800e9 / 1.2e9);
        assert_eq!(q8.prefill, 1500e9 / 1.2e9);
        let little = Estimate::with_memory(&facts, &speed, 4096, None, 2, Some(4_000_000_000));
        assert_eq!(little.formats[0].fits, Some(false));
        assert_eq!(little.formats[0].joules_per_token, None);
    }

    /// What is said of a model before it is loaded is what its engine says once it is.
    #[test]
    fn memory_is_counted_as_the_engine_counts() {
        let folder = tempfile::tempdir().unwrap();
        let config = model::ModelConfig::tiny_for_tests(260);
        model::testing::write_random_model(folder.path(), &config, 1);
        inference::testing::write_byte_tokenizer(folder.path()).unwrap();
        let facts = super::super::facts::of_folder(folder.path()).unwrap();
        assert_eq!(facts.problems, Vec::<String>::new());
        for format in facts.formats() {
            let counted = count(&facts, format, 1.0, 2);
            let settings = EngineSettings { threads: 2, weights: format, ..EngineSettings::default() };
            let memory = inference::Engine::start(folder.path(), &settings).unwrap().memory();
            assert_eq!(counted.weight_bytes, memory.weights_bytes, "{format:?}");
            assert_eq!(counted.workspace_bytes, Some(memory.workspace_bytes), "{format:?}");
            let all = memory.weights_bytes + memory.cache_bytes + memory.workspace_bytes;
            assert_eq!(counted.engine_bytes, Some(all), "{format:?}");
        }
    }
}
