//! `messages` of a request, and the prompt that the model's chat template makes of them: the one that
//! `apply_chat_template` of `transformers` makes, as `eulalia chat` does.

use filters::Chain;
use serde_json::{Value, json};
use tokenizer::{Conversation, Error, Moment, Tokenizer};

use super::failure::ApiFailure;
use super::fields::{Fields, kind_of, shown};
use super::relay;
use super::variables::Variables;
use crate::conversation::KeptPrompt;

/// Messages of one request: the template goes over each, however empty.
pub const MOST_MESSAGES: usize = 2_048;

/// One turn: its role as templates know it, and what was said, in one text or in several parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Turn {
    role: &'static str,
    said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Text(String),
    Parts(Vec<String>),
}

/// The turns of a request, at least one, and what the template is told beside them.
#[derive(Clone, Debug, PartialEq)]
pub struct Turns {
    turns: Vec<Turn>,
    variables: Variables,
}

impl Turns {
    /// Reads `messages` and `chat_template_kwargs`.
    pub fn read(fields: &mut Fields) -> Result<Turns, ApiFailure> {
        let expected = "an array of at least one message";
        let values = match fields.take("messages") {
            Some(Value::Array(values)) if values.len() > MOST_MESSAGES => {
                let expected = format!("at most {MOST_MESSAGES} messages");
                return Err(ApiFailure::field("messages", expected, values.len()));
            }
            Some(Value::Array(values)) if !values.is_empty() => values,
            Some(other) => return Err(fields.wrong("messages", expected, &other)),
            None => return Err(ApiFailure::field("messages", expected, "nothing")),
        };
        let turn = |(number, value)| turn(value, &format!("messages[{number}]"));
        let turns = values.into_iter().enumerate().map(turn).collect::<Result<_, _>>()?;
        Ok(Turns { turns, variables: Variables::read(fields)? })
    }

    /// Bytes of all that was said.
    pub fn bytes(&self) -> usize {
        self.turns.iter().map(|turn| turn.said.bytes()).sum()
    }

    /// As they are kept where a tenant asks for it.
    pub fn kept(&self) -> KeptPrompt {
        let turn = |turn: &Turn| json!({"role": turn.role, "content": turn.said.text()});
        KeptPrompt { prompt: self.turns.iter().map(turn).collect(), beside: self.variables.as_field() }
    }

    /// Lets every turn through the input filters. They read a turn as a whole, so that nothing hides between two parts;
    /// what they change is one text from then on.
    pub fn filter(&mut self, chain: &Chain) -> Result<(), ApiFailure> {
        self.variables.filter(chain)?;
        for (number, turn) in self.turns.iter_mut().enumerate() {
            let before = turn.said.text();
            let mut text = before.clone();
            relay::filter(&mut text, &format!("messages[{number}].content"), chain)?;
            if text != before {
                turn.said = Said::Text(text);
            }
        }
        Ok(())
    }

    /// The prompt's ids; `now` is what `strftime_now` tells, in seconds since 1970.
    ///
    /// # Errors
    /// Where there is no template, or it refuses the turns.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        add_generation_prompt: bool,
        now: u64,
    ) -> Result<Vec<u32>, Error> {
        tokenizer.encode_conversation(&self.conversation(tokenizer, add_generation_prompt, now))
    }

    /// What the template is given. Parts go to templates that read parts; others would write them out as a list, or
    /// refuse: those get the parts joined.
    fn conversation(&self, tokenizer: &Tokenizer, add_generation_prompt: bool, now: u64) -> Conversation {
        let now = Some(Moment::from_unix(i64::try_from(now).unwrap_or(i64::MAX)));
        let with = |content: &dyn Fn(&Said) -> Value| {
            let turn = |turn: &Turn| json!({"role": turn.role, "content": content(&turn.said)});
            let messages = self.turns.iter().map(turn).collect();
            let variables = self.variables.values().clone();
            Conversation { messages, add_generation_prompt, variables, now, ..Conversation::default() }
        };
        let plain = with(&|said| Value::String(said.text()));
        if self.turns.iter().all(|turn| matches!(turn.said, Said::Text(_))) {
            return plain;
        }
        // A template that reads parts makes the same of a text and of a list of this one text.
        let single = with(&|said| match said {
            Said::Text(text) => json!(text),
            Said::Parts(_) => parts(&[said.text()]),
        });
        let reads_parts =
            match (tokenizer.render_conversation(&single), tokenizer.render_conversation(&plain)) {
                (Ok(of_parts), Ok(of_text)) => of_parts == of_text,
                _ => false,
            };
        if !reads_parts {
            return plain;
        }
        with(&|said| match said {
            Said::Text(text) => json!(text),
            Said::Parts(texts) => parts(texts),
        })
    }
}

