//! What `tools/bench/compare_gateway.py` measures gateways with: an engine that computes nothing, and a client that loads
//! whatever stands before it.
//!
//! `stub_engine gateway SETTINGS` is this crate's server without an engine of its own; it prints its address and a key.
//!
//! `stub_engine serve PORT` answers chat completions at once, or as streams of 32 events, 20 ms apart, each of which holds
//! the time at which it was sent. `stub_engine requests ADDRESS KEY MODEL CONNECTIONS SECONDS` sends small requests and
//! `stub_engine streams ADDRESS KEY MODEL CONNECTIONS ROUNDS` opens streams; both print one line of JSON.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::unfold;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

const EVENTS: usize = 32;
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["gateway", settings] = arguments.as_slice() {
        return gateway(std::path::Path::new(settings));
    }
    let threads = std::env::var("STUB_THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.expect("a runtime");
    match arguments.as_slice() {
        ["serve", port] => runtime.block_on(serve(port.parse().expect("a port"))),
        ["requests", address, key, model, connections, seconds] => {
            let target = Target::new(address, key, model);
            let seconds = Duration::from_secs_f64(seconds.parse().expect("seconds"));
            runtime.block_on(requests(target, connections.parse().expect("a number"), seconds));
        }
        ["streams", address, key, model, connections, rounds] => {
            let target = Target::new(address, key, model);
            runtime.block_on(streams(
                target,
                connections.parse().expect("a number"),
                rounds.parse().expect("a number"),
            ));
        }
        _ => {
            eprintln!(
                "stub_engine serve PORT | requests ADDRESS KEY MODEL CONNECTIONS SECONDS | streams ADDRESS KEY MODEL CONNECTIONS ROUNDS"
            );
            std::process::exit(2);
        }
    }
}

/// The server over the upstreams of its settings, until it is killed.
fn gateway(settings: &std::path::Path) {
    let settings = serving::ServeSettings::from_file(settings).expect("settings");
    let keys = serving::KeyStore::open(&settings.state).expect("a state folder");
    let made = keys.new_key("bench", "bench", serving::Role::User, None, 0).expect("a key");
    let context = provenance::Context::quiet(2);
    let bound = |address| println!("{}", json!({"address": address, "key": made.key}));
    serving::serve(&settings, Vec::new(), &context, bound).expect("a server");
}

fn microseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

async fn serve(port: u16) {
    let router = Router::new()
        .route("/health", get(|| async { "ok" }))
        .route("/v1/models", get(|| async { Json(json!({"object": "list", "data": [{"id": "stub"}]})) }))
        .route("/v1/chat/completions", post(chat));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("a free port");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn chat(body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    if request["stream"] != true {
        let message = json!({"role": "assistant", "content": "Dobrý deň"});
        let usage = json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13});
        return Json(json!({
            "id": "stub-1", "object": "chat.completion", "created": 1, "model": "stub", "usage": usage,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": null}],
        }))
        .into_response();
    }
    let stream = unfold(0, |number| async move {
        if number > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let event = |delta: Value, reason: Value| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
            let chunk = json!({
                "id": "stub-1", "object": "chat.completion.chunk", "created": 1, "model": "stub", "choices": [choice],
            });
            format!("data: {chunk}\n\n")
        };
        let text = match number {
            EVENTS => {
                let usage =
                    json!({"prompt_tokens": 9, "completion_tokens": EVENTS, "total_tokens": 9 + EVENTS});
                let end = json!({"id": "stub-1", "object": "chat.completion.chunk", "created": 1, "model": "stub",
                                 "choices": [], "usage": usage});
                format!("{}data: {end}\n\ndata: [DONE]\n\n", event(json!({}), json!("stop")))
            }
            number if number > EVENTS => return None,
            _ => event(json!({"role": "assistant", "content": format!("{} ", microseconds())}), Value::Null),
        };
        Some((Ok::<Bytes, std::convert::Infallible>(text.into()), number + 1))
    });
    let mut response = Body::from_stream(stream).into_response();
    let kind = axum::http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(axum::http::header::CONTENT_TYPE, kind);
    response
}

#[derive(Clone)]
struct Target {
    address: SocketAddr,
    key: String,
    model: String,
}

impl Target {
    fn new(address: &str, key: &str, model: &str) -> Target {
        Target {
            address: address.parse().expect("ADDRESS:PORT"),
            key: key.to_string(),
            model: model.to_string(),
        }
    }

