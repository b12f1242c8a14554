//! `tokenizer.json` and `tokenizer_config.json` as `tokenizer.ggml.*`.

use crate::elisions::{elided, is_own_rule};
use crate::pretokenisers::{Rule, is_byte_level};
use crate::templates;
use crate::tokenizer::kind;
use crate::value::{Array, Value as Entry};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The rule that comes nearest to one that llama.cpp does not know: words with the character before them, digits in
/// threes.
const NEAREST_RULE: &str = "llama-bpe";
const NO_VOCABULARY: &str = "tokenizer.json has no vocabulary";

/// The metadata of a tokenizer, and what its readers have to know.
pub(crate) struct Written {
    pub metadata: Vec<(String, Entry)>,
    /// A difference between what llama.cpp will do and what the tokenizer does.
    pub warning: Option<String>,
}

/// `rows` is the size of the embedding table; `ends` are the tokens that end a text, as `config.json` has them.
pub(crate) fn write(
    tokenizer: &Value,
    config: &Map<String, Value>,
    rows: usize,
    ends: &[u64],
) -> Result<Written, String> {
    let tokenizer = &completed(tokenizer, config)?;
    let model = &tokenizer["model"];
    if model["type"] != "BPE" {
        return Err(format!("the tokenizer's model is {}; only BPE can be written", model["type"]));
    }
    let vocabulary = model["vocab"].as_object().ok_or(NO_VOCABULARY)?;
    let added = tokenizer["added_tokens"].as_array().map_or(&[][..], Vec::as_slice);
    let mut tokens: Vec<Option<String>> = vec![None; rows];
    let mut kinds = vec![kind::UNUSED; rows];
    let mut place = |token: &str, id: Option<u64>, kind: i32| match id
        .and_then(|id| tokens.get_mut(id as usize).zip(id.into()))
    {
        Some((entry, id)) => {
            *entry = Some(token.to_owned());
            kinds[id as usize] = kind;
            Ok(())
        }
        None => Err(format!("token {token:?} has the id {id:?}, but the model has {rows} embeddings")),
    };
    let byte_fallback = model["byte_fallback"] == true;
    for (token, id) in vocabulary {
        let byte = byte_fallback && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        place(token, id.as_u64(), if byte { kind::BYTE } else { kind::NORMAL })?;
    }
    for token in added {
        let content = token["content"].as_str().ok_or("an added token has no content")?;
        let kind = match token["special"] == true {
            true if model["unk_token"] == content => kind::UNKNOWN,
            true => kind::CONTROL,
            false => kind::USER_DEFINED,
        };
        place(content, token["id"].as_u64(), kind)?;
    }
    let mut tokens: Vec<String> = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| token.unwrap_or_else(|| format!("[PAD{id}]")))
        .collect();
    let ids: HashMap<&str, u64> =
        tokens.iter().enumerate().map(|(id, token)| (&token[..], id as u64)).collect();
    if ids.len() < tokens.len() {
        return Err("two tokens of the vocabulary have the same text".into());
    }

    let mut metadata = Vec::new();
    let mut set = |key: &str, value: Entry| metadata.push((format!("tokenizer.{key}"), value));
    let mut merges = merges(model)?;
    let mut warning = None;
    // Tokens that llama.cpp finds by their plain text.
    let mut plain = HashMap::new();
    if byte_fallback {
        set("ggml.model", Entry::String("llama".into()));
        set("ggml.pre", Entry::String("default".into()));
        set("ggml.scores", Entry::Array(Array::F32(scores(&tokens, &merges))));
        set("ggml.add_space_prefix", Entry::Bool(adds_prefix(tokenizer)));
    } else if is_byte_level(&tokenizer["pre_tokenizer"]) {
        let rule = Rule::of_json(&tokenizer["pre_tokenizer"], model["ignore_merges"] == true);
        if is_own_rule(&tokenizer["pre_tokenizer"]) {
            plain =
                elided(vocabulary.iter().filter_map(|(token, id)| Some((&token[..], id.as_u64()? as usize))));
            merges.retain(|pair| {
                !ids.get(&pair.concat()[..]).is_some_and(|id| plain.contains_key(&(*id as usize)))
            });
            warning = Some(format!(
                "llama.cpp has no name for the rule by which tokenizers trained here cut texts; the file names {NEAREST_RULE} and \
                 lists {}, which makes the token ids the same but for rare ones (docs/reference/gguf.md)",
                elided_words(plain.len())
            ));
        } else if rule.is_none() {
            warning = Some(format!(
                "llama.cpp does not know this tokenizer's rule of cutting text into words; the file names {NEAREST_RULE}, \
                 which may differ around apostrophes, marks and digits: token ids from llama.cpp may differ there"
            ));
        }
        let name = rule.map_or(NEAREST_RULE, |rule| rule.names[0]);
        set("ggml.model", Entry::String("gpt2".into()));
        set("ggml.pre", Entry::String(name.into()));
        set("ggml.merges", Entry::Array(Array::String(merges.iter().map(|pair| pair.join(" ")).collect())));
    } else {
        return Err("the tokenizer is neither byte-level BPE nor BPE with byte fallback".into());
    }
    for id in plain.keys() {
        kinds[*id] = kind::USER_DEFINED;
    }
    set("ggml.token_type", Entry::Array(Array::I32(kinds)));

    let named = |key: &str| match config.get(key) {
        Some(Value::String(token)) => ids.get(&token[..]).copied(),
        Some(Value::Object(token)) => {
            token.get("content").and_then(Value::as_str).and_then(|token| ids.get(token).copied())
        }
        _ => None,
    };
    let id = |id: u64| Entry::U32(u32::try_from(id).unwrap_or(u32::MAX));
    for (key, name) in [("bos_token", "bos"), ("unk_token", "unknown"), ("pad_token", "padding")] {
        if let Some(token) = named(key) {
            set(&format!("ggml.{name}_token_id"), id(token));
        }
    }
    let end = named("eos_token").or(ends.first().copied()).filter(|end| (*end as usize) < rows);
    if let Some(end) = end {
        set("ggml.eos_token_id", id(end));
        if let Some(turn) = ends.iter().find(|other| **other != end && (**other as usize) < rows) {
            set("ggml.eot_token_id", id(*turn));
        }
    }
    let [begins, closes] = surrounded(&tokenizer["post_processor"]);
    set("ggml.add_bos_token", Entry::Bool(begins));
    set("ggml.add_eos_token", Entry::Bool(closes));
    let whole = serde_json::to_string(tokenizer).map_err(|error| error.to_string())?;
    set("huggingface.json", Entry::String(whole));
    for (id, text) in plain {
        tokens[id] = text;
    }
    set("ggml.tokens", Entry::Array(Array::String(tokens)));
    metadata.extend(templates::write(config));
    Ok(Written { metadata, warning })
}

