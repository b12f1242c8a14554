//! What changes under a running server: certificates, settings, and that it is going.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use serving::{Controls, KeyStore, Role, ServeSettings, TenantPolicy, TenantStore, TlsSettings};

use crate::client::{Answer, Options, TestServer, request_text};
use crate::stub::Stub;
use crate::transport::{block_on, certificate, connect};
use crate::upstreams::{CHAT, chat, stream, upstream};

const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

fn trusts(server: &TestServer, certificate: &CertificateDer<'static>) -> bool {
    block_on(async { connect(server, certificate, TLS13, b"http/1.1").await.is_ok() })
}

pub fn events(server: &TestServer, name: &str) -> Vec<Value> {
    server.audit().into_iter().filter(|event| event["event"] == name).collect()
}

#[test]
fn certificates_are_taken_when_their_files_change_and_broken_ones_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, first) = certificate(folder.path());
    let mut options = Options::default();
    options.settings.tls = Some(tls.clone());
    let server = TestServer::start(options);
    assert!(trusts(&server, &first));
    std::fs::write(&tls.certificate, "no certificate at all").unwrap();
    server.wait_until("the broken file is noticed", |server| {
        !events(server, "certificates_refused").is_empty()
    });
    assert!(trusts(&server, &first), "the old certificate is still in use");
    let (_, second) = certificate(folder.path());
    server
        .wait_until("the new file is noticed", |server| !events(server, "certificates_reloaded").is_empty());
    assert!(trusts(&server, &second) && !trusts(&server, &first));
    assert!(events(&server, "certificates_reloaded")[0]["not_after"].is_i64());
}

/// The settings that a reload would read.
pub type Wanted = Arc<Mutex<Result<ServeSettings, String>>>;

/// A server whose settings are what stands in the returned place, read when its flag is raised.
pub fn reloadable(tls: Option<TlsSettings>) -> (TestServer, Wanted, impl Fn()) {
    let mut options = Options::default();
    options.settings.tls = tls;
    let wanted = Arc::new(Mutex::new(Ok(options.settings.clone())));
    let read = wanted.clone();
    options.controls = Controls {
        read_settings: Some(Box::new(move || read.lock().unwrap().clone())),
        ..Controls::default()
    };
    let flag = options.controls.reload.clone();
    let server = TestServer::start(options);
    // The test's server has a state folder of its own.
    wanted.lock().unwrap().as_mut().unwrap().state.clone_from(&server.state);
    (server, wanted, move || flag.store(true, Ordering::SeqCst))
}

#[test]
fn limits_change_without_a_restart_and_broken_settings_change_nothing() {
    let (server, wanted, reload) = reloadable(None);
    let big = json!({"model": "toy", "prompt": "a", "user": "a".repeat(3_000)});
    server.post("/v1/completions", big.clone()).check(400, Some("user"));
    let change = |change: &dyn Fn(&mut ServeSettings)| change(wanted.lock().unwrap().as_mut().unwrap());

    change(&|settings| {
        settings.body_limit_bytes = 2_000;
        settings.address = "127.0.0.1:9".parse().unwrap();
    });
    reload();
    server.wait_until("the settings are read", |server| !events(server, "settings_reloaded").is_empty());
    let event = &events(&server, "settings_reloaded")[0];
    assert_eq!(
        (&event["changed"], &event["needs_restart"]),
        (&json!(["body_limit_bytes"]), &json!(["address"]))
    );
    server.post("/v1/completions", big.clone()).check(413, None);

    change(&|settings| {
        settings.body_limit_bytes = 1 << 20;
        settings.request_seconds = 0;
    });
    reload();
    server.wait_until("they are refused", |server| events(server, "settings_refused").len() == 1);
    server.post("/v1/completions", big.clone()).check(413, None);

    *wanted.lock().unwrap() = Err("line 3: what is this".to_string());
    reload();
    server.wait_until("they are refused", |server| events(server, "settings_refused").len() == 2);
    assert_eq!(events(&server, "settings_refused")[1]["problem"], "line 3: what is this");
    server.post("/v1/completions", big).check(413, None);
}

#[test]
fn a_reload_speaks_of_new_certificates_where_they_are_new() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, first) = certificate(folder.path());
    let (server, wanted, reload) = reloadable(Some(tls.clone()));
    let read_again = || reload_until(&server, &wanted, &reload, "settings_reloaded", &|_| ());
    read_again();
    // Written anew, as they were.
    std::fs::write(&tls.certificate, std::fs::read(&tls.certificate).unwrap()).unwrap();
    read_again();
    assert!(trusts(&server, &first) && events(&server, "certificates_reloaded").is_empty());
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let (other, second) = certificate(&elsewhere);
    let change = |settings: &mut ServeSettings| settings.tls = Some(TlsSettings { ..other.clone() });
    reload_until(&server, &wanted, &reload, "settings_reloaded", &change);
    assert!(trusts(&server, &second) && !trusts(&server, &first));
    assert_eq!(events(&server, "certificates_reloaded").len(), 1);
}

