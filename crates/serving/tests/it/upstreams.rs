//! Engines elsewhere: what reaches them, what comes back, and what happens when they fail.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use serving::{ServeSettings, UpstreamSettings, try_upstreams};

use crate::client::{Answer, Options, PATIENCE, TestServer};
use crate::stub::Stub;

pub const CHAT: &str = "/v1/chat/completions";

pub fn upstream(name: &str, address: impl std::fmt::Display) -> UpstreamSettings {
    UpstreamSettings {
        models: BTreeMap::from([("far".to_string(), "their/model".to_string())]),
        idle_seconds: 20,
        answer_limit_bytes: 1 << 20,
        ..UpstreamSettings::new(name, &format!("http://{address}/v1"))
    }
}

fn server_with(upstreams: Vec<UpstreamSettings>, filters: &str) -> TestServer {
    let filters = toml::from_str(filters).unwrap();
    let settings = ServeSettings { upstreams, filters, ..Options::default().settings };
    TestServer::start(Options { settings, ..Options::default() })
}

fn server(stub: &Stub) -> TestServer {
    server_with(vec![upstream("gpu", stub.address)], "")
}

pub fn chat(wish: &str) -> Value {
    json!({"model": "far", "messages": [{"role": "user", "content": wish}]})
}

pub fn stream(wish: &str) -> Value {
    let mut body = chat(wish);
    body["stream"] = json!(true);
    body
}

