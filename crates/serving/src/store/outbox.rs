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

    /// Changes something and leaves for the audit log that the command line did: both, or neither. For a store that no
    /// other thread uses meanwhile. `now` is in seconds since 1970; `target` gives the id of what was changed.
    pub fn noting<T>(
        &self,
        now: u64,
        action: &str,
        change: impl FnOnce() -> Result<T, ServingError>,
        target: impl FnOnce(&T) -> String,
    ) -> Result<T, ServingError> {
        self.run("BEGIN IMMEDIATE")?;
        let changed = change().and_then(|changed| {
            let event = AuditEvent::new("administration")
                .with("by", "command line")
                .with("action", action)
                .with("target", target(&changed));
            self.note_for_audit(&event, now)?;
            self.run("COMMIT")?;
            Ok(changed)
        });
        if changed.is_err() {
            // Where this fails too, it is undone with the connection's end.
            let _ = self.run("ROLLBACK");
        }
        changed
    }

    fn run(&self, statement: &str) -> Result<(), ServingError> {
        self.connection().execute_batch(statement).map_err(at(&self.path, "changing and noting it"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::TenantPolicy;

    #[test]
    fn a_change_and_its_note_are_both_there_or_neither() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let store = Store::open(&state).unwrap();
        let add = |name: &'static str| store.add_tenant(name, name, 1, &TenantPolicy::default());
        store.noting(5, "tenant_created", || add("aa"), |_| "aa".to_string()).unwrap();
        // A change within the change has a transaction of its own.
        store.noting(6, "tenant_removed", || store.remove_tenant("aa", 6), |_| "aa".to_string()).unwrap();
        let failing = || {
            add("bb")?;
            store.remove_tenant("aa", 7)?;
            Err::<(), _>(ServingError::NoSuchTenant { name: "cc".to_string() })
        };
        let failed = store.noting(7, "tenant_changed", failing, |()| "bb".to_string());
        assert!(matches!(failed, Err(ServingError::NoSuchTenant { .. })), "{failed:?}");
        assert!(store.tenant_named("bb").unwrap().is_none() && store.tenant_named("aa").unwrap().is_some());
        let noted: Vec<String> =
            store.noted_for_audit().unwrap().into_iter().map(|(_, event)| event).collect();
        let expected = r#"{"event":"administration","by":"command line","action":"tenant_created","target":"aa","noted_at":"1970-01-01T00:00:05Z"}"#;
        assert_eq!((noted.len(), noted[0].as_str()), (2, expected));
        // Whoever goes away in the middle leaves nothing.
        store.run("BEGIN IMMEDIATE").unwrap();
        add("dd").unwrap();
        drop(store);
        let store = Store::open(&state).unwrap();
        assert!(store.tenant_named("dd").unwrap().is_none() && store.noted_for_audit().unwrap().len() == 2);
    }
}
