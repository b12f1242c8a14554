//! One engine: who may ask it now, and one request to it with its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use serde_json::Value;
use tokio::time::timeout;

use super::breaker::{Breaker, BreakerState, Fault};
use super::connection::{Connections, Failure, Lease};
use super::places::{Place, Places};
use super::settings::UpstreamSettings;
use crate::api::failure::ApiFailure;
use crate::error::ServingError;
use crate::operations::trace::TRACEPARENT;

/// Largest answer that only says what went wrong.
const COMPLAINT_LIMIT: usize = 64 << 10;
/// How much of an engine's complaint goes on to the client.
const COMPLAINT_SHOWN: usize = 500;
/// Our name towards engines.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("eulalia/", env!("CARGO_PKG_VERSION")));
/// Longest wait for the end of an answer after its last event.
const END_PATIENCE: Duration = Duration::from_millis(250);

/// What is asked of an engine, but for the body.
pub struct Asked<'a> {
    /// Below the base of its interface, such as `/chat/completions`.
    pub path: &'static str,
    pub is_stream: bool,
    /// Whose request it is; this stays here.
    pub tenant: &'a str,
    /// When the request must be over.
    pub deadline: Instant,
    /// The request's id; it stands in our audit log too.
    pub id: &'a str,
    /// The header `traceparent`, where the request is part of a trace.
    pub trace: Option<HeaderValue>,
}

/// Why an engine did not answer.
pub enum Unasked {
    /// It cannot be reached, or is left alone for a while: nothing was sent.
    Unreachable,
    /// It has as many requests as it may: nothing was sent.
    Busy,
    /// It was asked; this goes to the client.
    Failed(ApiFailure),
}

/// What happened with one engine since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Requests sent.
    pub requests: u64,
    /// Connections refused, answers of 5xx, answers too late, cut off or malformed.
    pub failures: u64,
}

/// An engine.
pub struct Endpoint {
    settings: UpstreamSettings,
    connections: Arc<Connections>,
    authorization: Option<HeaderValue>,
    host: HeaderValue,
    breaker: Breaker,
    places: Arc<Places>,
    state: Arc<State>,
}

/// What is known of an engine, whatever its settings are.
#[derive(Default)]
struct State {
    is_ill: AtomicBool,
    requests: AtomicU64,
    failures: AtomicU64,
}

