//! How an answer looks: OpenAI's `text_completion` and `chat.completion`, whole and in chunks.

use filters::{Chain, FilterStream};
use inference::{Alternative, Event, FinishReason, TokenLogprob};
use serde_json::{Map, Value, json};
use tokenizer::Tokenizer;

use super::answer::{Asked, Choice, usage};
use super::failure::ApiFailure;
use crate::keys::random_hex;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Completion,
    Chat,
}

impl Kind {
    /// The field that holds the prompt, which complaints about it name.
    pub fn prompt_field(self) -> &'static str {
        match self {
            Kind::Completion => "prompt",
            Kind::Chat => "messages",
        }
    }
}

/// What all parts of one answer share.
pub struct Frame {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
    prompt_tokens: usize,
    /// A last chunk has the token counts; the others say that they have none.
    stream_usage: bool,
}

/// One answer while it grows. What is new since the last chunk is kept apart from what was collected before.
pub struct ChoiceText {
    echo: Option<String>,
    /// Bytes of the prompt's first token, which has no probability.
    first_prompt_token: Vec<u8>,
    with_logprobs: bool,
    with_prompt_logprobs: bool,
    text: String,
    tokens: Vec<ScoredToken>,
    new_text: String,
    /// Where in the new text that of the last event begins; before it may stand the prompt, if it is repeated.
    answered_from: usize,
    new_tokens: Vec<ScoredToken>,
    /// Characters that stand before the new tokens.
    offset: usize,
    completion_tokens: usize,
    reason: Option<FinishReason>,
    /// What the text goes through, where there are filters.
    filter: Option<FilterStream>,
    is_refused: bool,
}

/// A token as log probabilities show it.
struct ScoredToken {
    bytes: Vec<u8>,
    /// `None` for the first token of a prompt.
    logprob: Option<TokenLogprob>,
}

impl ChoiceText {
    pub fn new(choice: &Choice, tokenizer: &Tokenizer, chain: &Chain) -> ChoiceText {
        let with_prompt_logprobs = choice.request.prompt_logprobs.is_some();
        let first = choice.request.prompt.first().copied();
        let first_bytes = first.and_then(|first| tokenizer.decode(&[first]).ok()).map(String::into_bytes);
        let exact = first.and_then(|first| tokenizer.bytes_of(first)).map(<[u8]>::to_vec);
        ChoiceText {
            // With probabilities the prompt comes as soon as it is scored, otherwise at once.
            new_text: choice.echo.clone().filter(|_| !with_prompt_logprobs).unwrap_or_default(),
            echo: choice.echo.clone().filter(|_| with_prompt_logprobs),
            first_prompt_token: exact.or(first_bytes).unwrap_or_default(),
            with_logprobs: choice.request.logprobs.is_some(),
            with_prompt_logprobs,
            text: String::new(),
            tokens: Vec::new(),
            answered_from: 0,
            new_tokens: Vec::new(),
            offset: 0,
            completion_tokens: 0,
            reason: None,
            filter: (!chain.passes_output()).then(|| chain.stream()),
            is_refused: false,
        }
    }

    pub fn take(&mut self, event: Event) {
        self.answered_from = self.new_text.len();
        match event {
            Event::Prompt { logprobs } if self.with_prompt_logprobs => {
                self.new_text.push_str(&self.echo.take().unwrap_or_default());
                self.answered_from = self.new_text.len();
                let first = std::mem::take(&mut self.first_prompt_token);
                self.new_tokens.extend(logprobs.into_iter().map(|logprob| ScoredToken {
                    bytes: logprob.as_ref().map_or(first.clone(), |logprob| logprob.token.bytes.clone()),
                    logprob,
                }));
            }
            Event::Prompt { .. } | Event::Embedding { .. } | Event::Failed(_) => {}
            Event::Token { text, ids, logprobs } => {
                self.pass(Some(&text));
                self.completion_tokens += ids.len();
                self.new_tokens.extend(logprobs.into_iter().map(|logprob| ScoredToken {
                    bytes: logprob.token.bytes.clone(),
                    logprob: Some(logprob),
                }));
            }
            Event::Finished { reason, usage } => {
                self.pass(None);
                self.completion_tokens = usage.completion_tokens;
                self.reason = Some(reason);
            }
        }
    }

