//! No request leaves memory behind, however it ends.
//!
//! Bytes in use are counted over all threads, so the test runs itself once more in a process where it is alone. What
//! SQLite takes is not counted: it is written in C, and what it keeps of its file is bounded by itself.

use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use compute::allocation::held_by_all;
use inference::EngineSettings;
use serde_json::json;
use serving::{AuditSettings, Durability, ServeSettings};

use crate::client::{Options, TestServer, request_text};
use crate::stub::Stub;
use crate::upstreams::{CHAT, chat, stream, upstream};

/// Set in the process that counts.
const ALONE: &str = "EULALIA_TEST_ALONE";
/// A first part of the rounds fills what is bounded: pools, what is known of addresses and keys.
const FIRST_ROUNDS: usize = 10;
/// Rounds between two looks.
const ROUNDS: usize = 30;
/// In each round, less than one entry of a table.
const MOST_BYTES_PER_ROUND: isize = 64;
/// What is bounded takes some kilobytes more at one time or another (one more thread, a longer queue), and not again with each
/// round: so many looks, the last after so many rounds that one entry for each round is far more.
const MOST_LOOKS: usize = 6;

#[test]
fn no_request_leaves_memory_behind() {
    if std::env::var_os(ALONE).is_some() {
        return count();
    }
    let name = "memory::no_request_leaves_memory_behind";
    let tests = std::env::current_exe().unwrap();
    let alone = Command::new(tests).args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&alone.stdout) + String::from_utf8_lossy(&alone.stderr);
    assert!(alone.status.success() && said.contains("1 passed"), "{said}");
}

fn count() {
    let stub = Stub::start();
    let settings = ServeSettings {
        upstreams: vec![upstream("gpu", stub.address)],
        body_limit_bytes: 1 << 16,
        audit: AuditSettings { durability: Durability::Written, ..AuditSettings::default() },
        ..Options::default().settings
    };
    // So few that the cache of prompts has 32 blocks, which are filled first.
    let engine = EngineSettings { running_requests: 2, ..EngineSettings::default() };
    let step = Duration::from_micros(200);
    let server = TestServer::start(Options { settings, engine, step, ..Options::default() });
    for first in 'a'..='j' {
        let prompt: String = std::iter::repeat_n([first, 'x'], 24).flatten().collect();
        let body = json!({"model": "toy", "prompt": prompt, "max_tokens": 1});
        server.post("/v1/completions", body).check_ok();
    }
    for number in 0..FIRST_ROUNDS {
        round(&server, &stub, number);
    }
    let before = held_at_rest();
    let mut left = isize::MAX;
    let mut rounds = 0;
    while left > rounds as isize * MOST_BYTES_PER_ROUND && rounds < MOST_LOOKS * ROUNDS {
        for _ in 0..ROUNDS {
            round(&server, &stub, rounds);
            rounds += 1;
        }
        left = held_at_rest() - before;
    }
    assert!(
        left <= rounds as isize * MOST_BYTES_PER_ROUND,
        "{rounds} rounds of requests left {left} bytes in use"
    );
}

/// The fewest bytes in use within a second or two. What a request held is given back a moment after its answer, and threads that
/// look after things take some bytes now and then.
fn held_at_rest() -> isize {
    let (start, mut fewest) = (Instant::now(), isize::MAX);
    while start.elapsed() < Duration::from_secs(2) {
        fewest = fewest.min(held_by_all());
        std::thread::sleep(Duration::from_millis(1));
    }
    fewest
}

/// One request of each kind.
fn round(server: &TestServer, stub: &Stub, number: usize) {
    // The cache of prompts sees texts that it knows and others.
    let prompt = format!("{number:08}");
    let body = json!({"model": "toy", "prompt": prompt, "max_tokens": 4, "seed": number});
    server.post("/v1/completions", body.clone()).check_ok();
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    server.post("/v1/completions", streamed.clone()).check_ok();
    streamed["max_tokens"] = json!(40);
    let mut left = BufReader::new(server.begin("/v1/completions", streamed));
    left.read_line(&mut String::new()).unwrap();
    drop(left);
    server.post(CHAT, chat("hello")).check_ok();
    server.post(CHAT, stream("hello")).check_ok();
    server.post(CHAT, stream("cut"));
    assert_eq!(server.post(CHAT, chat("400")).status, 400);
    let mut left = BufReader::new(server.begin(CHAT, stream("endless")));
    left.read_line(&mut String::new()).unwrap();
    drop(left);
    assert_eq!(server.post("/v1/completions", json!({"model": "none", "prompt": "a"})).status, 404);
    assert_eq!(server.post("/v1/completions", json!({"model": "toy", "n": -1})).status, 400);
    assert_eq!(server.post("/v1/completions", json!({"x": "y".repeat(100_000)})).status, 413);
    let wrong = format!("Authorization: Bearer eul-{number:08}-wrong\r\n");
    assert!([401, 429].contains(&server.ask_with("GET", "/v1/models", &wrong, "").status));
    assert_eq!(server.ask("GET", "/nowhere", "").status, 404);
    server.ask("GET", "/metrics", "").check_ok();
    server.ask_with("GET", "/healthz", "", "").check_ok();
    // One that does not finish its request.
    let unfinished = request_text("POST", "/v1/completions", "", "whole");
    server.connect().write_all(&unfinished.as_bytes()[..unfinished.len() - 2]).unwrap();
    // The engine elsewhere is in this process.
    stub.seen.requests.lock().unwrap().clear();
}
