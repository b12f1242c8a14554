//! What keeps the server running and lets others see that it does.

pub mod health;
pub mod log;
pub mod metrics;
pub mod probes;
#[cfg(any(test, feature = "opentelemetry"))]
pub mod spans;
#[cfg(not(any(test, feature = "opentelemetry")))]
#[path = "no_spans.rs"]
pub mod spans;
pub mod trace;
