//! How fast the corpus stage is: `cargo run --release -p corpus --example throughput -- [MEGABYTES] [THREADS]`.
//!
//! Makes documents by drawing sentences from the bundled sample (each language its own), so that every step has work to
//! do on real words, runs the whole stage on them in a temporary folder, and prints rates. A few sentences come often:
//! this measures speed, not quality.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use corpus::{Settings, SmallLanguage};
use documents::{Document, read_shard};
use languages::Language;
use provenance::{Context, StageOutput};

/// Sentences a document: about 1.5 KB of text, between the medians of web pages and of encyclopaedias.
const SENTENCES: usize = 14;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let megabytes: u64 = arguments.next().map_or(Ok(50), |text| text.parse())?;
    let threads: usize = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let input = folder.path().join("input.jsonl");
    let text_bytes = write_input(&input, megabytes << 20)?;

    let output =
        StageOutput { payload: folder.path().join("payload"), scratch: folder.path().join("scratch") };
    fs::create_dir(&output.payload)?;
    fs::create_dir(&output.scratch)?;
    let settings = Settings {
        small_language: SmallLanguage::TrainOnly,
        // The same sentences stand in many documents here, by construction.
        boilerplate_documents: 0,
        ..Settings::default()
    };
    let started = Instant::now();
    let report = corpus::build(&settings, &[input], &output, &Context::quiet(threads))?;
    let seconds = started.elapsed().as_secs_f64();

    println!("text             {:8.1} MB", text_bytes as f64 / 1e6);
    println!("documents        {:8}", report.total.read);
    println!("kept             {:8}", report.total.kept);
    println!("threads          {threads:8}");
    println!("time             {seconds:8.2} s");
    println!("rate             {:8.1} MB of text/s", text_bytes as f64 / 1e6 / seconds);
    println!("rate             {:8.0} documents/s", report.total.read as f64 / seconds);
    if let Some(peak) = peak_memory_megabytes() {
        println!("peak memory      {peak:8.0} MB");
    }
    Ok(())
}

fn write_input(path: &Path, bytes: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let sample = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/tiny/documents"));
    let mut sentences: Vec<Vec<String>> = Vec::new();
    for language in Language::all() {
        let mut of_language = Vec::new();
        for document in read_shard(&sample.join(format!("{language}.jsonl")))? {
            of_language.extend(document?.text.split_inclusive(". ").map(str::to_string));
        }
        sentences.push(of_language);
    }
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let (mut written, mut state) = (0, 7u64);
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for number in 0u64.. {
        if written >= bytes {
            break;
        }
        let language = Language::all().nth(draw(24)).ok_or("there are 24 languages")?;
        let of_language = &sentences[language.index()];
        let text: String = (0..SENTENCES).map(|_| of_language[draw(of_language.len())].as_str()).collect();
        written += text.len() as u64;
        let document = Document {
            language: Some(language.to_string()),
            license: Some("CC0-1.0".to_string()),
            ..Document::new(format!("{language}-{number}"), text)
        };
        writeln!(file, "{}", document.to_json())?;
    }
    file.into_inner()?.sync_all()?;
    Ok(written)
}

/// The high-water mark of this process, where the system tells it.
fn peak_memory_megabytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
