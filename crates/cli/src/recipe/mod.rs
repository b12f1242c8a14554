//! A recipe: one TOML file of named stage instances, checked in full before any work starts.
//!
//! ```toml
//! format = 1
//! name = "tiny"
//!
//! [corpus]                      # an instance; its kind is its name unless `kind = "…"` says otherwise
//! documents = "../samples/tiny/documents"
//!
//! [tokenizer]
//! from = { corpus = "corpus" }  # a role filled by another instance, or by a folder ("./elsewhere/corpus")
//! vocabulary_size = 512
//! ```
//!
//! Paths are relative to the recipe. Whatever is unknown, of the wrong type or missing is an error that names file,
//! line and key, and the nearest key that exists.

pub mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::errors::{Usage, suggestion};
use crate::kinds::{KINDS, Kind};
use document::{Entry, Node, describe_json};

/// The recipe format that this program reads.
pub const FORMAT: i64 = 1;

/// A checked recipe; its instances in an order in which each comes after those it takes from.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub name: String,
    pub description: String,
    pub instances: Vec<Instance>,
}

/// One stage of a recipe.
#[derive(Clone, Debug)]
pub struct Instance {
    pub name: String,
    pub kind: &'static Kind,
    /// Who fills each role.
    pub from: BTreeMap<String, Source>,
    /// Files and folders of the owner, by key.
    pub files: BTreeMap<String, Vec<PathBuf>>,
    /// Every setting, defaults filled in.
    pub settings: Value,
    /// `from` and the owner's files as the recipe writes them.
    pub written: Map<String, Value>,
}

/// Where a role's artefact comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Another instance of the recipe.
    Instance(String),
    /// A folder made elsewhere.
    Folder(PathBuf),
}

/// A change on the command line: `--set pretrain.steps=200`.
#[derive(Clone, Debug)]
pub struct Override {
    pub instance: String,
    pub key: String,
    pub value: Value,
}

impl std::str::FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected STAGE.KEY=VALUE such as pretrain.steps=200, found {text:?}");
        let (place, value) = text.split_once('=').ok_or_else(wrong)?;
        let (instance, key) = place.trim().split_once('.').ok_or_else(wrong)?;
        if instance.is_empty() || key.is_empty() {
            return Err(wrong());
        }
        Ok(Override {
            instance: instance.to_string(),
            key: key.to_string(),
            value: document::parse_value(value.trim()),
        })
    }
}

/// Reads and checks a recipe.
///
/// # Errors
/// The first thing that is wrong, with file, line and key.
pub fn read(path: &Path, overrides: &[Override]) -> Result<Recipe, Usage> {
    let shown = path.display();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if path.is_dir() => {
            return Err(Usage(format!("{shown}: expected a recipe file, found a folder ({error})")));
        }
        Err(error) => return Err(Usage(format!("{shown}: cannot read the recipe: {error}"))),
    };
    if bytes.len() > 1 << 20 {
        return Err(Usage(format!(
            "{shown}: a recipe has at most 1 MiB, this file has {} bytes",
            bytes.len()
        )));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        Usage(format!("{shown}: byte {}: the recipe is not UTF-8", error.utf8_error().valid_up_to()))
    })?;
    let entries = document::parse(path, &text)?;
    resolve(path, entries, overrides, Roles::Filled)
}

/// Whether every role that a stage needs must be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roles {
    /// As a run needs it.
    Filled,
    /// As an estimate does.
    MayBeMissing,
}