/// `tokenizer.json` with the tokens that stand in `added_tokens_decoder` of `tokenizer_config.json` alone, as `transformers` has
/// them once both are loaded: at their place in the vocabulary, or each behind the last token.
fn completed(tokenizer: &Value, config: &Map<String, Value>) -> Result<Value, String> {
    let mut tokenizer = tokenizer.clone();
    let Some(decoder) = config.get("added_tokens_decoder").and_then(Value::as_object) else {
        return Ok(tokenizer);
    };
    let vocabulary = tokenizer["model"]["vocab"].as_object().ok_or(NO_VOCABULARY)?;
    let mut added = tokenizer["added_tokens"].as_array().cloned().unwrap_or_default();
    let mut wanted = BTreeMap::new();
    for (id, token) in decoder {
        match (id.parse::<u64>(), token["content"].as_str()) {
            (Ok(_), Some(content)) if added.iter().any(|one| one["content"] == *content) => {}
            (Ok(id), Some(content)) => drop(wanted.insert(id, (content, token))),
            _ => return Err(format!("added_tokens_decoder has an entry {id:?} that is no id with a token")),
        }
    }
    let behind = |one: &Value| one["id"].as_u64().map_or(0, |id| id + 1);
    let mut next = added.iter().map(behind).fold(vocabulary.len() as u64, u64::max);
    for (id, (content, token)) in wanted {
        let place = vocabulary.get(content).and_then(Value::as_u64).unwrap_or(next);
        if id != place {
            return Err(format!(
                "tokenizer_config.json says that {content:?} is token {id}, with tokenizer.json it is {place}"
            ));
        }
        next = next.max(id + 1);
        let mut entry = json!({ "id": id, "content": content });
        for key in ["single_word", "lstrip", "rstrip", "normalized", "special"] {
            entry[key] = json!(token[key] == true);
        }
        added.push(entry);
    }
    tokenizer["added_tokens"] = json!(added);
    Ok(tokenizer)
}

