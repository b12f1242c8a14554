//! `kill -9` of a server under load: no line of a request that was answered is lost, usage is what the log says, and the
//! next start goes on.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use model::ModelConfig;
use model::testing::write_random_model;
use serde_json::Value;

use crate::support::program;

const PATIENCE: Duration = Duration::from_secs(120);
const CLIENTS: usize = 16;

/// A server that ends with its test, however that ends.
pub struct RunningServer(pub Child);

impl Drop for RunningServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server and waits until it says where it listens; `command` is how eulalia is called.
pub fn start(mut command: Command, model: &Path, state: &Path) -> (RunningServer, String) {
    let mut child = command
        .args(["--threads", "2", "serve", "--listen", "127.0.0.1:0", "--state"])
        .arg(state)
        .arg(format!("toy={}", model.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let server = RunningServer(child);
    let address = address(&mut said).unwrap_or_else(|all| panic!("no address: {all}"));
    // What it says later must not block it.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    (server, address)
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
pub fn ask(address: &str, key: &str, path: &str, body: &str) -> Option<String> {
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

/// A tiny model with random weights.
pub fn make_model(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    write_random_model(folder, &ModelConfig::tiny_for_tests(260), 1);
    inference::testing::write_byte_tokenizer(folder).unwrap();
}

/// The lines of the log about requests; `program` is how eulalia is called.
pub fn request_lines(program: &dyn Fn() -> Command, state: &Path) -> Vec<Value> {
    let export = program().args(["audit", "export", "--event", "request"]).arg(state).output().unwrap();
    let lines = String::from_utf8(export.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Usage is the sum of the lines: requests, tokens of prompts, tokens of answers.
pub fn check_usage(program: &dyn Fn() -> Command, state: &Path, lines: &[Value]) -> u64 {
    let used = |line: &&Value| line["model"] != "" && line["outcome"] != "refused";
    let counts = |values: &mut dyn Iterator<Item = &Value>, name: &str| -> u64 {
        values.map(|value| value[name].as_u64().unwrap()).sum()
    };
    let output = program().args(["--json", "usage"]).arg(state).output().unwrap();
    let usage: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = usage["usage"].as_array().unwrap();
    let requests = counts(&mut rows.iter(), "requests");
    assert_eq!(requests, lines.iter().filter(used).count() as u64, "{usage}");
    for name in ["prompt_tokens", "completion_tokens"] {
        assert_eq!(counts(&mut rows.iter(), name), counts(&mut lines.iter().filter(used), name), "{name}");
    }
    requests
}

#[test]
fn no_line_of_an_answered_request_is_lost_when_a_server_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (model, state) = (folder.path().join("model"), folder.path().join("state"));
    make_model(&model);
    let made = program().args(["keys", "new", "--role", "admin", "--state"]).arg(&state).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap().trim().to_string();
    let answered = Mutex::new(Vec::new());
    let completed = AtomicUsize::new(0);
    for enough in [40, 150, 300] {
        let (mut server, address) = start(program(), &model, &state);
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (address, key, count, answered, completed) =
                    (&address, &key, &count, &answered, &completed);
                scope.spawn(move || {
                    let began = Instant::now();
                    let completion = r#"{"model": "toy", "prompt": "a", "max_tokens": 2}"#;
                    let (path, body) =
                        if client % 4 == 0 { ("/v1/completions", completion) } else { ("/v1/models", "") };
                    while count.load(Ordering::SeqCst) < 100 * enough && began.elapsed() < PATIENCE {
                        if let Some(id) = ask(address, key, path, body) {
                            answered.lock().unwrap().push(id);
                            completed.fetch_add(usize::from(!body.is_empty()), Ordering::SeqCst);
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
            server.0.kill().unwrap(); // SIGKILL
            server.0.wait().unwrap();
            // Ends the clients, which find nobody any more.
            count.fetch_add(100 * enough, Ordering::SeqCst);
        });
        let verified = program().args(["--json", "verify"]).arg(&state).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
    // Once more, ended in peace: the log goes on, and all of it is covered by a head.
    let (mut server, address) = start(program(), &model, &state);
    answered.lock().unwrap().push(ask(&address, &key, "/v1/models", "").unwrap());
    let asked = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().unwrap();
    assert!(asked.success() && server.0.wait().unwrap().code().is_some());
    let verified = program().args(["--json", "verify"]).arg(&state).output().unwrap();
    let verified: Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert_eq!((&verified["ok"], &verified["events_after_head"]), (&Value::Bool(true), &Value::from(0)));
    let lines = request_lines(&program, &state);
    let written: std::collections::BTreeSet<String> =
        lines.iter().filter_map(|line| line["id"].as_str().map(String::from)).collect();
    let used = check_usage(&program, &state, &lines);
    let completed = completed.into_inner() as u64;
    assert!(used >= completed && completed > 0, "{completed} answers came, {used} are counted");
    let answered = answered.into_inner().unwrap();
    assert!(answered.len() > 490);
    let lost: Vec<&String> = answered.iter().filter(|id| !written.contains(*id)).collect();
    assert!(lost.is_empty(), "{} of {} answered requests have no line: {lost:?}", lost.len(), answered.len());
}
