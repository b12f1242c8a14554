//! The request as it goes on to the engine.

use axum::body::Bytes;
use axum::http::StatusCode;
use filters::Chain;
use serde_json::{Map, Value, json};

use super::texts::{filter, filter_strings, filtered_logprobs};
use super::{Kind, bounds};
use crate::api::conversation::MOST_MESSAGES;
use crate::api::failure::ApiFailure;
use crate::api::fields::{Fields, kind_of, shown};
use crate::api::variables::{self, Variables};
use crate::conversation::KeptPrompt;

/// Fields of both completions that go on as they are, beside those that are read here.
const BOTH: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "seed",
    "response_format",
];
const CHAT: &[&str] = &["tools", "tool_choice", "parallel_tool_calls", "reasoning_effort"];
const COMPLETION: &[&str] = &["suffix"];
const EMBEDDING: &[&str] = &["encoding_format", "dimensions"];

/// Texts of one request for embeddings.
const MOST_INPUTS: usize = 2_048;
/// Longest `user`, in bytes.
const LONGEST_USER: usize = 512;

/// A request that was read, filtered and stripped.
pub struct Outgoing {
    pub kind: Kind,
    /// What goes on, but for the model's name.
    pub fields: Map<String, Value>,
    pub stream: bool,
    /// The client wants a last chunk with the token counts.
    pub stream_usage: bool,
    /// Answers that come back: prompts times `n`.
    pub answers: usize,
    pub max_tokens: Option<usize>,
    /// The client's own name for its user; it stays here.
    pub user: Option<String>,
    /// The texts of the prompt as they go on.
    pub texts: Vec<String>,
    /// Tokens of the prompt that came as numbers.
    pub prompt_ids: usize,
}

impl Outgoing {
    pub fn read(
        kind: Kind,
        body: &[u8],
        maximum_choices: usize,
        chain: &Chain,
    ) -> Result<Outgoing, ApiFailure> {
        let mut fields = Fields::of_body(body)?;
        fields.take("model");
        let mut outgoing = Outgoing {
            kind,
            fields: Map::new(),
            stream: false,
            stream_usage: false,
            answers: 1,
            max_tokens: None,
            user: user(&mut fields)?,
            texts: Vec::new(),
            prompt_ids: 0,
        };
        if kind != Kind::Embedding {
            outgoing.read_stream(&mut fields)?;
            outgoing.read_amounts(&mut fields, maximum_choices)?;
            outgoing.read_logprobs(&mut fields, chain)?;
        }
        outgoing.read_prompt(&mut fields, maximum_choices, chain)?;
        if kind == Kind::Chat {
            let mut variables = Variables::read(&mut fields)?;
            variables.filter(chain)?;
            outgoing.fields.extend(variables.as_field().map(|(name, value)| (name.to_string(), value)));
        }
        let (shared, own) = match kind {
            Kind::Chat => (BOTH, CHAT),
            Kind::Completion => (BOTH, COMPLETION),
            Kind::Embedding => (&[][..], EMBEDDING),
        };
        for name in shared.iter().chain(own) {
            let Some(mut value) = fields.take(name) else { continue };
            bounds::check(name, &value)?;
            if *name != "logit_bias" {
                filter_strings(&mut value, name, chain)?;
            }
            outgoing.fields.insert((*name).to_string(), value);
        }
        fields.only("modalities", &[json!(["text"])])?;
        fields.only("store", &[json!(false)])?;
        fields.only("metadata", &[json!({})])?;
        fields.only("service_tier", &[json!("auto"), json!("default")])?;
        fields.finish()?;
        Ok(outgoing)
    }

    /// The body as it goes on, without the model's name.
    pub fn body(&self) -> Result<Bytes, ApiFailure> {
        let bytes = serde_json::to_vec(&self.fields);
        bytes.map(Bytes::from).map_err(|error| ApiFailure::internal(&error.to_string()))
    }

