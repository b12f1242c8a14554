//! How the audit log is kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::retention::RetentionSettings;
use crate::error::ServingError;

/// Prompt and answers together are read back as one file of less than 64 MiB, with room for what JSON escapes.
const MOST_CONTENT_KIBIBYTES: u64 = 4_096;

/// Settings of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// When a line counts as written.
    pub durability: Durability,
    /// A new segment begins each day, and when one has grown beyond this, in MiB.
    pub segment_mebibytes: u64,
    /// A head is signed after so many lines,
    pub head_lines: u64,
    /// or after so many seconds, if there are new lines.
    pub head_seconds: u64,
    /// Most of a prompt, and of all answers to it together, that is kept where a tenant's policy asks, in KiB. What is
    /// beyond is cut off.
    pub content_kibibytes: u64,
    /// How long each kind of event stays.
    pub retention: RetentionSettings,
}

/// When a line of the audit log counts as written, so that the answer of its request may end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When the disk has it: a power cut loses no line of a request that was answered.
    #[default]
    Synced,
    /// When the operating system has it: the end of the program loses nothing, a power cut the last seconds.
    Written,
}

impl Default for AuditSettings {
    fn default() -> Self {
        AuditSettings {
            durability: Durability::Synced,
            segment_mebibytes: 64,
            head_lines: 10_000,
            head_seconds: 300,
            content_kibibytes: 1_024,
            retention: RetentionSettings::default(),
        }
    }
}

impl AuditSettings {
    pub(super) fn check(&self) -> Result<(), ServingError> {
        self.retention.check()?;
        super::at_least("audit.segment_mebibytes", self.segment_mebibytes, 1)?;
        super::at_least("audit.head_lines", self.head_lines, 1)?;
        super::at_least("audit.head_seconds", self.head_seconds, 1)?;
        super::at_least("audit.content_kibibytes", self.content_kibibytes, 1)?;
        if self.content_kibibytes > MOST_CONTENT_KIBIBYTES {
            return Err(ServingError::Setting {
                key: "audit.content_kibibytes",
                expected: format!("at most {MOST_CONTENT_KIBIBYTES}"),
                found: self.content_kibibytes.to_string(),
            });
        }
        Ok(())
    }

    pub(crate) fn content_bytes(&self) -> usize {
        usize::try_from(self.content_kibibytes << 10).unwrap_or(usize::MAX)
    }

    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_mebibytes.saturating_mul(1 << 20)
    }

    pub(crate) fn head_time(&self) -> Duration {
        Duration::from_secs(self.head_seconds)
    }
}
