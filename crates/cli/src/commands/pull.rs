//! `eulalia pull`: a model from the catalogue, a hub or a bundle into a folder that the other commands open.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use anyhow::Context as _;
use hub::address::PREFIX;
use hub::selection::LeftOut;
use hub::{Address, Catalogue, DEFAULT_ENDPOINT, Hub, HubSettings, Model, Plan, Source};
use serde_json::{Value, json};

use crate::arguments::PullArguments;
use crate::console::{self, printable};
use crate::errors::{Usage, suggestion, to_output};
use crate::machine;
use crate::run::World;

/// Where models go that are given no folder.
const MODELS_FOLDER: &str = "models";
/// No token is longer.
const LONGEST_TOKEN: usize = 4096;
/// The official languages of the European Union.
const OFFICIAL_LANGUAGES: usize = 24;

pub fn pull(arguments: &PullArguments, json: bool, world: &World) -> anyhow::Result<Value> {
    let catalogue = Catalogue::embedded();
    match (&arguments.model, &arguments.from_bundle) {
        (None, Some(bundle)) => unpack(bundle, arguments.to.as_deref(), world),
        (Some(name), None) => fetch(name, &catalogue, arguments, world),
        _ => {
            if !json {
                to_output(writeln!(std::io::stdout().lock(), "{}", list(&catalogue)))?;
            }
            Ok(json!({ "models": catalogue.models }))
        }
    }
}

fn fetch(
    name: &str,
    catalogue: &Catalogue,
    arguments: &PullArguments,
    world: &World,
) -> anyhow::Result<Value> {
    let (address, entry) = resolve(name, catalogue)?;
    let settings = HubSettings::default();
    let hub = connect(arguments.mirror.as_deref(), arguments.token_file.as_deref(), settings, world)?;
    let plan = hub::plan(&hub, &address, &arguments.file, &world.cancellation)?;
    let folder = arguments.to.clone().unwrap_or_else(|| {
        Path::new(MODELS_FOLDER).join(entry.map_or_else(|| address.folder_name(), |model| model.name.clone()))
    });
    let missing = plan.missing_bytes(&folder);
    show(&plan, entry, &folder, missing, &hub, world);
    if missing > 0 && !arguments.yes {
        agree(&plan, world)?;
    }
    let context = world.context();
    let pulled = hub::fetch(&hub, &plan, &folder, machine::free_bytes, &context)?;
    for path in &pulled.replaced {
        world.console.say(&format!("{}: was not what it should be, and has been replaced", printable(path)));
    }
    let done = match pulled.fetched {
        0 => format!("{} is complete: {} checked", folder.display(), files(pulled.verified)),
        _ => format!(
            "{}: {} fetched, {} checked",
            folder.display(),
            files(pulled.fetched),
            files(pulled.verified)
        ),
    };
    world.console.say(&world.console.bold(&done));
    let bundle = match &arguments.bundle {
        None => Value::Null,
        Some(path) => {
            let digest = hub::bundle::write(&folder, path, &context)?;
            world.console.say(&format!("{}  {}", digest, path.display()));
            json!({ "file": path.display().to_string(), "sha256": digest.to_string() })
        }
    };
    say_next(&folder, world);
    Ok(json!({
        "folder": folder.display().to_string(),
        "source": serde_json::to_value(&pulled.source)?,
        "fetched": pulled.fetched,
        "verified": pulled.verified,
        "replaced": pulled.replaced,
        "left_out": left_out(&plan),
        "bundle": bundle,
    }))
}

fn unpack(bundle: &Path, to: Option<&Path>, world: &World) -> anyhow::Result<Value> {
    let source = hub::bundle::source(bundle)?;
    let folder = match to {
        Some(folder) => folder.to_path_buf(),
        None => {
            // A bundle is a stranger's file: its name is checked like any other.
            let address = Address::new(&source.repository, "main").map_err(|problem| {
                anyhow::anyhow!("{}: {problem}; name the folder with --to", bundle.display())
            })?;
            Path::new(MODELS_FOLDER).join(address.folder_name())
        }
    };
    let bytes: u64 = source.files.iter().map(|file| file.bytes).sum();
    if let Some(free) = machine::free_bytes(&folder).filter(|free| *free < bytes) {
        return Err(hub::Error::Space { folder, needed: bytes, free }.into());
    }
    let Source { repository, commit, license, files: contents, .. } =
        hub::bundle::unpack(bundle, &folder, &world.context())?;
    let license = license.unwrap_or_else(|| "not stated".to_string());
    world.console.say(&format!(
        "{}: {} of {} at {}, every digest checked; licence: {}",
        folder.display(),
        files(contents.len()),
        printable(&repository),
        printable(&commit),
        printable(&license)
    ));
    say_next(&folder, world);
    Ok(
        json!({ "folder": folder.display().to_string(), "repository": repository, "commit": commit, "files": contents.len() }),
    )
}

