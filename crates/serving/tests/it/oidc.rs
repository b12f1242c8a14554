//! Tokens of an issuer: which open the server, and every way to forge one that is known.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};
use serving::{Algorithm, OidcSettings, Role, TenantPolicy, TenantStore, try_issuer};

use crate::client::{Answer, Options, TestServer};
use crate::reloads::{reload_until, reloadable};

const ISSUER: &str = "https://login.example/realms/haus";

/// Made for these tests; opens nothing.
const RSA: &[u8] = include_bytes!("rsa-2048.der");

fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

enum Key {
    Rsa(RsaKeyPair),
    Es256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    fn rsa() -> Key {
        Key::Rsa(RsaKeyPair::from_der(RSA).unwrap())
    }

    fn es256() -> Key {
        let random = SystemRandom::new();
        let kind = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        Key::Es256(EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap())
    }

    fn ed25519() -> Key {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Key::Ed25519(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    fn jwk(&self, id: &str) -> Value {
        match self {
            Key::Rsa(pair) => {
                let public = signature::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                let (n, e) = (base64url(&public.n), base64url(&public.e));
                json!({"kty": "RSA", "kid": id, "use": "sig", "n": n, "e": e})
            }
            Key::Es256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256", "x": x, "y": y})
            }
            Key::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": base64url(pair.public_key().as_ref())})
            }
        }
    }

    fn sign(&self, algorithm: &str, text: &str) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Key::Rsa(pair) => {
                let padding: &dyn signature::RsaEncoding = match algorithm {
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_key().modulus_len()];
                pair.sign(padding, &random, text.as_bytes(), &mut signature).unwrap();
                signature
            }
            Key::Es256(pair) => pair.sign(&random, text.as_bytes()).unwrap().as_ref().to_vec(),
            Key::Ed25519(pair) => pair.sign(text.as_bytes()).as_ref().to_vec(),
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_of(&header.to_string(), &claims.to_string())
    }

    fn token_of(&self, header: &str, claims: &str) -> String {
        let algorithm: Value = serde_json::from_str(header).unwrap();
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = self.sign(algorithm["alg"].as_str().unwrap_or_default(), &signed);
        format!("{signed}.{}", base64url(&signature))
    }
}

/// The issuer's address for its keys.
struct Issuer {
    url: String,
    keys: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
    down: Arc<AtomicBool>,
}

impl Issuer {
    fn start(keys: &[Value]) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = Issuer {
            url: format!("http://{}/keys", listener.local_addr().unwrap()),
            keys: Arc::new(Mutex::new(json!({"keys": keys}))),
            asked: Arc::default(),
            down: Arc::default(),
        };
        let (keys, asked, down) = (issuer.keys.clone(), issuer.asked.clone(), issuer.down.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                asked.fetch_add(1, Ordering::SeqCst);
                if down.load(Ordering::SeqCst) {
                    continue;
                }
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let body = keys.lock().unwrap().to_string();
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        issuer
    }
}

fn settings(url: &str) -> OidcSettings {
    OidcSettings {
        issuer: ISSUER.to_string(),
        audience: "eulalia".to_string(),
        jwks_url: Some(url.to_string()),
        jwks_file: None,
        ca: None,
        algorithms: vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA],
        clock_skew_seconds: 60,
        refresh_seconds: 3_600,
        stale_seconds: 86_400,
        tenant_claim: Some("organisation".to_string()),
        tenants: BTreeMap::new(),
        default_tenant: None,
        role_claim: Some("realm_access.roles".to_string()),
        roles: BTreeMap::from([
            ("ki-nutzer".to_string(), Role::User),
            ("ki-leitung".to_string(), Role::Admin),
        ]),
        default_role: None,
    }
}

