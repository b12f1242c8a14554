//! A document: a text and what is known about it. The one JSON shape that all stages share.
//!
//! `id` and `text` are required; `url`, `date`, `license`, `language` and `source` may be absent; any other key is kept
//! in `metadata`. A wrong type names its key, because "invalid type" without one helps nobody.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde::{Serialize, Serializer};
use serde_json::Value;

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
        Document::from_json_keeping(json, |_| true)
    }

    /// The same, with only those metadata whose keys `keep_metadata` wants; the others are skipped without being built.
    pub fn from_json_keeping(json: &str, keep_metadata: fn(&str) -> bool) -> Result<Document, FieldError> {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let read = deserializer.deserialize_map(DocumentVisitor { keep_metadata });
        read.and_then(|document| deserializer.end().map(|()| document))
            .map_err(|error| FieldError { column: error.column(), message: plain(&error) })
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

/// serde_json appends "at line 1 column n"; the place is reported separately, in the file's own lines.
fn plain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_string(),
        None => message,
    }
}

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
        deserializer.deserialize_map(DocumentVisitor { keep_metadata: |_| true })
    }
}

struct DocumentVisitor {
    keep_metadata: fn(&str) -> bool,
}

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Document;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with `id` and `text`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document, A::Error> {
        let mut document = Document::default();
        let mut seen: [Option<Option<String>>; FIELDS.len()] = Default::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Field(field) => {
                    if seen[field].is_some() {
                        return Err(de::Error::custom(format!("key `{}` stands twice", FIELDS[field])));
                    }
                    seen[field] = Some(map.next_value_seed(FieldValue(FIELDS[field]))?);
                }
                Key::Other(key) if (self.keep_metadata)(&key) => {
                    let value = map.next_value::<Value>()?;
                    match document.metadata.entry(key) {
                        Entry::Vacant(vacant) => drop(vacant.insert(value)),
                        Entry::Occupied(taken) => {
                            return Err(de::Error::custom(format!("key `{}` stands twice", taken.key())));
                        }
                    }
                }
                Key::Other(_) => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let [id, url, date, license, language, source, text] = seen.map(Option::flatten);
        document.id = id.ok_or_else(|| de::Error::custom("key `id` is missing"))?;
        document.text = text.ok_or_else(|| de::Error::custom("key `text` is missing"))?;
        if document.id.is_empty() {
            return Err(de::Error::custom("key `id` is empty"));
        }
        Ok(Document { url, date, license, language, source, ..document })
    }
}

/// The keys that are fields of a document, in the order in which they are written.
const FIELDS: [&str; 7] = ["id", "url", "date", "license", "language", "source", "text"];

/// A key of a record: the place of a field in [`FIELDS`], or the key of a metadatum. Fields are told apart without a
/// string of their own, because there are as many keys as there are documents times fields.
enum Key {
    Field(usize),
    Other(String),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_str<E: de::Error>(self, key: &str) -> Result<Key, E> {
                let field = FIELDS.iter().position(|&field| field == key);
                Ok(field.map_or_else(|| Key::Other(key.to_string()), Key::Field))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A string or null, straight into a `String`; the error names the key.
struct FieldValue(&'static str);

impl<'de> DeserializeSeed<'de> for FieldValue {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldValue {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "key `{}`: expected a string", self.0)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Option<String>, E> {
        Ok(Some(value.to_string()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Option<String>, E> {
        Ok(Some(value))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Option<String>, E> {
        Err(self.found("a boolean"))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Option<String>, E> {
        Err(self.found("a number"))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Option<String>, E> {
        Err(self.found("a number"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Option<String>, E> {
        Err(self.found("a number"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Option<String>, A::Error> {
        Err(self.found("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Option<String>, A::Error> {
        Err(self.found("an object"))
    }
}

impl FieldValue {
    fn found<E: de::Error>(&self, found: &str) -> E {
        E::custom(format!("key `{}`: expected a string, found {found}", self.0))
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
