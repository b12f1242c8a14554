//! What requests are answered with.

use serde_json::{Value, json};

use crate::client::{Options, TestServer};

fn server() -> TestServer {
    TestServer::start(Options::default())
}

/// Greedy, so that the toy says the alphabet.
fn completion(prompt: impl Into<Value>) -> Value {
    json!({"model": "toy", "prompt": prompt.into(), "temperature": 0, "max_tokens": 20})
}

fn chat(content: &str) -> Value {
    json!({"model": "toy", "messages": [{"role": "user", "content": content}], "temperature": 0})
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

#[test]
fn models_are_listed_and_shown() {
    let server = server();
    let list = server.ask("GET", "/v1/models", "").json();
    let names: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((list["object"].as_str(), names), (Some("list"), vec!["toy", "toy-backwards"]));
    let one = server.ask("GET", "/v1/models/toy", "").json();
    assert_eq!(
        (one["id"].as_str(), one["object"].as_str(), one["created"].as_u64()),
        (Some("toy"), Some("model"), Some(7))
    );
    server.ask("GET", "/v1/models/none", "").check(404, Some("model"));
    server.ask("GET", "/v1/models/..%2F..%2Fetc%2Fpasswd", "").check(404, Some("model"));
    server.post("/v1/completions", with(completion("a"), "model", json!("none"))).check(404, Some("model"));
}

#[test]
fn a_completion_has_text_reason_and_usage() {
    let server = server();
    let answer = server.post("/v1/completions", completion("uv")).json();
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["text"], "wxyz");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"], json!({"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": 7}));
    let limited = server.post("/v1/completions", with(completion("uv"), "max_tokens", json!(2))).json();
    assert_eq!(
        (&limited["choices"][0]["text"], &limited["choices"][0]["finish_reason"]),
        (&json!("wx"), &json!("length"))
    );
    let backwards =
        server.post("/v1/completions", with(completion("d"), "model", json!("toy-backwards"))).json();
    assert_eq!(backwards["choices"][0]["text"], "cba");
}

#[test]
fn prompts_may_be_several_and_token_ids() {
    let server = server();
    let answer = server.post("/v1/completions", with(completion(json!(["x", "y"])), "n", json!(2))).json();
    let texts: Vec<&str> =
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["yz", "yz", "z", "z"]);
    assert_eq!(answer["usage"]["prompt_tokens"], 2, "a prompt counts once however many answers it gets");
    // Byte b is token 4 + b.
    let answer = server.post("/v1/completions", completion(json!([[4 + 120], [4 + 121]]))).json();
    assert_eq!((&answer["choices"][0]["text"], &answer["choices"][1]["text"]), (&json!("yz"), &json!("z")));
    let empty = server.post("/v1/completions", completion("")).json();
    assert_eq!(empty["usage"]["prompt_tokens"], 1, "an empty prompt is the beginning of a text");
}

#[test]
fn stop_strings_never_leak() {
    let server = server();
    let stop = json!(["fgh", "κ"]);
    let answer = server.post("/v1/completions", with(completion("a"), "stop", stop.clone())).json();
    assert_eq!(
        (&answer["choices"][0]["text"], &answer["choices"][0]["finish_reason"]),
        (&json!("bcde"), &json!("stop"))
    );
    let streamed = with(with(completion("a"), "stop", stop), "stream", json!(true));
    let answer = server.post("/v1/completions", streamed);
    assert_eq!(streamed_text(&answer.events(), |choice| choice["text"].as_str()), "bcde");
    assert!(!answer.body.contains('f') || !answer.body.contains("\"text\":\"f"), "{}", answer.body);
}