    /// What stands in the prompt's field, and beside it, as it goes on.
    pub fn prompt(&self) -> KeptPrompt {
        let field = |name: &str| self.fields.get(name).cloned();
        KeptPrompt {
            prompt: field(self.kind.prompt_field()).unwrap_or_default(),
            beside: field(variables::FIELD).map(|value| (variables::FIELD, value)),
        }
    }

    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_string(), value.into());
    }

    fn read_stream(&mut self, fields: &mut Fields) -> Result<(), ApiFailure> {
        self.stream = fields.flag("stream")?;
        if let Some(value) = fields.take("stream_options") {
            if !self.stream {
                return Err(fields.wrong("stream_options", "to be absent unless `stream` is true", &value));
            }
            let mut options = Fields::of(value, "stream_options")?;
            self.stream_usage = options.flag("include_usage")?;
            options.only("include_obfuscation", &[json!(false)])?;
            options.finish()?;
        }
        if self.stream {
            self.put("stream", true);
            // Asked for in any case: we count.
            self.put("stream_options", json!({"include_usage": true}));
        }
        Ok(())
    }

    fn read_amounts(&mut self, fields: &mut Fields, maximum_choices: usize) -> Result<(), ApiFailure> {
        if let Some(answers) = fields.count("n", 1, maximum_choices)? {
            self.answers = answers;
            self.put("n", answers);
        }
        let least = usize::from(self.kind == Kind::Chat);
        let old = fields.count("max_tokens", least, usize::MAX)?;
        let new = match self.kind {
            Kind::Chat => fields.count("max_completion_tokens", 1, usize::MAX)?,
            _ => None,
        };
        self.max_tokens = match (new, old) {
            (Some(new), Some(old)) if new != old => {
                let expected = format!("the same as `max_completion_tokens`, {new}");
                return Err(ApiFailure::field("max_tokens", expected, old));
            }
            _ => new.or(old),
        };
        // The older name is the one that every engine knows.
        if let Some(most) = self.max_tokens {
            self.put("max_tokens", most);
        }
        Ok(())
    }

    /// Probabilities of tokens repeat the text: they cannot stand beside filters that change it.
    fn read_logprobs(&mut self, fields: &mut Fields, chain: &Chain) -> Result<(), ApiFailure> {
        let mut names = vec!["logprobs"];
        names.push(if self.kind == Kind::Chat { "top_logprobs" } else { "echo" });
        for name in names {
            let Some(value) = fields.take(name) else { continue };
            let asks = !matches!(value, Value::Bool(false));
            if asks && name != "echo" && chain.may_change_output() {
                return Err(filtered_logprobs(name));
            }
            bounds::check(name, &value)?;
            self.put(name, value);
        }
        fields.only("best_of", &[json!(self.answers)])
    }

    fn read_prompt(
        &mut self,
        fields: &mut Fields,
        maximum_choices: usize,
        chain: &Chain,
    ) -> Result<(), ApiFailure> {
        let field = self.kind.prompt_field();
        let Some(mut value) = fields.take(field) else {
            return Err(ApiFailure::field(field, "something to answer", "nothing"));
        };
        match self.kind {
            Kind::Chat => {
                let Value::Array(messages) = &mut value else {
                    return Err(ApiFailure::field(field, "an array of messages", kind_of(&value)));
                };
                if messages.is_empty() {
                    return Err(ApiFailure::field(field, "an array of at least one message", "none"));
                }
                if messages.len() > MOST_MESSAGES {
                    let expected = format!("at most {MOST_MESSAGES} messages");
                    return Err(ApiFailure::field(field, expected, messages.len()));
                }
                for (number, message) in messages.iter_mut().enumerate() {
                    read_message(message, &format!("messages[{number}]"), chain, &mut self.texts)?;
                }
            }
            Kind::Completion | Kind::Embedding => {
                let prompts = self.read_texts(&mut value, field, chain)?;
                let most = if self.kind == Kind::Embedding { MOST_INPUTS } else { maximum_choices };
                if prompts.saturating_mul(self.answers) > most {
                    let expected = format!("at most {most} texts (times `n`)");
                    return Err(ApiFailure::field(field, expected, prompts));
                }
                self.answers *= prompts;
            }
        }
        self.put(field, value);
        Ok(())
    }

    /// A text, tokens, or an array of either; how many prompts there are.
    fn read_texts(&mut self, value: &mut Value, field: &str, chain: &Chain) -> Result<usize, ApiFailure> {
        match value {
            Value::String(text) => {
                filter(text, field, chain)?;
                self.texts.push(text.clone());
                Ok(1)
            }
            Value::Array(values) if !values.is_empty() => {
                if values.iter().all(|value| value.is_u64()) {
                    if !chain.passes_input() {
                        let expected = "text: filters read no tokens";
                        return Err(ApiFailure::field(field, expected, "an array of tokens"));
                    }
                    self.prompt_ids += values.len();
                    return Ok(1);
                }
                for (number, value) in values.iter_mut().enumerate() {
                    let place = format!("{field}[{number}]");
                    let is_list = value.as_array().is_some_and(|values| values.iter().all(Value::is_u64));
                    if !(value.is_string() || is_list) {
                        return Err(ApiFailure::field(
                            place,
                            "a string or an array of tokens",
                            kind_of(value),
                        ));
                    }
                    self.read_texts(value, &place, chain)?;
                }
                Ok(values.len())
            }
            other => {
                let expected = "a string, an array of strings or of tokens, none of them empty";
                Err(ApiFailure::field(field, expected, kind_of(other)))
            }
        }
    }
}

