//! Measures how fast the language identifier is on one core, over text that it has not just seen.
//!
//! `cargo run --release -p languages --example measure_identifier_speed -- FOLDER [--model FILE] [--write FOLDER]`
//!
//! FOLDER is laid out as for `train_identifier`. All of its text in the 38 languages is cut into documents of about
//! 3,000 bytes, which are shuffled and judged whole, with the model and in the way that `evaluate_identifier` measures.
//!
//! - *distinct*: every document once, about 10 MB: nothing is repeated.
//! - *by paragraphs*: the same, with the share of each language by paragraphs.
//! - *mix*: 64 MB of documents whose sentences are drawn at random from one language each, the n-th language of a
//!   shuffled list 1/n as often as the first: words come back as often as they do in a crawl.
//!
//! Time is what the thread spent on a core (`/proc/thread-self/schedstat`), so that other work on the machine counts only
//! as far as it empties caches. `--write` puts the distinct documents into files for other programs to judge.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use languages::identifier::{Identification, Identifier, LABEL_COUNT, Model, label_code};

const DOCUMENT_BYTES: usize = 3_000;
const MIX_BYTES: usize = 64_000_000;
const ROUNDS: usize = 7;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut folder = None;
    let mut model = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data/identifier.bin"));
    let mut write = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--model" => model = arguments.next().ok_or("--model needs a file")?.into(),
            "--write" => write = Some(PathBuf::from(arguments.next().ok_or("--write needs a folder")?)),
            _ => folder = Some(PathBuf::from(argument)),
        }
    }
    let folder = folder.ok_or("usage: measure_identifier_speed FOLDER [--model FILE] [--write FOLDER]")?;
    let bytes = std::fs::read(&model).map_err(|error| format!("{}: {error}", model.display()))?;
    let sentences = (0..LABEL_COUNT).map(|label| sentences(&folder, label_code(label)));
    let sentences: Vec<Vec<String>> = sentences.collect::<Result<_, _>>()?;
    let mut random = Random(1);
    let distinct = distinct_documents(&sentences, &mut random);
    if let Some(folder) = write {
        return write_documents(&distinct, &folder);
    }
    let start = Clock::now();
    let identifier = Identifier::new(Model::from_bytes(&bytes)?)?;
    println!("model of {} bytes laid out in {:.1} ms", bytes.len(), 1e3 * start.seconds());
    let whole = |text: &str| identifier.identify(text);
    measure("distinct", whole, &distinct);
    measure("distinct, by paragraphs", |text: &str| identifier.identify_document(text).0, &distinct);
    measure("mix", whole, &mixed_documents(&sentences, &mut random));
    Ok(())
}

/// Judges all documents [`ROUNDS`] times: between two meetings of a document lies all the other text. The first round, and
/// the sum of each document's fastest round: what other programs' turns on the core cost is then left out.
fn measure(name: &str, identify: impl Fn(&str) -> Identification, documents: &[(usize, String)]) {
    let bytes: usize = documents.iter().map(|(_, text)| text.len()).sum();
    let mut fastest = vec![f64::MAX; documents.len()];
    let mut rounds = Vec::new();
    let mut right = 0;
    for _ in 0..ROUNDS {
        let start = Clock::now();
        right = 0;
        for ((label, text), fastest) in documents.iter().zip(&mut fastest) {
            let start = Instant::now();
            right += usize::from(identify(text).code == label_code(*label));
            *fastest = fastest.min(start.elapsed().as_secs_f64());
        }
        rounds.push(start.seconds());
    }
    let speed = |seconds: f64| bytes as f64 / 1e6 / seconds;
    println!(
        "{name}: {:.1} MB/s in the first round, {:.1} with the fastest round of each document ({:.1} MB in {} documents, {:.2} % right)",
        speed(rounds[0]),
        speed(fastest.iter().sum()),
        bytes as f64 / 1e6,
        documents.len(),
        100.0 * right as f64 / documents.len() as f64
    );
}

/// All text of one language in short pieces.
fn sentences(folder: &Path, code: &str) -> Result<Vec<String>, String> {
    let mut sentences = Vec::new();
    for split in ["train", "dev", "test"] {
        let text = read(&folder.join(format!("sib200/{code}.{split}.tsv")))?;
        sentences.extend(text.lines().skip(1).filter_map(|line| line.split('\t').nth(2)).map(str::to_owned));
    }
    sentences.extend(read(&folder.join(format!("udhr/{code}.txt")))?.lines().map(str::to_owned));
    let treebank = folder.join(format!("ud/{code}.jsonl"));
    if treebank.exists() {
        for line in read(&treebank)?.lines() {
            let document: serde_json::Value =
                serde_json::from_str(line).map_err(|error| format!("{}: {error}", treebank.display()))?;
            let text = document["text"].as_str().unwrap_or_default();
            sentences.extend(text.split_inclusive(". ").map(str::to_owned));
        }
    }
    Ok(sentences)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Each sentence once.
fn distinct_documents(sentences: &[Vec<String>], random: &mut Random) -> Vec<(usize, String)> {
    let mut documents = Vec::new();
    for (label, sentences) in sentences.iter().enumerate() {
        let mut text = String::new();
        for sentence in sentences {
            text.push_str(sentence.trim());
            text.push('\n');
            if text.len() >= DOCUMENT_BYTES {
                documents.push((label, std::mem::take(&mut text)));
            }
        }
        if !text.is_empty() {
            documents.push((label, text));
        }
    }
    random.shuffle(&mut documents);
    documents
}

fn mixed_documents(sentences: &[Vec<String>], random: &mut Random) -> Vec<(usize, String)> {
    let mut labels: Vec<usize> = (0..LABEL_COUNT).collect();
    random.shuffle(&mut labels);
    let weights: Vec<f64> = (1..=LABEL_COUNT).map(|rank| 1.0 / rank as f64).collect();
    let total: f64 = weights.iter().sum();
    let mut documents = Vec::new();
    let mut bytes = 0;
    while bytes < MIX_BYTES {
        let mut point = random.next() as f64 / u64::MAX as f64 * total;
        let rank = weights.iter().position(|weight| {
            point -= weight;
            point <= 0.0
        });
        let label = labels[rank.unwrap_or(0)];
        let mut text = String::new();
        while text.len() < DOCUMENT_BYTES {
            let own = &sentences[label];
            text.push_str(own[random.below(own.len())].trim());
            text.push('\n');
        }
        bytes += text.len();
        documents.push((label, text));
    }
    documents
}

/// One JSON object a line: `language` and `text`.
fn write_documents(documents: &[(usize, String)], folder: &Path) -> Result<(), String> {
    let path = folder.join("documents.jsonl");
    let lines: String = documents
        .iter()
        .map(|(label, text)| {
            serde_json::json!({"language": label_code(*label), "text": text}).to_string() + "\n"
        })
        .collect();
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&path, lines))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Time of this thread on a core; elapsed time where the system does not tell.
struct Clock {
    began: Instant,
    on_core_nanoseconds: Option<u64>,
}

impl Clock {
    fn now() -> Clock {
        Clock { began: Instant::now(), on_core_nanoseconds: on_core_nanoseconds() }
    }

    fn seconds(&self) -> f64 {
        match (self.on_core_nanoseconds, on_core_nanoseconds()) {
            (Some(before), Some(after)) => (after - before) as f64 / 1e9,
            _ => self.began.elapsed().as_secs_f64(),
        }
    }
}

fn on_core_nanoseconds() -> Option<u64> {
    std::fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
