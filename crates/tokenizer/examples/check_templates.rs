//! Where our chat prompts differ from those of `transformers`, for any folder of templates: see
//! `tools/oracles/make_chat_templates.py --templates`.
//!
//! `cargo run -p tokenizer --example check_templates -- FILE`

use serde_json::Value;
use tokenizer::Tokenizer;

#[path = "../tests/it/cases.rs"]
mod cases;

use cases::conversation;

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
