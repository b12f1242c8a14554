//! Chat templates: a conversation as one text, byte for byte as `transformers` writes it.
//!
//! Templates are Jinja programs from files that anyone may have written: they run in `minijinja` with a bounded amount
//! of work and memory and see nothing but the conversation.

mod budget;
mod clock;
mod guard;
mod json;
mod methods;
mod operators;
mod python;
mod template;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::configuration::Configuration;
use crate::error::Error;
use crate::loaded::Tokenizer;

pub use clock::Moment;
pub(crate) use template::ChatTemplate;

/// Names that templates are given in any case, or that `apply_chat_template` of `transformers` keeps for itself. Whoever
/// takes [`Conversation::variables`] from strangers refuses these.
pub const NAMES_OF_TEMPLATES: [&str; 20] = [
    "messages",
    "conversation",
    "tools",
    "documents",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template",
    "tokenize",
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
    "sep_token",
    "cls_token",
    "mask_token",
    "raise_exception",
    "strftime_now",
    "namespace",
    "range",
    "dict",
];

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

/// Everything that `apply_chat_template` of `transformers` is given: messages with whatever keys the template knows, and
/// what goes beside them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conversation {
    /// JSON objects with `role` and mostly `content` (a text, or parts), `tool_calls`, `reasoning_content` and others.
    /// A key whose value is `null` counts as absent.
    pub messages: Vec<Value>,
    /// JSON schemas of functions that the answer may call.
    pub tools: Option<Vec<Value>>,
    /// Texts with a title to answer from.
    pub documents: Option<Vec<Value>>,
    /// Opens the answer's turn.
    pub add_generation_prompt: bool,
    /// Leaves the last message open, so that the answer goes on with it.
    pub continue_final_message: bool,
    /// Further names for the template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
    /// What `strftime_now` tells; without it, a template that asks is refused.
    pub now: Option<Moment>,
}

impl Conversation {
    /// Of plain turns.
    pub fn of(messages: &[Message], add_generation_prompt: bool) -> Conversation {
        let messages = messages
            .iter()
            .map(|message| json!({"role": message.role, "content": message.content}))
            .collect();
        Conversation { messages, add_generation_prompt, ..Conversation::default() }
    }
}

/// Ids of a conversation. What was said and spells a special token keeps it as text: such places are marked with a
/// character that nothing else holds, and text between the template's own special tokens is encoded as ordinary.
pub(crate) fn encode(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    conversation: &Conversation,
    configuration: &Configuration,
) -> Result<Vec<u32>, Error> {
    let special: Vec<(&str, u32)> = tokenizer.special_tokens().collect();
    let spells_special = |text: &str| special.iter().any(|(token, _)| text.contains(token));
    if !any_text(conversation, &spells_special) {
        return tokenizer.encode(&template.render(conversation, configuration)?);
    }
    let mark = unused_mark(conversation)?;
    let marked = with_texts(conversation, &|text| mark_special(text, &special, mark));
    let rendered = template.render(&marked, configuration)?;
    let mut ids = Vec::new();
    let mut here = 0;
    // Where each special token comes next; each looks at the text once, however many turns there are.
    let mut places: Vec<Option<usize>> = special.iter().map(|(token, _)| rendered.find(token)).collect();
    while here < rendered.len() {
        for (place, (token, _)) in places.iter_mut().zip(&special) {
            if place.is_some_and(|place| place < here) {
                *place = rendered[here..].find(token).map(|further| here + further);
            }
        }
        // The earliest special token, the longest of several at one place.
        let coming = places
            .iter()
            .zip(&special)
            .filter_map(|(place, (token, id))| Some(((*place)?, std::cmp::Reverse(token.len()), *id)));
        let (text_end, after, id) = match coming.min() {
            Some((at, length, id)) => (at, at + length.0, Some(id)),
            None => (rendered.len(), rendered.len(), None),
        };
        let text = rendered[here..text_end].replace(mark, "");
        if !text.is_empty() {
            ids.extend(tokenizer.encode_ordinary(&text)?);
        }
        ids.extend(id);
        here = after;
    }
    Ok(ids)
}

/// Whether a text that the template is given passes a check; names of keys are the program's, not the user's.
fn any_text(conversation: &Conversation, check: &dyn Fn(&str) -> bool) -> bool {
    fn within(value: &Value, check: &dyn Fn(&str) -> bool) -> bool {
        match value {
            Value::String(text) => check(text),
            Value::Array(items) => items.iter().any(|item| within(item, check)),
            Value::Object(entries) => entries.values().any(|item| within(item, check)),
            _ => false,
        }
    }
    let Conversation { messages, tools, documents, variables, .. } = conversation;
    let lists = [Some(messages), tools.as_ref(), documents.as_ref()];
    lists.into_iter().flatten().flatten().chain(variables.values()).any(|value| within(value, check))
}

/// The conversation with each of its texts changed.
fn with_texts(conversation: &Conversation, change: &dyn Fn(&str) -> String) -> Conversation {
    fn within(value: &mut Value, change: &dyn Fn(&str) -> String) {
        match value {
            Value::String(text) => *text = change(text),
            Value::Array(items) => items.iter_mut().for_each(|item| within(item, change)),
            Value::Object(entries) => entries.values_mut().for_each(|item| within(item, change)),
            _ => {}
        }
    }
    let mut changed = conversation.clone();
    let Conversation { messages, tools, documents, variables, .. } = &mut changed;
    let lists = [Some(messages), tools.as_mut(), documents.as_mut()];
    lists
        .into_iter()
        .flatten()
        .flatten()
        .chain(variables.values_mut())
        .for_each(|value| within(value, change));
    changed
}

/// One of the 32 noncharacters U+FDD0..U+FDEF, which Unicode keeps out of texts, that no text holds.
fn unused_mark(conversation: &Conversation) -> Result<char, Error> {
    ('\u{FDD0}'..='\u{FDEF}').find(|mark| !any_text(conversation, &|text| text.contains(*mark))).ok_or_else(
        || {
            let problem =
                "the messages hold all noncharacters U+FDD0 to U+FDEF beside special tokens; remove them";
            Error::ChatTemplate { problem: problem.to_owned() }
        },
    )
}

/// Puts the mark behind the first character of each special token that a text spells.
fn mark_special(text: &str, special: &[(&str, u32)], mark: char) -> String {
    let mut text = text.to_owned();
    for (token, _) in special {
        let mut characters = token.chars();
        if let Some(first) = characters.next() {
            text = text.replace(token, &format!("{first}{mark}{}", characters.as_str()));
        }
    }
    text
}
