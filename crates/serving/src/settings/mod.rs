//! What the operator decides: address, certificates, models, limits. Plain TOML, one file for all of it; checked before
//! anything is opened.

mod audit;
mod limits;
mod log;
mod model;
mod oidc;
mod retention;
mod signatures;
mod throttle;
mod tls;
mod traces;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::ServingError;
use crate::limits::share_of_one;
use crate::upstream::UpstreamSettings;

pub use audit::{AuditSettings, Durability};
pub use limits::LimitsSettings;
pub use log::{LogFormat, LogLevel, LogSettings};
pub use model::ModelSettings;
pub use oidc::OidcSettings;
pub use retention::RetentionSettings;
pub use signatures::SignatureSettings;
pub use throttle::{Network, ThrottleSettings};
pub use tls::{ClientCertificates, ClientIdentity, TlsSettings, TlsVersion};
pub use traces::TracesSettings;

/// Settings of the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeSettings {
    /// Folder of the server's state: keys, tenants, audit log.
    pub state: PathBuf,
    /// Models to load, each under a name.
    pub models: Vec<ModelSettings>,
    /// Who must have signed them.
    pub signatures: SignatureSettings,
    /// Where to listen. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Certificate and key; without them the server speaks plain HTTP, and on loopback only.
    pub tls: Option<TlsSettings>,
    /// Plain HTTP beyond loopback, because something in front of this server encrypts.
    pub allow_plain_http: bool,
    /// Longest request body.
    pub body_limit_bytes: usize,
    /// Longest request line and headers together.
    pub header_limit_bytes: usize,
    /// For a TLS handshake and for the headers of a request; also how long an idle connection is kept.
    pub header_seconds: u64,
    /// For the body of a request.
    pub body_seconds: u64,
    /// How long a client may leave its answer unread before it is cut off.
    pub stalled_client_seconds: u64,
    /// Longest time from a request's arrival to the end of its answer.
    pub request_seconds: u64,
    /// Connections at once; others wait to be accepted.
    pub maximum_connections: usize,
    /// Of these, from one address. A proxy in front of the server is one address.
    pub maximum_connections_per_address: usize,
    /// Requests at once over one HTTP/2 connection.
    pub maximum_streams: u32,
    /// Answers that one request may ask for: prompts times `n`.
    pub maximum_choices: usize,
    /// A second socket, in plain HTTP, that says `/healthz` and `/readyz` to everyone and nothing else: for the probes of
    /// a supervisor, which have no credential.
    pub operations_address: Option<SocketAddr>,
    /// How long the server, asked to stop, still accepts connections while `/readyz` says that it is going: time for a
    /// load balancer to notice.
    pub drain_grace_seconds: u64,
    /// How long requests may still run after the server was asked to stop.
    pub drain_seconds: u64,
    /// What the log says and how.
    pub log: LogSettings,
    /// How the audit log is kept.
    pub audit: AuditSettings,
    /// Proxies that are believed about where a request comes from (`X-Forwarded-For`); nobody else is.
    pub trusted_proxies: Vec<Network>,
    /// How many wrong credentials are too many.
    pub throttle: ThrottleSettings,
    /// Whose tokens are taken besides keys.
    pub oidc: Option<OidcSettings>,
    /// What tenants and keys may use where nothing else is said of them.
    pub limits: LimitsSettings,
    /// Engines that run elsewhere, whose models are served here.
    pub upstreams: Vec<UpstreamSettings>,
    /// What is looked for in requests and answers.
    pub filters: filters::Settings,
    /// Where spans of requests go.
    pub traces: Option<TracesSettings>,
}

