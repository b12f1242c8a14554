//! What changes while the server runs: its settings with the engines, filters and issuer that they name, when it is asked
//! to read them again, and its certificates, when their files change.
//!
//! All or nothing: settings that do not hold change nothing. What cannot change without a restart stays as it is and is
//! named in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::audit::AuditEvent;
use crate::error::ServingError;
use crate::operations::log;
use crate::server::Server;
use crate::settings::ServeSettings;
use crate::tls::Look;

/// How often the wish to reload is looked at.
const WISH_CHECK: Duration = Duration::from_millis(100);
/// How often the files of certificates are looked at. Two looks must find them the same.
const FILES_CHECK: Duration = Duration::from_secs(1);

/// Sections of the settings that a running server can change; all others need a restart.
const LIVE: [&str; 19] = [
    "body_limit_bytes",
    "header_limit_bytes",
    "header_seconds",
    "body_seconds",
    "stalled_client_seconds",
    "request_seconds",
    "maximum_connections_per_address",
    "maximum_streams",
    "maximum_choices",
    "drain_grace_seconds",
    "drain_seconds",
    "limits",
    "throttle",
    "trusted_proxies",
    "log",
    "tls",
    "oidc",
    "upstreams",
    "filters",
];

/// Reads the settings again, or says what is wrong with them.
type ReadSettings = Box<dyn Fn() -> Result<ServeSettings, String> + Send + Sync>;

/// How a running server is told to read its settings again.
#[derive(Default)]
pub struct Controls {
    /// Raised by whoever wants it, such as a handler of SIGHUP; the server lowers it.
    pub reload: Arc<AtomicBool>,
    /// Where the settings come from; without it a reload concerns the files that they name alone.
    pub read_settings: Option<ReadSettings>,
}

/// Looks after wishes and files until the server ends.
pub async fn keep_up(server: Arc<Server>, controls: Controls) {
    let mut since_look = Duration::ZERO;
    loop {
        tokio::time::sleep(WISH_CHECK).await;
        if controls.reload.swap(false, Ordering::SeqCst) {
            reload(&server, &controls).await;
        }
        since_look += WISH_CHECK;
        if since_look >= FILES_CHECK {
            since_look = Duration::ZERO;
            look_at_certificates(&server);
            look_at_issuer(&server).await;
        }
    }
}

/// The issuer's keys are read again when it is time.
async fn look_at_issuer(server: &Server) {
    if let Some(issuer) = server.parts().issuer.clone()
        && let Err(error) = tokio::task::spawn_blocking(move || issuer.keep_fresh()).await
    {
        tracing::error!(problem = %error, "the issuer's keys cannot be kept");
    }
}

fn look_at_certificates(server: &Server) {
    match server.certificates.as_ref().map(|certificates| certificates.look()) {
        None | Some(Look::Unchanged) => {}
        Some(Look::Taken) => note_certificates(server),
        Some(Look::Refused(error)) => note_refusal(server, "certificates_refused", &error.to_string()),
    }
}

fn note_certificates(server: &Server) {
    let not_after =
        server.certificates.as_ref().and_then(|in_use| in_use.validity()).map(|dates| dates.not_after);
    tracing::info!(not_after, "new certificates are in use");
    server.audit.append(AuditEvent::new("certificates_reloaded").with("not_after", not_after), |_| {});
}

fn note_refusal(server: &Server, event: &str, problem: &str) {
    tracing::error!(event, problem, "what was in use stays in use");
    server.audit.append(AuditEvent::new(event).with("problem", problem), |_| {});
}

