//! The server: what all requests share, and its life from the first connection to the last.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use filters::Chain;
use provenance::digest::keyed_digest;
use provenance::{Cancellation, Clock, Context};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::account::Account;
use crate::api::failure::ApiFailure;
use crate::api::models::{Models, ServedModel};
use crate::audit::{AuditEvent, AuditLog};
use crate::connection::{self, Listening};
use crate::error::ServingError;
use crate::identity::{Caller, Throttle};
use crate::keys::{KeyStore, random_hex, random_seed};
use crate::limits::Limiter;
use crate::live::Live;
use crate::operations::metrics::Metrics;
use crate::operations::probes;
use crate::operations::spans::Tracer;
use crate::page::Sessions;
use crate::parts::Parts;
use crate::policy_names::Known;
use crate::refused_sign_ins::RefusedSignIns;
use crate::reload::{Controls, keep_up};
use crate::routes;
use crate::settings::ServeSettings;
use crate::store::Store;
use crate::tls::Certificates;
use crate::usage::UsageCounter;

/// Folder of the audit log inside the state folder.
pub const AUDIT_FOLDER: &str = "audit";
/// How often the number of refused strangers goes to the audit log: a flood of them must not fill the disk.
const STRANGERS_EVERY: Duration = Duration::from_secs(1);

/// How often the wish to stop is looked at.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// For sending the last spans.
const EXPORT_END: Duration = Duration::from_secs(3);
/// Threads that encode prompts and wait for the disk; further prompts wait.
const ENCODING_THREADS: usize = 8;
/// Exports of the audit log at once: each keeps one of those threads for as long as its client reads.
const EXPORTS: usize = 2;

/// What a server did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServeReport {
    pub connections: u64,
    /// Requests with a valid key.
    pub requests: u64,
    /// Requests without one.
    pub refused_strangers: u64,
}

/// What all requests share.
pub struct Server {
    settings: Arc<Live<ServeSettings>>,
    /// In use by the main socket; without them it speaks plain HTTP.
    pub certificates: Option<Arc<Certificates>>,
    pub models: Models,
    pub keys: KeyStore,
    /// Who has signed in on the page.
    pub sessions: Sessions,
    /// Who guesses credentials.
    pub throttle: Throttle,
    /// Sign-ins that failed since the audit log was last told.
    pub refused_sign_ins: RefusedSignIns,
    pub audit: Arc<AuditLog>,
    /// Places for exports of it.
    pub exports: Arc<Semaphore>,
    pub metrics: Arc<Metrics>,
    /// Records requests for a collector, if the settings ask.
    pub tracer: Arc<Tracer>,
    pub limiter: Arc<Limiter>,
    parts: Live<Parts>,
    usage: Arc<Mutex<UsageCounter>>,
    clock: Clock,
    /// Keys the digests of clients' own user names.
    user_secret: String,
    /// Requests with a valid credential.
    pub requests: AtomicU64,
    /// Requests without one.
    pub strangers: AtomicU64,
    /// So many of them the audit log has.
    strangers_noted: AtomicU64,
    /// Raised when the server is asked to stop.
    cancellation: Cancellation,
    /// Held while this server writes the audit log of its state folder.
    _lock: File,
}

/// Takes the state folder for this server alone: two that write one audit log would break its chain.
pub fn lock_state(state_folder: &Path) -> Result<File, ServingError> {
    let path = state_folder.join("serve.lock");
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file =
        open.map_err(|source| ServingError::StateFolder { path: path.clone(), problem: source.to_string() })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServingError::StateInUse { folder: state_folder.to_path_buf() }),
        Err(TryLockError::Error(source)) => {
            Err(ServingError::StateFolder { path, problem: source.to_string() })
        }
    }
}

/// Serves until `context.cancellation` is raised and the requests under way are answered. Blocks; `bound` is told the
/// address once the socket listens (with port 0 the one that was given).
pub fn serve(
    settings: &ServeSettings,
    models: Vec<ServedModel>,
    context: &Context,
    bound: impl FnOnce(SocketAddr),
) -> Result<ServeReport, ServingError> {
    serve_with(settings, models, context, Controls::default(), bound)
}