    async fn connect(&self) -> SendRequest<Body> {
        let stream = tokio::net::TcpStream::connect(self.address).await.expect("a connection");
        let _ = stream.set_nodelay(true);
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        sender
    }

    fn request(&self, is_stream: bool) -> hyper::Request<Body> {
        let message = json!({"role": "user", "content": "Ahoj, ako sa máš?"});
        let body = json!({"model": self.model, "messages": [message], "stream": is_stream, "max_tokens": 64});
        hyper::Request::post("/v1/chat/completions")
            .header("host", self.address.to_string())
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .expect("a request")
    }
}

async fn read_all(response: hyper::Response<hyper::body::Incoming>) -> Bytes {
    axum::body::to_bytes(Body::new(response.into_body()), 1 << 24).await.expect("a body")
}

/// Small requests, one after the other on each connection.
async fn requests(target: Target, connections: usize, length: Duration) {
    let started = Instant::now();
    let clients: Vec<_> = (0..connections)
        .map(|_| {
            let target = target.clone();
            tokio::spawn(async move {
                let (mut latencies, mut failed, mut sender) = (Vec::new(), 0, target.connect().await);
                while started.elapsed() < length {
                    let begun = Instant::now();
                    if sender.ready().await.is_err() {
                        sender = target.connect().await;
                        continue;
                    }
                    match sender.send_request(target.request(false)).await {
                        Ok(response) if response.status().is_success() => {
                            read_all(response).await;
                            latencies.push(begun.elapsed().as_micros() as u64);
                        }
                        Ok(response) => {
                            failed += 1;
                            read_all(response).await;
                        }
                        Err(_) => failed += 1,
                    }
                }
                (latencies, failed)
            })
        })
        .collect();
    let (mut latencies, mut failed) = (Vec::new(), 0);
    for client in clients {
        let (some, errors) = client.await.expect("a client");
        latencies.extend(some);
        failed += errors;
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = latencies.len() as f64 / seconds;
    println!(
        "{}",
        json!({"requests_per_second": rate, "failed": failed, "latency_us": quantiles(latencies)})
    );
}

/// Streams, all at once: how long each event was on its way, and how long the first took to come.
async fn streams(target: Target, connections: usize, rounds: usize) {
    let (mut delays, mut firsts, mut failed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        let clients: Vec<_> = (0..connections)
            .map(|number| {
                let target = target.clone();
                tokio::spawn(async move {
                    // Not all at the same moment, as users are not.
                    tokio::time::sleep(Duration::from_micros(number as u64 * 613)).await;
                    let mut sender = target.connect().await;
                    let begun = Instant::now();
                    let response = sender.send_request(target.request(true)).await.ok()?;
                    if !response.status().is_success() {
                        return None;
                    }
                    let (mut delays, mut first, mut buffer) = (Vec::new(), None, String::new());
                    let mut body = response.into_body();
                    loop {
                        let mut pinned = std::pin::Pin::new(&mut body);
                        let frame =
                            std::future::poll_fn(|cx| hyper::body::Body::poll_frame(pinned.as_mut(), cx))
                                .await;
                        let Some(Ok(frame)) = frame else { break };
                        let now = microseconds();
                        let Ok(bytes) = frame.into_data() else { continue };
                        buffer.push_str(&String::from_utf8_lossy(&bytes));
                        while let Some(end) = buffer.find("\n\n") {
                            let event: String = buffer.drain(..end + 2).collect();
                            let Some(data) = event.trim().strip_prefix("data: ") else { continue };
                            let event: Value = serde_json::from_str(data).unwrap_or_default();
                            let text = event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
                            for sent in text.split_whitespace().filter_map(|sent| sent.parse::<u64>().ok()) {
                                first.get_or_insert(begun.elapsed().as_micros() as u64);
                                delays.push(now.saturating_sub(sent));
                            }
                        }
                    }
                    Some((delays, first?))
                })
            })
            .collect();
        for client in clients {
            match client.await.expect("a client") {
                Some((some, first)) => {
                    failed += usize::from(some.len() < EVENTS);
                    delays.extend(some);
                    firsts.push(first);
                }
                None => failed += 1,
            }
        }
    }
    println!(
        "{}",
        json!({"failed": failed, "event_delay_us": quantiles(delays), "first_event_us": quantiles(firsts)})
    );
}

fn quantiles(mut values: Vec<u64>) -> Value {
    values.sort_unstable();
    let at = |share: f64| values.get(((values.len() as f64 - 1.0) * share).round() as usize).copied();
    json!({"count": values.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": values.last()})
}
