//! What a folder's tokenizer makes of texts and conversations, one JSON object a line, for comparing with other programs:
//! see `tools/oracles/fuzz_tokenizers.py`.
//!
//! `cargo run -p tokenizer --example ids -- FOLDER < cases.jsonl`

#[path = "../tests/it/cases.rs"]
mod cases;

use serde_json::{Value, json};
use std::io::BufRead;
use std::path::Path;
use tokenizer::Tokenizer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: ids FOLDER < cases.jsonl")?;
    let tokenizer = Tokenizer::load(Path::new(&folder))?;
    for line in std::io::stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let found = match case["text"].as_str() {
            Some(text) => {
                let ids = tokenizer.encode_prompt(text)?;
                json!({
                    "ids": ids, "plain": tokenizer.encode(text)?, "decoded": tokenizer.decode(&ids)?,
                    "skipped": tokenizer.decode_without_special(&ids)?,
                })
            }
            None => match tokenizer.render_conversation(&cases::conversation(&case)) {
                Ok(rendered) => json!({ "ids": tokenizer.encode(&rendered)?, "rendered": rendered }),
                Err(error) => json!({ "refused": error.to_string() }),
            },
        };
        println!("{found}");
    }
    Ok(())
}
