//! A mistake of the program costs the one request that meets it: the client reads a plain failure, the audit log has it, the log
//! holds no word of what was asked, and the server goes on.
//!
//! The clock that a server is given makes the mistake here, with words of the client in it: nothing in the program can be asked
//! to panic. What a process writes to standard error can be seen from outside alone, so the test runs itself once more.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use provenance::Clock;
use serde_json::{Value, json};
use serving::{LogFormat, LogLevel, LogSettings, ServeSettings, log_panics, start_log};

use crate::client::{Answer, Options, TestServer};
use crate::stub::Stub;
use crate::upstreams::{CHAT, chat, upstream};

/// Set in the process that is looked at.
const ALONE: &str = "EULALIA_TEST_PANICS";
/// What nobody may read in a log.
const SECRET: &str = "Geheimnis";

#[test]
fn a_panic_costs_one_request_and_tells_nothing() {
    if std::env::var_os(ALONE).is_some() {
        return panic_here_and_there();
    }
    let name = "panics::a_panic_costs_one_request_and_tells_nothing";
    let tests = std::env::current_exe().unwrap();
    let alone = Command::new(tests).args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&alone.stdout) + String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.success() && said.contains("1 passed"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    assert_eq!(said.matches("a thread panicked").count(), 4, "{said}");
}

/// Where the clock panics: on threads that serve, when this says so.
type When = Box<dyn Fn() -> bool + Send>;

fn panic_here_and_there() {
    let log = LogSettings { format: LogFormat::Text, level: LogLevel::Debug };
    assert!(start_log(log, Clock::fixed(0), Box::new(std::io::stderr())));
    log_panics();
    let when: Arc<Mutex<Option<When>>> = Arc::default();
    let asked = when.clone();
    let clock = Clock::from_fn(move || {
        let serves = std::thread::current().name() == Some("serving");
        // Once: what ends a request asks for the time too. Nothing else does on these threads but the requests themselves.
        let panics = serves && asked.lock().unwrap().take_if(|when| when()).is_some();
        assert!(!panics, "{SECRET} in the middle");
        UNIX_EPOCH + Duration::from_secs(1_000)
    });
    let stub = Stub::start();
    let upstreams = vec![upstream("gpu", stub.address)];
    let settings = ServeSettings { upstreams, ..Options::default().settings };
    let server = TestServer::start(Options { settings, clock, ..Options::default() });
    let audited: PathBuf = server.state.join("audit/audit-000001.jsonl");
    let arm = |condition: When| *when.lock().unwrap() = Some(condition);
    let check = |answer: Answer| {
        assert!(when.lock().unwrap().is_none());
        let error = answer.check(500, None).json()["error"].clone();
        assert_eq!(error["code"], "internal_error");
        assert!(!answer.body.contains(SECRET), "{}", answer.body);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    };
    let last = |server: &TestServer| server.audit().pop().unwrap();

    // In a handler, once the engine elsewhere has its question: of an answer that comes whole, and of a stream.
    for streams in [false, true] {
        let (seen, before) = (stub.seen.clone(), stub.requests());
        arm(Box::new(move || seen.requests.lock().unwrap().len() > before));
        let mut body = chat(&format!("say {SECRET}"));
        body["stream"] = Value::from(streams);
        check(server.post(CHAT, body));
        let event = last(&server);
        let found = ["event", "route", "outcome", "status"].map(|name| event[name].clone());
        assert_eq!(
            found,
            [json!("request"), json!("POST /v1/chat/completions"), json!("failed"), json!(500)]
        );
    }
    // On a thread beside it, once the audit log says what is about to be done.
    arm(Box::new(move || std::fs::read_to_string(&audited).unwrap().contains("tenant_created")));
    check(server.post("/admin/v1/tenants", json!({"name": SECRET})));
    assert_eq!(last(&server)["outcome"], "failed");
    // Before anybody knows whose request it is.
    arm(Box::new(|| true));
    check(server.post(CHAT, chat(SECRET)));

    server.post(CHAT, chat("hello")).check_ok();
    assert_eq!(last(&server)["outcome"], "ok");
}
