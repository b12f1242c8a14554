//! What the audit log keeps of one tenant's requests, as its policy holds it.

use serde::{Deserialize, Serialize};

/// What is kept of a tenant's requests, and how long.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditPolicy {}
