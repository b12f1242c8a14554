//! A JSON object becomes a document: fields straight from the bytes into their strings, the rest into metadata or
//! passed over.

use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::document::{Document, FieldError};
use crate::fields::{self, FIELDS, FieldMap, MappedKey};

/// Reads one object whose fields stand as `map` says; `id` is for a record of a foreign corpus without one. Only
/// metadata whose keys `keep_metadata` wants are kept; the others are skipped without being built.
pub fn read(
    json: &str,
    map: &FieldMap,
    keep_metadata: fn(&str) -> bool,
    id: impl FnOnce() -> String,
) -> Result<Document, FieldError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let read = deserializer.deserialize_map(RecordVisitor { map, keep_metadata, id });
    read.and_then(|document| deserializer.end().map(|()| document))
        .map_err(|error| FieldError { column: error.column(), message: plain(&error) })
}

/// The same from any source of data.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D, map: &FieldMap) -> Result<Document, D::Error> {
    deserializer.deserialize_map(RecordVisitor { map, keep_metadata: |_| true, id: String::new })
}

/// The keys of an object, for telling which corpus it is from; none where it is no object.
pub fn keys(json: &[u8]) -> Vec<String> {
    let read: Result<std::collections::BTreeMap<String, IgnoredAny>, _> = serde_json::from_slice(json);
    read.map_or_else(|_| Vec::new(), |object| object.into_keys().collect())
}

/// serde_json appends "at line 1 column n"; the place is reported separately, in the file's own lines.
fn plain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_string(),
        None => message,
    }
}

struct RecordVisitor<'a, F> {
    map: &'a FieldMap,
    keep_metadata: fn(&str) -> bool,
    id: F,
}

impl<'de, F: FnOnce() -> String> Visitor<'de> for RecordVisitor<'_, F> {
    type Value = Document;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map = self.map;
        write!(formatter, "an object with `{}` and `{}`", map.way_to(fields::ID), map.way_to(fields::TEXT))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Document, A::Error> {
        let map = self.map;
        let mut document = Document::default();
        let mut values: [Option<String>; FIELDS.len()] = Default::default();
        // One bit for each key of the map: maps are made of a handful of keys.
        let mut seen = 0u64;
        while let Some(key) = access.next_key_seed(KeyOf(map))? {
            match key {
                Key::Mapped(place) => {
                    let mapped = &map.keys[place];
                    if seen & (1 << place) != 0 {
                        return Err(de::Error::custom(format!("key `{}` stands twice", mapped.key)));
                    }
                    seen |= 1 << place;
                    read_mapped(mapped, map.is_foreign, &mut access, &mut values)?;
                }
                Key::Other(key) if (self.keep_metadata)(&key) => {
                    let value = access.next_value::<Value>()?;
                    match document.metadata.entry(key) {
                        Entry::Vacant(vacant) => drop(vacant.insert(value)),
                        Entry::Occupied(taken) => {
                            return Err(de::Error::custom(format!("key `{}` stands twice", taken.key())));
                        }
                    }
                }
                Key::Other(_) | Key::Unused => drop(access.next_value::<IgnoredAny>()?),
            }
        }
        for (value, constant) in values.iter_mut().zip(&map.constants) {
            if value.is_none() {
                value.clone_from(constant);
            }
        }
        let [id, url, date, license, language, source, text] = values;
        let missing = |field| de::Error::custom(format!("key `{}` is missing", map.way_to(field)));
        document.text = text.ok_or_else(|| missing(fields::TEXT))?;
        document.id = match id {
            Some(id) if !id.is_empty() => id,
            _ if map.is_foreign => (self.id)(),
            Some(_) => return Err(de::Error::custom("key `id` is empty")),
            None => return Err(missing(fields::ID)),
        };
        Ok(Document { url, date, license, language, source, ..document })
    }
}

fn read_mapped<'de, A: MapAccess<'de>>(
    mapped: &MappedKey,
    is_foreign: bool,
    access: &mut A,
    values: &mut [Option<String>; FIELDS.len()],
) -> Result<(), A::Error> {
    if let [target] = &mapped.targets[..]
        && target.path.is_empty()
    {
        values[target.field] = access.next_value_seed(FieldValue { key: &mapped.key, is_foreign })?;
        return Ok(());
    }
    let value = access.next_value::<Value>()?;
    for target in &mapped.targets {
        values[target.field] = fields::words_at(&value, &target.path).map_err(|found| {
            let way = std::iter::once(&mapped.key).chain(&target.path).cloned().collect::<Vec<_>>().join(".");
            de::Error::custom(format!("key `{way}`: expected a string, found {found}"))
        })?;
    }
    Ok(())
}

/// A key of a record, told apart without a string of its own where it is a field: there are as many keys as there are
/// documents times fields.
enum Key {
    /// Its place in the map.
    Mapped(usize),
    Other(String),
    /// The name of a field that stands under another key: as a metadatum it would be taken for the field.
    Unused,
}

struct KeyOf<'a>(&'a FieldMap);

impl<'de> DeserializeSeed<'de> for KeyOf<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf<'_> {
    type Value = Key;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, key: &str) -> Result<Key, E> {
        Ok(match self.0.keys.iter().position(|mapped| mapped.key == key) {
            Some(place) => Key::Mapped(place),
            None if FIELDS.contains(&key) => Key::Unused,
            None => Key::Other(key.to_string()),
        })
    }
}

/// A string or null, straight into a `String`; the error names the key.
struct FieldValue<'a> {
    key: &'a str,
    is_foreign: bool,
}

impl<'de> DeserializeSeed<'de> for FieldValue<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldValue<'_> {
    type Value = Option<String>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "key `{}`: expected a string", self.key)
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

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Option<String>, E> {
        self.number(value)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Option<String>, E> {
        self.number(value)
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Option<String>, E> {
        self.number(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Option<String>, A::Error> {
        if !self.is_foreign {
            return Err(self.found("a list"));
        }
        let first = access.next_element_seed(FieldValue { ..self })?;
        while access.next_element::<IgnoredAny>()?.is_some() {}
        Ok(first.flatten())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Option<String>, A::Error> {
        Err(self.found("an object"))
    }
}

impl FieldValue<'_> {
    fn number<E: de::Error>(self, value: impl fmt::Display) -> Result<Option<String>, E> {
        match self.is_foreign {
            true => Ok(Some(value.to_string())),
            false => Err(self.found("a number")),
        }
    }

    fn found<E: de::Error>(&self, found: &str) -> E {
        E::custom(format!("key `{}`: expected a string, found {found}", self.key))
    }
}
