//! `eulalia serve`: models on the network, behind keys.
//!
//! A folder with an adapter is served under two names: NAME is the model itself, NAME-chat answers with the adapter.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use inference::{Engine, EngineSettings};
use provenance::digest::{files_below, join, sha256_file, sha256_of_set};

use serde_json::{Value, json};
use serving::{KeyStore, ServeSettings, ServedModel, TlsSettings};

use crate::arguments::ServeArguments;
use crate::commands::keys::seconds_since_1970;
use crate::commands::load;
use crate::errors::Usage;
use crate::run::World;

/// The adapter's name inside the engine, and what it adds to the model's name outside.
const ADAPTER: &str = "chat";

pub fn serve(arguments: &ServeArguments, world: &World) -> anyhow::Result<Value> {
    let settings = settings(arguments);
    // Before anything is loaded: an address that must not be listened on is no reason to wait.
    settings.check()?;
    let mut models = Vec::new();
    for argument in &arguments.models {
        models.extend(load_model(argument, arguments, world)?);
    }
    welcome_key(&arguments.state, world)?;
    let context = world.context();
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let names: Vec<String> = models.iter().map(|model| model.name.clone()).collect();
    let report = serving::serve(&settings, &arguments.state, models, &context, |address| {
        world.console.say(&format!("Serving {} at {scheme}://{address}/v1", names.join(", ")));
        world.console.say("Ctrl-C or SIGTERM ends the server once the requests under way are answered.");
    })?;
    world.console.say(&format!(
        "Served {} requests over {} connections; refused {} without a valid key.",
        report.requests, report.connections, report.refused_strangers
    ));
    Ok(json!({
        "requests": report.requests, "connections": report.connections,
        "refused_strangers": report.refused_strangers,
    }))
}

fn settings(arguments: &ServeArguments) -> ServeSettings {
    let tls = arguments.tls_certificate.clone().zip(arguments.tls_key.clone());
    ServeSettings {
        address: arguments.listen,
        tls: tls.map(|(certificate, private_key)| TlsSettings { certificate, private_key }),
        allow_plain_http: arguments.allow_plain_http,
        ..ServeSettings::default()
    }
}

fn load_model(argument: &str, arguments: &ServeArguments, world: &World) -> anyhow::Result<Vec<ServedModel>> {
    let (name, folder) = match argument.split_once('=') {
        Some((name, folder)) => (Some(name.to_string()), PathBuf::from(folder)),
        None => (None, PathBuf::from(argument)),
    };
    if name.as_deref() == Some("") {
        return Err(Usage(format!("{argument}: expected NAME=FOLDER, the name is empty")).into());
    }
    let checked = load::check(&folder, arguments.allow_unverified, world)?;
    let name = name.unwrap_or(checked.name);
    let mut engine_settings = EngineSettings {
        threads: world.threads,
        weights: arguments.weights,
        speculation: arguments.speculation,
        prefix_cache: !arguments.no_prefix_cache,
        ..EngineSettings::default()
    };
    engine_settings.memory_bytes = arguments.memory.map(|mebibytes| mebibytes << 20);
    if let Some(adapter) = &checked.adapter {
        engine_settings.adapters.insert(ADAPTER.into(), adapter.clone());
    }
    world.console.say(&format!("Loading {name} from {}", folder.display()));
    let engine = Arc::new(
        Engine::start(&folder, &engine_settings)
            .with_context(|| format!("cannot load {}", folder.display()))?,
    );
    for key in &engine.defaults().not_followed {
        world.progress.warn(&format!("{name}: generation_config.json: `{key}` is not followed here"));
    }
    let digest = match checked.digest {
        Some(digest) => digest,
        None => digest_of(&folder)?,
    };
    let created = created(&folder);
    let served = |name: String, adapter: Option<&str>| ServedModel {
        name,
        engine: engine.clone(),
        adapter: adapter.map(String::from),
        digest: digest.clone(),
        created,
    };
    let mut models = vec![served(name.clone(), None)];
    if checked.adapter.is_some() {
        models.push(served(format!("{name}-{ADAPTER}"), Some(ADAPTER)));
    }
    Ok(models)
}

/// What names a model that is no release: the digest of its files, or of its one file.
fn digest_of(folder: &Path) -> anyhow::Result<String> {
    if folder.is_file() {
        return Ok(sha256_file(folder)?.to_string());
    }
    let mut files = Vec::new();
    for relative in files_below(&folder.canonicalize()?)? {
        files.push((relative.clone(), sha256_file(&join(folder, &relative))?));
    }
    Ok(sha256_of_set(files.iter().map(|(path, digest)| (path.as_str(), *digest))).to_string())
}

fn created(folder: &Path) -> u64 {
    let file = if folder.is_file() { folder.to_path_buf() } else { folder.join("config.json") };
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}

/// A server that nobody can open says so. On a terminal it makes a key; into a journal it never writes one.
fn welcome_key(state: &Path, world: &World) -> anyhow::Result<()> {
    let store = KeyStore::open(state)?;
    let now = seconds_since_1970(world);
    if store.usable(now)? > 0 {
        return Ok(());
    }
    if std::io::stderr().is_terminal() {
        let made = store.new_key("default", "first start", None, now)?;
        world.console.say("There was no key yet. This one is shown once; only its hash is kept:");
        world.console.say(&format!("  {}", made.key));
    } else {
        world.progress.warn(&format!(
            "there is no key, so nobody can use this server; make one with: eulalia keys new --state {}",
            state.display()
        ));
    }
    Ok(())
}
