//! Tokens of an OpenID Connect issuer: whose are taken, and what they permit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::at_least;
use crate::error::ServingError;
use crate::identity::{Algorithm, Role};

/// One issuer. Either its keys are fetched from `jwks_url`, or they stand in `jwks_file`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// Exactly as tokens have it in `iss`.
    pub issuer: String,
    /// What tokens for this server have in `aud`.
    pub audience: String,
    /// Where the issuer publishes its keys; https, or http on loopback.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The issuer's keys as a file, for a server that reaches no issuer.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// Certificates (PEM) to trust for `jwks_url`; without them, those of the system.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    #[serde(default = "algorithms")]
    pub algorithms: Vec<Algorithm>,
    /// By how much the issuer's clock and ours may differ.
    #[serde(default = "clock_skew_seconds")]
    pub clock_skew_seconds: u64,
    /// How often keys are read again.
    #[serde(default = "refresh_seconds")]
    pub refresh_seconds: u64,
    /// For how long known keys hold while the issuer cannot be reached.
    #[serde(default = "stale_seconds")]
    pub stale_seconds: u64,
    /// The claim that says whose tenant; points lead into objects.
    #[serde(default)]
    pub tenant_claim: Option<String>,
    /// Names of tenants by what the claim says; without any, it says the name itself.
    #[serde(default)]
    pub tenants: BTreeMap<String, String>,
    /// The tenant of tokens whose claim says nothing.
    #[serde(default)]
    pub default_tenant: Option<String>,
    /// The claim that says which roles; points lead into objects.
    #[serde(default)]
    pub role_claim: Option<String>,
    /// Roles by what the claim says; what is not named here permits nothing.
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
    /// The role of tokens whose claim names none of those.
    #[serde(default)]
    pub default_role: Option<Role>,
}

fn algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA]
}

fn clock_skew_seconds() -> u64 {
    60
}

fn refresh_seconds() -> u64 {
    3_600
}

fn stale_seconds() -> u64 {
    86_400
}

impl OidcSettings {
    /// Refuses what cannot work or would be unsafe, naming the setting.
    pub fn check(&self) -> Result<(), ServingError> {
        let wrong = |key, expected: &str, found: &str| {
            Err(ServingError::Setting { key, expected: expected.to_string(), found: found.to_string() })
        };
        if self.issuer.is_empty() || self.audience.is_empty() {
            return wrong("oidc.issuer, oidc.audience", "both", "nothing");
        }
        match (&self.jwks_url, &self.jwks_file) {
            (Some(url), None) if !is_fetched_safely(url) => {
                return wrong("oidc.jwks_url", "https, or http on 127.0.0.1, [::1] or localhost", url);
            }
            (Some(_), None) | (None, Some(_)) => {}
            _ => return wrong("oidc.jwks_url, oidc.jwks_file", "one of them", "both or none"),
        }
        if self.algorithms.is_empty() {
            return wrong("oidc.algorithms", "at least one", "none");
        }
        if self.tenant_claim.is_none() && self.default_tenant.is_none() {
            return wrong("oidc.tenant_claim, oidc.default_tenant", "at least one of them", "none");
        }
        if self.roles.is_empty() && self.default_role.is_none() {
            return wrong("oidc.roles, oidc.default_role", "at least one of them", "none");
        }
        if self.role_claim.is_none() && !self.roles.is_empty() {
            return wrong("oidc.role_claim", "the claim that `oidc.roles` is about", "none");
        }
        if self.clock_skew_seconds > 600 {
            let found = self.clock_skew_seconds.to_string();
            return wrong("oidc.clock_skew_seconds", "at most 600", &found);
        }
        at_least("oidc.refresh_seconds", self.refresh_seconds, 1)?;
        at_least("oidc.stale_seconds", self.stale_seconds, self.refresh_seconds)
    }
}

/// Whether nobody in between can put keys of their own into the answer.
fn is_fetched_safely(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let host = host.map_or(authority, |(host, _)| host);
    match scheme {
        _ if authority.contains('@') => false,
        "https" => !host.is_empty(),
        "http" => ["127.0.0.1", "[::1]", "localhost"].contains(&host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for (url, safe) in [
            ("https://login.example/keys", true),
            ("https://login.example:8443/keys", true),
            ("http://127.0.0.1:8080/keys", true),
            ("http://[::1]:8080/keys", true),
            ("http://localhost/keys", true),
            ("http://login.example/keys", false),
            ("http://127.0.0.1.evil.example/keys", false),
            ("http://127.0.0.1@evil.example/keys", false),
            ("https://user:word@login.example/keys", false),
            ("file:///etc/keys", false),
            ("login.example/keys", false),
        ] {
            assert_eq!(is_fetched_safely(url), safe, "{url}");
        }
    }
}
