//! Answers that come as streams.
//!
//! The engine's events are read one by one when the client's connection takes bytes, and not before: a client that reads
//! slowly slows the engine, one that leaves closes the engine's connection. Each event is read, filtered and written anew.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use filters::Chain;
use futures_util::stream::unfold;
use serde_json::{Map, Value};

use super::Kind;
use super::answer::{Frame, Usage};
use super::choice::ChoiceState;
use crate::account::Account;
use crate::api::failure::ApiFailure;
use crate::upstream::{BadStream, Events, UpstreamAnswer, UpstreamModel, failed};

/// Streams the answer; the account is settled before its last event.
pub fn respond(frame: Frame<'_>, account: Account, upstream: UpstreamAnswer, with_usage: bool) -> Response {
    account.hand_to_stream();
    let relay = Relay::new(frame, account, upstream, with_usage);
    let stream = unfold(relay, |mut relay| async move {
        let bytes = relay.next().await?;
        Some((Ok::<Bytes, Infallible>(bytes), relay))
    });
    let mut response = Body::from_stream(stream).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

struct Relay {
    /// `None` once it has been let go.
    upstream: Option<UpstreamAnswer>,
    events: Events,
    account: Account,
    kind: Kind,
    chain: Arc<Chain>,
    shows_logprobs: bool,
    /// Everything of an event before its choices, and everything after.
    head: String,
    tail: &'static str,
    choices: Vec<ChoiceState>,
    with_usage: bool,
    reported: Option<Usage>,
    /// Text of all its answers, in bytes.
    most_bytes: usize,
    /// What counting needs.
    model: Arc<UpstreamModel>,
    texts: Vec<String>,
    prompt_tokens: usize,
    /// The engine has said everything; the account has to be settled.
    is_ending: bool,
    has_ended: bool,
}

/// What one event of the engine was.
enum Event {
    Part,
    /// `[DONE]`, or every answer was refused.
    Last,
}

impl Relay {
    fn new(frame: Frame<'_>, account: Account, upstream: UpstreamAnswer, with_usage: bool) -> Relay {
        let object = if frame.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" };
        let head = format!(
            "data: {{\"id\":\"{}\",\"object\":\"{object}\",\"created\":{},\"model\":{},\"choices\":[",
            frame.answer_id(),
            frame.created,
            Value::from(frame.model.name.as_str()),
        );
        Relay {
            events: Events::new(upstream.answer_limit()),
            most_bytes: upstream.answer_limit(),
            upstream: Some(upstream),
            account,
            kind: frame.kind,
            shows_logprobs: frame.shows_logprobs(),
            choices: frame.states(),
            chain: frame.chain,
            head,
            tail: if with_usage { "],\"usage\":null}\n\n" } else { "]}\n\n" },
            with_usage,
            reported: None,
            model: frame.model,
            texts: frame.texts,
            prompt_tokens: frame.prompt_tokens,
            is_ending: false,
            has_ended: false,
        }
    }

    /// The next bytes for the client.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.has_ended {
                return None;
            }
            let mut out = Vec::new();
            if self.is_ending {
                self.settle(&mut out).await;
            } else {
                match self.read(&mut out).await {
                    Ok(Event::Part) => {}
                    Ok(Event::Last) => self.end(&mut out),
                    Err(failure) => self.fail(failure, &mut out).await,
                }
            }
            if !out.is_empty() {
                return Some(out.into());
            }
        }
    }

    /// Takes all events that are there, or waits for more bytes.
    async fn read(&mut self, out: &mut Vec<u8>) -> Result<Event, ApiFailure> {
        let Some(upstream) = &mut self.upstream else { return Ok(Event::Last) };
        let Some(bytes) = upstream.piece().await? else {
            // An engine that closes after its last answer without `[DONE]` has said everything.
            if self.choices.iter().all(|choice| choice.has_ended) {
                return Ok(Event::Last);
            }
            return Err(self.malformed("the stream was cut off"));
        };
        self.events.push(&bytes);
        loop {
            let data = match self.events.next_event() {
                Ok(Some(data)) => data,
                Ok(None) => break,
                Err(BadStream::TooLarge) => return Err(self.malformed("an event is too large")),
                Err(BadStream::NotUtf8) => return Err(self.malformed("an event is no UTF-8")),
            };
            if data.trim_ascii() == "[DONE]" {
                return Ok(Event::Last);
            }
            self.take(&data, out)?;
            if self.choices.iter().all(|choice| choice.is_refused) {
                return Ok(Event::Last);
            }
        }
        Ok(Event::Part)
    }

    /// Takes one event.
    fn take(&mut self, data: &str, out: &mut Vec<u8>) -> Result<(), ApiFailure> {
        let Ok(Value::Object(mut event)) = serde_json::from_str::<Value>(data) else {
            return Err(self.malformed("an event is no JSON object"));
        };
        if let Some(usage) = event.get("usage").and_then(Usage::reported) {
            self.reported = Some(usage);
        }
        if event.get("error").is_some_and(|error| !error.is_null()) {
            return Err(self.malformed("the stream holds an error"));
        }
        let choices = match event.remove("choices") {
            Some(Value::Array(choices)) => choices,
            // Usage alone.
            None | Some(Value::Null) => return Ok(()),
            Some(_) => return Err(self.malformed("`choices` is no array")),
        };
        for choice in choices {
            let Value::Object(choice) = choice else {
                return Err(self.malformed("a choice is no object"));
            };
            let number = choice.get("index").and_then(Value::as_u64).unwrap_or(0);
            match usize::try_from(number).ok().filter(|number| *number < self.choices.len()) {
                Some(number) => self.take_choice(number, choice, out),
                None => return Err(self.malformed("more choices than asked for")),
            }
        }
        // What is counted at the end is kept until then.
        match self.choices.iter().map(|choice| choice.sent_bytes).sum::<usize>() > self.most_bytes {
            true => Err(self.malformed("the answer is larger than `answer_limit_bytes`")),
            false => Ok(()),
        }
    }

    fn take_choice(&mut self, number: usize, mut choice: Map<String, Value>, out: &mut Vec<u8>) {
        let state = &mut self.choices[number];
        if state.has_ended {
            return;
        }
        let part = match choice.remove("delta") {
            Some(Value::Object(mut delta)) if self.kind == Kind::Chat => {
                state.part(self.kind, &mut delta, &self.chain)
            }
            _ if self.kind == Kind::Chat => Map::new(),
            _ => state.part(self.kind, &mut choice, &self.chain),
        };
        self.account.tokens_came(number, state.pieces);
        let logprobs = choice.remove("logprobs").filter(|_| self.shows_logprobs).unwrap_or_default();
        // An event whose text the filters hold back says nothing.
        if !is_empty(&part) || !logprobs.is_null() {
            self.write_part(number, part, logprobs, Value::Null, out);
        }
        let theirs = choice.get("finish_reason").filter(|reason| !reason.is_null());
        if theirs.is_some() || self.choices[number].is_refused {
            self.end_choice(number, theirs, out);
        }
    }

    /// Writes what was held back of an answer, and its end.
    fn end_choice(&mut self, number: usize, theirs: Option<&Value>, out: &mut Vec<u8>) {
        let state = &mut self.choices[number];
        let rest = state.rest();
        state.has_ended = true;
        let reason = state.reason(theirs);
        if !rest.is_empty() {
            self.write_part(number, rest, Value::Null, Value::Null, out);
        }
        self.write_part(number, Map::new(), Value::Null, reason, out);
    }

    fn write_part(
        &self,
        number: usize,
        mut part: Map<String, Value>,
        logprobs: Value,
        reason: Value,
        out: &mut Vec<u8>,
    ) {
        let mut choice = Map::new();
        self.account.keep_part(number, &part);
        choice.insert("index".to_string(), Value::from(number));
        match self.kind {
            Kind::Chat => choice.insert("delta".to_string(), Value::Object(part)),
            _ => choice.insert("text".to_string(), part.remove("text").unwrap_or_else(|| Value::from(""))),
        };
        choice.insert("logprobs".to_string(), logprobs);
        choice.insert("finish_reason".to_string(), reason);
        out.extend_from_slice(self.head.as_bytes());
        // Into memory, of values: this cannot fail.
        let _ = serde_json::to_writer(&mut *out, &choice);
        out.extend_from_slice(self.tail.as_bytes());
    }

    /// The engine has said everything: ends what has not ended, and counts. This goes out before the disk is waited for.
    fn end(&mut self, out: &mut Vec<u8>) {
        if let Some(upstream) = &self.upstream {
            upstream.succeeded();
        }
        for number in 0..self.choices.len() {
            if !self.choices[number].has_ended {
                self.end_choice(number, None, out);
            }
        }
        let usage = self.usage();
        usage.note(&self.account);
        if let Some(usage) = usage.rendered().filter(|_| self.with_usage) {
            out.extend_from_slice(self.head.as_bytes());
            out.extend_from_slice(format!("],\"usage\":{usage}}}\n\n").as_bytes());
        }
        self.is_ending = true;
    }

    /// Writes the last event once the request's line is on disk.
    async fn settle(&mut self, out: &mut Vec<u8>) {
        self.has_ended = true;
        let is_refused = self.choices.iter().any(|choice| choice.is_refused);
        let outcome = if is_refused { "content_filter" } else { "ok" };
        let settled = self.account.settle(outcome, StatusCode::OK);
        let settled = match self.upstream.take() {
            Some(mut upstream) if !is_refused => {
                let ((), settled) = tokio::join!(upstream.end(), settled);
                settled
            }
            // Dropped: the engine need not go on.
            _ => settled.await,
        };
        match settled {
            Ok(()) => out.extend_from_slice(b"data: [DONE]\n\n"),
            Err(failure) => out.extend_from_slice(format!("data: {}\n\n", failure.body()).as_bytes()),
        }
    }

    async fn fail(&mut self, failure: ApiFailure, out: &mut Vec<u8>) {
        self.upstream = None;
        self.has_ended = true;
        self.usage().note(&self.account);
        let failure = self.account.settle(failure.code, failure.status).await.err().unwrap_or(failure);
        out.extend_from_slice(format!("data: {}\n\n", failure.body()).as_bytes());
    }

    fn usage(&self) -> Usage {
        self.reported
            .unwrap_or_else(|| Usage::counted(&self.model, &self.texts, self.prompt_tokens, &self.choices))
    }

    /// The engine broke its word.
    fn malformed(&self, problem: &str) -> ApiFailure {
        if let Some(upstream) = &self.upstream {
            upstream.failed(&format!("malformed stream: {problem}"));
        }
        failed()
    }
}

/// Whether there is no text in a part, as while filters hold it back.
fn is_empty(part: &Map<String, Value>) -> bool {
    part.values().all(|value| value.as_str().is_some_and(str::is_empty))
}
