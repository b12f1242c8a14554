//! Stage 7: the OpenAI-compatible server: TLS, keys, tenants, audit.
//!
//! [`serve`] puts models on the network: deny by default, every request in the name of a tenant, one audit event for
//! each. Async lives in this crate alone; the engines behind it know nothing of it. [`KeyStore`] makes, lists and revokes
//! keys; [`verify_audit`] checks a log.

mod account;
mod api;
mod audit;
mod audit_chain;
mod base64;
mod body;
mod connection;
mod error;
mod guard;
mod identity;
mod keys;
mod limits;
mod live;
mod openapi;
mod operations;
mod page;
mod routes;
mod server;
mod settings;
mod store;
mod tls;

use std::path::Path;

pub use api::models::ServedModel;
pub use audit_chain::AuditSummary;
pub use error::ServingError;
pub use identity::{Role, Scope};
pub use keys::{KeyRecord, KeyStore, NewKey};
pub use limits::policy::LimitsPolicy;
pub use limits::set_key_limits;
pub use server::{ServeReport, serve};
pub use settings::{LimitsSettings, ModelSettings, ServeSettings, TlsSettings};

/// Whether this is the state folder of a server, with an audit log.
pub fn has_audit_log(state_folder: &Path) -> bool {
    state_folder.join(server::AUDIT_FOLDER).is_dir() && state_folder.join(store::DATABASE_FILE).is_file()
}

/// Checks the audit log of a state folder: every line, their chain, and that nothing is missing at the end.
pub fn verify_audit(state_folder: &Path) -> Result<AuditSummary, ServingError> {
    audit_chain::verify_audit(&state_folder.join(server::AUDIT_FOLDER), state_folder)
}
