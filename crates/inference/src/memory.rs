//! How much memory an engine takes: settled before a byte of cache is taken.

use model::{CacheFormat, CallLimits, InferenceModel, ModelConfig, ModelSizes};
use serde::Serialize;

use crate::engine::EngineSettings;
use crate::error::EngineError;

/// Memory that an engine holds, known before its first request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EngineMemory {
    pub weights_bytes: u64,
    pub cache_bytes: u64,
    /// Buffers of the largest forward pass that may come.
    pub workspace_bytes: u64,
}

/// What an engine will hold of a model that is not loaded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineForecast {
    /// As the engine will say.
    pub memory: EngineMemory,
    /// The numbers that keys and values will be kept in.
    pub cache_format: CacheFormat,
    /// Bytes of one block of the cache, of [`model::BLOCK_POSITIONS`] tokens.
    pub block_bytes: u64,
}

/// What an engine with these settings will hold: the figures that it shows once it runs.
///
/// # Errors
/// Where the memory that the settings allow is too little.
pub fn forecast(sizes: &ModelSizes, settings: &EngineSettings) -> Result<EngineForecast, EngineError> {
    let cache_format = settings.kv_cache.unwrap_or(sizes.default_cache_format());
    let plan = plan_memory(sizes, settings)?;
    let block_bytes = sizes.cache_block_bytes(cache_format) as u64;
    Ok(EngineForecast { memory: plan.memory, cache_format, block_bytes })
}

/// What a cache is sized by: a model, or what is known of one.
pub(crate) trait Sizes {
    fn config(&self) -> &ModelConfig;
    fn weight_bytes(&self) -> usize;
    fn default_cache_format(&self) -> CacheFormat;
    fn cache_block_bytes(&self, format: CacheFormat) -> usize;
    fn workspace_bytes(&self, limits: CallLimits, threads: usize) -> usize;
}

macro_rules! sizes {
    ($of:ty) => {
        impl Sizes for $of {
            fn config(&self) -> &ModelConfig {
                self.config()
            }

            fn weight_bytes(&self) -> usize {
                self.weight_bytes()
            }

            fn default_cache_format(&self) -> CacheFormat {
                self.default_cache_format()
            }

            fn cache_block_bytes(&self, format: CacheFormat) -> usize {
                self.cache_block_bytes(format)
            }

            fn workspace_bytes(&self, limits: CallLimits, threads: usize) -> usize {
                self.workspace_bytes(limits, threads)
            }
        }
    };
}

sizes!(InferenceModel);
sizes!(ModelSizes);

/// What an engine will hold.
pub(crate) struct MemoryPlan {
    pub blocks: usize,
    pub context_length: usize,
    pub memory: EngineMemory,
}

/// The largest cache that is made without being asked for: contexts of published models reach a million tokens.
const MOST_CACHE_WITHOUT_BUDGET: u64 = 4 << 30;

/// Sizes the cache: room for all requests that may run at full context, or what the budget leaves beside the weights.
pub(crate) fn plan_memory(model: &impl Sizes, settings: &EngineSettings) -> Result<MemoryPlan, EngineError> {
    let model_context = model.config().maximum_positions;
    let context = settings.context_length.map_or(model_context, |wanted| wanted.min(model_context));
    let blocks_wanted = settings.running_requests * context.div_ceil(model::BLOCK_POSITIONS);
    let format = settings.kv_cache.unwrap_or(model.default_cache_format());
    let (weights, block) = (model.weight_bytes() as u64, model.cache_block_bytes(format) as u64);
    let vocabulary = model.config().vocabulary_size;
    let rows = settings.tokens_per_step.max(settings.running_requests);
    let answers = settings.running_requests.saturating_mul(1 + settings.speculation);
    let logit_rows = rows.min(answers.saturating_add(scored_rows(vocabulary)));
    let limits = CallLimits { rows, logit_rows, positions: context };
    let workspace = model.workspace_bytes(limits, settings.threads) as u64;
    let fixed = weights.saturating_add(workspace);
    let without_budget = block.saturating_mul(blocks_wanted as u64).min(MOST_CACHE_WITHOUT_BUDGET);
    let budget = settings.memory_bytes.unwrap_or(fixed.saturating_add(without_budget));
    let affordable = budget.saturating_sub(fixed) / block.max(1);
    let blocks = blocks_wanted.min(usize::try_from(affordable).unwrap_or(usize::MAX));
    if blocks == 0 {
        return Err(EngineError::Memory { budget, weights, workspace, block, least: fixed + block });
    }
    Ok(MemoryPlan {
        blocks,
        context_length: context.min(blocks * model::BLOCK_POSITIONS),
        memory: EngineMemory {
            weights_bytes: weights,
            cache_bytes: block * blocks as u64,
            workspace_bytes: workspace,
        },
    })
}

/// Most logits that a step may ask of prompts whose probabilities are wanted: 16 M of f32 are 64 MiB.
const PROMPT_LOGITS_PER_STEP: usize = 16 << 20;

/// Rows of prompts whose probabilities one step computes.
pub(crate) fn scored_rows(vocabulary_size: usize) -> usize {
    (PROMPT_LOGITS_PER_STEP / vocabulary_size.max(1)).max(1)
}
