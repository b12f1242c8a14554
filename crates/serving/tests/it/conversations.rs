//! Conversations that a tenant wants kept: sealed for its own keys, named by the audit log, in the clear nowhere.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use provenance::{Clock, Storage};
use serde_json::{Value, json};
use serving::{
    AuditContent, AuditFilter, AuditPolicy, AuditSettings, Identity, KeyStore, OpenedConversations, Role,
    ServeSettings, TenantPolicy, TenantStore, UpstreamSettings, backup, open_conversations, restore,
    verify_audit,
};

use crate::client::{Answer, Options, TestServer};
use crate::stub::Stub;

/// Words that stand in no other place.
const SECRET: &str = "vertraulichdůvěrnéεμπιστευτικό";

/// A tenant with a key to the server and one to its conversations.
struct Tenant {
    headers: String,
    identity: Identity,
    name: &'static str,
}

impl Tenant {
    fn new(server: &TestServer, name: &'static str, content: AuditContent) -> Tenant {
        let identity = Identity::make().unwrap();
        let audit = AuditPolicy { content, recipients: vec![identity.recipient().to_string()] };
        let policy = TenantPolicy { audit, ..TenantPolicy::default() };
        TenantStore::open(&server.state).unwrap().new_tenant(name, &policy, 0).unwrap();
        let key = KeyStore::open(&server.state).unwrap().new_key(name, "", Role::User, None, 0).unwrap();
        Tenant { headers: format!("Authorization: Bearer {}\r\n", key.key), identity, name }
    }

    fn post(&self, server: &TestServer, path: &str, body: &Value) -> Answer {
        server.ask_with("POST", path, &self.headers, &body.to_string())
    }

    /// The conversations that its key opens.
    fn opened(&self, state: &Path) -> (Vec<Value>, OpenedConversations) {
        opened(state, &self.identity)
    }
}

fn opened(state: &Path, identity: &Identity) -> (Vec<Value>, OpenedConversations) {
    let identity = Identity::parse(&identity.secret_text().unwrap()).unwrap();
    let mut all = Vec::new();
    let found = open_conversations(state, &AuditFilter::default(), None, &[identity], |opened| {
        assert_eq!(opened.line["id"], opened.conversation["id"]);
        all.push(Value::Object(opened.conversation));
        ControlFlow::Continue(())
    });
    (all, found.unwrap())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

fn check_nothing_in_the_clear(state: &Path, words: &[&str]) {
    for path in files(state) {
        let bytes = std::fs::read(&path).unwrap();
        for word in words {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "{word} stands in {}", path.display());
        }
    }
}

fn sealed_files(state: &Path) -> Vec<PathBuf> {
    files(state).into_iter().filter(|path| path.extension().is_some_and(|end| end == "age")).collect()
}

fn server(stub: &Stub, audit: AuditSettings) -> TestServer {
    let far = UpstreamSettings {
        models: BTreeMap::from([("far".to_string(), "their/model".to_string())]),
        ..UpstreamSettings::new("gpu", &format!("http://{}/v1", stub.address))
    };
    let settings = ServeSettings { upstreams: vec![far], audit, ..Options::default().settings };
    TestServer::start(Options { settings, ..Options::default() })
}

/// One request of each kind that has a prompt; what was said in it, as it is to be kept.
fn conversations() -> Vec<(&'static str, Value, &'static str, Value)> {
    let messages = json!([{"role": "user", "content": SECRET}]);
    // The toy goes on with the alphabet.
    let before = format!("{SECRET}a");
    let near = json!({"model": "toy", "prompt": before, "max_tokens": 8, "temperature": 0});
    let far = json!([{"role": "user", "content": format!("say {SECRET} two")}]);
    let with = |body: &Value, name: &str, value: Value| {
        let mut body = body.clone();
        body[name] = value;
        body
    };
    let said = format!("{SECRET} two");
    let (completion, chat, embedding) = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings");
    let far_chat = json!({"model": "far", "messages": far});
    let far_text = json!({"model": "far", "prompt": format!("say {said}")});
    vec![
        (completion, near.clone(), "prompt", json!([before])),
        (completion, with(&near, "stream", json!(true)), "prompt", json!([before])),
        (completion, with(&near, "echo", json!(true)), "prompt", json!([before])),
        (embedding, json!({"model": "far", "input": SECRET}), "input", json!(SECRET)),
        (chat, far_chat.clone(), "messages", far.clone()),
        (chat, with(&far_chat, "stream", json!(true)), "messages", far),
        (completion, far_text.clone(), "prompt", far_text["prompt"].clone()),
        (completion, with(&far_text, "stream", json!(true)), "prompt", far_text["prompt"].clone()),
        (chat, json!({"model": "toy", "messages": messages}), "messages", messages),
    ]
}

/// Whether something was said: the toy may say half a letter and no more.
fn has_text(answer: &Answer) -> bool {
    let Ok(whole) = serde_json::from_str::<Value>(&answer.body) else { return true };
    let choice = &whole["choices"][0];
    let text = choice["text"].as_str().or(choice["message"]["content"].as_str());
    text.is_some_and(|text| !text.is_empty())
}