impl Endpoint {
    /// An engine under these settings. If it was there `before`, at the same address, what is known of it stays known.
    pub fn new(settings: &UpstreamSettings, before: Option<&Endpoint>) -> Result<Endpoint, ServingError> {
        let wrong = |problem: String| ServingError::Upstream { name: settings.name.clone(), problem };
        let authorization = match &settings.api_key_file {
            None => None,
            Some(path) => {
                let trouble =
                    |problem: String| wrong(format!("`api_key_file`, {}: {problem}", path.display()));
                let key = std::fs::read_to_string(path).map_err(|error| trouble(error.to_string()))?;
                let mut value = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
                    .map_err(|_| trouble("expected a key of visible ASCII characters".to_string()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let connections = Connections::new(&settings.target()).map_err(wrong)?;
        let host = HeaderValue::from_str(&connections.authority).map_err(|error| wrong(error.to_string()))?;
        let (failures, rest) = (settings.failures, Duration::from_secs(settings.rest_seconds));
        let before = before.filter(|before| before.settings.url == settings.url);
        Ok(Endpoint {
            breaker: match before {
                Some(before) => before.breaker.under(failures, rest),
                None => Breaker::new(failures, rest),
            },
            places: before.map(|before| before.places.clone()).unwrap_or_default(),
            state: before.map(|before| before.state.clone()).unwrap_or_default(),
            connections: Arc::new(connections),
            settings: settings.clone(),
            authorization,
            host,
        })
    }

    pub fn name(&self) -> &str {
        &self.settings.name
    }

    pub fn priority(&self) -> u32 {
        self.settings.priority
    }

    pub fn weight(&self) -> usize {
        self.settings.weight
    }

    pub(super) fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// What its last health check said.
    pub fn is_healthy(&self) -> bool {
        !self.state.is_ill.load(Ordering::Relaxed)
    }

    /// Notes what a health check said; whether that is news.
    pub(super) fn note_health(&self, is_healthy: bool) -> bool {
        self.state.is_ill.swap(!is_healthy, Ordering::Relaxed) == is_healthy
    }

    pub fn breaker_state(&self) -> BreakerState {
        self.breaker.state(Instant::now())
    }

    /// Tenants whose own failures keep their requests from it.
    pub fn tenants_kept_back(&self) -> usize {
        self.breaker.tenants_kept_back()
    }

    pub fn counts(&self) -> EndpointCounts {
        EndpointCounts {
            requests: self.state.requests.load(Ordering::Relaxed),
            failures: self.state.failures.load(Ordering::Relaxed),
        }
    }

    /// Requests that it is answering.
    pub fn running(&self) -> usize {
        self.places.running()
    }

    pub fn can_be_asked(&self, now: Instant) -> bool {
        self.is_healthy() && self.breaker.state(now) != BreakerState::Open
    }

    /// A request of this tenant found the engine failing, or made it fail.
    fn note_failure(&self, tenant: &str, fault: Fault, problem: &str) {
        tracing::warn!(upstream = self.settings.name, problem, "an engine failed");
        self.state.failures.fetch_add(1, Ordering::Relaxed);
        self.breaker.failed(tenant, fault, Instant::now());
    }

    /// Sends a request and waits for the head of a successful answer.
    pub async fn ask(self: &Arc<Self>, asked: &Asked<'_>, body: Bytes) -> Result<UpstreamAnswer, Unasked> {
        if !self.is_healthy() {
            return Err(Unasked::Unreachable);
        }
        let most = self.settings.maximum_concurrency;
        let place = self.places.take(asked.tenant, most).ok_or(Unasked::Busy)?;
        if !self.breaker.lets_pass(asked.tenant, Instant::now()) {
            return Err(Unasked::Unreachable);
        }
        let note_failure = |fault, problem: &str| self.note_failure(asked.tenant, fault, problem);
        let left = asked.deadline.saturating_duration_since(Instant::now());
        // What is no stream begins when it is whole.
        let patience = if asked.is_stream { left.min(self.settings.first_byte_time()) } else { left };
        let mut request = Some(self.request(Method::POST, asked.path, Body::from(body.clone()), asked));
        let mut is_fresh = false;
        let (response, lease) = loop {
            let mut lease = match self.connections.lease(is_fresh).await {
                Ok(lease) => lease,
                Err(failure) => {
                    note_failure(Fault::Way, &failure.to_string());
                    return Err(Unasked::Unreachable);
                }
            };
            let again = || self.request(Method::POST, asked.path, Body::from(body.clone()), asked);
            match lease.send(request.take().unwrap_or_else(again), patience).await {
                Ok(response) => break (response, lease),
                // The engine closed a connection that had waited: the request never left, and goes over a new one.
                Err((Failure::NotSent(_), returned)) if !is_fresh => (request, is_fresh) = (returned, true),
                Err((Failure::NotSent(problem), _)) => {
                    note_failure(Fault::Way, &problem);
                    return Err(Unasked::Unreachable);
                }
                Err((Failure::TimedOut, _)) => {
                    note_failure(Fault::Request, "no answer in time");
                    let message = "the engine of this model did not answer in time";
                    let code = "upstream_timeout";
                    return Err(Unasked::Failed(ApiFailure::new(StatusCode::GATEWAY_TIMEOUT, code, message)));
                }
                Err((Failure::Sent(problem), _)) => {
                    note_failure(Fault::Request, &problem);
                    return Err(Unasked::Failed(failed()));
                }
            }
        };
        self.state.requests.fetch_add(1, Ordering::Relaxed);
        let mut answer = UpstreamAnswer {
            endpoint: self.clone(),
            status: response.status(),
            is_stream: is_event_stream(&response),
            body: response.into_body(),
            lease: Some(lease),
            place,
            deadline: asked.deadline,
        };
        match answer.status.as_u16() {
            200 => {
                self.breaker.begins_to_answer(asked.tenant);
                Ok(answer)
            }
            status => {
                let complaint = answer.complaint().await;
                Err(Unasked::Failed(self.refused(asked.tenant, status, complaint)))
            }
        }
    }

    /// A request with our headers and no others.
    pub(super) fn request(&self, method: Method, path: &str, body: Body, asked: &Asked<'_>) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let path = format!("{}{path}", self.connections.base_path);
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, AGENT);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let accepted = if asked.is_stream { "text/event-stream" } else { "application/json" };
        headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(trace) = &asked.trace {
            headers.insert(TRACEPARENT, trace.clone());
        }
        if let Ok(id) = HeaderValue::from_str(asked.id) {
            headers.insert("x-request-id", id);
        }
        request
    }

    /// Asks for its health: whether it answered with a status of success in this time.
    pub(super) async fn ask_health(&self, patience: Duration) -> bool {
        let answer = self.look(&self.settings.health_path, patience).await;
        answer.is_ok_and(|response| response.status().is_success())
    }

    /// Reads a page of the engine, over a connection of its own; `path` from the root on.
    pub(super) async fn look(&self, path: &str, patience: Duration) -> Result<Response<Incoming>, String> {
        let asked = Asked {
            path: "",
            is_stream: false,
            tenant: "",
            deadline: Instant::now(),
            id: "health",
            trace: None,
        };
        let mut request = self.request(Method::GET, "", Body::empty(), &asked);
        *request.uri_mut() = path.parse().map_err(|_| format!("{path:?} is no path"))?;
        let mut lease = self.connections.lease(true).await.map_err(|failure| failure.to_string())?;
        lease.send(request, patience).await.map_err(|(failure, _)| failure.to_string())
    }

    /// Where its interface begins, without a slash at the end.
    pub(super) fn base_path(&self) -> &str {
        &self.connections.base_path
    }

    /// What the client is told when the engine does not want its request.
    fn refused(&self, tenant: &str, status: u16, complaint: Option<String>) -> ApiFailure {
        let shown: String = complaint.unwrap_or_default().chars().take(COMPLAINT_SHOWN).collect();
        match status {
            400 | 413 | 422 => {
                self.breaker.succeeded(tenant);
                let message = match shown.is_empty() {
                    true => "the engine of this model refuses the request and does not say why".to_string(),
                    false => format!("the engine of this model refuses the request: {shown}"),
                };
                ApiFailure::new(StatusCode::BAD_REQUEST, "upstream_refused", message)
            }
            429 => {
                self.breaker.succeeded(tenant);
                let message = "the engine of this model is busy; try again in a moment";
                ApiFailure::new(StatusCode::TOO_MANY_REQUESTS, "upstream_busy", message)
            }
            503 => {
                self.note_failure(tenant, Fault::Way, "status 503");
                let message = "the engine of this model takes no requests; try again later";
                ApiFailure::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable", message)
            }
            // Redirects are not followed: where to, an engine does not decide. Its complaint is about us (a key, a path), and
            // may repeat the prompt: it goes nowhere.
            _ => {
                self.note_failure(tenant, Fault::Request, &format!("status {status}"));
                failed()
            }
        }
    }
}

/// An engine failed; what exactly is in the log.
pub fn failed() -> ApiFailure {
    let message = "the engine of this model failed; the server's log says how";
    ApiFailure::new(StatusCode::BAD_GATEWAY, "upstream_failed", message)
}

fn is_event_stream(response: &Response<Incoming>) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

/// An answer whose head has come. Dropped before its end, it closes the connection, and the engine stops.
pub struct UpstreamAnswer {
    endpoint: Arc<Endpoint>,
    status: StatusCode,
    /// Whether it says that it is a stream of events.
    pub is_stream: bool,
    body: Incoming,
    lease: Option<Lease>,
    place: Place,
    deadline: Instant,
}

impl UpstreamAnswer {
    /// It came to its end as it should.
    pub fn succeeded(&self) {
        self.endpoint.breaker.succeeded(self.place.tenant());
    }

    /// It is not what an engine should answer.
    pub fn failed(&self, problem: &str) {
        self.endpoint.note_failure(self.place.tenant(), Fault::Request, problem);
    }

    /// The next bytes; `None` at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, ApiFailure> {
        let now = Instant::now();
        let left = self.deadline.saturating_duration_since(now);
        let patience = left.min(self.endpoint.settings.idle_time());
        loop {
            match timeout(patience, next_frame(&mut self.body)).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => (),
                    Ok(bytes) => return Ok(Some(bytes)),
                    // Trailers say nothing here.
                    Err(_) => (),
                },
                Ok(Some(Err(error))) => {
                    self.failed(&format!("cut off: {error}"));
                    return Err(failed());
                }
                Ok(None) => {
                    self.keep();
                    return Ok(None);
                }
                Err(_) if left <= patience => {
                    let message = "the answer took longer than this server allows; ask for fewer tokens";
                    return Err(ApiFailure::new(StatusCode::GATEWAY_TIMEOUT, "time_limit", message));
                }
                Err(_) => {
                    self.failed("the answer stalled");
                    let message = "the engine of this model stopped answering";
                    return Err(ApiFailure::new(StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", message));
                }
            }
        }
    }

    /// All bytes of an answer that is no stream.
    pub async fn whole(&mut self) -> Result<Bytes, ApiFailure> {
        let limit = self.endpoint.settings.answer_limit_bytes;
        let Some(first) = self.piece().await? else { return Ok(Bytes::new()) };
        let Some(second) = self.piece().await? else { return Ok(first) };
        let mut bytes = Vec::with_capacity(2 * (first.len() + second.len()));
        bytes.extend_from_slice(&first);
        bytes.extend_from_slice(&second);
        while let Some(piece) = self.piece().await? {
            if bytes.len() + piece.len() > limit {
                self.failed("the answer is larger than `answer_limit_bytes`");
                return Err(failed());
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.into())
    }

    /// The largest event that a stream may have, and the most text of all its events, in bytes.
    pub fn answer_limit(&self) -> usize {
        self.endpoint.settings.answer_limit_bytes
    }

    /// Waits a moment for the end of a body whose last event has come, so that its connection can be used again.
    pub async fn end(&mut self) {
        if let Ok(None) = timeout(END_PATIENCE, next_frame(&mut self.body)).await {
            self.keep();
        }
    }

    fn keep(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.keep();
        }
    }

    /// What an answer that is no success says.
    async fn complaint(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        while bytes.len() < COMPLAINT_LIMIT {
            match timeout(self.endpoint.settings.connect_time(), next_frame(&mut self.body)).await {
                Ok(Some(Ok(frame))) => bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Ok(None) => {
                    self.keep();
                    break;
                }
                _ => break,
            }
        }
        let answer: Value = serde_json::from_slice(&bytes).ok()?;
        let places = ["/error/message", "/message", "/detail", "/error"];
        places.iter().find_map(|place| answer.pointer(place)?.as_str()).map(String::from)
    }
}

pub(super) async fn next_frame(
    body: &mut Incoming,
) -> Option<Result<hyper::body::Frame<Bytes>, hyper::Error>> {
    let mut body = std::pin::Pin::new(body);
    std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await
}
