//! Requests that an engine elsewhere answers: read, filtered and counted as our own, then sent on in our name.
//!
//! Only fields that are known go on, and only fields that are known come back: what a client or an engine adds is refused
//! or left out, so that neither reaches the other past the filters. Values are left to the engine to judge.

mod answer;
mod bounds;
mod choice;
mod request;
mod stream;
mod texts;

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::failure::ApiFailure;
use crate::account::Account;
use crate::limits::fit::fit_prompt;
use crate::server::Server;
use crate::upstream::{Asked, UpstreamModel, failed};
use request::Outgoing;
pub use texts::{filter, filter_prompts, filter_strings, refuse_logprobs};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chat,
    Completion,
    Embedding,
}

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Kind::Chat => "/chat/completions",
            Kind::Completion => "/completions",
            Kind::Embedding => "/embeddings",
        }
    }

    fn prompt_field(self) -> &'static str {
        match self {
            Kind::Chat => "messages",
            Kind::Completion => "prompt",
            Kind::Embedding => "input",
        }
    }
}

/// Set aside for an answer whose request names no length, as for our own engine.
const UNNAMED_ANSWER: usize = 1_024;
/// Bytes that count as a token where nobody counted better; in limits and the audit log alone, never in answers.
const BYTES_PER_TOKEN: usize = 4;

/// The model of an engine elsewhere that a body names, if it names one that the caller may use.
pub fn model_of(server: &Server, account: &Account, body: &[u8]) -> Option<Arc<UpstreamModel>> {
    #[derive(Deserialize)]
    struct Named {
        model: String,
    }
    let parts = server.parts();
    if parts.upstreams.is_empty() {
        return None;
    }
    // What is no JSON is complained about where everything is read.
    let named: Named = serde_json::from_slice(body).ok()?;
    parts
        .upstreams
        .find(&named.model)
        .filter(|model| account.caller().policy.allows_model(&model.name))
        .cloned()
}

/// Answers a request with a model of an engine elsewhere.
pub async fn respond(
    server: &Arc<Server>,
    account: Account,
    model: Arc<UpstreamModel>,
    kind: Kind,
    body: &[u8],
) -> Result<Response, ApiFailure> {
    let settings = server.settings();
    let deadline = Instant::now() + settings.request_time();
    let chain = server.filters_for(account.caller())?;
    let mut outgoing = Outgoing::read(kind, body, settings.maximum_choices, &chain)?;
    server.describe_upstream(&account, &model.name, outgoing.user.as_deref());
    let field = kind.prompt_field();
    account.keep_prompt(settings.audit.content_bytes(), field, || outgoing.prompt())?;
    let prompt_tokens = fit(&account, &model, &mut outgoing)?;
    let id = account.id().to_string();
    let asked = Asked {
        path: kind.path(),
        is_stream: outgoing.stream,
        tenant: &account.caller().tenant,
        deadline,
        id: &id,
        trace: account.traceparent(),
    };
    let body = outgoing.body()?;
    let upstream = model.ask(&asked, &body).await?;
    if upstream.is_stream != outgoing.stream {
        upstream.failed("a stream where none was asked for, or none where one was");
        return Err(failed());
    }
    let frame = answer::Frame {
        kind,
        id: &id,
        created: server.now(),
        model: model.clone(),
        chain,
        answers: outgoing.answers,
        texts: outgoing.texts,
        prompt_tokens,
    };
    if outgoing.stream {
        return Ok(stream::respond(frame, account, upstream, outgoing.stream_usage));
    }
    answer::respond(frame, &account, upstream).await
}

/// Holds a request to the limits of its tenant and key. Returns the tokens of its prompts, counted or guessed.
fn fit(account: &Account, model: &UpstreamModel, outgoing: &mut Outgoing) -> Result<usize, ApiFailure> {
    let admission = account.admission();
    let limits = *admission.limits();
    let field = outgoing.kind.prompt_field();
    let mut prompt_tokens = 0;
    if limits.counts_tokens() {
        let counted = tokens_of_all(model, &outgoing.texts);
        prompt_tokens = counted + outgoing.prompt_ids;
        fit_prompt(admission, prompt_tokens, field)?;
    }
    if outgoing.kind == Kind::Embedding {
        admission.reserve(prompt_tokens, 0)?;
        return Ok(prompt_tokens);
    }
    let refused = |name: &str, limit: &str, most: u64, found: usize| ApiFailure {
        param: Some(name.to_string()),
        ..ApiFailure::new(
            StatusCode::BAD_REQUEST,
            "request_too_large",
            format!("`{name}`: {found} are more than the limit `{limit}` of {most}: ask for less"),
        )
    };
    if let Some(most) = limits.answers
        && outgoing.answers as u64 > most
    {
        return Err(refused("n", "answers", most, outgoing.answers));
    }
    let (firm, soft) = match (outgoing.max_tokens, limits.answer_tokens) {
        (Some(wanted), Some(most)) if wanted as u64 > most => {
            return Err(refused("max_tokens", "answer_tokens", most, wanted));
        }
        (Some(wanted), _) => (wanted.saturating_mul(outgoing.answers), 0),
        (None, Some(most)) => {
            outgoing.fields.insert("max_tokens".to_string(), Value::from(most));
            (0, usize::try_from(most).unwrap_or(usize::MAX).min(UNNAMED_ANSWER) * outgoing.answers)
        }
        (None, None) => (0, UNNAMED_ANSWER * outgoing.answers),
    };
    admission.reserve(prompt_tokens.saturating_add(firm), soft)?;
    Ok(prompt_tokens)
}

/// The tokens of all texts of a prompt.
fn tokens_of_all(model: &UpstreamModel, texts: &[String]) -> usize {
    let bytes = texts.iter().map(String::len).sum();
    texts::beside(bytes, || texts.iter().map(|text| tokens_of(model, text)).sum())
}

/// The tokens of a text: counted where the model's tokenizer is known, otherwise guessed.
fn tokens_of(model: &UpstreamModel, text: &str) -> usize {
    let counted = model.tokenizer.as_ref().and_then(|tokenizer| tokenizer.encode(text).ok());
    counted.map_or(text.len().div_ceil(BYTES_PER_TOKEN), |tokens| tokens.len())
}
