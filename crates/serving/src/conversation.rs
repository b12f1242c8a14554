//! What is kept of one request for the audit log, if its tenant's policy asks: gathered with a bound while the request is
//! answered, and sealed with the tenant's keys when it ends.
//!
//! Kept is what the model was given, after the filters for prompts, and what the client was given, after those for
//! answers. What is beyond the bound is cut off, and the event says so.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::age::{Recipient, encrypt};
use crate::audit::{AuditEvent, Content};
use crate::audit_policy::{AuditContent, AuditPolicy};

/// The parts of one conversation that are kept.
#[derive(Default)]
pub struct Conversation {
    wanted: AuditContent,
    recipients: Vec<Recipient>,
    /// Most bytes of the prompt, and of all answers together.
    most: usize,
    /// Name of the prompt's field.
    field: &'static str,
    /// The prompt as JSON.
    prompt: Option<String>,
    /// A field beside it, as JSON.
    beside: Option<(&'static str, String)>,
    answers: BTreeMap<usize, Answer>,
    answer_bytes: usize,
    prompt_is_cut: bool,
    is_without_beside: bool,
    answers_are_cut: bool,
}

/// A prompt as it is kept: what stands in its field, and what was said beside it in another.
pub struct KeptPrompt {
    pub prompt: Value,
    pub beside: Option<(&'static str, Value)>,
}

impl From<Value> for KeptPrompt {
    fn from(prompt: Value) -> KeptPrompt {
        KeptPrompt { prompt, beside: None }
    }
}

/// One answer.
#[derive(Default)]
struct Answer {
    /// `content`, `text` and the like.
    texts: BTreeMap<String, String>,
    /// Calls of tools, by index: identifier, name, arguments.
    calls: BTreeMap<u64, BTreeMap<&'static str, String>>,
}

impl Conversation {
    /// Begins one; `prompt` is what stands in the request's field of that name. `Err` if the keys of the policy cannot be
    /// read.
    pub fn begin<P: Into<KeptPrompt>>(
        policy: &AuditPolicy,
        most: usize,
        field: &'static str,
        prompt: impl FnOnce() -> P,
    ) -> Result<Conversation, String> {
        let recipients = policy.recipients.iter().map(|text| Recipient::read(text));
        let mut begun = Conversation {
            wanted: policy.content,
            recipients: recipients.collect::<Result<_, _>>()?,
            most,
            field,
            ..Conversation::default()
        };
        if begun.wanted.has_prompts() {
            let KeptPrompt { prompt, beside } = prompt().into();
            let mut text = prompt.to_string();
            if text.len() > most {
                text.truncate(text.floor_char_boundary(most));
                begun.prompt_is_cut = true;
            }
            // Whole or not at all.
            let beside = beside.map(|(name, value)| (name, value.to_string()));
            begun.is_without_beside =
                beside.as_ref().is_some_and(|(_, value)| text.len() + value.len() > most);
            begun.beside = beside.filter(|_| !begun.is_without_beside);
            begun.prompt = Some(text);
        }
        Ok(begun)
    }

    /// Keeps text of an answer.
    pub fn keep_text(&mut self, number: usize, text: &str) {
        let name = if self.field == "messages" { "content" } else { "text" };
        self.keep(number, text, |answer| answer.texts.entry(name.to_string()).or_default());
    }

    /// Keeps a part of a message, or a whole one.
    pub fn keep_part(&mut self, number: usize, part: &Map<String, Value>) {
        for (name, value) in part {
            match value {
                Value::String(text) if name != "role" => {
                    self.keep(number, text, |answer| answer.texts.entry(name.clone()).or_default());
                }
                Value::Array(calls) if name == "tool_calls" => {
                    for call in calls {
                        self.keep_call(number, call);
                    }
                }
                _ => (),
            }
        }
    }

    fn keep_call(&mut self, number: usize, call: &Value) {
        let index = call["index"].as_u64().unwrap_or(0);
        let parts = [
            ("id", &call["id"]),
            ("name", &call["function"]["name"]),
            ("arguments", &call["function"]["arguments"]),
        ];
        for (name, part) in parts {
            if let Some(text) = part.as_str() {
                self.keep(number, text, |answer| {
                    answer.calls.entry(index).or_default().entry(name).or_default()
                });
            }
        }
    }

    fn keep(&mut self, number: usize, text: &str, place: impl FnOnce(&mut Answer) -> &mut String) {
        if !self.wanted.has_answers() || text.is_empty() {
            return;
        }
        let room = self.most.saturating_sub(self.answer_bytes);
        let kept = &text[..text.floor_char_boundary(room)];
        self.answers_are_cut |= kept.len() < text.len();
        self.answer_bytes += kept.len();
        if !kept.is_empty() {
            place(self.answers.entry(number).or_default()).push_str(kept);
        }
    }

    /// What was kept, sealed; `None` if nothing was.
    pub fn seal(self, id: &str, tenant: &str) -> Option<Content> {
        if self.prompt.is_none() && self.answers.is_empty() {
            return None;
        }
        let mut cut = Vec::new();
        cut.extend((self.prompt_is_cut || self.is_without_beside).then_some("prompt"));
        cut.extend(self.answers_are_cut.then_some("answers"));
        let event = |kind: &str| AuditEvent::new(kind).with("id", id).with("tenant", tenant);
        let sealed = encrypt(&self.recipients, self.text(id, &cut).as_bytes());
        let mut named = event("content").with("recipients", self.recipients.len());
        if !cut.is_empty() {
            named = named.with("truncated", cut);
        }
        Some(Content { named, lost: event("content_lost"), sealed })
    }

