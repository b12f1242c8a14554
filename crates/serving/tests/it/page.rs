//! The page from outside: who sees it, how one signs in, and what another site can make a browser do (nothing).

use serde_json::json;

use crate::client::{Answer, Options, TestServer};

/// Signs in; the cookie's pair.
fn sign_in(server: &TestServer) -> String {
    let answer = server.ask("POST", "/session", "");
    assert_eq!(answer.status, 204, "{}", answer.body);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && cookie.contains("Path=/"),
        "{cookie}"
    );
    cookie.split(';').next().unwrap().to_string()
}

fn ask(
    server: &TestServer,
    method: &str,
    path: &str,
    cookie: &str,
    origin: Option<&str>,
    body: &str,
) -> Answer {
    let origin = origin.map_or(String::new(), |origin| format!("Origin: {origin}\r\n"));
    server.ask_with(method, path, &format!("Cookie: {cookie}\r\n{origin}"), body)
}

#[test]
fn strangers_get_the_form_and_nothing_else() {
    let server = TestServer::start(Options::default());
    let page = server.ask_with("GET", "/", "Accept: text/html\r\n", "");
    assert_eq!(page.status, 401);
    assert!(
        page.body.contains("data-signed-in=\"false\"") && page.body.contains("You are talking to a machine")
    );
    assert!(!page.body.contains("toy"), "no model's name reaches a stranger");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("cache-control"), Some("no-store"));
    server.ask_with("GET", "/", "", "").check(401, None);
    server.ask_with("POST", "/session", "", "").check(401, None);
    server.ask_with("POST", "/session", "Authorization: Bearer eu-wrong\r\n", "").check(401, None);
}

#[test]
fn a_cookie_stands_for_the_key_until_one_signs_out() {
    let server = TestServer::start(Options::default());
    let cookie = sign_in(&server);
    let page = ask(&server, "GET", "/", &cookie, None, "");
    assert_eq!(page.status, 200);
    assert!(page.body.contains("data-signed-in=\"true\""));
    assert_eq!(ask(&server, "GET", "/v1/models", &cookie, None, "").status, 200);
    let body =
        json!({"model": "toy", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}).to_string();
    let asked = ask(&server, "POST", "/v1/chat/completions", &cookie, Some("http://localhost"), &body);
    assert_eq!(asked.status, 200, "{}", asked.body);
    assert_eq!(ask(&server, "DELETE", "/session", &cookie, Some("http://localhost"), "").status, 204);
    ask(&server, "GET", "/v1/models", &cookie, None, "").check(401, None);
    assert_eq!(ask(&server, "GET", "/", &cookie, None, "").status, 401);
}

#[test]
fn a_revoked_key_ends_its_sessions() {
    let server = TestServer::start(Options::default());
    let cookie = sign_in(&server);
    serving::KeyStore::open(&server.state).unwrap().revoke(&server.key_id, 9).unwrap();
    ask(&server, "GET", "/v1/models", &cookie, None, "").check(401, None);
}

#[test]
fn another_site_cannot_use_the_cookie() {
    let server = TestServer::start(Options::default());
    let cookie = sign_in(&server);
    let body = json!({"model": "toy", "prompt": "a", "max_tokens": 1}).to_string();
    for origin in [None, Some("null"), Some("http://evil.example"), Some("http://localhost.evil.example")] {
        let answer = ask(&server, "POST", "/v1/completions", &cookie, origin, &body);
        assert_eq!(answer.status, 403, "{origin:?}: {}", answer.body);
        assert_eq!(answer.json()["error"]["code"], "cross_site_request");
    }
    let read = ask(&server, "GET", "/v1/models", &cookie, Some("http://evil.example"), "");
    assert_eq!(read.header("access-control-allow-origin"), None);
}
