//! How much memory an engine takes: settled before a byte of cache is taken.

use model::{CallLimits, InferenceModel};
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

/// What an engine will hold.
pub(crate) struct MemoryPlan {
    pub blocks: usize,
    pub context_length: usize,
    pub memory: EngineMemory,
}

/// The largest cache that is made without being asked for: contexts of published models reach a million tokens.
const MOST_CACHE_WITHOUT_BUDGET: u64 = 4 << 30;

/// Sizes the cache: room for all requests that may run at full context, or what the budget leaves beside the weights.
pub(crate) fn plan_memory(
    model: &InferenceModel,
    settings: &EngineSettings,
) -> Result<MemoryPlan, EngineError> {
    let model_context = model.config().maximum_positions;
    let context = settings.context_length.map_or(model_context, |wanted| wanted.min(model_context));
    let blocks_wanted = settings.running_requests * context.div_ceil(model::BLOCK_POSITIONS);
    let format = settings.cache_format(model);
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
