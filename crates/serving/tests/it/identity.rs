//! Who may do what: every role on every route, tenants and their models, keys made and changed over the network.

use serde_json::{Value, json};
use serving::{KeyOrder, KeyStore, Role, Scope, Scopes, TenantPolicy, TenantStore};

use crate::client::{Answer, Options, TestServer};

/// Every route there is, as the served document has it: method, path, scope.
fn routes(server: &TestServer) -> Vec<(String, String, Option<String>)> {
    let document = server.ask("GET", "/openapi.json", "").json();
    let paths = document["paths"].as_object().unwrap();
    let methods = |(path, methods): (&String, &Value)| {
        let of = |(method, operation): (&String, &Value)| {
            let scope = operation["x-scope"].as_str().map(str::to_string);
            let path = path.replace("{id}", "none").replace("{name}", "none");
            (method.to_uppercase(), path, scope)
        };
        methods.as_object().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    paths.iter().flat_map(methods).collect()
}

fn with_key(server: &TestServer, key: &str, method: &str, path: &str, body: &Value) -> Answer {
    server.ask_with(method, path, &format!("Authorization: Bearer {key}\r\n"), &body.to_string())
}

#[test]
fn every_route_asks_for_its_scope_and_none_but_health_answers_strangers() {
    let server = TestServer::start(Options::default());
    let routes = routes(&server);
    assert!(routes.len() >= 20, "{routes:?}");
    let open: Vec<&str> =
        routes.iter().filter(|(.., scope)| scope.is_none()).map(|(_, path, _)| path.as_str()).collect();
    assert_eq!(open, ["/healthz"]);
    let keys = KeyStore::open(&server.state).unwrap();
    let keys = Role::ALL.map(|role| (role, keys.new_key("Test", role.name(), role, None, 0).unwrap().key));
    for (method, path, scope) in &routes {
        let stranger = server.ask_with(method, path, "", "{}");
        let Some(scope) = scope else {
            assert_eq!(stranger.status, 200);
            continue;
        };
        stranger.check(401, None);
        assert_eq!(server.ask_with("HEAD", path, "", "").status, 401);
        let scope = Scope::from_name(scope).unwrap();
        for (role, key) in &keys {
            let status = with_key(&server, key, method, path, &json!({})).status;
            let place = format!("{} on {method} {path}", role.name());
            if !role.scopes().contains(scope) {
                assert_eq!(status, 403, "{place}");
            } else {
                // What the empty body or the made-up name lacks is said by the route itself, behind the guard.
                assert!([200, 204, 400, 404].contains(&status), "{place}: {status}");
            }
            if method == "GET" {
                let head = with_key(&server, key, "HEAD", path, &json!({})).status;
                assert_eq!(head == 403, status == 403, "{place}: HEAD is answered {head}");
            }
        }
    }
}

/// The served document says which scopes a key of each role can have, and that is what can be made.
#[test]
fn a_key_has_the_scopes_of_its_role_that_the_document_names() {
    let server = TestServer::start(Options::default());
    let document = server.ask("GET", "/openapi.json", "").json();
    let rules = document["components"]["schemas"]["KeyRequest"]["allOf"].clone();
    for role in Role::ALL {
        let of_role = |rule: &&Value| {
            let named = &rule["if"]["properties"]["role"];
            named["const"] == role.name() || named["enum"][0] == role.name()
        };
        let rule = rules.as_array().unwrap().iter().find(of_role).unwrap();
        let named = rule["then"]["properties"]["scopes"]["items"]["enum"].as_array().unwrap();
        for scope in Scope::ALL {
            let order = json!({"tenant": "Test", "role": role.name(), "scopes": [scope.name()]});
            let status = server.post("/admin/v1/keys", order).status;
            let expected = if named.contains(&json!(scope.name())) { 200 } else { 400 };
            assert_eq!(status, expected, "{} as {}", scope.name(), role.name());
        }
    }
}

#[test]
fn a_narrowed_key_does_less_than_its_role() {
    let server = TestServer::start(Options::default());
    let order =
        KeyOrder { scopes: Some(Scopes::of(&[Scope::Status])), ..KeyOrder::new("Test", "", Role::User) };
    let key = KeyStore::open(&server.state).unwrap().make(&order, 0).unwrap().key;
    assert_eq!(with_key(&server, &key, "GET", "/readyz", &json!({})).status, 200);
    with_key(&server, &key, "GET", "/v1/models", &json!({})).check(403, None);
}

#[test]
fn a_model_that_a_tenant_may_not_use_is_not_there() {
    let server = TestServer::start(Options::default());
    let tenants = TenantStore::open(&server.state).unwrap();
    let policy = TenantPolicy::default().with(r#"models=["toy-backwards"]"#).unwrap();
    tenants.new_tenant("Schule", &policy, 0).unwrap();
    let key = KeyStore::open(&server.state).unwrap().new_key("Schule", "", Role::User, None, 0).unwrap().key;
    let ask = |method, path: &str, body: Value| with_key(&server, &key, method, path, &body);
    let names = |answer: Answer, list: &str| -> Vec<String> {
        let found = answer.json()[list].as_array().unwrap().clone();
        found.iter().map(|model| model["id"].as_str().unwrap().to_string()).collect()
    };
    assert_eq!(names(ask("GET", "/v1/models", json!({})), "data"), ["toy-backwards"]);
    assert_eq!(names(ask("GET", "/readyz", json!({})), "models"), ["toy-backwards"]);
    assert!(!ask("GET", "/openapi.json", json!({})).body.contains("\"toy\""));
    let forbidden = ask("GET", "/v1/models/toy", json!({}));
    let missing = ask("GET", "/v1/models/toz", json!({}));
    assert_eq!((forbidden.status, missing.status), (404, 404));
    assert_eq!(forbidden.body.replace("toy`", "X"), missing.body.replace("toz`", "X"));
    // Only one model is left: as vLLM does, these need no name then.
    assert_eq!(ask("GET", "/tokenizer_info", json!({})).json()["model"], "toy-backwards");
    assert_eq!(ask("GET", "/tokenizer_info?model=toy", json!({})).status, 404);
    assert_eq!(ask("POST", "/tokenize", json!({"prompt": "a", "add_special_tokens": false})).status, 200);
    assert_eq!(ask("POST", "/detokenize", json!({"tokens": [98]})).status, 200);
    let messages = json!([{"role": "user", "content": "a"}]);
    for (path, body) in [
        ("/v1/completions", json!({"model": "toy", "prompt": "a"})),
        ("/v1/chat/completions", json!({"model": "toy", "messages": messages})),
        ("/v1/embeddings", json!({"model": "toy", "input": "a"})),
        ("/tokenize", json!({"model": "toy", "prompt": "a"})),
        ("/detokenize", json!({"model": "toy", "tokens": [1]})),
    ] {
        let answer = ask("POST", path, body);
        answer.check(404, Some("model"));
        assert_eq!(answer.json()["error"]["code"], "model_not_found", "{path}");
    }
    tenants.set_policy("Schule", &TenantPolicy::default()).unwrap();
    assert_eq!(ask("GET", "/v1/models/toy", json!({})).status, 200, "from the next request on");
    tenants.remove("Schule", 1).unwrap();
    ask("GET", "/v1/models", json!({})).check(401, None);
}

#[test]
fn a_policy_that_names_what_there_is_not_is_refused_with_what_there_is() {
    let mut options = Options::default();
    options.settings.filters = toml::from_str("[chains.strict]\n").unwrap();
    let server = TestServer::start(options);
    let ask = |method: &str, path: &str, body: Value| server.ask(method, path, &body.to_string());
    for (policy, param, words) in [
        (json!({"models": ["toy", "toi"]}), "policy.models", ["`toi`", "toy, toy-backwards"]),
        (json!({"filters": "strikt"}), "policy.filters", ["`strikt`", "strict"]),
    ] {
        let new = ask("POST", "/admin/v1/tenants", json!({"name": "Schule", "policy": policy}));
        let changed = ask("PATCH", "/admin/v1/tenants/Test", json!({"policy": policy}));
        for answer in [new, changed] {
            answer.check(400, Some(param));
            assert!(words.iter().all(|word| answer.body.contains(word)), "{}", answer.body);
        }
    }
    assert_eq!(ask("GET", "/admin/v1/tenants/Test", json!({})).json()["policy"]["filters"], Value::Null);
    ask("GET", "/admin/v1/tenants/Schule", json!({})).check(404, None);
    let both = json!({"models": ["toy"], "filters": "strict"});
    ask("PATCH", "/admin/v1/tenants/Test", json!({"policy": both})).check_ok();
}

#[test]
fn tenants_and_keys_are_administered_over_the_network() {
    let server = TestServer::start(Options::default());
    let admin = |method: &str, path: &str, body: Value| server.ask(method, path, &body.to_string());
    let policy = json!({"models": ["toy"], "limits": {"requests_per_minute": 100}});
    let made = admin("POST", "/admin/v1/tenants", json!({"name": "Knižnica", "policy": policy}));
    assert_eq!((made.status, &made.json()["policy"]["models"]), (200, &json!(["toy"])), "{}", made.body);
    let pseudonym = made.json()["id"].as_str().unwrap().to_string();
    admin("POST", "/admin/v1/tenants", json!({"name": "Knižnica"})).check(409, None);
    admin("POST", "/admin/v1/tenants", json!({"name": "x", "policy": {"modles": []}}))
        .check(400, Some("policy"));
    let zero = json!({"limits": {"answers": 0}});
    admin("PATCH", "/admin/v1/tenants/Test", json!({"policy": zero})).check(400, Some("policy"));
    assert_eq!(admin("GET", "/admin/v1/tenants", json!({})).json()["data"].as_array().unwrap().len(), 2);

    let order = json!({"tenant": "Knižnica", "role": "user", "scopes": ["inference"], "label": "pult", "expires_days": 9});
    let key = admin("POST", "/admin/v1/keys", order).json();
    let (id, secret) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
    assert_eq!(with_key(&server, secret, "GET", "/v1/models", &json!({})).status, 200);
    with_key(&server, secret, "GET", "/readyz", &json!({})).check(403, None);
    with_key(&server, secret, "GET", "/admin/v1/keys", &json!({})).check(403, None);
    let shown = admin("GET", &format!("/admin/v1/keys/{id}"), json!({}));
    assert_eq!((&shown.json()["label"], shown.body.contains(&secret[11..])), (&json!("pult"), false));
    for (body, param) in [
        (json!({}), "tenant"),
        (json!({"tenant": "Test", "role": "root"}), "role"),
        (json!({"tenant": "Test", "scopes": ["all"]}), "scopes"),
        (json!({"tenant": "Test", "expires_days": 0}), "expires_days"),
        (json!({"tenant": "Test", "admin": true}), "admin"),
    ] {
        admin("POST", "/admin/v1/keys", body).check(400, Some(param));
    }
    admin("POST", "/admin/v1/keys", json!({"tenant": "Test", "scopes": ["audit"]})).check(400, None);
    admin("POST", "/admin/v1/keys", json!({"tenant": "Nobody"})).check(404, None);

    let changed = admin("PATCH", &format!("/admin/v1/keys/{id}"), json!({"label": "sklad"}));
    assert_eq!(changed.json()["label"], "sklad", "{}", changed.body);
    let rotated = admin("POST", &format!("/admin/v1/keys/{id}/rotate"), json!({"grace_hours": 0})).json();
    let (new_id, new_secret) = (rotated["id"].as_str().unwrap(), rotated["key"].as_str().unwrap());
    assert_eq!((&rotated["replaces"], &rotated["scopes"]), (&json!(id), &json!(["inference"])));
    assert_eq!(with_key(&server, new_secret, "GET", "/v1/models", &json!({})).status, 200);
    with_key(&server, secret, "GET", "/v1/models", &json!({})).check(401, None);
    assert!(admin("DELETE", &format!("/admin/v1/keys/{new_id}"), json!({})).json()["revoked_at"].is_u64());
    with_key(&server, new_secret, "GET", "/v1/models", &json!({})).check(401, None);
    admin("DELETE", "/admin/v1/keys/unknown1", json!({})).check(404, None);
    admin("DELETE", &format!("/admin/v1/keys/{}", server.key_id), json!({})).check(409, None);
    admin("DELETE", "/admin/v1/tenants/Test", json!({})).check(409, None);
    assert_eq!(admin("DELETE", "/admin/v1/tenants/Kni%C5%BEnica", json!({})).status, 200);

    let events = server.audit();
    let actions: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "administration")
        .map(|event| event["action"].as_str().unwrap())
        .collect();
    for action in
        ["tenant_created", "key_created", "key_changed", "key_rotated", "key_revoked", "tenant_removed"]
    {
        assert!(actions.contains(&action), "{action} is missing in {actions:?}");
    }
    let text = serde_json::to_string(&events).unwrap();
    assert!(text.contains(id) && text.contains(&pseudonym));
    for hidden in [&secret[11..], &new_secret[11..], "Knižnica"] {
        assert!(!text.contains(hidden), "{hidden} stands in the audit log");
    }
}