/// Which repository a name means.
pub fn resolve<'a>(name: &str, catalogue: &'a Catalogue) -> anyhow::Result<(Address, Option<&'a Model>)> {
    if name.starts_with(PREFIX) {
        let address = Address::parse(name).map_err(|error| Usage(error.to_string()))?;
        let entry = catalogue.models.iter().find(|model| model.repository == address.repository);
        return Ok((address, entry));
    }
    let Some(model) = catalogue.find(name) else {
        let names: Vec<&str> = catalogue.models.iter().map(|model| model.name.as_str()).collect();
        let hint = suggestion(name, names);
        return Err(Usage(format!(
            "`{name}` is no name of the catalogue{hint} (any other repository: {PREFIX}ORG/REPOSITORY)"
        ))
        .into());
    };
    let address = model.address().map_err(anyhow::Error::msg)?;
    Ok((address, Some(model)))
}

/// The hub that flags and environment name, as whom they say; otherwise as `settings` say.
pub fn connect(
    mirror: Option<&str>,
    token_file: Option<&Path>,
    settings: HubSettings,
    world: &World,
) -> anyhow::Result<Hub> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let endpoint = mirror.map(str::to_string).or_else(|| variable("HF_ENDPOINT"));
    let endpoint = endpoint.unwrap_or_else(|| DEFAULT_ENDPOINT.to_string());
    let token = match (token_file, variable("HF_TOKEN")) {
        (Some(path), _) => Some(read_token(path)?),
        // Whoever runs a mirror is not whom the token was made for.
        (None, Some(_)) if endpoint.trim_end_matches('/') != DEFAULT_ENDPOINT => {
            world.console.say(&format!(
                "  HF_TOKEN is not sent to {endpoint}; if that host may have it, give it with --token-file"
            ));
            None
        }
        (None, token) => token.map(|token| token.trim().to_string()),
    };
    Ok(Hub::new(HubSettings { endpoint, token, ..settings })?)
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(LONGEST_TOKEN as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|_| anyhow::anyhow!("{}: expected a token and nothing else", path.display()))?;
    let token = text.trim();
    if token.is_empty() || token.len() > LONGEST_TOKEN || token.contains(char::is_whitespace) {
        anyhow::bail!("{}: expected a token and nothing else", path.display());
    }
    Ok(token.to_string())
}

/// What is about to be fetched, and under which conditions.
fn show(plan: &Plan, entry: Option<&Model>, folder: &Path, missing: u64, hub: &Hub, world: &World) {
    let listing = &plan.listing;
    let mut rows = vec![
        ("repository", format!("{} at {}", hub.page(&listing.repository), listing.commit)),
        ("files", format!("{}, {} in all", files(plan.wanted.len()), console::bytes(plan.bytes()))),
        ("to fetch", format!("{} into {}", console::bytes(missing), folder.display())),
        ("licence, as published", license(plan)),
    ];
    if let Some(model) = entry {
        rows.insert(1, ("publisher", model.publisher.clone()));
        if !model.conditions.is_empty() {
            rows.push(("conditions", model.conditions.clone()));
        }
        if !model.note.is_empty() {
            rows.push(("note", model.note.clone()));
        }
    }
    if listing.gated {
        rows.push((
            "gated",
            "access only after accepting the publisher's conditions on that page".to_string(),
        ));
    }
    let pickled: Vec<&str> = plan
        .left_out
        .iter()
        .filter(|(_, reason)| *reason == LeftOut::Pickle)
        .map(|(path, _)| path.as_str())
        .collect();
    if !plan.left_out.is_empty() {
        let mut text = format!("{} not needed", files(plan.left_out.len()));
        if !pickled.is_empty() {
            text.push_str(&format!(", of these pickled and never fetched: {}", pickled.join(", ")));
        }
        rows.push(("left out", text));
    }
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|(name, value)| vec![name.to_string(), printable(&value)]).collect();
    world.console.say(&console::table(&["pull", ""], &rows, 2));
}

