//! What is too much, too slow or too late, and how work ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use inference::EngineSettings;
use serde_json::{Value, json};

use crate::client::{Answer, Options, PATIENCE, TestServer, request_text};

/// A step of the toy long enough for a client to act in the middle of an answer of 20 tokens.
const SLOW: Duration = Duration::from_millis(20);

fn long_completion() -> Value {
    json!({"model": "toy", "prompt": "a", "temperature": 0, "max_tokens": 25})
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = json!(true);
    body
}

fn is_idle(server: &TestServer) -> bool {
    let load = server.engine.load();
    load.running + load.waiting == 0
}

#[test]
fn a_client_that_leaves_stops_its_work() {
    let mut server = TestServer::start(Options { step: SLOW * 50, ..Options::default() });
    for body in [long_completion(), streamed(long_completion())] {
        let before = server.engine.load().figures.steps;
        let stream = server.begin("/v1/completions", body);
        server.wait_until("the request runs", |server| server.engine.load().running == 1);
        drop(stream);
        server.wait_until("the work ends", is_idle);
        // One step for the prompt, one for each further token.
        let steps = server.engine.load().figures.steps - before;
        assert!(steps < 25, "it ended because the client left, not because it was finished: {steps} steps");
    }
    server.stop();
    let outcomes: Vec<_> = server.audit().into_iter().filter(|event| event["event"] == "request").collect();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|event| event["outcome"] == "abandoned"), "{outcomes:?}");
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let engine = EngineSettings { running_requests: 1, queued_requests: 1, ..EngineSettings::default() };
    let server = TestServer::start(Options { step: SLOW, engine, ..Options::default() });
    let first = server.begin("/v1/completions", streamed(long_completion()));
    server.wait_until("the first runs", |server| server.engine.load().running == 1);
    let second = server.begin("/v1/completions", streamed(long_completion()));
    server.wait_until("the second waits", |server| server.engine.load().waiting == 1);
    let refused = server.post("/v1/completions", streamed(long_completion()));
    refused.check(429, None);
    assert_eq!(refused.header("retry-after"), Some("2"));
    for stream in [first, second] {
        assert_eq!(Answer::read(stream).events().last(), Some(&"[DONE]"));
    }
}

#[test]
fn a_request_that_takes_too_long_ends() {
    // The first token comes in a small part of the time, all of them in more than twice as much.
    let mut options = Options { step: SLOW * 10, ..Options::default() };
    options.settings.request_seconds = 2;
    let server = TestServer::start(options);
    server.post("/v1/completions", long_completion()).check(504, None);
    let answer = server.post("/v1/completions", streamed(long_completion()));
    let last: Value = serde_json::from_str(answer.events().last().unwrap()).unwrap();
    assert_eq!((answer.status, &last["error"]["code"]), (200, &json!("time_limit")));
}

#[test]
fn a_body_beyond_the_limit_is_not_read() {
    let mut options = Options::default();
    options.settings.body_limit_bytes = 2_000;
    let server = TestServer::start(options);
    let body = json!({"model": "toy", "prompt": "a".repeat(3_000)}).to_string();
    server.ask("POST", "/v1/completions", &body).check(413, None);
    let headers = format!("Authorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n", server.key);
    let mut stream = server.connect();
    let head = format!("POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..3 {
        stream.write_all(format!("3e8\r\n{}\r\n", "a".repeat(1_000)).as_bytes()).unwrap();
    }
    Answer::read(stream).check(413, None);
}

#[test]
fn who_sends_too_much_in_one_go_reads_why_it_was_refused() {
    let server = TestServer::start(Options::default());
    let body = "a".repeat(20 << 20);
    let right = format!("Authorization: Bearer {}\r\n", server.key);
    let long = format!("Content-Length: {}\r\n", body.len());
    let chunked = "Transfer-Encoding: chunked\r\n".to_string();
    for (what, key, length, status) in [
        ("too long", right.as_str(), &long, 413),
        ("too long, in chunks", right.as_str(), &chunked, 413),
        ("without a key", "", &long, 401),
        ("with a wrong key", "Authorization: Bearer eu-wrong\r\n", &chunked, 401),
    ] {
        let mut stream = server.connect();
        let head = format!("POST /v1/completions HTTP/1.1\r\nHost: a\r\n{key}{length}\r\n");
        let text = match length.contains("chunked") {
            true => format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
            false => format!("{head}{body}"),
        };
        stream.write_all(text.as_bytes()).unwrap_or_else(|error| panic!("{what}: {error}"));
        let answer = Answer::read(stream);
        assert_eq!(answer.check(status, None).header("connection"), Some("close"), "{what}");
    }
    // Who waits to be told to send is told no, and sends nothing.
    let mut stream = server.connect();
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{right}{long}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    Answer::read(stream).check(413, None);
    // A refusal of a small body leaves its connection as it is.
    let mut stream = server.connect();
    let request = request_text("POST", "/v1/completions", "", "{}").replace("Connection: close\r\n", "");
    for _ in 0..2 {
        stream.write_all(request.as_bytes()).unwrap();
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).unwrap();
        let answer = String::from_utf8_lossy(&piece[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("connection: close"), "{answer}");
    }
}

