//! Requests that are small to send and large to answer: each is refused before the engine hears of it, and in no time.

use std::time::Duration;

use inference::EngineSettings;
use serde_json::{Value, json};

use crate::client::{Answer, Options, TestServer};

const SLOW: Duration = Duration::from_millis(20);

fn completion() -> Value {
    json!({"model": "toy", "prompt": "ab", "max_tokens": 3})
}

fn chat() -> Value {
    json!({"model": "toy", "messages": [{"role": "user", "content": "ab"}], "max_tokens": 3})
}

/// `levels` objects, one in the other.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({"type": "string"}), |inner, _| json!({"anyOf": [inner]}))
}

fn schema(schema: Value) -> Value {
    json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
}

fn check_untouched(server: &TestServer, answer: &Answer, param: &str) {
    answer.check(400, Some(param));
    assert_eq!(server.engine.load().figures.steps, 0, "the engine heard of it");
}

#[test]
fn every_field_that_multiplies_work_has_a_bound() {
    let server = TestServer::start(Options::default());
    let biases: serde_json::Map<String, Value> =
        (0..2_000).map(|id: u32| (id.to_string(), json!(1))).collect();
    let completions = [
        ("n", json!(1_000_000), "n"),
        ("best_of", json!(1_000), "best_of"),
        ("prompt", json!(vec!["a"; 100_000]), "prompt"),
        ("prompt", json!("a".repeat(100_000)), "prompt"),
        ("prompt", json!(vec![100; 100_000]), "prompt"),
        ("max_tokens", json!(u64::MAX), "prompt"),
        ("logprobs", json!(1_000_000), "logprobs"),
        ("logit_bias", json!(biases), "logit_bias"),
        ("logit_bias", json!({"4000000000": 1}), "logit_bias"),
        ("stop", json!(vec!["z"; 10_000]), "stop"),
        ("stop", json!("z".repeat(10_000)), "stop"),
        ("user", json!("z".repeat(10_000)), "user"),
        ("response_format", schema(nested(30)), "response_format.json_schema.schema"),
        ("response_format", schema(json!({"enum": (0..100_000).collect::<Vec<u32>>()})), "response_format"),
        ("response_format", json!({"type": "regex", "regex": "(".repeat(300_000)}), "response_format"),
    ];
    // The client waits a minute for each answer; a bomb that went off would take many.
    for (field, value, param) in completions {
        let mut body = completion();
        body[field] = value;
        check_untouched(&server, &server.post("/v1/completions", body), param);
    }
    let message = |content: Value| json!({"role": "user", "content": content});
    let parts: Vec<Value> = (0..50_000).map(|_| json!({"type": "text", "text": "ab"})).collect();
    let chats = [
        ("messages", json!(vec![message(json!("")); 10_000]), "messages"),
        ("messages", json!([message(json!(parts))]), "messages"),
        ("n", json!(17), "n"),
        ("chat_template_kwargs", json!({"a": "z".repeat(100_000)}), "chat_template_kwargs"),
        ("chat_template_kwargs", json!({"messages": []}), "chat_template_kwargs.messages"),
        ("tools", json!(vec![json!({"type": "function"}); 5_000]), "tools"),
    ];
    for (field, value, param) in chats {
        let mut body = chat();
        body[field] = value;
        check_untouched(&server, &server.post("/v1/chat/completions", body), param);
    }
    let embeddings = json!({"model": "toy", "input": vec!["a"; 3_000]});
    check_untouched(&server, &server.post("/v1/embeddings", embeddings), "input");
    server.post("/v1/completions", completion()).check_ok();
}

#[test]
fn bodies_that_nest_deep_or_repeat_are_malformed() {
    let server = TestServer::start(Options::default());
    for body in ["[".repeat(1_000_000), "{\"a\":".repeat(200_000), format!("{{\"model\":{}", "[".repeat(500))]
    {
        server.ask("POST", "/v1/completions", &body).check(400, None);
    }
    server.post("/v1/completions", completion()).check_ok();
}

#[test]
fn a_request_that_waits_leaves_the_queue_with_its_client() {
    let engine = EngineSettings { running_requests: 1, ..EngineSettings::default() };
    let server = TestServer::start(Options { step: SLOW, engine, ..Options::default() });
    let long = |stream: bool| json!({"model": "toy", "prompt": "a", "temperature": 0, "max_tokens": 25, "stream": stream});
    let running = server.begin("/v1/completions", long(true));
    server.wait_until("the first runs", |server| server.engine.load().running == 1);
    let waiting = [true, false].map(|stream| server.begin("/v1/completions", long(stream)));
    server.wait_until("two wait", |server| server.engine.load().waiting == 2);
    drop(waiting);
    server.wait_until("nobody waits", |server| server.engine.load().waiting == 0);
    assert_eq!(server.engine.load().running, 1, "who has not left is answered");
    assert_eq!(Answer::read(running).events().last(), Some(&"[DONE]"));
}

#[test]
fn a_full_queue_is_told_before_the_prompt_is_read() {
    let engine = EngineSettings { running_requests: 1, queued_requests: 1, ..EngineSettings::default() };
    let server = TestServer::start(Options { step: SLOW, engine, ..Options::default() });
    let long = json!({"model": "toy", "prompt": "a", "temperature": 0, "max_tokens": 25, "stream": true});
    let first = server.begin("/v1/completions", long.clone());
    server.wait_until("the first runs", |server| server.engine.load().running == 1);
    let second = server.begin("/v1/completions", long.clone());
    server.wait_until("the second waits", |server| server.engine.load().waiting == 1);
    // Too long for the context, which nobody finds out.
    let mut longest = long;
    longest["prompt"] = json!("a".repeat(60_000));
    server.post("/v1/completions", longest).check(429, None);
    drop((first, second));
}