fn start(oidc: OidcSettings) -> TestServer {
    let mut options = Options::default();
    options.settings.oidc = Some(oidc);
    options.settings.throttle.failures_per_minute = 10_000;
    let server = TestServer::start(options);
    let tenants = TenantStore::open(&server.state).unwrap();
    tenants.new_tenant("Kreis", &TenantPolicy::default(), 0).unwrap();
    server
}

/// The server's clock in these tests stands at the beginning of 1970.
fn now() -> i64 {
    0
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": ["other", "eulalia"], "sub": "f81d4fae", "exp": now() + 300, "iat": now(),
        "organisation": "Kreis", "realm_access": {"roles": ["offline_access", "ki-nutzer"]},
    })
}

fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

fn ask(server: &TestServer, path: &str, token: &str) -> Answer {
    server.ask_with("GET", path, &format!("Authorization: Bearer {token}\r\n"), "")
}

fn check(server: &TestServer, what: &str, token: &str, status: u16) {
    let answer = ask(server, "/v1/models", token);
    assert_eq!(answer.status, status, "{what}: {}", answer.body);
}

#[test]
fn tokens_of_the_issuer_open_what_their_roles_permit() {
    let (rsa, curve, edwards) = (Key::rsa(), Key::es256(), Key::ed25519());
    let issuer =
        Issuer::start(&[rsa.jwk("r"), curve.jwk("c"), edwards.jwk("e"), json!({"kty": "oct", "k": "AAAA"})]);
    let mut server = start(settings(&issuer.url));
    for (key, algorithm, id) in
        [(&rsa, "RS256", "r"), (&rsa, "PS256", "r"), (&curve, "ES256", "c"), (&edwards, "EdDSA", "e")]
    {
        let token = key.token(&json!({"alg": algorithm, "kid": id, "typ": "JWT"}), &claims());
        check(&server, algorithm, &token, 200);
        let without_id = key.token(&json!({"alg": algorithm}), &claims());
        check(&server, algorithm, &without_id, 200);
        assert_eq!(ask(&server, "/admin/v1/keys", &token).status, 403);
    }
    let header = json!({"alg": "EdDSA", "kid": "e"});
    let leading = with(&json!({"realm_access": {"roles": ["ki-nutzer", "ki-leitung"]}, "sub": "Zoë"}));
    assert_eq!(ask(&server, "/admin/v1/keys", &edwards.token(&header, &leading)).status, 200);
    for (what, changes) in [
        ("no role", json!({"realm_access": null})),
        ("unknown role", json!({"realm_access": {"roles": ["admin"]}})),
        ("no tenant", json!({"organisation": null})),
        ("unknown tenant", json!({"organisation": "Nirgendwo"})),
        ("two tenants", json!({"organisation": ["Kreis", "Test"]})),
    ] {
        check(&server, what, &edwards.token(&header, &with(&changes)), 403);
    }
    server.stop();
    let requests: Vec<Value> =
        server.audit().into_iter().filter(|event| event["event"] == "request").collect();
    assert!(requests.iter().all(|event| event["key"].as_str().unwrap().starts_with("oidc-")));
    assert_eq!(requests[0]["key"], requests[1]["key"], "one pseudonym for one subject");
    assert_ne!(requests[0]["key"], requests.last().unwrap()["key"]);
    let text = serde_json::to_string(&requests).unwrap();
    assert!(!text.contains("f81d4fae") && !text.contains("Zoë"));
}

