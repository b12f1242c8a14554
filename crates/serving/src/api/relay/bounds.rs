//! How much of what stands beside the texts goes on to an engine: what our own engine would not take, none elsewhere is handed.
//! Values within these bounds are the engine's to judge.

use inference::LARGEST_FORMAT;
use serde_json::Value;

use crate::api::failure::ApiFailure;
use crate::api::fields::{kind_of, shown, whole};
use crate::api::options::{
    DEEPEST_SCHEMA, LONGEST_STOP, MOST_ALTERNATIVES, MOST_BIASES, MOST_STOPS, is_deeper,
};

/// Tools of one request; OpenAI's limit.
const MOST_TOOLS: usize = 128;
/// Levels between a field and the schema within it, as in `tools[0].function.parameters`.
const LEVELS_ABOVE: usize = 3;

/// Refuses the value of a field that is a bomb.
pub fn check(name: &str, value: &Value) -> Result<(), ApiFailure> {
    let refused = |expected: String, found: String| Err(ApiFailure::field(name, expected, found));
    match (name, value) {
        ("stop", Value::Array(stops)) if stops.len() > MOST_STOPS => {
            refused(format!("at most {MOST_STOPS} strings"), stops.len().to_string())
        }
        ("stop", Value::Array(stops)) => stops.iter().try_for_each(|stop| check(name, stop)),
        ("stop", Value::String(stop)) if stop.len() > LONGEST_STOP => {
            refused(format!("at most {LONGEST_STOP} bytes"), stop.len().to_string())
        }
        ("logit_bias", value) => check_biases(value),
        ("tools", Value::Array(tools)) if tools.len() > MOST_TOOLS => {
            refused(format!("at most {MOST_TOOLS}"), tools.len().to_string())
        }
        ("tools", Value::Array(tools)) => tools.iter().try_for_each(|tool| check_form(name, tool)),
        ("tools" | "tool_choice" | "response_format", value) => check_form(name, value),
        ("logprobs" | "top_logprobs", value) => {
            let fits =
                value.is_boolean() || whole(value).is_some_and(|most| most <= MOST_ALTERNATIVES as u64);
            let expected = format!("true, false or a whole number from 0 to {MOST_ALTERNATIVES}");
            if fits { Ok(()) } else { refused(expected, shown(value)) }
        }
        _ => Ok(()),
    }
}

/// A schema is compiled by whoever follows it.
fn check_form(name: &str, value: &Value) -> Result<(), ApiFailure> {
    if is_deeper(value, DEEPEST_SCHEMA + LEVELS_ABOVE) {
        return Err(ApiFailure::field(name, format!("schemas of at most {DEEPEST_SCHEMA} levels"), "more"));
    }
    match value.to_string().len() {
        bytes if bytes > LARGEST_FORMAT => {
            Err(ApiFailure::field(name, format!("schemas of at most {LARGEST_FORMAT} bytes"), bytes))
        }
        _ => Ok(()),
    }
}

/// Its keys are numbers of tokens, which are nobody's text: whatever else they hold goes nowhere.
fn check_biases(value: &Value) -> Result<(), ApiFailure> {
    let is_token =
        |key: &String| (1..=9).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_digit());
    match value {
        Value::Object(biases) if biases.len() > MOST_BIASES => {
            Err(ApiFailure::field("logit_bias", format!("at most {MOST_BIASES} tokens"), biases.len()))
        }
        Value::Object(biases) if biases.iter().all(|(key, bias)| is_token(key) && bias.is_number()) => Ok(()),
        other => Err(ApiFailure::field("logit_bias", "an object of token ids and numbers", kind_of(other))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    #[test]
    fn bombs_stay_here() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
        let biases = |count: usize| -> Map<String, Value> {
            (0..count).map(|token| (token.to_string(), json!(1))).collect()
        };
        let tool = |parameters: Value| json!({"type": "function", "function": {"name": "f", "parameters": parameters}});
        let format =
            |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "f", "schema": schema}});
        let long = |bytes: usize| json!("x".repeat(bytes));
        for (name, fits, bomb) in [
            ("stop", json!(vec!["a"; MOST_STOPS]), json!(vec!["a"; MOST_STOPS + 1])),
            ("stop", long(LONGEST_STOP), long(LONGEST_STOP + 1)),
            ("stop", json!([long(LONGEST_STOP)]), json!(["a", long(LONGEST_STOP + 1)])),
            ("logit_bias", json!(biases(MOST_BIASES)), json!(biases(MOST_BIASES + 1))),
            ("tools", json!(vec![tool(json!({})); MOST_TOOLS]), json!(vec![json!({}); MOST_TOOLS + 1])),
            ("tools", json!([tool(nested(DEEPEST_SCHEMA))]), json!([tool(nested(DEEPEST_SCHEMA + 2))])),
            ("tools", json!([tool(long(1_000))]), json!([tool(long(LARGEST_FORMAT))])),
            ("response_format", format(nested(DEEPEST_SCHEMA)), format(nested(DEEPEST_SCHEMA + 2))),
            ("response_format", format(json!({"enum": [1]})), format(long(LARGEST_FORMAT))),
            ("logprobs", json!(true), json!(-1)),
            ("logprobs", json!(5), json!("5")),
            ("top_logprobs", json!(20), json!(21)),
            ("top_logprobs", json!(0), json!(1e9)),
        ] {
            assert_eq!(check(name, &fits), Ok(()), "{name}");
            assert_eq!(check(name, &bomb).unwrap_err().param.as_deref(), Some(name));
        }
    }
}
