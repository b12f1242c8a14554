//! One answer of an engine: what of it is known, let through the output filters.

use std::collections::BTreeMap;

use filters::{Chain, FilterStream, Verdict};
use provenance::digest::{Digest, sha256};
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
    /// What our own ids of its calls begin with.
    own_ids: String,
    /// The engine's ids that ours stand for, by their digests.
    replaced_ids: Vec<Digest>,
}

impl ChoiceState {
    /// With `keeps_text` what comes is kept, so that its tokens can be counted. Ids that are made here begin with `own_ids`.
    pub fn new(keeps_text: bool, own_ids: String) -> ChoiceState {
        ChoiceState { sent: keeps_text.then(String::new), own_ids, ..ChoiceState::default() }
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
        let begins = call["function"].get("name").is_some_and(Value::is_string);
        if let Some(id) = self.id_of_call(index, call.get("id"), begins, chain) {
            known["id"] = Value::from(id);
        }
        if call.get("type").is_some_and(Value::is_string) {
            known["type"] = Value::from("function");
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

    /// The id under which the client sees a call: the engine's, if it looks like one and no filter minds it; else one of ours,
    /// the same wherever the engine's stands. An id may be whatever a model wrote, and means nothing but itself.
    fn id_of_call(
        &mut self,
        index: u64,
        theirs: Option<&Value>,
        begins: bool,
        chain: &Chain,
    ) -> Option<String> {
        let theirs = theirs.and_then(Value::as_str).filter(|id| !id.is_empty());
        let replaced = match theirs {
            Some(id) if is_plausible_id(id) && passes_unchanged(id, chain) => return Some(id.to_string()),
            Some(id) => sha256(id.as_bytes()),
            // What goes on with a call needs none.
            None if !begins => return None,
            None => sha256(&index.to_be_bytes()),
        };
        let known = self.replaced_ids.iter().position(|known| *known == replaced);
        let number = known.unwrap_or_else(|| {
            if (self.replaced_ids.len() as u64) < MOST_TOOLS {
                self.replaced_ids.push(replaced);
            }
            self.replaced_ids.len() - 1
        });
        Some(format!("{}-{number}", self.own_ids))
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

/// Whether an engine would call a call so: letters and signs of ASCII that can be seen, and not too many.
fn is_plausible_id(id: &str) -> bool {
    id.len() <= LONGEST_NAME && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn passes_unchanged(text: &str, chain: &Chain) -> bool {
    matches!(chain.output(text), Verdict::Pass(passed) if passed == text)
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
            let mut state = ChoiceState::new(false, "call-r-0".to_string());
            let part = state.part(Kind::Chat, &mut message, &chain);
            (Value::Object(part), state.is_refused)
        };
        assert_eq!(part("refuse", "search").0["tool_calls"][0]["function"]["name"], "search");
        assert_eq!(part("replace", "geheim_1").0["tool_calls"][0]["function"]["name"], "#_1");
        assert_eq!(part("refuse", "geheim_1"), (json!({}), true));
    }

    #[test]
    fn an_id_that_says_something_is_replaced_by_ours() {
        let settings =
            "[[output]]\nname = 'words'\nkind = 'patterns'\naction = 'refuse'\nblock = ['geheim']\n";
        let chain = Chain::compile(&toml::from_str(settings).unwrap()).unwrap();
        let mut state = ChoiceState::new(false, "call-r-0".to_string());
        let mut id = |call: Value| {
            let mut delta = json!({"tool_calls": [call]}).as_object().unwrap().clone();
            let part = state.part(Kind::Chat, &mut delta, &chain);
            assert!(!state.is_refused);
            part["tool_calls"][0].get("id").map(|id| id.as_str().unwrap().to_string())
        };
        let call = |index: u64, id: Value| {
            let function = json!({"name": "search", "arguments": ""});
            json!({"index": index, "id": id, "type": "<script>", "function": function})
        };
        let later = |index: u64| json!({"index": index, "function": {"arguments": "{}"}});
        for theirs in ["call_abc123", "chatcmpl-tool-0f", "9bK2xQ7aZ"] {
            assert_eq!(id(call(0, json!(theirs))).as_deref(), Some(theirs));
        }
        assert_eq!(id(later(0)), None);
        let long = "x".repeat(LONGEST_NAME + 1);
        for (ours, theirs) in [
            ("0", "a b"),
            ("1", "<b>\u{202E}"),
            ("2", "geheim-1"),
            ("3", long.as_str()),
            ("1", "<b>\u{202E}"),
        ] {
            assert_eq!(id(call(1, json!(theirs))), Some(format!("call-r-0-{ours}")), "{theirs}");
        }
        // One that is none: by the place of its call.
        for (ours, index, theirs) in [(4, 2, json!("")), (5, 3, json!(7)), (4, 2, Value::Null)] {
            assert_eq!(id(call(index, theirs)), Some(format!("call-r-0-{ours}")));
        }
        let mut delta = json!({"tool_calls": [call(0, json!("a"))]}).as_object().unwrap().clone();
        assert_eq!(state.part(Kind::Chat, &mut delta, &chain)["tool_calls"][0]["type"], "function");
        for number in 0..1_000 {
            let mut delta = json!({"tool_calls": [call(0, json!(format!("id {number}")))]});
            state.part(Kind::Chat, delta.as_object_mut().unwrap(), &chain);
        }
        assert_eq!(state.replaced_ids.len() as u64, MOST_TOOLS);
    }
}
