//! A synthetic crawl of any size, with what was planted in it counted; and a look at what a corpus made of it.
//!
//!     cargo run --release -p corpus --example crawl -- make FOLDER [--gigabytes 5] [--seed 1] [--file-megabytes 64]
//!     eulalia corpus --documents FOLDER/files --output runs/crawl --set opt_outs=FOLDER/opt-outs.jsonl …
//!     cargo run --release -p corpus --example crawl -- check FOLDER runs/crawl/corpus
//!
//! Files are JSON lines (zstd), JSON lines (gzip) and WARC (gzip) in turn. The same folder twice has the same bytes. `make`
//! verifies that documents which are no planted copies of each other stay below a Jaccard similarity of 0.3 (all pairs of
//! a sample of 20,000). `check` ends with 1 where something that was planted was not found, or something plain was lost.

mod check;
mod make;
mod plan;
mod random;
mod words;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: f64| match arguments.iter().position(|argument| argument == name) {
        None => Ok(default),
        Some(place) => arguments
            .get(place + 1)
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| format!("{name}: expected a number behind it")),
    };
    let run = || {
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["make", folder, ..] => make::make(
            Path::new(folder),
            number("--gigabytes", 5.0)?,
            number("--seed", 1.0)? as u64,
            number("--file-megabytes", 64.0)?,
        ),
        ["check", folder, corpus] => check::check(Path::new(folder), Path::new(corpus)),
        _ => Err("usage: crawl make FOLDER [--gigabytes N] [--seed N] [--file-megabytes N] | crawl check FOLDER CORPUS"
            .to_string()),
    }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
