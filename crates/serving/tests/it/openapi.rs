//! The served description of the interface is true: answers are as it says, requests are taken as it says.

use serde_json::{Value, json};

use crate::client::{Answer, Options, TestServer};

/// What of `value` does not follow `schema`, if anything: the part of JSON Schema that the document uses.
fn problem(document: &Value, schema: &Value, value: &Value, place: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').unwrap();
        return problem(document, document.pointer(pointer).unwrap(), value, place);
    }
    if let Some(schemas) = schema["anyOf"].as_array() {
        let problems: Vec<String> =
            schemas.iter().filter_map(|schema| problem(document, schema, value, place)).collect();
        return (problems.len() == schemas.len()).then(|| problems.join(" and "));
    }
    if let Some(constant) = schema.get("const") {
        return (constant != value).then(|| format!("{place}: expected {constant}, found {value}"));
    }
    if let Some(values) = schema["enum"].as_array() {
        return (!values.contains(value))
            .then(|| format!("{place}: expected one of {values:?}, found {value}"));
    }
    let fits = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => panic!("{place}: the schema {schema} says no type"),
    };
    if !fits {
        return Some(format!("{place}: expected {}, found {value}", schema["type"]));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            return Some(format!("{place}: {name} is missing"));
        }
    }
    let items = value.as_array().into_iter().flatten().enumerate();
    let in_items = items.filter_map(|(number, item)| {
        problem(document, &schema["items"], item, &format!("{place}[{number}]"))
    });
    let properties = schema["properties"].as_object().into_iter().flatten();
    let in_properties = properties
        .filter_map(|(name, schema)| problem(document, schema, value.get(name)?, &format!("{place}.{name}")));
    in_items.chain(in_properties).next()
}

fn check_answer(document: &Value, method: &str, path: &str, answer: &Answer) {
    let responses = &document["paths"][path][method]["responses"];
    let status = answer.status.to_string();
    let response = responses.get(&status).unwrap_or(&responses["default"]);
    let schema = &response["content"]["application/json"]["schema"];
    let found = problem(document, schema, &answer.json(), "");
    assert_eq!(found, None, "{method} {path} {status}: {}", answer.body);
}

#[test]
fn answers_are_as_the_document_says() {
    let server = TestServer::start(Options::default());
    let served = server.ask("GET", "/openapi.json", "");
    let document = served.json();
    assert_eq!(document["openapi"], "3.1.0");
    check_answer(&document, "get", "/openapi.json", &served);
    // The toy's tokens are bytes and a few more.
    let most = document["components"]["schemas"]["TokenId"]["maximum"].as_u64().unwrap();
    let last = json!({"model": "toy", "tokens": [most]});
    assert_eq!(server.post("/detokenize", last).status, 200);
    server.post("/detokenize", json!({"model": "toy", "tokens": [most + 1]})).check(400, Some("tokens"));
    for path in ["/healthz", "/readyz", "/v1/models"] {
        check_answer(&document, "get", path, &server.ask("GET", path, ""));
        check_answer(&document, "get", path, &server.ask_with("GET", path, "", ""));
    }
    check_answer(&document, "get", "/v1/models/{id}", &server.ask("GET", "/v1/models/toy", ""));
    check_answer(&document, "get", "/v1/models/{id}", &server.ask("GET", "/v1/models/none", ""));
    // Of two models one has to be named.
    let model = &document["paths"]["/tokenizer_info"]["get"]["parameters"][0];
    assert_eq!((&model["name"], &model["required"]), (&json!("model"), &json!(true)));
    let messages = json!([{"role": "user", "content": "abc"}]);
    let bodies = [
        (
            "/v1/completions",
            json!({"model": "toy", "prompt": "ab", "max_tokens": 3, "logprobs": 2, "echo": true}),
        ),
        ("/v1/completions", json!({"model": "toy", "prompt": ["ab", "cd"], "max_tokens": 0})),
        ("/v1/completions", json!({"model": "toy"})),
        (
            "/v1/chat/completions",
            json!({"model": "toy", "messages": messages, "max_tokens": 3, "logprobs": true}),
        ),
        ("/v1/chat/completions", json!({"model": "toy", "messages": messages, "n": 1000})),
        ("/v1/embeddings", json!({"model": "toy", "input": ["ab", "c"]})),
        ("/v1/embeddings", json!({"model": "toy", "input": "ab", "encoding_format": "base64"})),
        ("/tokenize", json!({"model": "toy", "prompt": "ab"})),
        ("/tokenize", json!({"model": "toy", "prompt": "ab", "return_token_strs": true})),
        ("/detokenize", json!({"model": "toy", "tokens": [98]})),
        ("/detokenize", json!([])),
    ];
    for (path, body) in bodies {
        check_answer(&document, "post", path, &server.post(path, body));
    }
    for (path, status) in
        [("/tokenizer_info?model=toy", 200), ("/tokenizer_info", 400), ("/tokenizer_info?x=1", 400)]
    {
        let answer = server.ask("GET", path, "");
        assert_eq!(answer.status, status, "{path}");
        check_answer(&document, "get", "/tokenizer_info", &answer);
    }
}

/// For each property of a request, the parser knows it: a value of a wrong kind is refused as such, not as unknown.
#[test]
fn every_field_that_is_listed_is_read_and_no_other() {
    let server = TestServer::start(Options::default());
    let document = server.ask("GET", "/openapi.json", "").json();
    let minimal = [
        ("/v1/completions", "CompletionRequest", json!({"model": "toy", "prompt": "a", "max_tokens": 1})),
        (
            "/v1/chat/completions",
            "ChatCompletionRequest",
            json!({"model": "toy", "messages": [{"role": "user", "content": "a"}], "max_tokens": 1}),
        ),
        ("/v1/embeddings", "EmbeddingRequest", json!({"model": "toy", "input": "a"})),
        ("/tokenize", "TokenizeTextRequest", json!({"model": "toy", "prompt": "a"})),
        ("/detokenize", "DetokenizeRequest", json!({"model": "toy", "tokens": [98]})),
    ];
    for (path, name, minimal) in minimal {
        let schema = &document["components"]["schemas"][name];
        assert_eq!(problem(&document, schema, &minimal, ""), None, "{name}");
        assert_eq!(server.post(path, minimal.clone()).status, 200, "{name}");
        let mut unknown = minimal.clone();
        unknown["no_such_field"] = json!(1);
        server.post(path, unknown).check(400, Some("no_such_field"));
        for property in schema["properties"].as_object().unwrap().keys() {
            let mut body = minimal.clone();
            body[property] = json!(null);
            if !schema["required"].as_array().unwrap().contains(&json!(property)) {
                assert_eq!(server.post(path, body.clone()).status, 200, "{name}.{property} may be null");
            }
            // Nothing takes such an object.
            body[property] = json!({"\u{0}": ["wrong"]});
            let refused = server.post(path, body);
            assert_eq!(refused.status, 400, "{name}.{property}: {}", refused.body);
            let error = &refused.json()["error"];
            let param = error["param"].as_str().unwrap_or_default();
            let is_neutral = !schema["properties"][property]["anyOf"][0]["const"].is_null()
                || ["tool_choice", "service_tier", "parallel_tool_calls", "best_of"]
                    .contains(&property.as_str());
            assert!(
                (error["code"] == "invalid_value"
                    && (param.starts_with(property.as_str()) || property == "messages"))
                    || error["code"] == "unsupported_field"
                        && (is_neutral && param == property || param.starts_with(&format!("{property}."))),
                "{name}.{property}: {error}"
            );
        }
    }
}
