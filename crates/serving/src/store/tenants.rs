//! The table of tenants: whose keys there are, and what holds for each.

use rusqlite::{OptionalExtension, params};

use super::{Store, at, signed, unsigned};
use crate::error::ServingError;
use crate::identity::TenantPolicy;
use crate::spelling::{composed, decomposed};

/// One tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantRow {
    /// Random: what stands in the audit log in the name's place.
    pub id: String,
    pub name: String,
    /// Seconds since 1970, as all times here.
    pub created_at: u64,
    /// A removed tenant keeps its row, so that what the audit log says of it keeps its meaning; its keys open nothing.
    pub removed_at: Option<u64>,
    pub policy: TenantPolicy,
}

impl Store {
    /// The tenant of that name, created with `new_id` if there is none yet. Returns its id; `Err` if it was removed.
    pub fn tenant(&self, name: &str, new_id: &str, now: u64) -> Result<String, ServingError> {
        self.add_tenant(name, new_id, now, &TenantPolicy::default())?;
        let tenant = self.tenant_named(name)?.filter(|tenant| tenant.removed_at.is_none());
        tenant.map(|tenant| tenant.id).ok_or_else(|| ServingError::TenantRemoved { name: name.to_string() })
    }

    /// Adds a tenant, under the composed form of its name. `Ok(false)` if the name is taken in any spelling, be it by one that
    /// was removed.
    pub fn add_tenant(
        &self,
        name: &str,
        new_id: &str,
        now: u64,
        policy: &TenantPolicy,
    ) -> Result<bool, ServingError> {
        let added = self
            .connection()
            .execute(
                &format!(
                    "INSERT INTO tenants (id, name, created_at, policy) SELECT ?4, ?2, ?5, ?6
                     WHERE NOT EXISTS (SELECT 1 FROM tenants {NAMED}) ON CONFLICT (name) DO NOTHING"
                ),
                params![name, composed(name), decomposed(name), new_id, signed(now), policy_text(policy)?],
            )
            .map_err(at(&self.path, "adding a tenant"))?;
        Ok(added == 1)
    }

    /// The tenant of that name, a removed one included.
    pub fn tenant_named(&self, name: &str) -> Result<Option<TenantRow>, ServingError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&format!("{SELECT_TENANTS} {NAMED}"))
            .map_err(at(&self.path, "reading a tenant"))?;
        let row = statement
            .query_row(params![name, composed(name), decomposed(name)], tenant_row)
            .optional()
            .map_err(at(&self.path, "reading a tenant"))?;
        row.map(TenantRow::try_from).transpose()
    }

    /// All tenants by name, removed ones included.
    pub fn tenants(&self) -> Result<Vec<TenantRow>, ServingError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&format!("{SELECT_TENANTS} ORDER BY name"))
            .map_err(at(&self.path, "listing tenants"))?;
        let rows = statement.query_map([], tenant_row).map_err(at(&self.path, "listing tenants"))?;
        let rows: Vec<RawRow> = rows.collect::<Result<_, _>>().map_err(at(&self.path, "listing tenants"))?;
        rows.into_iter().map(TenantRow::try_from).collect()
    }

    /// Gives a tenant another policy; from the next request on it holds. `Ok(false)` if there is no such tenant.
    pub fn set_tenant_policy(&self, name: &str, policy: &TenantPolicy) -> Result<bool, ServingError> {
        let changed = self
            .connection()
            .execute(
                &format!(
                    "UPDATE tenants SET policy = ?4 WHERE removed_at IS NULL AND id = (SELECT id FROM tenants {NAMED})"
                ),
                params![name, composed(name), decomposed(name), policy_text(policy)?],
            )
            .map_err(at(&self.path, "changing a tenant"))?;
        Ok(changed == 1)
    }

    /// Removes a tenant and revokes its keys. `Ok(false)` if there is no such tenant.
    pub fn remove_tenant(&self, name: &str, now: u64) -> Result<bool, ServingError> {
        let mut connection = self.connection();
        let removing = || at(&self.path, "removing a tenant");
        // Within another transaction, or its own.
        let transaction = connection.savepoint().map_err(removing())?;
        transaction
            .execute(
                &format!(
                    "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, ?4)
                     WHERE tenant_id = (SELECT id FROM tenants {NAMED})"
                ),
                params![name, composed(name), decomposed(name), signed(now)],
            )
            .map_err(removing())?;
        let changed = transaction
            .execute(
                &format!(
                    "UPDATE tenants SET removed_at = ?4 WHERE removed_at IS NULL AND id = (SELECT id FROM tenants {NAMED})"
                ),
                params![name, composed(name), decomposed(name), signed(now)],
            )
            .map_err(removing())?;
        transaction.commit().map_err(removing())?;
        Ok(changed == 1)
    }
}

