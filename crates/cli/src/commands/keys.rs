//! `eulalia keys`: make, list and revoke the keys of a server.

use provenance::context::timestamp;
use serde_json::{Value, json};
use serving::{KeyStore, Role};

use crate::arguments::{KeysAction, KeysArguments};
use crate::console;
use crate::run::World;

/// Words go to standard error; the key itself to standard output, so that `KEY=$(eulalia keys new)` holds it.
pub fn keys(arguments: &KeysArguments, json: bool, world: &World) -> anyhow::Result<Value> {
    let now = seconds_since_1970(world);
    match &arguments.action {
        KeysAction::New { state, label, tenant, role, expires } => {
            let store = KeyStore::open(state)?;
            let expires_at = expires.map(|days| now.saturating_add(days.saturating_mul(86_400)));
            let made = store.new_key(tenant, label, *role, expires_at, now)?;
            world.console.say(&format!(
                "Key {} of tenant {tenant}. It is shown this once; only its hash is kept.",
                made.id
            ));
            if !json {
                println!("{}", made.key);
            }
            Ok(
                json!({ "id": made.id, "key": made.key, "tenant": tenant, "role": role, "expires_at": expires_at }),
            )
        }
        KeysAction::List { state } => {
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
                        timestamp(key.created_at),
                        date(key.expires_at),
                        date(key.revoked_at),
                    ]
                })
                .collect();
            let header = ["id", "tenant", "label", "role", "made", "expires", "revoked"];
            world.console.say(&console::table(&header, &rows, 7));
            Ok(json!({ "keys": keys }))
        }
        KeysAction::Revoke { id, state } => {
            KeyStore::open(state)?.revoke(id, now)?;
            world.console.say(&format!("Key {id} opens nothing any more."));
            Ok(json!({ "revoked": id }))
        }
    }
}

/// A role by its name, for the command line.
pub fn role(name: &str) -> Result<Role, String> {
    Role::from_name(name).ok_or_else(|| format!("expected one of {}", Role::ALL.map(Role::name).join(", ")))
}

/// The clock of the world, as keys count time.
pub fn seconds_since_1970(world: &World) -> u64 {
    world.clock.now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