#[test]
fn echo_and_probabilities_serve_evaluation_harnesses() {
    let server = server();
    let mut body = with(completion("żax"), "echo", json!(true));
    body["logprobs"] = json!(1);
    body["max_tokens"] = json!(1);
    let choice = &server.post("/v1/completions", body.clone()).json()["choices"][0];
    assert_eq!(choice["text"], "żaxy");
    let logprobs = &choice["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["bytes:\\xc5", "bytes:\\xbc", "a", "x", "y"]));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 1, 2, 3]));
    assert_eq!((&logprobs["token_logprobs"][0], &logprobs["top_logprobs"][0]), (&Value::Null, &Value::Null));
    assert!(
        logprobs["token_logprobs"][3].as_f64().unwrap() < logprobs["top_logprobs"][3]["b"].as_f64().unwrap()
    );
    assert_eq!(logprobs["top_logprobs"][4].as_object().unwrap().keys().collect::<Vec<_>>(), ["y"]);
    body["max_tokens"] = json!(0);
    let choice = &server.post("/v1/completions", body.clone()).json()["choices"][0];
    assert_eq!((&choice["text"], choice["logprobs"]["tokens"].as_array().unwrap().len()), (&json!("żax"), 4));
    body["stream"] = json!(true);
    let answer = server.post("/v1/completions", body);
    assert_eq!(streamed_text(&answer.events(), |choice| choice["text"].as_str()), "żax");
}

#[test]
fn an_answer_is_held_to_its_form() {
    let server = server();
    // The toy would say "bcd".
    let regex = json!({"type": "regex", "regex": "[x-z]{3}"});
    let answer = server.post("/v1/completions", with(completion("a"), "response_format", regex)).json();
    let text = answer["choices"][0]["text"].as_str().unwrap();
    assert!(text.len() == 3 && text.bytes().all(|byte| (b'x'..=b'z').contains(&byte)), "{text}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let schema = json!({"enum": ["ναι", "όχι", [1, null]]});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": &schema, "strict": true}});
    let several = with(with(chat("a"), "response_format", format), "n", json!(2));
    let answer = server.post("/v1/chat/completions", several).json();
    for choice in 0..2 {
        let text = answer["choices"][choice]["message"]["content"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(schema["enum"].as_array().unwrap().contains(&value), "{text}");
    }
    let broken =
        json!({"type": "json_schema", "json_schema": {"schema": {"properties": {"a": {"type": "unicorn"}}}}});
    let refused = server.post("/v1/completions", with(completion("a"), "response_format", broken));
    refused.check(400, Some("response_format"));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("/properties/a"));
}

#[test]
fn texts_become_vectors() {
    let server = server();
    // The toy's hidden state: the sum of the tokens so far (byte b is token 4 + b), and their number.
    let ask = |body: Value| server.post("/v1/embeddings", body);
    let unit = |values: [f32; 2]| {
        let length = values[0].hypot(values[1]);
        values.map(|value| value / length)
    };
    let near = |found: &Value, expected: [f32; 2]| {
        let found: Vec<f32> = found["embedding"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap() as f32)
            .collect();
        assert_eq!(found.len(), 2);
        assert!(
            found.iter().zip(unit(expected)).all(|(a, b)| (a - b).abs() < 1e-6),
            "{found:?} {expected:?}"
        );
    };
    let answer = ask(json!({"model": "toy", "input": "ab", "pooling": "last"})).json();
    assert_eq!((&answer["object"], &answer["data"][0]["index"]), (&json!("list"), &json!(0)));
    near(&answer["data"][0], [101.0 + 102.0, 2.0]);
    assert_eq!(answer["usage"], json!({"prompt_tokens": 2, "total_tokens": 2}));
    let texts: Vec<String> = (0..40).map(|number| "a".repeat(1 + number % 3)).collect();
    let answer = ask(json!({"model": "toy", "input": texts})).json();
    assert_eq!(answer["data"].as_array().unwrap().len(), 40, "more than the engine takes at a time");
    near(&answer["data"][37], [101.0 * 1.5, 1.5]);
    let answer = ask(json!({"model": "toy", "input": [[101], [102]], "encoding_format": "base64"})).json();
    assert!(answer["data"][1]["embedding"].as_str().unwrap().len() == 12, "two numbers of four bytes");
    ask(json!({"model": "toy"})).check(400, Some("input"));
    ask(json!({"model": "toy", "input": ["a", 1]})).check(400, Some("input[1]"));
    ask(json!({"model": "toy", "input": [[999]]})).check(400, Some("input"));
    ask(json!({"model": "toy", "input": "a".repeat(65)})).check(400, Some("input"));
    ask(json!({"model": "toy", "input": "a", "pooling": "max"})).check(400, Some("pooling"));
    ask(json!({"model": "toy", "input": "a", "dimensions": 8})).check(400, Some("dimensions"));
}

