//! `kill -9` of a server under load: no line of a request that was answered is lost, and the next start goes on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use model::ModelConfig;
use model::testing::write_random_model;
use serde_json::Value;

use crate::support::program;

const PATIENCE: Duration = Duration::from_secs(120);
const CLIENTS: usize = 16;

/// Starts a server and waits until it says where it listens.
fn start(model: &Path, state: &Path) -> (Child, String) {
    let mut child = program()
        .args(["--threads", "2", "serve", "--listen", "127.0.0.1:0", "--state"])
        .arg(state)
        .arg(format!("toy={}", model.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    match address(&mut said) {
        Ok(address) => {
            // What it says later must not block it.
            std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
            (child, address)
        }
        Err(all) => {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no address: {all}");
        }
    }
}

/// Where the server says that it listens; all that it said if it does not.
fn address(said: &mut impl BufRead) -> Result<String, String> {
    let began = Instant::now();
    let mut all = String::new();
    while began.elapsed() < PATIENCE {
        let mut line = String::new();
        if said.read_line(&mut line).unwrap_or(0) == 0 {
            break;
        }
        all.push_str(&line);
        if let Some(rest) = line.split("http://").nth(1).filter(|_| line.contains("Serving")) {
            return Ok(rest.split('/').next().unwrap().trim().to_string());
        }
    }
    Err(all)
}

/// Asks once; the id of a request whose answer came whole.
fn ask(address: &str, key: &str, path: &str, body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let method = if body.is_empty() { "GET" } else { "POST" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length: usize = header(head, "content-length")?.parse().ok()?;
    (head.starts_with("HTTP/1.1 200") && body.len() == length).then(|| header(head, "x-request-id")).flatten()
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_string())
}

#[test]
fn no_line_of_an_answered_request_is_lost_when_a_server_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (model, state) = (folder.path().join("model"), folder.path().join("state"));
    std::fs::create_dir(&model).unwrap();
    write_random_model(&model, &ModelConfig::tiny_for_tests(260), 1);
    inference::testing::write_byte_tokenizer(&model).unwrap();
    let made = program().args(["keys", "new", "--role", "admin", "--state"]).arg(&state).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap().trim().to_string();
    let answered = Mutex::new(Vec::new());
    for enough in [40, 150, 300] {
        let (mut child, address) = start(&model, &state);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (address, key, count, answered) = (&address, &key, &count, &answered);
                scope.spawn(move || {
                    let began = Instant::now();
                    let completion = r#"{"model": "toy", "prompt": "a", "max_tokens": 2}"#;
                    let (path, body) =
                        if client % 4 == 0 { ("/v1/completions", completion) } else { ("/v1/models", "") };
                    while count.load(Ordering::SeqCst) < 100 * enough && began.elapsed() < PATIENCE {
                        if let Some(id) = ask(address, key, path, body) {
                            answered.lock().unwrap().push(id);
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
            let began = Instant::now();
            while count.load(Ordering::SeqCst) < enough {
                assert!(began.elapsed() < PATIENCE, "only {} answers", count.load(Ordering::SeqCst));
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().unwrap(); // SIGKILL
            child.wait().unwrap();
            // Ends the clients, which find nobody any more.
            count.fetch_add(100 * enough, Ordering::SeqCst);
        });
        let verified = program().args(["--json", "verify"]).arg(&state).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
    // Once more, ended in peace: the log goes on, and all of it is covered by a head.
    let (mut child, address) = start(&model, &state);
    answered.lock().unwrap().push(ask(&address, &key, "/v1/models", "").unwrap());
    let asked = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(asked.success() && child.wait().unwrap().code().is_some());
    let verified = program().args(["--json", "verify"]).arg(&state).output().unwrap();
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&verified["ok"], &verified["events_after_head"]), (&Value::Bool(true), &Value::from(0)));
    let export = program().args(["audit", "export", "--event", "request"]).arg(&state).output().unwrap();
    let lines = String::from_utf8(export.stdout).unwrap();
    let written: std::collections::BTreeSet<String> = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().map(String::from))
        .collect();
    let answered = answered.into_inner().unwrap();
    assert!(answered.len() > 490);
    let lost: Vec<&String> = answered.iter().filter(|id| !written.contains(*id)).collect();
    assert!(lost.is_empty(), "{} of {} answered requests have no line: {lost:?}", lost.len(), answered.len());
}
