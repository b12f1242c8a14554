//! What clients send in confidence stands nowhere: not in the log, not in the audit log, not in the database.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use provenance::Clock;
use serde_json::{Value, json};
use serving::{LogFormat, LogLevel, LogSettings, start_log};

use crate::client::{Options, TestServer};

/// Words that no other test uses.
const PROMPT: &str = "geheimnisvolltajemnicaμυστικό";
const USER: &str = "Żaneta-Zgłoszenie-4711";

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

fn check_folder(folder: &Path, secrets: &[&str]) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            check_folder(&path, secrets);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            for secret in secrets {
                assert!(!holds(&bytes, secret), "{secret} stands in {}", path.display());
            }
        }
    }
}

#[test]
fn no_prompt_answer_or_key_is_kept() {
    let kept = Kept::default();
    let settings = LogSettings { format: LogFormat::Json, level: LogLevel::Debug };
    assert!(start_log(settings, Clock::system(), Box::new(kept.clone())), "this is the only test with a log");
    let mut server = TestServer::start(Options::default());
    let wrong = format!("{}x", server.key);
    // Every route, with what one would not want to read anywhere, in every place that a client fills.
    let bodies = [
        json!({"model": "toy", "prompt": PROMPT, "user": USER, "max_tokens": 3, "temperature": 0}),
        json!({"model": "toy", "prompt": PROMPT, "user": USER, "max_tokens": 3, "stream": true}),
        json!({"model": "toy", "messages": [{"role": "user", "content": PROMPT}], "user": USER}),
        json!({"model": "toy", "input": PROMPT, "user": USER}),
        json!({"model": PROMPT, "prompt": "a"}),
        json!({PROMPT: PROMPT}),
        // What the administration takes, of a path that holds a whole key.
        json!({"label": "neu"}),
        json!({"grace_hours": 1}),
        json!({"policy": {}}),
        json!(PROMPT),
    ];
    let document = server.ask("GET", "/openapi.json", "").json();
    let paths: Vec<(String, Vec<String>)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, methods)| (path.clone(), methods.as_object().unwrap().keys().cloned().collect()))
        .collect();
    assert!(paths.len() > 6);
    for (path, methods) in &paths {
        let path = format!(
            "{}?key={wrong}&q=geheimnisvolltajemnica",
            path.replace("{id}", &server.key).replace("{name}", &server.key)
        );
        for method in methods {
            for body in &bodies {
                let headers = format!(
                    "Authorization: Bearer {}\r\nCookie: session={wrong}\r\nX-Note: {USER}\r\nUser-Agent: {USER}\r\n",
                    server.key
                );
                server.ask_with(&method.to_uppercase(), &path, &headers, &body.to_string());
                let stranger = format!("Authorization: Bearer {wrong}\r\n");
                server.ask_with(&method.to_uppercase(), &path, &stranger, &body.to_string());
            }
        }
    }
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers =
        format!("Authorization: Bearer {}\r\ntraceparent: 00-{trace}-00f067aa0ba902b7-01\r\n", server.key);
    server.ask_with("GET", &format!("/{}", "geheimnisvolltajemnica"), &headers, "");
    server.stop();

    let secrets = ["geheimnisvolltajemnica", USER, &server.key, &wrong];
    check_folder(&server.state, &secrets);
    let log = kept.0.lock().unwrap().clone();
    for secret in secrets {
        assert!(!holds(&log, secret), "{secret} stands in the log");
    }
    // It is not empty for all that: each line is an object, and requests are told with their ids.
    let lines: Vec<Value> =
        String::from_utf8(log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["time"].is_string() && line["level"].is_string()));
    let requests = lines.iter().filter(|line| line["message"] == "request").count();
    assert!(requests > 20, "{requests}");
    assert!(lines.iter().any(|line| line["trace"] == trace && line["id"].is_string()));
}
