//! What is remembered of audit logs: their heads.

use rusqlite::params;

use super::{Store, at, signed, unsigned};
use crate::audit::{AuditHead, HeadSignature};
use crate::error::ServingError;

impl Store {
    /// Remembers how far the audit log has come.
    pub fn add_audit_head(&self, head: &AuditHead) -> Result<(), ServingError> {
        let (key, signature) = head.signature.as_ref().map(|by| (&by.key, &by.value)).unzip();
        self.connection()
            .execute(
                "INSERT INTO audit_heads (log, sequence, digest, recorded_at, time, key, signature)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6) ON CONFLICT (log, sequence) DO NOTHING",
                params![head.log, signed(head.sequence), head.digest, head.time, key, signature],
            )
            .map_err(at(&self.path, "recording the audit log's head"))?;
        Ok(())
    }

    /// Everything that is remembered of audit logs, oldest first within a log.
    pub fn audit_heads(&self) -> Result<Vec<AuditHead>, ServingError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached(
                "SELECT log, sequence, digest, time, key, signature FROM audit_heads ORDER BY log, sequence",
            )
            .map_err(at(&self.path, "reading the audit log's heads"))?;
        let rows = statement
            .query_map([], |row| {
                let (key, value): (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
                Ok(AuditHead {
                    log: row.get(0)?,
                    sequence: unsigned(row.get(1)?),
                    digest: row.get(2)?,
                    time: row.get(3)?,
                    signature: key.zip(value).map(|(key, value)| HeadSignature { key, value }),
                })
            })
            .map_err(at(&self.path, "reading the audit log's heads"))?;
        rows.collect::<Result<_, _>>().map_err(at(&self.path, "reading the audit log's heads"))
    }
}