#[test]
fn forged_tokens_open_nothing() {
    let (rsa, other) = (Key::rsa(), Key::ed25519());
    let own = Key::ed25519();
    let issuer = Issuer::start(&[rsa.jwk("r"), own.jwk("e")]);
    let server = start(settings(&issuer.url));
    let header = json!({"alg": "EdDSA", "kid": "e"});
    let good = own.token(&header, &claims());
    check(&server, "good", &good, 200);
    let parts: Vec<&str> = good.split('.').collect();

    // Without a signature, or with one that everybody could make.
    for name in ["none", "None", "NONE", "", "HS256", "hs256", "RS1", "EdDSA "] {
        let unsigned = base64url(json!({"alg": name, "kid": "e"}).to_string().as_bytes());
        for tail in ["", parts[2]] {
            check(&server, name, &format!("{unsigned}.{}.{tail}", parts[1]), 401);
        }
    }
    let public = rsa.jwk("r").to_string();
    let signed = format!(
        "{}.{}",
        base64url(json!({"alg": "HS256", "kid": "r"}).to_string().as_bytes()),
        base64url(claims().to_string().as_bytes())
    );
    for secret in [public.as_bytes(), RSA, b""] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
        let signature = base64url(ring::hmac::sign(&key, signed.as_bytes()).as_ref());
        check(&server, "HS256 with the public key", &format!("{signed}.{signature}"), 401);
    }
    // Keys that the token itself brings or names.
    for extra in [
        json!({"alg": "EdDSA", "jwk": other.jwk("e")}),
        json!({"alg": "EdDSA", "kid": "e", "jwk": other.jwk("e")}),
        json!({"alg": "EdDSA", "kid": "e", "jku": "http://127.0.0.1:1/keys"}),
        json!({"alg": "EdDSA", "kid": "e", "x5u": "http://127.0.0.1:1/keys", "x5c": ["AAAA"]}),
        json!({"alg": "EdDSA", "kid": "r"}),
        json!({"alg": "EdDSA", "kid": "../../../../dev/null"}),
        json!({"alg": "EdDSA", "kid": "e' OR '1'='1"}),
        json!({"alg": "EdDSA", "kid": ""}),
        json!({"alg": "EdDSA", "kid": ["e"]}),
        json!({"alg": "EdDSA", "kid": "e".repeat(201)}),
    ] {
        check(&server, &extra.to_string(), &other.token(&extra, &claims()), 401);
    }
    // Signed by the issuer, but not so.
    check(&server, "algorithm not allowed", &rsa.token(&json!({"alg": "RS384", "kid": "r"}), &claims()), 401);
    check(&server, "another key's name", &own.token(&json!({"alg": "EdDSA", "kid": "r"}), &claims()), 401);
    check(&server, "crit", &own.token(&json!({"alg": "EdDSA", "kid": "e", "crit": ["exp"]}), &claims()), 401);
    check(
        &server,
        "logout",
        &own.token(&json!({"alg": "EdDSA", "kid": "e", "typ": "logout+jwt"}), &claims()),
        401,
    );
    let doubled = r#"{"alg":"EdDSA","kid":"e","kid":"e"}"#;
    check(&server, "doubled header", &own.token_of(doubled, &claims().to_string()), 401);
    let doubled = claims().to_string().replacen('{', r#"{"aud":"eulalia","#, 1);
    check(&server, "doubled claim", &own.token_of(&header.to_string(), &doubled), 401);

    let now = now();
    for (what, changes) in [
        ("another issuer", json!({"iss": "https://login.example/realms/haus/"})),
        ("no issuer", json!({"iss": null})),
        ("another audience", json!({"aud": "eulalia2"})),
        ("audiences without ours", json!({"aud": ["a", ["eulalia"]]})),
        ("no audience", json!({"aud": null})),
        ("no subject", json!({"sub": null})),
        ("empty subject", json!({"sub": ""})),
        ("expired", json!({"exp": now - 61})),
        ("no end", json!({"exp": null})),
        ("end as text", json!({"exp": (now + 300).to_string()})),
        ("not yet", json!({"nbf": now + 300})),
        ("made in the future", json!({"iat": now + 300})),
        ("giant", json!({"padding": "x".repeat(9_000)})),
    ] {
        check(&server, what, &own.token(&header, &with(&changes)), 401);
    }
    // Clocks may differ by a minute.
    for changes in [json!({"exp": now - 20}), json!({"nbf": now + 20, "iat": now + 20})] {
        check(&server, "skew", &own.token(&header, &with(&changes)), 200);
    }
    // Bytes changed on the way, and other nonsense.
    let swapped =
        format!("{}.{}.{}", parts[0], base64url(with(&json!({"sub": "x"})).to_string().as_bytes()), parts[2]);
    let padded = format!("{good}=");
    let more = format!("{good}.{}", parts[2]);
    for wrong in [swapped.as_str(), &padded, &more, "..", ".", "a.b.c", &good[..good.len() - 2], &good[1..]] {
        check(&server, wrong, wrong, 401);
    }
    check(&server, "still good", &good, 200);
}

