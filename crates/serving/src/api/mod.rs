//! The routes: OpenAI's models, completions, chat completions and embeddings; tokens as vLLM has them.

pub mod admin;
pub mod answer;
pub mod audit;
pub mod chat;
pub mod completions;
pub mod conversation;
pub mod embeddings;
pub mod failure;
pub mod fields;
pub mod models;
pub mod options;
mod path;
pub mod relay;
pub mod render;
pub mod tokens;
pub mod usage;
pub mod variables;
mod vocabulary;
