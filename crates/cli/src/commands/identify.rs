//! `eulalia identify`: the language of files, of standard input, or of every line.
//!
//! Lines are answered as they come, files are read in pieces: memory stays bounded. Bytes that are no text (a zero among
//! the first ones, or hardly any valid UTF-8) are named as such instead of being given a language; stray invalid bytes
//! are read as U+FFFD.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::Path;

use anyhow::Context as _;
use languages::identifier::Document;
use languages::{Identification, Share};
use serde_json::{Value, json};

use crate::arguments::IdentifyArguments;

/// So much of a line is judged; what follows is read past, so that memory stays bounded.
const LONGEST_LINE_BYTES: usize = 64 << 20;

/// A file is read in pieces of about this size.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes in which a zero says that a file is binary, as `grep` and `git` judge.
const BINARY_PREFIX_BYTES: usize = 8_000;

/// Share of U+FFFD among the characters from which on bytes are no text.
const INVALID_SHARE: f64 = 0.3;

pub fn identify(arguments: &IdentifyArguments, json: bool) -> anyhow::Result<Value> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut files = Vec::new();
    let mut judge = |name: &str, source: &mut dyn Read| -> anyhow::Result<()> {
        let source = BufReader::with_capacity(PIECE_BYTES, source);
        if arguments.lines {
            return judge_lines(name, source, json, &mut out);
        }
        let answer = judge_file(source).with_context(|| format!("cannot read {name}"))?;
        if json {
            files.push(answer.to_json(name));
            return Ok(());
        }
        writeln!(out, "{name}\t{answer}")?;
        Ok(out.flush()?)
    };
    let done = if arguments.files.is_empty() {
        judge("standard input", &mut std::io::stdin().lock())
    } else {
        arguments.files.iter().try_for_each(|path| judge(&path.display().to_string(), &mut open(path)?))
    };
    match done.and_then(|()| Ok(out.flush()?)) {
        // The lines themselves are the result.
        Ok(()) if arguments.lines || !json => Ok(Value::Null),
        Ok(()) => Ok(json!({ "files": files })),
        // Whoever read them has seen enough, as in `eulalia identify --lines | head`.
        Err(error) if is_broken_pipe(&error) => Ok(Value::Null),
        Err(error) => Err(error),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn open(path: &Path) -> anyhow::Result<std::fs::File> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        anyhow::bail!("{} is a folder; name its files, such as {}/*.txt", path.display(), path.display());
    }
    Ok(file)
}

fn judge_lines(
    name: &str,
    mut source: BufReader<&mut dyn Read>,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for number in 1u64.. {
        let place = || format!("cannot read {name}, line {number}");
        // What has been judged is shown before the next line is waited for.
        if source.buffer().is_empty() {
            out.flush()?;
        }
        line.clear();
        let limited = &mut (&mut source).take(LONGEST_LINE_BYTES as u64);
        if limited.read_until(b'\n', &mut line).with_context(place)? == 0 {
            break;
        }
        if line.len() == LONGEST_LINE_BYTES && !line.ends_with(b"\n") {
            source.skip_until(b'\n').with_context(place)?;
        }
        let answer = Answer::of(&line);
        match json {
            true => writeln!(out, "{}", answer.to_json_line())?,
            false => writeln!(out, "{answer}")?,
        }
    }
    Ok(())
}

fn judge_file(mut source: BufReader<&mut dyn Read>) -> std::io::Result<Answer> {
    let mut document = Document::embedded();
    let mut characters = Characters::default();
    let mut piece = Vec::new();
    loop {
        let read = (&mut source).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
        if characters.read == 0 && is_binary(&piece) {
            return Ok(Answer::Binary);
        }
        // A piece ends between words; where there is no such place for long, anywhere.
        let cut = match piece.iter().rposition(u8::is_ascii_whitespace) {
            _ if read == 0 => piece.len(),
            Some(position) => position + 1,
            None if piece.len() < LONGEST_LINE_BYTES => continue,
            None => piece.len(),
        };
        let text = String::from_utf8_lossy(&piece[..cut]);
        characters.count(&text, matches!(text, Cow::Owned(_)));
        document.add(&text);
        piece.drain(..cut);
        if read == 0 {
            break;
        }
    }
    if characters.are_no_text() {
        return Ok(Answer::Binary);
    }
    let (identification, shares) = document.finish();
    Ok(Answer::Text(identification, shares))
}

/// Whether a zero stands among the first bytes.
fn is_binary(bytes: &[u8]) -> bool {
    bytes[..bytes.len().min(BINARY_PREFIX_BYTES)].contains(&0)
}

/// How many characters were read, and how many of them were invalid bytes.
#[derive(Default)]
struct Characters {
    read: u64,
    invalid: u64,
}

impl Characters {
    /// `was_repaired`: bytes that are no UTF-8 became U+FFFD.
    fn count(&mut self, text: &str, was_repaired: bool) {
        self.read += text.chars().count() as u64;
        if was_repaired {
            self.invalid += text.matches('\u{FFFD}').count() as u64;
        }
    }

    fn are_no_text(&self) -> bool {
        self.invalid as f64 > INVALID_SHARE * self.read as f64
    }
}

/// What bytes are.
enum Answer {
    Text(Identification, Vec<Share>),
    Binary,
}

impl Answer {
    /// For one line.
    fn of(line: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(line.trim_ascii());
        let mut characters = Characters::default();
        characters.count(&text, matches!(text, Cow::Owned(_)));
        if is_binary(line) || characters.are_no_text() {
            return Answer::Binary;
        }
        Answer::Text(languages::identify(&text), Vec::new())
    }

    /// The code and score of a text; `other` for what is none.
    fn language(&self) -> (&'static str, f32) {
        match self {
            Answer::Text(found, _) => (found.code, found.score),
            Answer::Binary => ("other", 1.0),
        }
    }

    fn to_json_line(&self) -> Value {
        let (language, score) = self.language();
        match self {
            Answer::Text(..) => json!({"language": language, "score": score}),
            Answer::Binary => json!({"language": language, "score": score, "binary": true}),
        }
    }

    fn to_json(&self, name: &str) -> Value {
        let (language, score) = self.language();
        match self {
            Answer::Text(_, shares) => {
                let shares: serde_json::Map<String, Value> =
                    shares.iter().map(|share| (share.code.to_owned(), json!(share.share))).collect();
                json!({"file": name, "language": language, "score": score, "paragraphs": shares})
            }
            Answer::Binary => json!({"file": name, "language": language, "score": score, "binary": true}),
        }
    }
}

impl std::fmt::Display for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (language, score) = self.language();
        write!(formatter, "{language}\t{score:.4}")?;
        match self {
            Answer::Binary => write!(formatter, "\tbinary, no text"),
            // Mixed documents show.
            Answer::Text(_, shares) if shares.len() > 1 => {
                let shares =
                    shares.iter().map(|share| format!("{} {:.0} %", share.code, 100.0 * share.share));
                write!(formatter, "\t{}", shares.collect::<Vec<_>>().join(", "))
            }
            Answer::Text(..) => Ok(()),
        }
    }
}
