//! Spans against a collector that writes down what it is sent, one that is away, and one that never answers.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use axum::http::StatusCode;
use inference::EngineSettings;
use inference::testing::alphabet_engine;
use provenance::Context;
use serde_json::{Value, json};

use super::*;
use crate::api::models::ServedModel;
use crate::identity::Role;
use crate::keys::KeyStore;
use crate::server::serve;
use crate::settings::ServeSettings;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The heads and bodies that a collector on loopback gets, and its address.
fn collector() -> (String, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while reader.read_line(&mut head).unwrap() > 2 {
                let line = head.lines().last().unwrap_or_default().to_lowercase();
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
            if sender.send((head, serde_json::from_slice(&body).unwrap())).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

fn tracer(endpoint: &str, queue: usize) -> Arc<Tracer> {
    let settings = TracesSettings { queue, ..TracesSettings::new(endpoint) };
    Arc::new(Tracer::open(Some(&settings), Clock::fixed(7)).unwrap())
}

/// Has a request end in the given way.
fn request(tracer: &Arc<Tracer>, parent: Option<TraceParent>, status: u16) -> RequestTrace {
    let trace = tracer.begin(parent);
    if let Some(span) = &trace.span {
        span.end(&SpanEnd {
            id: "abc",
            route: "POST /v1/completions",
            status: StatusCode::from_u16(status).unwrap(),
            outcome: "ok",
            model: "toy",
            prompt_tokens: 3,
            completion_tokens: 4,
            queued: Some(Duration::from_millis(250)),
            first_token: None,
        });
    }
    trace
}

/// Sends what waits.
fn export(tracer: &Arc<Tracer>) -> SpanCounts {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (stop, stopping) = watch::channel(true);
    runtime.block_on(tracer.clone().export(stopping));
    drop(stop);
    tracer.counts().unwrap()
}

#[test]
fn a_collector_gets_a_span_for_each_request() {
    let (endpoint, requests) = collector();
    let tracer = tracer(&endpoint, 10);
    let parent = TraceParent { trace: TRACE.into(), span: "00f067aa0ba902b7".into(), is_sampled: true };
    let first = request(&tracer, Some(parent.clone()), 200);
    let outgoing = first.outgoing().unwrap().to_str().unwrap().to_string();
    assert!(outgoing.starts_with(&format!("00-{TRACE}-")) && !outgoing.contains(&parent.span), "{outgoing}");
    let second = request(&tracer, None, 503);
    assert_ne!(second.id(), first.id());
    let unrecorded = TraceParent { is_sampled: false, ..parent.clone() };
    let third = request(&tracer, Some(unrecorded), 200);
    assert!(
        third.span.is_none() && third.outgoing().unwrap().to_str().unwrap().ends_with("00f067aa0ba902b7-00")
    );
    assert_eq!(export(&tracer), SpanCounts { exported: 2, ..SpanCounts::default() });

    let (head, body) = requests.recv().unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1") && head.contains("application/json"), "{head}");
    let resource = &body["resourceSpans"][0];
    assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "eulalia");
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
    let attribute = |span: &Value, key: &str| {
        let attributes = span["attributes"].as_array().unwrap();
        attributes.iter().find(|attribute| attribute["key"] == key).map(|found| found["value"].clone())
    };
    let span = &spans[0];
    assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE.into(), &parent.span.into()));
    assert_eq!(span["spanId"].as_str().unwrap(), outgoing.split('-').nth(2).unwrap());
    assert_eq!((&span["name"], &span["kind"]), (&"POST /v1/completions".into(), &2.into()));
    assert_eq!(span["startTimeUnixNano"], "7000000000");
    assert!(
        span.get("status").is_none()
            && spans[1]["status"]["code"] == 2
            && spans[1].get("parentSpanId").is_none()
    );
    assert_eq!(attribute(span, "http.route").unwrap()["stringValue"], "/v1/completions");
    assert_eq!(attribute(span, "http.response.status_code").unwrap()["intValue"], "200");
    assert_eq!(attribute(span, "gen_ai.usage.output_tokens").unwrap()["intValue"], "4");
    assert_eq!(attribute(span, "eulalia.queue_seconds").unwrap()["doubleValue"], 0.25);
    assert_eq!(attribute(span, "eulalia.time_to_first_token_seconds"), None);
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tracer = tracer(&format!("http://{nobody}/v1/traces"), 3);
    for _ in 0..10 {
        request(&tracer, None, 200);
    }
    assert_eq!(export(&tracer), SpanCounts { exported: 0, dropped: 7, failed: 3 });
}

