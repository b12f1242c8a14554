//! Reading the fields of a request, each by name, so that every complaint names its field, and so that what is left at
//! the end is a field that we do not support, which is refused rather than ignored. `null` counts as absent.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::failure::ApiFailure;
use crate::strict_json::strict_value;

/// The fields of one JSON object that were not read yet.
pub struct Fields {
    object: Map<String, Value>,
    /// Where the object stands, such as `messages[0].`; empty for the body itself.
    place: String,
    known: Vec<&'static str>,
}

impl Fields {
    /// A request's body. A name that stands twice in one object is refused: what comes before this server, or behind it, might
    /// read the other one.
    pub fn of_body(body: &[u8]) -> Result<Fields, ApiFailure> {
        let malformed = |problem: String| ApiFailure::new(StatusCode::BAD_REQUEST, "malformed_body", problem);
        match strict_value(body) {
            Ok(Value::Object(object)) => Ok(Fields { object, place: String::new(), known: Vec::new() }),
            Ok(other) => Err(malformed(format!("the body must be a JSON object, found {}", kind_of(&other)))),
            Err(error) => Err(malformed(format!("the body is not valid JSON: {error}"))),
        }
    }

    /// An object within a request; `place` is its own name.
    pub fn of(value: Value, place: &str) -> Result<Fields, ApiFailure> {
        match value {
            Value::Object(object) => Ok(Fields { object, place: format!("{place}."), known: Vec::new() }),
            other => Err(ApiFailure::field(place, "an object", kind_of(&other))),
        }
    }

    /// The value of a field, whatever it is.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.object.remove(name).filter(|value| !value.is_null())
    }

    pub fn string(&mut self, name: &'static str) -> Result<Option<String>, ApiFailure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, "a string", &other)),
        }
    }

    /// Whether a field is there that nobody has read yet.
    pub fn has(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(|value| !value.is_null())
    }

    pub fn flag(&mut self, name: &'static str) -> Result<bool, ApiFailure> {
        self.flag_or(name, false)
    }

    /// A flag that is `default` where it is absent.
    pub fn flag_or(&mut self, name: &'static str, default: bool) -> Result<bool, ApiFailure> {
        match self.take(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(name, "true or false", &other)),
        }
    }

    /// A number within `low..=high`.
    pub fn number(&mut self, name: &'static str, low: f64, high: f64) -> Result<Option<f32>, ApiFailure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64() {
            // What is above 0 stays above 0, however little.
            Some(number) if (low..=high).contains(&number) => Ok(Some(match number as f32 {
                0.0 if number > 0.0 => f32::MIN_POSITIVE,
                number => number,
            })),
            _ => Err(self.wrong(name, &format!("a number from {low} to {high}"), &value)),
        }
    }

    /// A whole number within `low..=high`.
    pub fn count(
        &mut self,
        name: &'static str,
        low: usize,
        high: usize,
    ) -> Result<Option<usize>, ApiFailure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match whole(&value).and_then(|number| usize::try_from(number).ok()) {
            Some(number) if (low..=high).contains(&number) => Ok(Some(number)),
            _ if high == usize::MAX => {
                Err(self.wrong(name, &format!("a whole number, at least {low}"), &value))
            }
            _ => Err(self.wrong(name, &format!("a whole number from {low} to {high}"), &value)),
        }
    }

    /// A field that we do not support and that may only be there with a value that asks for nothing.
    pub fn only(&mut self, name: &'static str, neutral: &[Value]) -> Result<(), ApiFailure> {
        let value = self.object.remove(name).filter(|value| !value.is_null());
        match value {
            Some(value) if !neutral.contains(&value) => Err(self.unsupported(name, &[])),
            _ => Ok(()),
        }
    }

    /// Refuses the first field that nobody read.
    pub fn finish(self) -> Result<(), ApiFailure> {
        match self.object.iter().find(|(_, value)| !value.is_null()) {
            Some((name, _)) => Err(self.unsupported(name, &self.known)),
            None => Ok(()),
        }
    }

    /// A complaint about a field's value.
    pub fn wrong(&self, name: &str, expected: &str, found: &Value) -> ApiFailure {
        ApiFailure::field(format!("{}{name}", self.place), expected, shown(found))
    }

    fn unsupported(&self, name: &str, known: &[&str]) -> ApiFailure {
        let name: String = name.chars().take(64).collect();
        let param = format!("{}{name}", self.place);
        let near = known.iter().find(|known| is_near(known, &name));
        let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        let message = format!("`{param}` is not supported by this server: leave it out{hint}");
        ApiFailure {
            param: Some(param),
            ..ApiFailure::new(StatusCode::BAD_REQUEST, "unsupported_field", message)
        }
    }
}

