//! Running a template: set up as `transformers` sets Jinja up, on a stack of its own and within a budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::machinery::{CodeGenerator, eval, make_string_output, parse};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, context};
use serde_json::{Map, Value};

use super::budget::{Budget, INSTRUCTIONS, LONGEST_SOURCE};
use super::{Conversation, guard, operators};
use crate::configuration::Configuration;
use crate::error::Error;

/// The parser and what drops its tree follow long chains of operators down. It is address space, of which only what is
/// used becomes memory.
const STACK: usize = 512 << 20;
/// What `transformers` puts behind the message that is to be continued, and looks for in the prompt.
const CONTINUE_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";
/// Names of a message's reasoning; the first is the one that templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A template's source; compiled when it is used.
pub(crate) struct ChatTemplate {
    source: String,
}

impl ChatTemplate {
    pub fn new(source: &str) -> ChatTemplate {
        // Jinja knows one line end only.
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        ChatTemplate { source: without_generation_marks(&source) }
    }

    /// The prompt of a conversation.
    ///
    /// # Errors
    /// Where the template does not compile, refuses the conversation, or asks for more work or memory than a run may cost.
    pub fn render(
        &self,
        conversation: &Conversation,
        configuration: &Configuration,
    ) -> Result<String, Error> {
        let failed = |problem: String| Error::ChatTemplate { problem };
        if self.source.len() > LONGEST_SOURCE {
            let (found, most) = (self.source.len(), LONGEST_SOURCE);
            return Err(failed(format!("it has {found} bytes; at most {most} are allowed")));
        }
        let (messages, open) = prepared(conversation).map_err(failed)?;
        let run = || self.run(&messages, conversation, configuration);
        let rendered = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("chat template".to_owned()).stack_size(STACK);
            match thread.spawn_scoped(scope, run).map(|thread| thread.join()) {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err("the template engine failed".to_owned()),
                Err(error) => Err(format!("the template engine cannot start: {error}")),
            }
        });
        let rendered = rendered.map_err(failed)?;
        match open {
            Some(last) => left_open(rendered, &last).map_err(failed),
            None => Ok(rendered),
        }
    }

    fn run(
        &self,
        messages: &[Value],
        conversation: &Conversation,
        configuration: &Configuration,
    ) -> Result<String, String> {
        let variables = variables(conversation, configuration);
        let lists = [Some(messages), conversation.tools.as_deref(), conversation.documents.as_deref()];
        let given = lists.into_iter().flatten().flatten().chain(variables.values()).map(size).sum();
        let budget = Arc::new(Budget::new(given));
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(reason)?;
        let program = parse(&self.source, "chat_template", syntax).map_err(reason)?;
        let program = guard::guarded(&program)?;
        let mut code = CodeGenerator::new("chat_template", &self.source);
        code.compile_stmt(&program);
        let (instructions, _) = code.finish();
        let mut environment = Environment::new();
        environment.set_fuel(Some(INSTRUCTIONS));
        operators::install(&mut environment, &budget, conversation.now);
        let root = context! {
            messages => Serde(messages),
            tools => Serde(&conversation.tools),
            documents => Serde(&conversation.documents),
            add_generation_prompt => conversation.add_generation_prompt,
            ..minijinja::Value::from(Serde(&variables))
        };
        let mut rendered = String::new();
        let mut output = make_string_output(&mut rendered);
        let blocks = BTreeMap::new();
        eval(&environment, &instructions, root, &blocks, &mut output, AutoEscape::None).map_err(reason)?;
        Ok(rendered)
    }
}

/// The names that a template finds beside the conversation: special tokens that there are, and the caller's own.
fn variables(conversation: &Conversation, configuration: &Configuration) -> Map<String, Value> {
    let tokens = [
        ("bos_token", &configuration.beginning),
        ("eos_token", &configuration.end),
        ("pad_token", &configuration.padding),
        ("unk_token", &configuration.unknown),
    ];
    let tokens =
        tokens.into_iter().filter_map(|(name, token)| Some((name.to_owned(), Value::String(token.clone()?))));
    let others =
        configuration.others.iter().map(|(name, token)| ((*name).to_owned(), Value::String(token.clone())));
    tokens.chain(others).chain(conversation.variables.clone()).collect()
}

