//! Tenants: the institutions, departments or services that share a server and must not see or slow each other. Each has
//! its keys and one policy; the command line and the administration routes both go through here.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::ServingError;
use crate::identity::TenantPolicy;
use crate::keys::{check_new_tenant_name, random_hex};
use crate::store::{Store, TenantRow};

/// The tenants of one state folder. A running server sees a change from the next request on.
pub struct TenantStore {
    store: Store,
}

/// What may be known of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TenantRecord {
    /// The pseudonym that stands in the audit log.
    pub id: String,
    pub name: String,
    /// Seconds since 1970.
    pub created_at: u64,
    pub removed_at: Option<u64>,
    pub policy: TenantPolicy,
}

impl TenantStore {
    /// Opens the tenants of a state folder, which is created (mode 0700) if it is not there.
    pub fn open(state_folder: &Path) -> Result<TenantStore, ServingError> {
        Ok(TenantStore { store: Store::open(state_folder)? })
    }

    /// Changes tenants from the command line, and leaves for the audit log what was done: both, or neither. `action` is
    /// such as `tenant_removed`, `target` gives the id of what was changed, `now` is in seconds since 1970.
    pub fn noting<T>(
        &self,
        now: u64,
        action: &str,
        change: impl FnOnce(&TenantStore) -> Result<T, ServingError>,
        target: impl FnOnce(&T) -> String,
    ) -> Result<T, ServingError> {
        self.store.noting(now, action, || change(self), target)
    }

    /// Makes a tenant with a policy. `now` is in seconds since 1970.
    pub fn new_tenant(
        &self,
        name: &str,
        policy: &TenantPolicy,
        now: u64,
    ) -> Result<TenantRecord, ServingError> {
        new_tenant(&self.store, &random_hex(8)?, name, policy, now)
    }

    /// All tenants by name, removed ones included.
    pub fn list(&self) -> Result<Vec<TenantRecord>, ServingError> {
        list(&self.store)
    }

    /// One tenant; a removed one is none.
    pub fn show(&self, name: &str) -> Result<TenantRecord, ServingError> {
        show(&self.store, name)
    }

    /// One tenant, a removed one too.
    pub fn find(&self, name: &str) -> Result<Option<TenantRecord>, ServingError> {
        Ok(self.store.tenant_named(name)?.map(TenantRecord::from))
    }

    /// Gives a tenant another policy.
    pub fn set_policy(&self, name: &str, policy: &TenantPolicy) -> Result<(), ServingError> {
        set_policy(&self.store, name, policy)
    }

    /// Removes a tenant for good: all its keys are revoked, its name stays taken.
    pub fn remove(&self, name: &str, now: u64) -> Result<(), ServingError> {
        remove(&self.store, name, now)
    }
}

/// See [`TenantStore::new_tenant`]; the same for a store that is open already, as all of these.
pub(crate) fn new_tenant(
    store: &Store,
    new_id: &str,
    name: &str,
    policy: &TenantPolicy,
    now: u64,
) -> Result<TenantRecord, ServingError> {
    check_new_tenant_name(name)?;
    policy.check()?;
    if !store.add_tenant(name, new_id, now, policy)? {
        return Err(ServingError::TenantTwice { name: name.to_string() });
    }
    show(store, name)
}

pub(crate) fn list(store: &Store) -> Result<Vec<TenantRecord>, ServingError> {
    Ok(store.tenants()?.into_iter().map(TenantRecord::from).collect())
}

pub(crate) fn show(store: &Store, name: &str) -> Result<TenantRecord, ServingError> {
    let tenant = store.tenant_named(name)?.filter(|tenant| tenant.removed_at.is_none());
    tenant.map(TenantRecord::from).ok_or_else(|| no_such_tenant(name))
}

pub(crate) fn set_policy(store: &Store, name: &str, policy: &TenantPolicy) -> Result<(), ServingError> {
    policy.check()?;
    if store.set_tenant_policy(name, policy)? { Ok(()) } else { Err(no_such_tenant(name)) }
}

pub(crate) fn remove(store: &Store, name: &str, now: u64) -> Result<(), ServingError> {
    if store.remove_tenant(name, now)? { Ok(()) } else { Err(no_such_tenant(name)) }
}

fn no_such_tenant(name: &str) -> ServingError {
    ServingError::NoSuchTenant { name: name.chars().take(100).collect() }
}

impl From<TenantRow> for TenantRecord {
    fn from(row: TenantRow) -> TenantRecord {
        TenantRecord {
            id: row.id,
            name: row.name,
            created_at: row.created_at,
            removed_at: row.removed_at,
            policy: row.policy,
        }
    }
}

