//! Stage 3, pretraining: from shards and a tokenizer to a model in the Hugging Face layout.
//!
//! Same inputs, same bytes, whatever the number of threads and however often the run was killed. That rests on four
//! things: batches are a pure function of (seed, step) (`batches`); gradients are added up in the order of the tokens
//! (`trainer`); the device's operations have fixed chains, whatever its threads (`compute`); and a checkpoint holds the whole
//! state (`checkpoint`).
//!
//! Read `stage::build` first: settings → texts → batches → steps (`run`) → artefact. Adaptation uses the `Trainer` too.

mod batches;
pub mod bench;
mod checkpoint;
mod error;
pub mod estimate;
mod goldfish;
mod heldout;
mod journal;
mod metrics;
mod mixture;
mod outliers;
pub mod products;
mod report;
mod run;
mod schedule;
mod settings;
mod stage;
mod state;
mod tensorboard;
mod texts;
mod trainer;

pub use batches::{Batches, MicroBatch, Seen, StepBatch};
pub use checkpoint::Checkpoints;
pub use error::Error;
pub use mixture::Cut;
pub use report::{Report, TextReport};
pub use schedule::{DecayShape, Schedule, ScheduleKind};
pub use settings::Settings;
pub use stage::{STAGE_VERSION, build};
pub use state::State;
pub use texts::{LanguageTokens, Texts};
pub use trainer::{MomentStorage, Optimiser, OptimiserKind, StepControl, StepOutcome, Subject, Trainer};