    /// The conversation as JSON.
    fn text(&self, id: &str, cut: &[&str]) -> String {
        let mut text = format!("{{\"id\":{}", json!(id));
        match &self.prompt {
            // What is cut is no JSON any more, but a text.
            Some(prompt) if self.prompt_is_cut => {
                text.push_str(&format!(",\"{}\":{}", self.field, json!(prompt)));
            }
            Some(prompt) => text.push_str(&format!(",\"{}\":{prompt}", self.field)),
            None => (),
        }
        if let Some((name, value)) = &self.beside {
            text.push_str(&format!(",\"{name}\":{value}"));
        }
        if self.wanted.has_answers() {
            let answers: Vec<Value> = self.answers.iter().map(rendered).collect();
            text.push_str(&format!(",\"answers\":{}", Value::from(answers)));
        }
        if !cut.is_empty() {
            text.push_str(&format!(",\"truncated\":{}", json!(cut)));
        }
        text.push('}');
        text
    }
}

fn rendered((number, answer): (&usize, &Answer)) -> Value {
    let mut rendered = json!({"index": number});
    for (name, text) in &answer.texts {
        rendered[name] = json!(text);
    }
    if !answer.calls.is_empty() {
        rendered["tool_calls"] = answer.calls.values().map(|call| json!(call)).collect();
    }
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::age::{Identity, decrypt};

    fn kept(content: AuditContent, most: usize, take: impl FnOnce(&mut Conversation)) -> Option<Value> {
        let identity = Identity::make().unwrap();
        let policy = AuditPolicy { content, recipients: vec![identity.recipient().to_string()] };
        let prompt = || json!([{"role": "user", "content": "Cé mhéad?"}]);
        let mut conversation = Conversation::begin(&policy, most, "messages", prompt).unwrap();
        take(&mut conversation);
        let content = conversation.seal("a1", "t1")?;
        let opened = decrypt(&[identity], &content.sealed.unwrap()).unwrap().unwrap();
        Some(serde_json::from_slice(&opened).unwrap())
    }

    #[test]
    fn parts_come_together_as_the_policy_asks() {
        let parts = |conversation: &mut Conversation| {
            conversation.keep_text(1, "Óg");
            for part in [
                json!({"role": "assistant", "content": "A "}),
                json!({"content": "dó", "reasoning": "x"}),
                json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{\"a\""}}]}),
                json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
            ] {
                conversation.keep_part(0, part.as_object().unwrap());
            }
        };
        let answers = json!([
            {"index": 0, "content": "A dó", "reasoning": "x",
             "tool_calls": [{"arguments": "{\"a\":1}", "id": "c", "name": "f"}]},
            {"index": 1, "content": "Óg"},
        ]);
        let messages = json!([{"role": "user", "content": "Cé mhéad?"}]);
        let check = |content, expected| assert_eq!(kept(content, 1_000, parts), Some(expected));
        check(AuditContent::Both, json!({"id": "a1", "messages": messages, "answers": answers}));
        check(AuditContent::Prompts, json!({"id": "a1", "messages": messages}));
        check(AuditContent::Answers, json!({"id": "a1", "answers": answers}));
        assert_eq!(kept(AuditContent::Answers, 1_000, |_| ()), None, "no answer, nothing to keep");
    }

    #[test]
    fn what_is_too_long_is_cut_between_letters() {
        let found = kept(AuditContent::Both, 9, |conversation| {
            conversation.keep_text(0, "Ελλάδα");
            conversation.keep_text(1, "b");
            conversation.keep_text(1, "c");
        })
        .unwrap();
        assert_eq!(found["messages"], "[{\"role\":");
        assert_eq!(found["answers"], json!([{"index": 0, "content": "Ελλά"}, {"index": 1, "content": "b"}]));
        assert_eq!(found["truncated"], json!(["prompt", "answers"]));
    }

    #[test]
    fn what_the_template_was_told_is_kept_beside_the_messages() {
        let check = |most, variables: Value, cut: Value| {
            let identity = Identity::make().unwrap();
            let recipients = vec![identity.recipient().to_string()];
            let policy = AuditPolicy { content: AuditContent::Prompts, recipients };
            let beside = || Some(("chat_template_kwargs", json!({"enable_thinking": false})));
            let prompt = || KeptPrompt { prompt: json!([]), beside: beside() };
            let conversation = Conversation::begin(&policy, most, "messages", prompt).unwrap();
            let sealed = conversation.seal("a1", "t1").unwrap().sealed.unwrap();
            let kept: Value =
                serde_json::from_slice(&decrypt(&[identity], &sealed).unwrap().unwrap()).unwrap();
            assert_eq!((&kept["messages"], &kept["chat_template_kwargs"]), (&json!([]), &variables));
            assert_eq!(kept["truncated"], cut);
        };
        check(100, json!({"enable_thinking": false}), Value::Null);
        check(10, Value::Null, json!(["prompt"]));
    }
}
