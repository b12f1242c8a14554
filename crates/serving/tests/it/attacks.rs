//! What hostile clients send: smuggled requests, odd paths, floods, drips. The server refuses, closes, and goes on.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use provenance::Context;
use serde_json::json;
use serving::{ServeSettings, ServedModel, ServingError, serve};

use crate::client::{Answer, Options, PATIENCE, TestServer, request_text};

/// Sends bytes as they are and returns all that comes back until the server closes, or says nothing for a second: of
/// nonsense it may wait for the rest.
fn raw(server: &TestServer, bytes: &[u8]) -> String {
    raw_within(server, bytes, Duration::from_secs(1))
}

/// The same for requests after which the server closes.
fn closed(server: &TestServer, bytes: &[u8]) -> String {
    raw_within(server, bytes, PATIENCE)
}

fn raw_within(server: &TestServer, bytes: &[u8], silence: Duration) -> String {
    let mut stream = server.connect();
    stream.set_read_timeout(Some(silence)).unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes);
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length) = stream.read(&mut piece) {
        if length == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..length]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answers: &str) -> Vec<&str> {
    answers.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

fn is_alive(server: &TestServer) {
    assert_eq!(server.ask("GET", "/readyz", "").json()["status"], "ready");
}

#[test]
fn a_request_has_one_end() {
    let server = TestServer::start(Options::default());
    let key = &server.key;
    // What follows the first request must never be answered as a request of its own with the first one's rights, and two
    // servers must not disagree on where it begins.
    let smuggled = "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n";
    let body = r#"{"model":"toy","prompt":"a"}"#;
    let framings = [
        // Two lengths.
        format!("Content-Length: {}\r\nContent-Length: {}\r\n", body.len(), body.len() + smuggled.len()),
        format!("Content-Length: {}, {}\r\n", body.len(), body.len() + 1),
        "Content-Length: +5\r\n".to_string(),
        "Content-Length: -1\r\n".to_string(),
        "Content-Length: 0x1c\r\n".to_string(),
        "Content-Length: 99999999999999999999999\r\n".to_string(),
        // A coding that is not chunked at the end.
        "Transfer-Encoding: chunked, identity\r\n".to_string(),
        "Transfer-Encoding: gzip\r\n".to_string(),
        "Transfer-Encoding: xchunked\r\n".to_string(),
        // Names that are not names.
        "Content-Length : 3\r\n".to_string(),
        "Content Length: 3\r\n".to_string(),
    ];
    for framing in framings {
        let request = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n{framing}\r\n{body}{smuggled}"
        );
        let answers = raw(&server, request.as_bytes());
        assert!(
            statuses(&answers).iter().all(|status| *status == "400" || *status == "501"),
            "{framing:?} got {answers}"
        );
        assert!(statuses(&answers).len() <= 1, "{framing:?} got {answers}");
    }
    // Both framings at once: chunked counts (RFC 9112, 6.3), and the connection ends after it.
    let both = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 6\r\n\
         Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
    );
    let answers = raw(&server, both.as_bytes());
    assert!(!answers.contains("toy-backwards"), "{answers}");
    assert!(statuses(&answers).iter().all(|status| *status == "400" || *status == "401"), "{answers}");
    // Broken chunks.
    for chunk in
        ["zz\r\na\r\n0\r\n\r\n", "1\r\nab\r\n0\r\n\r\n", "ffffffffffffffffff\r\na", "-1\r\na\r\n0\r\n\r\n"]
    {
        let request = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
        );
        let answers = raw(&server, request.as_bytes());
        assert!(
            !answers.contains("HTTP/1.1 200") && !answers.contains("HTTP/1.1 500"),
            "{chunk:?} {answers}"
        );
    }
    is_alive(&server);
}

#[test]
fn odd_targets_reach_nothing() {
    let server = TestServer::start(Options::default());
    let authorization = format!("Authorization: Bearer {}\r\n", server.key);
    let targets: [&[u8]; 22] = [
        b"/v1/models/..%2f..%2f..%2fetc%2fpasswd",
        b"/v1/models/..%5c..%5cetc",
        b"/v1/models/%2e%2e/%2e%2e/healthz",
        b"/v1/models/%00",
        b"/v1/models/toy%00.gguf",
        b"/v1/models/\0",
        b"/v1/models/toy\r\nX: y",
        b"/../../etc/passwd",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"//v1//models",
        b"/v1/models;a=b",
        b"/v1/models/%ff%fe",
        b"/v1/models/%",
        b"/v1/models/%zz",
        b"file:///etc/passwd",
        b"http://[::1",
        b"*",
        b"",
        b"\xff\xfe",
        b"/v1/models/\xf0\x9f\x98\x80",
        b"http://169.254.169.254/latest/meta-data/",
        b"localhost:22",
    ];
    for target in targets {
        for headers in [authorization.as_str(), ""] {
            let mut request = b"GET ".to_vec();
            request.extend_from_slice(target);
            request.extend_from_slice(
                format!(" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n").as_bytes(),
            );
            let answers = raw(&server, &request);
            let shown = String::from_utf8_lossy(target);
            assert!(
                statuses(&answers).iter().all(|status| ["400", "401", "404", "405"].contains(status)),
                "{shown:?} got {answers}"
            );
            assert!(!answers.contains("root:") && !answers.contains("/work"), "{shown:?} got {answers}");
        }
    }
    // An absolute form names this server's own route, and asks for a key like any other.
    let absolute = |headers: &str| {
        closed(&server, request_text("GET", "http://elsewhere.example/v1/models", headers, "").as_bytes())
    };
    assert_eq!(statuses(&absolute("")), ["401"]);
    assert_eq!(statuses(&absolute(&authorization)), ["200"]);
    for method in ["CONNECT", "TRACE", "PROPFIND", "get"] {
        let answers = raw(&server, request_text(method, "/v1/models", &authorization, "").as_bytes());
        assert!(
            statuses(&answers).iter().all(|status| ["400", "404", "405"].contains(status)),
            "{method} got {answers}"
        );
    }
    is_alive(&server);
}

