//! `POST /v1/embeddings`: texts become vectors of length one, pooled from the model's last hidden states.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use inference::{Event, Pooling, Request};
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use super::completions::{Prompt, kept, prompts};
use super::failure::ApiFailure;
use super::fields::Fields;
use super::models::ServedModel;
use super::options::user;
use super::relay;
use crate::account::Account;
use crate::body::Body;
use crate::limits::fit::fit_prompt;
use crate::server::Server;

/// Texts of one request; OpenAI's limit.
pub const MOST_INPUTS: usize = 2_048;
/// Texts that are with the engine at a time: a long list must not fill its queue.
const TOGETHER: usize = 16;

struct Embeddings {
    model: String,
    inputs: Vec<Prompt>,
    pooling: Pooling,
    /// Bytes of f32, least first, in base64, instead of numbers: what OpenAI's own clients ask for.
    base64: bool,
    user: Option<String>,
}

/// `POST /v1/embeddings`
pub async fn embed(
    State(server): State<Arc<Server>>,
    Extension(account): Extension<Account>,
    Body(body): Body,
) -> Result<Response, ApiFailure> {
    if let Some(model) = relay::model_of(&server, &account, &body) {
        return relay::respond(&server, account, model, relay::Kind::Embedding, &body).await;
    }
    let mut wanted = Embeddings::read(&body)?;
    relay::filter_prompts(&mut wanted.inputs, "input", server.filters_for(account.caller())?.as_ref())?;
    let model = server.models.find(&wanted.model, &account.caller().policy)?.clone();
    server.describe(&account, &model, wanted.user.as_deref());
    account.keep_prompt(server.settings().audit.content_bytes(), "input", || kept(&wanted.inputs))?;
    let deadline = Instant::now() + server.settings().request_time();
    let Embeddings { inputs, pooling, base64, .. } = wanted;
    let engine = model.engine.clone();
    // Long texts take a while to encode: not on the threads that serve connections.
    let tenant = &account.caller().tenant;
    model.engine.has_room_for(tenant).map_err(|error| ApiFailure::from_submit(error, "input"))?;
    let turn = account.admission().encoding_turn().await;
    let encoding = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        inputs.iter().map(|input| input.tokens(&engine, "input")).collect::<Result<Vec<_>, _>>()
    });
    let texts = encoding.await.map_err(ApiFailure::of_task)??;
    let tokens: usize = texts.iter().map(Vec::len).sum();
    account.details().prompt_tokens = tokens;
    for text in &texts {
        fit_prompt(account.admission(), text.len(), "input")?;
    }
    account.admission().reserve(tokens, 0)?;
    let mut data = Vec::with_capacity(texts.len());
    for part in texts.chunks(TOGETHER) {
        let left = deadline.saturating_duration_since(Instant::now());
        for vector in vectors(&model, &account.caller().tenant, part, pooling, left).await? {
            let embedding = if base64 { json!(base64_of(&vector)) } else { json!(vector) };
            data.push(json!({"object": "embedding", "index": data.len(), "embedding": embedding}));
        }
    }
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok(Json(json!({"object": "list", "data": data, "model": model.name, "usage": usage})).into_response())
}

/// The vectors of some texts. Whoever drops the future cancels the work.
async fn vectors(
    model: &ServedModel,
    tenant: &str,
    texts: &[Vec<u32>],
    pooling: Pooling,
    time_limit: Duration,
) -> Result<Vec<Vec<f32>>, ApiFailure> {
    let (sender, mut events) = unbounded_channel();
    let mut running = Vec::new();
    for (number, text) in texts.iter().enumerate() {
        let sender = sender.clone();
        let request = Request {
            adapter: model.adapter.clone(),
            time_limit: Some(time_limit),
            ..Request::embedding(tenant, text.clone(), pooling)
        };
        let submitted = model.engine.submit_with(request, move |event| {
            // Nobody listens any more: the request is being cancelled.
            let _ = sender.send((number, event));
        });
        running.push(submitted.map_err(|error| ApiFailure::from_submit(error, "input"))?);
    }
    drop(sender);
    let mut vectors = vec![Vec::new(); texts.len()];
    while let Some((number, event)) = events.recv().await {
        match event {
            Event::Embedding { values } => vectors[number] = of_length_one(values),
            Event::Failed(failure) => return Err(ApiFailure::from_request(&failure)),
            Event::Prompt { .. } | Event::Token { .. } | Event::Finished { .. } => {}
        }
    }
    if vectors.iter().any(Vec::is_empty) { Err(ApiFailure::stopping()) } else { Ok(vectors) }
}

fn of_length_one(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    }
    vector
}

/// The bytes of the numbers, least first, in base64.
fn base64_of(vector: &[f32]) -> String {
    STANDARD.encode(vector.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

impl Embeddings {
    fn read(body: &[u8]) -> Result<Embeddings, ApiFailure> {
        let mut fields = Fields::of_body(body)?;
        let Some(model) = fields.string("model")? else {
            return Err(ApiFailure::field("model", "the name of a model", "none"));
        };
        let inputs = prompts(&mut fields, "input")?;
        if inputs.len() > MOST_INPUTS {
            return Err(ApiFailure::field("input", format!("at most {MOST_INPUTS} texts"), inputs.len()));
        }
        let pooling = match fields.string("pooling")?.as_deref() {
            None | Some("mean") => Pooling::Mean,
            Some("last") => Pooling::Last,
            Some(other) => return Err(fields.wrong("pooling", "mean or last", &json!(other))),
        };
        let base64 = match fields.string("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                return Err(fields.wrong("encoding_format", "float or base64", &Value::from(other)));
            }
        };
        let user = user(&mut fields)?;
        fields.finish()?;
        Ok(Embeddings { model, inputs, pooling, base64, user })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_base64() {
        assert_eq!(base64_of(&[1.0]), "AACAPw==");
        assert_eq!(base64_of(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(base64_of(&[1.0, -2.5, 0.1]), "AACAPwAAIMDNzMw9");
    }

    #[test]
    fn a_vector_has_length_one() {
        assert_eq!(of_length_one(vec![3.0, -4.0]), [0.6, -0.8]);
        assert_eq!(of_length_one(vec![0.0]), [0.0]);
    }
}
