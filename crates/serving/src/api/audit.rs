//! `GET /admin/v1/audit`: the lines of the audit log that somebody asks for, streamed.
//!
//! Reading is itself an event, `audit_read`, which is on disk before the first line leaves.

use std::io::{self, Write};
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;

use super::failure::ApiFailure;
use crate::account::Account;
use crate::audit::{AuditEvent, AuditFilter, AuditFormat, export_log};
use crate::server::{AUDIT_FOLDER, Server};

/// Bytes that are sent at once, and how many such pieces wait for a client that reads slowly.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 4;

/// What stands after the `?`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    since: Option<String>,
    until: Option<String>,
    tenant: Option<String>,
    event: Option<String>,
    after: Option<u64>,
    #[serde(default)]
    format: AuditFormat,
}

/// `GET /admin/v1/audit`
pub async fn read(
    State(server): State<Arc<Server>>,
    Extension(account): Extension<Account>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, ApiFailure> {
    let wrong = |problem: String| ApiFailure::new(StatusCode::BAD_REQUEST, "invalid_value", problem);
    let Query(asked) = asked.map_err(|rejection| wrong(rejection.body_text()))?;
    let Asked { since, until, tenant, event, after, format } = asked;
    let filter = AuditFilter { since, until, tenant, event, after };
    filter.check().map_err(wrong)?;
    let Ok(place) = server.exports.clone().try_acquire_owned() else {
        let message =
            "the audit log is being read by as many as may at once; try again when one of them is done";
        return Err(ApiFailure::new(StatusCode::TOO_MANY_REQUESTS, "exports_busy", message));
    };
    note(&server, &account, &filter).await?;
    let folder = server.settings().state.join(AUDIT_FOLDER);
    let patience = server.settings().stalled_client_time();
    let (sender, receiver) = channel(PIECES);
    // Reading waits for the disk and for the client: on a thread of its own.
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Handle::current();
        let mut pieces = Pieces { sender, buffer: Vec::new(), runtime, patience };
        // Free again before the answer ends.
        let _place = place;
        let read = export_log(&folder, &filter, format, &mut pieces)
            .and_then(|_| pieces.send().map_err(|error| crate::ServingError::AuditFailed(error.to_string())));
        if let Err(error) = read {
            // The answer has begun: cut off in the middle, it cannot be taken for whole.
            tracing::warn!(problem = %error, "an export of the audit log broke off");
            let _ =
                pieces.runtime.block_on(pieces.sender.send(Err(io::Error::other("the export broke off"))));
        }
    });
    let mut response = Body::from_stream(ReceiverStream::new(receiver)).into_response();
    let kind = axum::http::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// Who reads the log is in the log.
async fn note(server: &Server, account: &Account, filter: &AuditFilter) -> Result<(), ApiFailure> {
    let event = AuditEvent::new("audit_read")
        .with("id", account.id())
        .with("tenant", account.caller().tenant.as_str())
        .with("key", account.caller().key_id.as_str())
        .with("since", filter.since.as_deref())
        .with("until", filter.until.as_deref())
        .with("after", filter.after);
    let (sender, written) = tokio::sync::oneshot::channel();
    server.audit.append(event, move |result| drop(sender.send(result)));
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(problem)) => Err(ApiFailure::internal(&format!("audit log: {problem}"))),
        Err(_) => Err(ApiFailure::internal("audit log: its thread has ended")),
    }
}

/// Lines gathered into pieces of an answer.
struct Pieces {
    sender: Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
    runtime: tokio::runtime::Handle,
    patience: std::time::Duration,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        let sending = self.runtime.block_on(tokio::time::timeout(self.patience, self.sender.send(Ok(piece))));
        match sending {
            Ok(Ok(())) => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client left or does not read")),
        }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
