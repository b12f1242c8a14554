//! The decoder: one definition for training and inference, configured per layer, in the Hugging Face layout on disk.
//!
//! `config` says what a model is, `parameters` and `spans` where its numbers stand, `tensors` where they come
//! from, `weights` how they are read from and written to files that may be hostile, `decoder` is the forward and backward pass over packed documents, `adapter` the low-rank
//! additions (LoRA), and `inference` the ragged forward pass over a cache of keys and values. All arithmetic is `compute`'s.

mod adapter;
mod adapter_targets;
mod config;
mod decoder;
mod error;
mod gguf_tensors;
mod inference;
mod low_rank;
mod mixture;
mod parameters;
mod safetensors_writer;
mod spans;
mod tensors;
pub mod testing;
mod weights;
mod workspace;

pub use adapter::{Adapter, AdapterConfig, Projection};
pub use compute::cached_attention::BLOCK_POSITIONS;
pub use compute::cross_entropy::NO_TARGET;
pub use compute::routing::Scoring;
pub use config::{
    Activation, Architecture, AttentionSpecification, FeedForwardSpecification, LatentAttention,
    LayerSpecification, MixtureSpecification, ModelConfig, NormPlacement, QueryKeyNorm, Rotary,
    RotaryScaling, Temperature,
};
pub use decoder::{AdapterInTraining, Decoder, DropoutPlan, Gradients, PackedBatch, RouterTraining};
pub use error::ModelError;
pub use inference::{
    CacheFormat, CallLimits, InferenceModel, InferenceWorkspace, KvCache, LoadWatch, LogitRows, ModelSizes,
    SequenceChunk, WeightFormat, load_parameters, with_adapter,
};
pub use parameters::{Parameter, ParameterKind, ParameterTable, Parameters};
pub use safetensors_writer::write_tensors;
pub use tensors::{Tensors, has_own_output_table};
pub use weights::{WeightsReader, write_safetensors};
pub use workspace::TrainingWorkspace;
