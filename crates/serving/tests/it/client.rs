//! A server on loopback over a toy engine, and the plainest client there can be: bytes over TCP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use inference::testing::{alphabet_engine_with, write_byte_tokenizer};
use inference::{Engine, EngineSettings};
use provenance::{Cancellation, Clock, Context, Storage};
use serde_json::Value;
use serving::{Controls, KeyStore, Role, ServeReport, ServeSettings, ServedModel, ServingError, serve_with};
use tokenizer::Tokenizer;

/// Longest wait for anything in these tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct TestServer {
    pub address: SocketAddr,
    pub key: String,
    pub key_id: String,
    pub engine: Arc<Engine>,
    pub state: PathBuf,
    folder: Arc<tempfile::TempDir>,
    cancellation: Cancellation,
    thread: Option<JoinHandle<Result<ServeReport, ServingError>>>,
}

/// How the server under test differs from the default.
pub struct Options {
    pub settings: ServeSettings,
    pub engine: EngineSettings,
    /// Time of one step of the engine.
    pub step: Duration,
    pub storage: Storage,
    pub clock: Clock,
    pub controls: Controls,
    /// In place of the toy's own.
    pub chat_template: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        let settings = ServeSettings {
            address: "127.0.0.1:0".parse().unwrap(),
            drain_seconds: 5,
            ..ServeSettings::default()
        };
        Options {
            settings,
            engine: EngineSettings::default(),
            step: Duration::ZERO,
            storage: Storage::disk(),
            clock: Context::quiet(1).clock,
            controls: Controls::default(),
            chat_template: None,
        }
    }
}

impl TestServer {
    pub fn start(options: Options) -> TestServer {
        TestServer::start_in(Arc::new(tempfile::tempdir().unwrap()), options)
    }

    /// Another server on the state of this one, which must have stopped.
    pub fn start_again(&self, options: Options) -> TestServer {
        TestServer::start_in(self.folder.clone(), options)
    }

    fn start_in(folder: Arc<tempfile::TempDir>, options: Options) -> TestServer {
        write_byte_tokenizer(folder.path()).unwrap();
        if let Some(template) = options.chat_template {
            let configuration = serde_json::json!({"eos_token": "<|endoftext|>", "chat_template": template});
            std::fs::write(folder.path().join("tokenizer_config.json"), configuration.to_string()).unwrap();
        }
        let tokenizer = Tokenizer::load(folder.path()).unwrap();
        let engine = Arc::new(alphabet_engine_with(tokenizer, 64, options.step, &options.engine));
        let state = folder.path().join("state");
        let new = KeyStore::open(&state).unwrap().new_key("Test", "test", Role::Admin, None, 0).unwrap();
        let model = ServedModel {
            name: "toy".into(),
            engine: engine.clone(),
            adapter: None,
            digest: "ab".repeat(32),
            created: 7,
        };
        let chat =
            ServedModel { name: "toy-backwards".into(), adapter: Some("backwards".into()), ..model.clone() };
        let context = Context { storage: options.storage, clock: options.clock, ..Context::quiet(2) };
        let cancellation = context.cancellation.clone();
        let (bound, listening) = mpsc::channel();
        let settings = ServeSettings { state: state.clone(), ..options.settings };
        let thread = std::thread::spawn(move || {
            let bound = |address| bound.send(address).unwrap();
            serve_with(&settings, vec![model, chat], &context, options.controls, bound)
        });
        let address = listening.recv_timeout(PATIENCE).expect("the server listens");
        TestServer {
            address,
            key: new.key,
            key_id: new.id,
            engine,
            state,
            folder,
            cancellation,
            thread: Some(thread),
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// A request with the right key.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_with(method, path, &format!("Authorization: Bearer {}\r\n", self.key), body)
    }

    pub fn post(&self, path: &str, body: Value) -> Answer {
        self.ask("POST", path, &body.to_string())
    }

    pub fn ask_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request_text(method, path, headers, body).as_bytes()).unwrap();
        Answer::read(stream)
    }

    /// Sends a request with the right key and leaves the answer to the caller.
    pub fn begin(&self, path: &str, body: Value) -> TcpStream {
        let mut stream = self.connect();
        let headers = format!("Authorization: Bearer {}\r\n", self.key);
        stream.write_all(request_text("POST", path, &headers, &body.to_string()).as_bytes()).unwrap();
        stream
    }

    pub fn ask_to_stop(&self) {
        self.cancellation.cancel();
    }

    pub fn stop(&mut self) -> ServeReport {
        self.ask_to_stop();
        self.thread.take().unwrap().join().unwrap().unwrap()
    }

    pub fn wait_until(&self, what: &str, done: impl Fn(&TestServer) -> bool) {
        let started = Instant::now();
        while !done(self) {
            assert!(started.elapsed() < PATIENCE, "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lines of the audit log as JSON.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.state.join("audit/audit-000001.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn request_text(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn read(stream: impl Read) -> Answer {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let status =
            line.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {line:?}")).parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_lowercase(), value.to_string())),
                None => break,
            }
        }
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = String::from_utf8(if chunked { dechunk(&rest) } else { rest }).unwrap();
        Answer { status, headers, body }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    /// Asserts the status and the field at fault.
    pub fn check(&self, status: u16, param: Option<&str>) -> &Answer {
        assert_eq!(self.status, status, "{}", self.body);
        let error = &self.json()["error"];
        assert_eq!(error["param"].as_str(), param, "{error}");
        assert!(
            error["message"].is_string() && error["type"].is_string() && error["code"].is_string(),
            "{error}"
        );
        self
    }

    /// Asserts that it is an answer, not a complaint.
    pub fn check_ok(&self) -> &Answer {
        assert_eq!(self.status, 200, "{}", self.body);
        self
    }

    /// The payloads of server-sent events, `[DONE]` left as it is.
    pub fn events(&self) -> Vec<&str> {
        self.body
            .split("\n\n")
            .filter(|event| !event.is_empty())
            .map(|event| event.strip_prefix("data: ").unwrap())
            .collect()
    }
}

fn dechunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        bytes = &bytes[end + 2..];
        if length == 0 || bytes.len() < length {
            break;
        }
        whole.extend_from_slice(&bytes[..length]);
        bytes = &bytes[length + 2..];
    }
    whole
}
