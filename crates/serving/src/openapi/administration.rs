//! JSON Schemas of tenants and keys.

use serde_json::{Map, Value, json};

use super::schemas::{any, named, object, or_null, request};
use crate::audit_policy::MOST_RECIPIENTS;
use crate::identity::{Role, Scope};

/// A list of things of that schema.
pub fn list_of(name: &str) -> Value {
    object(&[("object", json!({"const": "list"})), ("data", json!({"type": "array", "items": named(name)}))])
}

/// All of them, by name.
pub fn all() -> Map<String, Value> {
    let text = || json!({"type": "string"});
    let name = || json!({"type": "string", "minLength": 1, "maxLength": 100});
    let time = || json!({"type": "integer", "minimum": 0, "description": "Seconds since 1970."});
    let id = || json!({"type": "string", "description": "The public part of a key: 8 letters and digits."});
    let kept = json!({
        "type": "object",
        "description": "Which parts of its conversations are kept, and the public keys of age they are sealed for; a \
                        part without a key is refused.",
        "properties": {
            "content": {"type": "string", "enum": ["none", "prompts", "answers", "both"], "default": "none"},
            "recipients": {"type": "array", "items": {"type": "string", "pattern": "^age1"}, "maxItems": MOST_RECIPIENTS},
        },
        "additionalProperties": false,
    });
    let policy = || {
        json!({
            "type": "object",
            "description": "See docs/reference/identity.md; unknown fields are refused.",
            "properties": {"audit": kept},
        })
    };
    let role = || json!({"type": "string", "enum": Role::ALL.map(Role::name)});
    let scopes = || {
        let scope = json!({"type": "string", "enum": Scope::ALL.map(Scope::name)});
        json!({"type": "array", "items": scope, "minItems": 1})
    };
    let tenant = object(&[
        ("id", text()),
        ("name", text()),
        ("created_at", time()),
        ("removed_at", or_null(time())),
        ("policy", any()),
    ]);
    let key = vec![
        ("id", id()),
        ("tenant", text()),
        ("label", text()),
        ("role", text()),
        ("scopes", json!({"type": "array", "items": text()})),
        ("created_at", time()),
        ("expires_at", or_null(time())),
        ("revoked_at", or_null(time())),
        ("last_used_on", or_null(text())),
        ("replaces", or_null(id())),
    ];
    let secret = ("key", json!({"type": "string", "description": "The whole key, shown this once."}));
    let new_key = object(&[&key[..], &[secret]].concat());
    let days = json!({"type": "integer", "minimum": 1, "maximum": 36_500});
    let hours = json!({"type": "integer", "minimum": 0, "maximum": 8_784});
    let schemas = [
        ("Tenant", tenant),
        ("TenantRequest", request(&["name"], vec![("name", name()), ("policy", policy())])),
        ("TenantChange", request(&["policy"], vec![("policy", policy())])),
        ("Key", object(&key)),
        ("NewKey", new_key),
        (
            "KeyRequest",
            request(
                &["tenant"],
                vec![
                    ("tenant", name()),
                    ("role", role()),
                    ("scopes", scopes()),
                    ("label", json!({"type": "string", "maxLength": 100})),
                    ("expires_days", days),
                ],
            ),
        ),
        (
            "KeyChange",
            request(
                &[],
                vec![("label", json!({"type": "string", "maxLength": 100})), ("expires_at", time())],
            ),
        ),
        ("KeyRotation", request(&[], vec![("grace_hours", hours)])),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_string(), schema)).collect()
}
