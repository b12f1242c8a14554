//! How connections are encrypted.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Certificate and key, as PEM files, and the oldest TLS that is spoken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    #[serde(default)]
    pub minimum: TlsVersion,
}

impl TlsSettings {
    /// TLS 1.3 with these files.
    pub fn new(certificate: PathBuf, private_key: PathBuf) -> TlsSettings {
        TlsSettings { certificate, private_key, minimum: TlsVersion::default() }
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
