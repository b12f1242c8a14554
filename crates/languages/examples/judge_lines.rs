//! Names the language of each line of standard input, and says how much time of a core that took: what `eulalia identify
//! --lines` does, without a program around it, for `tools/bench/compare_identifiers.py`.
//!
//! `cargo run --release -p languages --example judge_lines [-- --model FILE] < LINES`
//!
//! Prints the ISO 639-1 code or `other` for each line, and to standard error the seconds from the first line to the last,
//! without reading and printing.

use std::io::Read;
use std::process::ExitCode;

use languages::identifier::{Identifier, Model};

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
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let model = match arguments.as_slice() {
        [] => concat!(env!("CARGO_MANIFEST_DIR"), "/data/identifier.bin"),
        [flag, file] if flag == "--model" => file.as_str(),
        _ => return Err("usage: judge_lines [--model FILE] < LINES".to_owned()),
    };
    let bytes = std::fs::read(model).map_err(|error| format!("{model}: {error}"))?;
    let identifier = Identifier::new(Model::from_bytes(&bytes)?)?;
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
    let before = on_core_seconds();
    let codes: Vec<&str> = text.lines().map(|line| identifier.identify(line).code).collect();
    eprintln!("{:.6}", on_core_seconds() - before);
    println!("{}", codes.join("\n"));
    Ok(())
}

/// Time of this thread on a core, which other work on the machine does not lengthen; 0 where the system does not tell.
fn on_core_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok()).unwrap_or_default() / 1e9
}
