//! Stage 5, adaptation: supervised tuning of a low-rank adapter (LoRA) on conversations.
//!
//! A conversation becomes tokens through the tokenizer's chat template; only what the assistant says is learned. The model
//! stays as it is, and `training`'s `Trainer` moves the adapter alone. What comes out is a folder that `peft` opens, or,
//! through [`merge`], a full model.

mod conversations;
mod error;
mod merge;
mod plan;
mod settings;
mod stage;

pub use conversations::{Conversation, read_conversations};
pub use error::Error;
pub use merge::merge;
pub use settings::Settings;
pub use stage::{Report, STAGE_VERSION, build};
