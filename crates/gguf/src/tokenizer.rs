//! `tokenizer.ggml.*` as `tokenizer.json` and `tokenizer_config.json`.
//!
//! Two kinds are read: byte-level BPE (`gpt2`), whose rule of cutting is named by `tokenizer.ggml.pre`, and SentencePiece's
//! BPE (`llama`), where the order of the merges is that of the tokens' scores. A file that carries its `tokenizer.json`
//! (`tokenizer.huggingface.json`) is believed, if the tokens are the same.

use crate::elisions::byte_decoder;
use crate::error::GgufError;
use crate::model::Model;
use crate::pretokenisers::Rule;
use crate::templates;
use crate::value::{Array, Metadata, Value as Entry};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// SentencePiece's own limit is 16 characters; white space and published extensions reach a few hundred bytes.
const LONGEST_PIECE_BYTES: usize = 1024;

/// `llama_token_type`: what the numbers in `tokenizer.ggml.token_type` mean.
pub(crate) mod kind {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const UNUSED: i32 = 5;
    pub const BYTE: i32 = 6;
}

/// What stands in the files of a tokenizer.
#[derive(Clone, Debug)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: Value,
    /// `tokenizer_config.json`, with the chat template or a list of named ones.
    pub config: Value,
}

impl Model {
    /// The files of the model's tokenizer, if it carries one.
    ///
    /// # Errors
    /// Names the file and the key that is missing, wrong or not supported.
    pub fn tokenizer(&self) -> Result<Option<TokenizerFiles>, GgufError> {
        read(self.file().metadata()).map_err(|problem| GgufError::unsupported(self.path(), problem))
    }
}

struct Vocabulary<'a> {
    metadata: &'a Metadata,
    tokens: Vec<String>,
    kinds: Vec<i32>,
    ids: HashMap<String, usize>,
}

fn read(metadata: &Metadata) -> Result<Option<TokenizerFiles>, String> {
    let kind = match metadata.get("tokenizer.ggml.model").map(|value| value.as_str().unwrap_or("no text")) {
        None | Some("none" | "no_vocab") => return Ok(None),
        Some(kind) => kind,
    };
    let vocabulary = Vocabulary::read(metadata)?;
    let (mut tokenizer, begins) = match kind {
        "gpt2" => vocabulary.byte_level()?,
        "llama" => (vocabulary.sentence_piece()?, true),
        other => {
            return Err(format!("tokenizer.ggml.model is {other:?}; supported are \"gpt2\" and \"llama\""));
        }
    };
    if let Some(carried) = metadata.get("tokenizer.huggingface.json").and_then(Entry::as_str) {
        tokenizer = vocabulary.carried(carried)?;
    } else {
        tokenizer["post_processor"] = vocabulary.post_processor(begins)?;
    }
    Ok(Some(TokenizerFiles { tokenizer, config: vocabulary.config()? }))
}

