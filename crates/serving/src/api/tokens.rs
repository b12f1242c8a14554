//! `POST /tokenize`, `POST /detokenize`, `GET /tokenizer_info`: what a text costs, what tokens say, and which tokens are
//! special, in vLLM's form. As there, the model may be left out where the caller may use one alone: evaluation harnesses
//! count on it.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::completions::{refused, token_ids};
use super::conversation::Turns;
use super::failure::ApiFailure;
use super::fields::Fields;
use super::vocabulary::Vocabulary;
use crate::account::Account;
use crate::body::Body;
use crate::server::Server;

/// What is to become tokens.
#[derive(Debug, PartialEq)]
enum Source {
    Prompt { text: String, add_special_tokens: bool },
    Messages { turns: Turns, add_generation_prompt: bool },
}

#[derive(Debug, PartialEq)]
struct Tokenize {
    model: Option<String>,
    source: Source,
    return_token_strs: bool,
}

/// `POST /tokenize`
pub async fn tokenize(
    State(server): State<Arc<Server>>,
    Extension(account): Extension<Account>,
    Body(body): Body,
) -> Result<Json<Value>, ApiFailure> {
    let Tokenize { model, source, return_token_strs } = Tokenize::read(&body)?;
    let vocabulary = Vocabulary::of(&server, &account, model.as_deref())?;
    // Long texts take a while to encode: not on the threads that serve connections.
    let turn = account.admission().encoding_turn().await;
    let now = server.now();
    let encoding = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let tokens = source.encode(&vocabulary, now)?;
        let strings = return_token_strs.then(|| {
            let bytes = |&id: &u32| vocabulary.tokenizer().bytes_of(id).unwrap_or_default();
            let text = |id: &u32| String::from_utf8_lossy(bytes(id)).into_owned();
            tokens.iter().map(text).collect::<Vec<String>>()
        });
        Ok((tokens, strings, vocabulary.context_length()))
    });
    let (tokens, strings, context_length) = encoding.await.map_err(ApiFailure::of_task)??;
    account.details().prompt_tokens = tokens.len();
    Ok(Json(json!({
        "count": tokens.len(), "max_model_len": context_length, "tokens": tokens, "token_strs": strings,
    })))
}

/// `POST /detokenize`
pub async fn detokenize(
    State(server): State<Arc<Server>>,
    Extension(account): Extension<Account>,
    Body(body): Body,
) -> Result<Json<Value>, ApiFailure> {
    let (model, tokens) = read_detokenize(&body)?;
    let vocabulary = Vocabulary::of(&server, &account, model.as_deref())?;
    let text = vocabulary.tokenizer().decode(&tokens).map_err(|error| refused(error, "tokens"))?;
    Ok(Json(json!({"prompt": text})))
}

/// Of which model.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    model: Option<String>,
}

/// `GET /tokenizer_info`
pub async fn info(
    State(server): State<Arc<Server>>,
    Extension(account): Extension<Account>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, ApiFailure> {
    let Query(wanted) = wanted.map_err(|error| {
        ApiFailure::new(StatusCode::BAD_REQUEST, "invalid_value", format!("the query: {}", error.body_text()))
    })?;
    let vocabulary = Vocabulary::of(&server, &account, wanted.model.as_deref())?;
    let tokenizer = vocabulary.tokenizer();
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.decode(&[id]).ok());
    Ok(Json(json!({
        "model": vocabulary.model_name(),
        "bos_token": text(tokenizer.beginning_id()),
        "eos_token": text(tokenizer.end_id()),
        "pad_token": text(tokenizer.padding_id()),
        "vocab_size": tokenizer.vocabulary_size(),
        "model_max_length": vocabulary.context_length(),
        "chat_template": tokenizer.chat_template_text(),
    })))
}

