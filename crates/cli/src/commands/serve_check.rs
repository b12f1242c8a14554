//! `eulalia serve --check`: everything that would stop a server, or trouble it later, before it takes the place of one
//! that runs. Reads and tries; changes nothing.

use std::fs::TryLockError;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::bail;
use inference::{EngineMemory, forecast};
use model::ModelSizes;
use provenance::context::timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use serving::{ModelSettings, ServeSettings, TlsSettings};

use crate::commands::doctor::facts;
use crate::commands::load::{self, Checked};
use crate::commands::serve::{engine_settings, in_words, names_of};
use crate::commands::trust::Trust;
use crate::commands::verify::standing_in_words;
use crate::console;
use crate::machine;
use crate::run::World;

/// A certificate that ends sooner is worth a warning.
const RENEW_WITHIN_DAYS: i64 = 30;
const DAY_SECONDS: i64 = 86_400;
/// A clock before this, the beginning of 2026, is wrong: this program was not there yet.
const NOT_BEFORE: i64 = 1_767_225_600;
/// The audit log and the database need room to grow.
const STATE_BYTES: u64 = 1 << 30;
/// Descriptors of a process beside those of its connections: files, sockets, the log.
const OTHER_DESCRIPTORS: u64 = 64;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Serialize)]
struct Check {
    check: String,
    outcome: Outcome,
    /// What was found, and what to do about it.
    found: String,
}

/// Checks what a server with these settings would need; `offline` asks nobody on the network. The value's `ok` is false if
/// anything failed.
pub fn check(settings: anyhow::Result<ServeSettings>, offline: bool, world: &World) -> Value {
    let mut checks = Checks::default();
    let settings = settings.and_then(|settings| settings.check().map(|()| settings).map_err(Into::into));
    match settings {
        Err(error) => checks.failed("settings", format!("{error:#}")),
        Ok(settings) => {
            checks.ok("settings", "every value can be used".to_string());
            let now =
                world.clock.now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let now = i64::try_from(now).unwrap_or(i64::MAX);
            checks.clock(now);
            checks.state(&settings.state);
            checks.tls(&settings, now);
            let running = is_running(&settings.state);
            checks.address("address", settings.address, running);
            if let Some(address) = settings.operations_address {
                checks.address("operations_address", address, running);
            }
            checks.descriptors(settings.maximum_connections as u64);
            let models = checks.models(&settings, running, world);
            checks.filters(&settings);
            checks.tenants(&settings, models);
            checks.upstreams(&settings, offline);
            checks.issuer(&settings, offline);
            checks.traces(&settings);
        }
    }
    let Checks(checks) = checks;
    let rows: Vec<Vec<String>> = checks
        .iter()
        .map(|check| {
            let outcome = match check.outcome {
                Outcome::Ok => "ok",
                Outcome::Warning => "warning",
                Outcome::Failed => "FAILED",
            };
            vec![check.check.clone(), outcome.to_string(), check.found.clone()]
        })
        .collect();
    world.console.say(&console::table(&["check", "", "found"], &rows, 3));
    let ok = checks.iter().all(|check| check.outcome != Outcome::Failed);
    json!({"ok": ok, "checks": checks})
}

