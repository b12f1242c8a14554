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

/// The template of a model that tells the date: the server's clock answers, and parts of a text are read as such.
#[test]
fn a_conversation_is_told_the_date_and_read_in_parts() {
    let template = "{{ strftime_now('%Y-%m-%d') }}{% for m in messages %}|{{ m.role }}:{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}|assistant:{% endif %}";
    let plain = "1970-01-01|system:S|user:Ħelow|assistant:";
    let server = TestServer::start(Options { chat_template: Some(template), ..Options::default() });
    let messages = json!([{"role": "developer", "content": "S"}, {"role": "user", "content": "Ħelow"}]);
    let check = |messages: &serde_json::Value, open: bool, expected: &str| {
        let body = json!({"model": "toy", "messages": messages, "add_generation_prompt": open});
        let tokens = server.post("/tokenize", body).json()["tokens"].clone();
        let back = server.post("/detokenize", json!({"model": "toy", "tokens": tokens})).json();
        assert_eq!(back["prompt"], expected);
    };
    check(&messages, true, plain);
    check(&messages, false, "1970-01-01|system:S|user:Ħelow");
    let parts = json!([{"type": "text", "text": "Ħe"}, {"type": "text", "text": "low"}]);
    // This template marks parts, so that a list of one is not the text: parts are joined.
    check(&json!([{"role": "system", "content": "S"}, {"role": "user", "content": parts}]), true, plain);
    let answer =
        server.post("/v1/chat/completions", json!({"model": "toy", "messages": messages, "max_tokens": 1}));
    assert_eq!(answer.json()["usage"]["prompt_tokens"], plain.len(), "{}", answer.body);
}

/// What a template is told beside the messages reaches it, in a chat as in the count of its tokens.
#[test]
fn a_template_is_told_what_the_request_says_beside_the_messages() {
    let template = "{% if enable_thinking is defined and not enable_thinking %}-{% else %}+{% endif %}{{ depth | default(1) }}{{ steps | default([]) | join(',') }}{% for m in messages %}|{{ m.content }}{% endfor %}";
    let server = TestServer::start(Options { chat_template: Some(template), ..Options::default() });
    let messages = json!([{"role": "user", "content": "Dzień"}]);
    for (variables, expected) in [
        (json!(null), "+1|Dzień"),
        (json!({}), "+1|Dzień"),
        (json!({"enable_thinking": false, "not_read": [1]}), "-1|Dzień"),
        (json!({"enable_thinking": true, "depth": 2.5, "steps": ["ż", 3]}), "+2.5ż,3|Dzień"),
    ] {
        let body = json!({"model": "toy", "messages": messages, "chat_template_kwargs": variables});
        let tokens = server.post("/tokenize", body.clone()).json()["tokens"].clone();
        let back = server.post("/detokenize", json!({"model": "toy", "tokens": tokens})).json();
        assert_eq!(back["prompt"], expected);
        let mut asked = body;
        asked["max_tokens"] = json!(1);
        let answer = server.post("/v1/chat/completions", asked);
        assert_eq!(answer.json()["usage"]["prompt_tokens"], expected.len(), "{}", answer.body);
    }
    let own = json!({"model": "toy", "messages": messages, "chat_template_kwargs": {"bos_token": "x"}});
    for path in ["/tokenize", "/v1/chat/completions"] {
        server.post(path, own.clone()).check(400, Some("chat_template_kwargs.bos_token"));
    }
    let text = json!({"model": "toy", "prompt": "a", "chat_template_kwargs": {"enable_thinking": true}});
    server.post("/tokenize", text).check(400, Some("chat_template_kwargs"));
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
