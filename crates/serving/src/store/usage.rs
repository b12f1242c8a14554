//! What was used, by tenant, key, model and day; and the limits of single keys.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::{Store, at, signed, unsigned};
use crate::error::ServingError;
use crate::limits::policy::LimitsPolicy;

/// Who used which model when.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsedBy {
    /// Days since 1970 (UTC).
    pub day: u64,
    /// The tenant's pseudonym.
    pub tenant: String,
    pub key: String,
    /// Empty for what was refused before it named one.
    pub model: String,
}

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Requests that were not refused.
    pub requests: u64,
    pub refused: u64,
    pub prompt_tokens: u64,
    /// Of these, tokens that need not be computed again, where whoever computes says so.
    pub cached_tokens: u64,
    pub completion_tokens: u64,
    /// From arrival to end.
    pub milliseconds: u64,
}

/// One row of the table of usage, with the tenant's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    pub by: UsedBy,
    pub tenant_name: String,
    pub used: Used,
}

impl Store {
    /// Number of the last line of an audit log that usage includes.
    pub fn usage_counted(&self, log: &str) -> Result<u64, ServingError> {
        let connection = self.connection();
        let found: Option<i64> = connection
            .query_row("SELECT sequence FROM usage_settled WHERE log = ?1", [log], |row| row.get(0))
            .optional()
            .map_err(at(&self.path, "reading usage"))?;
        Ok(found.map_or(0, unsigned))
    }

    /// Adds sums of lines of an audit log, up to line `sequence`: all of it or nothing.
    pub fn add_usage(
        &self,
        log: &str,
        sequence: u64,
        sums: &BTreeMap<UsedBy, Used>,
    ) -> Result<(), ServingError> {
        let mut connection = self.connection();
        let writing = || at(&self.path, "writing usage");
        let transaction = connection.transaction().map_err(writing())?;
        for (by, used) in sums {
            let counts = [
                used.requests,
                used.refused,
                used.prompt_tokens,
                used.cached_tokens,
                used.completion_tokens,
                used.milliseconds,
            ]
            .map(signed);
            transaction
                .prepare_cached(
                    "INSERT INTO usage (day, tenant_id, key_id, model, requests, refused, prompt_tokens, cached_tokens,
                                        completion_tokens, milliseconds)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                     ON CONFLICT (day, tenant_id, key_id, model) DO UPDATE SET
                         requests = usage.requests + excluded.requests,
                         refused = usage.refused + excluded.refused,
                         prompt_tokens = usage.prompt_tokens + excluded.prompt_tokens,
                         cached_tokens = usage.cached_tokens + excluded.cached_tokens,
                         completion_tokens = usage.completion_tokens + excluded.completion_tokens,
                         milliseconds = usage.milliseconds + excluded.milliseconds",
                )
                .and_then(|mut statement| {
                    let [a, b, c, d, e, f] = counts;
                    statement.execute(params![signed(by.day), by.tenant, by.key, by.model, a, b, c, d, e, f])
                })
                .map_err(writing())?;
        }
        transaction
            .execute(
                "INSERT INTO usage_settled (log, sequence) VALUES (?1, ?2)
                 ON CONFLICT (log) DO UPDATE SET sequence = excluded.sequence",
                params![log, signed(sequence)],
            )
            .map_err(writing())?;
        transaction.commit().map_err(writing())
    }

    /// Usage of all tenants or of one, by its id or name, since a day; newest first, at most `most` rows.
    pub fn usage(
        &self,
        tenant: Option<&str>,
        since: u64,
        most: usize,
    ) -> Result<Vec<UsageRow>, ServingError> {
        let named = tenant.map(|name| self.tenant_named(name)).transpose()?.flatten();
        let tenant = named.as_ref().map(|named| named.id.as_str()).or(tenant);
        let connection = self.connection();
        let reading = || at(&self.path, "reading usage");
        let mut statement = connection
            .prepare_cached(
                "SELECT day, tenant_id, key_id, model, requests, refused, prompt_tokens, cached_tokens,
                        completion_tokens, milliseconds, COALESCE(tenants.name, tenant_id)
                 FROM usage LEFT JOIN tenants ON tenants.id = usage.tenant_id
                 WHERE day >= ?1 AND (?2 IS NULL OR tenant_id = ?2)
                 ORDER BY day DESC, tenant_id, key_id, model LIMIT ?3",
            )
            .map_err(reading())?;
        let rows = statement
            .query_map(params![signed(since), tenant, signed(most as u64)], |row| {
                let count = |column| row.get(column).map(unsigned);
                Ok(UsageRow {
                    by: UsedBy { day: count(0)?, tenant: row.get(1)?, key: row.get(2)?, model: row.get(3)? },
                    used: Used {
                        requests: count(4)?,
                        refused: count(5)?,
                        prompt_tokens: count(6)?,
                        cached_tokens: count(7)?,
                        completion_tokens: count(8)?,
                        milliseconds: count(9)?,
                    },
                    tenant_name: row.get(10)?,
                })
            })
            .map_err(reading())?;
        rows.collect::<Result<_, _>>().map_err(reading())
    }

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
