//! JSON Schemas of tenants and keys.

use serde_json::{Map, Value, json};

use super::schemas::{any, named, object, or_null, request};
use crate::audit_policy::MOST_RECIPIENTS;
use crate::identity::{Role, Scope};

/// Characters that stand in no name or label, as [`crate::keys`] has them: within the brackets of a pattern.
const CONTROL: &str = r"\u0000-\u001f\u007f-\u009f";
/// And in no name of a new tenant; the last two as they are, since patterns have no common way to write them.
const UNSEEN: &str = concat!(
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164",
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb",
    "\u{E0000}-\u{E0FFF}"
);

/// A list of things of that schema.
pub fn list_of(name: &str) -> Value {
    object(&[("object", json!({"const": "list"})), ("data", json!({"type": "array", "items": named(name)}))])
}

/// All of them, by name.
pub fn all() -> Map<String, Value> {
    let text = || json!({"type": "string"});
    let visible = format!(r"[^{CONTROL}]*[^\s{CONTROL}][^{CONTROL}]*");
    let label = || json!({"type": "string", "maxLength": 100, "pattern": format!("^({visible})?$")});
    let new_name = format!(r"^[^\s{CONTROL}{UNSEEN}]([^{CONTROL}{UNSEEN}]*[^\s{CONTROL}{UNSEEN}])?$");
    let name =
        |pattern: &str| json!({"type": "string", "minLength": 1, "maxLength": 100, "pattern": pattern});
    let time = || json!({"type": "integer", "minimum": 0, "description": "Seconds since 1970."});
    // Up to here a number is the same to every reader of JSON.
    let end = json!({"type": "integer", "minimum": 0, "maximum": 1_u64 << 53, "description": "Seconds since 1970, still to come."});
    let id = || json!({"type": "string", "description": "The public part of a key: 8 letters and digits."});
    let kept = json!({
        "type": "object",
        "description": "Which parts of its conversations are kept, and the public keys of age they are sealed for; a \
                        part without a key is refused.",
        "properties": {
            "content": {"type": "string", "enum": ["none", "prompts", "answers", "both"], "default": "none"},
            "recipients": {"type": "array", "items": {"type": "string", "pattern": "^age1[02-9ac-hj-np-z]{58}$"}, "maxItems": MOST_RECIPIENTS},
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
    let mut key_request = request(
        &["tenant"],
        vec![
            ("tenant", name(&format!("^{visible}$"))),
            ("role", role()),
            ("scopes", scopes()),
            ("label", label()),
            ("expires_days", json!({"type": "integer", "minimum": 1, "maximum": 36_500})),
        ],
    );
    key_request["allOf"] = Role::ALL.map(scopes_of_role).into_iter().collect();
    let hours = json!({"type": "integer", "minimum": 0, "maximum": 8_784});
    let schemas = [
        ("Tenant", tenant),
        ("TenantRequest", request(&["name"], vec![("name", name(&new_name)), ("policy", policy())])),
        ("TenantChange", request(&["policy"], vec![("policy", policy())])),
        ("Key", object(&key)),
        ("NewKey", new_key),
        ("KeyRequest", key_request),
        ("KeyChange", request(&[], vec![("label", label()), ("expires_at", end)])),
        ("KeyRotation", request(&[], vec![("grace_hours", hours)])),
    ];
    schemas.into_iter().map(|(name, schema)| (name.to_string(), schema)).collect()
}

/// That a key has no scopes beside those of its role; without a role it is a user's.
fn scopes_of_role(role: Role) -> Value {
    let named = match role {
        Role::User => json!({"properties": {"role": {"enum": [role.name(), null]}}}),
        _ => json!({"required": ["role"], "properties": {"role": {"const": role.name()}}}),
    };
    let scopes: Vec<&str> = role.scopes().iter().map(Scope::name).collect();
    json!({"if": named, "then": {"properties": {"scopes": {"items": {"enum": scopes}}}}})
}
