//! `eulalia serve`: models on the network, behind keys.
//!
//! A folder with an adapter is served under two names: NAME is the model itself, NAME-chat answers with the adapter.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::Context as _;
use inference::{Engine, EngineError, EngineSettings, forecast};
use model::{ModelSizes, WeightFormat};
use serde_json::{Value, json};
use serving::{Controls, KeyStore, LogFormat, ModelSettings, Role, ServeSettings, ServedModel, TlsSettings};

use crate::arguments::ServeArguments;
use crate::commands::answering::cache_format;
use crate::commands::keys::seconds_since_1970;
use crate::commands::load::Checked;
use crate::commands::loading::{self, EndsAtOnce};
use crate::commands::serve_check;
use crate::commands::trust::{self, Trust};
use crate::errors::Usage;
use crate::run::World;

/// The adapter's name inside the engine, and what it adds to the model's name outside.
const ADAPTER: &str = "chat";

pub fn serve(arguments: &ServeArguments, world: &World) -> anyhow::Result<Value> {
    if arguments.models.is_empty() && arguments.config.is_none() {
        let message = "there is nothing to serve: name a model, as in `eulalia serve NAME=FOLDER`, or a file of settings, as \
                       in `eulalia serve --config FILE`";
        return Err(Usage(message.into()).into());
    }
    if arguments.check {
        return Ok(serve_check::check(settings(arguments), arguments.offline, world));
    }
    let settings = settings(arguments)?;
    // Before anything is loaded: an address that must not be listened on is no reason to wait.
    settings.check()?;
    // Before the models too: a wish to reload must not end a server that still loads.
    let controls = controls(arguments)?;
    let trust = Trust::of(&settings)?;
    serving::start_log(settings.log, world.clock.clone(), Box::new(std::io::stderr()));
    serving::log_panics();
    let mut models = Vec::new();
    // Nothing is written before the models stand. Whoever ends a service means no failure.
    let ends = EndsAtOnce::new(world, 0);
    for model in &settings.models {
        models.extend(load_model(model, &trust, world)?);
    }
    drop(ends);
    welcome_key(&settings.state, world)?;
    let context = world.context();
    // A log in JSON is read by programs: it says the same, and nothing stands between its lines.
    let say = |text: &str| {
        if settings.log.format == LogFormat::Text {
            world.console.say(text);
        }
    };
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let elsewhere = settings.upstreams.iter().flat_map(|upstream| upstream.models.keys().cloned());
    let names: Vec<String> = models.iter().map(|model| model.name.clone()).chain(elsewhere).collect();
    let report = serving::serve_with(&settings, models, &context, controls, |address| {
        say(&format!("Serving {} at {scheme}://{address}/v1", names.join(", ")));
        say("Ctrl-C or SIGTERM ends the server once the requests under way are answered.");
    })?;
    say(&format!(
        "Served {} requests over {} connections; refused {} without a valid key.",
        report.requests, report.connections, report.refused_strangers
    ));
    Ok(json!({
        "requests": report.requests, "connections": report.connections,
        "refused_strangers": report.refused_strangers,
    }))
}

/// SIGHUP reads the settings again, the command line included.
fn controls(arguments: &ServeArguments) -> anyhow::Result<Controls> {
    let arguments = arguments.clone();
    let read = move || settings(&arguments).map_err(|error| format!("{error:#}"));
    let controls = Controls { read_settings: Some(Box::new(read)), ..Controls::default() };
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGHUP, controls.reload.clone())
        .context("cannot listen for SIGHUP")?;
    Ok(controls)
}

/// What the file says, overruled by what the command line says.
fn settings(arguments: &ServeArguments) -> anyhow::Result<ServeSettings> {
    let mut settings = match &arguments.config {
        Some(path) => ServeSettings::from_file(path)?,
        None => ServeSettings::default(),
    };
    if let Some(address) = arguments.listen {
        settings.address = address;
    }
    if let Some(state) = &arguments.state {
        settings.state.clone_from(state);
    }
    if let Some((certificate, private_key)) = arguments.tls_certificate.clone().zip(arguments.tls_key.clone())
    {
        // What the file says of clients' certificates holds all the same.
        let base = settings.tls.take().unwrap_or_else(|| TlsSettings::new(PathBuf::new(), PathBuf::new()));
        settings.tls = Some(TlsSettings { certificate, private_key, ..base });
    }
    if let Some(format) = arguments.log_format {
        settings.log.format = format;
    }
    if let Some(level) = arguments.log_level {
        settings.log.level = level;
    }
    settings.allow_plain_http |= arguments.allow_plain_http;
    for argument in &arguments.models {
        settings.models.push(model_argument(argument)?);
    }
    for model in &mut settings.models {
        if let Some(weights) = arguments.weights {
            model.weights = Some(weights.name().to_string());
        }
        if let Some(format) = arguments.kv_cache {
            model.kv_cache = Some(format.name().to_string());
        }
        model.memory = arguments.memory.or(model.memory);
        model.speculation = arguments.speculation.or(model.speculation);
        model.allow_unverified |= arguments.allow_unverified;
        if arguments.no_prefix_cache {
            model.prefix_cache = Some(false);
        }
    }
    settings.signatures.trusted_keys.extend(arguments.trust_key.iter().cloned());
    trust::allow_unsigned(&arguments.allow_unsigned, &mut settings.models)?;
    Ok(settings)
}