#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, check: &str, outcome: Outcome, found: String) {
        self.0.push(Check { check: check.to_string(), outcome, found });
    }

    fn ok(&mut self, check: &str, found: String) {
        self.add(check, Outcome::Ok, found);
    }

    fn warn(&mut self, check: &str, found: String) {
        self.add(check, Outcome::Warning, found);
    }

    fn failed(&mut self, check: &str, found: String) {
        self.add(check, Outcome::Failed, found);
    }

    fn clock(&mut self, now: i64) {
        let shown = timestamp(u64::try_from(now).unwrap_or(0));
        if now < NOT_BEFORE {
            self.failed("clock", format!("{shown} is before this program was made: set the clock"));
        } else {
            self.ok("clock", shown);
        }
    }

    fn state(&mut self, folder: &Path) {
        let shown = folder.display();
        if !folder.exists() {
            let parent = folder.ancestors().find(|parent| parent.is_dir()).unwrap_or(Path::new("."));
            return match parent.metadata() {
                Ok(metadata) if !metadata.permissions().readonly() => {
                    self.ok("state", format!("{shown} is not there yet and will be made"));
                }
                _ => self.failed("state", format!("{shown} cannot be made in {}", parent.display())),
            };
        }
        if !folder.is_dir() {
            return self.failed("state", format!("{shown} is no folder"));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let mode = folder.metadata().map_or(0, |metadata| metadata.mode() & 0o777);
            if mode & 0o077 != 0 {
                let found = format!("{shown}: others may enter it (mode {mode:04o}); run `chmod 700` on it");
                return self.failed("state", found);
            }
        }
        let database = folder.join("state.sqlite");
        if database.exists()
            && let Err(error) = std::fs::OpenOptions::new().read(true).append(true).open(&database)
        {
            return self.failed("state", format!("{}: {error}", database.display()));
        }
        if !database.exists() {
            self.warn("state", format!("{shown} holds no keys yet: `eulalia keys new` makes one"));
        }
        match machine::free_bytes(folder) {
            Some(free) if free < STATE_BYTES => {
                self.warn("state", format!("{shown}: only {} are free", console::bytes(free)));
            }
            _ => self.ok("state", format!("{shown} is private")),
        }
    }

    fn tls(&mut self, settings: &ServeSettings, now: i64) {
        let Some(tls) = &settings.tls else {
            return if settings.address.ip().is_loopback() {
                self.ok("certificate", "plain http, on loopback".to_string());
            } else {
                let found =
                    "plain http beyond loopback, as the settings name it: something else must encrypt";
                self.warn("certificate", found.to_string());
            };
        };
        match serving::check_certificates(tls) {
            Err(error) => self.failed("certificate", error.to_string()),
            Ok(None) => self.warn("certificate", "its dates cannot be read".to_string()),
            Ok(Some(dates)) => {
                let days = (dates.not_after - now).div_euclid(DAY_SECONDS);
                let end = timestamp(u64::try_from(dates.not_after).unwrap_or(0));
                if now > dates.not_after {
                    self.failed("certificate", format!("it ended on {end}: renew it"));
                } else if now < dates.not_before {
                    self.failed("certificate", "it is not valid yet: is the clock right?".to_string());
                } else if days < RENEW_WITHIN_DAYS {
                    self.warn("certificate", format!("it ends in {days} days, on {end}: renew it"));
                } else {
                    self.ok("certificate", format!("it belongs to its key and ends on {end}"));
                }
            }
        }
        self.key_file(tls);
    }

    fn key_file(&mut self, tls: &TlsSettings) {
        #[cfg(unix)]
        if let Ok(metadata) = tls.private_key.metadata() {
            use std::os::unix::fs::MetadataExt;
            let mode = metadata.mode() & 0o777;
            if mode & 0o007 != 0 {
                let shown = tls.private_key.display();
                self.warn("private key", format!("{shown}: everyone may read it (mode {mode:04o})"));
            }
        }
        #[cfg(not(unix))]
        let _ = tls;
    }

    fn address(&mut self, name: &str, address: SocketAddr, running: bool) {
        match TcpListener::bind(address) {
            Ok(_) => self.ok(name, format!("{address} is free")),
            Err(error) if running && error.kind() == ErrorKind::AddrInUse => {
                self.ok(name, format!("{address} is in use by the running server of this state"));
            }
            Err(error) => self.failed(name, format!("{address}: {error}")),
        }
    }

    fn descriptors(&mut self, connections: u64) {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let most = limits.lines().find_map(|line| {
            line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<u64>().ok()
        });
        match most {
            Some(most) if most < connections + OTHER_DESCRIPTORS => {
                let found = format!(
                    "{most} file descriptors are too few for {connections} connections: raise LimitNOFILE, or lower \
                     maximum_connections"
                );
                self.warn("descriptors", found);
            }
            Some(most) => self.ok("descriptors", format!("{most} for {connections} connections")),
            None => {}
        }
    }

    fn filters(&mut self, settings: &ServeSettings) {
        match serving::check_filters(settings) {
            Err(error) => self.failed("filters", error.to_string()),
            Ok(()) => self.ok("filters", "every chain can be made".to_string()),
        }
    }

    /// Whether what the tenants' policies name is there.
    fn tenants(&mut self, settings: &ServeSettings, models: Option<Vec<String>>) {
        match serving::check_tenants(&settings.state, settings, models) {
            Err(error) => self.warn("tenants", format!("their policies were not looked at: {error}")),
            Ok(lines) if lines.is_empty() => {
                self.ok("tenants", "their policies name what there is".to_string());
            }
            Ok(lines) => {
                for line in lines {
                    self.warn("tenants", line);
                }
            }
        }
    }

    /// Each engine elsewhere: can it be reached, does it take our key, has it the models?
    fn upstreams(&mut self, settings: &ServeSettings, offline: bool) {
        if let Err(error) = serving::check_upstreams(settings) {
            return self.failed("upstreams", error.to_string());
        }
        if offline {
            for upstream in &settings.upstreams {
                let name = format!("upstream {}", upstream.name);
                self.ok(&name, format!("{} was not asked (--offline)", upstream.url));
            }
            return;
        }
        match serving::try_upstreams(&settings.upstreams) {
            Err(error) => self.failed("upstreams", error.to_string()),
            Ok(tried) => {
                for upstream in tried {
                    let name = format!("upstream {}", upstream.name);
                    match upstream.found {
                        Ok(found) => self.ok(&name, found),
                        Err(problem) => self.failed(&name, problem),
                    }
                }
            }
        }
    }

    fn traces(&mut self, settings: &ServeSettings) {
        let Some(traces) = &settings.traces else { return };
        match serving::check_traces(settings) {
            Err(error) => self.failed("traces", error.to_string()),
            Ok(()) => self.ok("traces", format!("spans go to {}", traces.endpoint)),
        }
    }

    fn issuer(&mut self, settings: &ServeSettings, offline: bool) {
        let Some(oidc) = &settings.oidc else { return };
        if let (true, Some(url)) = (offline, &oidc.jwks_url) {
            return self.ok("oidc issuer", format!("{url} was not asked (--offline)"));
        }
        match serving::try_issuer(oidc) {
            Err(error) => self.failed("oidc issuer", error.to_string()),
            Ok(keys) => self
                .ok("oidc issuer", format!("{}: {keys} keys that tokens can be checked with", oidc.issuer)),
        }
    }

    /// Returns what the models will be called, those elsewhere included; `None` if that is not known of one.
    fn models(&mut self, settings: &ServeSettings, running: bool, world: &World) -> Option<Vec<String>> {
        let elsewhere = settings.upstreams.iter().flat_map(|upstream| upstream.models.keys().cloned());
        let mut names = Some(elsewhere.collect::<Vec<String>>());
        let trust = match Trust::of(settings) {
            Ok(trust) => trust,
            Err(error) => {
                self.failed("signatures", format!("{error:#}"));
                return None;
            }
        };
        // Of all models: what they take from the start, and what they hold once their caches are full.
        let (mut least, mut needed) = (0, 0);
        for model in &settings.models {
            let called = model.name.clone().or_else(|| load::name_of(&model.path).ok());
            let called = called.unwrap_or_else(|| model.path.display().to_string());
            let name = format!("model {called}");
            match trust.check(model, world) {
                Err(error) => {
                    names = None;
                    self.failed(&name, format!("{error:#}"));
                }
                Ok(checked) => {
                    if let Some(names) = &mut names {
                        names.extend(names_of(&called, checked.adapter.is_some()));
                    }
                    let digest: String =
                        checked.digest.iter().flat_map(|digest| digest.chars()).take(12).collect();
                    let kind = if checked.is_release { "release" } else { "no release, files" };
                    let whole = format!("{kind} {digest}…; {}", standing_in_words(&checked.standing));
                    match memory_of(model, &called, &checked, world) {
                        Ok(EngineMemory { weights_bytes, cache_bytes, workspace_bytes }) => {
                            least += weights_bytes + workspace_bytes;
                            needed += weights_bytes + workspace_bytes + cache_bytes;
                            let [weights, cache, buffers] =
                                [weights_bytes, cache_bytes, workspace_bytes].map(console::bytes);
                            let takes =
                                format!("{weights} of weights, up to {cache} of cache, {buffers} of buffers");
                            self.ok(&name, format!("{whole}; {takes}"));
                        }
                        Err(error) => self.failed(&name, format!("{error:#}")),
                    }
                }
            }
        }
        match machine::available_bytes() {
            Some(available) if needed > 0 => {
                let [least_shown, most, free] = [least, needed, available].map(console::bytes);
                if least > available && running {
                    let found = format!(
                        "{least_shown} are needed, {free} are free beside the running server, which gives its own back when \
                         it ends"
                    );
                    self.warn("memory", found);
                } else if least > available {
                    self.failed("memory", format!("{least_shown} are needed, {free} are free"));
                } else if needed > available {
                    let found = format!(
                        "up to {most} with full caches, {free} are free: give the models less with `memory`"
                    );
                    self.warn("memory", found);
                } else {
                    self.ok("memory", format!("up to {most} of {free} free"));
                }
            }
            _ => {}
        }
        names
    }
}

/// What an engine with the model's settings will hold, as the start counts it.
fn memory_of(
    model: &ModelSettings,
    name: &str,
    checked: &Checked,
    world: &World,
) -> anyhow::Result<EngineMemory> {
    let path = &checked.folder;
    let facts = if load::is_gguf(path) { facts::of_gguf(path) } else { facts::of_folder(path) }?;
    if let Some(problem) = facts.problems.first() {
        bail!("{problem}");
    }
    let settings = engine_settings(model, name, checked, world)?;
    let sizes = ModelSizes::of_path(path, settings.weights)?;
    Ok(forecast(&sizes, &settings).map_err(in_words)?.memory)
}

/// Whether a server holds this state. Makes no file.
fn is_running(state: &Path) -> bool {
    let lock = std::fs::File::open(state.join("serve.lock"));
    lock.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}
