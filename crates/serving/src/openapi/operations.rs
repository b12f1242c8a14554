//! What each route takes and gives, by the name that the table of routes gives it.

use serde_json::{Value, json};

use super::schemas::{any, named, object};

/// What the document says of one route.
pub struct Operation {
    /// In a line.
    pub summary: &'static str,
    /// OpenAPI parameter objects.
    pub query: Vec<Value>,
    /// Schema of the body, where there is one.
    pub request: Option<Value>,
    pub answer: Answer,
}

/// What a success looks like.
pub enum Answer {
    Json(Value),
    /// Server-sent events where the request asks for a stream.
    JsonOrEvents(Value),
    /// Of this media type.
    Text(&'static str),
    /// No body, status 204.
    Nothing,
}

impl Operation {
    /// Takes nothing but what stands in the path.
    pub fn plain(summary: &'static str, answer: Value) -> Operation {
        Operation::bare(summary, Answer::Json(answer))
    }

    fn bare(summary: &'static str, answer: Answer) -> Operation {
        Operation { summary, query: Vec::new(), request: None, answer }
    }

    fn asked(summary: &'static str, request: &str, answer: Answer) -> Operation {
        Operation { summary, query: Vec::new(), request: Some(named(request)), answer }
    }
}

/// The description of the route of that name.
pub fn describe(route: &str) -> Option<Operation> {
    Some(match route {
        "GET /healthz" => Operation::plain("The process answers", named("Health")),
        "GET /readyz" => {
            Operation::plain("Whether the models take requests, and how busy they are", named("Readiness"))
        }
        "GET /metrics" => Operation::bare("Figures for Prometheus", Answer::Text("text/plain")),
        "GET /openapi.json" => Operation::plain("This document", any()),
        "GET /" => Operation::bare("The page: sign in, talk to a model", Answer::Text("text/html")),
        "POST /session" => {
            Operation::bare("Sign in on the page: a cookie stands for the credential", Answer::Nothing)
        }
        "DELETE /session" => Operation::bare("Sign out of the page", Answer::Nothing),
        "GET /v1/models" => Operation::plain("Which models there are", named("ModelList")),
        "GET /v1/models/{id}" => Operation::plain("One model", named("Model")),
        "POST /v1/completions" => {
            Operation::asked("A text goes on", "CompletionRequest", Answer::JsonOrEvents(named("Completion")))
        }
        "POST /v1/chat/completions" => Operation::asked(
            "A conversation goes on",
            "ChatCompletionRequest",
            Answer::JsonOrEvents(named("ChatCompletion")),
        ),
        "POST /v1/embeddings" => Operation::asked(
            "Texts become vectors of length one",
            "EmbeddingRequest",
            Answer::Json(named("EmbeddingList")),
        ),
        "POST /tokenize" => Operation::asked(
            "A text or a conversation becomes tokens",
            "TokenizeRequest",
            Answer::Json(named("Tokens")),
        ),
        "POST /detokenize" => Operation::asked(
            "Tokens become a text",
            "DetokenizeRequest",
            Answer::Json(object(&[("prompt", json!({"type": "string"}))])),
        ),
        _ => return None,
    })
}
