//! What tenants and keys may use, and what they are told when it is used up.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use serving::{KeyStore, LimitsPolicy, Role, TenantPolicy, TenantStore, set_key_limits};

use crate::client::{Answer, Options, TestServer, request_text};
use crate::stub::Stub;
use crate::upstreams::{CHAT, upstream};

const SLOW: Duration = Duration::from_millis(20);

fn completion(max_tokens: usize) -> Value {
    json!({"model": "toy", "prompt": "ab", "temperature": 0, "max_tokens": max_tokens})
}

fn limited(tenant: LimitsPolicy, key: LimitsPolicy) -> Options {
    let mut options = Options::default();
    (options.settings.limits.tenant, options.settings.limits.key) = (tenant, key);
    options
}

/// A key of some tenant.
pub fn new_key(server: &TestServer, tenant: &str) -> String {
    KeyStore::open(&server.state).unwrap().new_key(tenant, "", Role::User, None, 0).unwrap().key
}

fn post_with(server: &TestServer, key: &str, body: &Value) -> Answer {
    let headers = format!("Authorization: Bearer {key}\r\n");
    server.ask_with("POST", "/v1/completions", &headers, &body.to_string())
}

fn check_refused(answer: &Answer, limit: &str) -> u64 {
    answer.check(429, None);
    let error = &answer.json()["error"];
    assert_eq!((&error["code"], &error["type"]), (&json!("rate_limit_exceeded"), &json!("rate_limit_error")));
    assert!(error["message"].as_str().unwrap().contains(&format!("`{limit}`")), "{error}");
    answer.header("retry-after").unwrap().parse().unwrap()
}

#[test]
fn no_tenant_takes_all_places_though_nothing_is_limited() {
    let stub = Stub::start();
    let mut options = Options::default();
    options.settings.maximum_connections = 8;
    options.settings.upstreams = vec![upstream("gpu", stub.address)];
    let server = TestServer::start(options);
    let keys = ["A", "A", "B"].map(|tenant| new_key(&server, tenant));
    let mut running = Vec::new();
    let mut begin = |key: &str| {
        let mut stream = server.connect();
        let headers = format!("Authorization: Bearer {key}\r\n");
        let body = crate::upstreams::stream("endless").to_string();
        stream.write_all(request_text("POST", CHAT, &headers, &body).as_bytes()).unwrap();
        running.push(stream);
        server.wait_until("it runs", |_| stub.requests() == running.len());
    };
    let refused = |key: &str, whose: &str, allowed: usize| {
        let answer = post_with(&server, key, &completion(1));
        check_refused(&answer, "concurrent_requests");
        assert!(answer.body.contains(&format!("the {whose}'s limit `concurrent_requests` is {allowed}")));
    };
    for _ in 0..4 {
        begin(&keys[0]);
    }
    refused(&keys[0], "key", 4);
    for _ in 0..2 {
        begin(&keys[1]);
    }
    refused(&keys[1], "tenant", 6);
    assert_eq!(post_with(&server, &keys[2], &completion(1)).status, 200);
}

#[test]
fn a_limit_of_nothing_is_refused_with_a_sentence() {
    let server = TestServer::start(Options::default());
    let said = "at least 1 (to bar somebody, revoke the key)";
    let policy = json!({"name": "C", "policy": {"limits": {"concurrent_requests": 0}}});
    let answer = server.post("/admin/v1/tenants", policy);
    assert!(answer.check(400, Some("policy")).body.contains(said), "{}", answer.body);
    let limits = LimitsPolicy { answers: Some(0), ..LimitsPolicy::default() };
    let policy = TenantPolicy { limits, ..TenantPolicy::default() };
    let tenants = TenantStore::open(&server.state).unwrap();
    assert!(tenants.new_tenant("C", &policy, 0).unwrap_err().to_string().contains(said));
    let error = set_key_limits(&server.state, &server.key_id, Some(&limits), 0).unwrap_err();
    assert!(error.to_string().contains(said), "{error}");
}

