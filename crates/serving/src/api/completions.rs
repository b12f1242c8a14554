//! `POST /v1/completions`: a text goes on.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use inference::Engine;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use super::answer::{Choice, Terms, respond};
use super::failure::ApiFailure;
use super::fields::{Fields, shown, whole};
use super::models::ServedModel;
use super::options::{MOST_ALTERNATIVES, Options, refuse_unsupported};
use super::relay;
use super::render::Kind;
use crate::account::Account;
use crate::body::Body;
use crate::server::Server;

/// OpenAI's default.
const DEFAULT_MAX_TOKENS: usize = 16;

/// What a request asks beyond the options.
struct Completion {
    options: Options,
    prompts: Vec<Prompt>,
    max_tokens: Option<usize>,
    echo: bool,
    logprobs: Option<usize>,
}

#[derive(Debug, PartialEq)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// `POST /v1/completions`
pub async fn complete(
    State(server): State<Arc<Server>>,
    Extension(account): Extension<Account>,
    Body(body): Body,
) -> Result<Response, ApiFailure> {
    if let Some(model) = relay::model_of(&server, &account, &body) {
        return relay::respond(&server, account, model, relay::Kind::Completion, &body).await;
    }
    let mut completion = Completion::read(&body, server.settings().maximum_choices)?;
    let chain = server.filters_for(account.caller())?;
    relay::filter_prompts(&mut completion.prompts, "prompt", &chain)?;
    relay::refuse_logprobs(&chain, completion.logprobs.is_some())?;
    let model = server.models.find(&completion.options.model, &account.caller().policy)?.clone();
    server.describe(&account, &model, completion.options.user.as_deref());
    account.keep_prompt(server.settings().audit.content_bytes(), "prompt", || kept(&completion.prompts))?;
    let asked = completion.options.asked(Kind::Completion, model, chain);
    respond(&server, account, asked, move |model, terms| completion.choices(model, terms)).await
}

/// Prompts as the audit log keeps them.
pub fn kept(prompts: &[Prompt]) -> Value {
    let prompt = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => json!(text),
        Prompt::Tokens(ids) => json!(ids),
    };
    prompts.iter().map(prompt).collect()
}

impl Completion {
    fn read(body: &[u8], maximum_choices: usize) -> Result<Completion, ApiFailure> {
        let mut fields = Fields::of_body(body)?;
        let options = Options::read(&mut fields, maximum_choices)?;
        let prompts = prompts(&mut fields, "prompt")?;
        let choices = prompts.len().saturating_mul(options.answers);
        if choices > maximum_choices {
            let expected = format!("at most {maximum_choices} answers (prompts times `n`)");
            return Err(ApiFailure::field("prompt", expected, choices));
        }
        let completion = Completion {
            max_tokens: fields.count("max_tokens", 0, usize::MAX)?,
            echo: fields.flag("echo")?,
            logprobs: fields.count("logprobs", 0, MOST_ALTERNATIVES)?,
            prompts,
            options,
        };
        fields.only("best_of", &[json!(1), json!(completion.options.answers)])?;
        refuse_unsupported(&mut fields)?;
        fields.finish()?;
        Ok(completion)
    }

    fn choices(&self, model: &ServedModel, terms: &Terms) -> Result<(Vec<Choice>, usize), ApiFailure> {
        let engine = &model.engine;
        let (mut choices, mut prompt_tokens) = (Vec::new(), 0);
        for prompt in &self.prompts {
            let ids = prompt.tokens(engine, "prompt")?;
            prompt_tokens += ids.len();
            let room = engine.context_length().saturating_sub(ids.len()).max(1);
            let max_tokens = self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS.min(room));
            for _ in 0..self.options.answers {
                let mut request = self.options.request(terms, model, ids.clone(), choices.len());
                request.max_tokens = Some(max_tokens);
                request.logprobs = self.logprobs;
                request.prompt_logprobs = self.logprobs.filter(|_| self.echo);
                let echo = if self.echo { Some(prompt.text(engine.tokenizer())?) } else { None };
                choices.push(Choice { request, echo });
            }
        }
        Ok((choices, prompt_tokens))
    }
}

