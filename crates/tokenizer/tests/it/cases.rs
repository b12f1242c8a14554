//! Conversations of the golden file; `examples/check_templates.rs` reads them as well.

use serde_json::Value;
use tokenizer::{Conversation, Moment};

/// The moment at which the golden file was made: 9 March 2026, 07:05:04.
const NOW: i64 = 1_773_039_904;

/// A conversation of the golden file, as it was given to `transformers`.
pub fn conversation(case: &Value) -> Conversation {
    let list = |key: &str| case[key].as_array().cloned();
    Conversation {
        messages: list("messages").unwrap_or_default(),
        tools: list("tools"),
        documents: list("documents"),
        add_generation_prompt: case["add_generation_prompt"] == true,
        continue_final_message: case["continue_final_message"] == true,
        variables: case["variables"].as_object().cloned().unwrap_or_default(),
        now: Some(Moment::from_unix(NOW)),
    }
}