impl Vocabulary<'_> {
    fn read(metadata: &Metadata) -> Result<Vocabulary<'_>, String> {
        const LIST: &str = "tokenizer.ggml.tokens";
        let array = |key: &str| metadata.get(key).map(Entry::as_array);
        let listed = array(LIST).flatten().and_then(Array::as_strings);
        let mut tokens = listed.ok_or_else(|| format!("key {LIST} is missing or no list of texts"))?.to_vec();
        let kinds = match array("tokenizer.ggml.token_type") {
            None => vec![kind::NORMAL; tokens.len()],
            Some(Some(Array::I32(kinds))) if kinds.len() == tokens.len() => kinds.clone(),
            Some(_) => {
                return Err(format!("key tokenizer.ggml.token_type is no list of {} numbers", tokens.len()));
            }
        };
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter_mut().enumerate() {
            if token.is_empty() {
                *token = format!("[EMPTY_{id}]");
            }
            if let Some(first) = ids.insert(token.clone(), id) {
                return Err(format!("{LIST}: tokens {first} and {id} are both {token:?}"));
            }
        }
        Ok(Vocabulary { metadata, tokens, kinds, ids })
    }

    /// The `tokenizer.json` that the file carries.
    fn carried(&self, text: &str) -> Result<Value, String> {
        const KEY: &str = "tokenizer.huggingface.json";
        let tokenizer: Value = serde_json::from_str(text).map_err(|error| format!("key {KEY}: {error}"))?;
        let vocabulary =
            tokenizer["model"]["vocab"].as_object().ok_or_else(|| format!("key {KEY}: no vocabulary"))?;
        let decode = byte_decoder();
        for (token, id) in vocabulary {
            let place = id.as_u64().and_then(|id| usize::try_from(id).ok());
            let listed = place.and_then(|place| self.tokens.get(place));
            let is_plain = place.and_then(|place| self.kinds.get(place)) == Some(&kind::USER_DEFINED);
            // A token that llama.cpp finds by its plain text is listed by it.
            if listed != Some(token) && !(is_plain && decode(token).as_ref() == listed) {
                return Err(format!(
                    "key {KEY} says that token {id} is {token:?}, tokenizer.ggml.tokens says {listed:?}: \
                     one of them is not of this model"
                ));
            }
        }
        Ok(tokenizer)
    }

    /// `tokenizer.json` of a byte-level vocabulary, and whether texts begin with the first token by default.
    fn byte_level(&self) -> Result<(Value, bool), String> {
        let name =
            self.metadata.get("tokenizer.ggml.pre").map_or("default", |value| value.as_str().unwrap_or(""));
        let rule = Rule::named(name)?;
        let merges = self.merges()?.ok_or("key tokenizer.ggml.merges is missing")?;
        let decoder = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
        let normaliser = if rule.composes { json!({ "type": "NFC" }) } else { Value::Null };
        let model =
            json!({ "ignore_merges": rule.ignores_merges, "byte_fallback": false, "fuse_unk": false });
        Ok((self.assemble(normaliser, rule.to_json(), decoder, model, merges), rule.begins))
    }

    /// `tokenizer.json` of a SentencePiece vocabulary.
    fn sentence_piece(&self) -> Result<Value, String> {
        let merges = match self.merges()? {
            Some(merges) => merges,
            None => self.merges_by_score()?,
        };
        let prefix = self.truth("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let mut normalisers = Vec::new();
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if prefix {
            normalisers.push(json!({ "type": "Prepend", "prepend": "▁" }));
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        normalisers.push(json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" }));
        let unknown = self.special("unknown")?.unwrap_or(0);
        let model = json!({
            "unk_token": self.tokens.get(unknown),
            "fuse_unk": true,
            "byte_fallback": self.kinds.contains(&kind::BYTE),
            "ignore_merges": false,
        });
        let sequence = |name: &str, steps: Vec<Value>| json!({ "type": "Sequence", name: steps });
        let normaliser = sequence("normalizers", normalisers);
        Ok(self.assemble(normaliser, Value::Null, sequence("decoders", decoders), model, merges))
    }

    fn assemble(
        &self,
        normaliser: Value,
        pre_tokenizer: Value,
        decoder: Value,
        model: Value,
        merges: Vec<[&str; 2]>,
    ) -> Value {
        let added = self.kinds.iter().enumerate().filter_map(|(id, &kind)| {
            let special = match kind {
                kind::CONTROL | kind::UNKNOWN => true,
                kind::USER_DEFINED => false,
                _ => return None,
            };
            Some(json!({
                "id": id, "content": self.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            }))
        });
        let added: Vec<Value> = added.collect();
        let vocabulary: Map<String, Value> =
            self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect();
        let mut tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": normaliser,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": null,
            "decoder": decoder,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            },
        });
        for (key, value) in model.as_object().into_iter().flatten() {
            tokenizer["model"][key] = value.clone();
        }
        tokenizer["model"]["vocab"] = Value::Object(vocabulary);
        tokenizer["model"]["merges"] = json!(merges);
        tokenizer
    }

    fn merges(&self) -> Result<Option<Vec<[&str; 2]>>, String> {
        const KEY: &str = "tokenizer.ggml.merges";
        let Some(value) = self.metadata.get(KEY) else { return Ok(None) };
        let lines = value
            .as_array()
            .and_then(Array::as_strings)
            .ok_or_else(|| format!("key {KEY} is no list of texts"))?;
        let mut joined = String::new();
        let split = |line: &'_ str| -> Option<usize> {
            // A token may itself begin with the space.
            let second = line.chars().next()?.len_utf8();
            line[second..].find(' ').map(|space| second + space)
        };
        let mut merges = Vec::with_capacity(lines.len());
        for (index, line) in lines.iter().enumerate() {
            let Some(space) = split(line) else {
                return Err(format!(
                    "{KEY}: merge {index} is {line:?}, expected two tokens with a space between"
                ));
            };
            let pair = [&line[..space], &line[space + 1..]];
            joined.clear();
            pair.iter().for_each(|token| joined.push_str(token));
            if let Some(missing) =
                pair.into_iter().chain([&joined[..]]).find(|token| !self.ids.contains_key(*token))
            {
                return Err(format!(
                    "{KEY}: merge {index} needs the token {missing:?}, which is not in the vocabulary"
                ));
            }
            merges.push(pair);
        }
        Ok(Some(merges))
    }

    /// Every pair of tokens that makes a token, the best score first: what SentencePiece's search does, as the
    /// `transformers` library turns it into merges.
    fn merges_by_score(&self) -> Result<Vec<[&str; 2]>, String> {
        const KEY: &str = "tokenizer.ggml.scores";
        let scores = self.metadata.get(KEY).and_then(Entry::as_array).and_then(Array::to_f32s);
        let scores = scores
            .filter(|scores| scores.len() == self.tokens.len())
            .ok_or_else(|| format!("key {KEY} is missing or no list of {} numbers", self.tokens.len()))?;
        let mut merges: Vec<(f32, usize, usize, usize)> = Vec::new();
        for (id, token) in self.tokens.iter().enumerate().filter(|(id, _)| self.kinds[*id] == kind::NORMAL) {
            if token.len() > LONGEST_PIECE_BYTES {
                return Err(format!(
                    "token {id} has {} bytes, expected at most {LONGEST_PIECE_BYTES}",
                    token.len()
                ));
            }
            for (split, _) in token.char_indices().skip(1) {
                if let (Some(&left), Some(&right)) =
                    (self.ids.get(&token[..split]), self.ids.get(&token[split..]))
                {
                    merges.push((scores[id], id, left, right));
                }
            }
        }
        if merges.len() > 1 && merges.iter().all(|merge| merge.0 == merges[0].0) {
            return Err(format!(
                "{KEY}: all scores are the same, the order of the merges was lost when the file was written; \
                 take the tokenizer of the model that it was made from"
            ));
        }
        merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        Ok(merges
            .into_iter()
            .map(|(_, _, left, right)| [&self.tokens[left][..], &self.tokens[right]])
            .collect())
    }

    fn truth(&self, key: &str) -> Result<Option<bool>, String> {
        match self.metadata.get(key).map(Entry::as_bool) {
            None => Ok(None),
            Some(Some(truth)) => Ok(Some(truth)),
            Some(None) => Err(format!("key {key} is neither true nor false")),
        }
    }

    /// The id of a special token, if the file names one that exists.
    fn special(&self, name: &str) -> Result<Option<usize>, String> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match self.metadata.get(&key).map(Entry::as_u64) {
            None => Ok(None),
            Some(Some(id)) if (id as usize) < self.tokens.len() => Ok(Some(id as usize)),
            Some(_) => Err(format!("key {key} is no id below {}", self.tokens.len())),
        }
    }

    fn post_processor(&self, begins: bool) -> Result<Value, String> {
        let begin = match self.truth("tokenizer.ggml.add_bos_token")?.unwrap_or(begins) {
            true => self.special("bos")?,
            false => None,
        };
        let end = match self.truth("tokenizer.ggml.add_eos_token")? {
            Some(true) => self.special("eos")?,
            _ => None,
        };
        if begin.is_none() && end.is_none() {
            return Ok(Value::Null);
        }
        let mut special = Map::new();
        for id in [begin, end].into_iter().flatten() {
            let token = &self.tokens[id];
            special.insert(token.clone(), json!({ "id": token, "ids": [id], "tokens": [token] }));
        }
        let part = |name: &str, kind: u8| {
            let token = |id: usize| json!({ "SpecialToken": { "id": self.tokens[id], "type_id": kind } });
            let text = json!({ "Sequence": { "id": name, "type_id": kind } });
            begin.map(token).into_iter().chain([text]).chain(end.map(token)).collect::<Vec<Value>>()
        };
        let pair = [part("A", 0), part("B", 1)].concat();
        Ok(json!({
            "type": "TemplateProcessing",
            "single": part("A", 0),
            "pair": pair,
            "special_tokens": special,
        }))
    }

    fn config(&self) -> Result<Value, String> {
        let mut config = Map::new();
        for (name, key) in
            [("bos", "bos_token"), ("eos", "eos_token"), ("unknown", "unk_token"), ("padding", "pad_token")]
        {
            config.insert(key.to_owned(), json!(self.special(name)?.map(|id| &self.tokens[id])));
        }
        config.extend(templates::read(self.metadata).map(|template| ("chat_template".to_owned(), template)));
        config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
        config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
        Ok(Value::Object(config))
    }
}
