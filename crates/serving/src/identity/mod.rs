//! Who asks, and what they may: tenants, roles and scopes.
//!
//! Every credential belongs to one tenant and has one role. A role is a set of scopes; a credential may be narrowed to
//! fewer of them, never widened. A route names the scope that it asks for (see `routes`).

mod address;
pub mod certificates;
mod jwks;
pub mod oidc;
mod policy;
mod throttle;
mod token;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use address::client_address;
pub use jwks::Algorithm;
pub use policy::TenantPolicy;
pub use throttle::{Throttle, network};

/// One thing that a credential may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// See which models there are, and ask them: completions, chats, embeddings, tokens.
    #[serde(rename = "inference")]
    Inference,
    /// See whether the server is ready and how busy it is.
    #[serde(rename = "status")]
    Status,
    /// Read the metrics.
    #[serde(rename = "metrics")]
    Metrics,
    /// Read audit log and usage of all tenants.
    #[serde(rename = "audit")]
    Audit,
    /// Reload, drain, take backups.
    #[serde(rename = "operate")]
    Operate,
    /// Make, change and revoke keys and tenants.
    #[serde(rename = "administer")]
    Administer,
}

impl Scope {
    /// All of them, in the order of the documentation.
    pub const ALL: [Scope; 6] =
        [Scope::Inference, Scope::Status, Scope::Metrics, Scope::Audit, Scope::Operate, Scope::Administer];

    /// As it stands in files, on the command line and in answers.
    pub fn name(self) -> &'static str {
        match self {
            Scope::Inference => "inference",
            Scope::Status => "status",
            Scope::Metrics => "metrics",
            Scope::Audit => "audit",
            Scope::Operate => "operate",
            Scope::Administer => "administer",
        }
    }

    /// The scope of that name.
    pub fn from_name(name: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.name() == name)
    }
}

/// What a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// Runs the server: status, metrics, reload; sees no audit log and makes no keys.
    Operator,
    /// Asks models.
    User,
    /// Reads audit log and usage; asks nothing.
    Auditor,
    /// Reads metrics: for a monitoring system.
    Metrics,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 5] = [Role::Admin, Role::Operator, Role::User, Role::Auditor, Role::Metrics];

    /// As it stands in files, on the command line and in answers.
    pub fn name(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Operator => "operator",
            Role::User => "user",
            Role::Auditor => "auditor",
            Role::Metrics => "metrics",
        }
    }

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    /// What holders of this role may do.
    pub fn scopes(self) -> Scopes {
        match self {
            Role::Admin => Scopes::of(&Scope::ALL),
            Role::Operator => Scopes::of(&[Scope::Status, Scope::Metrics, Scope::Operate]),
            Role::User => Scopes::of(&[Scope::Inference, Scope::Status]),
            Role::Auditor => Scopes::of(&[Scope::Audit, Scope::Status]),
            Role::Metrics => Scopes::of(&[Scope::Metrics]),
        }
    }
}

/// A set of scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// These scopes and no others.
    pub fn of(scopes: &[Scope]) -> Scopes {
        Scopes(scopes.iter().fold(0, |bits, &scope| bits | 1 << scope as u8))
    }

    /// Whether this one is among them.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// The scopes of both.
    pub fn and(self, other: Scopes) -> Scopes {
        Scopes(self.0 & other.0)
    }

    /// Their names with spaces between them, as the database has them.
    pub fn names(self) -> String {
        self.iter().map(Scope::name).collect::<Vec<_>>().join(" ")
    }

    /// The scopes, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |&scope| self.contains(scope))
    }
}

/// Who asks: the owner of the credential that came with a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// The tenant's pseudonym: random, means something only together with the state database.
    pub tenant: String,
    /// What names the credential in lists and logs: a key's public id.
    pub key_id: String,
    pub role: Role,
    /// The role's scopes, or fewer.
    pub scopes: Scopes,
    /// What holds for all requests of the tenant.
    pub policy: Arc<TenantPolicy>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_hold_what_their_names_say() {
        assert!(Role::Admin.scopes().iter().eq(Scope::ALL));
        assert!(!Role::Operator.scopes().contains(Scope::Audit));
        assert!(!Role::Auditor.scopes().contains(Scope::Inference));
        assert!(Role::Metrics.scopes().iter().eq([Scope::Metrics]));
        let narrowed = Role::User.scopes().and(Scopes::of(&[Scope::Inference, Scope::Administer]));
        assert!(narrowed.iter().eq([Scope::Inference]));
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        for scope in Scope::ALL {
            assert_eq!(Scope::from_name(scope.name()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
        }
    }
}
