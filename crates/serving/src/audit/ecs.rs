//! Lines of the log in the Elastic Common Schema (<https://www.elastic.co/guide/en/ecs/8.17/>), which Elastic, OpenSearch
//! and other security monitors read. Fields that the schema has no name for stand below `eulalia`.

use serde_json::{Map, Value, json};

/// Version of the schema.
const VERSION: &str = "8.17.0";

/// A line of the log as an ECS document.
pub fn line(line: &Map<String, Value>) -> Value {
    let text = |name: &str| line.get(name).and_then(Value::as_str);
    let kind = match text("event").unwrap_or_default() {
        "administration" => text("action").unwrap_or("administration"),
        kind => kind,
    };
    let (category, types) = category(kind);
    let mut event = json!({
        "kind": "event", "category": [category], "type": types, "action": kind, "dataset": "eulalia.audit",
        "module": "eulalia", "sequence": line.get("sequence"), "outcome": outcome(line),
    });
    let mut document = json!({
        "@timestamp": text("time"), "ecs": {"version": VERSION}, "service": {"type": "eulalia"},
    });
    if let Some(id) = text("id") {
        event["id"] = json!(id);
        document["http"]["request"]["id"] = json!(id);
    }
    if let Some(milliseconds) = line.get("milliseconds").and_then(Value::as_u64) {
        // The schema counts nanoseconds.
        event["duration"] = json!(milliseconds.saturating_mul(1_000_000));
    }
    if let Some(tenant) = text("tenant") {
        document["organization"]["id"] = json!(tenant);
    }
    if let Some(user) = text("user").or(text("key")) {
        document["user"]["id"] = json!(user);
    }
    if let Some((method, path)) = text("route").and_then(|route| route.split_once(' ')) {
        document["http"]["request"]["method"] = json!(method);
        document["url"]["path"] = json!(path);
    }
    if let Some(status) = line.get("status").and_then(Value::as_u64) {
        document["http"]["response"]["status_code"] = json!(status);
    }
    document["event"] = event;
    let own = |name: &String| {
        !["sequence", "time", "event", "id", "status", "milliseconds"].contains(&name.as_str())
    };
    let rest: Map<String, Value> = line
        .iter()
        .filter(|(name, value)| own(name) && !value.is_null())
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    document["eulalia"] = Value::Object(rest);
    document
}

/// `event.category` and `event.type`, from the lists of allowed values.
fn category(kind: &str) -> (&'static str, [&'static str; 1]) {
    match kind {
        "request" | "content" | "content_lost" => ("web", ["access"]),
        "requests_refused" => ("web", ["denied"]),
        "strangers_refused" | "sign_in_refused" => ("authentication", ["denied"]),
        "key_created" | "key_rotated" | "tenant_created" => ("iam", ["creation"]),
        "key_changed" | "tenant_changed" | "administration" => ("iam", ["change"]),
        "key_revoked" | "tenant_removed" => ("iam", ["deletion"]),
        "server_started" => ("process", ["start"]),
        "server_stopped" => ("process", ["end"]),
        "lines_erased" | "segments_removed" => ("configuration", ["deletion"]),
        _ => ("configuration", ["change"]),
    }
}

/// `event.outcome`.
fn outcome(line: &Map<String, Value>) -> &'static str {
    match line.get("outcome").and_then(Value::as_str) {
        Some("ok") => "success",
        Some(_) => "failure",
        None if line.get("event").is_some_and(|kind| kind == "sign_in_refused") => "failure",
        None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_names_of_the_schema() {
        let text = r#"{"sequence":7,"time":"2026-11-20T08:00:00Z","event":"request","id":"ab","tenant":"t1","key":"k1",
            "user":null,"route":"POST /v1/completions","model":"toy","prompt_tokens":3,"outcome":"refused","status":429,
            "milliseconds":12,"previous":"00"}"#;
        let found = line(&super::super::read::object(text.as_bytes()));
        assert_eq!(found["@timestamp"], "2026-11-20T08:00:00Z");
        let event = &found["event"];
        assert_eq!((&event["action"], &event["outcome"]), (&json!("request"), &json!("failure")));
        assert_eq!((&event["duration"], &event["sequence"]), (&json!(12_000_000), &json!(7)));
        assert_eq!((&found["organization"]["id"], &found["user"]["id"]), (&json!("t1"), &json!("k1")));
        assert_eq!(
            found["http"],
            json!({"request": {"id": "ab", "method": "POST"}, "response": {"status_code": 429}})
        );
        assert_eq!(found["url"]["path"], "/v1/completions");
        assert_eq!(
            (&found["eulalia"]["model"], &found["eulalia"]["previous"]),
            (&json!("toy"), &json!("00"))
        );
    }
}
