//! Spans go to the collector, in the background and in batches.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use axum::http::{HeaderValue, Method, Request, StatusCode, Uri};
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::time::sleep;

use super::otlp::{FinishedSpan, body};
use crate::error::ServingError;
use crate::settings::TracesSettings;
use crate::upstream::{Connections, Target};

/// How long spans are gathered for one request to the collector, and how many it has at most.
const GATHERED_FOR: Duration = Duration::from_secs(1);
const MOST_SPANS: usize = 512;
/// For a connection to the collector, and for its answer.
const PATIENCE: Duration = Duration::from_secs(5);
const AGENT: HeaderValue = HeaderValue::from_static(concat!("eulalia/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The way to the collector.
pub struct Exporter {
    service: String,
    connections: Arc<Connections>,
    host: HeaderValue,
    path: Uri,
    authorization: Option<HeaderValue>,
}

impl Exporter {
    pub fn open(settings: &TracesSettings) -> Result<Exporter, ServingError> {
        let wrong = |key: &'static str, found: String| {
            let expected = "what a collector of OpenTelemetry can be reached with".to_string();
            ServingError::Setting { key, expected, found }
        };
        let target = Target {
            url: &settings.endpoint,
            ca: settings.ca.as_deref(),
            allow_plain_http: settings.allow_plain_http,
            connect_time: PATIENCE,
            keep: Duration::ZERO,
        };
        let connections = Connections::new(&target).map_err(|problem| wrong("traces.endpoint", problem))?;
        let host = HeaderValue::from_str(&connections.authority)
            .map_err(|error| wrong("traces.endpoint", error.to_string()))?;
        let path =
            connections.base_path.parse().map_err(|_| wrong("traces.endpoint", settings.endpoint.clone()))?;
        let authorization = settings.authorization_file.as_ref().map(|file| {
            let trouble = |problem: String| {
                wrong("traces.authorization_file", format!("{}: {problem}", file.display()))
            };
            let text = std::fs::read_to_string(file).map_err(|error| trouble(error.to_string()))?;
            let mut value = HeaderValue::from_str(text.trim()).map_err(|error| trouble(error.to_string()))?;
            value.set_sensitive(true);
            Ok::<HeaderValue, ServingError>(value)
        });
        Ok(Exporter {
            service: settings.service_name.clone(),
            connections: Arc::new(connections),
            host,
            path,
            authorization: authorization.transpose()?,
        })
    }

    /// Sends what comes until `stop`, then what is there. Tells `note` of each batch how many spans it had and whether the
    /// collector took them.
    pub async fn run(
        &self,
        mut waiting: Receiver<FinishedSpan>,
        mut stop: watch::Receiver<bool>,
        note: impl Fn(u64, bool),
    ) {
        let mut is_failing = false;
        loop {
            let first = tokio::select! {
                span = waiting.recv() => span,
                _ = stop.wait_for(|stop| *stop) => None,
            };
            let is_last = first.is_none();
            if !is_last {
                tokio::select! {
                    () = sleep(GATHERED_FOR) => {}
                    _ = stop.wait_for(|stop| *stop) => {}
                }
            }
            let rest = std::iter::from_fn(|| waiting.try_recv().ok());
            let spans: Vec<FinishedSpan> = first.into_iter().chain(rest).take(MOST_SPANS).collect();
            let count = spans.len();
            if count > 0 {
                let sent = self.send(spans).await;
                note(count as u64, sent.is_ok());
                match &sent {
                    Ok(()) if is_failing => tracing::info!("the collector of traces takes spans again"),
                    Err(problem) if !is_failing => {
                        tracing::warn!(problem, "spans are lost while the collector of traces takes none");
                    }
                    _ => {}
                }
                is_failing = sent.is_err();
            }
            if is_last && count < MOST_SPANS {
                return;
            }
        }
    }

    async fn send(&self, spans: Vec<FinishedSpan>) -> Result<(), String> {
        let mut request = Request::new(Body::from(body(&self.service, spans).to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, AGENT);
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let mut lease = self.connections.lease(true).await.map_err(|failure| failure.to_string())?;
        let answer = lease.send(request, PATIENCE).await.map_err(|(failure, _)| failure.to_string())?;
        match answer.status() {
            StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(()),
            status => Err(format!("it answers {}", status.as_u16())),
        }
    }
}
