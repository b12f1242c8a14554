//! Whether the process lives, and whether it takes requests.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::json;

use crate::account::Account;
use crate::server::Server;

/// The process answers; nothing else is said to strangers.
pub async fn live() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// Whether the server takes requests, and how busy the engines are that the caller may know of.
pub async fn ready(State(server): State<Arc<Server>>, Extension(account): Extension<Account>) -> Response {
    let mut models: Vec<_> = server
        .models
        .allowed(&account.caller().policy)
        .map(|model| (model, model.engine.load()))
        .map(|(model, load)| json!({"id": model.name, "alive": load.alive, "running": load.running, "waiting": load.waiting}))
        .collect();
    let policy = &account.caller().policy;
    let parts = server.parts();
    let elsewhere = parts.upstreams.models().filter(|model| policy.allows_model(&model.name));
    models.extend(elsewhere.map(|model| json!({"id": model.name, "alive": model.is_available()})));
    let (status, word) = state(&server);
    (status, Json(json!({"status": word, "models": models}))).into_response()
}

/// The same, in one word.
pub async fn ready_or_not(State(server): State<Arc<Server>>) -> Response {
    let (status, word) = state(&server);
    (status, Json(json!({"status": word}))).into_response()
}

fn state(server: &Server) -> (StatusCode, &'static str) {
    if server.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if answers(server) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}

/// An engine elsewhere that is down is no reason to send nobody here for the other models.
fn answers(server: &Server) -> bool {
    let mut own = server.models.iter().peekable();
    let has_own = own.peek().is_some();
    own.all(|model| model.engine.load().alive)
        && (has_own || server.parts().upstreams.models().any(|model| model.is_available()))
}
