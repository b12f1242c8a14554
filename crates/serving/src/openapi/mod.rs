//! `GET /openapi.json`: the interface as an OpenAPI 3.1 document, made from the table of routes.
//!
//! A route that is not described here fails a test, and so does an answer that is not as described.

mod administration;
mod operations;
mod schemas;

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use crate::account::Account;
use crate::api::models::ServedModel;
use crate::routes::{ROUTES, Route};
use crate::server::Server;
use crate::settings::ServeSettings;
use operations::{Answer, Operation};

/// `GET /openapi.json`
pub async fn serve(State(server): State<Arc<Server>>, Extension(account): Extension<Account>) -> Json<Value> {
    let policy = &account.caller().policy;
    let parts = server.parts();
    let elsewhere: Vec<&str> = parts
        .upstreams
        .models()
        .map(|model| model.name.as_str())
        .filter(|name| policy.allows_model(name))
        .collect();
    let own: Vec<&ServedModel> = server.models.allowed(policy).collect();
    // How many tokens the model of an engine elsewhere has, nobody here knows.
    let vocabulary = match elsewhere.is_empty() {
        true => own.iter().map(|model| model.engine.tokenizer().vocabulary_size()).max(),
        false => None,
    };
    let names: Vec<&str> = own.iter().map(|model| model.name.as_str()).chain(elsewhere).collect();
    Json(document(&server.settings(), &names, vocabulary))
}

/// The whole document, with the limits of the settings, the models that a request may name, and how many tokens the largest
/// of their vocabularies has, where that is known.
pub fn document(settings: &ServeSettings, models: &[&str], vocabulary: Option<usize>) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let method = route.method.as_str().to_lowercase();
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[method] = operation(route, models.len() == 1);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "eulalia",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Language models on hardware of one's own, in the form of OpenAI's interface. \
                Every route but /healthz asks for a credential. A field that is not listed is refused by its name.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key of this server (eu-…)."},
            },
            "schemas": schemas::all(settings, models, vocabulary),
        },
    })
}

/// With `one_model`, the caller may use no other, and a query need not name it.
fn operation(route: &Route, one_model: bool) -> Value {
    let Operation { summary, mut query, request, answer } =
        operations::describe(route.name).unwrap_or_else(|| Operation::plain("", schemas::any()));
    for parameter in query.iter_mut().filter(|parameter| parameter["name"] == "model") {
        parameter["required"] = json!(!one_model);
    }
    let mut responses = Map::new();
    let mut status = "200";
    let content = match answer {
        Answer::Json(schema) => json!({"application/json": {"schema": schema}}),
        Answer::JsonOrEvents(schema) => json!({
            "application/json": {"schema": schema},
            "text/event-stream": {"schema": {"type": "string"}},
        }),
        Answer::Text(kind) => json!({kind: {"schema": {"type": "string"}}}),
        Answer::Nothing => {
            status = "204";
            json!({})
        }
    };
    responses.insert(status.into(), json!({"description": "Done.", "content": content}));
    let error = json!({"application/json": {"schema": schemas::named("Error")}});
    let mut refusal = |status: &str, description: &str| {
        responses.insert(status.into(), json!({"description": description, "content": error}));
    };
    refusal(
        "400",
        "The request cannot be understood or carried out; `param` names the field. What depends on the model is told here \
         too, as no schema can: a token beyond its vocabulary (`unknown_token`), a text beyond its context \
         (`context_length_exceeded`), a form that cannot be compiled.",
    );
    if route.scope.is_some() {
        refusal("401", "No credential, or one that opens nothing.");
        refusal("403", "The credential lacks the scope.");
    }
    refusal("404", "There is no such thing.");
    refusal("405", "The route does not take this method.");
    refusal("429", "A limit is reached; `Retry-After` says when to come again.");
    refusal(
        "503",
        "The server is stopping (`stopping`) or not ready; or the policy of the caller's tenant asks for what this server no \
         longer has (`tenant_policy`).",
    );
    refusal("default", "Anything else.");
    let mut found = json!({
        "operationId": operation_id(route),
        "summary": summary,
        "responses": responses,
    });
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = names.map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}),
    );
    let parameters: Vec<Value> = in_path.chain(query).collect();
    if !parameters.is_empty() {
        found["parameters"] = json!(parameters);
    }
    if let Some(schema) = request {
        found["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    match route.scope {
        Some(scope) => found["x-scope"] = json!(scope.name()),
        None => found["security"] = json!([]),
    }
    found
}

/// Method and path in one word, such as `post_v1_chat_completions`.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(['/', '{', '}', '-', '.']).filter(|word| !word.is_empty());
    std::iter::once(route.method.as_str()).chain(words).collect::<Vec<_>>().join("_").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_and_every_reference_leads_somewhere() {
        for route in ROUTES {
            assert!(operations::describe(route.name).is_some(), "openapi/operations.rs lacks {}", route.name);
        }
        let document = document(&ServeSettings::default(), &["a"], Some(7));
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = &reference[..reference.find('"').unwrap()];
            assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
        }
        let ids: std::collections::BTreeSet<String> = ROUTES.iter().map(operation_id).collect();
        assert_eq!(ids.len(), ROUTES.len());
    }
}
