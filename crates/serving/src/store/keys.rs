//! The table of keys.

use rusqlite::{OptionalExtension, params};

use super::{Store, at, signed, unsigned};
use crate::error::ServingError;

/// One row of the table of keys, with its tenant's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    pub id: String,
    pub tenant_id: String,
    pub tenant_name: String,
    pub label: String,
    /// Hexadecimal.
    pub salt: String,
    /// Hexadecimal.
    pub digest: String,
    /// Seconds since 1970, as all times here.
    pub created_at: u64,
    pub expires_at: Option<u64>,
    pub revoked_at: Option<u64>,
    /// Name of a [`crate::identity::Role`].
    pub role: String,
    /// Names of scopes, with spaces between them, where the key has fewer than its role.
    pub scopes: Option<String>,
    /// The tenant's policy, as JSON.
    pub policy: String,
    /// Days since 1970; `None` for a key that never opened anything.
    pub last_used_day: Option<u64>,
    /// The key that this one came after.
    pub replaces: Option<String>,
}

impl Store {
    /// Adds a key. `Ok(false)` if its id is taken, or its tenant was removed or the key that it replaces revoked since somebody
    /// looked: what is taken away stays so, whatever was under way. If it replaces another, that one ends at `old_ends_at` at the latest, and
    /// its limits become those of the new key too.
    pub fn add_key(&self, key: &KeyRow, old_ends_at: u64) -> Result<bool, ServingError> {
        let mut connection = self.connection();
        let adding = || at(&self.path, "adding a key");
        // Within another transaction, or its own.
        let transaction = connection.savepoint().map_err(adding())?;
        let added = transaction
            .execute(
                "INSERT INTO api_keys (id, tenant_id, label, salt, digest, created_at, expires_at, revoked_at, role,
                                       scopes, replaces)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
                 WHERE EXISTS (SELECT 1 FROM tenants WHERE id = ?2 AND removed_at IS NULL)
                     AND (?11 IS NULL OR EXISTS (SELECT 1 FROM api_keys WHERE id = ?11 AND revoked_at IS NULL))
                 ON CONFLICT (id) DO NOTHING",
                params![
                    key.id,
                    key.tenant_id,
                    key.label,
                    key.salt,
                    key.digest,
                    signed(key.created_at),
                    key.expires_at.map(signed),
                    key.revoked_at.map(signed),
                    key.role,
                    key.scopes,
                    key.replaces
                ],
            )
            .map_err(adding())?;
        if let (1, Some(old)) = (added, &key.replaces) {
            transaction
                .execute(
                    "UPDATE api_keys SET expires_at = ?2 WHERE id = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
                    params![old, signed(old_ends_at)],
                )
                .map_err(adding())?;
            transaction
                .execute(
                    "INSERT INTO key_limits (key_id, limits) SELECT ?1, limits FROM key_limits WHERE key_id = ?2",
                    params![key.id, old],
                )
                .map_err(adding())?;
        }
        transaction.commit().map_err(adding())?;
        Ok(added == 1)
    }

    /// The key of that id.
    pub fn key(&self, id: &str) -> Result<Option<KeyRow>, ServingError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&format!("{SELECT_KEYS} WHERE api_keys.id = ?1"))
            .map_err(at(&self.path, "reading a key"))?;
        statement.query_row([id], key_row).optional().map_err(at(&self.path, "reading a key"))
    }

    /// All keys, oldest first.
    pub fn keys(&self) -> Result<Vec<KeyRow>, ServingError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(&format!("{SELECT_KEYS} ORDER BY api_keys.created_at, api_keys.id"))
            .map_err(at(&self.path, "listing keys"))?;
        let rows = statement.query_map([], key_row).map_err(at(&self.path, "listing keys"))?;
        rows.collect::<Result<_, _>>().map_err(at(&self.path, "listing keys"))
    }

    /// Gives a key another label or end. `Ok(false)` if there is no such key.
    pub fn change_key(
        &self,
        id: &str,
        label: Option<&str>,
        expires_at: Option<u64>,
    ) -> Result<bool, ServingError> {
        let changed = self
            .connection()
            .execute(
                "UPDATE api_keys SET label = COALESCE(?2, label), expires_at = COALESCE(?3, expires_at) WHERE id = ?1",
                params![id, label, expires_at.map(signed)],
            )
            .map_err(at(&self.path, "changing a key"))?;
        Ok(changed == 1)
    }

    /// Remembers the days on which keys were last used.
    pub fn note_used(&self, days: &[(String, u64)]) -> Result<(), ServingError> {
        let mut connection = self.connection();
        let noting = || at(&self.path, "noting the use of keys");
        let transaction = connection.transaction().map_err(noting())?;
        for (id, day) in days {
            transaction
                .execute("UPDATE api_keys SET last_used_day = ?2 WHERE id = ?1", params![id, signed(*day)])
                .map_err(noting())?;
        }
        transaction.commit().map_err(noting())
    }

    /// Revokes a key; one that is revoked already keeps its date. `Ok(false)` if there is no such key.
    pub fn revoke_key(&self, id: &str, now: u64) -> Result<bool, ServingError> {
        let changed = self
            .connection()
            .execute(
                "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, ?2) WHERE id = ?1",
                params![id, signed(now)],
            )
            .map_err(at(&self.path, "revoking a key"))?;
        Ok(changed == 1)
    }
}

const SELECT_KEYS: &str = "
    SELECT api_keys.id, api_keys.tenant_id, tenants.name, api_keys.label, api_keys.salt, api_keys.digest,
           api_keys.created_at, api_keys.expires_at, api_keys.revoked_at,
           api_keys.role, api_keys.scopes, tenants.policy, api_keys.last_used_day, api_keys.replaces
    FROM api_keys JOIN tenants ON tenants.id = api_keys.tenant_id";

fn key_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<KeyRow> {
    Ok(KeyRow {
        id: row.get(0)?,
        tenant_id: row.get(1)?,
        tenant_name: row.get(2)?,
        label: row.get(3)?,
        salt: row.get(4)?,
        digest: row.get(5)?,
        created_at: unsigned(row.get(6)?),
        expires_at: row.get::<_, Option<i64>>(7)?.map(unsigned),
        revoked_at: row.get::<_, Option<i64>>(8)?.map(unsigned),
        role: row.get(9)?,
        scopes: row.get(10)?,
        policy: row.get(11)?,
        last_used_day: row.get::<_, Option<i64>>(12)?.map(unsigned),
        replaces: row.get(13)?,
    })
}
