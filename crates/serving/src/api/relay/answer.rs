//! Answers that come whole, and what they have in common with streams.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use filters::Chain;
use serde_json::{Map, Value, json};

use super::choice::{ChoiceState, append};
use super::{BYTES_PER_TOKEN, Kind, tokens_of, tokens_of_all};
use crate::account::Account;
use crate::api::answer::usage as rendered_usage;
use crate::api::failure::ApiFailure;
use crate::upstream::{UpstreamAnswer, UpstreamModel, failed};

/// What all parts of one answer share.
pub struct Frame<'a> {
    pub kind: Kind,
    /// The request's id.
    pub id: &'a str,
    pub created: u64,
    pub model: Arc<UpstreamModel>,
    pub chain: Arc<Chain>,
    /// Answers that were asked for.
    pub answers: usize,
    /// The texts of the prompt.
    pub texts: Vec<String>,
    /// Their tokens, counted or guessed, if the limits asked.
    pub prompt_tokens: usize,
}

/// Most tokens of one request that an engine is believed, far beyond any context.
const MOST_REPORTED: u64 = 1 << 32;

/// Tokens as the engine reports them, or as we count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub prompt: usize,
    pub completion: usize,
    /// Neither reported nor counted: good enough for limits, not for an answer.
    pub is_guessed: bool,
}

impl Usage {
    /// What an engine says, if it says it whole and it can be: sums of what nobody can have computed would overflow, and with
    /// them the limits of a tenant.
    pub fn reported(value: &Value) -> Option<Usage> {
        let count = |value: &Value| {
            value
                .as_u64()
                .filter(|count| *count <= MOST_REPORTED)
                .and_then(|count| usize::try_from(count).ok())
        };
        let prompt = count(value.get("prompt_tokens")?)?;
        // Embeddings have none.
        let completion = value.get("completion_tokens").filter(|count| !count.is_null());
        let completion = completion.map_or(Some(0), count)?;
        Some(Usage { prompt, completion, is_guessed: false })
    }

    /// What we count with the model's tokenizer, or guess without one; `prompt_tokens` if they are known.
    pub fn counted(
        model: &UpstreamModel,
        texts: &[String],
        prompt_tokens: usize,
        choices: &[ChoiceState],
    ) -> Usage {
        let prompt = match prompt_tokens {
            0 => tokens_of_all(model, texts),
            known => known,
        };
        let completion = choices.iter().map(|choice| match &choice.sent {
            Some(sent) => tokens_of(model, sent),
            None => choice.sent_bytes.div_ceil(BYTES_PER_TOKEN),
        });
        Usage { prompt, completion: completion.sum(), is_guessed: model.tokenizer.is_none() }
    }

    /// As an answer shows it; nothing where it was only guessed.
    pub fn rendered(&self) -> Option<Value> {
        (!self.is_guessed).then(|| rendered_usage(self.prompt, self.completion))
    }

    pub fn note(&self, account: &Account) {
        let mut details = account.details();
        details.prompt_tokens = self.prompt;
        details.completion_tokens = self.completion;
    }
}

impl Frame<'_> {
    pub fn answer_id(&self) -> String {
        match self.kind {
            Kind::Chat => format!("chatcmpl-{}", self.id),
            _ => format!("cmpl-{}", self.id),
        }
    }

    /// Whether probabilities of tokens may stand beside the text.
    pub fn shows_logprobs(&self) -> bool {
        !self.chain.may_change_output()
    }

    fn counted(&self, choices: &[ChoiceState]) -> Usage {
        Usage::counted(&self.model, &self.texts, self.prompt_tokens, choices)
    }

    pub fn states(&self) -> Vec<ChoiceState> {
        let state =
            |number| ChoiceState::new(self.model.tokenizer.is_some(), format!("call-{}-{number}", self.id));
        (0..self.answers).map(state).collect()
    }
}

