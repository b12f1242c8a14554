//! Where in a JSON Schema the fault is: a person with a schema of a thousand lines needs a place.

use serde_json::{Map, Value};

/// Parts of a schema that are tried for a fault.
const MOST_TRIES: usize = 200;

/// Most properties of one object. What the compiler does grows with their square: 2,000 took 1.5 s.
const MOST_PROPERTIES: usize = 2_000;
/// Most of these that may be left out: after each, any later one may follow, and the parser stops at 2,000 ways to go on.
const MOST_OPTIONAL_PROPERTIES: usize = 400;

/// Keywords whose value is a schema.
const ONE: [&str; 3] = ["items", "additionalProperties", "contains"];
/// Keywords whose value is an array of schemas.
const SEVERAL: [&str; 4] = ["anyOf", "oneOf", "allOf", "prefixItems"];
/// Keywords whose value is an object of schemas by name.
const NAMED: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

/// The deepest part that is faulty by itself, as a JSON pointer, and what is wrong with it. `problem` is that of the whole;
/// `fault` says what is wrong with a schema, if anything is.
pub fn locate(schema: &Value, problem: String, fault: &dyn Fn(&Value) -> Option<String>) -> (String, String) {
    let (mut place, mut part, mut problem) = (String::new(), schema, problem);
    let mut tries = MOST_TRIES;
    'deeper: loop {
        for (name, child) in children(part) {
            if !stands_alone(child) {
                continue;
            }
            if tries == 0 {
                return (place, problem);
            }
            tries -= 1;
            if let Some(found) = fault(&with_definitions(child, schema)) {
                place.push_str(&name);
                (part, problem) = (child, found);
                continue 'deeper;
            }
        }
        return (place, problem);
    }
}

/// What a schema must not hold, with its place.
pub fn refused_part(schema: &Value) -> Option<(String, String)> {
    let mut waiting = vec![(String::new(), schema)];
    while let Some((place, part)) = waiting.pop() {
        if part.get("x-guidance").is_some() {
            let problem = "`x-guidance` is not supported: leave it out".to_string();
            return Some((place, problem));
        }
        let properties = part.get("properties").and_then(Value::as_object).map_or(0, Map::len);
        let required = part.get("required").and_then(Value::as_array).map_or(0, Vec::len);
        if properties > MOST_PROPERTIES || properties.saturating_sub(required) > MOST_OPTIONAL_PROPERTIES {
            let problem = format!(
                "it has {properties} properties, of which {required} are required; at most {MOST_PROPERTIES} are \
                 allowed, and at most {MOST_OPTIONAL_PROPERTIES} that are not required: split the object"
            );
            return Some((place, problem));
        }
        waiting.extend(children(part).into_iter().map(|(name, child)| (place.clone() + &name, child)));
    }
    None
}

/// How deep a value is nested. Does not call itself: the value may be as deep as anyone likes.
pub fn depth(value: &Value) -> usize {
    let mut waiting = vec![(1, value)];
    let mut deepest = 0;
    while let Some((depth, value)) = waiting.pop() {
        deepest = deepest.max(depth);
        match value {
            Value::Array(values) => waiting.extend(values.iter().map(|value| (depth + 1, value))),
            Value::Object(object) => waiting.extend(object.values().map(|value| (depth + 1, value))),
            _ => {}
        }
    }
    deepest
}

fn children(schema: &Value) -> Vec<(String, &Value)> {
    let mut children = Vec::new();
    for keyword in ONE {
        children.extend(schema.get(keyword).map(|child| (format!("/{keyword}"), child)));
    }
    for keyword in SEVERAL {
        let several = schema.get(keyword).and_then(Value::as_array).into_iter().flatten();
        children.extend(several.enumerate().map(|(number, child)| (format!("/{keyword}/{number}"), child)));
    }
    for keyword in NAMED {
        let named = schema.get(keyword).and_then(Value::as_object).into_iter().flatten();
        let pointer = |name: &str| name.replace('~', "~0").replace('/', "~1");
        children.extend(named.map(|(name, child)| (format!("/{keyword}/{}", pointer(name)), child)));
    }
    children.retain(|(_, child)| child.is_object());
    children
}

/// Whether all references of a part lead into the definitions, which go with it.
fn stands_alone(part: &Value) -> bool {
    match part {
        Value::Object(object) => object.iter().all(|(key, value)| match value {
            Value::String(target) if key == "$ref" => {
                target.starts_with("#/$defs/") || target.starts_with("#/definitions/")
            }
            value => stands_alone(value),
        }),
        Value::Array(values) => values.iter().all(stands_alone),
        _ => true,
    }
}

fn with_definitions(part: &Value, schema: &Value) -> Value {
    let mut part: Map<String, Value> = part.as_object().cloned().unwrap_or_default();
    for keyword in ["$schema", "$defs", "definitions"] {
        if let Some(value) = schema.get(keyword) {
            part.entry(keyword).or_insert_with(|| value.clone());
        }
    }
    Value::Object(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_deepest_faulty_part_is_named() {
        // A part is faulty if `bad` stands in it, outside of the definitions.
        fn fault(schema: &Value) -> Option<String> {
            let here = schema.get("bad").map(|value| format!("bad is {value}"));
            let children = children(schema).into_iter();
            here.or_else(|| {
                children.filter(|(name, _)| !name.contains("def")).find_map(|(_, child)| fault(child))
            })
        }
        let check = |schema: Value, place: &str| {
            let problem = fault(&schema).unwrap();
            assert_eq!(locate(&schema, problem, &fault), (place.to_string(), "bad is 1".to_string()));
        };
        check(json!({"bad": 1}), "");
        check(
            json!({"properties": {"a": {}, "b/c": {"items": {"anyOf": [{}, {"bad": 1}]}}}}),
            "/properties/b~1c/items/anyOf/1",
        );
        check(json!({"properties": {"a": {"bad": 1, "$ref": "#/properties/b"}}}), "");
    }

    #[test]
    fn options_of_the_library_are_not_the_schemas_to_set() {
        let schema = json!({"items": {"x-guidance": {"lenient": true}}});
        assert_eq!(refused_part(&schema).unwrap().0, "/items");
        assert_eq!(refused_part(&json!({"properties": {"x-guidance": {}}})), None);
    }
}
