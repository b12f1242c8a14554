//! `/admin/v1/…`: tenants and keys, for holders of the scope `administer`.
//!
//! Whoever administers does so for the whole installation: there are no administrators of one tenant, since they could
//! hardly do more than ask for a key and be given it, and every check of "which tenant's" is one that can be forgotten.
//!
//! A change stands in the audit log before it is made, by whom and of what, never with a secret; whether it was made, the
//! event of the request with the same id says.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::failure::ApiFailure;
use super::fields::{Fields, whole};
use super::path::PathPart;
use crate::account::Account;
use crate::audit::AuditEvent;
use crate::body::Body;
use crate::error::ServingError;
use crate::identity::{Role, Scope, Scopes, TenantPolicy};
use crate::keys::{KeyOrder, NewKey, random_hex};
use crate::server::Server;
use crate::tenants::{self, TenantRecord};

type Asked = (State<Arc<Server>>, Extension<Account>);
type Answer = Result<Json<Value>, ApiFailure>;

/// How long a key goes on after its rotation unless the request says something else.
const GRACE_HOURS: usize = 24;
const MOST_GRACE_HOURS: usize = 24 * 366;
const SECONDS_OF_A_DAY: u64 = 86_400;

/// `GET /admin/v1/tenants`
pub async fn list_tenants((State(server), _): Asked) -> Answer {
    let found = on_disk(&server, |server| tenants::list(server.keys.store())).await?;
    Ok(Json(json!({"object": "list", "data": found})))
}

/// `GET /admin/v1/tenants/{name}`
pub async fn show_tenant((State(server), _): Asked, PathPart(name): PathPart) -> Answer {
    Ok(Json(json!(tenant(&server, &name).await?)))
}

/// `POST /admin/v1/tenants`: `name`, `policy`.
pub async fn new_tenant((State(server), Extension(account)): Asked, Body(body): Body) -> Answer {
    let mut fields = Fields::of_body(&body)?;
    let name = required(&mut fields, "name")?;
    let policy = fields.take("policy").map(|wanted| policy(wanted, &server)).transpose()?.unwrap_or_default();
    fields.finish()?;
    let id = random_hex(8).map_err(|error| ApiFailure::internal(&error.to_string()))?;
    note(&server, &account, "tenant_created", &id, json!({"policy": policy})).await?;
    let made = on_disk(&server, move |server| {
        tenants::new_tenant(server.keys.store(), &id, &name, &policy, server.now())
    });
    Ok(Json(json!(made.await?)))
}

/// `PATCH /admin/v1/tenants/{name}`: `policy`, as a whole.
pub async fn change_tenant(
    (State(server), Extension(account)): Asked,
    PathPart(name): PathPart,
    Body(body): Body,
) -> Answer {
    let mut fields = Fields::of_body(&body)?;
    let Some(wanted) = fields.take("policy") else {
        return Err(ApiFailure::field("policy", "the whole policy", "none"));
    };
    let policy = policy(wanted, &server)?;
    fields.finish()?;
    let known = tenant(&server, &name).await?;
    note(&server, &account, "tenant_changed", &known.id, json!({"policy": policy})).await?;
    let changed = on_disk(&server, move |server| {
        tenants::set_policy(server.keys.store(), &name, &policy)?;
        tenants::show(server.keys.store(), &name)
    });
    Ok(Json(json!(changed.await?)))
}

/// `DELETE /admin/v1/tenants/{name}`
pub async fn remove_tenant((State(server), Extension(account)): Asked, PathPart(name): PathPart) -> Answer {
    let known = tenant(&server, &name).await?;
    if known.id == account.caller().tenant {
        return Err(own_credential("the tenant whose credential this is cannot remove itself"));
    }
    note(&server, &account, "tenant_removed", &known.id, json!({})).await?;
    on_disk(&server, move |server| tenants::remove(server.keys.store(), &name, server.now())).await?;
    Ok(Json(json!({"object": "tenant.removed", "name": known.name})))
}

/// `GET /admin/v1/keys`
pub async fn list_keys((State(server), _): Asked) -> Answer {
    let found = on_disk(&server, |server| server.keys.list()).await?;
    Ok(Json(json!({"object": "list", "data": found})))
}

