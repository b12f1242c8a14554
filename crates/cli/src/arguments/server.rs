//! Flags of the server and of its state: keys, tenants, limits, usage, the audit log, backups.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use model::{CacheFormat, WeightFormat};
use serving::{LogFormat, LogLevel, Role, Scope};

use crate::commands::answering::{cache_format, weight_format};
use crate::commands::keys::{role, scope};

/// Serve models over the OpenAI API: https or loopback, nothing without a key.
#[derive(Clone, Args)]
pub struct ServeArguments {
    /// Releases, models in the Hugging Face layout or GGUF files; NAME=FOLDER gives one a name of your choice; needed unless
    /// --config names some
    #[arg(value_name = "[NAME=]FOLDER")]
    pub models: Vec<String>,
    /// Settings of the server, in TOML; what is given here as well counts more
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:8480]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Folder of the server's state: keys, audit log [default: eulalia-state]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Certificate chain (PEM); with --tls-key, the server speaks https
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Speak plain http on an address that others can reach (for use behind a proxy that encrypts)
    #[arg(long)]
    pub allow_plain_http: bool,
    /// Load a release even if it does not verify
    #[arg(long)]
    pub allow_unverified: bool,
    /// A public key that models must be signed by; with several, one of them (`eulalia sign`)
    #[arg(long, value_name = "FILE")]
    pub trust_key: Vec<PathBuf>,
    /// Load this model although none of the trusted keys signed it (repeatable)
    #[arg(long, value_name = "NAME")]
    pub allow_unsigned: Vec<String>,
    /// Memory for the weights and caches of each model, in MiB [default: what the most requests at once can fill]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// The numbers that weights are kept in: f32, bf16, q8_0 or q4_0, fewer bits are faster and take less memory; or stored:
    /// those of a GGUF file as they are, of a folder f32 [default: stored]
    #[arg(long, value_name = "FORMAT", value_parser = weight_format)]
    pub weights: Option<WeightFormat>,
    /// The numbers that keys and values are kept in: f32, bf16 or q8_0 [default: f32 with weights in f32, else bf16]
    #[arg(long, value_name = "FORMAT", value_parser = cache_format)]
    pub kv_cache: Option<CacheFormat>,
    /// Guess up to so many tokens of each answer ahead from its own text; answers stay the same [default: 0]
    #[arg(long, value_name = "N")]
    pub speculation: Option<usize>,
    /// Compute every prompt anew, even where it begins like an earlier one of its tenant
    #[arg(long)]
    pub no_prefix_cache: bool,
    /// Check settings, certificates, state, models and ports, try upstreams and the issuer of tokens, print what was found,
    /// and end
    #[arg(long)]
    pub check: bool,
    /// With --check: ask nobody on the network
    #[arg(long, requires = "check")]
    pub offline: bool,
    /// How lines of the log are written: text or json [default: text]
    #[arg(long, value_name = "FORMAT", value_parser = log_format)]
    pub log_format: Option<LogFormat>,
    /// What the log says: error, warn, info or debug [default: info]
    #[arg(long, value_name = "LEVEL", value_parser = log_level)]
    pub log_level: Option<LogLevel>,
}

fn log_format(name: &str) -> Result<LogFormat, String> {
    LogFormat::from_name(name).ok_or_else(|| "expected text or json".to_string())
}

fn log_level(name: &str) -> Result<LogLevel, String> {
    LogLevel::from_name(name).ok_or_else(|| "expected error, warn, info or debug".to_string())
}

/// Make, show, change and remove the tenants of a server: who shares it, and what each may use.
#[derive(Args)]
pub struct TenantsArguments {
    #[command(subcommand)]
    pub action: TenantsAction,
}

