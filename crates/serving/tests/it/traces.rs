//! Spans of requests, as a collector on loopback gets them from a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use serde_json::{Value, json};
use serving::TracesSettings;

use crate::client::{Options, PATIENCE, TestServer};

#[test]
fn a_request_leaves_a_span_with_figures_and_without_text() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (sender, bodies) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
            if sender.send(String::from_utf8(body).unwrap()).is_err() {
                return;
            }
        }
    });
    let mut options = Options::default();
    options.settings.traces = Some(TracesSettings::new(&endpoint));
    let server = TestServer::start(options);
    let body = json!({"model": "toy", "prompt": "geheim", "max_tokens": 4, "temperature": 0, "stream": true});
    let headers = format!(
        "Authorization: Bearer {}\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        server.key
    );
    let answer = server.ask_with("POST", "/v1/completions", &headers, &body.to_string());
    let id = answer.check_ok().header("x-request-id").unwrap().to_string();
    let sent = bodies.recv_timeout(PATIENCE).unwrap();
    assert!(
        !sent.contains("geheim") && !sent.contains(&server.key) && !sent.contains(&server.key_id),
        "{sent}"
    );
    let sent: Value = serde_json::from_str(&sent).unwrap();
    let span = &sent["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span["parentSpanId"], "00f067aa0ba902b7");
    let attribute = |key: &str| {
        let attributes = span["attributes"].as_array().unwrap();
        let found = attributes.iter().find(|attribute| attribute["key"] == key);
        found.unwrap_or_else(|| panic!("no {key}: {span}"))["value"].clone()
    };
    assert_eq!(attribute("eulalia.request_id")["stringValue"], id);
    assert_eq!(attribute("gen_ai.request.model")["stringValue"], "toy");
    assert_eq!(attribute("gen_ai.usage.input_tokens")["intValue"], "6");
    assert_eq!(attribute("gen_ai.usage.output_tokens")["intValue"], "4");
    let queued = attribute("eulalia.queue_seconds")["doubleValue"].as_f64().unwrap();
    let first = attribute("eulalia.time_to_first_token_seconds")["doubleValue"].as_f64().unwrap();
    assert!(queued >= 0.0 && first > queued, "{queued} {first}");
    server.wait_until("the span is counted", |server| {
        let metrics = server.ask("GET", "/metrics", "").body;
        metrics.contains("eulalia_trace_spans_total{outcome=\"exported\"} ")
            && !metrics.contains("\"exported\"} 0")
    });
}
