//! A small JSON Schema validator, written apart from the engine: what its answers are judged by.

use serde_json::Value;

/// What is wrong with a text under a schema; `None`: nothing.
pub fn fault(schema: &Value, text: &str) -> Option<String> {
    match serde_json::from_str(text) {
        Ok(value) => check(schema, schema, &value),
        // JSON's numbers have no bounds, those of this program do.
        Err(error) if error.to_string().contains("number out of range") => None,
        Err(error) => Some(format!("no JSON: {error}")),
    }
}

fn check(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let object = match schema {
        Value::Bool(true) => return None,
        Value::Bool(false) => return Some("nothing is allowed here".to_string()),
        schema => schema.as_object().expect("a schema is an object"),
    };
    object.iter().find_map(|(key, argument)| {
        let ok = match key.as_str() {
            "$defs" | "definitions" | "$schema" | "title" | "description" => true,
            "$ref" => {
                let pointer = argument.as_str().unwrap().trim_start_matches('#');
                return check(root, root.pointer(pointer).expect("a target"), value);
            }
            "type" => match argument {
                Value::Array(types) => types.iter().any(|kind| is(value, kind)),
                kind => is(value, kind),
            },
            "enum" => argument.as_array().unwrap().contains(value),
            "const" => argument == value,
            "anyOf" => valid_count(root, argument, value) >= 1,
            "oneOf" => valid_count(root, argument, value) == 1,
            "allOf" => valid_count(root, argument, value) == argument.as_array().unwrap().len(),
            "required" => {
                let names = argument.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
                value.as_object().is_none_or(|value| names.into_iter().all(|name| value.contains_key(name)))
            }
            "properties" => {
                return argument
                    .as_object()
                    .unwrap()
                    .iter()
                    .find_map(|(name, schema)| value.get(name).and_then(|value| check(root, schema, value)));
            }
            "additionalProperties" => {
                let known = object.get("properties").and_then(Value::as_object);
                let is_known = |name: &String| known.is_some_and(|known| known.contains_key(name));
                let others = value.as_object().into_iter().flatten().filter(|(name, _)| !is_known(name));
                return others.into_iter().find_map(|(_, value)| check(root, argument, value));
            }
            "items" => {
                let first = object.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
                let items = value.as_array().into_iter().flatten().skip(first);
                return items.into_iter().find_map(|value| check(root, argument, value));
            }
            "prefixItems" => {
                let items = value.as_array().into_iter().flatten();
                return argument
                    .as_array()
                    .unwrap()
                    .iter()
                    .zip(items)
                    .find_map(|(schema, value)| check(root, schema, value));
            }
            "minItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 >= argument.as_u64().unwrap())
            }
            "maxItems" => {
                value.as_array().is_none_or(|items| items.len() as u64 <= argument.as_u64().unwrap())
            }
            "minLength" => {
                value.as_str().is_none_or(|text| text.chars().count() as u64 >= argument.as_u64().unwrap())
            }
            "maxLength" => {
                value.as_str().is_none_or(|text| text.chars().count() as u64 <= argument.as_u64().unwrap())
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= argument.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= argument.as_f64().unwrap()),
            "multipleOf" => value.as_i64().is_none_or(|number| number % argument.as_i64().unwrap() == 0),
            // Checked by the test that sets them, with conditions of its own.
            "pattern" | "format" => true,
            other => panic!("the validator does not know `{other}`"),
        };
        (!ok).then(|| format!("`{key}`: {argument} against {value}"))
    })
}

fn valid_count(root: &Value, schemas: &Value, value: &Value) -> usize {
    schemas.as_array().unwrap().iter().filter(|schema| check(root, schema, value).is_none()).count()
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type `{other}`"),
    }
}

#[test]
fn the_validator_finds_faults() {
    let schema = serde_json::json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"],
        "additionalProperties": false, "$defs": {"n": {"type": ["integer", "null"], "minimum": 2}}});
    for (text, valid) in [
        (r#"{"a": 2}"#, true),
        (r#"{"a": null}"#, true),
        (r#"{"a": 1}"#, false),
        (r#"{"a": 2.5}"#, false),
        (r#"{"a": 2, "b": 1}"#, false),
        (r#"{}"#, false),
        (r#"{"a": 2"#, false),
    ] {
        assert_eq!(fault(&schema, text).is_none(), valid, "{text}: {:?}", fault(&schema, text));
    }
}

/// What the answers are judged by judges as `jsonschema` of Python does: tools/oracles/make_schema_verdicts.py.
#[test]
fn the_validator_agrees_with_an_independent_one() {
    let schemas: Vec<Value> = serde_json::from_str(include_str!("../golden/schemas.json")).unwrap();
    let golden: Value = serde_json::from_str(include_str!("../golden/schema_verdicts.json")).unwrap();
    let verdicts = golden["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), schemas.len());
    for (schema, verdicts) in schemas.iter().zip(verdicts) {
        let found: String = (golden["values"].as_array().unwrap().iter())
            .map(|value| if fault(schema, &value.to_string()).is_none() { '1' } else { '0' })
            .collect();
        assert_eq!(found, verdicts.as_str().unwrap(), "{schema}");
    }
}