#[derive(clap::Subcommand)]
pub enum TenantsAction {
    /// Make a tenant
    New {
        /// What it is called in lists; the audit log has a pseudonym
        name: String,
        /// A field of its policy, such as models=["small"] or limits.tokens_per_minute=6000 (may be repeated)
        #[arg(long = "set", value_name = "KEY=VALUE")]
        changes: Vec<String>,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// List tenants
    List {
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// Show a tenant with its policy
    Show {
        /// Its name
        name: String,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// Change fields of a tenant's policy; a running server heeds it from the next request on
    Set {
        /// Its name
        name: String,
        /// Fields and their values, such as limits.tokens_per_day=1000000; null takes a field back
        #[arg(required = true, value_name = "KEY=VALUE")]
        changes: Vec<String>,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// Remove a tenant for good: its keys open nothing any more, its name stays taken
    Remove {
        /// Its name
        name: String,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
}

/// Read the audit log of a server.
#[derive(Args)]
pub struct AuditArguments {
    #[command(subcommand)]
    pub action: AuditAction,
}

#[derive(clap::Subcommand)]
pub enum AuditAction {
    /// Print the public key that the heads of the log are signed for; auditors give it to `eulalia verify --audit-key`
    Key {
        /// Folder of the server's state
        #[arg(default_value = "eulalia-state", value_name = "STATE")]
        state: PathBuf,
    },
    /// Show events as a table
    Show {
        /// Folder of the server's state, or a copy of its folder `audit`
        #[arg(default_value = "eulalia-state", value_name = "STATE")]
        state: PathBuf,
        #[command(flatten)]
        lines: AuditLines,
        /// Show the last N of them
        #[arg(long, value_name = "N", default_value_t = 50)]
        last: usize,
    },
    /// Write events to standard output for a security monitor
    Export {
        /// Folder of the server's state, or a copy of its folder `audit`
        #[arg(default_value = "eulalia-state", value_name = "STATE")]
        state: PathBuf,
        #[command(flatten)]
        lines: AuditLines,
        /// jsonl: as in the log; ecs: JSON lines in the Elastic Common Schema
        #[arg(long, value_name = "FORMAT", default_value = "jsonl", value_parser = ["jsonl", "ecs"])]
        format: String,
    },
    /// Make a pair of keys for kept conversations: the secret one goes to a file, the public one to standard output
    Keygen {
        /// The new file, for its owner alone
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Open kept conversations with a secret key of their tenant, and print them as JSON lines
    Decrypt {
        /// Folder of the server's state, or a copy of its folder `audit`
        #[arg(default_value = "eulalia-state", value_name = "STATE")]
        state: PathBuf,
        /// File with secret keys (AGE-SECRET-KEY-1…), as `eulalia audit keygen` and `age-keygen` write it
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// The conversation of the request with this id (x-request-id) alone
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        #[command(flatten)]
        lines: AuditLines,
    },
}

/// Which events are asked for.
#[derive(Args)]
pub struct AuditLines {
    /// Events at or after this time in UTC, such as 2026-11-20 or 2026-11-20T08:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Events before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Events of this tenant, by its pseudonym
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// Events of this kind, such as request
    #[arg(long, value_name = "KIND")]
    pub event: Option<String>,
    /// Events after the one of this number, to go on where an earlier export ended
    #[arg(long, value_name = "SEQUENCE")]
    pub after: Option<u64>,
}

/// Copy the state of a server, which may be running, to a new folder: keys, tenants, usage, audit log.
#[derive(Args)]
pub struct BackupArguments {
    /// Folder of the server's state
    #[arg(default_value = "eulalia-state", value_name = "STATE")]
    pub state: PathBuf,
    /// The new folder
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
}

/// Put a backup into a new state folder, after checking it.
#[derive(Args)]
pub struct RestoreArguments {
    /// The backup
    #[arg(value_name = "BACKUP")]
    pub backup: PathBuf,
    /// The new state folder
    #[arg(long, value_name = "STATE")]
    pub to: PathBuf,
}

/// Show what tenants have used of a server, by day, key and model.
#[derive(Args)]
pub struct UsageArguments {
    /// Folder of the server's state
    #[arg(default_value = "eulalia-state", value_name = "STATE")]
    pub state: PathBuf,
    /// Only this tenant, by its name
    #[arg(long)]
    pub tenant: Option<String>,
    /// The last so many days (UTC), today included
    #[arg(long, default_value_t = 30, value_name = "DAYS")]
    pub days: u64,
}

/// Give a key limits of its own; without any, those of the settings and of its tenant hold.
#[derive(Args)]
pub struct LimitsArguments {
    /// The key's id, as `keys list` shows it
    pub key: String,
    /// requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_requests, prompt_tokens, answer_tokens or
    /// answers; these replace what the key had
    #[arg(value_name = "LIMIT=NUMBER")]
    pub limits: Vec<String>,
    /// Folder of the server's state
    #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
    pub state: PathBuf,
}

/// Make, list, rotate and revoke the keys of a server.
#[derive(Args)]
pub struct KeysArguments {
    #[command(subcommand)]
    pub action: KeysAction,
}

#[derive(clap::Subcommand)]
pub enum KeysAction {
    /// Make a key; it is shown once, only its hash is kept
    New {
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
        /// What the key is for, to tell keys apart
        #[arg(long, default_value = "")]
        label: String,
        /// Tenant that the key belongs to
        #[arg(long, default_value = "default")]
        tenant: String,
        /// What the key may be used for: admin, operator, user, auditor or metrics
        #[arg(long, default_value = "user", value_parser = role)]
        role: Role,
        /// Narrow the key to fewer scopes than its role has: inference, status, metrics, audit, operate or administer
        /// (may be repeated)
        #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
        scopes: Vec<Scope>,
        /// Days until the key expires [default: never]
        #[arg(long, value_name = "DAYS")]
        expires: Option<u64>,
    },
    /// List keys: id, tenant, label, dates; never the keys themselves
    List {
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// Make a key in the place of another: same tenant, role and scopes, same length of life
    Rotate {
        /// The id that `keys new` and `keys list` show
        id: String,
        /// Hours for which the old key still opens
        #[arg(long, default_value_t = 24, value_name = "HOURS")]
        grace: u64,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
    /// Revoke a key by its id
    Revoke {
        /// The id that `keys new` and `keys list` show
        id: String,
        /// Folder of the server's state
        #[arg(long, default_value = "eulalia-state", value_name = "DIR")]
        state: PathBuf,
    },
}