fn elided_words(count: usize) -> String {
    match count {
        1 => "1 word that ends in an apostrophe as a token of its own".to_string(),
        _ => format!("{count} words that end in an apostrophe as tokens of their own"),
    }
}

/// Merges as pairs; older files have them as one text with a space.
fn merges(model: &Value) -> Result<Vec<[&str; 2]>, String> {
    let merges = model["merges"].as_array().ok_or("tokenizer.json has no merges")?;
    merges
        .iter()
        .map(|merge| pair(merge).ok_or_else(|| format!("merge {merge} is no pair of tokens")))
        .collect()
}

fn pair(merge: &Value) -> Option<[&str; 2]> {
    match merge {
        Value::String(text) => text.split_once(' ').map(|(left, right)| [left, right]),
        Value::Array(pair) => match &pair[..] {
            [left, right] => Some([left.as_str()?, right.as_str()?]),
            _ => None,
        },
        _ => None,
    }
}

/// A score for each token: the earlier the merge that makes it, the better, as SentencePiece's search wants it.
fn scores(tokens: &[String], merges: &[[&str; 2]]) -> Vec<f32> {
    let mut ranks: HashMap<String, usize> = HashMap::with_capacity(merges.len());
    for (rank, pair) in merges.iter().enumerate() {
        ranks.entry(pair.concat()).or_insert(rank);
    }
    tokens.iter().map(|token| -(ranks.get(token).map_or(merges.len() + 1, |rank| rank + 1) as f32)).collect()
}

/// Whether a text gets a space before it.
fn adds_prefix(tokenizer: &Value) -> bool {
    fn step(value: &Value) -> bool {
        match value["type"].as_str() {
            Some("Prepend") => true,
            Some("Metaspace") => value["prepend_scheme"] != "never" && value["add_prefix_space"] != false,
            Some("Sequence") => ["normalizers", "pretokenizers"]
                .iter()
                .any(|list| value[*list].as_array().is_some_and(|steps| steps.iter().any(step))),
            _ => false,
        }
    }
    step(&tokenizer["normalizer"]) || step(&tokenizer["pre_tokenizer"])
}

/// Whether the post-processor puts a token before a text, and one behind it.
fn surrounded(post_processor: &Value) -> [bool; 2] {
    match post_processor["type"].as_str() {
        Some("TemplateProcessing") => {
            let parts = post_processor["single"].as_array().map_or(&[][..], Vec::as_slice);
            let special = |part: Option<&Value>| part.is_some_and(|part| part.get("SpecialToken").is_some());
            [special(parts.first()), special(parts.last())]
        }
        Some("Sequence") => {
            let steps = post_processor["processors"].as_array().map_or(&[][..], Vec::as_slice);
            steps.iter().map(surrounded).fold([false; 2], |all, one| [all[0] || one[0], all[1] || one[1]])
        }
        _ => [false; 2],
    }
}

/// The token ids of a key of `config.json`: one, a list, or none.
pub(crate) fn token_ids(config: &Map<String, Value>, key: &str) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let value = config.get(key).unwrap_or(&Value::Null);
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(Value::as_u64).filter(|id| seen.insert(*id)).collect()
}