/// Turns the tree of a recipe into checked instances. `path` is the file it came from; relative paths start from its
/// folder.
pub fn resolve(
    path: &Path,
    entries: Vec<Entry>,
    overrides: &[Override],
    roles: Roles,
) -> Result<Recipe, Usage> {
    let at = Place { path };
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let mut recipe = Recipe { name: String::new(), description: String::new(), instances: Vec::new() };
    let mut format = None;
    let mut tables = Vec::new();
    for entry in entries {
        match (entry.key.as_str(), entry.value) {
            ("format", Node::Value(Value::Number(number))) => format = number.as_i64(),
            ("name", Node::Value(Value::String(name))) => recipe.name = name,
            ("description", Node::Value(Value::String(text))) => recipe.description = text,
            ("format" | "name" | "description", other) => {
                return Err(at.line(
                    entry.line,
                    &entry.key,
                    format!("wrong type: found {}", other.describe()),
                ));
            }
            (_, Node::Table(settings)) => tables.push((entry.key, entry.line, settings)),
            (key, Node::Value(_)) => {
                let known = ["format", "name", "description"];
                let hint = suggestion(key, known);
                return Err(at.line(entry.line, key, format!("unknown key{hint}")));
            }
        }
    }
    match format {
        Some(FORMAT) => {}
        Some(other) => {
            return Err(Usage(format!(
                "{}: format {other} is not known; this program reads format {FORMAT}",
                path.display()
            )));
        }
        None => {
            return Err(Usage(format!("{}: the recipe must begin with `format = {FORMAT}`", path.display())));
        }
    }
    if tables.is_empty() {
        return Err(Usage(format!("{}: the recipe names no stage, such as [corpus]", path.display())));
    }
    let names: Vec<String> = tables.iter().map(|(name, ..)| name.clone()).collect();
    for change in overrides {
        if !names.contains(&change.instance) {
            let hint = suggestion(&change.instance, names.iter().map(String::as_str));
            return Err(Usage(format!(
                "--set {}.{}: the recipe has no stage \"{}\"{hint}",
                change.instance, change.key, change.instance
            )));
        }
    }
    for (name, line, mut settings) in tables {
        for change in overrides.iter().filter(|change| change.instance == name) {
            apply(&mut settings, change);
        }
        recipe.instances.push(instance(&at, &folder, name, line, settings, &names, roles)?);
    }
    recipe.instances = ordered(&at, recipe.instances)?;
    Ok(recipe)
}

/// Puts the value of `--set` in its place; `key` may go into nested tables with dots.
fn apply(settings: &mut Vec<Entry>, change: &Override) {
    let (key, rest) = match change.key.split_once('.') {
        Some((key, rest)) => (key, Some(rest)),
        None => (change.key.as_str(), None),
    };
    let position = settings.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
        settings.push(Entry { key: key.to_string(), line: 0, value: Node::Table(Vec::new()) });
        settings.len() - 1
    });
    let entry = &mut settings[position];
    entry.line = 0;
    match rest {
        None => entry.value = Node::Value(change.value.clone()),
        Some(rest) => {
            if let Node::Value(_) = entry.value {
                entry.value = Node::Table(Vec::new());
            }
            if let Node::Table(inner) = &mut entry.value {
                apply(inner, &Override { key: rest.to_string(), ..change.clone() });
            }
        }
    }
}

fn instance(
    at: &Place,
    folder: &Path,
    name: String,
    line: usize,
    settings: Vec<Entry>,
    names: &[String],
    roles: Roles,
) -> Result<Instance, Usage> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(at.line(line, &name, "a stage is named with letters, digits, - and _".into()));
    }
    let kind = kind_of(at, &name, line, &settings)?;
    let mut instance = Instance {
        name: name.clone(),
        kind,
        from: BTreeMap::new(),
        files: BTreeMap::new(),
        settings: (kind.defaults)(),
        written: Map::new(),
    };
    let defaults = instance.settings.as_object().cloned().unwrap_or_default();
    let changed = settings.iter().any(|entry| entry.line == 0);
    for entry in settings {
        let key = format!("{name}.{}", entry.key);
        if entry.key == "from" || kind.files.iter().any(|file| file.key == entry.key) {
            instance.written.insert(entry.key.clone(), entry.value.to_json());
        }
        if entry.key == "kind" {
            continue;
        } else if entry.key == "from" {
            instance.from = sources(at, folder, &key, &entry, kind, names)?;
        } else if let Some(file) = kind.files.iter().find(|file| file.key == entry.key) {
            let paths = file_paths(at, folder, &key, &entry)?;
            if paths.len() > 1 && !file.many {
                return Err(at.line(entry.line, &key, "expected one path, found a list".into()));
            }
            instance.files.insert(entry.key, paths);
        } else if defaults.contains_key(&entry.key) {
            set(at, &key, &entry, kind, &mut instance.settings)?;
        } else {
            let known = defaults
                .keys()
                .map(String::as_str)
                .chain(kind.files.iter().map(|file| file.key))
                .chain(["kind", "from"]);
            let hint = suggestion(&entry.key, known);
            return Err(at.line(entry.line, &key, format!("unknown key{hint}")));
        }
    }
    for role in kind.roles.iter().filter(|role| role.required && roles == Roles::Filled) {
        if !instance.from.contains_key(role.name) {
            return Err(at.line(
                line,
                &name,
                format!(
                    "a {} stage needs `from = {{ {} = \"…\" }}`: the name of a {} stage or a folder",
                    kind.name,
                    role.name,
                    role.kinds.join(" or ")
                ),
            ));
        }
    }
    for file in kind.files.iter().filter(|file| file.required) {
        if !instance.files.contains_key(file.key) {
            return Err(at.line(
                line,
                &name,
                format!("a {} stage needs `{} = \"…\"`: {}", kind.name, file.key, file.what),
            ));
        }
    }
    let line = if changed { 0 } else { line };
    (kind.check)(&instance.settings).map_err(|problem| at.line(line, &name, problem))?;
    Ok(instance)
}