/// `GET /admin/v1/keys/{id}`
pub async fn show_key((State(server), _): Asked, PathPart(id): PathPart) -> Answer {
    Ok(Json(json!(on_disk(&server, move |server| server.keys.show(&id)).await?)))
}

/// `POST /admin/v1/keys`: `tenant`, `role`, `scopes`, `label`, `expires_days`. The key stands in the answer and nowhere
/// afterwards.
pub async fn new_key((State(server), Extension(account)): Asked, Body(body): Body) -> Answer {
    let order = read_order(&body, server.now())?;
    let prepared = on_disk(&server, move |server| server.keys.prepare(&order, server.now())).await?;
    let row = &prepared.row;
    let details =
        json!({"of": row.tenant_id, "role": row.role, "scopes": row.scopes, "expires_at": row.expires_at});
    note(&server, &account, "key_created", &row.id, details).await?;
    shown_once(on_disk(&server, move |server| with_record(server, server.keys.add(prepared)?)).await?)
}

/// `PATCH /admin/v1/keys/{id}`: `label`, `expires_at`.
pub async fn change_key(
    (State(server), Extension(account)): Asked,
    PathPart(id): PathPart,
    Body(body): Body,
) -> Answer {
    let mut fields = Fields::of_body(&body)?;
    let label = fields.string("label")?;
    let expires_at = match fields.take("expires_at") {
        None => None,
        Some(value) => match whole(&value) {
            Some(seconds) => Some(seconds),
            None => return Err(fields.wrong("expires_at", "seconds since 1970", &value)),
        },
    };
    fields.finish()?;
    // Its id alone goes to the audit log: a path may hold the whole key.
    let known = on_disk(&server, move |server| server.keys.show(&id)).await?;
    note(&server, &account, "key_changed", &known.id, json!({"expires_at": expires_at})).await?;
    let changed = on_disk(&server, move |server| {
        server.keys.change(&known.id, label.as_deref(), expires_at, server.now())?;
        server.keys.show(&known.id)
    });
    Ok(Json(json!(changed.await?)))
}

/// `DELETE /admin/v1/keys/{id}`: revokes it.
pub async fn revoke_key((State(server), Extension(account)): Asked, PathPart(id): PathPart) -> Answer {
    let known = on_disk(&server, move |server| server.keys.show(&id)).await?;
    if known.id == account.caller().key_id {
        return Err(own_credential("a key cannot revoke itself; use another one"));
    }
    note(&server, &account, "key_revoked", &known.id, json!({})).await?;
    let revoked = on_disk(&server, move |server| {
        server.keys.revoke(&known.id, server.now())?;
        server.keys.show(&known.id)
    });
    Ok(Json(json!(revoked.await?)))
}

/// `POST /admin/v1/keys/{id}/rotate`: `grace_hours`.
pub async fn rotate_key(
    (State(server), Extension(account)): Asked,
    PathPart(id): PathPart,
    Body(body): Body,
) -> Answer {
    let mut fields = Fields::of_body(&body)?;
    let hours = fields.count("grace_hours", 0, MOST_GRACE_HOURS)?.unwrap_or(GRACE_HOURS);
    fields.finish()?;
    let grace = hours as u64 * 3_600;
    let prepared =
        on_disk(&server, move |server| server.keys.prepare_rotation(&id, grace, server.now())).await?;
    let details = json!({"replaces": prepared.row.replaces, "grace_hours": hours});
    note(&server, &account, "key_rotated", &prepared.row.id, details).await?;
    shown_once(on_disk(&server, move |server| with_record(server, server.keys.add(prepared)?)).await?)
}

/// The tenant of that name; the audit log has its id.
async fn tenant(server: &Arc<Server>, name: &str) -> Result<TenantRecord, ApiFailure> {
    let name = name.to_string();
    on_disk(server, move |server| tenants::show(server.keys.store(), &name)).await
}

fn read_order(body: &[u8], now: u64) -> Result<KeyOrder, ApiFailure> {
    let mut fields = Fields::of_body(body)?;
    let tenant = required(&mut fields, "tenant")?;
    let role = fields.string("role")?.unwrap_or_else(|| Role::User.name().to_string());
    let Some(role) = Role::from_name(&role) else {
        return Err(ApiFailure::field(
            "role",
            format!("one of {}", Role::ALL.map(Role::name).join(", ")),
            "another",
        ));
    };
    let scopes = fields.take("scopes").map(scopes).transpose()?;
    let label = fields.string("label")?.unwrap_or_default();
    let days = fields.count("expires_days", 1, 36_500)?;
    fields.finish()?;
    let expires_at = days.map(|days| now.saturating_add(days as u64 * SECONDS_OF_A_DAY));
    Ok(KeyOrder { tenant, label, role, scopes, expires_at })
}

