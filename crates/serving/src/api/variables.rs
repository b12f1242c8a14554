//! `chat_template_kwargs`: further names for the chat template, such as `enable_thinking`, as vLLM, llama-server and
//! `apply_chat_template` of `transformers` take them.
//!
//! A name that the server itself gives a template is refused: whoever could give `messages` or `chat_template` would say
//! what no filter has read, or bring a program of his own to an engine elsewhere.

use filters::Chain;
use serde_json::{Map, Value};
use tokenizer::NAMES_OF_TEMPLATES;

use super::failure::ApiFailure;
use super::fields::{Fields, kind_of, shown};
use super::relay;

pub const FIELD: &str = "chat_template_kwargs";
pub const MOST_VARIABLES: usize = 64;
/// What a name looks like, as in Python.
pub const NAME_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_]{0,63}$";
/// Longest name, in bytes.
const LONGEST_NAME: usize = 64;
/// Of all values together, as JSON.
const MOST_BYTES: usize = 64 << 10;

/// Names with values of any kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variables(Map<String, Value>);

impl Variables {
    /// Reads the field, if it is there.
    pub fn read(fields: &mut Fields) -> Result<Variables, ApiFailure> {
        let object = match fields.take(FIELD) {
            None => return Ok(Variables::default()),
            Some(Value::Object(object)) => object,
            Some(other) => {
                let expected = "an object of names and values, such as {\"enable_thinking\": false}";
                return Err(fields.wrong(FIELD, expected, &other));
            }
        };
        if object.len() > MOST_VARIABLES {
            return Err(ApiFailure::field(FIELD, format!("at most {MOST_VARIABLES} names"), object.len()));
        }
        for (name, value) in &object {
            if !is_name(name) {
                let expected = "names of ASCII letters, digits and `_`, at most 64, no digit first";
                return Err(ApiFailure::field(FIELD, expected, shown(&Value::from(name.as_str()))));
            }
            if NAMES_OF_TEMPLATES.contains(&name.as_str()) {
                let expected = "to be absent: this name is the server's own";
                return Err(ApiFailure::field(format!("{FIELD}.{name}"), expected, kind_of(value)));
            }
        }
        let bytes = Value::Object(object.clone()).to_string().len();
        if bytes > MOST_BYTES {
            let expected = format!("at most {MOST_BYTES} bytes of JSON");
            return Err(ApiFailure::field(FIELD, expected, bytes));
        }
        Ok(Variables(object))
    }

    /// Lets every text in them through the input filters.
    pub fn filter(&mut self, chain: &Chain) -> Result<(), ApiFailure> {
        if chain.passes_input() {
            return Ok(());
        }
        self.0
            .iter_mut()
            .try_for_each(|(name, value)| relay::filter_strings(value, &format!("{FIELD}.{name}"), chain))
    }

    /// What the template is given.
    pub fn values(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The same as the field of a request; `None` if there is none.
    pub fn as_field(&self) -> Option<(&'static str, Value)> {
        (!self.0.is_empty()).then(|| (FIELD, Value::Object(self.0.clone())))
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= LONGEST_NAME
        && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Variables, ApiFailure> {
        let body = json!({FIELD: value}).to_string();
        Variables::read(&mut Fields::of_body(body.as_bytes()).unwrap())
    }

    #[test]
    fn names_are_names_and_never_the_servers_own() {
        let given = json!({"enable_thinking": false, "_x1": null, "nested": {"a": [1, 2.5, "ż"]}});
        assert_eq!(Value::Object(read(given.clone()).unwrap().values().clone()), given);
        assert_eq!(read(Value::Null).unwrap().as_field(), None);
        for name in NAMES_OF_TEMPLATES {
            let failure = read(json!({name: 1})).unwrap_err();
            assert_eq!(failure.param, Some(format!("{FIELD}.{name}")));
        }
        let many: Map<String, Value> = (0..65).map(|number| (format!("n{number}"), json!(1))).collect();
        for wrong in [
            json!([]),
            json!("enable_thinking"),
            json!({"": 1}),
            json!({"1a": 1}),
            json!({"a-b": 1}),
            json!({"ż": 1}),
            json!({"a".repeat(65): 1}),
            json!({"a": "a".repeat(70_000)}),
            json!(many),
        ] {
            assert_eq!(read(wrong).unwrap_err().param.as_deref(), Some(FIELD));
        }
    }

    #[test]
    fn filters_read_every_text() {
        let settings: filters::Settings = toml::from_str(
            "[[input]]\nname = 'words'\nkind = 'patterns'\naction = 'replace'\nblock = ['geheim']\nreplacement = '#'\n",
        )
        .unwrap();
        let chain = Chain::compile(&settings).unwrap();
        let mut variables = read(json!({"who": "ein geheimer Rat", "more": [{"a": ["geheim", 1]}]})).unwrap();
        variables.filter(&chain).unwrap();
        assert_eq!(json!(variables.values()), json!({"who": "ein #er Rat", "more": [{"a": ["#", 1]}]}));
        let failure = read(json!({"more": [{"geheim": 1}]})).unwrap().filter(&chain).unwrap_err();
        assert_eq!(failure.param.as_deref(), Some("chat_template_kwargs.more"));
    }
}
