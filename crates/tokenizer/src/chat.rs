//! Chat templates: a conversation as one text, as `transformers` writes it.
//!
//! Templates are Jinja programs from files that anyone may have written: they run in `minijinja` with a bounded amount
//! of work and see nothing but the conversation. Of the functions that `transformers` offers, `tojson` and
//! `raise_exception` are there; `strftime_now` is refused, because the same conversation must give the same tokens
//! tomorrow.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::loaded::{Configuration, Tokenizer};

/// Steps of a template run; real templates need a few hundred for each message.
const TEMPLATE_FUEL: u64 = 10_000_000;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of `role` that says `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into() }
    }
}

/// A template's source; compiled when it is used.
pub(crate) struct ChatTemplate {
    source: String,
}

impl ChatTemplate {
    pub fn new(source: &str) -> ChatTemplate {
        ChatTemplate { source: source.to_owned() }
    }

    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        configuration: &Configuration,
    ) -> Result<String, Error> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(TEMPLATE_FUEL));
        // As `transformers` sets Jinja up.
        environment.set_syntax(
            SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(refused)?,
        );
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", refuse_the_clock);
        let token = |token: &Option<String>| token.clone().unwrap_or_default();
        let context = context! {
            messages => Serde(messages),
            add_generation_prompt => add_generation_prompt,
            bos_token => token(&configuration.beginning),
            eos_token => token(&configuration.end),
            pad_token => token(&configuration.padding),
            unk_token => token(&configuration.unknown),
        };
        environment.render_named_str("chat_template", &self.source, context).map_err(refused)
    }
}

/// Ids of a conversation. A message that spells a special token keeps it as text: such places are marked with a
/// character that no message holds, and text between the template's own special tokens is encoded as ordinary.
pub(crate) fn encode(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    add_generation_prompt: bool,
    configuration: &Configuration,
) -> Result<Vec<u32>, Error> {
    let special: Vec<(&str, u32)> = tokenizer.special_tokens().collect();
    let spells_special = |message: &Message| special.iter().any(|(token, _)| message.content.contains(token));
    let (rendered, mark) = if messages.iter().any(spells_special) {
        let mark = unused_mark(messages)?;
        let marked: Vec<Message> =
            messages.iter().map(|message| mark_special(message, &special, mark)).collect();
        (template.render(&marked, add_generation_prompt, configuration)?, Some(mark))
    } else {
        (template.render(messages, add_generation_prompt, configuration)?, None)
    };
    let mut ids = Vec::new();
    let mut rest = rendered.as_str();
    while !rest.is_empty() {
        // The earliest special token, the longest of several at one place.
        let next = special
            .iter()
            .filter_map(|(token, id)| rest.find(token).map(|at| (at, std::cmp::Reverse(token.len()), *id)))
            .min();
        let (text_end, after, id) = match next {
            Some((at, length, id)) => (at, at + length.0, Some(id)),
            None => (rest.len(), rest.len(), None),
        };
        let text = match mark {
            Some(mark) => rest[..text_end].replace(mark, ""),
            None => rest[..text_end].to_owned(),
        };
        if !text.is_empty() {
            ids.extend(tokenizer.encode_ordinary(&text)?);
        }
        ids.extend(id);
        rest = &rest[after..];
    }
    Ok(ids)
}

/// One of the 32 noncharacters U+FDD0..U+FDEF, which Unicode keeps out of texts, that no message holds.
fn unused_mark(messages: &[Message]) -> Result<char, Error> {
    ('\u{FDD0}'..='\u{FDEF}')
        .find(|mark| {
            !messages.iter().any(|message| message.content.contains(*mark) || message.role.contains(*mark))
        })
        .ok_or_else(|| Error::ChatTemplate {
            problem:
                "the messages hold all noncharacters U+FDD0 to U+FDEF beside special tokens; remove them"
                    .to_owned(),
        })
}

/// Puts the mark behind the first character of each special token that a message spells.
fn mark_special(message: &Message, special: &[(&str, u32)], mark: char) -> Message {
    let mut content = message.content.clone();
    for (token, _) in special {
        let mut characters = token.chars();
        if let Some(first) = characters.next() {
            content = content.replace(token, &format!("{first}{mark}{}", characters.as_str()));
        }
    }
    Message { role: message.role.clone(), content }
}

/// `json.dumps(value, ensure_ascii=False)` of Python: what `transformers` gives templates as `tojson`.
fn to_json(value: Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let failed = |error: serde_json::Error| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}"))
    };
    let mut bytes = Vec::new();
    match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
            value.serialize(&mut serializer).map_err(failed)?;
        }
        None => {
            let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, PythonLine);
            value.serialize(&mut serializer).map_err(failed)?;
        }
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| minijinja::Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}")))?;
    Ok(Value::from_safe_string(text))
}

/// JSON on one line with Python's separators, `, ` and `: `.
struct PythonLine;

impl serde_json::ser::Formatter for PythonLine {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(
        ErrorKind::InvalidOperation,
        format!("the template refuses the conversation: {message}"),
    ))
}

fn refuse_the_clock(_format: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(
        ErrorKind::InvalidOperation,
        "the template asks for the date (strftime_now), which would give other tokens every day; write the date into a \
         system message instead",
    ))
}

/// Our error for the template engine's: the line of the template and the reason.
fn refused(error: minijinja::Error) -> Error {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let problem = match error.line() {
        Some(line) => format!("line {line}: {reason}"),
        None => reason,
    };
    Error::ChatTemplate { problem }
}
