//! `POST /v1/chat/completions`: a conversation goes on.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::answer::{Choice, Terms, respond};
use super::conversation::Turns;
use super::failure::ApiFailure;
use super::fields::Fields;
use super::models::ServedModel;
use super::options::{MOST_ALTERNATIVES, Options, refuse_unsupported};
use super::relay;
use super::render::Kind;
use crate::account::Account;
use crate::body::Body;
use crate::server::Server;

/// What a request asks beyond the options.
struct Chat {
    options: Options,
    turns: Turns,
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
    chat.turns.filter(&chain)?;
    relay::refuse_logprobs(&chain, chat.logprobs.is_some())?;
    let model = server.models.find(&chat.options.model, &account.caller().policy)?.clone();
    server.describe(&account, &model, chat.options.user.as_deref());
    account.keep_prompt(server.settings().audit.content_bytes(), "messages", || chat.turns.kept())?;
    let asked = chat.options.asked(Kind::Chat, model, chain);
    respond(&server, account, asked, move |model, terms| chat.choices(model, terms)).await
}

impl Chat {
    fn read(body: &[u8], maximum_choices: usize) -> Result<Chat, ApiFailure> {
        let mut fields = Fields::of_body(body)?;
        let chat = Chat {
            options: Options::read(&mut fields, maximum_choices)?,
            turns: Turns::read(&mut fields)?,
            max_tokens: max_tokens(&mut fields)?,
            logprobs: logprobs(&mut fields)?,
        };
        refuse_unsupported(&mut fields)?;
        fields.finish()?;
        Ok(chat)
    }

    fn choices(&self, model: &ServedModel, terms: &Terms) -> Result<(Vec<Choice>, usize), ApiFailure> {
        let engine = &model.engine;
        if !engine.tokenizer().has_chat_template() {
            let message =
                format!("`{}` is a base model without a chat template; use /v1/completions", model.name);
            return Err(ApiFailure {
                param: Some("model".to_string()),
                ..ApiFailure::new(StatusCode::BAD_REQUEST, "no_chat_template", message)
            });
        }
        engine.admit_bytes(self.turns.bytes()).map_err(|error| ApiFailure::from_submit(error, "messages"))?;
        let ids = self.turns.encode(engine.tokenizer(), true, terms.now).map_err(|error| ApiFailure {
            param: Some("messages".to_string()),
            ..ApiFailure::new(StatusCode::BAD_REQUEST, "invalid_value", error.to_string())
        })?;
        let prompt_tokens = ids.len();
        let choice = |number| {
            let mut request = self.options.request(terms, model, ids.clone(), number);
            request.max_tokens = self.max_tokens;
            request.logprobs = self.logprobs;
            request.stop_tokens = engine.turn_end_tokens();
            Choice { request, echo: None }
        };
        Ok(((0..self.options.answers).map(choice).collect(), prompt_tokens))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(body: &Value, param: &str) {
        let failure = Chat::read(body.to_string().as_bytes(), 4).err().unwrap();
        assert_eq!(failure.param.as_deref(), Some(param), "{body}");
    }

    #[test]
    fn limits_and_probabilities_agree_with_each_other() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}]});
            body[name] = value;
            body
        };
        check(&with("top_logprobs", json!(3)), "top_logprobs");
        check(&with("max_completion_tokens", json!(0)), "max_completion_tokens");
        let mut both = with("max_tokens", json!(3));
        both["max_completion_tokens"] = json!(4);
        check(&both, "max_tokens");
    }
    /// A client that asks for tools must not get an answer that has not seen them.
    #[test]
    fn tools_are_refused_by_name() {
        let tool = json!([{"type": "function", "function": {"name": "weather"}}]);
        for (name, value) in [
            ("tools", tool.clone()),
            ("functions", tool),
            ("tool_choice", json!("required")),
            ("tool_choice", json!({"type": "function", "function": {"name": "weather"}})),
            ("function_call", json!("auto")),
        ] {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "a"}]});
            body[name] = value;
            check(&body, name);
        }
    }
}
