//! What goes wrong around a running server: a locked database, a clock that jumps. What was answered has its line, and
//! usage is what the lines say.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use provenance::Clock;
use serde_json::{Value, json};
use serving::{AuditFilter, AuditSettings, RetentionSettings, ServeSettings, usage, verify_audit};

use crate::client::{Options, TestServer};

const DAY: u64 = 86_400;

fn ask(server: &TestServer) -> String {
    let body = json!({"model": "toy", "prompt": "a", "max_tokens": 2});
    let answer = server.post("/v1/completions", body);
    answer.check_ok().header("x-request-id").unwrap().to_string()
}

/// The lines about requests of a state, in their order.
fn requests(server: &TestServer) -> Vec<Value> {
    let filter = AuditFilter { event: Some("request".to_string()), ..AuditFilter::default() };
    let mut lines = Vec::new();
    serving::read_audit(&server.state, &filter, |line| {
        lines.push(Value::Object(line));
        ControlFlow::Continue(())
    })
    .unwrap();
    lines
}

fn counted(server: &TestServer, now: u64) -> u64 {
    let rows = usage(&server.state, None, 3_660, now).unwrap();
    rows.iter().map(|row| row["requests"].as_u64().unwrap()).sum()
}

#[test]
fn a_locked_database_stops_no_answer() {
    let mut server = TestServer::start(Options::default());
    let other = rusqlite::Connection::open(server.state.join("state.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut answered: Vec<String> = (0..20).map(|_| ask(&server)).collect();
    // Who comes when nobody can write is let in or not all the same.
    let wrong = server.ask_with("GET", "/v1/models", "Authorization: Bearer eu-wrong\r\n", "");
    assert_eq!(wrong.status, 401);
    other.execute_batch("ROLLBACK").unwrap();
    answered.push(ask(&server));
    server.stop();
    let lines = requests(&server);
    assert!(answered.iter().eq(lines.iter().map(|line| line["id"].as_str().unwrap())), "{lines:?}");
    assert_eq!(verify_audit(&server.state, None).unwrap().events_after_head, 0);
    assert_eq!(counted(&server, 1_000), 21, "counted once there was no lock any more");
}

#[test]
fn a_clock_that_jumps_loses_nothing() {
    let now = Arc::new(AtomicU64::new(20_000 * DAY));
    let shown = now.clone();
    let clock = Clock::from_fn(move || UNIX_EPOCH + Duration::from_secs(shown.load(Ordering::SeqCst)));
    let retention = RetentionSettings::default().with("default", "1d");
    let audit = AuditSettings { retention, ..AuditSettings::default() };
    let options = || {
        let settings = ServeSettings { audit: audit.clone(), ..Options::default().settings };
        Options { settings, clock: clock.clone(), ..Options::default() }
    };
    let mut server = TestServer::start(options());
    let mut answered = Vec::new();
    for day in [20_000, 19_000, 23_000, 20_001] {
        now.store(day * DAY, Ordering::SeqCst);
        answered.extend((0..3).map(|_| ask(&server)));
    }
    server.stop();
    // The next one starts in the past of the log, the one after it far beyond its end.
    for day in [100, 22_000] {
        now.store(day * DAY, Ordering::SeqCst);
        server = server.start_again(options());
        answered.extend((0..3).map(|_| ask(&server)));
        server.stop();
        let found = verify_audit(&server.state, None).unwrap();
        assert_eq!((found.first_event, found.erased, found.events_after_head), (1, 0, 0), "nothing went");
    }
    let lines = requests(&server);
    assert!(
        answered.iter().eq(lines.iter().map(|line| line["id"].as_str().unwrap())),
        "the order is that of time"
    );
    let rows = usage(&server.state, None, 3_660, 23_000 * DAY).unwrap();
    let recent: u64 = rows.iter().map(|row| row["requests"].as_u64().unwrap()).sum();
    assert_eq!(recent, 12, "each request on the day that the clock showed");
}