fn user(fields: &mut Fields) -> Result<Option<String>, ApiFailure> {
    match fields.string("user")? {
        Some(user) if user.len() > LONGEST_USER => {
            let expected = format!("at most {LONGEST_USER} bytes");
            Err(ApiFailure::field("user", expected, user.len()))
        }
        user => Ok(user),
    }
}

/// Checks and filters a message: text only, since an engine must not fetch what a client names.
fn read_message(
    message: &mut Value,
    place: &str,
    chain: &Chain,
    texts: &mut Vec<String>,
) -> Result<(), ApiFailure> {
    let Value::Object(object) = message else {
        return Err(ApiFailure::field(place, "an object", kind_of(message)));
    };
    let role = object.get("role").and_then(Value::as_str);
    if !matches!(role, Some("system" | "developer" | "user" | "assistant" | "tool")) {
        let found = object.get("role").map_or("nothing".to_string(), shown);
        let expected = "one of system, developer, user, assistant, tool";
        return Err(ApiFailure::field(format!("{place}.role"), expected, found));
    }
    for (name, value) in object.iter_mut() {
        let place = format!("{place}.{name}");
        match (name.as_str(), value) {
            ("role", _) | (_, Value::Null) => (),
            ("content", Value::String(text)) => {
                filter(text, &place, chain)?;
                texts.push(text.clone());
            }
            ("content", Value::Array(parts)) => {
                for (number, part) in parts.iter_mut().enumerate() {
                    texts.push(read_part(part, &format!("{place}[{number}]"), chain)?);
                }
            }
            ("content", other) => {
                let expected = "a string, or an array of parts of type text";
                return Err(ApiFailure::field(place, expected, kind_of(other)));
            }
            ("name" | "tool_call_id", value @ Value::String(_)) | ("tool_calls", value @ Value::Array(_)) => {
                filter_strings(value, &place, chain)?;
            }
            ("name" | "tool_call_id", other) => {
                return Err(ApiFailure::field(place, "a string", kind_of(other)));
            }
            _ => {
                let shown: String = place.chars().take(80).collect();
                let message = format!("`{shown}` is not supported by this server: leave it out");
                return Err(ApiFailure {
                    param: Some(shown),
                    ..ApiFailure::new(StatusCode::BAD_REQUEST, "unsupported_field", message)
                });
            }
        }
    }
    Ok(())
}

