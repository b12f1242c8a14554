//! Under which keys a document's fields stand: in our own files under their names, in the public corpora under names of
//! their own (`data/corpora.toml`), and anywhere else where the user says.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;

/// The keys that are fields of a document, in the order in which they are written.
pub const FIELDS: [&str; 7] = ["id", "url", "date", "license", "language", "source", "text"];
pub const ID: usize = 0;
pub const TEXT: usize = 6;

/// Where the fields of a document stand in a record.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldMap {
    /// Keys of the record, each with what is behind it.
    pub(crate) keys: Vec<MappedKey>,
    /// Values of fields whose keys are absent.
    pub(crate) constants: [Option<String>; FIELDS.len()],
    /// In a corpus of somebody else, numbers are taken as words, the first of a list as the whole, and a record without
    /// an id gets one. Our own files are held to their format.
    pub(crate) is_foreign: bool,
}

/// A key of the record and the fields that it holds, mostly one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MappedKey {
    pub key: String,
    pub targets: Vec<Target>,
}

/// A field, and the way to it below the key: names, or numbers in a list; mostly none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    pub field: usize,
    pub path: Vec<String>,
}

#[derive(Deserialize)]
struct Corpora {
    corpus: Vec<Corpus>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Corpus {
    #[serde(rename = "name")]
    _name: String,
    keys: Vec<String>,
    fields: BTreeMap<String, String>,
}

/// Our own format.
pub(crate) static OWN: LazyLock<Arc<FieldMap>> = LazyLock::new(|| Arc::new(FieldMap::own()));

static CORPORA: LazyLock<Vec<(Vec<String>, Arc<FieldMap>)>> = LazyLock::new(|| {
    let corpora: Corpora = toml::from_str(include_str!("../data/corpora.toml")).expect("a test reads it");
    let mapped = corpora.corpus.into_iter().map(|corpus| {
        let map = FieldMap::new(&corpus.fields).expect("a test reads it");
        (corpus.keys, Arc::new(map))
    });
    mapped.collect()
});

impl FieldMap {
    /// The fields under these keys: `field = "key"`, `"key.inside.an.object"`, or `"=word"` for the same word in every
    /// record. A field that is not named stands under its own name.
    pub fn new(fields: &BTreeMap<String, String>) -> Result<FieldMap, Error> {
        let mut map = FieldMap { keys: Vec::new(), constants: Default::default(), is_foreign: true };
        for (name, value) in fields {
            let field = FIELDS
                .iter()
                .position(|field| field == name)
                .ok_or_else(|| Error::UnknownField { name: name.clone(), known: FIELDS.join(", ") })?;
            match value.strip_prefix('=') {
                Some(word) => {
                    map.constants[field] = Some(word.to_string());
                    map.add(field, name);
                }
                None if value.is_empty() => return Err(Error::EmptyField { name: name.clone() }),
                None => map.add(field, value),
            }
        }
        for (field, name) in FIELDS.iter().enumerate() {
            if !fields.contains_key(*name) && !map.keys.iter().any(|key| key.key == *name) {
                map.add(field, name);
            }
        }
        Ok(map)
    }

    fn own() -> FieldMap {
        let mut map = FieldMap { keys: Vec::new(), constants: Default::default(), is_foreign: false };
        FIELDS.iter().enumerate().for_each(|(field, name)| map.add(field, name));
        map
    }

    /// The map of the known corpus whose records have these keys, or of our own format.
    pub(crate) fn detect<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> Arc<FieldMap> {
        let known =
            CORPORA.iter().find(|(needed, _)| needed.iter().all(|need| keys.clone().any(|key| key == need)));
        known.map_or_else(|| OWN.clone(), |(_, map)| map.clone())
    }

    fn add(&mut self, field: usize, way: &str) {
        let mut parts = way.split('.').map(String::from);
        let key = parts.next().unwrap_or_default();
        let target = Target { field, path: parts.collect() };
        match self.keys.iter_mut().find(|mapped| mapped.key == key) {
            Some(mapped) => mapped.targets.push(target),
            None => self.keys.push(MappedKey { key, targets: vec![target] }),
        }
    }

    /// How the record names a field, for messages.
    pub(crate) fn way_to(&self, field: usize) -> String {
        let found = self.keys.iter().find_map(|mapped| {
            let target = mapped.targets.iter().find(|target| target.field == field)?;
            Some(std::iter::once(&mapped.key).chain(&target.path).cloned().collect::<Vec<_>>().join("."))
        });
        found.unwrap_or_else(|| FIELDS[field].to_string())
    }
}

/// The words at the end of a way through objects and lists; `None` where the way ends before, or in null. The error
/// says what was found instead of words.
pub(crate) fn words_at(mut value: &Value, path: &[String]) -> Result<Option<String>, &'static str> {
    for part in path {
        let next = match value {
            Value::Object(map) => map.get(part),
            Value::Array(list) => part.parse().ok().and_then(|place: usize| list.get(place)),
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    words(value)
}

fn words(value: &Value) -> Result<Option<String>, &'static str> {
    match value {
        Value::String(words) => Ok(Some(words.clone())),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Null => Ok(None),
        Value::Array(list) => list.first().map_or(Ok(None), words),
        Value::Bool(_) => Err("a boolean"),
        Value::Object(_) => Err("an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANGUAGE: usize = 4;

    fn map(fields: &[(&str, &str)]) -> Result<FieldMap, Error> {
        FieldMap::new(&fields.iter().map(|(name, key)| (name.to_string(), key.to_string())).collect())
    }

    #[test]
    fn the_table_of_corpora_is_sound() {
        assert!(CORPORA.len() >= 10);
        for (keys, map) in CORPORA.iter() {
            // Detection by words that no mapping needs would be by chance.
            assert!(keys.len() >= 3, "{keys:?}");
            let text = map.way_to(TEXT);
            assert!(keys.contains(&text.split('.').next().unwrap().to_string()), "{keys:?} has no {text}");
        }
    }

    #[test]
    fn detection_needs_all_keys() {
        let detect = |keys: &[&str]| FieldMap::detect(keys.iter().copied()).way_to(LANGUAGE);
        assert_eq!(detect(&["id", "u", "ts", "lang", "text", "seg_langs"]), "lang");
        assert_eq!(detect(&["id", "u", "ts", "text"]), "language");
        assert_eq!(detect(&["content", "warc_headers", "metadata"]), "metadata.identification.label");
        assert!(!FieldMap::detect(["id", "text", "title"].into_iter()).is_foreign);
    }

    #[test]
    fn wrong_fields_are_named() {
        let message = map(&[("body", "content")]).unwrap_err().to_string();
        assert!(message.contains("`body`") && message.contains("id, url, date"), "{message}");
        assert!(map(&[("text", "")]).unwrap_err().to_string().contains("`text`"));
    }

    #[test]
    fn ways_lead_through_objects_and_lists() {
        let value = serde_json::json!({"a": [{"b": "x"}, {"b": 7}], "c": ["y", "z"], "d": true});
        let at = |way: &str| words_at(&value, &way.split('.').map(String::from).collect::<Vec<_>>());
        assert_eq!(at("a.1.b"), Ok(Some("7".to_string())));
        assert_eq!(at("c"), Ok(Some("y".to_string())));
        assert_eq!(at("a.2.b"), Ok(None));
        assert_eq!((at("d"), at("a")), (Err("a boolean"), Err("an object")));
    }
}