    /// Lets a piece of the answer, or at its end what was held back, through the filters.
    fn pass(&mut self, piece: Option<&str>) {
        let released = match (&mut self.filter, piece) {
            (None, piece) => Ok(piece.unwrap_or_default().to_string()),
            (Some(filter), Some(piece)) => filter.push(piece),
            (Some(filter), None) => filter.finish(),
        };
        match released {
            Ok(text) => self.new_text.push_str(&text),
            Err(stopped) => {
                self.new_text.push_str(&stopped.released);
                self.is_refused = true;
            }
        }
    }

    /// Puts what is new to what was there.
    pub fn collect(&mut self) {
        self.text.push_str(&std::mem::take(&mut self.new_text));
        self.tokens.append(&mut self.new_tokens);
    }

    /// The text that the last event brought, as the client gets it.
    pub fn answered(&self) -> &str {
        self.new_text.get(self.answered_from..).unwrap_or_default()
    }

    pub fn has_ended(&self) -> bool {
        self.reason.is_some() || self.is_refused
    }

    pub fn completion_tokens(&self) -> usize {
        self.completion_tokens
    }

    fn finish_reason(&self) -> Option<&'static str> {
        if self.is_refused {
            return Some("content_filter");
        }
        self.reason.map(|reason| match reason {
            FinishReason::EndOfText | FinishReason::StopString => "stop",
            FinishReason::MaxTokens | FinishReason::ContextLength => "length",
        })
    }
}

impl Frame {
    pub fn new(asked: &Asked, created: u64, prompt_tokens: usize) -> Result<Frame, ApiFailure> {
        let Asked { kind, model, stream_usage, .. } = asked;
        let number = random_hex(12).map_err(|error| ApiFailure::internal(&error.to_string()))?;
        let prefix = if *kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let digest: String = model.digest.chars().take(16).collect();
        Ok(Frame {
            kind: *kind,
            id: format!("{prefix}-{number}"),
            created,
            model: model.name.clone(),
            fingerprint: format!("fp_{digest}"),
            prompt_tokens,
            stream_usage: *stream_usage,
        })
    }

    /// The whole answer.
    pub fn whole(&self, choices: &[ChoiceText]) -> Value {
        let (object, choices_rendered): (_, Vec<Value>) = match self.kind {
            Kind::Chat => ("chat.completion", choices.iter().enumerate().map(whole_chat_choice).collect()),
            Kind::Completion => ("text_completion", choices.iter().enumerate().map(whole_choice).collect()),
        };
        let completion_tokens = choices.iter().map(ChoiceText::completion_tokens).sum();
        let mut answer = self.envelope(object, choices_rendered);
        answer["usage"] = usage(self.prompt_tokens, completion_tokens);
        answer
    }

    /// The first chunk of a choice, where the form has one.
    pub fn opening(&self, number: usize) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": ""});
        (self.kind == Kind::Chat)
            .then(|| self.chunk(json!({"index": number, "delta": delta, "finish_reason": null})))
    }

    /// What is new of a choice, and its end if it has come.
    pub fn chunks(&self, number: usize, choice: &mut ChoiceText) -> Vec<Value> {
        let mut chunks = Vec::new();
        let (text, tokens) = (std::mem::take(&mut choice.new_text), std::mem::take(&mut choice.new_tokens));
        if !text.is_empty() || !tokens.is_empty() {
            chunks.push(match self.kind {
                Kind::Chat => {
                    let mut part =
                        json!({"index": number, "delta": {"content": text}, "finish_reason": null});
                    if choice.with_logprobs {
                        part["logprobs"] = chat_logprobs(&tokens);
                    }
                    self.chunk(part)
                }
                Kind::Completion => {
                    let logprobs = if choice.with_logprobs {
                        completion_logprobs(&tokens, &mut choice.offset)
                    } else {
                        Value::Null
                    };
                    self.chunk(
                        json!({"index": number, "text": text, "logprobs": logprobs, "finish_reason": null}),
                    )
                }
            });
        }
        if let Some(reason) = choice.finish_reason() {
            chunks.push(match self.kind {
                Kind::Chat => self.chunk(json!({"index": number, "delta": {}, "finish_reason": reason})),
                Kind::Completion => self
                    .chunk(json!({"index": number, "text": "", "logprobs": null, "finish_reason": reason})),
            });
        }
        chunks
    }

    /// The last chunk: token counts, no choice.
    pub fn usage_chunk(&self, choices: &[ChoiceText]) -> Value {
        let completion_tokens = choices.iter().map(ChoiceText::completion_tokens).sum();
        let mut chunk = self.envelope(self.chunk_object(), Vec::new());
        chunk["usage"] = usage(self.prompt_tokens, completion_tokens);
        chunk
    }

    fn chunk(&self, choice: Value) -> Value {
        let mut chunk = self.envelope(self.chunk_object(), vec![choice]);
        if self.stream_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn chunk_object(&self) -> &'static str {
        match self.kind {
            Kind::Chat => "chat.completion.chunk",
            Kind::Completion => "text_completion",
        }
    }

    fn envelope(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        })
    }
}

