//! Stage 7: the OpenAI-compatible server: TLS, keys, tenants, audit.
//!
//! [`serve`] puts models on the network: deny by default, every request in the name of a tenant, one audit event for
//! each. Async lives in this crate alone; the engines behind it know nothing of it. [`KeyStore`] makes, lists and revokes
//! keys; [`verify_audit`] checks a log.

mod account;
mod age;
mod api;
mod audit;
mod audit_policy;
mod backup;
mod body;
mod certificate_dates;
mod connection;
mod conversation;
mod credential;
mod error;
mod guard;
mod identity;
mod keys;
mod limits;
mod live;
mod openapi;
mod operations;
mod page;
mod parts;
mod policy_names;
mod refused_sign_ins;
mod reload;
mod routes;
mod server;
mod settings;
mod spelling;
mod store;
mod strict_json;
mod tenants;
mod tls;
mod upstream;
mod usage;
mod usage_report;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

pub use certificate_dates::Validity;
pub use tls::check_certificates;

pub use age::{Identity, Recipient};
pub use api::models::ServedModel;
pub use audit::{
    AuditFaults, AuditFilter, AuditFormat, AuditKey, AuditPublicKey, AuditSummary, Opened,
    OpenedConversations,
};
pub use audit_policy::{AuditContent, AuditPolicy};
pub use backup::{backup, restore};
pub use connection::Peer;
pub use error::ServingError;
pub use identity::oidc::try_issuer;
pub use identity::{Algorithm, Role, Scope, Scopes, TenantPolicy};
pub use keys::{KeyOrder, KeyRecord, KeyStore, NewKey};
pub use limits::policy::LimitsPolicy;
pub use limits::set_key_limits;
pub use operations::log::{log_panics, start_log};
pub use policy_names::check_tenants;
pub use reload::Controls;
pub use server::{ServeReport, serve, serve_with};
pub use settings::{
    AuditSettings, ClientCertificates, ClientIdentity, Durability, LimitsSettings, LogFormat, LogLevel,
    LogSettings, ModelSettings, Network, OidcSettings, ServeSettings, ThrottleSettings, TlsSettings,
    TlsVersion, TracesSettings,
};
pub use settings::{RetentionSettings, SignatureSettings};
pub use tenants::{TenantRecord, TenantStore};
pub use upstream::{TriedUpstream, UpstreamSettings, try_upstreams};
pub use usage_report::usage;

/// Whether the filters of these settings can be made: patterns compile, files of passages are there.
pub fn check_filters(settings: &ServeSettings) -> Result<(), ServingError> {
    filters::Chains::compile(&settings.filters).map(|_| ()).map_err(Into::into)
}

/// Whether this program can record what `[traces]` asks for, and the files that it names are there. Connects to nothing.
pub fn check_traces(settings: &ServeSettings) -> Result<(), ServingError> {
    let clock = provenance::Clock::system();
    operations::spans::Tracer::open(settings.traces.as_ref(), clock).map(|_| ())
}

/// Whether the upstreams of these settings can be made: addresses, files of keys, certificates and tokenizers. Connects to
/// nothing.
pub fn check_upstreams(settings: &ServeSettings) -> Result<(), ServingError> {
    upstream::Upstreams::open(&settings.upstreams, None).map(|_| ())
}

/// Whether this is the state folder of a server, with an audit log, or a copy of such a log.
pub fn has_audit_log(folder: &Path) -> bool {
    let is_state = folder.join(server::AUDIT_FOLDER).is_dir() && folder.join(store::DATABASE_FILE).is_file();
    is_state || audit::is_log(&log_folder(folder))
}

/// Checks the audit log of a state folder, or a copy of such a log: every line, their chain, the signed heads, and that
/// nothing is missing. `key` is the installation's public key, as it was given to who asks; without one the key that
/// stands in the state folder is taken.
pub fn verify_audit(folder: &Path, key: Option<AuditPublicKey>) -> Result<AuditSummary, ServingError> {
    let is_state = folder.join(store::DATABASE_FILE).is_file();
    audit::verify_audit(&log_folder(folder), is_state.then_some(folder), key)
}

/// Checks as [`verify_audit`] does, and lists all that does not fit.
pub fn find_audit_faults(folder: &Path, key: Option<AuditPublicKey>) -> Result<AuditSummary, AuditFaults> {
    let is_state = folder.join(store::DATABASE_FILE).is_file();
    audit::find_faults(&log_folder(folder), is_state.then_some(folder), key)
}

/// Calls `take` with each kept conversation that the filter takes and one of these keys opens, in the order of the log,
/// until it says stop; `id` is that of one request. Returns how many there were, and how many are for others.
pub fn open_conversations(
    folder: &Path,
    filter: &AuditFilter,
    id: Option<&str>,
    identities: &[Identity],
    take: impl FnMut(Opened) -> ControlFlow<()>,
) -> Result<OpenedConversations, ServingError> {
    audit::open_conversations(&log_folder(folder), filter, id, identities, take)
}

/// Calls `take` with the fields of each line of a log that the filter takes, in the order of the log, until it says stop.
/// `folder` is a state folder or a copy of a log.
pub fn read_audit(
    folder: &Path,
    filter: &AuditFilter,
    mut take: impl FnMut(serde_json::Map<String, serde_json::Value>) -> ControlFlow<()>,
) -> Result<(), ServingError> {
    audit::read_log(&log_folder(folder), filter, |_, line| Ok(take(audit::object(line))))
}

/// Writes the lines of a log that the filter takes, in a format; returns how many.
pub fn export_audit(
    folder: &Path,
    filter: &AuditFilter,
    format: AuditFormat,
    output: &mut dyn Write,
) -> Result<u64, ServingError> {
    audit::export_log(&log_folder(folder), filter, format, output)
}

fn log_folder(folder: &Path) -> PathBuf {
    let inside = folder.join(server::AUDIT_FOLDER);
    if inside.is_dir() { inside } else { folder.to_path_buf() }
}
