//! Two measurements of the server around a real model, each against itself in one run:
//!
//! ```text
//! cargo run --release -p serving --example load -- overhead MODEL [--weights q8_0] [--tokens 64] [--rounds 7]
//! cargo run --release -p serving --example load -- fairness MODEL [--weights q8_0] [--prompt 256] [--requests 60]
//! ```
//!
//! `overhead`: tokens per second of eight streams, through HTTP and from the bare engine, in turns; medians and their
//! ratio. `fairness`: the time to the first token of a tenant that asks now and then, alone and while another tenant keeps
//! 64 requests under way. MODEL is a folder or GGUF file as for `eulalia serve`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use inference::{Engine, EngineSettings, Event, Request};
use provenance::Context;
use serde_json::{Value, json};
use serving::{KeyStore, Role, ServeSettings, ServedModel, serve};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const STREAMS: usize = 8;
const FLOOD: usize = 64;

struct Arguments {
    what: String,
    model: PathBuf,
    weights: String,
    threads: usize,
    tokens: usize,
    prompt: usize,
    rounds: usize,
    requests: usize,
}

fn main() -> Result<(), Failure> {
    let arguments = read_arguments()?;
    let settings = EngineSettings {
        threads: arguments.threads,
        weights: serde_json::from_value(json!(arguments.weights))?,
        context_length: Some(2_048),
        leaves_room: true,
        ..EngineSettings::default()
    };
    let engine = Arc::new(Engine::start(&arguments.model, &settings)?);
    let folder = tempfile::tempdir()?;
    let server = Server::start(folder.path().join("state"), engine.clone(), arguments.threads)?;
    match arguments.what.as_str() {
        "overhead" => overhead(&arguments, &engine, &server),
        "fairness" => fairness(&arguments, &server),
        other => Err(format!("`{other}`: expected overhead or fairness").into()),
    }
}

fn read_arguments() -> Result<Arguments, Failure> {
    let mut words = std::env::args().skip(1);
    let usage = "usage: load overhead|fairness MODEL [--weights F] [--threads N] [--tokens N] [--prompt N] [--rounds N] \
                 [--requests N]";
    let (what, model) = (words.next().ok_or(usage)?, words.next().ok_or(usage)?);
    let mut arguments = Arguments {
        what,
        model: PathBuf::from(model),
        weights: "f32".to_string(),
        threads: 2,
        tokens: 64,
        prompt: 256,
        rounds: 7,
        requests: 60,
    };
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(usage)?;
        match flag.as_str() {
            "--weights" => arguments.weights = value,
            "--threads" => arguments.threads = value.parse()?,
            "--tokens" => arguments.tokens = value.parse()?,
            "--prompt" => arguments.prompt = value.parse()?,
            "--rounds" => arguments.rounds = value.parse()?,
            "--requests" => arguments.requests = value.parse()?,
            _ => return Err(usage.into()),
        }
    }
    Ok(arguments)
}

/// A running server and the keys of two tenants.
struct Server {
    address: SocketAddr,
    keys: [String; 2],
}

impl Server {
    fn start(state: PathBuf, engine: Arc<Engine>, threads: usize) -> Result<Server, Failure> {
        let store = KeyStore::open(&state)?;
        let key = |tenant| store.new_key(tenant, "", Role::User, None, 1).map(|made| made.key);
        let keys = [key("first")?, key("second")?];
        let settings = ServeSettings {
            state,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..ServeSettings::default()
        };
        let model =
            ServedModel { name: "m".into(), engine, adapter: None, digest: "0".repeat(64), created: 0 };
        let (bound, listening) = mpsc::channel();
        thread::spawn(move || {
            let context = Context::quiet(threads);
            // Nobody listens any more once the measurement is over.
            let done = serve(&settings, vec![model], &context, |address| {
                let _ = bound.send(address);
            });
            if let Err(error) = done {
                eprintln!("{error}");
            }
        });
        Ok(Server { address: listening.recv()?, keys })
    }

    fn client(&self, tenant: usize) -> Result<Client, Failure> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        Ok(Client { key: self.keys[tenant].clone(), reader: BufReader::new(stream.try_clone()?), stream })
    }
}

/// One connection that is kept.
struct Client {
    key: String,
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// One streamed answer.
struct Streamed {
    first: Duration,
    tokens: usize,
}

impl Client {
    fn stream(&mut self, prompt: &[u32], tokens: usize) -> Result<Streamed, Failure> {
        let body = json!({
            "model": "m", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": true,
            "stream_options": {"include_usage": true},
        })
        .to_string();
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: m\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
            self.key,
            body.len()
        );
        let asked = Instant::now();
        self.stream.write_all(format!("{head}{body}").as_bytes())?;
        let (mut line, mut first, mut counted) = (Vec::new(), None, 0);
        loop {
            line.clear();
            if self.reader.read_until(b'\n', &mut line)? == 0 {
                return Err("the server closed the connection".into());
            }
            if line.starts_with(b"HTTP/1.1 ") && !line.starts_with(b"HTTP/1.1 200") {
                return Err(String::from_utf8_lossy(&line).into());
            }
            if line.starts_with(b"data: [DONE]") {
                // The end of the chunk and the last chunk.
                while line != b"0\r\n" {
                    line.clear();
                    self.reader.read_until(b'\n', &mut line)?;
                }
                self.reader.read_until(b'\n', &mut line)?;
                break;
            }
            if line.starts_with(b"data: ") {
                first.get_or_insert_with(|| asked.elapsed());
                if line.windows(12).any(|part| part == b"total_tokens") {
                    let chunk: Value = serde_json::from_slice(&line[6..])?;
                    counted = chunk["usage"]["completion_tokens"].as_u64().unwrap_or(0) as usize;
                }
            }
        }
        Ok(Streamed { first: first.unwrap_or_default(), tokens: counted })
    }
}

