//! GGUF, the model format of llama.cpp: read with distrust, and written so that llama.cpp opens it.
//!
//! `reader` and `writer` know the container, `dequantise` and `quantise` its numbers. [`Model`] shows a file in Hugging
//! Face's terms (configuration, tensor names, rotary order of the heads), [`Export`] goes the other way; `tokenizer` turns
//! `tokenizer.ggml.*` into a `tokenizer.json`, `vocabulary` goes back, `elisions` with what llama.cpp needs for our own.

mod config;
mod dequantise;
mod element;
mod elisions;
mod error;
mod export;
mod families;
mod input;
mod metadata;
mod model;
mod pretokenisers;
mod quantise;
mod reader;
mod templates;
mod tokenizer;
mod value;
mod vocabulary;
mod widen;
mod writer;

pub use dequantise::dequantise;
pub use element::ElementType;
pub use elisions::{OWN_RULE, byte_alphabet};
pub use error::GgufError;
pub use export::{Export, Format, Source, Stop};
pub use model::Model;
pub use quantise::quantise;
pub use reader::{GgufFile, TensorInfo};
pub use tokenizer::TokenizerFiles;
pub use value::{Array, Metadata, Value};
pub use widen::widen;
pub use writer::{GgufWriter, TensorPlan};
