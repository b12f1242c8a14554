//! The second socket: whether the server lives and whether it takes requests, for supervisors that have no credential.
//!
//! It says a word and a status, no names and no numbers, and everything else on it is 404.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use super::health;
use crate::server::Server;

/// Connections at once: probes come one by one.
pub const PLACES: usize = 16;

/// `/healthz` and `/readyz`, and nothing else.
pub fn router(server: &Arc<Server>) -> Router {
    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready_or_not))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .with_state(server.clone())
}
