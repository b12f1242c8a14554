//! Chat templates in a file's metadata, as llama.cpp's Python package writes them: `tokenizer.chat_template`, and where there are
//! several, each of the others as `tokenizer.chat_template.NAME` with its name in `tokenizer.chat_templates`.

use crate::value::{Array, Metadata, Value as Entry};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const DEFAULT: &str = "default";
const KEY: &str = "tokenizer.chat_template";
const NAMES: &str = "tokenizer.chat_templates";

/// The keys for `chat_template` of `tokenizer_config.json`: one template, or a list of named ones.
pub(crate) fn write(config: &Map<String, Value>) -> Vec<(String, Entry)> {
    let text = |text: &str| Entry::String(text.to_owned());
    let list = match config.get("chat_template") {
        Some(Value::String(template)) => return vec![(KEY.into(), text(template))],
        Some(Value::Array(list)) => list,
        _ => return Vec::new(),
    };
    let named = list.iter().filter_map(|entry| Some((entry["name"].as_str()?, entry["template"].as_str()?)));
    let mut others = BTreeMap::new();
    for (name, template) in named.clone() {
        let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
        // Of two with one name the first counts, as when they are read.
        others.entry(name.chars().map(letter).collect::<String>()).or_insert(template);
    }
    // Without a default, readers here take the first.
    let default = others.remove(DEFAULT).or(named.map(|(_, template)| template).next());
    let mut keys: Vec<(String, Entry)> =
        default.map(|template| (KEY.into(), text(template))).into_iter().collect();
    if !others.is_empty() {
        keys.push((NAMES.into(), Entry::Array(Array::String(others.keys().cloned().collect()))));
    }
    keys.extend(others.into_iter().map(|(name, template)| (format!("{KEY}.{name}"), text(template))));
    keys
}

/// `chat_template` of `tokenizer_config.json`: a text, or where there are others beside it a list. Like llama.cpp, it goes by the
/// keys themselves, listed or not.
pub(crate) fn read(metadata: &Metadata) -> Option<Value> {
    let template =
        |name: &str, template: &Entry| Some(json!({ "name": name, "template": template.as_str()? }));
    let default = metadata.get(KEY);
    let others = metadata.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(KEY)?.strip_prefix('.')?;
        template(name, value)
    });
    let others: Vec<Value> = others.collect();
    match others.is_empty() {
        true => Some(json!(default?.as_str()?)),
        false => Some(default.and_then(|value| template(DEFAULT, value)).into_iter().chain(others).collect()),
    }
}