impl TenantPolicy {
    /// The policy with one field changed, as `--set limits.tokens_per_minute=6000` has it: dots lead into groups, the value
    /// is JSON, or text where it is not; `null` takes a field back to its default. Whether the whole can hold shows when
    /// it is given to a tenant: of two fields that need each other, one comes first.
    pub fn with(&self, change: &str) -> Result<TenantPolicy, ServingError> {
        let trouble = |problem: String| ServingError::Policy { tenant: String::new(), problem };
        let Some((key, value)) = change.split_once('=') else {
            return Err(trouble(format!("`{change}`: expected KEY=VALUE, such as models=[\"name\"]")));
        };
        let mut whole = serde_json::to_value(self).map_err(|error| trouble(error.to_string()))?;
        let mut place = &mut whole;
        for part in key.split('.') {
            let Value::Object(fields) = place else {
                return Err(trouble(format!("`{key}`: `{part}` cannot stand there")));
            };
            place = fields.entry(part).or_insert(Value::Object(serde_json::Map::new()));
        }
        *place = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        let error = match serde_json::from_value(whole.clone()) {
            Ok(policy) => return Ok(policy),
            Err(error) => error,
        };
        // Where a list would do, most likely a shell took its quotes away, or one name was meant.
        let list = as_list(value);
        let as_list_it_holds = whole
            .pointer_mut(&format!("/{}", key.replace('.', "/")))
            .map(|place| *place = list.clone())
            .is_some_and(|()| serde_json::from_value::<TenantPolicy>(whole).is_ok());
        Err(trouble(if as_list_it_holds {
            format!(
                "`{change}`: expected a list in JSON, within quotes that the shell takes away: '{key}={list}'"
            )
        } else {
            format!("`{change}`: {error}")
        }))
    }
}

/// Names with commas between them, with or without brackets, as the list that is meant.
fn as_list(text: &str) -> Value {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let name = |name: &str| {
        name.trim_matches(|letter: char| letter.is_whitespace() || "\"'".contains(letter)).to_string()
    };
    inner.split(',').map(name).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_changed_by_named_fields() {
        let policy =
            TenantPolicy::default().with(r#"models=["klein"]"#).unwrap().with("filters=pii").unwrap();
        assert!(policy.allows_model("klein") && !policy.allows_model("groß"));
        assert!(policy.with(r#"models=["gro\u00df", "mode\u0300le"]"#).unwrap().allows_model("modèle"));
        assert_eq!(policy.filters.as_deref(), Some("pii"));
        assert_eq!(
            policy.with("models=null").unwrap().with("filters=null").unwrap(),
            TenantPolicy::default()
        );
        for wrong in
            ["models", "model=[]", "models=klein", "limits.nothing=1", "filters.a=1", "=1", "models.a=1"]
        {
            assert!(matches!(policy.with(wrong), Err(ServingError::Policy { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_list_that_is_none_is_answered_with_the_list_that_is_meant() {
        let message = |change: &str| TenantPolicy::default().with(change).unwrap_err().to_string();
        for (change, meant) in [
            ("models=klein", r#"'models=["klein"]'"#),
            ("models=[klein]", r#"'models=["klein"]'"#),
            ("models=[klein, 'groß']", r#"'models=["klein","groß"]'"#),
            ("models=klein,groß", r#"'models=["klein","groß"]'"#),
            ("models=7", r#"'models=["7"]'"#),
            ("audit.recipients=age1x", r#"'audit.recipients=["age1x"]'"#),
        ] {
            let message = message(change);
            assert!(message.contains(meant) && message.contains(change), "{message}");
        }
        assert!(message("limits.tokens_per_day=6k").contains("expected u64"));
    }

    #[test]
    fn tenants_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let tenants = TenantStore::open(&folder.path().join("state")).unwrap();
        let policy = TenantPolicy::default();
        let made = tenants.new_tenant("Občina", &policy, 5).unwrap();
        assert_eq!(tenants.show("Občina").unwrap(), made);
        assert!(matches!(tenants.new_tenant("Občina", &policy, 6), Err(ServingError::TenantTwice { .. })));
        assert!(matches!(tenants.new_tenant("a\nb", &policy, 6), Err(ServingError::BadName { .. })));
        // However the name is written.
        let apart = "Obc\u{30C}ina";
        assert_eq!(tenants.show(apart).unwrap(), made);
        assert!(matches!(tenants.new_tenant(apart, &policy, 6), Err(ServingError::TenantTwice { .. })));
        tenants.set_policy(apart, &policy.with("filters=streng").unwrap()).unwrap();
        assert_eq!(tenants.find("Občina").unwrap().unwrap().policy.filters.as_deref(), Some("streng"));
        assert_eq!(tenants.new_tenant("Zu\u{308}rich", &policy, 6).unwrap().name, "Zürich");
        tenants.remove(apart, 7).unwrap();
        assert!(matches!(tenants.show("Občina"), Err(ServingError::NoSuchTenant { .. })));
        assert!(matches!(tenants.set_policy("Občina", &policy), Err(ServingError::NoSuchTenant { .. })));
        assert_eq!(tenants.find(apart).unwrap().unwrap().removed_at, Some(7));
    }
}
