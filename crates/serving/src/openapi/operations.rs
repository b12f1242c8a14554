//! What each route takes and gives, by the name that the table of routes gives it.

use serde_json::{Value, json};

use super::administration::list_of;
use super::schemas::{any, named, object};
use crate::usage_report::MOST_DAYS;

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
        "GET /admin/v1/audit" => Operation {
            query: audit_query(),
            ..Operation::bare("Lines of the audit log, oldest first", Answer::Text("application/x-ndjson"))
        },
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
        "GET /tokenizer_info" => Operation {
            query: vec![json!({"name": "model", "in": "query", "schema": named("ModelName"),
                "description": "The name of a model; may be left out where there is one."})],
            ..Operation::plain("Special tokens and chat template of a model", named("TokenizerInfo"))
        },
        "GET /admin/v1/tenants" => Operation::plain("All tenants", list_of("Tenant")),
        "POST /admin/v1/tenants" => {
            Operation::asked("A new tenant", "TenantRequest", Answer::Json(named("Tenant")))
        }
        "GET /admin/v1/tenants/{name}" => Operation::plain("One tenant", named("Tenant")),
        "PATCH /admin/v1/tenants/{name}" => {
            Operation::asked("A tenant gets another policy", "TenantChange", Answer::Json(named("Tenant")))
        }
        "DELETE /admin/v1/tenants/{name}" => {
            Operation::plain("A tenant is removed, its keys are revoked", any())
        }
        "GET /admin/v1/keys" => Operation::plain("All keys, never with their secrets", list_of("Key")),
        "POST /admin/v1/keys" => {
            Operation::asked("A new key, shown this once", "KeyRequest", Answer::Json(named("NewKey")))
        }
        "GET /admin/v1/keys/{id}" => Operation::plain("One key", named("Key")),
        "PATCH /admin/v1/keys/{id}" => {
            Operation::asked("A key gets another label or end", "KeyChange", Answer::Json(named("Key")))
        }
        "DELETE /admin/v1/keys/{id}" => Operation::plain("A key is revoked", named("Key")),
        "POST /admin/v1/keys/{id}/rotate" => Operation::asked(
            "A key in the place of another, shown this once",
            "KeyRotation",
            Answer::Json(named("NewKey")),
        ),
        "GET /v1/usage" => Operation {
            query: vec![days()],
            ..Operation::plain("What the caller's tenant has used, by day, key and model", named("UsageList"))
        },
        "GET /admin/v1/usage" => Operation {
            query: vec![
                days(),
                json!({"name": "tenant", "in": "query", "description": "Name or id; without it, all tenants.",
                       "schema": {"type": "string"}}),
            ],
            ..Operation::plain("What all tenants have used, by day, key and model", named("UsageList"))
        },
        _ => return None,
    })
}

fn days() -> Value {
    json!({"name": "days", "in": "query", "description": "The last so many days, today included.",
           "schema": {"type": "integer", "minimum": 1, "maximum": MOST_DAYS, "default": 30}})
}

/// Which lines of the audit log are asked for.
fn audit_query() -> Vec<Value> {
    let parameter = |name: &str, schema: Value, description: &str| json!({"name": name, "in": "query", "required": false, "schema": schema, "description": description});
    let text = json!({"type": "string"});
    let time =
        json!({"type": "string", "pattern": "^\\d{4}(-\\d{2}(-\\d{2}(T\\d{2}:\\d{2}(:\\d{2}Z?)?)?)?)?$"});
    vec![
        parameter("since", time.clone(), "Lines at or after this time, in UTC"),
        parameter("until", time, "Lines before this time"),
        parameter("tenant", text.clone(), "Lines of this tenant, by its pseudonym"),
        parameter("event", text, "Lines of this kind"),
        parameter(
            "after",
            json!({"type": "integer", "minimum": 0, "maximum": u64::MAX}),
            "Lines after the one of this number",
        ),
        parameter(
            "format",
            json!({"type": "string", "enum": ["jsonl", "ecs"]}),
            "As in the log, or in the Elastic Common Schema",
        ),
    ]
}