fn scopes(value: Value) -> Result<Scopes, ApiFailure> {
    let named: Option<Vec<Scope>> = value
        .as_array()
        .and_then(|names| names.iter().map(|name| Scope::from_name(name.as_str()?)).collect());
    let expected = || format!("a list of {}", Scope::ALL.map(Scope::name).join(", "));
    named
        .map(|named| Scopes::of(&named))
        .ok_or_else(|| ApiFailure::field("scopes", expected(), "something else"))
}

fn policy(value: Value, server: &Server) -> Result<TenantPolicy, ApiFailure> {
    let policy: TenantPolicy = serde_json::from_value(value)
        .map_err(|error| ApiFailure::field("policy", "a tenant's policy", error))?;
    policy.check().map_err(|error| ApiFailure::field("policy", "a policy that can hold", error))?;
    if let Some(missing) = server.known_names().missing(&policy).into_iter().next() {
        let found = format!("`{}`", missing.name);
        return Err(ApiFailure::field(format!("policy.{}", missing.field), missing.expected, found));
    }
    Ok(policy)
}

fn required(fields: &mut Fields, name: &'static str) -> Result<String, ApiFailure> {
    fields.string(name)?.ok_or_else(|| ApiFailure::field(name, "a string", "none"))
}

fn with_record(server: &Server, new: NewKey) -> Result<(Value, String), ServingError> {
    Ok((json!(server.keys.show(&new.id)?), new.key))
}

fn shown_once((mut record, key): (Value, String)) -> Answer {
    record["key"] = json!(key);
    Ok(Json(record))
}

fn own_credential(message: &str) -> ApiFailure {
    ApiFailure::new(StatusCode::CONFLICT, "own_credential", message)
}

/// Puts into the audit log, and waits until it is there, who is about to do what to whom.
async fn note(
    server: &Server,
    account: &Account,
    action: &str,
    target: &str,
    details: Value,
) -> Result<(), ApiFailure> {
    let caller = account.caller();
    let target: String = target.chars().take(100).collect();
    let event = AuditEvent::new("administration")
        .with("id", account.id())
        .with("tenant", caller.tenant.as_str())
        .with("key", caller.key_id.as_str())
        .with("action", action)
        .with("target", target)
        .with("details", details);
    let (sender, written) = tokio::sync::oneshot::channel();
    server.audit.append(event, move |result| {
        // A request that was dropped meanwhile no longer waits; its line is written all the same.
        let _ = sender.send(result);
    });
    match written.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(problem)) => Err(ApiFailure::internal(&format!("audit log: {problem}"))),
        Err(_) => Err(ApiFailure::internal("audit log: its thread has ended")),
    }
}

/// Reads or changes the state, which waits for the disk: not on the threads that serve connections.
async fn on_disk<T: Send + 'static>(
    server: &Arc<Server>,
    work: impl FnOnce(&Server) -> Result<T, ServingError> + Send + 'static,
) -> Result<T, ApiFailure> {
    let server = server.clone();
    let done = tokio::task::spawn_blocking(move || work(&server)).await;
    done.map_err(ApiFailure::of_task)?.map_err(|error| {
        let refused = |status, code| ApiFailure::new(status, code, error.to_string());
        match &error {
            ServingError::NoSuchKey { .. } => refused(StatusCode::NOT_FOUND, "no_such_key"),
            ServingError::NoSuchTenant { .. } => refused(StatusCode::NOT_FOUND, "no_such_tenant"),
            ServingError::TenantTwice { .. } | ServingError::TenantRemoved { .. } => {
                refused(StatusCode::CONFLICT, "tenant_exists")
            }
            ServingError::BadName { .. } | ServingError::Setting { .. } => {
                refused(StatusCode::BAD_REQUEST, "invalid_value")
            }
            other => ApiFailure::internal(&other.to_string()),
        }
    })
}