impl Said {
    fn text(&self) -> String {
        match self {
            Said::Text(text) => text.clone(),
            Said::Parts(texts) => texts.concat(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Said::Text(text) => text.len(),
            Said::Parts(texts) => texts.iter().map(String::len).sum(),
        }
    }
}

fn parts(texts: &[String]) -> Value {
    texts.iter().map(|text| json!({"type": "text", "text": text})).collect()
}

fn turn(value: Value, place: &str) -> Result<Turn, ApiFailure> {
    let mut fields = Fields::of(value, place)?;
    let expected = "one of system, developer, user, assistant";
    let role = match fields.string("role")?.as_deref() {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool" | "function") => {
            let expected = format!("{expected}; tools are not called here");
            return Err(ApiFailure::field(format!("{place}.role"), expected, "tool"));
        }
        Some(other) => {
            return Err(ApiFailure::field(format!("{place}.role"), expected, shown(&json!(other))));
        }
        None => return Err(ApiFailure::field(format!("{place}.role"), expected, "nothing")),
    };
    // First: a turn that calls tools has no content, and the tools are what is not supported.
    fields.only("tool_calls", &[json!([])])?;
    let said = said(fields.take("content"), &format!("{place}.content"))?;
    fields.finish()?;
    Ok(Turn { role, said })
}

