//! The engine: KV cache, sampling, batching of requests; no network, no async runtime.
//!
//! - [`Engine`]: `submit(request) → events`. One thread computes all requests together (continuous batching), and what
//!   a request gets never depends on what else runs: same model, same request, same bytes.
//! - [`Scorer`]: the probability of a given text, for evaluation.
//!
//! The numbers come from crate `model`; here stand the decisions around them: who is computed when, which token is
//! taken, which text may leave.

mod blocks;
mod decoder;
mod engine;
mod error;
mod format;
mod generation;
mod memory;
mod quality;
mod queue;
mod request;
mod sampling;
mod schema_place;
mod scorer;
mod sequence;
mod speculation;
pub mod testing;
mod text;
mod worker;

pub use decoder::{Chunk, Decoder, DecoderShape, ModelDecoder, Rows};
pub use engine::{Answer, Engine, EngineFigures, EngineLoad, EngineSettings, RequestHandle, RunningRequest};
pub use error::{EngineError, RequestFailure, SubmitError};
pub use format::{AnswerFormat, LARGEST_FORMAT, LARGEST_GRAMMAR};
pub use generation::GenerationDefaults;
pub use memory::{EngineForecast, EngineMemory, forecast};
pub use model::{CacheFormat, WeightFormat};
pub use quality::{Quality, WindowLogits};
pub use request::{Alternative, Event, FinishReason, Pooling, Request, Sampling, TokenLogprob, Usage};
pub use sampling::seed_of_answer;
pub use scorer::{ScoreError, Scorer};