async fn reload(server: &Arc<Server>, controls: &Controls) {
    let old = server.settings();
    let wanted = match &controls.read_settings {
        Some(read) => read(),
        None => Ok(ServeSettings::clone(&old)),
    };
    let change = wanted.and_then(|wanted| Change::between(&old, &wanted).map_err(|error| error.to_string()));
    let change = match change {
        Ok(change) => change,
        Err(problem) => return note_refusal(server, "settings_refused", &problem),
    };
    // Files are read and the issuer is asked: not on the threads that serve connections.
    let (making, settings) = (server.clone(), change.settings.clone());
    let made = tokio::task::spawn_blocking(move || making.make_parts(&settings)).await;
    let parts = match made.map_err(|error| error.to_string()).and_then(|made| made.map_err(|e| e.to_string()))
    {
        Ok(parts) => parts,
        Err(problem) => return note_refusal(server, "settings_refused", &problem),
    };
    if let (Some(certificates), Some(tls)) = (&server.certificates, &change.settings.tls) {
        match certificates.reload(tls) {
            Err(error) => return note_refusal(server, "settings_refused", &error.to_string()),
            Ok(true) => note_certificates(server),
            Ok(false) => {}
        }
    }
    let Change { settings, changed, needs_restart } = change;
    log::set_level(settings.log.level);
    server.replace_settings(settings, parts);
    let looking = server.clone();
    // Reading waits for the disk: not on the threads that serve connections.
    let _ = tokio::task::spawn_blocking(move || looking.warn_of_policies()).await;
    if needs_restart.iter().any(|key| key == "models") {
        let loaded: Vec<&str> = server.models.iter().map(|model| model.name.as_str()).collect();
        let loaded = loaded.join(", ");
        tracing::warn!(
            loaded,
            "the file asks for other local models than are loaded: these change with a restart alone"
        );
    }
    if !needs_restart.is_empty() {
        tracing::warn!(settings = needs_restart.join(", "), "these settings change with a restart alone");
    }
    tracing::info!(changed = changed.join(", "), "settings were read again");
    let event =
        AuditEvent::new("settings_reloaded").with("changed", changed).with("needs_restart", needs_restart);
    server.audit.append(event, |_| {});
}

/// What becomes of the settings when others are wanted.
#[derive(Debug)]
struct Change {
    /// The old ones, with what can change changed.
    settings: ServeSettings,
    changed: Vec<String>,
    needs_restart: Vec<String>,
}

impl Change {
    fn between(old: &ServeSettings, wanted: &ServeSettings) -> Result<Change, ServingError> {
        wanted.check()?;
        let (mut merged, wanted) = (keys(old)?, keys(wanted)?);
        let (mut changed, mut needs_restart) = (Vec::new(), Vec::new());
        for (key, value) in wanted {
            if merged.get(&key) == Some(&value) {
                continue;
            }
            // With or without TLS is a matter of the socket, not of the files.
            let switches = key == "tls" && (value.is_null() || merged.get(&key).is_none_or(Value::is_null));
            if LIVE.contains(&key.as_str()) && !switches {
                merged.insert(key.clone(), value);
                changed.push(key);
            } else {
                needs_restart.push(key);
            }
        }
        let settings: ServeSettings = serde_json::from_value(Value::Object(merged)).map_err(unreadable)?;
        settings.check()?;
        Ok(Change { settings, changed, needs_restart })
    }
}

fn keys(settings: &ServeSettings) -> Result<Map<String, Value>, ServingError> {
    match serde_json::to_value(settings).map_err(unreadable)? {
        Value::Object(keys) => Ok(keys),
        _ => Ok(Map::new()),
    }
}

fn unreadable(error: serde_json::Error) -> ServingError {
    ServingError::SettingsFile { path: "(in memory)".into(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::TlsSettings;

    #[test]
    fn limits_change_and_addresses_are_named() {
        let old = ServeSettings::default();
        let wanted = ServeSettings {
            body_seconds: 7,
            address: "127.0.0.1:9".parse().unwrap(),
            tls: Some(TlsSettings::new("a".into(), "b".into())),
            ..old.clone()
        };
        let change = Change::between(&old, &wanted).unwrap();
        assert_eq!(change.settings, ServeSettings { body_seconds: 7, ..old.clone() });
        assert_eq!(
            (change.changed, change.needs_restart),
            (vec!["body_seconds".into()], vec!["address".into(), "tls".into()])
        );
        let broken = ServeSettings { body_seconds: 0, ..old.clone() };
        assert!(Change::between(&old, &broken).is_err());
    }

    #[test]
    fn every_live_setting_is_a_setting() {
        let all = keys(&ServeSettings::default()).unwrap();
        for key in LIVE {
            assert!(all.contains_key(key), "{key}");
        }
    }
}