/// Reads, filters and writes anew an answer that comes whole.
pub async fn respond(
    frame: Frame<'_>,
    account: &Account,
    mut upstream: UpstreamAnswer,
) -> Result<Response, ApiFailure> {
    let bytes = upstream.whole().await?;
    let malformed = |problem: &str| {
        upstream.failed(&format!("malformed answer: {problem}"));
        failed()
    };
    let answer: Value = serde_json::from_slice(&bytes).map_err(|_| malformed("no JSON"))?;
    let Value::Object(mut answer) = answer else { return Err(malformed("no object")) };
    let reported = answer.get("usage").and_then(Usage::reported);
    if frame.kind == Kind::Embedding {
        let Some(Value::Array(data)) = answer.remove("data") else { return Err(malformed("no `data`")) };
        if data.len() != frame.answers {
            return Err(malformed("not one vector for each text"));
        }
        let usage = reported.unwrap_or_else(|| frame.counted(&[]));
        usage.note(account);
        upstream.succeeded();
        return Ok(Json(embeddings(&frame, data, &usage)).into_response());
    }
    let Some(Value::Array(found)) = answer.remove("choices") else {
        return Err(malformed("no `choices`"));
    };
    if found.is_empty() || found.len() > frame.answers {
        return Err(malformed("not as many choices as asked for"));
    }
    let mut states = frame.states();
    let mut choices = Vec::with_capacity(found.len());
    for (number, (choice, state)) in found.into_iter().zip(&mut states).enumerate() {
        let Value::Object(choice) = choice else { return Err(malformed("a choice is no object")) };
        match whole_choice(&frame, number, choice, state) {
            Some(choice) => {
                if let Some(kept) = choice.get("message").unwrap_or(&choice).as_object() {
                    account.keep_part(number, kept);
                }
                choices.push(choice);
            }
            None => return Err(malformed("a choice without a message")),
        }
    }
    let usage = reported.unwrap_or_else(|| frame.counted(&states));
    usage.note(account);
    upstream.succeeded();
    let mut whole = json!({
        "id": frame.answer_id(),
        "object": if frame.kind == Kind::Chat { "chat.completion" } else { "text_completion" },
        "created": frame.created,
        "model": frame.model.name,
        "choices": choices,
    });
    if let Some(usage) = usage.rendered() {
        whole["usage"] = usage;
    }
    Ok(Json(whole).into_response())
}

fn whole_choice(
    frame: &Frame,
    number: usize,
    mut choice: Map<String, Value>,
    state: &mut ChoiceState,
) -> Option<Value> {
    let mut message = match frame.kind {
        Kind::Chat => match choice.remove("message")? {
            Value::Object(mut message) => state.part(frame.kind, &mut message, &frame.chain),
            _ => return None,
        },
        _ => state.part(frame.kind, &mut choice, &frame.chain),
    };
    append(&mut message, state.rest());
    let logprobs = choice.remove("logprobs").filter(|_| frame.shows_logprobs()).unwrap_or_default();
    let reason = state.reason(choice.get("finish_reason"));
    if frame.kind == Kind::Chat {
        message.entry("role").or_insert(Value::from("assistant"));
        message.entry("content").or_insert(Value::Null);
        return Some(
            json!({"index": number, "message": message, "logprobs": logprobs, "finish_reason": reason}),
        );
    }
    let text = message.remove("text")?;
    Some(json!({"index": number, "text": text, "logprobs": logprobs, "finish_reason": reason}))
}

fn embeddings(frame: &Frame, data: Vec<Value>, usage: &Usage) -> Value {
    let vector = |(number, mut entry): (usize, Value)| {
        let vector = entry.get_mut("embedding").map(Value::take).unwrap_or_default();
        json!({"object": "embedding", "index": number, "embedding": vector})
    };
    let data: Vec<Value> = data.into_iter().enumerate().map(vector).collect();
    let mut whole = json!({"object": "list", "data": data, "model": frame.model.name});
    if !usage.is_guessed {
        whole["usage"] = json!({"prompt_tokens": usage.prompt, "total_tokens": usage.prompt});
    }
    whole
}