impl Source {
    /// `now` in seconds since 1970, for templates that name the date.
    fn encode(&self, vocabulary: &Vocabulary, now: u64) -> Result<Vec<u32>, ApiFailure> {
        let tokenizer = vocabulary.tokenizer();
        match self {
            Source::Prompt { text, add_special_tokens } => {
                vocabulary.refuse_too_long(text.len(), "prompt")?;
                match add_special_tokens {
                    true => tokenizer.encode_prompt(text),
                    false => tokenizer.encode(text),
                }
                .map_err(|error| refused(error, "prompt"))
            }
            Source::Messages { turns, add_generation_prompt } => {
                vocabulary.refuse_too_long(turns.bytes(), "messages")?;
                turns
                    .encode(tokenizer, *add_generation_prompt, now)
                    .map_err(|error| refused(error, "messages"))
            }
        }
    }
}

impl Tokenize {
    fn read(body: &[u8]) -> Result<Tokenize, ApiFailure> {
        let mut fields = Fields::of_body(body)?;
        let model = fields.string("model")?;
        let prompt = fields.string("prompt")?;
        let add_special_tokens = fields.flag_or("add_special_tokens", true)?;
        let add_generation_prompt = fields.flag_or("add_generation_prompt", true)?;
        let return_token_strs = fields.flag("return_token_strs")?;
        let source = match prompt {
            Some(_) if fields.has("messages") => {
                let message = "`prompt` and `messages` are both given: leave one of them out";
                return Err(ApiFailure {
                    param: Some("prompt".to_string()),
                    ..ApiFailure::new(StatusCode::BAD_REQUEST, "invalid_value", message)
                });
            }
            Some(text) => Source::Prompt { text, add_special_tokens },
            None if fields.has("messages") => {
                Source::Messages { turns: Turns::read(&mut fields)?, add_generation_prompt }
            }
            None => {
                return Err(ApiFailure::field("prompt", "a string, or `messages` in its place", "nothing"));
            }
        };
        fields.finish()?;
        Ok(Tokenize { model, source, return_token_strs })
    }
}

fn read_detokenize(body: &[u8]) -> Result<(Option<String>, Vec<u32>), ApiFailure> {
    let mut fields = Fields::of_body(body)?;
    let model = fields.string("model")?;
    let tokens = match fields.take("tokens") {
        Some(Value::Array(values)) => token_ids(&values, "tokens")?,
        Some(other) => return Err(fields.wrong("tokens", "an array of token ids", &other)),
        None => return Err(ApiFailure::field("tokens", "an array of token ids", "nothing")),
    };
    fields.finish()?;
    Ok((model, tokens))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: Value, expected: Result<Source, &str>) {
        let found = Tokenize::read(body.to_string().as_bytes()).map(|request| request.source);
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(failure), Err(param)) => assert_eq!(failure.param.as_deref(), Some(param), "{body}"),
            (found, expected) => panic!("{body}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_text_or_a_conversation_is_counted_never_both() {
        let prompt = |text: &str| Source::Prompt { text: text.into(), add_special_tokens: true };
        check(json!({"model": "m", "prompt": "Saluton"}), Ok(prompt("Saluton")));
        let messages = json!([{"role": "user", "content": "a"}]);
        let body = json!({"messages": messages}).to_string();
        let turns = Turns::read(&mut Fields::of_body(body.as_bytes()).unwrap()).unwrap();
        check(
            json!({"model": "m", "messages": messages, "add_generation_prompt": false}),
            Ok(Source::Messages { turns, add_generation_prompt: false }),
        );
        check(json!({"model": "m", "prompt": "a", "messages": messages}), Err("prompt"));
        check(json!({"model": "m"}), Err("prompt"));
        check(json!({"prompt": "a"}), Ok(prompt("a")));
        check(json!({"model": "m", "prompt": "a", "add_special": true}), Err("add_special"));
        assert!(read_detokenize(br#"{"model": "m", "tokens": [1, "2"]}"#).is_err());
        assert_eq!(read_detokenize(br#"{"model": "m", "tokens": [1, 2]}"#).unwrap().1, [1, 2]);
    }
}
