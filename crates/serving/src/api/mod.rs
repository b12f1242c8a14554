//! The routes: OpenAI's models, completions and chat completions.

pub mod answer;
pub mod chat;
pub mod completions;
pub mod failure;
pub mod fields;
pub mod models;
pub mod options;
pub mod render;
