//! A web server for one test, on the loopback: it answers as the test says, and breaks off where the test says.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub range: Option<Range<usize>>,
    pub if_match: Option<String>,
    /// Requests before this one.
    pub number: usize,
}

/// What is answered.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Break off the connection after so many bytes of the body.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn new(status: &'static str) -> Reply {
        Reply { status, ..Reply::default() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    /// The bytes, or the range of them that was asked for.
    pub fn of(bytes: &[u8], request: &Request) -> Reply {
        match &request.range {
            Some(range) => {
                let range = range.start..range.end.min(bytes.len());
                let of = format!("bytes {}-{}/{}", range.start, range.end - 1, bytes.len());
                let body = bytes[range].to_vec();
                Reply { body, ..Reply::new("206 Partial Content") }.with("Content-Range", of)
            }
            None => Reply { body: bytes.to_vec(), ..Reply::new("200 OK") },
        }
    }

    pub fn cut_at(self, cut: usize) -> Reply {
        Reply { cut: Some(cut), ..self }
    }
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

    pub fn address(&self, target: &str) -> PathBuf {
        PathBuf::from(format!("http://127.0.0.1:{}{target}", self.port))
    }

    pub fn s3(&self, bucket_and_key: &str) -> PathBuf {
        PathBuf::from(format!("s3://{bucket_and_key}?endpoint=http://127.0.0.1:{}&region=eu-test", self.port))
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
    let mut words = first.split(' ').map(String::from);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut range, mut if_match) = (None, None);
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let (start, end) = value.trim().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                range = Some(start.parse().unwrap()..end.parse::<usize>().unwrap() + 1);
            }
            "if-match" => if_match = Some(value.trim().to_string()),
            _ => {}
        }
    }
    let request = {
        let mut log = log.lock().unwrap();
        let request = Request { method, target, range, if_match, number: log.len() };
        log.push(request.clone());
        request
    };
    let reply = answer(&request);
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| *name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = stream;
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())])?;
    }
    stream.flush()
}
