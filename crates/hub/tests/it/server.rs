//! A hub for one test, on the loopback: it holds files, lists them as a hub does, and answers as the test says.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Path and query, as they were sent.
    pub target: String,
    /// First byte that was asked for.
    pub range: Option<usize>,
    pub if_range: Option<String>,
    pub token: Option<String>,
    /// Requests before this one.
    pub number: usize,
}

impl Request {
    pub fn is_list(&self) -> bool {
        self.target.starts_with("/api/")
    }
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Break off the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Go on with zeros for ever.
    pub endless: bool,
}

impl Reply {
    pub fn new(status: &str) -> Reply {
        Reply { status: status.to_string(), ..Reply::default() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_string(), value.into()));
        self
    }

    /// The bytes, or those from where it was asked for.
    pub fn of(bytes: &[u8], request: &Request) -> Reply {
        match request.range {
            Some(from) if from >= bytes.len() => Reply::new("416 Range Not Satisfiable"),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Reply { body: bytes[from..].to_vec(), ..Reply::new("206 Partial Content") }
                    .with("Content-Range", range)
            }
            None => Reply { body: bytes.to_vec(), ..Reply::new("200 OK") },
        }
    }

    pub fn cut_at(self, cut: usize) -> Reply {
        Reply { cut: Some(cut), ..self }
    }
}

/// A model as a hub holds it: small files in git, large ones beside it.
#[derive(Clone)]
pub struct Model {
    pub files: Vec<(String, Vec<u8>)>,
    pub gated: &'static str,
}

/// Files of at least this many bytes are large.
const LARGE: usize = 10_000;

impl Model {
    /// A model of the usual files, with a megabyte of weights.
    pub fn usual() -> Model {
        let mut state = 7u32;
        let weights = (0..1_000_000).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        let file = |path: &str, bytes: &[u8]| (path.to_string(), bytes.to_vec());
        Model {
            files: vec![
                file(".gitattributes", b"*.safetensors filter=lfs"),
                file("README.md", "# Mudell żgħir".as_bytes()),
                file("config.json", b"{}"),
                file("model.safetensors", &weights.collect::<Vec<u8>>()),
                file("pytorch_model.bin", b"pickle"),
                file("tokenizer.json", b"{\"version\": \"1.0\"}"),
            ],
            gated: "false",
        }
    }

    pub fn bytes(&self, path: &str) -> &[u8] {
        &self.files.iter().find(|(name, _)| name == path).unwrap_or_else(|| panic!("{path}")).1
    }

    /// The list of files, as `?blobs=true` gives it.
    pub fn list(&self) -> String {
        let siblings: Vec<String> = self.files.iter().map(|(path, bytes)| sibling(path, bytes)).collect();
        format!(
            r#"{{"id": "org/model", "sha": "{COMMIT}", "gated": {}, "cardData": {{"license": "apache-2.0"}}, "siblings": [{}]}}"#,
            self.gated,
            siblings.join(", ")
        )
    }

    /// As a hub answers: the list, small files at once, large ones by way of another address.
    pub fn answer(&self, request: &Request) -> Reply {
        if request.is_list() {
            return Reply { body: self.list().into_bytes(), ..Reply::new("200 OK") };
        }
        let path = request.target.split('?').next().unwrap_or_default();
        if let Some(path) = path.strip_prefix("/storage/") {
            return Reply::of(self.bytes(path), request)
                .with("ETag", format!("\"{}\"", hex(&Sha256::digest(self.bytes(path)))));
        }
        let Some(path) = path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/")) else {
            return Reply::new("404 Not Found");
        };
        match self.files.iter().find(|(name, _)| name == path) {
            Some((_, bytes)) if bytes.len() >= LARGE => Reply::new("302 Found")
                .with("Location", format!("/storage/{path}?signature=secret"))
                .with("X-Repo-Commit", COMMIT)
                .with("X-Linked-Etag", format!("\"{}\"", hex(&Sha256::digest(bytes)))),
            Some((_, bytes)) => Reply::of(bytes, request).with("X-Repo-Commit", COMMIT),
            None => Reply::new("404 Not Found").with("X-Error-Code", "EntryNotFound"),
        }
    }
}

pub fn sibling(path: &str, bytes: &[u8]) -> String {
    let mut git = Sha1::new();
    git.update(format!("blob {}\0", bytes.len()));
    git.update(bytes);
    let lfs = match bytes.len() {
        0..LARGE => String::new(),
        length => {
            format!(
                r#", "lfs": {{"sha256": "{}", "size": {length}, "pointerSize": 134}}"#,
                hex(&Sha256::digest(bytes))
            )
        }
    };
    let path = serde_json::to_string(path).unwrap();
    format!(r#"{{"rfilename": {path}, "size": {}, "blobId": "{}"{lfs}}}"#, bytes.len(), hex(&git.finalize()))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                // A client that goes away in the middle is no concern of the server.
                std::thread::spawn(move || drop(serve(stream, &log, answer.as_ref())));
            }
        });
        Server { port, requests }
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Reply,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let target = first.split(' ').nth(1).unwrap_or_default().to_string();
    let (mut range, mut if_range, mut token) = (None, None, None);
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                range = value.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-')?.parse().ok())
            }
            "if-range" => if_range = Some(value.to_string()),
            "authorization" => token = Some(value.to_string()),
            _ => {}
        }
    }
    let request = {
        let mut log = log.lock().unwrap();
        let request = Request { target, range, if_range, token, number: log.len() };
        log.push(request.clone());
        request
    };
    let reply = answer(&request);
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", reply.status);
    if !reply.endless && !reply.headers.iter().any(|(name, _)| name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())])?;
    if reply.endless {
        loop {
            stream.write_all(&[0; 1 << 16])?;
        }
    }
    stream.flush()
}
