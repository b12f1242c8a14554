//! JSON in which no name stands twice: of two readers of a doubled name one takes the first and one the last, and between
//! the two an attacker passes. Bodies of requests, tokens and key sets are read through here alone.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A value without doubled names at any depth.
struct Strict(Value);

/// The value that the bytes hold. The error names the place, and no name or text from the bytes.
pub fn strict_value(bytes: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(bytes).map(|Strict(value)| value)
}

/// The object that the bytes hold; `Err` says what is wrong with them, without showing them.
pub fn strict_object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    match strict_value(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("expected a JSON object".to_string()),
        Err(error) => Err(format!("no proper JSON ({:?} error)", error.classify())),
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(StrictVisitor)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Strict;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("JSON without doubled names")
    }

    fn visit_unit<E: Error>(self) -> Result<Strict, E> {
        Ok(Strict(Value::Null))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Strict, E> {
        Ok(Strict(Value::Bool(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Strict, E> {
        Ok(Strict(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Strict, E> {
        Ok(Strict(Value::from(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Strict(Value::Array(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Strict, A::Error> {
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let Strict(value) = entries.next_value()?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice in one object"));
            }
        }
        Ok(Strict(Value::Object(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_names_are_refused_at_any_depth() {
        let whole = br#"{"a": [1, -2, 0.5, null, true, {"b": "c"}], "d": {}}"#;
        assert_eq!(
            Value::Object(strict_object(whole).unwrap()),
            serde_json::from_slice::<Value>(whole).unwrap()
        );
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        for wrong in [
            r#"{"alg": "none", "alg": "RS256"}"#,
            r#"{"a": {"b": 1, "b": 1}}"#,
            r#"{"a": [{"b": 1, "b": 1}]}"#,
            r#"{"alg": 1, "al\u0067": 2}"#,
            "[]",
            "",
            "{} {}",
            &format!("{{\"a\":{deep}}}"),
        ] {
            assert!(strict_object(wrong.as_bytes()).is_err(), "{wrong:.60}");
        }
    }
}
