//! What stands beside `tokenizer.json`: `tokenizer_config.json`, and chat templates in files of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gguf::TokenizerFiles;
use serde_json::{Value, json};
use tokenizers::AddedToken;

use crate::error::Error;

const SETTINGS: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
/// Templates beside the default one, `NAME.jinja` each.
const OTHER_TEMPLATES: &str = "additional_chat_templates";
/// The ending of templates' names.
const JINJA: &str = "jinja";
const EXPECTED_OBJECT: &str = "expected a JSON object at the top";

/// What `tokenizer_config.json` says beyond the vocabulary.
#[derive(Default)]
pub(crate) struct Configuration {
    pub beginning: Option<String>,
    pub end: Option<String>,
    pub padding: Option<String>,
    pub unknown: Option<String>,
    pub maximum_length: Option<u64>,
    /// Separator, class and mask: templates may name them.
    pub others: Vec<(&'static str, String)>,
    pub chat_template: Option<String>,
    /// The one called `tool_use` of several, which `transformers` takes where there are tools.
    pub tool_template: Option<String>,
    /// Tokens that may be missing in `tokenizer.json`.
    pub added: BTreeMap<u32, AddedToken>,
}

/// The files of a folder's tokenizer as they would be written elsewhere; none where there is no `tokenizer.json`. Chat templates
/// that stand in files of their own are in `tokenizer_config.json` then.
///
/// # Errors
/// Names the file that cannot be read or is not what it should be.
pub fn tokenizer_files(folder: &Path) -> Result<Option<TokenizerFiles>, Error> {
    let path = folder.join("tokenizer.json");
    let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
    Ok(Some(TokenizerFiles { tokenizer: parsed(path, &bytes)?, config: settings(folder)? }))
}

/// `tokenizer_config.json` with the chat templates that stand in files of their own, which count instead of its own.
fn settings(folder: &Path) -> Result<Value, Error> {
    let path = folder.join(SETTINGS);
    let mut settings = match read_if_there(&path)? {
        Some(bytes) => parsed(path.clone(), &bytes)?,
        None => json!({}),
    };
    let Some(default) = read_template(folder.join(TEMPLATE))? else { return Ok(settings) };
    let others = other_templates(&folder.join(OTHER_TEMPLATES))?;
    let Some(object) = settings.as_object_mut() else {
        return Err(Error::Malformed { path, problem: EXPECTED_OBJECT.into() });
    };
    let template = match others.is_empty() {
        true => json!(default),
        false => {
            let named = [("default".to_owned(), default)].into_iter().chain(others);
            named.map(|(name, template)| json!({ "name": name, "template": template })).collect()
        }
    };
    object.insert("chat_template".into(), template);
    Ok(settings)
}

/// The templates of a folder by their names.
fn other_templates(folder: &Path) -> Result<BTreeMap<String, String>, Error> {
    let failed = |source| Error::Read { path: folder.to_path_buf(), source };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(failed)?,
    };
    let mut templates = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
        let Some(name) = name.filter(|_| path.extension().is_some_and(|ending| ending == JINJA)) else {
            continue;
        };
        templates.extend(read_template(path)?.map(|template| (name, template)));
    }
    Ok(templates)
}

impl Configuration {
    /// What the files of a folder say, if there are any.
    pub fn load(folder: &Path) -> Result<Configuration, Error> {
        let malformed = |problem| Error::Malformed { path: folder.join(SETTINGS), problem };
        Configuration::of(&settings(folder)?).map_err(malformed)
    }

    /// Reads the contents of `tokenizer_config.json`; the error says what was expected.
    pub fn of(settings: &Value) -> Result<Configuration, String> {
        let object = settings.as_object().ok_or(EXPECTED_OBJECT)?;
        let token = |key: &str| match object.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(Value::Object(token)) => match token.get("content").and_then(Value::as_str) {
                Some(text) => Ok(Some(text.to_owned())),
                None => Err(format!("`{key}` has no `content`; expected a string or an object with one")),
            },
            Some(other) => Err(format!("`{key}` is {other}; expected a string")),
        };
        Ok(Configuration {
            beginning: token("bos_token")?,
            end: token("eos_token")?,
            padding: token("pad_token")?,
            unknown: token("unk_token")?,
            // Absurd values such as 1e30 mean "no limit".
            others: ["sep_token", "cls_token", "mask_token"]
                .into_iter()
                .filter_map(|key| Some(token(key).transpose()?.map(|text| (key, text))))
                .collect::<Result<_, _>>()?,
            added: added_tokens(object.get("added_tokens_decoder"))?,
            maximum_length: object.get("model_max_length").and_then(Value::as_u64),
            chat_template: chat_template(object.get("chat_template"))?,
            tool_template: object.get("chat_template").and_then(|templates| named(templates, "tool_use")),
        })
    }
}

/// The template itself, or the one called `default` of a list.
fn chat_template(value: Option<&Value>) -> Result<Option<String>, String> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(value @ Value::Array(templates)) => {
            let first = || Some(templates.first()?["template"].as_str()?.to_owned());
            Ok(named(value, "default").or_else(first))
        }
        Some(other) => {
            Err(format!("`chat_template` is {other}; expected a string or a list of named templates"))
        }
    }
}

/// A template by its name, of a list of several.
fn named(templates: &Value, name: &str) -> Option<String> {
    let entry = templates.as_array()?.iter().find(|entry| entry["name"] == name)?;
    entry["template"].as_str().map(str::to_owned)
}

/// `added_tokens_decoder`: tokens by their ids.
fn added_tokens(value: Option<&Value>) -> Result<BTreeMap<u32, AddedToken>, String> {
    let Some(entries) = value.and_then(Value::as_object) else { return Ok(BTreeMap::new()) };
    let token = |(id, entry): (&String, &Value)| {
        let is = |key: &str| entry[key] == true;
        let token = AddedToken::from(entry["content"].as_str()?, is("special"))
            .lstrip(is("lstrip"))
            .rstrip(is("rstrip"))
            .single_word(is("single_word"))
            .normalized(is("normalized"));
        Some((id.parse().ok()?, token))
    };
    entries.iter().map(|entry| token(entry).ok_or(entry.0)).collect::<Result<_, _>>().map_err(|id| {
        format!("`added_tokens_decoder` has an entry {id:?} that is no id with a token that has a `content`")
    })
}

fn parsed(path: PathBuf, bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::Malformed { path, problem: format!("not valid JSON: {error}") })
}

fn read_template(path: PathBuf) -> Result<Option<String>, Error> {
    let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|error| {
        let problem = format!("a chat template is UTF-8 text: {error}");
        Error::Malformed { path, problem }
    })?;
    Ok(Some(text))
}

pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    // Of a device or a pipe there may be no end.
    let read = std::fs::metadata(path).and_then(|metadata| match metadata.is_file() {
        true => std::fs::read(path),
        false => Err(std::io::Error::other("it is no regular file")),
    });
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_path_buf(), source }),
    }
}