#[test]
fn settings_with_broken_certificates_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, first) = certificate(folder.path());
    let (server, wanted, reload) = reloadable(Some(tls));
    if let Ok(settings) = wanted.lock().unwrap().as_mut() {
        settings.body_limit_bytes = 2_000;
        settings.tls = Some(TlsSettings::new(folder.path().join("none"), folder.path().join("none")));
    }
    reload();
    server.wait_until("they are refused", |server| events(server, "settings_refused").len() == 1);
    assert!(trusts(&server, &first) && events(&server, "settings_reloaded").is_empty());
}

/// Changes the wanted settings, has them read, and waits for so many events of a name.
pub fn reload_until(
    server: &TestServer,
    wanted: &Wanted,
    reload: &impl Fn(),
    event: &str,
    change: &dyn Fn(&mut ServeSettings),
) {
    let before = events(server, event).len();
    change(wanted.lock().unwrap().as_mut().unwrap());
    reload();
    server.wait_until("the settings are read", |server| events(server, event).len() > before);
}

fn filter(name: &str, pattern: &str) -> ServeSettings {
    let text = format!(
        "[[filters.input]]\nname = '{name}'\nkind = 'patterns'\naction = 'refuse'\nblock = ['{pattern}']\n"
    );
    toml::from_str(&text).unwrap()
}

/// Reads the endless answer up to its next piece.
fn read_on(stream: &mut impl BufRead) {
    let mut line = String::new();
    while !line.contains("and on") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream goes on");
    }
}

#[test]
fn engines_come_and_go_without_a_restart_and_streams_go_on() {
    let (first, second) = (Stub::start(), Stub::start());
    let (server, wanted, reload) = reloadable(None);
    let change = |event: &str, change: &dyn Fn(&mut ServeSettings)| {
        reload_until(&server, &wanted, &reload, event, change);
    };
    server.post(CHAT, chat("hello")).check(404, Some("model"));
    change("settings_reloaded", &|settings| settings.upstreams = vec![upstream("gpu", first.address)]);
    server.post(CHAT, chat("hello")).check_ok();
    let mut running = BufReader::new(server.begin(CHAT, stream("endless")));
    let mut until_next = || read_on(&mut running);
    until_next();
    let metrics = server.ask("GET", "/metrics", "").body;
    assert!(metrics.contains(
        "eulalia_requests_total{route=\"POST /v1/chat/completions\",status=\"200\",model=\"far\"} 1"
    ));
    assert!(metrics.contains("eulalia_upstream_running_requests{upstream=\"gpu\"} 1"), "{metrics}");

    // The same engine under other settings has its request still; an engine at another address has none.
    change("settings_reloaded", &|settings| settings.upstreams[0].maximum_concurrency = 1);
    server.post(CHAT, chat("hello")).check(429, None);
    until_next();
    change("settings_reloaded", &|settings| settings.upstreams = vec![upstream("gpu", second.address)]);
    server.post(CHAT, chat("hello")).check_ok();
    assert_eq!((first.requests(), second.requests()), (2, 1));
    until_next();

    // What cannot be made changes nothing, whatever else stands in the file.
    change("settings_refused", &|settings| {
        settings.upstreams[0].api_key_file = Some("nowhere.key".into());
        settings.body_limit_bytes = 2_000;
    });
    let problem = events(&server, "settings_refused")[0]["problem"].to_string();
    assert!(problem.contains("gpu") && problem.contains("nowhere.key"), "{problem}");
    let big = json!({"model": "far", "messages": [{"role": "user", "content": "a".repeat(3_000)}]});
    server.post(CHAT, big).check_ok();
    change("settings_refused", &|settings| {
        settings.upstreams[0].api_key_file = None;
        settings.upstreams[0].models = [("toy".to_string(), "x".to_string())].into();
    });
    server.post("/v1/completions", json!({"model": "toy", "prompt": "a", "max_tokens": 1})).check_ok();
    change("settings_reloaded", &|settings| settings.upstreams.clear());
    server.post(CHAT, chat("hello")).check(404, Some("model"));
    until_next();
    drop(running);
    server.wait_until("the engine notices", |_| first.seen.left.load(Ordering::SeqCst) == 1);
}

#[test]
fn filters_change_without_a_restart() {
    let (server, wanted, reload) = reloadable(None);
    let ask = || {
        server.post("/v1/completions", json!({"model": "toy", "prompt": "secret", "max_tokens": 1})).status
    };
    assert_eq!(ask(), 200);
    let change = |event: &str, pattern: &str| {
        let filters = filter("words", pattern).filters;
        reload_until(&server, &wanted, &reload, event, &|settings| settings.filters = filters.clone());
    };
    change("settings_reloaded", "secret");
    assert_eq!(ask(), 400);
    change("settings_refused", "(unclosed");
    assert_eq!(ask(), 400, "the old filters are still in force");
    change("settings_reloaded", "other");
    assert_eq!(ask(), 200);
}

