//! What is remembered of audit logs: their heads.

use rusqlite::params;

use super::{Store, at, signed, unsigned};
use crate::error::ServingError;

/// The last line of the audit log at some moment: what a later, shorter log is caught by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditHead {
    pub log: String,
    pub sequence: u64,
    pub digest: String,
}

impl Store {
    /// Remembers how far the audit log has come.
    pub fn record_audit_head(&self, head: &AuditHead, now: u64) -> Result<(), ServingError> {
        self.connection()
            .execute(
                "INSERT INTO audit_heads (log, sequence, digest, recorded_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (log, sequence) DO NOTHING",
                params![head.log, signed(head.sequence), head.digest, signed(now)],
            )
            .map_err(at(&self.path, "recording the audit log's head"))?;
        Ok(())
    }

    /// Everything that is remembered of audit logs, oldest first within a log.
    pub fn audit_heads(&self) -> Result<Vec<AuditHead>, ServingError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT log, sequence, digest FROM audit_heads ORDER BY log, sequence")
            .map_err(at(&self.path, "reading the audit log's heads"))?;
        let rows = statement
            .query_map([], |row| {
                Ok(AuditHead { log: row.get(0)?, sequence: unsigned(row.get(1)?), digest: row.get(2)? })
            })
            .map_err(at(&self.path, "reading the audit log's heads"))?;
        rows.collect::<Result<_, _>>().map_err(at(&self.path, "reading the audit log's heads"))
    }
}
