//! Who may pass, what is written down, and what nobody else learns.

use std::io::{Read, Write};
use std::sync::Arc;

use provenance::{Context, Storage};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use serving::{
    KeyStore, Role, ServeSettings, ServingError, TlsSettings, TracesSettings, serve, verify_audit,
};

use crate::client::{Answer, Options, TestServer, request_text};

const ROUTES: [(&str, &str); 14] = [
    ("GET", "/"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/toy"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/nowhere"),
    ("GET", "/healthz/"),
    ("GET", "//healthz"),
    ("GET", "/v1/../healthz"),
    ("OPTIONS", "/v1/completions"),
    ("DELETE", "/v1/models/toy"),
    ("PUT", "/healthz/../v1/models"),
];

#[test]
fn no_route_but_health_answers_without_a_key() {
    let mut options = Options::default();
    // Each of many guesses is to be looked at.
    options.settings.throttle.failures_per_minute = 10_000;
    let server = TestServer::start(options);
    let last = if server.key.ends_with('x') { 'y' } else { 'x' };
    let wrong = format!("{}{last}", &server.key[..server.key.len() - 1]);
    let credentials = [
        String::new(),
        "Authorization: Bearer \r\n".to_string(),
        "Authorization: Bearer eu-wrong\r\n".to_string(),
        format!("Authorization: Bearer {wrong}\r\n"),
        format!("Authorization: Basic {}\r\n", server.key),
        format!("Authorization: {}\r\n", server.key),
        format!("X-Api-Key: {}\r\n", server.key),
        format!("Cookie: key={}\r\n", server.key),
        "Authorization: Bearer \u{fc}\r\n".to_string(),
    ];
    for (method, path) in ROUTES {
        for headers in &credentials {
            let answer = server.ask_with(method, path, headers, "{}");
            answer.check(401, None);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("access-control")));
        }
    }
    let health = server.ask_with("GET", "/healthz", "", "");
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"ok"}"#));
}

#[test]
fn with_a_key_unknown_routes_and_methods_say_so() {
    let server = TestServer::start(Options::default());
    server.ask("GET", "/nowhere", "").check(404, None);
    server.ask("DELETE", "/v1/models", "").check(405, None);
    assert_eq!(server.ask("GET", "/readyz", "").json()["status"], "ready");
}

/// What stands in a path is a client's own like a body: bytes that are no text are refused in the shape of all errors.
#[test]
fn a_path_that_is_no_text_is_refused_like_any_other_slip() {
    let server = TestServer::start(Options::default());
    for (method, path) in [
        ("GET", "/v1/models/%ff"),
        ("HEAD", "/v1/models/%ff"),
        ("GET", "/admin/v1/tenants/%c3%28"),
        ("PATCH", "/admin/v1/tenants/%ff"),
        ("DELETE", "/admin/v1/tenants/%ff"),
        ("GET", "/admin/v1/keys/%ff"),
        ("PATCH", "/admin/v1/keys/%ff"),
        ("DELETE", "/admin/v1/keys/%ff"),
        ("POST", "/admin/v1/keys/%ff/rotate"),
    ] {
        let answer = server.ask(method, path, "{}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{method} {path}");
        match method {
            "HEAD" => assert_eq!(answer.status, 400),
            _ => assert_eq!(answer.check(400, None).json()["error"]["code"], "invalid_value"),
        }
    }
    server.ask("GET", "/v1/models/%00", "").check(404, Some("model"));
}

#[test]
fn a_revoked_key_opens_nothing_from_then_on() {
    let server = TestServer::start(Options::default());
    assert_eq!(server.ask("GET", "/v1/models", "").status, 200);
    KeyStore::open(&server.state).unwrap().revoke(&server.key_id, 1).unwrap();
    server.ask("GET", "/v1/models", "").check(401, None);
}

#[test]
fn every_request_leaves_one_event_and_no_prompt() {
    let mut server = TestServer::start(Options::default());
    let prompt = "tajemnica";
    let body = json!({"model": "toy", "prompt": prompt, "temperature": 0, "user": "Zoë", "max_tokens": 3});
    server.post("/v1/completions", body.clone());
    let mut streamed = body;
    streamed["stream"] = json!(true);
    server.post("/v1/completions", streamed);
    server.post("/v1/completions", json!({"model": "toy"}));
    server.ask("GET", "/v1/models", "");
    server.ask("GET", &format!("/{prompt}"), "");
    server.ask_with("GET", "/v1/models", "", "");
    let strangers = |server: &TestServer| -> u64 {
        let events = server.audit();
        let of = events.iter().filter(|event| event["event"] == "strangers_refused");
        of.filter_map(|event| event["count"].as_u64()).sum()
    };
    server.wait_until("the stranger is in the log", |server| strangers(server) > 0);
    let report = server.stop();
    assert_eq!((report.requests, report.refused_strangers), (5, 1));
    let summary = verify_audit(&server.state, None).unwrap();
    let events = server.audit();
    assert_eq!(events.len() as u64, summary.events);
    let requests: Vec<_> = events.iter().filter(|event| event["event"] == "request").collect();
    let outcomes: Vec<_> = requests
        .iter()
        .map(|event| (event["route"].as_str().unwrap(), event["outcome"].as_str().unwrap()))
        .collect();
    let post = "POST /v1/completions";
    assert_eq!(
        outcomes,
        [(post, "ok"), (post, "ok"), (post, "refused"), ("GET /v1/models", "ok"), ("unknown", "refused")]
    );
    for event in &requests[..2] {
        assert_eq!((&event["prompt_tokens"], &event["completion_tokens"]), (&json!(9), &json!(3)));
        assert_eq!((&event["model_digest"], &event["key"]), (&json!("ab".repeat(32)), &json!(server.key_id)));
        assert!(event["tenant"].is_string() && event["user"].is_string());
    }
    assert_eq!(requests[0]["user"], requests[1]["user"]);
    assert_eq!(strangers(&server), 1, "the end does not count again");
    let text = std::fs::read_to_string(server.state.join("audit/audit-000001.jsonl")).unwrap();
    for secret in [prompt, "Zoë", "Test", &server.key] {
        assert!(!text.contains(secret), "{secret} stands in the audit log");
    }
}