#[test]
fn headers_that_can_be_read_in_two_ways_are_refused() {
    let server = TestServer::start(Options::default());
    let key = format!("Authorization: Bearer {}\r\n", server.key);
    let ask = |headers: &str| {
        let answers =
            raw(&server, format!("GET /v1/models HTTP/1.1\r\nConnection: close\r\n{headers}\r\n").as_bytes());
        let codes = ["malformed_headers", "\"object\":\"list\""];
        let code = codes.iter().position(|code| answers.contains(code));
        (statuses(&answers).join(" "), code)
    };
    for headers in [
        key.clone(),
        format!("Host: a\r\n{key}{key}"),
        format!("Host: a\r\n{key}Authorization: Basic eDp5\r\n"),
        format!("Host: a\r\nHost: b\r\n{key}"),
    ] {
        assert_eq!(ask(&headers), ("400".to_string(), Some(0)), "{headers:?}");
    }
    assert_eq!(ask(&format!("Host: a\r\n{key}")), ("200".to_string(), Some(1)));
    // Older clients name no host.
    let old = raw(&server, format!("GET /v1/models HTTP/1.0\r\n{key}\r\n").as_bytes());
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
    is_alive(&server);
}

#[test]
fn nonsense_on_the_line_is_refused() {
    let server = TestServer::start(Options::default());
    let long = "a".repeat(100_000);
    let lines: [&[u8]; 9] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\n\0: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for line in lines {
        let answers = raw(&server, line);
        let shown = String::from_utf8_lossy(line);
        assert!(
            statuses(&answers).iter().all(|status| *status == "400" || *status == "401"),
            "{shown:?} got {answers}"
        );
    }
    for head in [format!("GET /{long} HTTP/1.1\r\n\r\n"), format!("{long} / HTTP/1.1\r\n\r\n")] {
        let answers = raw(&server, head.as_bytes());
        assert!(statuses(&answers).iter().all(|status| ["400", "414", "431"].contains(status)), "{answers}");
    }
    is_alive(&server);
}

#[test]
fn many_connections_that_say_nothing_do_not_keep_others_out() {
    let mut options = Options::default();
    options.settings.header_seconds = 1;
    options.settings.maximum_connections = 40;
    options.settings.maximum_connections_per_address = 40;
    let server = TestServer::start(options);
    let held: Vec<_> = (0..80).map(|_| server.connect()).collect();
    let started = Instant::now();
    assert_eq!(server.ask_with("GET", "/healthz", "", "").status, 200);
    assert!(started.elapsed() < PATIENCE, "silent connections keep their places");
    drop(held);
    is_alive(&server);
}

#[test]
fn one_address_does_not_take_all_places() {
    let mut options = Options::default();
    options.settings.maximum_connections = 8;
    options.settings.maximum_connections_per_address = 2;
    let server = TestServer::start(options);
    let mut held: Vec<_> = (0..2).map(|_| server.connect()).collect();
    for stream in &mut held {
        // Both are there: a byte of each is read.
        stream.write_all(b"G").unwrap();
    }
    let mut beyond = server.connect();
    let mut answer = Vec::new();
    // Closed without a word, which may arrive as a reset.
    let _ = beyond.write_all(request_text("GET", "/healthz", "", "").as_bytes());
    let _ = beyond.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    drop(held);
    server.wait_until("the places are free again", |server| {
        let mut stream = server.connect();
        let mut answer = Vec::new();
        let _ = stream.write_all(request_text("GET", "/healthz", "", "").as_bytes());
        let _ = stream.read_to_end(&mut answer);
        answer.starts_with(b"HTTP/1.1 200")
    });
}

#[test]
fn a_body_that_drips_is_cut_although_it_moves() {
    let mut options = Options::default();
    options.settings.body_seconds = 1;
    let server = TestServer::start(options);
    let mut stream = server.connect();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Length: 1000\r\n\r\n",
        server.key
    );
    stream.write_all(head.as_bytes()).unwrap();
    let started = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut answer = [0; 12];
    loop {
        assert!(started.elapsed() < PATIENCE, "a body that drips keeps its place");
        if stream.write_all(b" ").is_err() || stream.read(&mut answer).is_ok_and(|length| length > 0) {
            break;
        }
    }
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 408") || answer == [0; 12], "{answer:?}");
    is_alive(&server);
}