fn kind_of(at: &Place, name: &str, line: usize, settings: &[Entry]) -> Result<&'static Kind, Usage> {
    let (wanted, line) = match settings.iter().find(|entry| entry.key == "kind") {
        None => (name.to_string(), line),
        Some(Entry { value: Node::Value(Value::String(kind)), line, .. }) => (kind.clone(), *line),
        Some(entry) => {
            return Err(at.line(
                entry.line,
                &format!("{name}.kind"),
                format!("expected a text, found {}", entry.value.describe()),
            ));
        }
    };
    KINDS.iter().find(|kind| kind.name == wanted).ok_or_else(|| {
        let hint = suggestion(&wanted, KINDS.iter().map(|kind| kind.name));
        at.line(line, name, format!("there is no kind of stage \"{wanted}\"{hint}"))
    })
}

fn sources(
    at: &Place,
    folder: &Path,
    key: &str,
    entry: &Entry,
    kind: &Kind,
    names: &[String],
) -> Result<BTreeMap<String, Source>, Usage> {
    let example = kind.roles.first().map_or("corpus", |role| role.name);
    let Value::Object(given) = entry.value.to_json() else {
        return Err(at.line(
            entry.line,
            key,
            format!(
                "expected a table such as {{ {example} = \"{example}\" }}, found {}",
                entry.value.describe()
            ),
        ));
    };
    let mut sources = BTreeMap::new();
    for (role, value) in given {
        if !kind.roles.iter().any(|known| known.name == role) {
            let hint = suggestion(&role, kind.roles.iter().map(|role| role.name));
            return Err(at.line(
                entry.line,
                key,
                format!("a {} stage takes nothing called \"{role}\"{hint}", kind.name),
            ));
        }
        let Value::String(value) = value else {
            return Err(at.line(
                entry.line,
                &format!("{key}.{role}"),
                format!("expected the name of a stage or a folder, found {}", describe_json(&value)),
            ));
        };
        let source = if names.contains(&value) {
            Source::Instance(value)
        } else if value.contains('/') || value.starts_with('.') {
            let path = folder.join(&value);
            if !path.is_dir() {
                return Err(at.line(
                    entry.line,
                    &format!("{key}.{role}"),
                    format!("the folder {} does not exist", path.display()),
                ));
            }
            Source::Folder(path)
        } else {
            let hint = suggestion(&value, names.iter().map(String::as_str));
            return Err(at.line(
                entry.line,
                &format!("{key}.{role}"),
                format!("the recipe has no stage \"{value}\"{hint} (a folder is written with a slash: \"./{value}\")"),
            ));
        };
        sources.insert(role, source);
    }
    Ok(sources)
}

fn file_paths(at: &Place, folder: &Path, key: &str, entry: &Entry) -> Result<Vec<PathBuf>, Usage> {
    let value = entry.value.to_json();
    let given: Vec<String> = match &value {
        Value::String(path) => vec![path.clone()],
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_string) => {
            items.iter().filter_map(|item| item.as_str().map(str::to_string)).collect()
        }
        _ => {
            return Err(at.line(
                entry.line,
                key,
                format!("expected a path or a list of paths, found {}", entry.value.describe()),
            ));
        }
    };
    let mut paths = Vec::new();
    for path in given {
        if documents::is_remote(Path::new(&path)) && entry.key == "documents" {
            paths.push(PathBuf::from(path));
            continue;
        }
        let path = if entry.line == 0 { PathBuf::from(path) } else { folder.join(path) };
        if let Err(error) = path.metadata() {
            return Err(at.line(entry.line, key, format!("{}: {error}", path.display())));
        }
        paths.push(path);
    }
    Ok(paths)
}

