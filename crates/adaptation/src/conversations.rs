//! Conversations on disk, and as tokens with the places that are learned.

use crate::Error;
use model::NO_TARGET;
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use tokenizer::{Message, Tokenizer};

/// A conversation as tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// The language's code, or "und".
    pub language: String,
    /// Tokens that go in.
    pub tokens: Vec<u32>,
    /// The next token where the assistant speaks, `model::NO_TARGET` elsewhere.
    pub targets: Vec<u32>,
}

/// Lines longer than this are no conversation.
const LONGEST_LINE: u64 = 16 << 20;

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    language: Option<String>,
    messages: Vec<LineMessage>,
}

#[derive(Deserialize)]
struct LineMessage {
    role: String,
    content: String,
}

/// Reads conversations from `.jsonl` files, and from those in folders, in the order of their names; each at most
/// `maximum_length` tokens. Also says how many had no answer within that length.
///
/// # Errors
/// Names the file and the line that is no conversation.
pub fn read_conversations(
    paths: &[PathBuf],
    tokenizer: &Tokenizer,
    maximum_length: usize,
) -> Result<(Vec<Conversation>, u64), Error> {
    let (mut conversations, mut without_answer) = (Vec::new(), 0);
    for path in files(paths)? {
        let read = |source| Error::Read { path: path.clone(), source };
        let mut reader = BufReader::new(std::fs::File::open(&path).map_err(read)?);
        let mut number = 0;
        loop {
            let mut text = Vec::new();
            number += 1;
            std::io::Read::take(&mut reader, LONGEST_LINE).read_until(b'\n', &mut text).map_err(read)?;
            let fail = |problem: String| Error::Conversation { path: path.clone(), line: number, problem };
            if text.len() as u64 == LONGEST_LINE {
                return Err(fail(format!("the line is longer than {LONGEST_LINE} bytes")));
            }
            if text.is_empty() {
                break;
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_slice(&text).map_err(|error| {
                fail(format!(
                    "{error}; expected {{\"messages\": [{{\"role\", \"content\"}}, …]}} on one line"
                ))
            })?;
            let conversation =
                encode(&line, tokenizer, maximum_length).map_err(|error| fail(error.to_string()))?;
            match conversation {
                Some(conversation) => conversations.push(conversation),
                None => without_answer += 1,
            }
        }
    }
    Ok((conversations, without_answer))
}

/// The tokens of a conversation; `None` where nothing in it is learned.
fn encode(
    line: &Line,
    tokenizer: &Tokenizer,
    maximum_length: usize,
) -> Result<Option<Conversation>, tokenizer::Error> {
    let messages: Vec<Message> =
        line.messages.iter().map(|message| Message::new(&message.role, &message.content)).collect();
    let all = tokenizer.encode_chat(&messages, false)?;
    let mut learned = vec![false; all.len()];
    for (index, message) in messages.iter().enumerate() {
        if message.role != "assistant" {
            continue;
        }
        // An answer stands between its opened turn and the end of the conversation up to it. A template that rewrites
        // earlier turns has no such place, and teaches nothing there.
        let opened = tokenizer.encode_chat(&messages[..index], true)?;
        let closed = tokenizer.encode_chat(&messages[..=index], false)?;
        if !(all.starts_with(&closed) && closed.starts_with(&opened)) {
            continue;
        }
        // What the template writes after the turn's end (a line break) is not the assistant's.
        let end = (opened.len()..closed.len()).rev().find(|place| tokenizer.is_special(closed[*place]));
        learned[opened.len()..end.map_or(closed.len(), |end| end + 1)].fill(true);
    }
    let length = all.len().min(maximum_length + 1);
    let targets: Vec<u32> =
        (1..length).map(|place| if learned[place] { all[place] } else { NO_TARGET }).collect();
    // What follows the last learned token changes nothing.
    let used = targets.iter().rposition(|target| *target != NO_TARGET).map_or(0, |last| last + 1);
    Ok((used > 0).then(|| Conversation {
        language: line.language.clone().unwrap_or_else(|| "und".into()),
        tokens: all[..used].to_vec(),
        targets: targets[..used].to_vec(),
    }))
}

/// Files themselves, and the `.jsonl` files of folders, sorted within each folder.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let read = |source| Error::Read { path: path.clone(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(path).map_err(read)? {
            let file = entry.map_err(read)?.path();
            if Path::extension(&file).is_some_and(|extension| extension == "jsonl") {
                found.push(file);
            }
        }
        found.sort();
        files.extend(found);
    }
    Ok(files)
}
