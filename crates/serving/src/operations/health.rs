//! Whether the process lives, and whether it takes requests.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::server::Server;

/// The process answers; nothing else is said to strangers.
pub async fn live() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

/// Whether the engines take requests, and how busy they are.
pub async fn ready(State(server): State<Arc<Server>>) -> Response {
    let loads: Vec<_> = server.models.iter().map(|model| (model, model.engine.load())).collect();
    let alive = loads.iter().all(|(_, load)| load.alive);
    let models: Vec<_> = loads
        .iter()
        .map(|(model, load)| json!({"id": model.name, "alive": load.alive, "running": load.running, "waiting": load.waiting}))
        .collect();
    let status = if alive { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"status": if alive { "ready" } else { "not ready" }, "models": models})))
        .into_response()
}
