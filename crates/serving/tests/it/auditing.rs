//! The audit log of a running server: read over the network, copied, restored.

use std::sync::atomic::{AtomicBool, Ordering};

use provenance::{Clock, Storage};
use serde_json::{Value, json};
use serving::{KeyStore, Role, backup, restore, verify_audit};

use crate::client::{Options, TestServer};

fn lines(body: &str) -> Vec<Value> {
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn auditors_read_the_log_and_reading_is_in_it() {
    let server = TestServer::start(Options::default());
    server.ask("GET", "/v1/models", "");
    server.post("/v1/completions", json!({"model": "toy", "prompt": "a", "max_tokens": 1}));
    let keys = KeyStore::open(&server.state).unwrap();
    let auditor = keys.new_key("Test", "auditor", Role::Auditor, None, 0).unwrap();
    let user = keys.new_key("Test", "user", Role::User, None, 0).unwrap();
    let read = |key: &str, query: &str| {
        let path = format!("/admin/v1/audit{query}");
        server.ask_with("GET", &path, &format!("Authorization: Bearer {key}\r\n"), "")
    };
    read(&user.key, "").check(403, None);
    let answer = read(&auditor.key, "?event=request");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    let found = lines(&answer.body);
    // The line of the export itself may or may not be there yet.
    assert!(found.len() >= 3 && found[2]["status"] == 403, "two requests and one refused: {}", answer.body);
    assert_eq!(found[1]["route"], "POST /v1/completions");
    let after = found[1]["sequence"].as_u64().unwrap();
    let rest = lines(&read(&auditor.key, &format!("?event=audit_read&after={after}")).body);
    assert_eq!(rest.len(), 2, "both exports are events, each before its own lines leave: {rest:?}");
    assert_eq!(rest[0]["key"], json!(auditor.id));
    let ecs = lines(&read(&auditor.key, "?format=ecs&event=request").body);
    assert_eq!(ecs[0]["event"]["action"], "request");
    for wrong in ["?since=yesterday", "?format=xml", "?tennant=a", "?after=x"] {
        read(&auditor.key, wrong).check(400, None);
    }
}

#[test]
fn a_backup_of_a_busy_server_is_whole_and_can_be_restored() {
    let mut server = TestServer::start(Options::default());
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::fixed(5_000);
    let (copy, restored) = (folder.path().join("copy"), folder.path().join("restored"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(server.ask("GET", "/v1/models", "").status, 200);
                }
            });
        }
        let copying = scope.spawn(|| backup(&server.state, &copy, &Storage::disk(), &clock));
        let found = copying.join();
        // The others end whatever came of it.
        stop.store(true, Ordering::SeqCst);
        assert_eq!(found.unwrap().unwrap().events_after_head, 0);
    });
    assert!(backup(&server.state, &copy, &Storage::disk(), &clock).is_err(), "never over another");
    server.stop();
    assert!(server.audit().iter().any(|event| event["event"] == "backup_taken"), "noted in the log");
    assert!(restore(&copy, &server.state, &Storage::disk(), &clock).is_err(), "never over a state");
    let found = restore(&copy, &restored, &Storage::disk(), &clock).unwrap();
    assert_eq!(found.last_time, "1970-01-01T01:23:20Z");
    assert_eq!(KeyStore::open(&restored).unwrap().list().unwrap()[0].id, server.key_id);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for (name, mode) in [("", 0o700), ("audit-signing-key.pem", 0o600)] {
            let permissions = restored.join(name).metadata().unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode, "{name}");
        }
    }
    // A backup that was altered is not put back.
    let segment = copy.join("audit/audit-000001.jsonl");
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replacen("server_started", "server_stopped", 1)).unwrap();
    assert!(restore(&copy, &folder.path().join("again"), &Storage::disk(), &clock).is_err());
    verify_audit(&server.state, None).unwrap();
}