/// Prompts of ordinary tokens, each another one: nothing of them is in the cache.
fn prompt(number: u64, length: usize, vocabulary: usize) -> Vec<u32> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut token = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        10 + (state >> 33) as u32 % (vocabulary as u32 - 10)
    };
    (0..length).map(|_| token()).collect()
}

fn overhead(arguments: &Arguments, engine: &Arc<Engine>, server: &Server) -> Result<(), Failure> {
    let vocabulary = engine.tokenizer().vocabulary_size().min(250);
    let prompts = |round: usize| {
        (0..STREAMS as u64)
            .map(|stream| prompt(round as u64 * 100 + stream, 32, vocabulary))
            .collect::<Vec<_>>()
    };
    let direct = |round: usize| -> Result<f64, Failure> {
        let began = Instant::now();
        let handles: Result<Vec<_>, _> = prompts(round)
            .into_iter()
            .map(|prompt| {
                engine
                    .submit(Request { max_tokens: Some(arguments.tokens), ..Request::new("direct", prompt) })
            })
            .collect();
        let readers: Vec<_> = handles?
            .into_iter()
            .map(|handle| {
                thread::spawn(move || {
                    handle
                        .map(|event| match event {
                            Event::Finished { usage, .. } => usage.completion_tokens,
                            _ => 0,
                        })
                        .sum::<usize>()
                })
            })
            .collect();
        let tokens: usize = readers.into_iter().map(|reader| reader.join().unwrap_or(0)).sum();
        Ok(tokens as f64 / began.elapsed().as_secs_f64())
    };
    let through_http = |round: usize| -> Result<f64, Failure> {
        let clients: Result<Vec<Client>, Failure> = (0..STREAMS).map(|_| server.client(0)).collect();
        let began = Instant::now();
        let readers: Vec<_> = clients?
            .into_iter()
            .zip(prompts(round))
            .map(|(mut client, prompt)| {
                let tokens = arguments.tokens;
                thread::spawn(move || client.stream(&prompt, tokens).map(|streamed| streamed.tokens))
            })
            .collect();
        let mut tokens = 0;
        for reader in readers {
            tokens += reader.join().map_err(|_| "a client panicked")??;
        }
        Ok(tokens as f64 / began.elapsed().as_secs_f64())
    };
    let (mut bare, mut served) = (Vec::new(), Vec::new());
    for round in 0..=arguments.rounds {
        let (a, b) = (direct(2 * round)?, through_http(2 * round + 1)?);
        // The first round warms up.
        if round > 0 {
            bare.push(a);
            served.push(b);
        }
    }
    let (bare, served) = (quantile(&mut bare, 0.5), quantile(&mut served, 0.5));
    println!("{STREAMS} streams of {} tokens, medians of {} rounds:", arguments.tokens, arguments.rounds);
    println!(
        "  bare engine {bare:.1} tokens/s, through the server {served:.1}; loss {:.1} %",
        (1.0 - served / bare) * 100.0
    );
    Ok(())
}

fn fairness(arguments: &Arguments, server: &Server) -> Result<(), Failure> {
    let vocabulary = 250;
    let mut client = server.client(0)?;
    let mut number = 0;
    let mut measure = |requests: usize| -> Result<Vec<f64>, Failure> {
        (0..requests)
            .map(|_| {
                number += 1;
                let streamed = client.stream(&prompt(number, arguments.prompt, vocabulary), 8)?;
                thread::sleep(Duration::from_millis(20));
                Ok(streamed.first.as_secs_f64() * 1_000.0)
            })
            .collect()
    };
    measure(5)?;
    let mut quiet = measure(arguments.requests)?;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flood: Result<Vec<_>, Failure> = (0..FLOOD as u64)
        .map(|connection| {
            let (stop, answered, mut client) = (stop.clone(), answered.clone(), server.client(1)?);
            let (length, tokens) = (2 * arguments.prompt, arguments.tokens);
            Ok(thread::spawn(move || {
                let mut number = (connection + 1) << 32;
                while !stop.load(Ordering::Relaxed) {
                    number += 1;
                    match client.stream(&prompt(number, length, vocabulary), tokens) {
                        Ok(_) => answered.fetch_add(1, Ordering::Relaxed),
                        Err(_) => break,
                    };
                }
            }))
        })
        .collect();
    let flood = flood?;
    thread::sleep(Duration::from_secs(2));
    let mut flooded = measure(arguments.requests)?;
    stop.store(true, Ordering::Relaxed);
    println!(
        "time to first token of {} prompts of {} tokens, in ms (the flood: {FLOOD} connections, prompts of {} tokens, {} \
         answered meanwhile):",
        arguments.requests,
        arguments.prompt,
        2 * arguments.prompt,
        answered.load(Ordering::Relaxed)
    );
    for (name, part) in [("p50", 0.5), ("p99", 0.99)] {
        let (alone, beside) = (quantile(&mut quiet, part), quantile(&mut flooded, part));
        println!("  {name}: alone {alone:.1}, beside the flood {beside:.1}: ×{:.2}", beside / alone);
    }
    // The flood's last requests need not be waited for.
    drop(flood);
    Ok(())
}

/// The value below which this part of the values lies.
fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (part * values.len() as f64).ceil() as usize;
    values.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
