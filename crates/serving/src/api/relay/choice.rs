//! One answer of an engine: what of it is known, let through the output filters.

use std::collections::BTreeMap;

use filters::{Chain, FilterStream, Verdict};
use serde_json::{Map, Value, json};

use super::Kind;

/// Tools that one answer may call.
const MOST_TOOLS: u64 = 128;
/// Longest id or name within a call.
const LONGEST_NAME: usize = 256;

/// A place in an answer where text grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Channel {
    /// `content`, `text` and the like.
    Named(&'static str),
    /// The arguments of a call.
    Tool(u64),
}

/// Fields of a chat message that hold text.
const CHAT_TEXTS: [&str; 4] = ["content", "reasoning_content", "reasoning", "refusal"];

/// One answer while it grows.
#[derive(Default)]
pub struct ChoiceState {
    streams: BTreeMap<Channel, FilterStream>,
    /// A filter refused what came; nothing more goes out.
    pub is_refused: bool,
    /// Its end went out.
    pub has_ended: bool,
    /// What the engine sent, where its tokens may have to be counted.
    pub sent: Option<String>,
    /// Bytes of what the engine sent.
    pub sent_bytes: usize,
    /// Pieces that they came in: a token each, as engines do it.
    pub pieces: usize,
}

impl ChoiceState {
    /// With `keeps_text` what comes is kept, so that its tokens can be counted.
    pub fn new(keeps_text: bool) -> ChoiceState {
        ChoiceState { sent: keeps_text.then(String::new), ..ChoiceState::default() }
    }

    /// The known part of a message or delta, filtered; texts that are held back are left out.
    pub fn part(&mut self, kind: Kind, part: &mut Map<String, Value>, chain: &Chain) -> Map<String, Value> {
        let mut known = Map::new();
        if kind != Kind::Chat {
            self.take_text("text", part, chain, &mut known);
            return known;
        }
        if part.get("role").is_some_and(Value::is_string) {
            known.insert("role".to_string(), Value::from("assistant"));
        }
        for name in CHAT_TEXTS {
            self.take_text(name, part, chain, &mut known);
        }
        if let Some(Value::Array(calls)) = part.remove("tool_calls") {
            let calls: Vec<Value> = calls
                .into_iter()
                .enumerate()
                .filter_map(|(number, call)| self.call(number, call, chain))
                .collect();
            if !calls.is_empty() {
                known.insert("tool_calls".to_string(), Value::Array(calls));
            }
        }
        known
    }

    fn take_text(
        &mut self,
        name: &'static str,
        part: &mut Map<String, Value>,
        chain: &Chain,
        known: &mut Map<String, Value>,
    ) {
        let Some(Value::String(text)) = part.remove(name) else { return };
        let text = self.pass(Channel::Named(name), text, chain);
        // An empty text that came opens the answer; one that the filters hold back says nothing yet.
        known.insert(name.to_string(), Value::String(text));
    }

    fn call(&mut self, number: usize, mut call: Value, chain: &Chain) -> Option<Value> {
        let index = call.get("index").and_then(Value::as_u64).unwrap_or(number as u64);
        if index >= MOST_TOOLS || self.is_refused {
            return None;
        }
        let mut known = json!({"index": index});
        for name in ["id", "type"] {
            if let Some(text) = short(call.get(name)) {
                known[name] = text;
            }
        }
        let function = call.get_mut("function")?.as_object_mut()?;
        let mut known_function = Map::new();
        if let Some(name) =
            function.get("name").and_then(Value::as_str).filter(|name| name.len() <= LONGEST_NAME)
        {
            // It comes whole, and a model may write into it whatever it likes.
            match chain.output(name) {
                Verdict::Pass(name) => {
                    known_function.insert("name".to_string(), Value::from(name));
                }
                Verdict::Refused(_) => {
                    self.is_refused = true;
                    return None;
                }
            }
        }
        if let Some(Value::String(arguments)) = function.remove("arguments") {
            let arguments = self.pass(Channel::Tool(index), arguments, chain);
            known_function.insert("arguments".to_string(), Value::String(arguments));
        }
        known["function"] = Value::Object(known_function);
        Some(known)
    }

