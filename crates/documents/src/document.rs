//! A document: a text and what is known about it. The one JSON shape that all stages share.
//!
//! `id` and `text` are required; `url`, `date`, `license`, `language` and `source` may be absent; any other key is kept
//! in `metadata`. A wrong type names its key, because "invalid type" without one helps nobody.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::fields::OWN;
use crate::json_record;

/// A text with its identity, origin and rights.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// Unique within its source; never empty.
    pub id: String,
    /// Where it was found.
    pub url: Option<String>,
    /// When it was published or collected, ISO 8601, so that the order of texts is the order of time.
    pub date: Option<String>,
    /// SPDX identifier where there is one, else the words that the source uses.
    pub license: Option<String>,
    /// ISO 639-1 code that the source claims; the corpus stage checks it.
    pub language: Option<String>,
    /// Name of the collection it came from.
    pub source: Option<String>,
    pub text: String,
    /// Every other key of the record, in alphabetical order.
    pub metadata: BTreeMap<String, Value>,
}

impl Document {
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Document {
        Document { id: id.into(), text: text.into(), ..Document::default() }
    }

    /// Reads one JSON object. The error names the key or the column.
    pub fn from_json(json: &str) -> Result<Document, FieldError> {
        json_record::read(json, &OWN, |_| true, String::new)
    }

    /// The same object on one line, keys in a fixed order, without a line end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and JSON values always serialise")
    }
}

/// What is wrong with a record, and at which byte of its line (1-based; 0 where the fault has no place).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub column: usize,
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for FieldError {}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", &self.id)?;
        let optional = [
            ("url", &self.url),
            ("date", &self.date),
            ("license", &self.license),
            ("language", &self.language),
            ("source", &self.source),
        ];
        for (key, value) in optional {
            if let Some(value) = value {
                map.serialize_entry(key, value)?;
            }
        }
        map.serialize_entry("text", &self.text)?;
        for (key, value) in &self.metadata {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Document, D::Error> {
        json_record::deserialize(deserializer, &OWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(json: &str, expected: &str) {
        let error = Document::from_json(json).expect_err(json);
        assert!(error.message.contains(expected), "{json}: {error}");
    }

    #[test]
    fn reads_all_fields_and_keeps_the_others() {
        let json = r#"{"id":"mt-1","url":"https://a.example/","date":"2026-01-02","license":"CC0-1.0","language":"mt","source":"s","text":"Ħobż biż-żejt","score":0.5,"tags":["a"]}"#;
        let document = Document::from_json(json).unwrap();
        assert_eq!(document.text, "Ħobż biż-żejt");
        assert_eq!(document.metadata.keys().collect::<Vec<_>>(), ["score", "tags"]);
        assert_eq!(document.to_json(), json);
    }

    #[test]
    fn null_is_absent() {
        let document = Document::from_json(r#"{"id":"1","text":"","url":null}"#).unwrap();
        assert_eq!(document.url, None);
        assert_eq!(document.to_json(), r#"{"id":"1","text":""}"#);
    }

    #[test]
    fn errors_name_the_key() {
        check_error(r#"{"id":"1"}"#, "key `text` is missing");
        check_error(r#"{"text":"a"}"#, "key `id` is missing");
        check_error(r#"{"id":"","text":"a"}"#, "key `id` is empty");
        check_error(r#"{"id":"1","text":7}"#, "key `text`: expected a string, found a number");
        check_error(r#"{"id":["1"],"text":"a"}"#, "key `id`: expected a string, found a list");
        check_error(r#"{"id":"1","text":"a","date":true}"#, "key `date`: expected a string, found a boolean");
        check_error(r#"{"id":"1","text":"a","text":"b"}"#, "key `text` stands twice");
        check_error(r#"{"id":"1","text":"a","x":1,"x":2}"#, "key `x` stands twice");
        check_error(r#"["id"]"#, "an object with `id` and `text`");
        check_error(r#"{"id":"1","text":"#, "EOF");
        check_error(r#"{"id":"1","text":"\ud800"}"#, "hex escape");
    }
}
