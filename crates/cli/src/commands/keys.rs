//! `eulalia keys`: make, list and revoke the keys of a server.

use std::io::Write;

use provenance::context::timestamp;
use serde_json::{Value, json};
use serving::{KeyOrder, KeyStore, NewKey, Role, Scope, Scopes};

use crate::arguments::{KeysAction, KeysArguments};
use crate::commands::state;
use crate::console;
use crate::errors::to_output;
use crate::run::World;

/// Words go to standard error; the key itself to standard output, so that `KEY=$(eulalia keys new)` holds it.
pub fn keys(arguments: &KeysArguments, json: bool, world: &World) -> anyhow::Result<Value> {
    let now = seconds_since_1970(world);
    match &arguments.action {
        KeysAction::New { state, label, tenant, role, scopes, expires } => {
            let order = KeyOrder {
                scopes: (!scopes.is_empty()).then(|| Scopes::of(scopes)),
                expires_at: expires.map(|days| now.saturating_add(days.saturating_mul(86_400))),
                ..KeyOrder::new(tenant, label, *role)
            };
            let is_new = !state::is_here(state);
            let make = |keys: &KeyStore| keys.make(&order, now);
            let keys = KeyStore::open(state)?;
            let made = keys.noting(now, "key_created", make, |made| made.id.clone())?;
            let tenant = keys.show(&made.id)?.tenant;
            if is_new {
                let place = state.canonicalize().unwrap_or_else(|_| state.clone());
                world.console.say(&format!(
                    "There was no state of a server yet: a new one is in {}.",
                    place.display()
                ));
            }
            let made_for = format!("Key {} of tenant {tenant}.", made.id);
            hand_over(&made, &made_for, json, world)?;
            Ok(json!({
                "id": made.id, "key": made.key, "tenant": tenant, "role": role, "expires_at": order.expires_at,
            }))
        }
        KeysAction::Rotate { id, grace, state } => {
            state::must_be_here(state)?;
            let rotate = |keys: &KeyStore| keys.rotate(id, grace.saturating_mul(3_600), now);
            let made = KeyStore::open(state)?.noting(now, "key_rotated", rotate, |made| made.id.clone())?;
            let made_for =
                format!("Key {} in the place of {id}, which opens for {grace} hours more.", made.id);
            hand_over(&made, &made_for, json, world)?;
            Ok(json!({ "id": made.id, "key": made.key, "replaces": id }))
        }
        KeysAction::List { state } => {
            state::must_be_here(state)?;
            let keys = KeyStore::open(state)?.list()?;
            let date = |seconds: Option<u64>| seconds.map_or_else(|| "–".to_string(), timestamp);
            let rows: Vec<Vec<String>> = keys
                .iter()
                .map(|key| {
                    vec![
                        key.id.clone(),
                        key.tenant.clone(),
                        key.label.clone(),
                        key.role.clone(),
                        key.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(" "),
                        timestamp(key.created_at),
                        date(key.expires_at),
                        date(key.revoked_at),
                        key.last_used_on.clone().unwrap_or_else(|| "–".to_string()),
                    ]
                })
                .collect();
            let header =
                ["id", "tenant", "label", "role", "scopes", "made", "expires", "revoked", "last used"];
            world.console.say(&console::table(&header, &rows, 9));
            Ok(json!({ "keys": keys }))
        }
        KeysAction::Revoke { id, state } => {
            state::must_be_here(state)?;
            // The id without what may stand around it: a whole key must not reach the log.
            let bare: String = id.strip_prefix("eu-").unwrap_or(id).chars().take(8).collect();
            KeyStore::open(state)?.noting(now, "key_revoked", |keys| keys.revoke(id, now), |()| bare)?;
            world.console.say(&format!("Key {id} opens nothing any more."));
            Ok(json!({ "revoked": id }))
        }
    }
}

/// Says what was made; the key goes to standard output, unless the result as JSON holds it.
fn hand_over(made: &NewKey, made_for: &str, json: bool, world: &World) -> anyhow::Result<()> {
    world.console.say(&format!("{made_for} It is shown this once; only its hash is kept."));
    match json {
        true => Ok(()),
        false => to_output(writeln!(std::io::stdout().lock(), "{}", made.key)),
    }
}

/// A scope by its name, for the command line.
pub fn scope(name: &str) -> Result<Scope, String> {
    Scope::from_name(name)
        .ok_or_else(|| format!("expected one of {}", Scope::ALL.map(Scope::name).join(", ")))
}

/// A role by its name, for the command line.
pub fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| format!("expected one of {}", Role::ALL.map(Role::name).join(", ")))
}

/// The clock of the world, as keys count time.
pub fn seconds_since_1970(world: &World) -> u64 {
    world.clock.now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