#[test]
fn a_chat_is_answered_by_the_template() {
    let server = server();
    let mut body = with(chat("uv"), "logprobs", json!(true));
    body["top_logprobs"] = json!(2);
    let answer = server.post("/v1/chat/completions", body).json();
    assert_eq!(answer["object"], "chat.completion");
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "wxyz", "refusal": null}));
    assert_eq!(choice["finish_reason"], "stop");
    let first = &choice["logprobs"]["content"][0];
    assert_eq!((&first["token"], &first["bytes"]), (&json!("w"), &json!([119])));
    assert_eq!(first["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    let marked = server.post("/v1/chat/completions", chat("<|im_start|>v")).json();
    assert_eq!(marked["usage"]["prompt_tokens"], 14, "a special token that a client writes is text");
    assert_eq!(marked["choices"][0]["message"]["content"], "wxyz");
    let limited =
        server.post("/v1/chat/completions", with(chat("a"), "max_completion_tokens", json!(2))).json();
    assert_eq!(limited["choices"][0]["finish_reason"], "length");
}

#[test]
fn a_stream_carries_the_same_in_pieces() {
    let server = server();
    let mut body = with(chat("s"), "stream", json!(true));
    body["stream_options"] = json!({"include_usage": true});
    body["n"] = json!(2);
    let answer = server.post("/v1/chat/completions", body);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let events = answer.events();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let first: Value = serde_json::from_str(events[0]).unwrap();
    assert_eq!(
        (&first["object"], &first["choices"][0]["delta"]["role"]),
        (&json!("chat.completion.chunk"), &json!("assistant"))
    );
    for number in 0..2 {
        let text = streamed_text(&events, |choice| {
            (choice["index"] == number).then(|| choice["delta"]["content"].as_str()).flatten()
        });
        assert_eq!(text, "tuvwxyz");
    }
    // As OpenAI has it: every chunk but the last says that it has no usage.
    let last = events.len() - 2;
    assert!(events[..last].iter().all(|event| event.contains("\"usage\":null")), "{events:?}");
    let ends: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(ends.iter().filter(|chunk| chunk["choices"][0]["finish_reason"] == "stop").count(), 2);
    let usage = ends.last().unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(16)));
    let without = server.post("/v1/chat/completions", with(chat("s"), "stream", json!(true)));
    assert!(!without.body.contains("usage"), "{}", without.body);
}

#[test]
fn a_seed_gives_the_same_answer_again() {
    let server = server();
    let ask = |seed: Value| {
        let mut body = with(completion("Łódź"), "temperature", json!(2));
        body["seed"] = seed;
        body["n"] = json!(3);
        let answer = server.post("/v1/completions", body).json();
        answer["choices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|choice| choice["text"].as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    let first = ask(json!(5));
    assert_eq!(first, ask(json!(5)));
    assert_ne!(first[0], first[1], "several answers differ");
    assert_ne!(ask(Value::Null), ask(Value::Null), "without a seed each answer is new");
}

#[test]
fn a_malformed_body_is_refused_with_the_name_of_the_field() {
    let server = server();
    server.ask("POST", "/v1/completions", "{").check(400, None);
    server.ask("POST", "/v1/chat/completions", "[]").check(400, None);
    for (name, value) in [
        ("max_tokens", json!("many")),
        ("temperature", json!(3)),
        ("stream", json!("yes")),
        ("n", json!(17)),
        ("logprobs", json!(true)),
        ("best_of", json!(3)),
        ("prompt", json!(null)),
        ("stop", json!(7)),
        ("suffix", json!("end")),
        ("guided_json", json!({})),
        ("temprature", json!(0)),
    ] {
        server.post("/v1/completions", with(completion("a"), name, value)).check(400, Some(name));
    }
    for (name, value) in [
        ("messages", json!([])),
        ("tools", json!([{"type": "function"}])),
        ("response_format", json!("json")),
        ("echo", json!(true)),
        ("top_logprobs", json!(21)),
    ] {
        server.post("/v1/chat/completions", with(chat("a"), name, value)).check(400, Some(name));
    }
    server.post("/v1/completions", completion("a".repeat(10_000))).check(400, Some("prompt"));
    server.post("/v1/chat/completions", chat(&"a".repeat(10_000))).check(400, Some("messages"));
    server.post("/v1/completions", completion("a".repeat(80))).check(400, Some("prompt"));
    server.post("/v1/completions", completion(json!([999]))).check(400, Some("prompt"));
}

fn streamed_text(events: &[&str], content: impl Fn(&Value) -> Option<&str>) -> String {
    let mut text = String::new();
    for event in events.iter().filter(|event| **event != "[DONE]") {
        let chunk: Value = serde_json::from_str(event).unwrap();
        if let Some(choice) = chunk["choices"].get(0) {
            text.push_str(content(choice).unwrap_or_default());
        }
    }
    text
}