/// Without its filters a tenant might be answered too much: its prompts are refused, and the client learns no name.
#[test]
fn a_tenant_whose_filters_went_is_told_that_its_policy_cannot_be_kept() {
    let (server, wanted, reload) = reloadable(None);
    let with_chain: ServeSettings = toml::from_str("[filters.chains.streng]\n").unwrap();
    let change = |filters: &filters::Settings| {
        reload_until(&server, &wanted, &reload, "settings_reloaded", &|settings| {
            settings.filters = filters.clone()
        });
    };
    change(&with_chain.filters);
    let policy = TenantPolicy::default().with("filters=streng").unwrap();
    TenantStore::open(&server.state).unwrap().new_tenant("Amt", &policy, 0).unwrap();
    let key = KeyStore::open(&server.state).unwrap().new_key("Amt", "", Role::User, None, 0).unwrap().key;
    let headers = format!("Authorization: Bearer {key}\r\n");
    let bodies = [
        ("/v1/completions", json!({"model": "toy", "prompt": "a", "max_tokens": 1})),
        (CHAT, json!({"model": "toy", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1})),
        ("/v1/embeddings", json!({"model": "toy", "input": "a"})),
    ];
    let check = |status: u16| {
        for (path, body) in &bodies {
            let answer = server.ask_with("POST", path, &headers, &body.to_string());
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
            if status == 503 {
                let error = &answer.check(503, None).json()["error"];
                assert_eq!(error["code"], "tenant_policy");
                assert!(!answer.body.contains("streng") && !answer.body.contains("Amt"), "{error}");
            }
        }
        // Others, and what asks for no filters, go on.
        server.post("/v1/completions", bodies[0].1.clone()).check_ok();
        server.ask_with("GET", "/v1/models", &headers, "").check_ok();
    };
    check(200);
    change(&filters::Settings::default());
    check(503);
    change(&with_chain.filters);
    check(200);
}

#[test]
fn local_models_wait_for_a_restart_and_the_log_says_so() {
    let (server, wanted, reload) = reloadable(None);
    let settings: ServeSettings = toml::from_str("[[models]]\nname = 'new'\npath = 'somewhere'\n").unwrap();
    reload_until(&server, &wanted, &reload, "settings_reloaded", &|wanted| {
        wanted.models.clone_from(&settings.models)
    });
    assert_eq!(events(&server, "settings_reloaded")[0]["needs_restart"], json!(["models"]));
    server.post("/v1/completions", json!({"model": "toy", "prompt": "a", "max_tokens": 1})).check_ok();
}

fn ask(address: SocketAddr, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request_text("GET", path, "", "").as_bytes()).unwrap();
    Answer::read(stream)
}

#[test]
fn a_server_that_is_going_says_so_before_it_goes() {
    // A port that is free now; nothing else listens on it within the next moment.
    let probes = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = Options { step: Duration::from_millis(20), ..Options::default() };
    options.settings.operations_address = Some(probes);
    // Time for what is asked below, also where others keep the machine busy.
    options.settings.drain_grace_seconds = 6;
    let mut server = TestServer::start(options);
    assert_eq!(ask(probes, "/healthz").json(), json!({"status": "ok"}));
    assert_eq!(ask(probes, "/readyz").json(), json!({"status": "ready"}), "and no model's name");
    for path in ["/v1/models", "/metrics", "/", "/openapi.json", "/admin/keys"] {
        assert_eq!(ask(probes, path).status, 404, "{path}");
    }
    let body = json!({"model": "toy", "prompt": "a", "temperature": 0, "max_tokens": 25, "stream": true});
    let stream = server.begin("/v1/completions", body);
    server.ask_to_stop();
    server.wait_until("it says that it is going", |_| ask(probes, "/readyz").status == 503);
    assert_eq!(ask(probes, "/healthz").status, 200);
    assert_eq!(server.ask("GET", "/readyz", "").json()["status"], "stopping", "it still answers");
    assert_eq!(Answer::read(stream).events().last(), Some(&"[DONE]"));
    server.stop();
    assert!(TcpStream::connect(server.address).is_err());
}

/// Without a time of grace nobody listens for requests any more, while one is still answered. Who asks about the server is
/// told all the while that it is going, from the very moment that it was asked to.
#[test]
fn probes_are_answered_for_as_long_as_a_request_is() {
    let stub = Stub::start();
    let probes = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = Options::default();
    options.settings.operations_address = Some(probes);
    options.settings.upstreams = vec![upstream("gpu", stub.address)];
    options.settings.drain_seconds = 300;
    let mut server = TestServer::start(options);
    assert_eq!(ask(probes, "/readyz").status, 200);
    let mut running = BufReader::new(server.begin(CHAT, stream("endless")));
    let mut until_next = || read_on(&mut running);
    until_next();
    server.ask_to_stop();
    assert_eq!(ask(probes, "/readyz").status, 503, "at once");
    server.wait_until("nobody listens", |server| TcpStream::connect(server.address).is_err());
    until_next();
    for _ in 0..3 {
        assert_eq!(ask(probes, "/readyz").json(), json!({"status": "stopping"}));
        assert_eq!(ask(probes, "/healthz").status, 200);
    }
    until_next();
    drop(running);
    server.stop();
    assert!(TcpStream::connect(probes).is_err());
}