impl Default for ServeSettings {
    fn default() -> Self {
        ServeSettings {
            state: PathBuf::from("eulalia-state"),
            models: Vec::new(),
            signatures: SignatureSettings::default(),
            address: SocketAddr::from(([127, 0, 0, 1], 8480)),
            tls: None,
            allow_plain_http: false,
            body_limit_bytes: 4 << 20,
            header_limit_bytes: 32 << 10,
            header_seconds: 10,
            body_seconds: 30,
            stalled_client_seconds: 30,
            request_seconds: 600,
            maximum_connections: 512,
            maximum_connections_per_address: 256,
            maximum_streams: 64,
            maximum_choices: 16,
            operations_address: None,
            drain_grace_seconds: 0,
            drain_seconds: 30,
            log: LogSettings::default(),
            audit: AuditSettings::default(),
            trusted_proxies: Vec::new(),
            throttle: ThrottleSettings::default(),
            oidc: None,
            limits: LimitsSettings::default(),
            upstreams: Vec::new(),
            filters: filters::Settings::default(),
            traces: None,
        }
    }
}

impl ServeSettings {
    /// Reads a file. Paths in it start at its folder.
    pub fn from_file(path: &Path) -> Result<ServeSettings, ServingError> {
        let trouble = |problem: String| ServingError::SettingsFile { path: path.to_path_buf(), problem };
        let text = std::fs::read_to_string(path).map_err(|error| trouble(error.to_string()))?;
        let mut settings: ServeSettings =
            toml::from_str(&text).map_err(|error| trouble(error.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let resolve = |path: &mut PathBuf| *path = folder.join(&*path);
        resolve(&mut settings.state);
        settings.models.iter_mut().flat_map(ModelSettings::files_mut).for_each(resolve);
        settings.signatures.trusted_keys.iter_mut().for_each(resolve);
        settings.upstreams.iter_mut().for_each(|upstream| upstream.resolve(folder));
        settings.filters.files_mut().for_each(resolve);
        if let Some(tls) = &mut settings.tls {
            resolve(&mut tls.certificate);
            resolve(&mut tls.private_key);
            tls.client_ca.iter_mut().chain(&mut tls.client_crls).for_each(resolve);
        }
        if let Some(oidc) = &mut settings.oidc {
            oidc.jwks_file.iter_mut().chain(&mut oidc.ca).for_each(resolve);
        }
        if let Some(traces) = &mut settings.traces {
            traces.authorization_file.iter_mut().chain(&mut traces.ca).for_each(resolve);
        }
        Ok(settings)
    }

    /// Refuses what cannot work or would be unsafe, naming the setting.
    pub fn check(&self) -> Result<(), ServingError> {
        if self.tls.is_none() && !self.allow_plain_http && !self.address.ip().is_loopback() {
            return Err(ServingError::PlainHttpBeyondLoopback { address: self.address });
        }
        self.audit.check()?;
        self.limits.check()?;
        self.throttle.check()?;
        self.tls.as_ref().map_or(Ok(()), TlsSettings::check)?;
        self.oidc.as_ref().map_or(Ok(()), OidcSettings::check)?;
        self.traces.as_ref().map_or(Ok(()), TracesSettings::check)?;
        at_least("body_limit_bytes", self.body_limit_bytes as u64, 1 << 10)?;
        // hyper needs 8 KiB to read a request at all.
        at_least("header_limit_bytes", self.header_limit_bytes as u64, 8 << 10)?;
        at_least("header_seconds", self.header_seconds, 1)?;
        at_least("body_seconds", self.body_seconds, 1)?;
        at_least("stalled_client_seconds", self.stalled_client_seconds, 1)?;
        at_least("request_seconds", self.request_seconds, 1)?;
        at_least("maximum_connections", self.maximum_connections as u64, 1)?;
        at_least("maximum_connections_per_address", self.maximum_connections_per_address as u64, 1)?;
        at_least("maximum_streams", u64::from(self.maximum_streams), 1)?;
        at_least("maximum_choices", self.maximum_choices as u64, 1)?;
        for (key, seconds) in [
            ("header_seconds", self.header_seconds),
            ("body_seconds", self.body_seconds),
            ("stalled_client_seconds", self.stalled_client_seconds),
            ("request_seconds", self.request_seconds),
            ("drain_grace_seconds", self.drain_grace_seconds),
            ("drain_seconds", self.drain_seconds),
            ("audit.head_seconds", self.audit.head_seconds),
        ] {
            at_most(key, seconds, LONGEST_SECONDS)?;
        }
        at_most("maximum_connections", self.maximum_connections as u64, MOST_CONNECTIONS)
    }

    /// What tenants and keys may use where nothing else is said of them. Even where the settings say nothing, one tenant
    /// does not take all that there is: it has at most three quarters of `maximum_connections` as requests at once, and
    /// each key half.
    pub(crate) fn limits_in_force(&self) -> LimitsSettings {
        let all = self.maximum_connections as u64;
        let mut limits = self.limits.clone();
        limits.tenant.concurrent_requests.get_or_insert(share_of_one(all));
        limits.key.concurrent_requests.get_or_insert(all.div_ceil(2));
        limits
    }

    pub(crate) fn header_time(&self) -> Duration {
        Duration::from_secs(self.header_seconds)
    }

    pub(crate) fn body_time(&self) -> Duration {
        Duration::from_secs(self.body_seconds)
    }

    pub(crate) fn stalled_client_time(&self) -> Duration {
        Duration::from_secs(self.stalled_client_seconds)
    }

    pub(crate) fn request_time(&self) -> Duration {
        Duration::from_secs(self.request_seconds)
    }

    pub(crate) fn drain_grace(&self) -> Duration {
        Duration::from_secs(self.drain_grace_seconds)
    }

    pub(crate) fn drain_time(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

/// A year: more is a slip, and moments that far away cannot be computed with.
const LONGEST_SECONDS: u64 = 365 * 86_400;
/// More than a machine has ports for one address.
const MOST_CONNECTIONS: u64 = 1_000_000;

fn at_most(key: &'static str, found: u64, most: u64) -> Result<(), ServingError> {
    if found <= most {
        return Ok(());
    }
    Err(ServingError::Setting { key, expected: format!("at most {most}"), found: found.to_string() })
}

fn at_least(key: &'static str, found: u64, least: u64) -> Result<(), ServingError> {
    if found >= least {
        return Ok(());
    }
    Err(ServingError::Setting { key, expected: format!("at least {least}"), found: found.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_stays_on_loopback_unless_named() {
        let open = ServeSettings { address: "0.0.0.0:8480".parse().unwrap(), ..ServeSettings::default() };
        assert!(matches!(open.check(), Err(ServingError::PlainHttpBeyondLoopback { .. })));
        assert!(ServeSettings { allow_plain_http: true, ..open }.check().is_ok());
        assert!(
            ServeSettings { address: "[::1]:0".parse().unwrap(), ..ServeSettings::default() }.check().is_ok()
        );
    }

    #[test]
    fn a_file_is_read_with_paths_from_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        let text = "address = \"127.0.0.1:9000\"\n[[models]]\nname = \"a\"\npath = \"models/a\"\n";
        std::fs::write(&path, text).unwrap();
        let settings = ServeSettings::from_file(&path).unwrap();
        assert_eq!(settings.address.port(), 9000);
        assert_eq!(settings.models[0].path, folder.path().join("models/a"));
        assert_eq!(settings.state, folder.path().join("eulalia-state"));
        std::fs::write(&path, "adress = 1\n").unwrap();
        let error = ServeSettings::from_file(&path).unwrap_err().to_string();
        assert!(
            error.contains("gateway.toml") && error.contains("line 1") && error.contains("adress"),
            "{error}"
        );
    }

    #[test]
    fn limits_of_nothing_are_refused_by_name() {
        let error = ServeSettings { body_seconds: 0, ..ServeSettings::default() }.check().unwrap_err();
        assert_eq!(error.to_string(), "setting `body_seconds`: expected at least 1, found 0");
    }
}
