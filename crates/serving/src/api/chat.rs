//! `POST /v1/chat/completions`: a conversation goes on.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use inference::seed_of_answer;
use serde_json::{Value, json};
use tokenizer::Message;

use super::answer::{Choice, Job, refuse_too_long, respond};
use super::failure::ApiFailure;
use super::fields::{Fields, kind_of, shown};
use super::models::ServedModel;
use super::options::{MOST_ALTERNATIVES, Options, refuse_unsupported};
use super::relay;
use super::render::Kind;
use crate::account::Account;
use crate::body::Body;
use crate::server::Server;

/// Messages of one request: the template goes over each, however empty.
pub const MOST_MESSAGES: usize = 2_048;

/// What a request asks beyond the options.
struct Chat {
    options: Options,
    messages: Vec<Message>,
    max_tokens: Option<usize>,
    logprobs: Option<usize>,
}

/// `POST /v1/chat/completions`
pub async fn complete(
    State(server): State<Arc<Server>>,
    Extension(account): Extension<Account>,
    Body(body): Body,
) -> Result<Response, ApiFailure> {
    if let Some(model) = relay::model_of(&server, &account, &body) {
        return relay::respond(&server, account, model, relay::Kind::Chat, &body).await;
    }
    let mut chat = Chat::read(&body, server.settings().maximum_choices)?;
    let chain = server.filters_for(account.caller())?;
    for (number, message) in chat.messages.iter_mut().enumerate() {
        relay::filter(&mut message.content, &format!("messages[{number}].content"), &chain)?;
    }
    relay::refuse_logprobs(&chain, chat.logprobs.is_some())?;
    let model = server.models.find(&chat.options.model, &account.caller().policy)?.clone();
    server.describe(&account, &model, chat.options.user.as_deref());
    let seed = server.seed(chat.options.seed)?;
    let time_limit = server.settings().request_time();
    let tenant = account.caller().tenant.clone();
    // Before work on the prompt: refusing must cost little.
    model.engine.has_room_for(&tenant).map_err(|error| ApiFailure::from_submit(error, "messages"))?;
    let turn = account.admission().encoding_turn().await;
    // The template and long prompts take a while: not on the threads that serve connections.
    let job = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let (choices, prompt_tokens) = chat.choices(&model, seed, &tenant, time_limit)?;
        Ok(Job {
            kind: Kind::Chat,
            stream: chat.options.stream,
            stream_usage: chat.options.stream_usage,
            model,
            choices,
            prompt_tokens,
            prompt_field: "messages",
            chain,
        })
    });
    let job = job.await.map_err(|error| ApiFailure::internal(&error.to_string()))??;
    respond(&server, account, job).await
}

impl Chat {
    fn read(body: &[u8], maximum_choices: usize) -> Result<Chat, ApiFailure> {
        let mut fields = Fields::of_body(body)?;
        let chat = Chat {
            options: Options::read(&mut fields, maximum_choices)?,
            messages: messages(&mut fields)?,
            max_tokens: max_tokens(&mut fields)?,
            logprobs: logprobs(&mut fields)?,
        };
        refuse_unsupported(&mut fields)?;
        fields.finish()?;
        Ok(chat)
    }

    fn choices(
        &self,
        model: &ServedModel,
        seed: u64,
        tenant: &str,
        time_limit: std::time::Duration,
    ) -> Result<(Vec<Choice>, usize), ApiFailure> {
        let engine = &model.engine;
        if !engine.tokenizer().has_chat_template() {
            let message =
                format!("`{}` is a base model without a chat template; use /v1/completions", model.name);
            return Err(ApiFailure {
                param: Some("model".to_string()),
                ..ApiFailure::new(StatusCode::BAD_REQUEST, "no_chat_template", message)
            });
        }
        let bytes = self.messages.iter().map(|message| message.content.len()).sum();
        refuse_too_long(engine, bytes, "messages")?;
        let ids = engine.tokenizer().encode_chat(&self.messages, true).map_err(|error| ApiFailure {
            param: Some("messages".to_string()),
            ..ApiFailure::new(StatusCode::BAD_REQUEST, "invalid_value", error.to_string())
        })?;
        let prompt_tokens = ids.len();
        let choice = |index| {
            let mut request = self.options.request(
                tenant,
                ids.clone(),
                engine.defaults(),
                seed_of_answer(seed, index),
                time_limit,
            );
            request.adapter.clone_from(&model.adapter);
            request.max_tokens = self.max_tokens;
            request.logprobs = self.logprobs;
            request.stop_tokens = engine.turn_end_tokens();
            Choice { request, echo: None }
        };
        Ok(((0..self.options.answers as u64).map(choice).collect(), prompt_tokens))
    }
}

