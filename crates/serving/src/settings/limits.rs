//! What tenants and keys may use where nothing else is said of them.

use serde::{Deserialize, Serialize};

use crate::error::ServingError;
use crate::limits::policy::LimitsPolicy;

/// `[limits.tenant]` and `[limits.key]`: the defaults; a tenant's policy and a key's own limits come before them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSettings {
    /// For each tenant, all its keys together.
    pub tenant: LimitsPolicy,
    /// For each key.
    pub key: LimitsPolicy,
}

impl LimitsSettings {
    pub(crate) fn check(&self) -> Result<(), ServingError> {
        self.tenant.check()?;
        self.key.check()
    }
}