/// All text of a stream of chat chunks, and how it ended.
fn text_of(answer: &Answer) -> (String, String) {
    let (mut text, mut reason) = (String::new(), String::new());
    for event in answer.events().iter().filter(|event| **event != "[DONE]") {
        let event: Value = serde_json::from_str(event).unwrap();
        let choice = &event["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        reason.push_str(choice["finish_reason"].as_str().unwrap_or_default());
    }
    (text, reason)
}

fn outcomes(server: &TestServer) -> Vec<String> {
    let audit = server.audit();
    let requests = audit.iter().filter(|event| event["event"] == "request");
    requests.map(|event| event["outcome"].as_str().unwrap().to_string()).collect()
}

#[test]
fn answers_are_the_engines_under_our_names() {
    let stub = Stub::start();
    let server = server(&stub);
    let answer = server.post(CHAT, chat("hello"));
    let body = answer.check_ok().json();
    assert_eq!(body["choices"][0]["message"], json!({"content": "one two three", "role": "assistant"}));
    assert_eq!((&body["model"], &body["object"]), (&json!("far"), &json!("chat.completion")));
    assert_eq!(body["usage"], json!({"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}));
    assert!(!answer.body.contains("secret") && !answer.body.contains("theirs"), "{}", answer.body);
    assert!(answer.header("x-secret").is_none() && answer.header("set-cookie").is_none());
    let completion = server.post("/v1/completions", json!({"model": "far", "prompt": "hello"}));
    assert_eq!(completion.check_ok().json()["choices"][0]["text"], "one two three");
    let vectors = server.post("/v1/embeddings", json!({"model": "far", "input": ["a", "b"]}));
    assert_eq!(vectors.check_ok().json()["data"][1]["embedding"], json!([0.6, 0.8]));
    let models = server.ask("GET", "/v1/models", "").json();
    assert!(models["data"].as_array().unwrap().iter().any(|model| model["id"] == "far"), "{models}");
    let event = server.audit().into_iter().find(|event| event["model"] == "far").unwrap();
    assert_eq!((&event["prompt_tokens"], &event["completion_tokens"]), (&json!(7), &json!(3)));
}

#[test]
fn a_stream_is_written_anew() {
    let stub = Stub::start();
    let server = server(&stub);
    let mut wanted = stream("hello");
    let plain = server.post(CHAT, wanted.clone());
    assert_eq!(text_of(plain.check_ok()), ("one two three".to_string(), "stop".to_string()));
    assert!(!plain.body.contains("\"usage\""), "usage goes to those who ask: {}", plain.body);
    assert!(!plain.body.contains("theirs") && plain.header("x-secret").is_none());
    assert_eq!(plain.events().last(), Some(&"[DONE]"));
    wanted["stream_options"] = json!({"include_usage": true});
    let events = server.post(CHAT, wanted);
    let events = events.events();
    let usage: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(3)));
    assert_eq!(stub.last_request().1["stream_options"], json!({"include_usage": true}));
}

#[test]
fn nothing_of_the_client_but_its_question_travels_on() {
    let stub = Stub::start();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("engine.key");
    std::fs::write(&key, "engine-secret\n").unwrap();
    let settings = UpstreamSettings { api_key_file: Some(key), ..upstream("gpu", stub.address) };
    let server = server_with(vec![settings], "");
    let headers = format!(
        "Authorization: Bearer {}\r\nCookie: session=1\r\nX-Forwarded-For: 10.0.0.1\r\nX-Custom: 1\r\n",
        server.key
    );
    let mut body = chat("hello");
    body["user"] = json!("anna");
    server.ask_with("POST", CHAT, &headers, &body.to_string()).check_ok();
    let (headers, body) = stub.last_request();
    assert_eq!(headers["authorization"], "Bearer engine-secret");
    for name in ["cookie", "x-forwarded-for", "x-custom"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    let sent = format!("{headers:?}{body}");
    assert!(!sent.contains(&server.key) && !sent.contains("anna"), "{sent}");
    assert_eq!(body["model"], "their/model");
    server.post(CHAT, json!({"model": "far", "messages": [], "best_guess": 1})).check(400, Some("messages"));
    assert_eq!(stub.requests(), 1);
}

#[test]
fn what_an_engine_does_wrong_reaches_the_client_as_a_plain_failure() {
    let stub = Stub::start();
    let server = server(&stub);
    for (wish, status, code) in [
        ("500", 502, "upstream_failed"),
        ("redirect", 502, "upstream_failed"),
        ("no json", 502, "upstream_failed"),
        ("huge", 502, "upstream_failed"),
    ] {
        let answer = server.post(CHAT, chat(wish));
        assert_eq!(answer.check(status, None).json()["error"]["code"], code, "{wish}");
        assert!(!answer.body.contains("secret"), "{wish}: {}", answer.body);
        // Failures in a row would open the breaker.
        server.post(CHAT, chat("hello")).check_ok();
    }
    let busy = server.post(CHAT, chat("429"));
    assert_eq!(busy.check(429, None).json()["error"]["code"], "upstream_busy");
    let refused = server.post(CHAT, chat("400"));
    assert_eq!(refused.check(400, None).json()["error"]["code"], "upstream_refused");
    assert!(refused.body.contains("too hot") && !refused.body.contains("secret"), "{}", refused.body);
}

#[test]
fn a_stream_that_breaks_ends_with_an_error() {
    let stub = Stub::start();
    let server = server(&stub);
    for wish in ["cut", "garbage", "error", "huge"] {
        let answer = server.post(CHAT, stream(wish));
        let events = answer.check_ok().events();
        let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(last["error"]["code"], "upstream_failed", "{wish}");
        assert!(!answer.body.contains("secret"), "{wish}");
        assert!(text_of(&answer).0.starts_with("one two"), "{wish}: what came before is there");
    }
    assert_eq!(outcomes(&server), ["upstream_failed"; 4]);
}

#[test]
fn an_engine_that_stalls_is_given_up() {
    let stub = Stub::start();
    let settings =
        UpstreamSettings { idle_seconds: 1, first_byte_seconds: 1, ..upstream("gpu", stub.address) };
    let server = server_with(vec![settings], "");
    let answer = server.post(CHAT, stream("stall"));
    assert!(answer.events().last().unwrap().contains("upstream_timeout"), "{}", answer.body);
    let answer = server.post(CHAT, stream("hang"));
    assert_eq!(answer.check(504, None).json()["error"]["code"], "upstream_timeout");
    server.wait_until("the engine notices", |_| stub.seen.left.load(Ordering::SeqCst) == 1);
}

#[test]
fn an_engine_that_never_ends_its_answer_is_cut_before_memory_is_full() {
    let stub = Stub::start();
    let settings = UpstreamSettings { answer_limit_bytes: 1 << 20, ..upstream("gpu", stub.address) };
    let server = server_with(vec![settings], "");
    let answer = server.post(CHAT, stream("flood"));
    assert!(answer.events().last().unwrap().contains("upstream_failed"));
    assert!((1 << 20..3 << 20).contains(&answer.body.len()), "{}", answer.body.len());
    server.wait_until("the engine notices", |_| stub.seen.left.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_client_that_leaves_stops_the_engine() {
    let stub = Stub::start();
    let server = server(&stub);
    let mut reader = BufReader::new(server.begin(CHAT, stream("endless")));
    let mut line = String::new();
    while !line.contains("and on") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
    drop(reader);
    server.wait_until("the engine notices", |_| stub.seen.left.load(Ordering::SeqCst) == 1);
    server.wait_until("the audit log says so", |server| outcomes(server) == ["abandoned"]);
    // One that waits for a whole answer leaves as well, once the engine has its question.
    let waiting = server.begin(CHAT, chat("hang"));
    server.wait_until("the engine is asked", |_| stub.requests() == 2);
    drop(waiting);
    server.wait_until("the second is noted", |server| outcomes(server).len() == 2);
    server.post(CHAT, chat("hello")).check_ok();
}

#[test]
fn a_client_that_reads_slowly_slows_the_engine() {
    let stub = Stub::start();
    let server = server(&stub);
    let mut slow = server.begin(CHAT, stream("flood"));
    let mut byte = [0; 1];
    slow.read_exact(&mut byte).unwrap();
    // Nothing more is read. Until buffers on the way are full the engine goes on; then it waits.
    let events = || stub.seen.events.load(Ordering::SeqCst);
    server.wait_until("the engine waits", |_| {
        let before = events();
        std::thread::sleep(std::time::Duration::from_millis(500));
        before == events()
    });
}

#[test]
fn another_engine_answers_when_one_cannot_be_reached() {
    let stub = Stub::start();
    // A port where nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let first = UpstreamSettings { failures: 2, rest_seconds: 600, ..upstream("first", nobody) };
    let reserve = UpstreamSettings { priority: 1, ..upstream("reserve", stub.address) };
    let server = server_with(vec![first, reserve], "");
    for _ in 0..4 {
        server.post(CHAT, chat("hello")).check_ok();
    }
    assert_eq!(stub.requests(), 4);
    let alone = server_with(vec![upstream("first", nobody)], "");
    let answer = alone.post(CHAT, chat("hello"));
    assert_eq!(answer.check(503, None).json()["error"]["code"], "upstream_unavailable");
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn a_request_that_may_have_been_computed_is_not_sent_again() {
    // Takes a request and closes without a word, again and again.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (counted, counts) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut line = String::new();
            let _ = reader.read_line(&mut line);
            if line.starts_with("POST") && counted.send(()).is_err() {
                return;
            }
        }
    });
    let reserve = Stub::start();
    let settings = vec![
        upstream("first", address),
        UpstreamSettings { priority: 1, ..upstream("reserve", reserve.address) },
    ];
    let server = server_with(settings, "");
    let answer = server.post(CHAT, chat("hello"));
    assert_eq!(answer.check(502, None).json()["error"]["code"], "upstream_failed");
    counts.recv_timeout(PATIENCE).unwrap();
    assert!(counts.try_recv().is_err(), "it was sent once");
    assert_eq!(reserve.requests(), 0);
}

#[test]
fn an_engine_that_fails_again_and_again_is_left_alone_until_it_has_rested() {
    let stub = Stub::start();
    let settings = UpstreamSettings { failures: 2, rest_seconds: 1, ..upstream("gpu", stub.address) };
    let server = server_with(vec![settings], "");
    for _ in 0..2 {
        server.post(CHAT, chat("500")).check(502, None);
    }
    server.post(CHAT, chat("hello")).check(503, None);
    assert_eq!(stub.requests(), 2, "an open breaker sends nothing");
    server.wait_until("one may try", |server| server.post(CHAT, chat("hello")).status == 200);
    server.post(CHAT, chat("hello")).check_ok();
}

#[test]
fn what_one_tenant_provokes_closes_an_engine_to_that_tenant_alone() {
    let stub = Stub::start();
    let settings = UpstreamSettings { failures: 3, rest_seconds: 600, ..upstream("gpu", stub.address) };
    let server = server_with(vec![settings], "");
    let other = format!("Authorization: Bearer {}\r\n", crate::quotas::new_key(&server, "Other"));
    let others = |wish: &str| server.ask_with("POST", CHAT, &other, &chat(wish).to_string());
    // Each begins well, and breaks in another way.
    server.post(CHAT, chat("500")).check(502, None);
    server.post(CHAT, chat("no json")).check(502, None);
    assert!(server.post(CHAT, stream("garbage")).body.contains("upstream_failed"));
    server.post(CHAT, chat("hello")).check(503, None);
    others("hello").check_ok();
    let metrics = server.ask("GET", "/metrics", "");
    for line in [
        "eulalia_upstream_breaker_open{upstream=\"gpu\"} 0",
        "eulalia_upstream_breaker_tenants{upstream=\"gpu\"} 1",
        "eulalia_upstream_failures_total{upstream=\"gpu\"} 3",
    ] {
        assert!(metrics.check_ok().body.contains(line), "{line}: {}", metrics.body);
    }
    // What keeps the way closed counts for all, whoever met it.
    stub.seen.failing.store(503, Ordering::SeqCst);
    for _ in 0..3 {
        others("hello").check(503, None);
    }
    stub.seen.failing.store(0, Ordering::SeqCst);
    let third = format!("Authorization: Bearer {}\r\n", crate::quotas::new_key(&server, "Third"));
    server.ask_with("POST", CHAT, &third, &chat("hello").to_string()).check(503, None);
    assert!(
        server.ask("GET", "/metrics", "").body.contains("eulalia_upstream_breaker_open{upstream=\"gpu\"} 1")
    );
}

#[test]
fn an_engine_that_is_ill_gets_no_requests_until_it_is_well() {
    let stub = Stub::start();
    let settings = UpstreamSettings { health_seconds: 1, failures: 1_000, ..upstream("gpu", stub.address) };
    let server = server_with(vec![settings], "");
    stub.seen.failing.store(500, Ordering::SeqCst);
    server.wait_until("it is ill", |server| server.post(CHAT, chat("hello")).status == 503);
    let before = stub.requests();
    server.post(CHAT, chat("hello")).check(503, None);
    assert_eq!(stub.requests(), before);
    stub.seen.failing.store(0, Ordering::SeqCst);
    server.wait_until("it is well", |server| server.post(CHAT, chat("hello")).status == 200);
}

#[test]
fn an_engine_gets_no_more_than_it_may_have_at_once() {
    let stub = Stub::start();
    let settings = UpstreamSettings { maximum_concurrency: 1, ..upstream("gpu", stub.address) };
    let server = server_with(vec![settings], "");
    let running = server.begin(CHAT, stream("endless"));
    server.wait_until("it runs", |_| stub.requests() == 1);
    let answer = server.post(CHAT, chat("hello"));
    assert_eq!(answer.check(429, None).json()["error"]["code"], "upstream_busy");
    drop(running);
    server.wait_until("its place is free", |server| server.post(CHAT, chat("hello")).status == 200);
}

#[test]
fn one_tenant_leaves_places_at_an_engine_for_others() {
    let stub = Stub::start();
    let settings = UpstreamSettings { maximum_concurrency: 4, ..upstream("gpu", stub.address) };
    let server = server_with(vec![settings], "");
    let running: Vec<_> = (1..=3)
        .map(|number| {
            let running = server.begin(CHAT, stream("endless"));
            server.wait_until("it runs", |_| stub.requests() == number);
            running
        })
        .collect();
    let answer = server.post(CHAT, chat("hello"));
    assert_eq!(answer.check(429, None).json()["error"]["code"], "upstream_busy");
    let headers = format!("Authorization: Bearer {}\r\n", crate::quotas::new_key(&server, "Other"));
    server.ask_with("POST", CHAT, &headers, &chat("hello").to_string()).check_ok();
    drop(running);
}

#[test]
fn engines_are_tried_before_they_are_needed() {
    let stub = Stub::start();
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("engine.key");
    std::fs::write(&key, "wrong\n").unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let named = |name: &str, theirs: &str| UpstreamSettings {
        models: BTreeMap::from([("far".to_string(), theirs.to_string())]),
        ..upstream(name, stub.address)
    };
    let settings = [
        upstream("good", stub.address),
        named("other", "no/such"),
        UpstreamSettings { api_key_file: Some(key), ..upstream("closed", stub.address) },
        UpstreamSettings { health_path: "/nowhere".to_string(), ..upstream("ill", stub.address) },
        UpstreamSettings {
            url: format!("http://{}/v2", stub.address),
            ..upstream("elsewhere", stub.address)
        },
        upstream("away", nobody),
    ];
    let tried = try_upstreams(&settings).unwrap();
    let found = |name: &str| tried.iter().find(|tried| tried.name == name).unwrap().found.clone();
    assert!(found("good").unwrap().contains("their/model"));
    for (name, expected) in [
        ("other", "does not list `no/such`; it has: their/model"),
        ("closed", "refuses the key in `api_key_file`"),
        ("ill", "/nowhere answers 404"),
        ("elsewhere", "/v2/models answers 404"),
        ("away", "no connection"),
    ] {
        let problem = found(name).unwrap_err();
        assert!(problem.contains(expected) && !problem.contains("wrong"), "{name}: {problem}");
    }
}

#[test]
fn usage_that_is_not_reported_is_counted_or_left_out() {
    let stub = Stub::start();
    let folder = tempfile::tempdir().unwrap();
    inference::testing::write_byte_tokenizer(folder.path()).unwrap();
    let tokenizers = BTreeMap::from([("far".to_string(), folder.path().to_path_buf())]);
    let counting = server_with(vec![UpstreamSettings { tokenizers, ..upstream("gpu", stub.address) }], "");
    // A token for each byte.
    let usage = json!({"prompt_tokens": 8, "completion_tokens": 13, "total_tokens": 21});
    assert_eq!(counting.post(CHAT, chat("no usage")).check_ok().json()["usage"], usage);
    let mut body = stream("no usage");
    body["stream_options"] = json!({"include_usage": true});
    let answer = counting.post(CHAT, body);
    assert!(answer.body.contains(&usage.to_string()), "{}", answer.body);
    let guessing = server(&stub);
    let answer = guessing.post(CHAT, chat("no usage")).check_ok().json();
    assert!(answer.get("usage").is_none(), "what nobody counted is not shown: {answer}");
    // What cannot be is not believed: sums of it would overflow, and with them the limits of the tenant.
    for (wish, prompt) in [("absurd usage", 12), ("half absurd usage", 17)] {
        let usage = json!({"prompt_tokens": prompt, "completion_tokens": 13, "total_tokens": prompt + 13});
        assert_eq!(counting.post(CHAT, chat(wish)).check_ok().json()["usage"], usage);
        guessing.post(CHAT, stream(wish)).check_ok();
        assert!(guessing.post(CHAT, chat(wish)).check_ok().json().get("usage").is_none(), "{wish}");
    }

    // The same tokenizer tells tokens; without one they are refused by name.
    let text = json!({"model": "far", "prompt": "abc"});
    let counted = counting.post("/tokenize", text.clone());
    let counted = counted.check_ok().json();
    assert_eq!((&counted["count"], &counted["max_model_len"]), (&json!(3), &Value::Null));
    let back = counting.post("/detokenize", json!({"model": "far", "tokens": counted["tokens"]}));
    assert_eq!(back.check_ok().json()["prompt"], "abc");
    for (path, body) in [("/tokenize", text), ("/detokenize", json!({"model": "far", "tokens": [97]}))] {
        let refused = guessing.post(path, body);
        let error = &refused.check(400, Some("model")).json()["error"];
        assert_eq!(error["code"], "no_tokenizer", "{error}");
    }
}

#[test]
fn a_clients_trace_goes_on_at_the_engine() {
    let stub = Stub::start();
    let server = server(&stub);
    let ask = |trace: &str| {
        let headers = format!("Authorization: Bearer {}\r\n{trace}", server.key);
        server.ask_with("POST", CHAT, &headers, &chat("hello").to_string()).check_ok();
        stub.last_request().0.get("traceparent").map(|trace| trace.to_str().unwrap().to_string())
    };
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = format!("traceparent: {trace}\r\ntracestate: vendor=secret\r\n");
    assert_eq!(ask(&sent).as_deref(), Some(trace));
    assert!(!stub.last_request().0.contains_key("tracestate"));
    assert_eq!(ask(""), None);
    assert_eq!(ask("traceparent: 00-what\r\n"), None);
}

const FILTERS: &str = "
    [[input]]
    name = 'hidden'
    kind = 'invisible'
    action = 'refuse'
    [[input]]
    name = 'people'
    kind = 'personal_data'
    action = 'replace'
    [[output]]
    name = 'people'
    kind = 'personal_data'
    action = 'replace'
    [[output]]
    name = 'words'
    kind = 'patterns'
    action = 'refuse'
    block = ['(?i)geheim']
    [chains.other]
    without = ['words']
";

#[test]
fn requests_and_answers_of_engines_elsewhere_are_filtered() {
    let stub = Stub::start();
    let server = server_with(vec![upstream("gpu", stub.address)], FILTERS);
    server.post(CHAT, chat("to anna@post.example")).check_ok();
    assert_eq!(stub.last_request().1["messages"][0]["content"], "to <EMAIL>");
    // A text that takes a while is read like any other.
    let long = format!("{}to anna@post.example", "ein Wort ".repeat(4_000));
    server.post(CHAT, chat(&long)).check_ok();
    let (_, sent) = stub.last_request();
    assert_eq!(sent["messages"][0]["content"], long.replace("anna@post.example", "<EMAIL>"));
    let refused = server.post(CHAT, chat("a\u{202E}b"));
    assert_eq!(
        refused.check(400, Some("messages[0].content")).json()["error"]["code"],
        "invisible_characters"
    );
    // The stub says what it hears, word by word; the address comes in as a placeholder and out as it is.
    let wish = "say call 030 1234567 , now";
    let whole = server.post(CHAT, chat(wish)).check_ok().json();
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(text, "call <PHONE_NUMBER> , now");
    assert_eq!(text_of(&server.post(CHAT, stream(wish))).0, text);
    // What was before goes out, then nothing.
    for answer in
        [server.post(CHAT, stream("say ein Geheimnis ist da")), server.post(CHAT, chat("say ein Geheimnis"))]
    {
        assert!(answer.check_ok().body.contains("content_filter"), "{}", answer.body);
        assert!(answer.body.contains("ein ") && !answer.body.contains("Geheim"), "{}", answer.body);
    }
    let mut probabilities = chat("hello");
    probabilities["logprobs"] = json!(true);
    server.post(CHAT, probabilities).check(400, Some("logprobs"));
}

#[test]
fn requests_and_answers_of_our_own_engine_are_filtered() {
    // The toy engine goes on with the alphabet.
    let filters = FILTERS.replace("(?i)geheim", "mno");
    let server = server_with(Vec::new(), &filters);
    let body = |extra: Value| {
        let mut body = json!({"model": "toy", "prompt": "hij", "max_tokens": 8, "temperature": 0});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let answer = server.post("/v1/completions", body(json!({}))).check_ok().json();
    assert_eq!(answer["choices"][0]["text"], "kl");
    assert_eq!(answer["choices"][0]["finish_reason"], "content_filter");
    let answer = server.post("/v1/completions", body(json!({"stream": true})));
    let text: String = answer
        .events()
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|event| event["choices"][0]["text"].as_str().map(String::from))
        .collect();
    assert_eq!(text, "kl");
    assert_eq!(answer.body.matches("content_filter").count(), 1, "{}", answer.body);
    server.post("/v1/completions", body(json!({"logprobs": 1}))).check(400, Some("logprobs"));
    server.post("/v1/completions", body(json!({"prompt": [1, 2]}))).check(400, Some("prompt"));
    server.post("/v1/completions", body(json!({"prompt": "a\u{202E}"}))).check(400, Some("prompt[0]"));
}
