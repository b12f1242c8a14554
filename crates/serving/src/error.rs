//! What can go wrong before and beside the answering of requests: state, keys, audit log, certificates, the socket.
//! What goes wrong inside a request is a [`crate::api::failure::ApiFailure`] and reaches the client as JSON.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the server, its keys or its audit log cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    #[error("state folder {path}: {problem}")]
    StateFolder { path: PathBuf, problem: String },
    #[error(
        "state folder {folder} is in use by another server; give this one a folder of its own with --state"
    )]
    StateInUse { folder: PathBuf },
    #[error("state database {path}: {operation} failed: {source}")]
    Database { path: PathBuf, operation: &'static str, source: rusqlite::Error },
    #[error(
        "state database {path} has schema {found}, this program knows {known}: use the program that wrote it, or newer"
    )]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error(
        "state database {path} has schema {found}, this program {known}: its next start with this program brings it up to date"
    )]
    OtherSchema { path: PathBuf, found: i64, known: i64 },
    #[error("no key with id `{id}`; `eulalia keys list` shows the ids (8 letters and digits after `eu-`)")]
    NoSuchKey { id: String },
    #[error(
        "tenant `{name}` was removed; its name stays taken, since the audit log speaks of it: choose another"
    )]
    TenantRemoved { name: String },
    #[error("no tenant `{name}`; `eulalia tenants list` shows them")]
    NoSuchTenant { name: String },
    #[error("there is, or was, a tenant `{name}`; choose another name")]
    TenantTwice { name: String },
    #[error("tenant's policy{}: {problem}", of(.tenant))]
    Policy { tenant: String, problem: String },
    #[error("{what} `{found}`: expected {expected}")]
    BadName { what: &'static str, found: String, expected: &'static str },
    #[error("the operating system gives no random numbers: {0}")]
    Random(String),
    #[error(transparent)]
    Storage(#[from] provenance::StorageError),
    #[error("audit log {path}, line {line}: {problem}")]
    AuditBroken { path: PathBuf, line: u64, problem: String },
    #[error("audit log {path}: {problem}")]
    AuditUnreadable { path: PathBuf, problem: String },
    #[error("audit key {path}: {problem}")]
    AuditKey { path: PathBuf, problem: String },
    #[error("the audit log cannot be written: {0}")]
    AuditFailed(String),
    #[error("setting `{key}`: expected {expected}, found {found}")]
    Setting { key: &'static str, expected: String, found: String },
    #[error("settings {path}: {problem}")]
    SettingsFile { path: PathBuf, problem: String },
    #[error(
        "{address} can be reached from other machines, and without TLS keys and prompts would travel in the clear: give a \
         certificate and its key (--tls-certificate, --tls-key), listen on 127.0.0.1, or say --allow-plain-http if \
         something in front of this server encrypts"
    )]
    PlainHttpBeyondLoopback { address: SocketAddr },
    #[error("cannot listen on {address}: {source} (--listen takes another address or port)")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("TLS file {path}: {problem}")]
    Tls { path: PathBuf, problem: String },
    #[error("upstream `{name}`: {problem}")]
    Upstream { name: String, problem: String },
    #[error(transparent)]
    Filters(#[from] filters::FilterError),
    #[error("there is no model to serve")]
    NoModel,
    #[error("model name `{name}` is given twice; names must differ")]
    ModelTwice { name: String },
    #[error("the server's threads cannot start: {0}")]
    Runtime(std::io::Error),
}

/// Behind what a message is about: whose, where that is known.
fn of(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" {name}") }
}