#[test]
fn requests_per_minute_hold_for_all_keys_of_a_tenant_and_for_no_other() {
    let limits = LimitsPolicy { requests_per_minute: Some(3), ..LimitsPolicy::default() };
    let mut server = TestServer::start(limited(limits, LimitsPolicy::default()));
    let (first, second, other) = (new_key(&server, "A"), new_key(&server, "A"), new_key(&server, "B"));
    for (number, key) in [&first, &second, &first].into_iter().enumerate() {
        let answer = post_with(&server, key, &completion(1));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("3"));
        assert_eq!(answer.header("x-ratelimit-remaining-requests"), Some(["2", "1", "0"][number]));
        assert!(answer.header("x-ratelimit-reset-requests").unwrap().ends_with('s'));
    }
    let wait = check_refused(&post_with(&server, &second, &completion(1)), "requests_per_minute");
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(post_with(&server, &other, &completion(1)).status, 200);
    // Paths that do not exist count too; the administration does not.
    let mut lost = 0;
    for _ in 0..4 {
        let headers = format!("Authorization: Bearer {other}\r\n");
        lost += usize::from(server.ask_with("GET", "/v1/nothing", &headers, "").status == 429);
        assert_eq!(server.ask_with("GET", "/readyz", &headers, "").status, 200);
    }
    assert!(lost >= 1);
    server.stop();
    let refused: Vec<_> =
        server.audit().into_iter().filter(|event| event["event"] == "requests_refused").collect();
    let count: u64 = refused.iter().map(|event| event["count"].as_u64().unwrap()).sum();
    assert_eq!(count as usize, 1 + lost, "{refused:?}");
}

#[test]
fn tokens_are_set_aside_and_settled_with_what_was_used() {
    let limits = LimitsPolicy { tokens_per_minute: Some(100), ..LimitsPolicy::default() };
    let server = TestServer::start(limited(LimitsPolicy::default(), limits));
    let left = |answer: &Answer| -> u64 {
        answer.check_ok();
        answer.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap()
    };
    let began = Instant::now();
    // What has come back since then, and the rest of a token.
    let flowed = || began.elapsed().as_secs() * 100 / 60 + 3;
    // 2 + 50 are set aside; "cdefghijklmnopqrstuvwxyz" and the end of the text are 25 tokens.
    let first = server.post("/v1/completions", completion(50));
    assert!((73..=73 + flowed()).contains(&left(&first)), "{}", left(&first));
    // More than is left, less than the limit: to be tried again.
    check_refused(&server.post("/v1/completions", completion(98)), "tokens_per_minute");
    // More than the limit: no waiting makes it fit.
    let never = server.post("/v1/completions", completion(99));
    never.check(400, None);
    assert_eq!(never.json()["error"]["code"], "request_too_large");
    // What was refused was not used.
    let after = server.post("/v1/completions", completion(20));
    assert!((51..=51 + flowed()).contains(&left(&after)), "{}", left(&after));
}

#[test]
fn a_stream_counts_among_the_requests_at_once_until_it_ends() {
    let limits = LimitsPolicy { concurrent_requests: Some(1), ..LimitsPolicy::default() };
    let mut options = limited(limits, LimitsPolicy::default());
    options.step = SLOW;
    let server = TestServer::start(options);
    let mut body = completion(20);
    body["stream"] = json!(true);
    let stream = server.begin("/v1/completions", body.clone());
    server.wait_until("the request runs", |server| server.engine.load().running == 1);
    check_refused(&server.post("/v1/completions", completion(1)), "concurrent_requests");
    assert_eq!(Answer::read(stream).events().last(), Some(&"[DONE]"));
    let stream = server.begin("/v1/completions", body);
    server.wait_until("the request runs", |server| server.engine.load().running == 1);
    drop(stream);
    // A place is free again soon after its client has gone.
    server.wait_until("the place is free", |server| {
        server.post("/v1/completions", completion(1)).status == 200
    });
}

