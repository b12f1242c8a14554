//! A trained vocabulary as files: `tokenizer.json` and `tokenizer_config.json` in the Hugging Face format.
//!
//! Ids: the special tokens, the 256 bytes, then the merges in their order. The files are what `transformers`
//! (`PreTrainedTokenizerFast`) and every engine that reads the format open.

use serde_json::{Value, json};

use crate::SPECIAL_TOKENS;
use crate::merges::{Merge, byte_id};
use crate::pretokenise::PATTERN;
use crate::settings::FIRST_MERGE_ID;
use gguf::byte_alphabet;

/// ChatML: `<|im_start|>role`, the message, `<|im_end|>`, each turn on lines of its own.
pub(crate) const CHAT_TEMPLATE: &str = "{%- for message in messages -%}\
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}\
{%- endfor -%}\
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}";

/// `tokenizer.json`: a byte-level BPE model with the pre-tokeniser of this crate.
pub(crate) fn tokenizer_json(merges: &[Merge]) -> String {
    let names = token_names(merges);
    let vocabulary: serde_json::Map<String, Value> =
        names.iter().enumerate().map(|(id, name)| (name.clone(), Value::from(id))).collect();
    let merges: Vec<[&str; 2]> = merges
        .iter()
        .map(|(left, right)| [names[*left as usize].as_str(), names[*right as usize].as_str()])
        .collect();
    let added: Vec<Value> = SPECIAL_TOKENS
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let byte_level = |use_regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                { "type": "Split", "pattern": { "Regex": PATTERN }, "behavior": "Isolated", "invert": false },
                byte_level(false),
            ],
        },
        "post_processor": null,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": vocabulary,
            "merges": merges,
        },
    });
    pretty(&tokenizer)
}

/// `tokenizer_config.json`: the roles of the special tokens and the chat template.
pub(crate) fn tokenizer_config_json(maximum_length: u64) -> String {
    let [separator, turn_start, turn_end, padding] = SPECIAL_TOKENS;
    let decoder: serde_json::Map<String, Value> = SPECIAL_TOKENS
        .iter()
        .enumerate()
        .map(|(id, token)| {
            let token = json!({
                "content": token, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
                "special": true,
            });
            (id.to_string(), token)
        })
        .collect();
    pretty(&json!({
        "added_tokens_decoder": decoder,
        "additional_special_tokens": [turn_start, turn_end],
        "bos_token": separator,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": separator,
        "model_max_length": maximum_length,
        "pad_token": padding,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": null,
    }))
}

/// Each token as `tokenizer.json` writes it, by id.
fn token_names(merges: &[Merge]) -> Vec<String> {
    let mut names: Vec<String> = SPECIAL_TOKENS.iter().map(|token| (*token).to_owned()).collect();
    debug_assert_eq!(names.len() as u32, byte_id(0));
    names.extend(byte_alphabet().iter().map(char::to_string));
    debug_assert_eq!(names.len() as u32, FIRST_MERGE_ID);
    for (left, right) in merges {
        let name = format!("{}{}", names[*left as usize], names[*right as usize]);
        names.push(name);
    }
    names
}

fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("a JSON value always serialises");
    text.push('\n');
    text
}
