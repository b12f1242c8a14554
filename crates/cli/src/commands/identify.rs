//! `eulalia identify`: the language of files, of standard input, or of every line.

use std::io::{BufRead, Read, Write};
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::arguments::IdentifyArguments;

/// A line longer than this is no line of text.
const LONGEST_LINE_BYTES: u64 = 64 << 20;

pub fn identify(arguments: &IdentifyArguments, json: bool) -> anyhow::Result<Value> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut results = Vec::new();
    let mut judge = |name: &str, text: &str| -> std::io::Result<()> {
        let found = languages::identify(text);
        let (language, score) = (found.code, found.score);
        match (arguments.lines, json) {
            (true, true) => writeln!(out, "{}", json!({"language": language, "score": score})),
            (true, false) => writeln!(out, "{language}\t{score:.4}"),
            (false, true) => {
                results.push(json!({"file": name, "language": language, "score": score}));
                Ok(())
            }
            (false, false) => writeln!(out, "{name}\t{language}\t{score:.4}"),
        }
    };
    let mut read = |name: &str, source: &mut dyn Read| -> anyhow::Result<()> {
        let place = || format!("cannot read {name}");
        if !arguments.lines {
            let mut bytes = Vec::new();
            source.read_to_end(&mut bytes).with_context(place)?;
            return Ok(judge(name, &String::from_utf8_lossy(&bytes))?);
        }
        let mut source = std::io::BufReader::new(source);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let limited = &mut (&mut source).take(LONGEST_LINE_BYTES);
            if limited.read_until(b'\n', &mut line).with_context(place)? == 0 {
                break;
            }
            if line.len() as u64 == LONGEST_LINE_BYTES && !line.ends_with(b"\n") {
                anyhow::bail!("{name}: line {number} is longer than {} MiB", LONGEST_LINE_BYTES >> 20);
            }
            judge(name, String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']))?;
        }
        Ok(())
    };
    if arguments.files.is_empty() {
        read("standard input", &mut std::io::stdin().lock())?;
    }
    for path in &arguments.files {
        read(&path.display().to_string(), &mut open(path)?)?;
    }
    out.flush()?;
    drop(out);
    if arguments.lines && json {
        // The lines themselves were the result.
        return Ok(Value::Null);
    }
    Ok(json!({ "files": results }))
}

fn open(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))
}