/// The messages as templates see them, and the text that stays open if the last one does.
fn prepared(conversation: &Conversation) -> Result<(Vec<Value>, Option<String>), String> {
    if conversation.messages.is_empty() {
        return Err("the conversation is empty; give at least one message".to_owned());
    }
    let mut messages = conversation.messages.iter().map(prepared_message).collect::<Result<Vec<_>, _>>()?;
    if !conversation.continue_final_message {
        return Ok((messages, None));
    }
    if conversation.add_generation_prompt {
        return Err("a message cannot be continued and a new turn be opened at once".to_owned());
    }
    let content = messages.last_mut().and_then(|last| last.get_mut("content"));
    let text = match content {
        Some(Value::Array(parts)) => parts.iter_mut().rev().find_map(|part| part.get_mut("text")),
        other => other,
    };
    let Some(Value::String(text)) = text else {
        return Err("the last message has no text to continue".to_owned());
    };
    let last = text.clone();
    text.push_str(CONTINUE_TAG);
    Ok((messages, Some(last)))
}

/// Without keys whose value is `null`, and with its reasoning under the names that templates read.
fn prepared_message(message: &Value) -> Result<Value, String> {
    let object = message.as_object().ok_or("a message is to be an object with `role` and `content`")?;
    let mut entries: Map<String, Value> = object
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if let Some(reasoning) = REASONING.iter().find_map(|name| entries.get(*name)).cloned() {
        if !entries.contains_key("thinking") {
            entries.shift_insert(0, "thinking".to_owned(), reasoning.clone());
        }
        entries.insert("reasoning_content".to_owned(), reasoning);
    }
    Ok(Value::Object(entries))
}

/// The prompt up to the place where the answer goes on.
fn left_open(mut rendered: String, last: &str) -> Result<String, String> {
    let place = rendered.rfind(CONTINUE_TAG.trim_end()).filter(|_| rendered.contains(last.trim()));
    let Some(place) = place else {
        return Err("the template changes the last message, so that it cannot be continued".to_owned());
    };
    let kept = rendered[place..].starts_with(CONTINUE_TAG);
    rendered.truncate(place);
    if !kept {
        rendered.truncate(rendered.trim_end().len());
    }
    Ok(rendered)
}

/// Bytes of the texts of a value, and some for each place.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => 8 + text.len(),
        Value::Array(items) => 8 + items.iter().map(size).sum::<usize>(),
        Value::Object(entries) => entries.iter().map(|(key, value)| 8 + key.len() + size(value)).sum(),
        _ => 8,
    }
}

/// `{% generation %}` of `transformers` marks answers for training; for the text it is a scope like `{% with %}`.
fn without_generation_marks(source: &str) -> String {
    let mut written = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(place) = rest.find("{%") {
        let (before, tag) = rest.split_at(place + 2);
        written.push_str(before);
        let name = tag.trim_start_matches(['-', '+']).trim_start();
        let found = [("generation", "with"), ("endgeneration", "endwith")]
            .into_iter()
            .find_map(|(old, new)| Some((name.strip_prefix(old)?, new)));
        rest = match found {
            Some((end, new)) if end.trim_start().trim_start_matches(['-', '+']).starts_with("%}") => {
                written.push_str(&tag[..tag.len() - name.len()]);
                written.push_str(new);
                end
            }
            _ => tag,
        };
    }
    written.push_str(rest);
    written
}

/// The line of the template and the reason, from the engine's error.
fn reason(error: minijinja::Error) -> String {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("line {line}: {reason}"),
        None => reason,
    }
}