#[test]
fn a_full_server_takes_its_places_back_after_each_answer() {
    let mut options = Options::default();
    options.settings.maximum_connections = 2;
    let server = TestServer::start(options);
    let first = server.connect();
    let request = request_text("GET", "/healthz", "", "").replace("Connection: close\r\n", "");
    let ask = |mut stream: &TcpStream| {
        stream.write_all(request.as_bytes()).unwrap();
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).unwrap();
        String::from_utf8_lossy(&piece[..length]).contains("connection: close")
    };
    assert!(!ask(&first), "one of two places is no crowd");
    let second = server.connect();
    server.wait_until("the crowd is noticed", |_| ask(&second));
    assert_eq!(server.ask("GET", "/healthz", "").status, 200, "the place is free");
}

#[test]
fn slow_clients_are_cut() {
    let mut options = Options::default();
    (options.settings.header_seconds, options.settings.body_seconds) = (1, 1);
    let server = TestServer::start(options);
    let closed_after = |beginning: &str| {
        let mut stream = server.connect();
        let started = Instant::now();
        stream.write_all(beginning.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        // Nobody else would have closed it so soon: the default is ten seconds, and thirty for a body.
        assert!(started.elapsed() < Duration::from_secs(10), "{beginning:?} was waited for");
        answer
    };
    closed_after("");
    closed_after("GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    let head =
        request_text("POST", "/v1/completions", &format!("Authorization: Bearer {}\r\n", server.key), "");
    let late = closed_after(&head.replace("Content-Length: 0", "Content-Length: 100"));
    assert!(late.starts_with("HTTP/1.1 408"), "{late}");
    // An idle connection is closed too.
    let idle = closed_after("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(idle.starts_with("HTTP/1.1 200"), "{idle}");
}

#[test]
fn floods_of_headers_are_refused() {
    let server = TestServer::start(Options::default());
    let many: String = (0..200).map(|number| format!("X-{number}: a\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "a".repeat(64 << 10));
    for headers in [many, long] {
        let mut stream = server.connect();
        // The server may close before it has read everything.
        let _ = stream.write_all(request_text("GET", "/healthz", &headers, "").as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(server.ask("GET", "/healthz", "").status, 200);
}

#[test]
fn connections_beyond_the_limit_wait() {
    let mut options = Options::default();
    options.settings.maximum_connections = 1;
    let server = TestServer::start(options);
    let first = server.connect();
    let mut second = server.connect();
    second.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    second.write_all(request_text("GET", "/healthz", "", "").as_bytes()).unwrap();
    assert!(second.read(&mut [0; 1]).is_err(), "nobody answers while the place is taken");
    drop(first);
    second.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(Answer::read(second).status, 200);
}

#[test]
fn a_stopping_server_finishes_what_it_began() {
    let mut server = TestServer::start(Options { step: SLOW, ..Options::default() });
    let stream = server.begin("/v1/completions", streamed(long_completion()));
    server.wait_until("the request runs", |server| server.engine.load().running == 1);
    server.ask_to_stop();
    let answer = Answer::read(stream);
    assert_eq!(answer.events().last(), Some(&"[DONE]"));
    assert_eq!(server.stop().requests, 1);
    assert!(TcpStream::connect(server.address).is_err(), "nobody listens any more");
}

#[test]
fn a_stopping_server_does_not_wait_for_ever() {
    // The whole answer takes longer than any patience.
    let mut options = Options { step: SLOW * 150, ..Options::default() };
    options.settings.drain_seconds = 1;
    let mut server = TestServer::start(options);
    let stream = server.begin("/v1/completions", long_completion());
    server.wait_until("the request runs", |server| server.engine.load().running == 1);
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < PATIENCE);
    let outcome = server.audit().into_iter().find(|event| event["event"] == "request").unwrap();
    assert_eq!(outcome["outcome"], "abandoned");
    drop(stream);
}