/// Like [`serve`], with settings that can be read again while it runs.
pub fn serve_with(
    settings: &ServeSettings,
    models: Vec<ServedModel>,
    context: &Context,
    controls: Controls,
    bound: impl FnOnce(SocketAddr),
) -> Result<ServeReport, ServingError> {
    settings.check()?;
    let server = Arc::new(Server::open(settings, models, context)?);
    server.warn_of_policies();
    server.audit.append_and_wait(server.started())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(context.threads.clamp(1, 16))
        .max_blocking_threads(ENCODING_THREADS)
        .thread_name("serving")
        .enable_all()
        .build()
        .map_err(ServingError::Runtime)?;
    let connections = runtime.block_on(listen(&server, controls, bound))?;
    // Whatever did not end in time ends here; its accounts are settled as abandoned.
    runtime.shutdown_timeout(Duration::from_secs(1));
    server.note_strangers();
    server.note_refused_sign_ins(true);
    server.note_refused();
    server.note_used_keys();
    let report = ServeReport {
        connections,
        requests: server.requests.load(Ordering::Relaxed),
        refused_strangers: server.strangers.load(Ordering::Relaxed),
    };
    let stopped = AuditEvent::new("server_stopped")
        .with("requests", report.requests)
        .with("refused_strangers", report.refused_strangers);
    server.audit.append_and_wait(stopped)?;
    server.usage.lock().unwrap_or_else(PoisonError::into_inner).catch_up()?;
    tracing::info!(report.connections, report.requests, report.refused_strangers, "stopped");
    Ok(report)
}

