//! How connections are encrypted.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::ServingError;
use crate::identity::Role;

/// Certificate and key, as PEM files, and the oldest TLS that is spoken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    #[serde(default)]
    pub minimum: TlsVersion,
    /// Whether clients show certificates too.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
    /// Who signs the certificates of clients (PEM).
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Lists of revoked certificates (PEM). With any, a client whose issuer has no list, or an outdated one, is refused.
    #[serde(default)]
    pub client_crls: Vec<PathBuf>,
    /// Who the holders of certificates are; the first rule that fits counts.
    #[serde(default)]
    pub clients: Vec<ClientIdentity>,
}

/// Whether clients show certificates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not asked.
    #[default]
    None,
    /// Who shows one is known by it; others need a key or a token.
    Optional,
    /// Nobody connects without one, not even to `/healthz`.
    Required,
}

/// The holder of a certificate with this fingerprint, or this name, or both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientIdentity {
    /// SHA-256 of the certificate in DER, in hexadecimal, as `openssl x509 -fingerprint -sha256` prints it.
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// A DNS name or a URI among its alternative names.
    #[serde(default)]
    pub san: Option<String>,
    /// Name of a tenant that there is.
    pub tenant: String,
    pub role: Role,
}

impl TlsSettings {
    /// TLS 1.3 with these files.
    pub fn new(certificate: PathBuf, private_key: PathBuf) -> TlsSettings {
        TlsSettings {
            certificate,
            private_key,
            minimum: TlsVersion::default(),
            client_certificates: ClientCertificates::default(),
            client_ca: None,
            client_crls: Vec::new(),
            clients: Vec::new(),
        }
    }

    /// Refuses rules that would hold for everyone, and certificates that nothing could verify.
    pub fn check(&self) -> Result<(), ServingError> {
        let wrong = |key, expected: &str, found: &str| {
            Err(ServingError::Setting { key, expected: expected.to_string(), found: found.to_string() })
        };
        let asked = self.client_certificates != ClientCertificates::None;
        if asked != self.client_ca.is_some() {
            let expected = "both, or neither, of `client_certificates` and `client_ca`";
            return wrong("tls.client_ca", expected, "one of them");
        }
        let unused = self.clients.is_empty() && self.client_crls.is_empty();
        if !asked && !unused {
            return wrong("tls.clients, tls.client_crls", "none without `client_certificates`", "some");
        }
        for rule in &self.clients {
            let digits = |text: &String| text.bytes().filter(u8::is_ascii_hexdigit).count();
            match (&rule.fingerprint, &rule.san) {
                (None, None) => return wrong("tls.clients", "`fingerprint` or `san` in each", "neither"),
                (Some(fingerprint), _) if digits(fingerprint) != 64 => {
                    return wrong("tls.clients.fingerprint", "64 hexadecimal digits", fingerprint);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// For clients that know no better.
    #[serde(rename = "1.2")]
    Tls12,
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
}
