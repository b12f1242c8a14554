//! What was used, by tenant, key, model and day; and the limits of single keys.

use rusqlite::{OptionalExtension, params};

use super::{Store, at, signed, unsigned};
use crate::error::ServingError;
use crate::limits::policy::LimitsPolicy;

impl Store {
    /// Tokens of prompts and answers that a tenant has used on a day (days since 1970, UTC).
    pub fn tokens_of_tenant(&self, tenant: &str, day: u64) -> Result<u64, ServingError> {
        self.tokens_of("tenant_id", tenant, day)
    }

    /// As [`Store::tokens_of_tenant`], for one key.
    pub fn tokens_of_key(&self, key: &str, day: u64) -> Result<u64, ServingError> {
        self.tokens_of("key_id", key, day)
    }

    fn tokens_of(&self, column: &'static str, value: &str, day: u64) -> Result<u64, ServingError> {
        let connection = self.connection();
        let sql = format!(
            "SELECT COALESCE(SUM(prompt_tokens + completion_tokens), 0) FROM usage WHERE day = ?1 AND {column} = ?2"
        );
        let mut statement = connection.prepare_cached(&sql).map_err(at(&self.path, "reading usage"))?;
        statement
            .query_row(params![signed(day), value], |row| row.get(0))
            .map(unsigned)
            .map_err(at(&self.path, "reading usage"))
    }

    /// The limits of a key, where it has its own.
    pub fn key_limits(&self, key: &str) -> Result<Option<LimitsPolicy>, ServingError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT limits FROM key_limits WHERE key_id = ?1")
            .map_err(at(&self.path, "reading a key's limits"))?;
        let text: Option<String> = statement
            .query_row([key], |row| row.get(0))
            .optional()
            .map_err(at(&self.path, "reading a key's limits"))?;
        let malformed = |error: serde_json::Error| ServingError::StateFolder {
            path: self.path.clone(),
            problem: format!("the limits of key `{key}` cannot be read: {error}; set them anew"),
        };
        text.map(|text| serde_json::from_str(&text).map_err(malformed)).transpose()
    }

    /// Sets the limits of a key; `None` takes them away. `Ok(false)` if there is no such key.
    pub fn set_key_limits(&self, key: &str, limits: Option<&LimitsPolicy>) -> Result<bool, ServingError> {
        let connection = self.connection();
        let known: bool = connection
            .query_row("SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = ?1)", [key], |row| row.get(0))
            .map_err(at(&self.path, "setting a key's limits"))?;
        if !known {
            return Ok(false);
        }
        let done = match limits {
            None => connection.execute("DELETE FROM key_limits WHERE key_id = ?1", [key]),
            Some(limits) => connection.execute(
                "INSERT INTO key_limits (key_id, limits) VALUES (?1, ?2)
                 ON CONFLICT (key_id) DO UPDATE SET limits = excluded.limits",
                params![key, serde_json::to_string(limits).unwrap_or_else(|_| "{}".to_string())],
            ),
        };
        done.map_err(at(&self.path, "setting a key's limits"))?;
        Ok(true)
    }
}
