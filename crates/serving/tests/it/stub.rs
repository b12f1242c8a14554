//! An engine elsewhere that does what the last message says: answers, streams, stalls, breaks off, talks nonsense.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream::unfold;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(600);

#[derive(Default)]
pub struct Seen {
    /// Headers and bodies, in their order.
    pub requests: Mutex<Vec<(HeaderMap, Value)>>,
    /// Streams that nobody reads any more.
    pub left: AtomicUsize,
    /// Events that were made.
    pub events: AtomicUsize,
    pub health: AtomicUsize,
    /// While it is not 0 every request fails with it.
    pub failing: AtomicUsize,
}

/// Stops when it is dropped.
pub struct Stub {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    _runtime: tokio::runtime::Runtime,
}

impl Stub {
    pub fn start() -> Stub {
        Stub::start_behind(None)
    }

    /// An engine that speaks TLS.
    pub fn start_tls(config: rustls::ServerConfig) -> Stub {
        Stub::start_behind(Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn start_behind(acceptor: Option<TlsAcceptor>) -> Stub {
        let seen = Arc::new(Seen::default());
        let router = Router::new()
            .route("/health", get(health))
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(answer))
            .route("/v1/completions", post(answer))
            .route("/v1/embeddings", post(embed))
            .with_state(seen.clone());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (bound, listening) = mpsc::channel();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            bound.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    // Clients that leave are part of the tests.
                    let _ = match acceptor {
                        None => http.serve_connection(TokioIo::new(stream), service).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => http.serve_connection(TokioIo::new(stream), service).await,
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        Stub { address: listening.recv().unwrap(), seen, _runtime: runtime }
    }

    pub fn last_request(&self) -> (HeaderMap, Value) {
        self.seen.requests.lock().unwrap().last().cloned().unwrap()
    }

    pub fn requests(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }
}

async fn health(State(seen): State<Arc<Seen>>) -> StatusCode {
    seen.health.fetch_add(1, Ordering::SeqCst);
    failing(&seen).unwrap_or(StatusCode::OK)
}

/// Who shows a wrong key is refused.
async fn models(headers: HeaderMap) -> Response {
    if headers.get("authorization").is_some_and(|key| key == "Bearer wrong") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    axum::Json(json!({"object": "list", "data": [{"id": "their/model"}]})).into_response()
}

fn failing(seen: &Seen) -> Option<StatusCode> {
    match seen.failing.load(Ordering::SeqCst) {
        0 => None,
        status => StatusCode::from_u16(status as u16).ok(),
    }
}

async fn embed(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let count = body["input"].as_array().map_or(1, Vec::len);
    seen.requests.lock().unwrap().push((headers, body));
    let data: Vec<Value> = (0..count).map(|index| json!({"index": index, "embedding": [0.6, 0.8]})).collect();
    axum::Json(json!({"data": data, "usage": {"prompt_tokens": 5, "total_tokens": 5}})).into_response()
}

/// What is asked for stands in the last message, or in the prompt.
async fn answer(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap();
    let is_chat = body.get("messages").is_some();
    let last = body["messages"].as_array().and_then(|messages| messages.last());
    let wish = last.map_or(&body["prompt"], |message| &message["content"]);
    let wish = wish.as_str().unwrap_or_default().to_string();
    let is_stream = body["stream"] == true;
    seen.requests.lock().unwrap().push((headers, body));
    if let Some(status) = failing(&seen) {
        return status.into_response();
    }
    match wish.as_str() {
        "hang" => tokio::time::sleep(FOR_EVER).await,
        "429" => return (StatusCode::TOO_MANY_REQUESTS, "slow down").into_response(),
        "500" => return (StatusCode::INTERNAL_SERVER_ERROR, "secret trace").into_response(),
        "400" => {
            let error = json!({"error": {"message": "temperature is too hot", "secret": "header"}});
            return (StatusCode::BAD_REQUEST, axum::Json(error)).into_response();
        }
        "redirect" => {
            return (StatusCode::TEMPORARY_REDIRECT, [("location", "http://127.0.0.1:1/")]).into_response();
        }
        "no json" if !is_stream => return "<html>".into_response(),
        "huge" if !is_stream => return Body::from(vec![b' '; 3 << 20]).into_response(),
        _ => (),
    }
    let text = wish.strip_prefix("say ").unwrap_or("one two three").to_string();
    let usage = match wish.as_str() {
        "absurd usage" => json!({"prompt_tokens": u64::MAX, "completion_tokens": u64::MAX}),
        "half absurd usage" => json!({"prompt_tokens": 7, "completion_tokens": -3}),
        _ => json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}),
    };
    if !is_stream {
        let choice = match is_chat {
            true => {
                json!({"index": 0, "message": {"role": "assistant", "content": text, "secret": 1}, "finish_reason": "stop"})
            }
            false => json!({"index": 0, "text": text, "finish_reason": "length", "secret": 1}),
        };
        let mut answer = json!({"id": "theirs", "model": "their/model", "choices": [choice], "secret": 1});
        if wish != "no usage" {
            answer["usage"] = usage;
        }
        return ([("x-secret", "1"), ("set-cookie", "a=b")], axum::Json(answer)).into_response();
    }
    let part = move |text: &str, reason: Value| {
        let choice = match is_chat {
            true => json!({"index": 0, "delta": {"content": text}, "finish_reason": reason}),
            false => json!({"index": 0, "text": text, "finish_reason": reason}),
        };
        format!("data: {}\n\n", json!({"id": "theirs", "model": "their/model", "choices": [choice]}))
    };
    let mut events: Vec<String> = text.split_inclusive(' ').map(|word| part(word, Value::Null)).collect();
    match wish.as_str() {
        "cut" => (),
        "garbage" => events.push("data: {\"choices\": [\n\n".to_string()),
        "error" => events.push("data: {\"error\": {\"message\": \"secret trace\"}}\n\n".to_string()),
        "huge" => events.push(format!("data: {}\n\n", "x".repeat(3 << 20))),
        "endless" | "flood" | "stall" => (),
        _ => {
            events.push(part("", json!("stop")));
            if wish != "no usage" {
                events.push(format!("data: {}\n\n", json!({"choices": [], "usage": usage})));
            }
            events.push("data: [DONE]\n\n".to_string());
        }
    }
    let watched = Watched { seen, done: false };
    let state = (events.into_iter(), watched, wish, part);
    let stream = unfold(state, |(mut events, mut watched, wish, part)| async move {
        let next = match events.next() {
            Some(event) => Some(event),
            None if wish == "endless" => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Some(part("and on ", Value::Null))
            }
            None if wish == "flood" => Some(part(&"x".repeat(64 << 10), Value::Null)),
            None if wish == "stall" => {
                tokio::time::sleep(FOR_EVER).await;
                None
            }
            None => None,
        };
        watched.done = next.is_none();
        watched.seen.events.fetch_add(usize::from(next.is_some()), Ordering::SeqCst);
        let next = next?;
        Some((Ok::<Bytes, Infallible>(next.into()), (events, watched, wish, part)))
    });
    ([("content-type", "text/event-stream"), ("x-secret", "1")], Body::from_stream(stream)).into_response()
}

/// Notices that its stream is dropped before its end.
struct Watched {
    seen: Arc<Seen>,
    done: bool,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.seen.left.fetch_add(usize::from(!self.done), Ordering::SeqCst);
    }
}