fn read_part(part: &mut Value, place: &str, chain: &Chain) -> Result<String, ApiFailure> {
    let kind = part.get("type").cloned().unwrap_or_default();
    if kind != "text" {
        let expected = "text: this server lets no engine fetch what a client names";
        return Err(ApiFailure::field(format!("{place}.type"), expected, shown(&kind)));
    }
    match part.get_mut("text") {
        Some(Value::String(text)) => {
            filter(text, place, chain)?;
            let text = text.clone();
            // Whatever else stands beside it stays here.
            *part = json!({"type": "text", "text": text});
            Ok(text)
        }
        _ => Err(ApiFailure::field(format!("{place}.text"), "a string", "nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: Kind, body: Value) -> Result<Outgoing, ApiFailure> {
        Outgoing::read(kind, body.to_string().as_bytes(), 4, &Chain::default())
    }

    #[test]
    fn only_what_is_known_goes_on() {
        let messages = json!([{"role": "user", "content": [{"type": "text", "text": "a", "cache": 1}]}]);
        let body = json!({
            "model": "m", "messages": messages, "stream": true, "user": "u", "max_completion_tokens": 7,
            "temperature": 0.5, "store": false, "logprobs": null,
        });
        let outgoing = read(Kind::Chat, body).unwrap();
        let expected = json!({
            "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 7,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "temperature": 0.5,
        });
        assert_eq!(Value::Object(outgoing.fields), expected);
        assert_eq!((outgoing.user.as_deref(), outgoing.texts), (Some("u"), vec!["a".to_string()]));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let message = |message: Value| json!({"model": "m", "messages": [message]});
        let image = json!([{"type": "image_url", "image_url": {"url": "http://localhost/"}}]);
        for (kind, body, param) in [
            (Kind::Chat, json!({"model": "m"}), "messages"),
            (Kind::Chat, json!({"model": "m", "messages": []}), "messages"),
            (
                Kind::Chat,
                json!({"messages": vec![json!({"role": "user", "content": ""}); MOST_MESSAGES + 1]}),
                "messages",
            ),
            (
                Kind::Chat,
                json!({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 1e9}),
                "top_logprobs",
            ),
            (Kind::Completion, json!({"prompt": "a", "logprobs": -1}), "logprobs"),
            (Kind::Completion, json!({"prompt": "a", "stop": vec!["a"; 17]}), "stop"),
            (Kind::Chat, message(json!("a")), "messages[0]"),
            (Kind::Chat, message(json!({"role": "root", "content": "a"})), "messages[0].role"),
            (Kind::Chat, message(json!({"role": "user", "content": image})), "messages[0].content[0].type"),
            (Kind::Chat, message(json!({"role": "user", "content": "a", "x": 1})), "messages[0].x"),
            (Kind::Completion, json!({"prompt": "a", "guided_regex": "x"}), "guided_regex"),
            (Kind::Completion, json!({"prompt": "a", "chat_template_kwargs": {}}), "chat_template_kwargs"),
            (
                Kind::Chat,
                json!({"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"chat_template": "x"}}),
                "chat_template_kwargs.chat_template",
            ),
            (Kind::Completion, json!({"prompt": "a", "n": 5}), "n"),
            (Kind::Completion, json!({"prompt": ["a", "b", "c"], "n": 2}), "prompt"),
            (Kind::Completion, json!({"prompt": [1, "b"]}), "prompt[0]"),
            (Kind::Completion, json!({"prompt": "a", "stream_options": {}}), "stream_options"),
            (Kind::Completion, json!({"prompt": "a", "logit_bias": {"text": 1}}), "logit_bias"),
            (Kind::Completion, json!({"prompt": "a", "logit_bias": {"1": "text"}}), "logit_bias"),
            (Kind::Embedding, json!({"input": {}}), "input"),
            (Kind::Embedding, json!({"input": "a", "stream": true}), "stream"),
        ] {
            let failure = read(kind, body.clone()).err().unwrap();
            assert_eq!(failure.param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn filters_see_every_text() {
        let settings = filters::Settings {
            input: vec![filters::FilterSettings::PersonalData(filters::PersonalDataSettings {
                name: "people".to_string(),
                action: filters::Action::Replace,
                kinds: personal_data(),
                language: None,
            })],
            ..filters::Settings::default()
        };
        let chain = Chain::compile(&settings).unwrap();
        let secret = "x anna@post.example";
        let body = json!({
            "messages": [
                {"role": "user", "content": secret},
                {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": secret}]},
                {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": secret}}]},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "description": secret}}],
            "stop": [secret],
            "chat_template_kwargs": {"about": [secret], "enable_thinking": false},
        });
        let outgoing = Outgoing::read(Kind::Chat, body.to_string().as_bytes(), 4, &chain).unwrap();
        let sent = serde_json::to_string(&outgoing.fields).unwrap();
        assert!(!sent.contains("anna") && sent.matches("<EMAIL>").count() == 6, "{sent}");
        let tokens = json!({"prompt": [1, 2]}).to_string();
        assert!(Outgoing::read(Kind::Completion, tokens.as_bytes(), 4, &chain).is_err());
        // Keys are text too: the names of a tool's parameters stand in the prompt.
        let properties = |name: &str| json!({"type": "object", "properties": {name: {"type": "string"}}});
        let read = |field: &str, value: Value| {
            let body = json!({"messages": [{"role": "user", "content": "a"}], field: value}).to_string();
            Outgoing::read(Kind::Chat, body.as_bytes(), 4, &chain).map(|_| ())
        };
        for name in ["city", secret] {
            let tools =
                json!([{"type": "function", "function": {"name": "f", "parameters": properties(name)}}]);
            let format =
                json!({"type": "json_schema", "json_schema": {"name": "f", "schema": properties(name)}});
            for (field, value) in [("tools", tools), ("response_format", format)] {
                let param = read(field, value).err().map(|failure| failure.param.unwrap());
                assert_eq!(param, (name == secret).then(|| field.to_string()), "{name}");
            }
        }
    }

    fn personal_data() -> Vec<filters::PersonalData> {
        filters::PersonalData::ALL.to_vec()
    }
}
