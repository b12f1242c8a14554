//! `eulalia pull` through the program itself, from a hub on the loopback: asked about a licence, killed in the middle, gone
//! on with, packed and unpacked.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use provenance::digest::sha256;

use crate::support::program;

const WEIGHTS_BYTES: usize = 4_000_000;
/// Bytes between two pauses of a slow hub.
const PIECE: usize = 50_000;

fn weights() -> Vec<u8> {
    (0..WEIGHTS_BYTES).map(|place| (place * 31 % 251) as u8).collect()
}

/// A decoder of some hundred million parameters, as far as its configuration says.
const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 16,
    "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 4096, "vocab_size": 32000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": false, "clip_everything": 3}"#;

/// A hub with one model, whose weights it hands out slowly; remembers from which byte they were asked.
struct SlowHub {
    address: String,
    asked: Arc<Mutex<Vec<usize>>>,
}

impl SlowHub {
    fn start(pause: Duration) -> SlowHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = log.clone();
                std::thread::spawn(move || drop(answer(stream, pause, &log)));
            }
        });
        SlowHub { address, asked }
    }
}

fn answer(mut stream: TcpStream, pause: Duration, asked: &Mutex<Vec<usize>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let mut from = 0;
    for line in lines {
        let line = line?.to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap();
        }
    }
    let weights = weights();
    if first.contains("/api/") {
        let file = |path: &str, bytes: &[u8]| {
            let (length, digest) = (bytes.len(), sha256(bytes));
            format!(
                r#"{{"rfilename": "{path}", "size": {length}, "lfs": {{"sha256": "{digest}", "size": {length}}}}}"#
            )
        };
        let json = format!(
            r#"{{"sha": "{}", "cardData": {{"license": "eupl-1.2"}}, "safetensors": {{"total": 250000000}}, "siblings": [{}, {}]}}"#,
            "a".repeat(40),
            file("config.json", CONFIG.as_bytes()),
            file("model.safetensors", &weights)
        );
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{json}",
            json.len()
        );
    }
    if first.contains("config.json") {
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{CONFIG}",
            CONFIG.len()
        );
    }
    asked.lock().unwrap().push(from);
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{WEIGHTS_BYTES}\r\n\r\n",
        WEIGHTS_BYTES - from,
        WEIGHTS_BYTES - 1
    )?;
    for piece in weights[from..].chunks(PIECE) {
        stream.write_all(piece)?;
        std::thread::sleep(pause);
    }
    Ok(())
}

fn pull(hub: &SlowHub, folder: &Path, more: &[&str]) -> Command {
    let mut command = program();
    command.args(["pull", "hf:org/model", "--mirror", &hub.address, "--to"]).arg(folder).args(more);
    command.env_remove("HF_TOKEN").stdin(Stdio::null());
    command
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn unfinished_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder.join(".pull")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn a_killed_pull_is_gone_on_with_and_a_whole_one_is_only_checked() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let slow = SlowHub::start(Duration::from_millis(20));
    let mut child = pull(&slow, &model, &["--yes"]).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while unfinished_bytes(&model) < 10 * PIECE as u64 {
        assert!(began.elapsed() < Duration::from_secs(60), "nothing comes");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!model.join("model.safetensors").exists());
    let quick = SlowHub::start(Duration::ZERO);
    let done = pull(&quick, &model, &["--yes", "--json"]).output().unwrap();
    assert!(done.status.success(), "{}", words(&done));
    assert!(quick.asked.lock().unwrap()[0] >= 10 * PIECE, "it began anew");
    assert!(std::fs::read(model.join("model.safetensors")).unwrap() == weights());
    let asked = quick.asked.lock().unwrap().len();
    // Nothing is to come: nobody has to be asked.
    let again = pull(&quick, &model, &[]).output().unwrap();
    assert!(again.status.success() && words(&again).contains("2 files checked"), "{}", words(&again));
    assert_eq!(quick.asked.lock().unwrap().len(), asked);
}

#[test]
fn a_licence_is_shown_before_anything_is_fetched_and_scripts_have_to_agree() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let hub = SlowHub::start(Duration::ZERO);
    let refused = pull(&hub, &model, &[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(words(&refused).contains("eupl-1.2") && words(&refused).contains("--yes"), "{}", words(&refused));
    assert!(!model.exists() && hub.asked.lock().unwrap().is_empty());
    let unknown = program().args(["pull", "eurolm-9b-instruct"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(words(&unknown).contains("did you mean \"eurollm-9b-instruct\""), "{}", words(&unknown));
}

#[test]
fn a_bundle_reaches_a_machine_without_network() {
    let folder = tempfile::tempdir().unwrap();
    let (model, bundle) = (folder.path().join("model"), folder.path().join("model.tar"));
    let hub = SlowHub::start(Duration::ZERO);
    let made = pull(&hub, &model, &["--yes", "--bundle", bundle.to_str().unwrap()]).output().unwrap();
    assert!(made.status.success(), "{}", words(&made));
    let there = folder.path().join("there");
    let unpack =
        || program().args(["pull", "--from-bundle"]).arg(&bundle).arg("--to").arg(&there).output().unwrap();
    let unpacked = unpack();
    assert!(unpacked.status.success(), "{}", words(&unpacked));
    assert!(std::fs::read(there.join("model.safetensors")).unwrap() == weights());
    let mut bytes = std::fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bundle, bytes).unwrap();
    let refused = unpack();
    assert_eq!(refused.status.code(), Some(1));
    assert!(words(&refused).contains("digest"), "{}", words(&refused));
}

#[test]
fn a_doctor_judges_a_model_that_is_still_on_the_hub() {
    let hub = SlowHub::start(Duration::ZERO);
    let mut command = program();
    command.args([
        "doctor",
        "hf:org/model",
        "--mirror",
        &hub.address,
        "--json",
        "--rated-watts",
        "100",
        "--threads",
        "1",
    ]);
    let judged = command.env_remove("HF_TOKEN").output().unwrap();
    // A key that the decoder does not follow, and no tokenizer.
    assert_eq!(judged.status.code(), Some(1), "{}", words(&judged));
    let result: serde_json::Value = serde_json::from_slice(&judged.stdout).unwrap();
    let problems = result["problems"].to_string();
    assert!(problems.contains("clip_everything") && problems.contains("tokenizer.json"), "{problems}");
    assert_eq!(result["model"]["parameters"], 250_000_000);
    // Keys and values of four heads of 64 numbers in 16 layers.
    assert_eq!(result["estimate"]["formats"][0]["cache_bytes_per_token"], 16 * 2 * 4 * 64 * 4);
    let format = |place: usize, key: &str| result["estimate"]["formats"][place][key].as_f64().unwrap();
    let bandwidth = result["speed"]["read_bytes_per_second"].as_f64().unwrap();
    // The input table of 32,000 rows is only looked up.
    let read = 4.0 * (250_000_000.0 - 32_000.0 * 1024.0);
    let expected = bandwidth / read;
    assert!((format(0, "decode_tokens_per_second_at_most") / expected - 1.0).abs() < 1e-6);
    assert!((format(0, "joules_per_decoded_token") * expected / 100.0 - 1.0).abs() < 1e-6);
    assert!(hub.asked.lock().unwrap().is_empty(), "weights were asked for");
}
