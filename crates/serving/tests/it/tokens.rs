//! Tokens of texts and conversations, and back.

use serde_json::json;

use crate::client::{Options, TestServer};

#[test]
fn a_text_becomes_tokens_and_tokens_a_text() {
    let server = TestServer::start(Options::default());
    let text = "Ħobż, ψωμί";
    let answer = server.post("/tokenize", json!({"model": "toy", "prompt": text, "return_token_strs": true}));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let tokens = answer["tokens"].as_array().unwrap();
    assert_eq!(answer["count"], tokens.len());
    assert_eq!(answer["token_strs"].as_array().unwrap().len(), tokens.len());
    assert_eq!(answer["max_model_len"], 64);
    let back = server.post("/detokenize", json!({"model": "toy", "tokens": tokens})).json();
    assert_eq!(back["prompt"], text);
}

#[test]
fn what_cannot_be_counted_is_refused_by_name() {
    let server = TestServer::start(Options::default());
    server
        .post("/tokenize", json!({"model": "toy", "prompt": "a".repeat(100_000)}))
        .check(400, Some("prompt"));
    server.post("/tokenize", json!({"model": "toy"})).check(400, Some("prompt"));
    server.post("/tokenize", json!({"model": "none", "prompt": "a"})).check(404, Some("model"));
    server
        .post("/detokenize", json!({"model": "toy", "tokens": [4_000_000_000u64]}))
        .check(400, Some("tokens"));
    server.post("/detokenize", json!({"model": "toy", "tokens": "a"})).check(400, Some("tokens"));
}