/// A whole number of at least 0, written as one or with zeros after the point: to JSON Schema both are integers.
pub fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let of_float =
        |number: f64| (number.fract() == 0.0 && (0.0..=EXACT).contains(&number)).then_some(number as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(of_float))
}

/// A value in an error message: short ones as they are, long ones by their kind (they may hold a prompt).
pub fn shown(value: &Value) -> String {
    match value {
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.chars().count() <= 20 => format!("{text:?}"),
        other => kind_of(other).to_string(),
    }
}

pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Whether two names differ by one slip: a letter added, dropped, changed, or a different sign between words.
fn is_near(known: &str, name: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().replace(['_', '-', ' '], "").into_bytes();
    let (known, name) = (plain(known), plain(name));
    let (short, long) = if known.len() < name.len() { (&known, &name) } else { (&name, &known) };
    let same_start = short.iter().zip(long.iter()).take_while(|(a, b)| a == b).count();
    let same_end = short.iter().rev().zip(long.iter().rev()).take_while(|(a, b)| a == b).count();
    long.len() - short.len() <= 1 && same_start + same_end + 1 >= long.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, read: impl Fn(&mut Fields) -> Result<(), ApiFailure>, expected: Option<&str>) {
        let outcome = Fields::of_body(body.as_bytes()).and_then(|mut fields| {
            read(&mut fields)?;
            fields.finish()
        });
        match (outcome, expected) {
            (Ok(()), None) => {}
            (Err(failure), Some(param)) => assert_eq!(failure.param.as_deref(), Some(param), "{failure:?}"),
            (outcome, _) => panic!("{body}: {outcome:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn complaints_name_the_field() {
        let read = |fields: &mut Fields| {
            fields.count("n", 1, 4)?;
            fields.number("temperature", 0.0, 2.0)?;
            fields.flag("stream")?;
            fields.only("tools", &[serde_json::json!([])])
        };
        check(r#"{"n": 2, "temperature": 0.5, "stream": true, "tools": []}"#, read, None);
        check(r#"{"n": null, "whatever": null}"#, read, None);
        for (body, param) in [
            (r#"{"n": 0}"#, "n"),
            (r#"{"n": 1.5}"#, "n"),
            (r#"{"n": "1"}"#, "n"),
            (r#"{"temperature": 2.1}"#, "temperature"),
            (r#"{"temperature": "hot"}"#, "temperature"),
            (r#"{"stream": 1}"#, "stream"),
            (r#"{"tools": [{}]}"#, "tools"),
            (r#"{"temprature": 1}"#, "temprature"),
        ] {
            check(body, read, Some(param));
        }
    }

    #[test]
    fn a_slip_is_answered_with_the_right_name() {
        let mut fields = Fields::of_body(br#"{"maxTokens": 1}"#).unwrap();
        fields.take("max_tokens");
        let message = fields.finish().unwrap_err().message;
        assert!(message.ends_with("did you mean `max_tokens`?"), "{message}");
    }

    #[test]
    fn a_body_that_is_no_object_is_malformed() {
        let doubled = [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"a":[{"b":{"c":1,"c":null}}]}"#];
        let broken = ["", "{", "[]", "1", "{\"a\":1}}", "\u{0}", &"[".repeat(10_000)];
        for body in broken.into_iter().chain(doubled) {
            let failure = Fields::of_body(body.as_bytes()).err().unwrap();
            assert_eq!(failure.code, "malformed_body");
        }
    }
}