#[test]
fn prompts_and_answers_keep_to_their_lengths() {
    let limits = LimitsPolicy {
        prompt_tokens: Some(4),
        answer_tokens: Some(3),
        answers: Some(2),
        ..LimitsPolicy::default()
    };
    let server = TestServer::start(limited(limits, LimitsPolicy::default()));
    let post = |name: &str, value: Value| {
        let mut body = completion(2);
        body[name] = value;
        server.post("/v1/completions", body)
    };
    post("prompt", json!("abcde")).check(400, Some("prompt"));
    post("max_tokens", json!(4)).check(400, Some("max_tokens"));
    post("n", json!(3)).check(400, Some("n"));
    post("n", json!(2)).check_ok();
    let chat = json!({"model": "toy", "messages": [{"role": "user", "content": "ab"}], "temperature": 0});
    let choice = &server.post("/v1/chat/completions", chat).json()["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!("cde"), &json!("length")));
    server
        .post("/v1/embeddings", json!({"model": "toy", "input": ["ab", "abcde"]}))
        .check(400, Some("input"));
}

#[test]
fn a_key_may_have_limits_of_its_own() {
    let defaults = LimitsPolicy { answers: Some(1), ..LimitsPolicy::default() };
    let server = TestServer::start(limited(LimitsPolicy::default(), defaults));
    let mut body = completion(1);
    body["n"] = json!(2);
    server.post("/v1/completions", body.clone()).check(400, Some("n"));
    let own = LimitsPolicy { answers: Some(2), ..LimitsPolicy::default() };
    set_key_limits(&server.state, &server.key_id, Some(&own), 0).unwrap();
    server.wait_until("the limits are read again", |server| {
        server.post("/v1/completions", body.clone()).status == 200
    });
    assert!(set_key_limits(&server.state, "unknown1", None, 0).is_err());
    let nothing = LimitsPolicy { answers: Some(0), ..LimitsPolicy::default() };
    assert!(set_key_limits(&server.state, &server.key_id, Some(&nothing), 0).is_err());
}

#[test]
fn usage_is_what_the_audit_log_says() {
    let mut server = TestServer::start(Options::default());
    let key = new_key(&server, "Bibliothèque");
    for _ in 0..3 {
        post_with(&server, &key, &completion(2)).check_ok();
    }
    server.post("/v1/completions", completion(1)).check_ok();
    let of_tenant = |path: &str, key: &str| {
        server.ask_with("GET", path, &format!("Authorization: Bearer {key}\r\n"), "").json()
    };
    server.wait_until("the lines are counted", |_| {
        of_tenant("/v1/usage?days=2", &key)["data"][0]["requests"] == 3
    });
    let own = of_tenant("/v1/usage", &key);
    let entry = &own["data"][0];
    assert_eq!(own["data"].as_array().unwrap().len(), 1, "nothing of another tenant: {own}");
    assert_eq!((&entry["tenant"], &entry["model"]), (&json!("Bibliothèque"), &json!("toy")));
    assert_eq!((&entry["prompt_tokens"], &entry["completion_tokens"]), (&json!(6), &json!(6)));
    let all = server.ask("GET", "/admin/v1/usage?tenant=Biblioth%C3%A8que", "").json();
    assert_eq!(all["data"], own["data"]);
    server.ask("GET", "/admin/v1/usage?weeks=2", "").check(400, Some("weeks"));
    let forbidden =
        server.ask_with("GET", "/admin/v1/usage", &format!("Authorization: Bearer {key}\r\n"), "");
    forbidden.check(403, None);
    server.stop();
    let again = server.start_again(Options::default());
    let rows = again.ask("GET", "/admin/v1/usage", "").json()["data"].clone();
    let requests: u64 = rows.as_array().unwrap().iter().map(|row| row["requests"].as_u64().unwrap()).sum();
    assert_eq!(requests, 4, "{rows:?}");
}

#[test]
fn daily_limits_outlive_a_restart() {
    let limits = LimitsPolicy { tokens_per_day: Some(10), ..LimitsPolicy::default() };
    let settings = || limited(limits, LimitsPolicy::default());
    let mut server = TestServer::start(settings());
    server.post("/v1/completions", completion(5)).check_ok();
    let refused = server.post("/v1/completions", completion(5));
    assert!(check_refused(&refused, "tokens_per_day") <= 86_400);
    server.stop();
    let again = server.start_again(settings());
    check_refused(&again.post("/v1/completions", completion(5)), "tokens_per_day");
    again.post("/v1/completions", completion(1)).check_ok();
}