/// Takes over one setting, and lets the stage's own types judge it alone, so that a wrong type is reported for this key.
fn set(at: &Place, key: &str, entry: &Entry, kind: &Kind, settings: &mut Value) -> Result<(), Usage> {
    let mut trial = (kind.defaults)();
    merge(&mut trial[&entry.key], &entry.value.to_json());
    (kind.parse)(&trial).map_err(|problem| {
        let found = describe_json(&entry.value.to_json());
        let expected = describe_json(&(kind.defaults)()[&entry.key]);
        let problem = match expected == found || expected == "nothing" {
            true => problem,
            false => format!("expected {expected}, found {found}"),
        };
        at.line(entry.line, key, problem)
    })?;
    merge(&mut settings[&entry.key], &entry.value.to_json());
    Ok(())
}

/// Tables are filled into tables key by key; anything else replaces what was there.
fn merge(into: &mut Value, value: &Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(given)) => {
            for (key, value) in given {
                match into.get_mut(key) {
                    Some(slot) => merge(slot, value),
                    None => {
                        into.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (into, value) => *into = value.clone(),
    }
}

/// Sorts instances so that each comes after those it takes from, otherwise in the order of the file.
fn ordered(at: &Place, mut waiting: Vec<Instance>) -> Result<Vec<Instance>, Usage> {
    check_kinds(at, &waiting)?;
    let mut ready: Vec<Instance> = Vec::new();
    let mut names: BTreeSet<String> = BTreeSet::new();
    while !waiting.is_empty() {
        let free = waiting.iter().position(|instance| {
            instance.from.values().all(|source| match source {
                Source::Instance(name) => names.contains(name),
                Source::Folder(_) => true,
            })
        });
        let Some(position) = free else {
            let names: Vec<&str> = waiting.iter().map(|instance| instance.name.as_str()).collect();
            return Err(Usage(format!(
                "{}: these stages take from each other in a circle: {}",
                at.path.display(),
                names.join(", ")
            )));
        };
        let instance = waiting.remove(position);
        names.insert(instance.name.clone());
        ready.push(instance);
    }
    Ok(ready)
}

/// Whether each role is filled by an instance of a kind that fits.
fn check_kinds(at: &Place, instances: &[Instance]) -> Result<(), Usage> {
    for instance in instances {
        for (role, source) in &instance.from {
            let (Source::Instance(name), Some(role)) =
                (source, instance.kind.roles.iter().find(|known| known.name == role))
            else {
                continue;
            };
            let found =
                instances.iter().find(|other| other.name == *name).map_or("", |other| other.kind.name);
            if !role.kinds.contains(&found) {
                return Err(Usage(format!(
                    "{}: {}.from.{} must be a {} stage; \"{name}\" is a {found} stage",
                    at.path.display(),
                    instance.name,
                    role.name,
                    role.kinds.join(" or ")
                )));
            }
        }
    }
    Ok(())
}

impl Recipe {
    /// The recipe with every default filled in, as it is kept with the run; paths stand as they were written, relative
    /// to the recipe.
    pub fn resolved(&self) -> Value {
        let mut document = Map::new();
        document.insert("format".into(), json!(FORMAT));
        document.insert("name".into(), json!(self.name));
        document.insert("description".into(), json!(self.description));
        for instance in &self.instances {
            let mut table = Map::new();
            table.insert("kind".into(), json!(instance.kind.name));
            table.extend(instance.written.clone());
            if let Value::Object(settings) = &instance.settings {
                table.extend(settings.clone());
            }
            document.insert(instance.name.clone(), Value::Object(table));
        }
        Value::Object(document)
    }
}

/// The file that messages name.
struct Place<'a> {
    path: &'a Path,
}

impl Place<'_> {
    fn line(&self, line: usize, key: &str, problem: String) -> Usage {
        if line == 0 {
            Usage(format!("on the command line: {key}: {problem}"))
        } else {
            Usage(format!("{}: line {line}: {key}: {problem}", self.path.display()))
        }
    }
}