fn whole_chat_choice((number, choice): (usize, &ChoiceText)) -> Value {
    json!({
        "index": number,
        "message": {"role": "assistant", "content": choice.text, "refusal": null},
        "logprobs": if choice.with_logprobs { chat_logprobs(&choice.tokens) } else { Value::Null },
        "finish_reason": choice.finish_reason(),
    })
}

fn whole_choice((number, choice): (usize, &ChoiceText)) -> Value {
    let logprobs =
        if choice.with_logprobs { completion_logprobs(&choice.tokens, &mut 0) } else { Value::Null };
    json!({"index": number, "text": choice.text, "logprobs": logprobs, "finish_reason": choice.finish_reason()})
}

fn chat_logprobs(tokens: &[ScoredToken]) -> Value {
    let entry = |alternative: &Alternative| {
        json!({
            "token": token_text(&alternative.bytes),
            "logprob": alternative.logprob,
            "bytes": alternative.bytes,
        })
    };
    let content: Vec<Value> = tokens
        .iter()
        .filter_map(|token| token.logprob.as_ref())
        .map(|logprob| {
            let mut token = entry(&logprob.token);
            token["top_logprobs"] = logprob.top.iter().map(entry).collect();
            token
        })
        .collect();
    json!({"content": content, "refusal": null})
}

/// Four lists side by side; `offset` counts characters and moves on.
fn completion_logprobs(tokens: &[ScoredToken], offset: &mut usize) -> Value {
    let mut offsets = Vec::with_capacity(tokens.len());
    for token in tokens {
        offsets.push(*offset);
        // A character is counted where it begins, so that tokens of half characters add up.
        *offset += token.bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
    }
    let top = |token: &ScoredToken| match &token.logprob {
        None => Value::Null,
        Some(logprob) => {
            // As OpenAI does: the chosen token stands among the alternatives, likely or not.
            let entries = logprob.top.iter().chain([&logprob.token]).filter(|_| !logprob.top.is_empty());
            let entries = entries.map(|entry| (token_text(&entry.bytes), json!(entry.logprob)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
    };
    json!({
        "tokens": tokens.iter().map(|token| token_text(&token.bytes)).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|token| token.logprob.as_ref().map(|logprob| logprob.token.logprob)).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}

/// A token as text; one that is not whole characters as OpenAI writes it, `bytes:\xc5`.
fn token_text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => {
            let escaped: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("bytes:{escaped}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_characters_across_tokens_of_bytes() {
        let token = |bytes: &[u8]| ScoredToken { bytes: bytes.to_vec(), logprob: None };
        let tokens = [token("ża".as_bytes()), token(b"\xc5"), token(b"\x82"), token(b"x")];
        let mut offset = 0;
        let rendered = completion_logprobs(&tokens, &mut offset);
        assert_eq!(rendered["text_offset"], json!([0, 2, 3, 3]));
        assert_eq!(rendered["tokens"], json!(["ża", "bytes:\\xc5", "bytes:\\x82", "x"]));
        assert_eq!(offset, 4);
    }
}