impl Prompt {
    /// Special tokens in the text count, as they do for every server of this interface.
    pub fn tokens(&self, engine: &Engine, field: &str) -> Result<Vec<u32>, ApiFailure> {
        let tokenizer = engine.tokenizer();
        if let Prompt::Text(text) = self {
            engine.admit_text(text).map_err(|error| ApiFailure::from_submit(error, field))?;
        }
        let ids = match self {
            Prompt::Tokens(ids) => ids.clone(),
            Prompt::Text(text) => tokenizer.encode_prompt(text).map_err(|error| refused(error, field))?,
        };
        // An empty prompt asks for a text from its beginning.
        Ok(if ids.is_empty() { tokenizer.beginning_id().into_iter().collect() } else { ids })
    }

    fn text(&self, tokenizer: &Tokenizer) -> Result<String, ApiFailure> {
        match self {
            Prompt::Text(text) => Ok(text.clone()),
            Prompt::Tokens(ids) => tokenizer.decode(ids).map_err(|error| refused(error, "prompt")),
        }
    }
}

/// A text that the tokenizer will not take.
pub fn refused(error: tokenizer::Error, field: &str) -> ApiFailure {
    ApiFailure {
        param: Some(field.to_string()),
        ..ApiFailure::new(StatusCode::BAD_REQUEST, "invalid_value", error.to_string())
    }
}

/// A string, an array of strings, an array of token ids, or an array of such arrays.
pub fn prompts(fields: &mut Fields, field: &'static str) -> Result<Vec<Prompt>, ApiFailure> {
    let expected = "a string, an array of strings, an array of token ids, or an array of arrays of token ids";
    match fields.take(field) {
        None => Err(ApiFailure::field(field, expected, "nothing")),
        Some(Value::String(text)) => Ok(vec![Prompt::Text(text)]),
        Some(Value::Array(values)) if values.is_empty() => {
            Err(ApiFailure::field(field, expected, "an empty array"))
        }
        Some(Value::Array(values)) if values[0].is_number() => {
            Ok(vec![Prompt::Tokens(token_ids(&values, field)?)])
        }
        Some(Value::Array(values)) => {
            let prompt = |(number, value)| match value {
                Value::String(text) => Ok(Prompt::Text(text)),
                Value::Array(ids) => Ok(Prompt::Tokens(token_ids(&ids, &format!("{field}[{number}]"))?)),
                other => {
                    let place = format!("{field}[{number}]");
                    Err(ApiFailure::field(place, "a string or an array of token ids", shown(&other)))
                }
            };
            values.into_iter().enumerate().map(prompt).collect()
        }
        Some(other) => Err(fields.wrong(field, expected, &other)),
    }
}

/// Token ids; `place` is the array's own name.
pub fn token_ids(values: &[Value], place: &str) -> Result<Vec<u32>, ApiFailure> {
    let id = |(number, value): (usize, &Value)| {
        let id = whole(value).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| ApiFailure::field(format!("{place}[{number}]"), "a token id", shown(value)))
    };
    values.iter().enumerate().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prompt: Value, expected: Result<Vec<Prompt>, &str>) {
        let body = json!({"model": "m", "prompt": prompt}).to_string();
        let found = Completion::read(body.as_bytes(), 4).map(|completion| completion.prompts);
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(failure), Err(param)) => assert_eq!(failure.param.as_deref(), Some(param)),
            (found, expected) => panic!("{prompt}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn prompts_come_in_four_forms() {
        let text = |text: &str| Prompt::Text(text.to_string());
        check(json!("Għaliex"), Ok(vec![text("Għaliex")]));
        check(json!(["a", "β"]), Ok(vec![text("a"), text("β")]));
        check(json!([1, 2]), Ok(vec![Prompt::Tokens(vec![1, 2])]));
        check(json!([[1], [2, 3]]), Ok(vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]));
        check(json!([]), Err("prompt"));
        check(json!(null), Err("prompt"));
        check(json!({}), Err("prompt"));
        check(json!(["a", 1]), Err("prompt[1]"));
        check(json!([1, -1]), Err("prompt[1]"));
        check(json!([[1], [4_294_967_296u64]]), Err("prompt[1][0]"));
        check(json!(["a", "b", "c", "d", "e"]), Err("prompt"));
    }
}
