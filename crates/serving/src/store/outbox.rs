//! Events that other processes leave for the audit log: `eulalia keys new` beside a running server, or before its start.
//! The server, which alone writes the log, moves them there.

use rusqlite::params;

use super::{Store, at, signed};
use crate::audit::AuditEvent;
use crate::error::ServingError;
use crate::keys::random_hex;

/// Most events that are moved at once.
const MOVED_AT_ONCE: i64 = 500;

impl Store {
    /// Leaves an event for the audit log. `now` is in seconds since 1970; the event's line has it as `noted_at`.
    pub fn note_for_audit(&self, event: &AuditEvent, now: u64) -> Result<(), ServingError> {
        let event = event.clone().with("noted_at", provenance::context::timestamp(now));
        self.connection()
            .execute(
                "INSERT INTO audit_outbox (id, noted_at, event) VALUES (?1, ?2, ?3)",
                params![random_hex(12)?, signed(now), event.text()],
            )
            .map_err(at(&self.path, "noting an event for the audit log"))?;
        Ok(())
    }

    /// The oldest events that wait, each with its id.
    pub fn noted_for_audit(&self) -> Result<Vec<(String, String)>, ServingError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT id, event FROM audit_outbox ORDER BY noted_at, id LIMIT ?1")
            .map_err(at(&self.path, "reading events for the audit log"))?;
        let rows = statement
            .query_map([MOVED_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(at(&self.path, "reading events for the audit log"))?;
        rows.collect::<Result<_, _>>().map_err(at(&self.path, "reading events for the audit log"))
    }

    /// Forgets an event that is in the log.
    pub fn forget_noted(&self, id: &str) -> Result<(), ServingError> {
        self.connection()
            .execute("DELETE FROM audit_outbox WHERE id = ?1", [id])
            .map_err(at(&self.path, "forgetting an event for the audit log"))?;
        Ok(())
    }
}