/// The one tenant that a name means: as it was given (?1), composed (?2), decomposed (?3). Names have been composed when they
/// are made only since there was a reason; of older ones each spelling may be a tenant of its own, and stays one.
const NAMED: &str = "WHERE name IN (?1, ?2, ?3) ORDER BY name = ?1 DESC, name = ?2 DESC LIMIT 1";

const SELECT_TENANTS: &str = "SELECT id, name, created_at, removed_at, policy FROM tenants";

/// A row whose policy is still text.
type RawRow = (String, String, u64, Option<u64>, String);

fn tenant_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<RawRow> {
    let created_at = unsigned(row.get(2)?);
    Ok((row.get(0)?, row.get(1)?, created_at, row.get::<_, Option<i64>>(3)?.map(unsigned), row.get(4)?))
}

impl TryFrom<RawRow> for TenantRow {
    type Error = ServingError;

    fn try_from((id, name, created_at, removed_at, policy): RawRow) -> Result<TenantRow, ServingError> {
        let policy = parse_policy(&id, &policy)?;
        Ok(TenantRow { id, name, created_at, removed_at, policy })
    }
}

/// A policy as it stands in the database. A policy that this program does not understand is an error, not one without
/// restrictions.
pub fn parse_policy(tenant: &str, text: &str) -> Result<TenantPolicy, ServingError> {
    serde_json::from_str(text)
        .map_err(|error| ServingError::Policy { tenant: tenant.to_string(), problem: error.to_string() })
}

fn policy_text(policy: &TenantPolicy) -> Result<String, ServingError> {
    serde_json::to_string(policy)
        .map_err(|error| ServingError::Policy { tenant: String::new(), problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        (folder, store)
    }

    #[test]
    fn a_tenant_keeps_its_policy() {
        let (_folder, store) = store();
        assert_eq!(store.tenant("Bibliothèque", "aa", 5).unwrap(), "aa");
        let policy = TenantPolicy { models: Some(vec!["klein".into()]), ..TenantPolicy::default() };
        assert!(store.set_tenant_policy("Bibliothèque", &policy).unwrap());
        assert!(!store.set_tenant_policy("Bücherei", &policy).unwrap());
        assert_eq!(store.tenant("Bibliothèque", "bb", 6).unwrap(), "aa");
        let row = store.tenant_named("Bibliothèque").unwrap().unwrap();
        assert_eq!((row.created_at, row.policy), (5, policy));
        assert_eq!(store.tenants().unwrap().len(), 1);
    }

    #[test]
    fn a_removed_tenant_does_not_come_back_by_its_name() {
        let (_folder, store) = store();
        store.tenant("Архив", "aa", 5).unwrap();
        assert!(store.remove_tenant("Архив", 6).unwrap());
        assert!(!store.remove_tenant("Архив", 7).unwrap());
        assert!(matches!(store.tenant("Архив", "bb", 8), Err(ServingError::TenantRemoved { .. })));
        assert_eq!(store.tenant_named("Архив").unwrap().unwrap().removed_at, Some(6));
    }

    #[test]
    fn names_of_older_databases_are_tenants_as_before() {
        let (_folder, store) = store();
        let old = |id: &str, name: &str| {
            let row = "INSERT INTO tenants (id, name, created_at) VALUES (?1, ?2, 1)";
            store.connection().execute(row, [id, name]).unwrap();
        };
        let id_of = |name: &str| store.tenant_named(name).unwrap().map(|tenant| tenant.id);
        // One that was written apart, and two that differ in nothing else.
        old("aa", "Me\u{301}diathe\u{300}que");
        old("bb", "E\u{301}cole");
        old("cc", "École");
        for (name, id) in [
            ("Médiathèque", "aa"),
            ("Me\u{301}diathe\u{300}que", "aa"),
            ("Mé\u{64}iathe\u{300}que", "aa"),
            ("E\u{301}cole", "bb"),
            ("École", "cc"),
        ] {
            assert_eq!(id_of(name).as_deref(), Some(id), "{name}");
            assert_eq!(store.tenant(name, "new", 2).unwrap(), id, "{name}");
        }
        let policy = TenantPolicy { filters: Some("streng".into()), ..TenantPolicy::default() };
        assert!(store.set_tenant_policy("Médiathèque", &policy).unwrap());
        assert_eq!(store.tenant_named("Me\u{301}diathe\u{300}que").unwrap().unwrap().policy, policy);
        assert!(store.remove_tenant("E\u{301}cole", 3).unwrap());
        assert!(store.tenant_named("École").unwrap().unwrap().removed_at.is_none());
    }

    #[test]
    fn a_policy_that_is_not_understood_is_no_free_pass() {
        for text in ["", r#"{"models": 1}"#, r#"{"model": []}"#, r#"{"limits": {"x": 1}}"#] {
            assert!(matches!(parse_policy("aa", text), Err(ServingError::Policy { .. })), "{text}");
        }
        assert_eq!(parse_policy("aa", "{}").unwrap(), TenantPolicy::default());
    }
}
