//! How fast the search is on one core: `cargo run --release -p personal_data --example personal_data_speed -- [--show] [FILE…]`.
//!
//! Files are JSON lines with a `text` (and a `language`, if they say) or plain text; without any, the bundled sample is
//! taken. `--show` prints what was found with the words around it, to look at.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use languages::Language;
use personal_data::{Finding, find};

/// The best round within this time counts: other work on the machine slows down the rest.
const LEAST_TIME: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (flags, mut paths): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    if paths.is_empty() {
        let sample = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/tiny/documents"));
        paths = Language::all()
            .map(|language| sample.join(format!("{language}.jsonl")).display().to_string())
            .collect();
    }
    let mut texts: Vec<(Option<Language>, String)> = Vec::new();
    for path in &paths {
        read(path, &mut texts)?;
    }
    let bytes: usize = texts.iter().map(|(_, text)| text.len()).sum();
    let found: usize = texts.iter().map(|(language, text)| find(text, *language).len()).sum();
    if flags.iter().any(|flag| flag == "--show") {
        texts.iter().for_each(|(language, text)| show(text, *language));
    }

    let (started, mut best) = (Instant::now(), f64::MAX);
    while started.elapsed() < LEAST_TIME {
        let round = Instant::now();
        let again: usize = texts.iter().map(|(language, text)| find(text, *language).len()).sum();
        assert_eq!(again, found);
        best = best.min(round.elapsed().as_secs_f64());
    }
    println!("texts      {:10}", texts.len());
    println!("text       {:10.1} MB", bytes as f64 / 1e6);
    println!("found      {found:10}");
    println!("rate       {:10.0} MB/s on one core", bytes as f64 / 1e6 / best);
    Ok(())
}

fn read(path: &str, texts: &mut Vec<(Option<Language>, String)>) -> Result<(), Box<dyn std::error::Error>> {
    let content = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    if !path.ends_with(".jsonl") {
        texts.push((None, content));
        return Ok(());
    }
    for (number, line) in content.lines().enumerate() {
        let line: serde_json::Value =
            serde_json::from_str(line).map_err(|error| format!("{path}:{}: {error}", number + 1))?;
        let language = line["language"].as_str().or(line["lang"].as_str());
        let text = line["text"].as_str().ok_or_else(|| format!("{path}:{}: no `text`", number + 1))?;
        texts.push((language.and_then(|code| Language::from_code(code).ok()), text.to_string()));
    }
    Ok(())
}

fn show(text: &str, language: Option<Language>) {
    for Finding { kind, range } in find(text, language) {
        let before: Vec<char> = text[..range.start].chars().rev().take(50).collect();
        let before: String = before.into_iter().rev().collect();
        let after: String = text[range.end..].chars().take(30).collect();
        let code = language.map_or("??", Language::code);
        println!("{code} {kind:?}: {}", format!("{before}[[{}]]{after}", &text[range]).replace('\n', "⏎"));
    }
}