/// `max_completion_tokens`, or `max_tokens` as it was once called.
fn max_tokens(fields: &mut Fields) -> Result<Option<usize>, ApiFailure> {
    let new = fields.count("max_completion_tokens", 1, usize::MAX)?;
    let old = fields.count("max_tokens", 1, usize::MAX)?;
    match (new, old) {
        (Some(_), Some(old)) => {
            Err(ApiFailure::field("max_tokens", "to be absent beside `max_completion_tokens`", old))
        }
        _ => Ok(new.or(old)),
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiFailure> {
    let wanted = fields.flag("logprobs")?;
    match fields.count("top_logprobs", 0, MOST_ALTERNATIVES)? {
        Some(count) if !wanted && count > 0 => {
            Err(ApiFailure::field("top_logprobs", "to be absent unless `logprobs` is true", count))
        }
        count => Ok(wanted.then_some(count.unwrap_or(0))),
    }
}

/// `messages`, at least one.
pub fn messages(fields: &mut Fields) -> Result<Vec<Message>, ApiFailure> {
    let values = match fields.take("messages") {
        Some(Value::Array(values)) if values.len() > MOST_MESSAGES => {
            return Err(ApiFailure::field(
                "messages",
                format!("at most {MOST_MESSAGES} messages"),
                values.len(),
            ));
        }
        Some(Value::Array(values)) if !values.is_empty() => values,
        Some(other) => return Err(fields.wrong("messages", "an array of at least one message", &other)),
        None => {
            return Err(ApiFailure::field("messages", "an array of at least one message", "nothing"));
        }
    };
    values
        .into_iter()
        .enumerate()
        .map(|(number, value)| message(value, &format!("messages[{number}]")))
        .collect()
}

fn message(value: Value, place: &str) -> Result<Message, ApiFailure> {
    let mut fields = Fields::of(value, place)?;
    let expected = "one of system, developer, user, assistant";
    let role = match fields.string("role")?.as_deref() {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some(other) => {
            return Err(ApiFailure::field(format!("{place}.role"), expected, shown(&json!(other))));
        }
        None => return Err(ApiFailure::field(format!("{place}.role"), expected, "nothing")),
    };
    let content = content(fields.take("content"), &format!("{place}.content"))?;
    fields.only("tool_calls", &[json!([])])?;
    fields.finish()?;
    Ok(Message::new(role, content))
}

/// A string, or an array of parts, all of them text.
fn content(value: Option<Value>, place: &str) -> Result<String, ApiFailure> {
    let expected = "a string, or an array of parts of type text";
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            let part = |(number, part)| {
                let place = format!("{place}[{number}]");
                let mut fields = Fields::of(part, &place)?;
                let kind = fields.string("type")?.unwrap_or_default();
                if kind != "text" {
                    let place = format!("{place}.type");
                    return Err(ApiFailure::field(place, "text, the only kind here", shown(&json!(kind))));
                }
                let text = fields.string("text")?;
                fields.finish()?;
                text.ok_or_else(|| ApiFailure::field(format!("{place}.text"), "a string", "nothing"))
            };
            parts.into_iter().enumerate().map(part).collect()
        }
        Some(other) => Err(ApiFailure::field(place, expected, kind_of(&other))),
        None => Err(ApiFailure::field(place, expected, "nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: Value, expected: Result<Vec<Message>, &str>) {
        let found = Chat::read(body.to_string().as_bytes(), 4).map(|chat| chat.messages);
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(failure), Err(param)) => {
                assert_eq!(failure.param.as_deref(), Some(param), "{body}");
            }
            (found, expected) => panic!("{body}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn messages_are_read_with_their_places() {
        let with = |messages: Value| json!({"model": "m", "messages": messages});
        let parts = json!([{"type": "text", "text": "Dia "}, {"type": "text", "text": "duit"}]);
        check(
            with(json!([{"role": "developer", "content": "Kurz."}, {"role": "user", "content": parts}])),
            Ok(vec![Message::new("system", "Kurz."), Message::new("user", "Dia duit")]),
        );
        check(json!({"model": "m"}), Err("messages"));
        check(with(json!([])), Err("messages"));
        check(with(json!(["a"])), Err("messages[0]"));
        check(with(json!([{"role": "user"}])), Err("messages[0].content"));
        check(with(json!([{"role": "robot", "content": "a"}])), Err("messages[0].role"));
        check(with(json!([{"role": "user", "content": "a", "name": "b"}])), Err("messages[0].name"));
        let image = json!([{"type": "image_url", "image_url": {"url": "http://localhost"}}]);
        check(with(json!([{"role": "user", "content": image}])), Err("messages[0].content[0].type"));
    }

    #[test]
    fn limits_and_probabilities_agree_with_each_other() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}]});
            body[name] = value;
            body
        };
        check(with("top_logprobs", json!(3)), Err("top_logprobs"));
        check(with("max_completion_tokens", json!(0)), Err("max_completion_tokens"));
        let mut both = with("max_tokens", json!(3));
        both["max_completion_tokens"] = json!(4);
        check(both, Err("max_tokens"));
    }
}