#[test]
fn bombs_in_json_are_refused_before_the_engine() {
    let mut options = Options::default();
    options.settings.body_limit_bytes = 1 << 20;
    let server = TestServer::start(options);
    let deep = format!(r#"{{"model":"toy","prompt":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let deep_schema = format!(
        r#"{{"model":"toy","prompt":"a","response_format":{{"type":"json_schema","json_schema":{{"schema":{}{{}}{}}}}}}}"#,
        r#"{"items":"#.repeat(5_000),
        "}".repeat(5_000)
    );
    // A name twice: who stands before this server, or behind it, might read the other one.
    let twice = r#"{"model":"toy","model":"none","prompt":"a"}"#.to_string();
    let twice_as_escape = r#"{"model":"toy","prompt":"a","pr\u006fmpt":"b"}"#.to_string();
    let twice_within = r#"{"model":"toy","prompt":"a","logit_bias":{"1":1,"1":2}}"#.to_string();
    let bodies = [
        deep,
        deep_schema,
        twice,
        twice_as_escape,
        twice_within,
        r#"{"model":"toy","prompt":"a","temperature":1e999}"#.to_string(),
        r#"{"model":"toy","prompt":"a","temperature":NaN}"#.to_string(),
        r#"{"model":"toy","prompt":"a","top_p":-Infinity}"#.to_string(),
        r#"{"model":"toy","prompt":"a","seed":1e40}"#.to_string(),
        r#"{"model":"toy","prompt":"a","presence_penalty":1e308}"#.to_string(),
        r#"{"model":"toy","prompt":"a","top_k":18446744073709551616}"#.to_string(),
        r#"{"model":"toy","prompt":"a","max_tokens":-9223372036854775808}"#.to_string(),
        r#"{"model":"toy","prompt":[18446744073709551615]}"#.to_string(),
        r#"{"model":"toy","prompt":"a","logit_bias":{"4294967296":1}}"#.to_string(),
        // Names that only look alike are other names.
        json!({"model": "to\u{200b}y", "prompt": "a"}).to_string(),
        json!({"model": "ｔｏｙ", "prompt": "a"}).to_string(),
        json!({"model": "toу", "prompt": "a"}).to_string(),
        json!({"model": "TOY", "prompt": "a"}).to_string(),
        json!({"model": "toy", "prompt": "a", "n": 1_000_000_000_u64}).to_string(),
        json!({"model": "toy", "prompt": "a", "max_tokens": 1e300}).to_string(),
        json!({"model": "toy", "prompt": vec!["a"; 10_000]}).to_string(),
        json!({"model": "toy", "prompt": "a", "stop": vec!["b"; 10_000]}).to_string(),
        "\u{feff}{}".to_string(),
        "\0".repeat(1_000),
    ];
    for body in bodies {
        let answer = server.ask("POST", "/v1/completions", &body);
        let shown: String = body.chars().take(60).collect();
        assert!((400..500).contains(&answer.status), "{shown} got {} {}", answer.status, answer.body);
        assert!(answer.body.len() < 4_000, "an answer as long as the bomb: {}", answer.body.len());
    }
    is_alive(&server);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = TestServer::start(Options::default());
    let model = ServedModel {
        name: "toy".into(),
        engine: other.engine.clone(),
        adapter: None,
        digest: String::new(),
        created: 0,
    };
    let settings = ServeSettings {
        state: folder.path().join("state"),
        address: taken.local_addr().unwrap(),
        ..ServeSettings::default()
    };
    let error = serve(&settings, vec![model.clone()], &Context::quiet(1), |_| {}).unwrap_err();
    assert!(matches!(error, ServingError::Bind { .. }), "{error}");
    assert!(error.to_string().contains(&settings.address.to_string()), "{error}");
    // The same for the socket of the probes; nothing was served meanwhile.
    let settings = ServeSettings {
        operations_address: Some(taken.local_addr().unwrap()),
        address: "127.0.0.1:0".parse().unwrap(),
        ..settings
    };
    let error = serve(&settings, vec![model], &Context::quiet(1), |_| panic!("it serves")).unwrap_err();
    assert!(matches!(error, ServingError::Bind { .. }), "{error}");
}

#[test]
fn pipelined_requests_each_need_their_own_credential() {
    let server = TestServer::start(Options::default());
    let first = format!("GET /v1/models HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", server.key);
    let second = request_text("GET", "/v1/models", "", "");
    let answers = closed(&server, format!("{first}{second}").as_bytes());
    assert_eq!(statuses(&answers), ["200", "401"], "{answers}");
    let mut stream = server.connect();
    stream.write_all(second.as_bytes()).unwrap();
    Answer::read(stream).check(401, None);
}