fn license(plan: &Plan) -> String {
    let name = plan.listing.license.as_deref().unwrap_or("not stated: see its page before you use it");
    match &plan.listing.license_link {
        Some(link) => format!("{name} ({link})"),
        None => name.to_string(),
    }
}

/// Asks on the terminal; without one, somebody has to have said --yes.
fn agree(plan: &Plan, world: &World) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        let license = license(plan);
        return Err(Usage(format!(
            "nobody can be asked about the licence ({}) here: read it, and say --yes",
            printable(&license)
        ))
        .into());
    }
    eprint!("Fetch it under this licence? [y/N] ");
    std::io::stderr().flush()?;
    let (sender, receiver) = std::sync::mpsc::channel();
    // On a thread of its own, so that Ctrl-C is heard while it waits.
    std::thread::spawn(move || {
        let mut answer = String::new();
        let _ = std::io::stdin().lock().read_line(&mut answer);
        let _ = sender.send(answer);
    });
    loop {
        world.cancellation.check()?;
        match receiver.recv_timeout(Duration::from_millis(100)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(answer) if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") => return Ok(()),
            _ => return Err(anyhow::anyhow!("nothing was fetched")),
        }
    }
}

fn left_out(plan: &Plan) -> Vec<Value> {
    plan.left_out.iter().map(|(path, why)| json!({ "path": path, "reason": why.describe() })).collect()
}

fn say_next(folder: &Path, world: &World) {
    let folder: PathBuf = folder.to_path_buf();
    world.console.say(&format!("  next: eulalia doctor {0}, eulalia chat {0}", folder.display()));
}

fn files(number: usize) -> String {
    console::counted(number as u64, "file")
}

/// The catalogue as a table.
fn list(catalogue: &Catalogue) -> String {
    let rows: Vec<Vec<String>> = catalogue
        .models
        .iter()
        .map(|model| {
            let gated = match model.gated {
                Some(true) => "yes",
                Some(false) => "no",
                None => "",
            };
            let languages = match model.languages.len() {
                OFFICIAL_LANGUAGES => "all 24".to_string(),
                0 => "not named".to_string(),
                number if number > 8 => format!("{number} of 24"),
                _ => model.languages.join(" "),
            };
            vec![
                model.name.clone(),
                languages,
                model.license.clone(),
                gated.to_string(),
                model.suggested_use.clone(),
                format!("{} B", model.parameters_billions),
                console::bytes(model.approximate_bytes),
            ]
        })
        .collect();
    let header = ["name", "languages", "licence", "gated", "use", "parameters", "size"];
    format!(
        "{}\n\n  As published; licence and gating are asked of the hub again before a pull.",
        console::table(&header, &rows, 5)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        let catalogue = Catalogue::embedded();
        let (address, entry) = resolve("EuroLLM-1.7B-Instruct", &catalogue).unwrap();
        assert_eq!(address.repository, "utter-project/EuroLLM-1.7B-Instruct");
        assert!(entry.is_some());
        let (address, entry) = resolve("hf:nobody/nothing@v2", &catalogue).unwrap();
        assert_eq!((address.revision.as_str(), entry), ("v2", None));
        let error = resolve("eurollm-1.7b-instuct", &catalogue).unwrap_err().to_string();
        assert!(error.contains("did you mean \"eurollm-1.7b-instruct\""), "{error}");
    }

    #[test]
    fn a_token_is_one_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, " hf_secret\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), "hf_secret");
        for wrong in ["", "hf_secret hf_other", "\u{0}\n\n a"] {
            std::fs::write(&path, wrong).unwrap();
            let error = read_token(&path).unwrap_err().to_string();
            assert!(error.contains("a token and nothing else") && !error.contains("hf_"), "{error}");
        }
        std::fs::write(&path, "x".repeat(5000)).unwrap();
        assert!(read_token(&path).is_err());
    }
}
