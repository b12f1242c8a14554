//! Health checks, in the background.

use std::sync::Arc;
use std::time::Duration;

use super::endpoint::Endpoint;

/// Checks in a row that must fail before an engine counts as ill; one that succeeds makes it well.
const FAILURES: usize = 2;

/// Asks one engine again and again.
pub async fn watch(endpoint: Arc<Endpoint>) {
    let settings = endpoint.settings();
    let pause = Duration::from_secs(settings.health_seconds);
    let patience = settings.connect_time().min(pause);
    let mut failures = 0;
    loop {
        let is_well = endpoint.ask_health(patience).await;
        failures = if is_well { 0 } else { failures + 1 };
        if (is_well || failures >= FAILURES) && endpoint.note_health(is_well) {
            match is_well {
                true => tracing::info!(upstream = endpoint.name(), "an engine is well again"),
                false => tracing::warn!(upstream = endpoint.name(), "an engine fails its health checks"),
            }
        }
        tokio::time::sleep(pause).await;
    }
}
