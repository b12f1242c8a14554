//! Models of pictures and text: their text part is a family of its own, with its keys under `text_config` and its tensors
//! under a prefix. Fed with text alone, it computes what the whole does.

use super::families::Architecture;
use super::keys::INDIFFERENT_KEYS;
use serde_json::{Map, Value, json};

/// The classes, and how the text parts that they may have call themselves.
const CLASSES: [(&str, &[Architecture]); 2] = [
    ("Gemma3ForConditionalGeneration", &[Architecture::Gemma3]),
    ("Mistral3ForConditionalGeneration", &[Architecture::Mistral, Architecture::Ministral3]),
];

/// Keys of the whole that say nothing of its text part.
const KEYS_OF_PICTURES: [&str; 14] = [
    "boi_token_id",
    "boi_token_index",
    "eoi_token_id",
    "eoi_token_index",
    "image_token_id",
    "image_token_index",
    "mm_tokens_per_image",
    "multimodal_projector_bias",
    "projector_hidden_act",
    "spatial_merge_size",
    "vision_config",
    "vision_feature_layer",
    "vision_feature_select_strategy",
    "processor_class",
];

/// Keys that the whole may say instead of its text part.
const KEYS_OF_BOTH: [&str; 4] = ["bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"];

/// The keys of the text part alone, as if it were a model of its own; nothing where this is not such a model.
pub(super) fn text_part(keys: &Map<String, Value>) -> Result<Option<Map<String, Value>>, String> {
    let class = keys.get("architectures").and_then(|classes| classes.as_array()?.first()?.as_str());
    let Some((class, families)) = CLASSES.into_iter().find(|(known, _)| class == Some(known)) else {
        return Ok(None);
    };
    let part = keys.get("text_config").and_then(Value::as_object);
    let part = part.ok_or_else(|| format!("key text_config of {class} is missing, or no object"))?;
    let kind = part.get("model_type").and_then(Value::as_str).unwrap_or("missing");
    let family = families.iter().find(|family| family.defaults().model_type == kind).ok_or_else(|| {
        let known: Vec<&str> = families.iter().map(|family| family.defaults().model_type).collect();
        format!("text_config.model_type is {kind}; supported in {class} are: {}", known.join(", "))
    })?;
    let known = |key: &str| {
        ["architectures", "model_type", "text_config"].contains(&key)
            || KEYS_OF_PICTURES.contains(&key)
            || KEYS_OF_BOTH.contains(&key)
            || INDIFFERENT_KEYS.contains(&key)
    };
    if let Some((key, value)) = keys.iter().find(|(key, _)| !known(key)) {
        return Err(format!("key {key} = {value} of {class} is not understood"));
    }
    let mut text = match family {
        // The published configurations leave out what is as in transformers' class.
        Architecture::Gemma3 => json!({
            "head_dim": 256,
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "max_position_embeddings": 131_072,
            "num_attention_heads": 8,
            "num_hidden_layers": 26,
            "num_key_value_heads": 4,
            "vocab_size": 262_208,
        }),
        _ => json!({}),
    };
    let text = text.as_object_mut().expect("an object");
    for key in KEYS_OF_BOTH {
        if let Some(value) = keys.get(key) {
            text.insert(key.into(), value.clone());
        }
    }
    text.extend(part.clone());
    text.insert("architectures".into(), json!([family.class()]));
    Ok(Some(std::mem::take(text)))
}