    /// Lets text through the filters of its channel.
    fn pass(&mut self, channel: Channel, text: String, chain: &Chain) -> String {
        self.sent_bytes += text.len();
        self.pieces += usize::from(!text.is_empty());
        if let Some(sent) = &mut self.sent {
            sent.push_str(&text);
        }
        if self.is_refused {
            return String::new();
        }
        if chain.passes_output() {
            return text;
        }
        let stream = self.streams.entry(channel).or_insert_with(|| chain.stream());
        match stream.push(&text) {
            Ok(released) => released,
            Err(stopped) => {
                self.is_refused = true;
                stopped.released
            }
        }
    }

    /// What the filters held back, now that the answer has ended: like a part of it.
    pub fn rest(&mut self) -> Map<String, Value> {
        let mut rest = Map::new();
        let mut calls = Vec::new();
        for (channel, mut stream) in std::mem::take(&mut self.streams) {
            if self.is_refused {
                break;
            }
            let text = match stream.finish() {
                Ok(text) => text,
                Err(stopped) => {
                    self.is_refused = true;
                    stopped.released
                }
            };
            if text.is_empty() {
                continue;
            }
            match channel {
                Channel::Named(name) => {
                    rest.insert(name.to_string(), Value::String(text));
                }
                Channel::Tool(index) => {
                    calls.push(json!({"index": index, "function": {"arguments": text}}));
                }
            }
        }
        if !calls.is_empty() {
            rest.insert("tool_calls".to_string(), Value::Array(calls));
        }
        rest
    }

    /// The reason that the client is told.
    pub fn reason(&self, theirs: Option<&Value>) -> Value {
        match theirs.and_then(Value::as_str) {
            _ if self.is_refused => Value::from("content_filter"),
            Some(known @ ("stop" | "length" | "tool_calls" | "content_filter")) => Value::from(known),
            _ => Value::from("stop"),
        }
    }
}

/// Puts what was held back behind what went out, in a message that is whole.
pub fn append(message: &mut Map<String, Value>, rest: Map<String, Value>) {
    for (name, value) in rest {
        match (message.get_mut(&name), value) {
            (Some(Value::String(text)), Value::String(more)) => text.push_str(&more),
            (Some(Value::Array(calls)), Value::Array(more)) => {
                for more in more {
                    let call = calls.iter_mut().find(|call| call["index"] == more["index"]);
                    if let (Some(call), Some(text)) = (call, more["function"]["arguments"].as_str()) {
                        let before = call["function"]["arguments"].as_str().unwrap_or_default();
                        call["function"]["arguments"] = Value::from(format!("{before}{text}"));
                    }
                }
            }
            (_, value) => {
                message.insert(name, value);
            }
        }
    }
}

fn short(value: Option<&Value>) -> Option<Value> {
    value.and_then(Value::as_str).filter(|text| text.len() <= LONGEST_NAME).map(Value::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_filters_read_the_names_of_calls_too() {
        let part = |action: &str, name: &str| {
            let settings = format!(
                "[[output]]\nname = 'words'\nkind = 'patterns'\naction = '{action}'\nblock = ['geheim']\nreplacement = '#'\n"
            );
            let chain = Chain::compile(&toml::from_str(&settings).unwrap()).unwrap();
            let call = json!({"id": "1", "type": "function", "function": {"name": name, "arguments": "{}"}});
            let mut message = json!({"tool_calls": [call]}).as_object().unwrap().clone();
            let mut state = ChoiceState::new(false);
            let part = state.part(Kind::Chat, &mut message, &chain);
            (Value::Object(part), state.is_refused)
        };
        assert_eq!(part("refuse", "search").0["tool_calls"][0]["function"]["name"], "search");
        assert_eq!(part("replace", "geheim_1").0["tool_calls"][0]["function"]["name"], "#_1");
        assert_eq!(part("refuse", "geheim_1"), (json!({}), true));
    }
}
