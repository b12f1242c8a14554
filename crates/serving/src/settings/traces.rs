//! Where spans of requests go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::at_least;
use crate::error::ServingError;

/// `[traces]`: a collector of OpenTelemetry that takes OTLP over HTTP. Needs the feature `opentelemetry`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesSettings {
    /// Its whole address, such as `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: String,
    /// A file with what stands in `Authorization`, such as `Bearer …`.
    #[serde(default)]
    pub authorization_file: Option<PathBuf>,
    /// Certificates (PEM) that the collector's must lead to; without it those that the operating system trusts.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// `http://` beyond loopback.
    #[serde(default)]
    pub allow_plain_http: bool,
    /// What this server is called there.
    #[serde(default = "service_name")]
    pub service_name: String,
    /// Spans that wait to be sent; further ones are dropped and counted.
    #[serde(default = "queue")]
    pub queue: usize,
}

fn service_name() -> String {
    "eulalia".to_string()
}

fn queue() -> usize {
    2_048
}

impl TracesSettings {
    /// Settings with every default.
    pub fn new(endpoint: &str) -> TracesSettings {
        TracesSettings {
            endpoint: endpoint.to_string(),
            authorization_file: None,
            ca: None,
            allow_plain_http: false,
            service_name: service_name(),
            queue: queue(),
        }
    }

    pub(super) fn check(&self) -> Result<(), ServingError> {
        at_least("traces.queue", self.queue as u64, 1)
    }
}