#[test]
fn conversations_are_kept_as_the_policy_asks_and_for_nobody_else() {
    let stub = Stub::start();
    let mut server = server(&stub, AuditSettings::default());
    let contents = [AuditContent::Both, AuditContent::Prompts, AuditContent::Answers, AuditContent::None];
    let names = ["both", "prompts", "answers", "none"];
    let tenants: Vec<Tenant> =
        names.iter().zip(contents).map(|(name, content)| Tenant::new(&server, name, content)).collect();
    let (mut clear, mut texts) = (Vec::new(), 0);
    for tenant in &tenants {
        for (path, body, ..) in conversations() {
            let answer = tenant.post(&server, path, &body);
            assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
            texts += usize::from(tenant.name == "answers" && has_text(&answer));
            clear.push(answer.body);
        }
    }
    assert!(clear.iter().any(|body| body.contains(SECRET)) && clear.iter().any(|body| body.contains("text")));
    server.stop();
    check_nothing_in_the_clear(&server.state, &[SECRET]);
    for tenant in &tenants {
        let (found, numbers) = tenant.opened(&server.state);
        let asked = conversations();
        match tenant.name {
            "none" => assert!(found.is_empty()),
            "answers" => {
                // Embeddings have no text.
                assert!(found.len() == texts && texts >= 7, "{texts}: {found:?}");
                for one in &found {
                    assert!(one.get("prompt").is_none() && one.get("messages").is_none(), "{one}");
                    let answer = &one["answers"][0];
                    let text = answer["text"].as_str().or(answer["content"].as_str()).unwrap();
                    assert!(text == format!("{SECRET} two") || !text.contains(SECRET), "{one}");
                }
            }
            name => {
                assert_eq!(found.len(), asked.len(), "{name}");
                for (one, (_, _, field, prompt)) in found.iter().zip(&asked) {
                    assert_eq!(&one[*field], prompt, "{name}: {one}");
                    assert_eq!(one.get("answers").is_some(), name == "both", "{one}");
                }
            }
        }
        let others = (18 + texts - found.len()) as u64;
        assert_eq!((numbers.opened, numbers.for_others), (found.len() as u64, others));
    }
    // The server's own texts are the same whether streamed or not.
    let (found, _) = tenants[0].opened(&server.state);
    assert_eq!(found[0]["answers"], json!([{"index": 0, "text": "bcdefghi"}]));
    assert_eq!(found[0]["answers"], found[1]["answers"]);
    assert_eq!(found[0]["answers"], found[2]["answers"], "what is repeated of the prompt is no answer");
    assert_eq!(found[4]["answers"], json!([{"index": 0, "content": format!("{SECRET} two")}]));
    let summary = verify_audit(&server.state, None).unwrap();
    assert_eq!((summary.contents, summary.contents_elsewhere), (18 + texts as u64, 0));
    let log = server.audit();
    let named = log.iter().find(|event| event["event"] == "content").unwrap();
    let next = log.iter().find(|event| event["sequence"] == json!(named["sequence"].as_u64().unwrap() + 1));
    assert_eq!((&next.unwrap()["event"], &next.unwrap()["id"]), (&json!("request"), &named["id"]));
    assert_eq!(sealed_files(&server.state).len(), 18 + texts);
}

#[test]
fn a_conversation_that_was_altered_or_removed_is_found() {
    let stub = Stub::start();
    let mut server = server(&stub, AuditSettings::default());
    let tenant = Tenant::new(&server, "both", AuditContent::Both);
    for _ in 0..3 {
        tenant.post(&server, "/v1/completions", &json!({"model": "toy", "prompt": SECRET, "max_tokens": 2}));
    }
    server.stop();
    let sealed = sealed_files(&server.state);
    assert_eq!((sealed.len(), tenant.opened(&server.state).0.len()), (3, 3));
    let mut bytes = std::fs::read(&sealed[0]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&sealed[0], bytes).unwrap();
    std::fs::remove_file(&sealed[1]).unwrap();
    // Another conversation, however well sealed, is not the one that was kept.
    let faults = serving::find_audit_faults(&server.state, None).unwrap_err();
    let problems: Vec<String> = faults.listed.iter().map(ToString::to_string).collect();
    assert_eq!(faults.count, 2, "{problems:?}");
    for (problem, what) in [("altered", &sealed[0]), ("missing", &sealed[1])] {
        let named =
            problems.iter().any(|text| text.contains(problem) && text.contains(what.to_str().unwrap()));
        assert!(named, "{problem}: {problems:?}");
    }
}

