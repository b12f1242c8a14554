//! What keeps the server running and lets others see that it does.

pub mod health;
pub mod probes;
