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
    let models: Vec<_> = server
        .models
        .allowed(&account.caller().policy)
        .map(|model| (model, model.engine.load()))
        .map(|(model, load)| json!({"id": model.name, "alive": load.alive, "running": load.running, "waiting": load.waiting}))
        .collect();
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
    } else if server.models.iter().all(|model| model.engine.load().alive) {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}