/// A string, or an array of parts, all of them text.
fn said(value: Option<Value>, place: &str) -> Result<Said, ApiFailure> {
    let expected = "a string, or an array of parts of type text";
    match value {
        Some(Value::String(text)) => Ok(Said::Text(text)),
        Some(Value::Array(parts)) if parts.is_empty() => Ok(Said::Text(String::new())),
        Some(Value::Array(parts)) => {
            let part = |(number, part)| {
                let place = format!("{place}[{number}]");
                let mut fields = Fields::of(part, &place)?;
                let kind = fields.string("type")?.unwrap_or_default();
                if kind != "text" {
                    let place = format!("{place}.type");
                    return Err(ApiFailure::field(place, "text, the only kind here", shown(&json!(kind))));
                }
                let text = fields.string("text")?;
                fields.finish()?;
                text.ok_or_else(|| ApiFailure::field(format!("{place}.text"), "a string", "nothing"))
            };
            Ok(Said::Parts(parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?))
        }
        Some(other) => Err(ApiFailure::field(place, expected, kind_of(&other))),
        None => Err(ApiFailure::field(place, expected, "nothing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moment at which the golden prompts were made: 9 March 2026, 07:05:04.
    const NOW: u64 = 1_773_039_904;
    const GOLDEN: &str = include_str!("../../../tokenizer/tests/golden/chat.json");
    const TEMPLATES: [(&str, &str); 8] = [
        ("alternating", include_str!("../../../tokenizer/tests/golden/chat/alternating.jinja")),
        ("marked_turns", include_str!("../../../tokenizer/tests/golden/chat/marked_turns.jinja")),
        ("metadata", include_str!("../../../tokenizer/tests/golden/chat/metadata.jinja")),
        ("named_roles", include_str!("../../../tokenizer/tests/golden/chat/named_roles.jinja")),
        ("python_values", include_str!("../../../tokenizer/tests/golden/chat/python_values.jinja")),
        ("reasoning", include_str!("../../../tokenizer/tests/golden/chat/reasoning.jinja")),
        ("statements", include_str!("../../../tokenizer/tests/golden/chat/statements.jinja")),
        ("typed_tools", include_str!("../../../tokenizer/tests/golden/chat/typed_tools.jinja")),
    ];

    fn turns(messages: &Value, variables: &Value) -> Result<Turns, ApiFailure> {
        let body = json!({"messages": messages, "chat_template_kwargs": variables}).to_string();
        Turns::read(&mut Fields::of_body(body.as_bytes()).unwrap())
    }

    fn check(messages: Value, expected: Result<&[(&str, &str)], &str>) {
        match (turns(&messages, &Value::Null), expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<_> = found.turns.iter().map(|turn| (turn.role, turn.said.text())).collect();
                let found: Vec<_> = found.iter().map(|(role, text)| (*role, text.as_str())).collect();
                assert_eq!(found, expected);
            }
            (Err(failure), Err(param)) => assert_eq!(failure.param.as_deref(), Some(param), "{messages}"),
            (found, expected) => panic!("{messages}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn messages_are_read_with_their_places() {
        let parts = json!([{"type": "text", "text": "Dia "}, {"type": "text", "text": "duit"}]);
        check(
            json!([{"role": "developer", "content": "Kurz."}, {"role": "user", "content": parts}]),
            Ok(&[("system", "Kurz."), ("user", "Dia duit")]),
        );
        check(Value::Null, Err("messages"));
        check(json!([]), Err("messages"));
        check(json!(["a"]), Err("messages[0]"));
        check(json!([{"role": "user"}]), Err("messages[0].content"));
        check(json!([{"role": "robot", "content": "a"}]), Err("messages[0].role"));
        check(json!([{"role": "tool", "content": "a", "tool_call_id": "c"}]), Err("messages[0].role"));
        check(json!([{"role": "user", "content": "a", "name": "b"}]), Err("messages[0].name"));
        let call = json!([{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
        check(json!([{"role": "assistant", "tool_calls": call}]), Err("messages[0].tool_calls"));
        let image = json!([{"type": "image_url", "image_url": {"url": "http://localhost"}}]);
        check(json!([{"role": "user", "content": image}]), Err("messages[0].content[0].type"));
    }

    /// Every conversation of the golden file that a request can hold, through every template.
    #[test]
    fn prompts_are_those_of_transformers() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let (mut equal, mut with_variables) = (0, 0);
        for (name, template) in TEMPLATES {
            let tokenizer = Tokenizer::with_chat_template(template, &golden["tokens"]).unwrap();
            for (case, expected) in golden["expected"][name].as_object().unwrap() {
                let given = &golden["conversations"][case];
                let asks_more = ["tools", "documents", "continue_final_message"]
                    .iter()
                    .any(|key| given.get(*key).is_some());
                let Ok(turns) = turns(&given["messages"], &given["variables"]) else { continue };
                with_variables += usize::from(given["variables"].is_object());
                let open = given["add_generation_prompt"] == true;
                // Where a template refuses a list, writes it out in Python's way or leaves it out, parts are joined instead.
                let lists = turns.turns.iter().any(|turn| matches!(turn.said, Said::Parts(_)));
                let reads = |text: &str| text.contains("dinja") && !text.contains("'type'");
                if asks_more || (lists && !expected.as_str().is_some_and(reads)) {
                    continue;
                }
                let conversation = turns.conversation(&tokenizer, open, NOW);
                let found = tokenizer.render_conversation(&conversation);
                let problem = found.as_ref().err().map(Error::to_string);
                assert_eq!(found.as_deref().ok(), expected.as_str(), "{name}, {case}: {problem:?}");
                equal += 1;
            }
        }
        assert!(equal > 250 && with_variables >= 24, "{equal}, {with_variables}");
    }

    #[test]
    fn parts_go_to_templates_that_read_them_and_are_joined_for_others() {
        let reads = "{% for m in messages %}{% if m.content is string %}[{{ m.content }}]{% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}";
        let check = |template: &str, expected: &str| {
            let tokenizer = Tokenizer::with_chat_template(template, &json!({})).unwrap();
            let said = json!([{"type": "text", "text": "Ħelow "}, {"type": "text", "text": "dinja"}]);
            let messages = json!([{"role": "system", "content": "S"}, {"role": "user", "content": said}]);
            let turns = turns(&messages, &Value::Null).unwrap();
            let conversation = turns.conversation(&tokenizer, true, NOW);
            assert_eq!(tokenizer.render_conversation(&conversation).unwrap(), expected);
        };
        check(reads, "[S][Ħelow ][dinja]");
        check("{% for m in messages %}{{ m.content }}|{% endfor %}", "S|Ħelow dinja|");
        check("{% for m in messages %}{{ m.content | trim }}|{% endfor %}", "S|Ħelow dinja|");
        check("{{ strftime_now('%d.%m.%Y') }} {{ messages[1].content + '!' }}", "09.03.2026 Ħelow dinja!");
        let one_text = "{% for m in messages %}{% if m.content is not string %}{{ raise_exception('no lists') }}{% endif %}{{ m.content }}{% endfor %}";
        check(one_text, "SĦelow dinja");
    }
}
