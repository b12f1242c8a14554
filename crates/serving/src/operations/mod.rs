//! What keeps the server running and lets others see that it does.

pub mod health;
pub mod log;
pub mod metrics;
pub mod probes;
pub mod trace;