#[test]
fn tls_from_pem_files_serves_and_plain_http_does_not_pass() {
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tls = TlsSettings::new(folder.path().join("chain.pem"), folder.path().join("key.pem"));
    std::fs::write(&tls.certificate, certificate.cert.pem()).unwrap();
    std::fs::write(&tls.private_key, certificate.signing_key.serialize_pem()).unwrap();
    let mut options = Options::default();
    options.settings.tls = Some(tls);
    let server = TestServer::start(options);

    let mut roots = RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, server.connect());
    let headers = format!("Authorization: Bearer {}\r\n", server.key);
    stream.write_all(request_text("GET", "/v1/models", &headers, "").as_bytes()).unwrap();
    let answer = Answer::read(&mut stream);
    assert_eq!((answer.status, answer.json()["data"][0]["id"].as_str()), (200, Some("toy")));
    assert_eq!(stream.conn.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));

    let mut plain = server.connect();
    plain.write_all(request_text("GET", "/v1/models", &headers, "").as_bytes()).unwrap();
    let mut answer = Vec::new();
    // An alert or a closed connection, never an answer.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
}

#[test]
fn what_would_be_unsafe_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let context = Context::quiet(1);
    let here = ServeSettings { state, ..ServeSettings::default() };
    let try_serving = |settings: &ServeSettings| serve(settings, Vec::new(), &context, |_| {}).unwrap_err();
    let beyond = ServeSettings { address: "0.0.0.0:0".parse().unwrap(), ..here.clone() };
    assert!(matches!(try_serving(&beyond), ServingError::PlainHttpBeyondLoopback { .. }));
    let missing = TlsSettings::new(folder.path().join("none.pem"), folder.path().join("none"));
    let with_tls = ServeSettings { tls: Some(missing), ..here.clone() };
    assert!(matches!(try_serving(&with_tls), ServingError::Tls { .. }));
    assert!(matches!(try_serving(&here), ServingError::NoModel));
    let server = TestServer::start(Options::default());
    let model = serving::ServedModel {
        name: "toy".into(),
        engine: server.engine.clone(),
        adapter: None,
        digest: String::new(),
        created: 0,
    };
    let twice = vec![model.clone(), model.clone()];
    let error = serve(&here, twice, &context, |_| {}).unwrap_err();
    assert!(matches!(error, ServingError::ModelTwice { .. }), "{error}");
    if cfg!(not(feature = "opentelemetry")) {
        let traces = Some(TracesSettings::new("http://127.0.0.1:4318/v1/traces"));
        let error = serve(&ServeSettings { traces, ..here }, vec![model], &context, |_| {}).unwrap_err();
        assert!(error.to_string().contains("--features opentelemetry"), "{error}");
    }
}

#[test]
fn a_key_that_is_made_later_opens_a_running_server() {
    let server = TestServer::start(Options::default());
    let keys = KeyStore::open(&server.state).unwrap();
    keys.revoke(&server.key_id, 1).unwrap();
    let new = keys.new_key("Test", "later", Role::User, None, 2).unwrap();
    let headers = format!("authorization: bearer {}\r\n", new.key);
    let answer = server.ask_with("GET", "/v1/models", &headers, "");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-request-id").map(str::len), Some(24));
}

#[test]
fn a_request_that_cannot_be_audited_fails() {
    let counting = Storage::failing_at(u64::MAX);
    let server = TestServer::start(Options { storage: counting.clone(), ..Options::default() });
    let operations = counting.operations();
    drop(server);
    let storage = Storage::failing_at(operations);
    let server = TestServer::start(Options { storage, ..Options::default() });
    for _ in 0..2 {
        server.ask("GET", "/v1/models", "").check(500, None);
        let body = json!({"model": "toy", "prompt": "y", "temperature": 0, "stream": true});
        let events = server.post("/v1/completions", body).body;
        assert!(events.contains("internal_error") && !events.contains("[DONE]"), "{events}");
    }
}