#[test]
fn long_conversations_are_cut_and_the_line_says_so() {
    let stub = Stub::start();
    let audit = AuditSettings { content_kibibytes: 1, ..AuditSettings::default() };
    let mut server = server(&stub, audit);
    let tenant = Tenant::new(&server, "both", AuditContent::Both);
    let wish = format!("say {}", "слово ".repeat(1_000));
    let body = json!({"model": "far", "messages": [{"role": "user", "content": wish}], "stream": true});
    let answer = tenant.post(&server, "/v1/chat/completions", &body);
    assert!(answer.body.len() > 10_000 && answer.body.ends_with("data: [DONE]\n\n"));
    server.stop();
    let (found, _) = tenant.opened(&server.state);
    assert_eq!(found[0]["truncated"], json!(["prompt", "answers"]));
    let (kept, answer) = (&found[0]["messages"], &found[0]["answers"][0]["content"]);
    for (text, beginning) in [(kept, "[{\"role\":\"user\""), (answer, "слово слово")] {
        let text = text.as_str().unwrap();
        assert!(text.starts_with(beginning) && (1_000..=1_024).contains(&text.len()), "{text}");
    }
    let log = server.audit();
    let named = log.iter().find(|event| event["event"] == "content").unwrap();
    assert_eq!(named["truncated"], json!(["prompt", "answers"]));
    assert!(sealed_files(&server.state)[0].metadata().unwrap().len() < 4_096);
}

#[test]
fn a_stream_that_is_left_is_kept_as_far_as_it_came() {
    let stub = Stub::start();
    let mut server = server(&stub, AuditSettings::default());
    let tenant = Tenant::new(&server, "answers", AuditContent::Answers);
    let body = json!({"model": "far", "messages": [{"role": "user", "content": "endless"}], "stream": true});
    let mut stream = server.connect();
    let text =
        crate::client::request_text("POST", "/v1/chat/completions", &tenant.headers, &body.to_string());
    std::io::Write::write_all(&mut stream, text.as_bytes()).unwrap();
    let mut some = [0; 2_000];
    std::io::Read::read_exact(&mut stream, &mut some).unwrap();
    drop(stream);
    server.wait_until("the request is settled", |server| {
        server.audit().iter().any(|event| event["outcome"] == "abandoned")
    });
    server.stop();
    let (found, _) = tenant.opened(&server.state);
    let kept = found[0]["answers"][0]["content"].as_str().unwrap();
    assert!(kept.starts_with("one two threeand on and on"), "{kept}");
}

#[test]
fn a_policy_that_cannot_hold_is_refused_with_the_reason() {
    let server = TestServer::start(Options::default());
    let public = Identity::make().unwrap().recipient().to_string();
    let make = |name: &str, audit: Value| {
        let body = json!({"name": name, "policy": {"audit": audit}}).to_string();
        server.ask("POST", "/admin/v1/tenants", &body)
    };
    make("a", json!({"content": "prompts"})).check(400, Some("policy"));
    let wrong = make("b", json!({"content": "prompts", "recipients": [&public[..60]]}));
    assert!(wrong.check(400, Some("policy")).body.contains("letter"), "{}", wrong.body);
    make("c", json!({"content": "all", "recipients": [public]})).check(400, Some("policy"));
    make("d", json!({"content": "answers", "recipients": [public]})).check_ok();
    let tenants = TenantStore::open(&server.state).unwrap();
    let policy = TenantPolicy::default().with("audit.content=both").unwrap();
    assert!(tenants.set_policy("d", &policy).is_err(), "nobody could read it");
    let policy = policy.with(&format!("audit.recipients=[\"{public}\"]")).unwrap();
    tenants.set_policy("d", &policy).unwrap();
    assert_eq!(tenants.show("d").unwrap().policy.audit.content, AuditContent::Both);
}

#[test]
fn backups_have_the_conversations_and_copies_may_go_without() {
    let stub = Stub::start();
    let mut server = server(&stub, AuditSettings::default());
    let tenant = Tenant::new(&server, "both", AuditContent::Both);
    let ask = || {
        tenant.post(&server, "/v1/completions", &json!({"model": "toy", "prompt": SECRET, "max_tokens": 2}))
    };
    ask().check_ok();
    let folder = tempfile::tempdir().unwrap();
    let (copy, restored) = (folder.path().join("copy"), folder.path().join("restored"));
    let clock = Clock::fixed(5_000);
    assert_eq!(backup(&server.state, &copy, &Storage::disk(), &clock).unwrap().contents, 1);
    ask().check_ok();
    server.stop();
    assert_eq!(restore(&copy, &restored, &Storage::disk(), &clock).unwrap().contents, 1);
    assert_eq!(tenant.opened(&restored).0[0]["prompt"], json!([SECRET]));
    // A copy of the log for an auditor, who may see no conversation.
    let key = serving::AuditKey::read(&server.state).unwrap().public();
    let log = restored.join("audit");
    std::fs::remove_dir_all(log.join("content")).unwrap();
    assert!(verify_audit(&restored, Some(key)).is_err(), "a state without them is not whole");
    std::fs::rename(&log, folder.path().join("log")).unwrap();
    let found = verify_audit(&folder.path().join("log"), Some(key)).unwrap();
    assert_eq!((found.contents, found.contents_elsewhere), (0, 1));
    // A backup whose conversation was altered is not put back.
    std::fs::write(&sealed_files(&copy)[0], "nothing").unwrap();
    assert!(restore(&copy, &folder.path().join("again"), &Storage::disk(), &clock).is_err());
}