#[test]
fn without_settings_nothing_is_recorded_and_a_wrong_collector_is_named() {
    let tracer = Arc::new(Tracer::open(None, Clock::fixed(7)).unwrap());
    assert!(tracer.begin(None).span.is_none() && tracer.counts().is_none());
    for endpoint in ["collector:4318", "http://collector.example/v1/traces"] {
        let error = Tracer::open(Some(&TracesSettings::new(endpoint)), Clock::fixed(7)).err().unwrap();
        assert!(error.to_string().contains("traces.endpoint"), "{error}");
    }
}

/// What a request's own attributes say, by name.
fn attributes(span: &Value) -> BTreeMap<String, Value> {
    let entry = |attribute: &Value| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap();
        (attribute["key"].as_str().unwrap().to_string(), value.clone())
    };
    span["attributes"].as_array().unwrap().iter().map(entry).collect()
}

/// A whole server: spans arrive at the collector without being asked for, with figures and without text.
#[test]
fn a_request_to_a_server_leaves_a_span_with_figures_and_without_text() {
    let (endpoint, requests) = collector();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let key = KeyStore::open(&state).unwrap().new_key("Amt", "geheim", Role::User, None, 0).unwrap();
    let settings = ServeSettings {
        address: "127.0.0.1:0".parse().unwrap(),
        state,
        traces: Some(TracesSettings::new(&endpoint)),
        ..ServeSettings::default()
    };
    let model = ServedModel {
        name: "toy".into(),
        engine: Arc::new(alphabet_engine(64, Duration::ZERO, &EngineSettings::default())),
        adapter: None,
        digest: "ab".repeat(32),
        created: 7,
    };
    let context = Context::quiet(2);
    let stop = context.cancellation.clone();
    let (bound, listening) = mpsc::channel();
    let server =
        std::thread::spawn(move || serve(&settings, vec![model], &context, |at| bound.send(at).unwrap()));
    let mut stream = TcpStream::connect(listening.recv().unwrap()).unwrap();
    let body = json!({"model": "toy", "prompt": "geheim", "max_tokens": 4, "temperature": 0, "stream": true});
    let body = body.to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\nContent-Length: {}\r\n\r\n",
        key.key,
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("[DONE]"), "{answer}");
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();

    // The server still runs: nobody asked it to send.
    let (_, sent) = requests.recv().unwrap();
    let text = sent.to_string();
    let secrets = ["geheim", "Amt", key.key.as_str(), key.id.as_str()];
    assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
    let span = &sent["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!((&span["traceId"], &span["parentSpanId"]), (&TRACE.into(), &"00f067aa0ba902b7".into()));
    let found = attributes(span);
    for (name, value) in [
        ("eulalia.request_id", id),
        ("gen_ai.request.model", "toy"),
        ("gen_ai.usage.input_tokens", "6"),
        ("gen_ai.usage.output_tokens", "4"),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
    let queued = found["eulalia.queue_seconds"].as_f64().unwrap();
    let first = found["eulalia.time_to_first_token_seconds"].as_f64().unwrap();
    assert!(queued >= 0.0 && first > queued, "{queued} {first}");
    stop.cancel();
    assert_eq!(server.join().unwrap().unwrap().requests, 1);
}
