//! Guessing keys is slowed, and nobody else notices.

use crate::client::{Options, TestServer};

#[test]
fn who_guesses_waits_and_others_pass() {
    let mut options = Options::default();
    options.settings.throttle.failures_per_minute = 5;
    options.settings.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let mut server = TestServer::start(options);
    let ask = |from: &str, key: &str| {
        let headers = format!("Authorization: Bearer {key}\r\nX-Forwarded-For: {from}\r\n");
        server.ask_with("GET", "/v1/models", &headers, "")
    };
    // Who has been here before with a good key, from the guesser's address too.
    assert_eq!(ask("203.0.113.1", &server.key).status, 200);
    let mut slowed = 0;
    for number in 0..40 {
        let answer = ask("203.0.113.1", &format!("eu-{number:041}"));
        if answer.status == 429 {
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=64).contains(&seconds), "{seconds}");
            assert_eq!(answer.json()["error"]["code"], "too_many_failures");
            slowed += 1;
        } else {
            answer.check(401, None);
        }
    }
    assert!(slowed >= 10, "{slowed} of 40 had to wait");
    assert_eq!(ask("203.0.113.1", &server.key).status, 200, "a known key goes on beside the guesser");
    assert_eq!(ask("203.0.113.2", &server.key).status, 200, "another address is another address");
    assert_eq!(server.ask_with("GET", "/healthz", "X-Forwarded-For: 203.0.113.1\r\n", "").status, 200);
    assert_eq!(server.ask_with("GET", "/v1/models", "X-Forwarded-For: 203.0.113.9\r\n", "").status, 401);
    server.stop();
    // The audit log says it, without the address and without what was shown.
    let log = server.audit();
    let refused: Vec<_> = log.iter().filter(|event| event["event"] == "sign_in_refused").collect();
    let count = |reason: &str| {
        let of_reason = refused.iter().filter(|event| event["reason"] == reason);
        of_reason.map(|event| event["count"].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((count("too_many_failures"), count("invalid_api_key")), (slowed, 40 - slowed));
    assert!(
        refused.iter().all(|event| event["address"] == refused[0]["address"]),
        "who shows nothing is not there"
    );
    assert_eq!(refused[0]["address"].as_str().unwrap().len(), 16);
    let text = serde_json::to_string(&log).unwrap();
    assert!(!text.contains("203.0.113") && !text.contains("eu-00"), "{text}");
}

#[test]
fn nobody_chooses_an_address() {
    let mut options = Options::default();
    options.settings.throttle.failures_per_minute = 5;
    let server = TestServer::start(options);
    let mut slowed = 0;
    for number in 0..30 {
        let headers = format!("Authorization: Bearer eu-wrong\r\nX-Forwarded-For: 203.0.113.{number}\r\n");
        slowed += u32::from(server.ask_with("GET", "/v1/models", &headers, "").status == 429);
    }
    assert!(slowed >= 5, "{slowed} of 30 had to wait");
}
