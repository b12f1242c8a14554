//! What holds for all requests of one tenant. Stands as JSON in the table of tenants; every field has a default, so that a
//! tenant without a policy is one that is not restricted.

use serde::{Deserialize, Serialize};

use crate::audit_policy::AuditPolicy;
use crate::error::ServingError;
use crate::limits::policy::LimitsPolicy;
use crate::spelling::is_same;

/// The policy of one tenant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantPolicy {
    /// Names of the models that the tenant sees and may ask; without a list, all of them.
    pub models: Option<Vec<String>>,
    pub limits: LimitsPolicy,
    pub audit: AuditPolicy,
    /// Name of the chain of filters that its prompts and answers pass; without one, the server's own.
    pub filters: Option<String>,
}

impl TenantPolicy {
    /// Refuses what cannot hold, naming the field.
    pub fn check(&self) -> Result<(), ServingError> {
        self.limits.check()?;
        self.audit.check()
    }

    /// Whether the tenant may know of the model of that name.
    pub fn allows_model(&self, name: &str) -> bool {
        self.models.as_ref().is_none_or(|models| models.iter().any(|model| is_same(model, name)))
    }
}