fn model_argument(argument: &str) -> anyhow::Result<ModelSettings> {
    let (name, path) = match argument.split_once('=') {
        Some(("", _)) => {
            return Err(Usage(format!("{argument}: expected NAME=FOLDER, the name is empty")).into());
        }
        Some((name, path)) => (Some(name.to_string()), path),
        None => (None, argument),
    };
    Ok(ModelSettings {
        name,
        path: PathBuf::from(path),
        weights: None,
        kv_cache: None,
        memory: None,
        speculation: None,
        prefix_cache: None,
        allow_unverified: false,
        signature: None,
        public_key: None,
        allow_unsigned: false,
    })
}

fn load_model(settings: &ModelSettings, trust: &Trust, world: &World) -> anyhow::Result<Vec<ServedModel>> {
    let checked = trust.check(settings, world)?;
    let folder = &checked.folder;
    let name = settings.name.clone().unwrap_or_else(|| checked.name.clone());
    let engine_settings = engine_settings(settings, &name, &checked, world)?;
    if let Ok(sizes) = ModelSizes::of_path(folder, engine_settings.weights) {
        // Better known before gigabytes are read.
        forecast(&sizes, &engine_settings).map_err(in_words).with_context(|| format!("model {name}"))?;
    }
    world.console.say(&format!("Loading {name} from {}", settings.path.display()));
    let engine = Arc::new(
        loading::shown(&name, world, |watch| Engine::start_watched(folder, &engine_settings, watch))
            .map_err(in_words)
            .with_context(|| format!("cannot load {}", folder.display()))?,
    );
    let inference::EngineMemory { weights_bytes, cache_bytes, workspace_bytes } = engine.memory();
    world.console.say(&format!(
        "  {} of weights, up to {} of cache and {} of buffers",
        crate::console::bytes(weights_bytes),
        crate::console::bytes(cache_bytes),
        crate::console::bytes(workspace_bytes)
    ));
    // What was checked is what was loaded.
    checked.seal.check()?;
    match trust::in_words(&name, &checked.standing) {
        (true, line) => world.console.say(&line),
        (false, line) => world.progress.warn(&line),
    }
    for key in &engine.defaults().not_followed {
        world.progress.warn(&format!("{name}: generation_config.json: `{key}` is not followed here"));
    }
    let digest = checked.digest.unwrap_or_default();
    let created = created(folder);
    let served = |name: String, adapter: Option<&str>| ServedModel {
        name,
        engine: engine.clone(),
        adapter: adapter.map(String::from),
        digest: digest.clone(),
        created,
    };
    let adapters = [None, Some(ADAPTER)];
    let names = names_of(&name, checked.adapter.is_some());
    Ok(names.into_iter().zip(adapters).map(|(name, adapter)| served(name, adapter)).collect())
}

/// What clients call a model of this name, and the model with its adapter, where it has one.
pub fn names_of(name: &str, has_adapter: bool) -> Vec<String> {
    let adapted = has_adapter.then(|| format!("{name}-{ADAPTER}"));
    [Some(name.to_string()), adapted].into_iter().flatten().collect()
}

/// How the settings want an engine to run.
pub fn engine_settings(
    settings: &ModelSettings,
    name: &str,
    checked: &Checked,
    world: &World,
) -> anyhow::Result<EngineSettings> {
    let weights = match &settings.weights {
        Some(weights) => WeightFormat::of_name(weights).ok_or_else(|| {
            let known = WeightFormat::ALL.map(WeightFormat::name).join(", ");
            Usage(format!("model {name}: weights: expected one of {known}, stored, found {weights}"))
        })?,
        None => WeightFormat::Stored,
    };
    let kv_cache = settings.kv_cache.as_ref().map(|format| {
        cache_format(format)
            .map_err(|expected| Usage(format!("model {name}: kv_cache: {expected}, found {format}")))
    });
    let kv_cache = kv_cache.transpose()?;
    let mut engine_settings = EngineSettings {
        leaves_room: true,
        threads: world.threads,
        weights,
        kv_cache,
        speculation: settings.speculation.unwrap_or(0),
        prefix_cache: settings.prefix_cache.unwrap_or(true),
        ..EngineSettings::default()
    };
    engine_settings.memory_bytes = settings.memory.map(|mebibytes| mebibytes << 20);
    if let Some(adapter) = &checked.adapter {
        engine_settings.adapters.insert(ADAPTER.into(), adapter.clone());
    }
    Ok(engine_settings)
}

/// An engine's error in the words of the server's settings.
pub fn in_words(error: EngineError) -> anyhow::Error {
    let EngineError::Memory { budget, weights, workspace, block, least } = error else {
        return error.into();
    };
    let [weights, workspace, block] = [weights, workspace, block].map(crate::console::bytes);
    Usage(format!(
        "--memory {} (`memory` of the model, in MiB) is too little: the weights take {weights}, buffers {workspace} and the \
         least cache {block}; give at least {}",
        budget >> 20,
        least.div_ceil(1 << 20)
    ))
    .into()
}

fn created(folder: &Path) -> u64 {
    let file = if folder.is_file() { folder.to_path_buf() } else { folder.join("config.json") };
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    modified.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}

/// A server that nobody can open makes a key on a terminal; into a journal it never writes one, there its log says so.
fn welcome_key(state: &Path, world: &World) -> anyhow::Result<()> {
    let store = KeyStore::open(state)?;
    let now = seconds_since_1970(world);
    if store.usable(now)? == 0 && std::io::stderr().is_terminal() {
        let made = store.new_key("default", "first start", Role::Admin, None, now)?;
        world.console.say("There was no key yet. This one is shown once; only its hash is kept:");
        world.console.say(&format!("  {}", made.key));
    }
    Ok(())
}