#[test]
fn an_issuer_comes_and_changes_with_a_reload() {
    let (own, new) = (Key::ed25519(), Key::es256());
    let (first, second) = (Issuer::start(&[own.jwk("1")]), Issuer::start(&[new.jwk("2")]));
    let (server, wanted, reload) = reloadable(None);
    TenantStore::open(&server.state).unwrap().new_tenant("Kreis", &TenantPolicy::default(), 0).unwrap();
    let by_own = own.token(&json!({"alg": "EdDSA", "kid": "1"}), &claims());
    let by_new = new.token(&json!({"alg": "ES256", "kid": "2"}), &claims());
    let change = |event: &str, oidc: OidcSettings| {
        reload_until(&server, &wanted, &reload, event, &|settings| settings.oidc = Some(oidc.clone()));
    };
    check(&server, "no issuer yet", &by_own, 401);
    change("settings_reloaded", settings(&first.url));
    check(&server, "the first", &by_own, 200);
    assert_eq!(try_issuer(&settings(&first.url)).unwrap(), 1);

    // The same source may be away for a while, another one may not.
    first.down.store(true, Ordering::SeqCst);
    change("settings_reloaded", OidcSettings { clock_skew_seconds: 30, ..settings(&first.url) });
    check(&server, "the first, known", &by_own, 200);
    second.down.store(true, Ordering::SeqCst);
    change("settings_refused", settings(&second.url));
    check(&server, "the first, still", &by_own, 200);
    assert!(try_issuer(&settings(&second.url)).unwrap_err().to_string().contains("oidc.jwks_url"));
    second.down.store(false, Ordering::SeqCst);
    change("settings_reloaded", settings(&second.url));
    check(&server, "the second", &by_new, 200);
    check(&server, "the first, no longer", &by_own, 401);
}

#[test]
fn keys_rotate_and_the_issuer_may_be_away() {
    let (old, new) = (Key::ed25519(), Key::es256());
    let issuer = Issuer::start(&[old.jwk("1")]);
    let server = start(settings(&issuer.url));
    let by_old = old.token(&json!({"alg": "EdDSA", "kid": "1"}), &claims());
    let by_new = new.token(&json!({"alg": "ES256", "kid": "2"}), &claims());
    check(&server, "old", &by_old, 200);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 1, "known keys are not asked for again");

    *issuer.keys.lock().unwrap() = json!({"keys": [new.jwk("2")]});
    check(&server, "new, asked for at once", &by_new, 200);
    check(&server, "old, no longer there", &by_old, 401);
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2);
    for number in 0..20 {
        let stranger = Key::ed25519().token(&json!({"alg": "EdDSA", "kid": number.to_string()}), &claims());
        check(&server, "a key that nobody has", &stranger, 401);
    }
    assert_eq!(issuer.asked.load(Ordering::SeqCst), 2, "one question in half a minute, whatever comes");

    issuer.down.store(true, Ordering::SeqCst);
    check(&server, "known keys hold", &by_new, 200);
    let lonely = start(settings(&issuer.url));
    let answer = ask(&lonely, "/v1/models", &by_new);
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!("issuer_unreachable")));
    assert_eq!(lonely.ask("GET", "/v1/models", "").status, 200, "keys of our own open all the same");
}
