//! The record: what happened while an artefact was made, as JSON lines that each carry the SHA-256 of the line before.
//!
//! Every artefact holds its own segment in `record.jsonl`; the first line of a segment names 64 zeros as its
//! predecessor, the hash of the last line stands in the manifest. A release holds its ancestors' segments, unchanged
//! and in topological order, before its own, and its own first line lists them with length and last hash. So an
//! altered, dropped or reordered line is found, the last one included.
//!
//! Every document about a model (card, bills of materials, AI Act forms) is rendered from here. No personal data.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::Error;
use crate::digest::{Digest, sha256};

/// The name of the record inside an artefact.
pub const RECORD_FILE: &str = "record.jsonl";

/// One line, parsed: its event and the rest of its fields.
#[derive(Clone, Debug)]
pub struct Line {
    pub event: String,
    pub fields: Map<String, Value>,
}

/// A chain of lines that belong to one artefact.
#[derive(Clone, Debug)]
pub struct Segment {
    text: String,
    lines: Vec<Line>,
    last: Digest,
}

impl Default for Segment {
    fn default() -> Self {
        Segment { text: String::new(), lines: Vec::new(), last: Digest::ZERO }
    }
}

impl Segment {
    /// Adds a line. `fields` must be a JSON object; `previous`, `sequence`, `time` and `event` are set here.
    pub fn add(&mut self, time: &str, event: &str, fields: Value) {
        let mut line = Map::new();
        line.insert("previous".into(), json!(self.last));
        line.insert("sequence".into(), json!(self.lines.len()));
        line.insert("time".into(), json!(time));
        line.insert("event".into(), json!(event));
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        let text = Value::Object(line.clone()).to_string();
        self.last = sha256(text.as_bytes());
        self.text.push_str(&text);
        self.text.push('\n');
        self.lines.push(Line { event: event.to_string(), fields: line });
    }

    /// The lines as they stand in the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The SHA-256 of the last line.
    pub fn last(&self) -> Digest {
        self.last
    }

    /// The first line with this event.
    pub fn event(&self, event: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.event == event)
    }

    /// The name of the artefact that this segment belongs to.
    pub fn name(&self) -> &str {
        self.lines.first().and_then(|line| line.fields.get("name")).and_then(Value::as_str).unwrap_or("")
    }
}

/// Reads a record and checks its chain: the segments in order.
pub fn read(path: &Path) -> Result<Vec<Segment>, Error> {
    let bytes = std::fs::read(path).map_err(Error::read(path))?;
    parse(path, &bytes)
}

/// Parses a record's bytes and checks the chain of each segment; an error names the line.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Segment>, Error> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Error::malformed(path, format!("byte {}: the record is not UTF-8", error.valid_up_to()))
    })?;
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(Error::malformed(path, "the last line is not complete"));
    }
    let mut segments: Vec<Segment> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = |problem: String| Error::malformed(path, format!("line {}: {problem}", number + 1));
        let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(line) else {
            return Err(at("expected a JSON object".into()));
        };
        let previous: Digest = fields
            .get("previous")
            .and_then(Value::as_str)
            .ok_or_else(|| at("the key \"previous\" is missing".into()))?
            .parse()
            .map_err(|problem| at(format!("key \"previous\": {problem}")))?;
        let event = fields
            .get("event")
            .and_then(Value::as_str)
            .ok_or_else(|| at("the key \"event\" is missing".into()))?
            .to_string();
        if previous == Digest::ZERO {
            segments.push(Segment::default());
        }
        let Some(segment) = segments.last_mut() else {
            return Err(at("the record does not begin with the first line of a segment".into()));
        };
        if previous != segment.last {
            return Err(at(format!(
                "the chain is broken: the line before has the digest {}, this line names {previous}; a line was \
                 altered, dropped or moved",
                segment.last
            )));
        }
        if fields.get("sequence").and_then(Value::as_u64) != Some(segment.lines.len() as u64) {
            return Err(at(format!("expected sequence number {}", segment.lines.len())));
        }
        segment.last = sha256(line.as_bytes());
        segment.text.push_str(line);
        segment.text.push('\n');
        segment.lines.push(Line { event, fields });
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Segment {
        let mut segment = Segment::default();
        segment.add("2026-01-01T00:00:00Z", "started", json!({"name": "corpus"}));
        segment.add("2026-01-01T00:00:01Z", "note", json!({"text": "ġurnata sabiħa"}));
        segment.add("2026-01-01T00:00:02Z", "finished", json!({}));
        segment
    }

    fn check(text: &str) -> Result<Vec<Segment>, String> {
        parse(Path::new("record.jsonl"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_written_record_reads_back_with_its_last_hash() {
        let segment = example();
        let read = check(segment.text()).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].last(), segment.last());
        assert_eq!(read[0].name(), "corpus");
        let two = format!("{}{}", segment.text(), example().text());
        assert_eq!(check(&two).unwrap().len(), 2);
    }

    #[test]
    fn a_dropped_altered_or_moved_line_is_found() {
        let text = example().text().to_string();
        let lines: Vec<&str> = text.lines().collect();
        let join = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        assert!(check(&join(&[lines[0], lines[2]])).unwrap_err().contains("line 2"));
        assert!(check(&join(&[lines[1], lines[2]])).unwrap_err().contains("line 1"));
        assert!(check(&join(&[lines[0], lines[2], lines[1]])).unwrap_err().contains("line 2"));
        assert!(check(&text.replace("sabiħa", "sabiha")).unwrap_err().contains("line 3"));
        assert!(check(&text[..text.len() - 1]).unwrap_err().contains("not complete"));
        assert!(check("[]\n").unwrap_err().contains("JSON object"));
        // The last line dropped: the chain holds, but its last hash is no longer the manifest's.
        assert_ne!(check(&join(&lines[..2])).unwrap()[0].last(), example().last());
    }
}