/// Binds the sockets and answers on them until the wish to stop. Returns how many connections there were.
async fn listen(
    server: &Arc<Server>,
    controls: Controls,
    bound: impl FnOnce(SocketAddr),
) -> Result<u64, ServingError> {
    let settings = server.settings();
    let (listener, address) = bind(settings.address).await?;
    let probes = match settings.operations_address {
        Some(address) => Some(bind(address).await?.0),
        None => None,
    };
    tracing::info!(%address, tls = server.certificates.is_some(), "listening");
    bound(address);
    let (stop, stopping) = watch::channel(false);
    server.parts().upstreams.watch();
    let background =
        [tokio::spawn(count_strangers(server.clone())), tokio::spawn(keep_up(server.clone(), controls))];
    let (last_span, ending) = watch::channel(false);
    let exporting = tokio::spawn(server.tracer.clone().export(ending));
    let main = Listening {
        listener,
        certificates: server.certificates.clone(),
        router: routes::router(server),
        settings: server.settings.clone(),
        places: settings.maximum_connections,
    };
    // Probes are answered until the last request is: they say that the server is going.
    let probes = probes.map(|listener| Listening {
        listener,
        certificates: None,
        router: probes::router(server),
        settings: server.settings.clone(),
        places: probes::PLACES,
    });
    let (last_probe, no_probes) = watch::channel(false);
    let probing = probes.map(|probes| tokio::spawn(connection::accept(probes, no_probes)));
    let accepting = tokio::spawn(connection::accept(main, stopping));
    while !server.is_draining() {
        tokio::time::sleep(STOP_CHECK).await;
    }
    tracing::info!("asked to stop; requests under way are answered");
    tokio::time::sleep(server.settings().drain_grace()).await;
    stop.send_replace(true);
    let connections = accepting.await.unwrap_or_else(|error| {
        tracing::error!(problem = %error, "the task that accepts connections ended early");
        0
    });
    for task in background {
        task.abort();
    }
    last_span.send_replace(true);
    // A collector that does not answer is not waited for.
    let _ = timeout(EXPORT_END, exporting).await;
    last_probe.send_replace(true);
    if let Some(probing) = probing {
        probing.abort();
    }
    Ok(connections)
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServingError> {
    let bound = TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (bound, listener) = bound.map_err(|source| ServingError::Bind { address, source })?;
    Ok((listener, bound))
}

async fn count_strangers(server: Arc<Server>) {
    loop {
        tokio::time::sleep(STRANGERS_EVERY).await;
        server.note_strangers();
        server.note_refused_sign_ins(false);
        server.note_refused();
        let writing = server.clone();
        // Writing waits for the disk: not on the threads that serve connections.
        let _ = tokio::task::spawn_blocking(move || writing.note_used_keys()).await;
        server.count_usage().await;
    }
}

impl Server {
    fn open(
        settings: &ServeSettings,
        models: Vec<ServedModel>,
        context: &Context,
    ) -> Result<Server, ServingError> {
        let state_folder = settings.state.as_path();
        let certificates = settings.tls.as_ref().map(Certificates::load).transpose()?.map(Arc::new);
        let parts = Parts::open(settings)?;
        let elsewhere = parts.names();
        let models = Models::new(models, elsewhere.clone())?;
        let names = models.iter().map(|model| model.name.as_str());
        let metrics = Arc::new(Metrics::new(names.chain(elsewhere.iter().map(String::as_str))));
        let tracer = Arc::new(Tracer::open(settings.traces.as_ref(), context.clock.clone())?);
        let keys = KeyStore::open(state_folder)?;
        let lock = lock_state(state_folder)?;
        if keys.usable(seconds(&context.clock))? == 0 {
            // Keys are looked up afresh for every request: one that is made later opens this server at once.
            tracing::warn!(
                "no key opens this server yet; make one with `eulalia keys new --state {}`",
                state_folder.display()
            );
        }
        let user_secret = keys.store().secret("user_pseudonyms", &random_hex(32)?)?;
        let folder = state_folder.join(AUDIT_FOLDER);
        let audit = AuditLog::open(
            &folder,
            state_folder,
            &settings.audit,
            context.storage.clone(),
            context.clock.clone(),
        )?;
        // What a server that was killed left uncounted: daily limits begin with the truth.
        let mut usage = UsageCounter::new(&folder, Store::open(state_folder)?);
        usage.catch_up()?;
        Ok(Server {
            settings: Arc::new(Live::new(settings.clone())),
            certificates,
            cancellation: context.cancellation.clone(),
            models,
            keys,
            sessions: Sessions::new(settings.tls.is_some() || !settings.address.ip().is_loopback()),
            throttle: Throttle::new(Instant::now()),
            refused_sign_ins: RefusedSignIns::new(Instant::now()),
            audit: Arc::new(audit),
            exports: Arc::new(Semaphore::new(EXPORTS)),
            metrics,
            tracer,
            limiter: Arc::new(Limiter::new(Store::open(state_folder)?, context.clock.clone())),
            parts: Live::new(parts),
            usage: Arc::new(Mutex::new(usage)),
            clock: context.clock.clone(),
            user_secret,
            requests: AtomicU64::new(0),
            strangers: AtomicU64::new(0),
            strangers_noted: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// The settings as they are now. A request asks once and keeps what it was given.
    pub fn settings(&self) -> Arc<ServeSettings> {
        self.settings.get()
    }

    /// What is made of the settings as they are now. A request asks once for what belongs together.
    pub fn parts(&self) -> Arc<Parts> {
        self.parts.get()
    }

    /// Makes the parts that other settings ask for; on an error nothing changes. Blocks for some seconds at most.
    pub fn make_parts(&self, settings: &ServeSettings) -> Result<Parts, ServingError> {
        let parts = Parts::reopen(settings, &self.parts())?;
        self.models.check_elsewhere(&parts.names())?;
        Ok(parts)
    }

    /// Puts other settings in their place, and what was made of them.
    pub fn replace_settings(&self, settings: ServeSettings, parts: Parts) {
        let names = parts.names();
        self.metrics.learn(names.iter().map(String::as_str));
        self.models.set_elsewhere(names);
        parts.upstreams.watch();
        self.parts.replace(parts);
        self.settings.replace(settings);
    }

    /// Whether it was asked to stop.
    pub fn is_draining(&self) -> bool {
        self.cancellation.is_cancelled()
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u64 {
        seconds(&self.clock)
    }

    /// The seed that a request named, or a random one.
    pub fn seed(&self, wanted: Option<u64>) -> Result<u64, ApiFailure> {
        match wanted {
            Some(seed) => Ok(seed),
            None => random_seed().map_err(|error| ApiFailure::internal(&error.to_string())),
        }
    }

    /// What stands for a person in logs: random, but the same for the same text.
    pub fn pseudonym(&self, text: &str) -> String {
        keyed_digest(self.user_secret.as_bytes(), text.as_bytes()).short()
    }

    /// Puts into the account which model answers, and for whom.
    pub fn describe(&self, account: &Account, model: &ServedModel, user: Option<&str>) {
        let pseudonym = user.map(|user| self.pseudonym_of_user(account, user));
        let mut details = account.details();
        details.model.clone_from(&model.name);
        details.digest.clone_from(&model.digest);
        details.user = pseudonym;
    }

    /// The same for a model of an engine elsewhere, whose weights nobody here has seen.
    pub fn describe_upstream(&self, account: &Account, model: &str, user: Option<&str>) {
        let pseudonym = user.map(|user| self.pseudonym_of_user(account, user));
        let mut details = account.details();
        details.model = model.to_string();
        details.user = pseudonym;
    }

    fn pseudonym_of_user(&self, account: &Account, user: &str) -> String {
        self.pseudonym(&format!("{}\n{user}", account.caller().tenant))
    }

    /// The filters for what this caller sends and is answered. A tenant whose policy names a chain that there is not is
    /// answered nothing: without its filters it might be answered too much.
    pub fn filters_for(&self, caller: &Caller) -> Result<Arc<Chain>, ApiFailure> {
        let name = caller.policy.filters.as_deref();
        self.parts().filters.of(name).cloned().ok_or_else(|| {
            let name = name.unwrap_or_default();
            ApiFailure::policy(&caller.tenant, &format!("there is no chain of filters `{name}`"))
        })
    }

    /// What policies of tenants can name.
    pub fn known_names(&self) -> Known {
        let parts = self.parts();
        let own = self.models.iter().map(|model| model.name.clone());
        Known {
            models: Some(own.chain(parts.names()).collect()),
            filters: parts.filters.names().map(String::from).collect(),
        }
    }

    /// Says in the log which policies name what is not there. Waits for the disk.
    pub fn warn_of_policies(&self) {
        let tenants = match self.keys.store().tenants() {
            Ok(tenants) => tenants,
            Err(error) => {
                return tracing::warn!(problem = %error, "the tenants' policies cannot be looked at");
            }
        };
        let known = self.known_names();
        for tenant in tenants.iter().filter(|tenant| tenant.removed_at.is_none()) {
            for missing in known.missing(&tenant.policy) {
                tracing::warn!(
                    tenant = tenant.id,
                    field = missing.field,
                    found = missing.name,
                    expected = missing.expected,
                    "a tenant's policy names what there is not: {}",
                    missing.consequence()
                );
            }
        }
    }

    fn started(&self) -> AuditEvent {
        let models: Vec<_> =
            self.models.iter().map(|model| json!({"name": model.name, "digest": model.digest})).collect();
        AuditEvent::new("server_started").with("models", models)
    }

    /// Counts what the audit log has said since the last time. What fails is tried again: nothing is lost by waiting.
    async fn count_usage(&self) {
        let usage = self.usage.clone();
        let counting = tokio::task::spawn_blocking(move || {
            usage.lock().unwrap_or_else(PoisonError::into_inner).follow()
        });
        if let Ok(Err(error)) = counting.await {
            tracing::warn!(problem = %error, "usage cannot be counted now");
        }
    }

    /// Requests refused for a limit, counted like strangers: a tenant that floods must not fill the disk either.
    fn note_refused(&self) {
        for (refused, count) in self.limiter.take_refused() {
            let event = AuditEvent::new("requests_refused")
                .with("tenant", refused.tenant)
                .with("key", refused.key_id)
                .with("limit", refused.limit)
                .with("count", count);
            self.audit.append(event, |_| {});
        }
    }

    /// Who tried to sign in and could not; whatever guesses, there are few lines (`refused_sign_ins`).
    fn note_refused_sign_ins(&self, all: bool) {
        for refused in self.refused_sign_ins.take(Instant::now(), all) {
            let mut event = AuditEvent::new("sign_in_refused");
            if let Some((address, reason)) = refused.of {
                let address = self.pseudonym(&format!("address\n{address}"));
                event = event.with("address", address).with("reason", reason);
            }
            self.audit.append(event.with("count", refused.count), |_| {});
        }
    }

    fn note_used_keys(&self) {
        if let Err(error) = self.keys.write_used() {
            tracing::warn!(problem = %error, "the days on which keys were last used cannot be written down");
        }
    }

    /// Those who came since the last time: the lines of the log add up to all of them.
    fn note_strangers(&self) {
        let all = self.strangers.load(Ordering::Relaxed);
        let count = all.saturating_sub(self.strangers_noted.swap(all, Ordering::Relaxed));
        if count > 0 {
            tracing::warn!(count, "requests without a valid key were refused");
            self.audit.append(AuditEvent::new("strangers_refused").with("count", count), |_| {});
        }
    }
}

fn seconds(clock: &Clock) -> u64 {
    clock.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_servers_never_share_a_state_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock_state(folder.path()).unwrap();
        let refused = lock_state(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("in use by another server") && refused.contains("--state"), "{refused}");
        drop(first);
        assert!(lock_state(folder.path()).is_ok());
    }
}
