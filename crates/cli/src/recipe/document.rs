//! A TOML file as a tree of values that remember their line, so that every error can name it.

use std::path::Path;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::errors::Usage;

/// A value with the line on which its key stands (from 1; 0 for what came from the command line).
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub line: usize,
    pub value: Node,
}

#[derive(Clone, Debug)]
pub enum Node {
    Table(Vec<Entry>),
    Value(Value),
}

impl Node {
    /// The node as plain JSON.
    pub fn to_json(&self) -> Value {
        match self {
            Node::Value(value) => value.clone(),
            Node::Table(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
            ),
        }
    }

    /// What kind of thing this is, for a message.
    pub fn describe(&self) -> &'static str {
        match self {
            Node::Table(_) => "a table",
            Node::Value(value) => describe_json(value),
        }
    }
}

/// The kind of a JSON value, for a message.
pub fn describe_json(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a decimal number",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// Parses the text of a recipe.
///
/// # Errors
/// The line and column of what is not TOML.
pub fn parse(path: &Path, text: &str) -> Result<Vec<Entry>, Usage> {
    let table = DeTable::parse(text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| {
            let (line, column) = place(text, span.start);
            format!(" line {line}, column {column}:")
        });
        Usage(format!("{}:{place} {}", path.display(), error.message()))
    })?;
    convert(path, text, table.into_inner())
}

/// Parses one value as TOML would read it; what is not TOML is taken as a text.
pub fn parse_value(text: &str) -> Value {
    let document = format!("value = {text}");
    let parsed = DeTable::parse(&document)
        .ok()
        .and_then(|table| convert(Path::new("--set"), &document, table.into_inner()).ok());
    match parsed.as_deref() {
        Some([entry]) => entry.value.to_json(),
        _ => Value::String(text.to_string()),
    }
}

fn convert(path: &Path, text: &str, table: DeTable<'_>) -> Result<Vec<Entry>, Usage> {
    let mut placed = Vec::new();
    for (key, value) in table {
        let start = key.span().start;
        let (line, _) = place(text, start);
        let key = key.into_inner().into_owned();
        let value = convert_value(path, text, line, &key, value)?;
        placed.push((start, Entry { key, line, value }));
    }
    placed.sort_by_key(|(start, _)| *start);
    Ok(placed.into_iter().map(|(_, entry)| entry).collect())
}

fn convert_value(
    path: &Path,
    text: &str,
    line: usize,
    key: &str,
    value: Spanned<DeValue<'_>>,
) -> Result<Node, Usage> {
    let wrong = |problem: String| Usage(format!("{}: line {line}: {key}: {problem}", path.display()));
    Ok(match value.into_inner() {
        DeValue::Table(table) => Node::Table(convert(path, text, table)?),
        DeValue::String(string) => Node::Value(Value::String(string.into_owned())),
        DeValue::Boolean(boolean) => Node::Value(Value::Bool(boolean)),
        DeValue::Datetime(time) => Node::Value(Value::String(time.to_string())),
        DeValue::Integer(integer) => {
            let digits = integer.as_str().replace('_', "");
            let number = i64::from_str_radix(&digits, integer.radix())
                .map_err(|_| wrong(format!("{} does not fit into 64 bits", integer.as_str())))?;
            Node::Value(Value::from(number))
        }
        DeValue::Float(float) => {
            let number: f64 = float
                .as_str()
                .replace('_', "")
                .parse()
                .map_err(|_| wrong(format!("{} is not a number", float.as_str())))?;
            let number = serde_json::Number::from_f64(number)
                .ok_or_else(|| wrong(format!("{} is not a finite number", float.as_str())))?;
            Node::Value(Value::Number(number))
        }
        DeValue::Array(array) => {
            let mut items = Vec::new();
            for item in array {
                items.push(convert_value(path, text, line, key, item)?.to_json());
            }
            Node::Value(Value::Array(items))
        }
    })
}

/// Line and column (from 1) of a byte.
fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..byte.min(text.len())];
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_line() {
        let entries = parse(
            Path::new("r.toml"),
            "format = 1\n\n[pretrain]\nsteps = 1_200\nlearning_rate = 2e-3\nfrom = { corpus = \"corpus\" }\n",
        )
        .unwrap();
        assert_eq!(entries[1].key, "pretrain");
        assert_eq!(entries[1].line, 3);
        let Node::Table(settings) = &entries[1].value else { panic!("not a table") };
        assert_eq!((settings[0].key.as_str(), settings[0].line), ("steps", 4));
        assert_eq!(settings[0].value.to_json(), 1200);
        assert_eq!(settings[1].value.to_json(), 0.002);
        assert_eq!(settings[2].value.to_json()["corpus"], "corpus");
    }

    #[test]
    fn what_is_not_toml_is_named_with_its_place() {
        for (text, place) in [("a = \n", "line 1"), ("a = 1\nb = [1,\n", "line 2"), ("x = nan", "line 1")] {
            let error = parse(Path::new("r.toml"), text).unwrap_err().to_string();
            assert!(error.contains("r.toml") && error.contains(place), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_value_on_the_command_line_is_toml_or_else_text() {
        assert_eq!(parse_value("200"), 200);
        assert_eq!(parse_value("1e-3"), 0.001);
        assert_eq!(parse_value("true"), true);
        assert_eq!(parse_value("[\"de\", \"mt\"]"), serde_json::json!(["de", "mt"]));
        assert_eq!(parse_value("muon"), "muon");
        assert_eq!(parse_value("1\nb = 2"), "1\nb = 2");
    }
}
