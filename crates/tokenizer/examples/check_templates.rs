//! Where our chat prompts differ from those of `transformers`, for any folder of templates: see
//! `tools/oracles/make_chat_templates.py --templates`.
//!
//! `cargo run -p tokenizer --example check_templates -- FILE`

use serde_json::Value;
use tokenizer::{Conversation, Moment, Tokenizer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: check_templates FILE")?;
    let golden: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let templates = golden["templates"].as_object().ok_or("the file has no `templates`")?;
    let (mut equal, mut different) = (0, 0);
    for (name, source) in templates {
        let tokenizer =
            Tokenizer::with_chat_template(source.as_str().unwrap_or_default(), &golden["tokens"])?;
        for (case, expected) in golden["expected"][name].as_object().into_iter().flatten() {
            let found = tokenizer.render_conversation(&conversation(&golden["conversations"][case]));
            if found.as_deref().ok() == expected.as_str() {
                equal += 1;
                continue;
            }
            different += 1;
            println!(
                "{name}, {case}:\n  expected {expected}\n  found    {:?}",
                found.map_err(|error| error.to_string())
            );
        }
    }
    println!("{equal} of {} equal", equal + different);
    Ok(())
}

/// A conversation of the golden file; its clock stands at 9 March 2026, 07:05:04.
fn conversation(case: &Value) -> Conversation {
    let list = |key: &str| case[key].as_array().cloned();
    Conversation {
        messages: list("messages").unwrap_or_default(),
        tools: list("tools"),
        documents: list("documents"),
        add_generation_prompt: case["add_generation_prompt"] == true,
        continue_final_message: case["continue_final_message"] == true,
        variables: case["variables"].as_object().cloned().unwrap_or_default(),
        now: Some(Moment::from_unix(1_773_039_904)),
    }
}
