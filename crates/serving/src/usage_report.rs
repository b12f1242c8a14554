//! Usage as programs and people read it.

use std::path::Path;

use provenance::context::timestamp;
use serde_json::{Value, json};

use crate::error::ServingError;
use crate::store::{Store, UsageRow};

/// Most days that one asks for.
pub const MOST_DAYS: u64 = 3_660;
/// Most rows of one answer.
pub const MOST_ROWS: usize = 100_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// What was used in the last `days` days up to `now` (seconds since 1970), of all tenants or one by its name or id;
/// newest first. Each entry holds `date`, `tenant`, `key`, `model`, `requests`, `refused`, `prompt_tokens`,
/// `cached_prompt_tokens`, `completion_tokens` and `seconds`.
pub fn usage(
    state_folder: &Path,
    tenant: Option<&str>,
    days: u64,
    now: u64,
) -> Result<Vec<Value>, ServingError> {
    let since = (now / SECONDS_PER_DAY).saturating_sub(days.clamp(1, MOST_DAYS) - 1);
    Ok(Store::open(state_folder)?.usage(tenant, since, MOST_ROWS)?.iter().map(rendered).collect())
}

/// One row as JSON.
pub(crate) fn rendered(row: &UsageRow) -> Value {
    let date: String = timestamp(row.by.day * SECONDS_PER_DAY).chars().take(10).collect();
    json!({
        "date": date,
        "tenant": row.tenant_name,
        "key": row.by.key,
        "model": row.by.model,
        "requests": row.used.requests,
        "refused": row.used.refused,
        "prompt_tokens": row.used.prompt_tokens,
        "cached_prompt_tokens": row.used.cached_tokens,
        "completion_tokens": row.used.completion_tokens,
        "seconds": row.used.milliseconds as f64 / 1_000.0,
    })
}
