//! What one request leaves behind: one audit event, whichever way the request ends.
//!
//! The event is on disk before the answer ends. A request that ends without having said so (its client left, its task
//! was dropped) is noted as abandoned.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, StatusCode};
use serde_json::{Map, Value};

use crate::api::failure::ApiFailure;
use crate::audit::{AuditEvent, AuditLog, Content};
use crate::audit_policy::AuditContent;
use crate::conversation::{Conversation, KeptPrompt};
use crate::error::ServingError;
use crate::identity::Caller;
use crate::keys::random_hex;
use crate::limits::Admission;
use crate::operations::metrics::{Ended, Metrics};
use crate::operations::trace::{RequestTrace, SpanEnd};
use crate::server::Server;

/// The account of one request. Clones are the same account.
#[derive(Clone)]
pub struct Account(Arc<State>);

struct State {
    /// Random; ties an answer to its event.
    id: String,
    audit: Arc<AuditLog>,
    metrics: Arc<Metrics>,
    /// Where it stands in a trace, if it does.
    trace: RequestTrace,
    caller: Caller,
    admission: Admission,
    route: &'static str,
    arrived: Instant,
    details: Mutex<Details>,
    /// What is kept for the tenant, once its prompt was read.
    conversation: Mutex<Option<Conversation>>,
    keeps_answers: AtomicBool,
    settled: AtomicBool,
    streams: AtomicBool,
}

/// What becomes known while a request is answered.
#[derive(Clone, Debug, Default)]
pub struct Details {
    pub model: String,
    /// Digest of the release that the model belongs to.
    pub digest: String,
    /// Keyed digest of the client's own name for its user.
    pub user: Option<String>,
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
    /// How long it waited for an engine of ours.
    pub queued: Option<Duration>,
    /// From its arrival.
    first_token: Option<Duration>,
    /// By answer: when its last tokens came, and how many there were then.
    pace: BTreeMap<usize, (Instant, usize)>,
}

impl Account {
    pub fn open(
        server: &Server,
        trace: RequestTrace,
        caller: Caller,
        admission: Admission,
        route: &'static str,
    ) -> Result<Account, ServingError> {
        Ok(Account(Arc::new(State {
            id: random_hex(12)?,
            audit: server.audit.clone(),
            metrics: server.metrics.clone(),
            trace,
            caller,
            admission,
            route,
            arrived: Instant::now(),
            details: Mutex::default(),
            conversation: Mutex::default(),
            keeps_answers: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            streams: AtomicBool::new(false),
        })))
    }

    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// What engines elsewhere are told of the request's trace.
    pub fn traceparent(&self) -> Option<HeaderValue> {
        self.0.trace.outgoing()
    }

    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// The request's hold on the limits of its tenant and key.
    pub fn admission(&self) -> &Admission {
        &self.0.admission
    }

    pub fn details(&self) -> MutexGuard<'_, Details> {
        self.0.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tokens have come for one of the answers, so many in all. Feeds the histograms of times.
    pub fn tokens_came(&self, answer: usize, tokens: usize) {
        let now = Instant::now();
        let mut details = self.details();
        let (last, before) = *details.pace.entry(answer).or_insert((self.0.arrived, 0));
        let count = u32::try_from(tokens.saturating_sub(before)).unwrap_or(u32::MAX);
        if count == 0 {
            return;
        }
        details.pace.insert(answer, (now, tokens));
        if before == 0 {
            self.0.metrics.first_token(&details.model, now - last);
            details.first_token.get_or_insert(now - last);
        } else {
            self.0.metrics.further_tokens(&details.model, now - last, count);
        }
    }

    /// Begins to keep the conversation, if the tenant's policy asks; `prompt` is what stands in the request's field of that
    /// name, `most` the bytes of it that are kept. Before any work: what could not be sealed is not answered.
    pub fn keep_prompt<P: Into<KeptPrompt>>(
        &self,
        most: usize,
        field: &'static str,
        prompt: impl FnOnce() -> P,
    ) -> Result<(), ApiFailure> {
        let policy = &self.0.caller.policy.audit;
        if policy.content == AuditContent::None {
            return Ok(());
        }
        let begun = Conversation::begin(policy, most, field, prompt).map_err(|problem| {
            ApiFailure::internal(&format!("the tenant's `audit.recipients`: {problem}"))
        })?;
        *self.conversation() = Some(begun);
        self.0.keeps_answers.store(policy.content.has_answers(), Ordering::Relaxed);
        Ok(())
    }

    /// Keeps text of an answer, if the policy asks.
    pub fn keep_text(&self, answer: usize, text: &str) {
        if self.0.keeps_answers.load(Ordering::Relaxed)
            && let Some(conversation) = self.conversation().as_mut()
        {
            conversation.keep_text(answer, text);
        }
    }

    /// Keeps a part of an answer as an engine elsewhere sent it, if the policy asks.
    pub fn keep_part(&self, answer: usize, part: &Map<String, Value>) {
        if self.0.keeps_answers.load(Ordering::Relaxed)
            && let Some(conversation) = self.conversation().as_mut()
        {
            conversation.keep_part(answer, part);
        }
    }

    fn conversation(&self) -> MutexGuard<'_, Option<Conversation>> {
        self.0.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on the stream settles the account, not whoever made the response's head.
    pub fn hand_to_stream(&self) {
        self.0.streams.store(true, Ordering::Relaxed);
    }

    pub fn is_streaming(&self) -> bool {
        self.0.streams.load(Ordering::Relaxed)
    }

    /// Writes the event and waits until it is on disk. `Err` if it cannot be put there: then the request has failed.
    pub async fn settle(&self, outcome: &str, status: StatusCode) -> Result<(), ApiFailure> {
        if self.0.settled.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let (sender, written) = tokio::sync::oneshot::channel();
        self.0.audit.append_with(self.0.event(outcome, status), self.0.content(), move |result| {
            // A request that was dropped meanwhile no longer waits; its line is written all the same.
            let _ = sender.send(result);
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(problem)) => Err(ApiFailure::internal(&format!("audit log: {problem}"))),
            Err(_) => Err(ApiFailure::internal("audit log: its thread has ended")),
        }
    }
}

impl State {
    /// What was kept, sealed.
    fn content(&self) -> Option<Content> {
        let kept = self.conversation.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept?.seal(&self.id, &self.caller.tenant)
    }

    fn event(&self, outcome: &str, status: StatusCode) -> AuditEvent {
        let details = self.details.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What was refused was not computed.
        let computed =
            if outcome == "refused" { 0 } else { details.prompt_tokens + details.completion_tokens };
        self.admission.settle(computed);
        let milliseconds = u64::try_from(self.arrived.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.metrics.ended(&Ended {
            route: self.route,
            status,
            model: &details.model,
            prompt_tokens: details.prompt_tokens,
            completion_tokens: details.completion_tokens,
            time: self.arrived.elapsed(),
        });
        let end = SpanEnd {
            id: &self.id,
            route: self.route,
            status,
            outcome,
            model: &details.model,
            prompt_tokens: details.prompt_tokens,
            completion_tokens: details.completion_tokens,
            queued: details.queued,
            first_token: details.first_token,
        };
        if let Some(span) = &self.trace.span {
            span.end(&end);
        }
        end.log(self.trace.id(), &self.caller.key_id, milliseconds);
        AuditEvent::new("request")
            .with("id", self.id.as_str())
            .with("tenant", self.caller.tenant.as_str())
            .with("key", self.caller.key_id.as_str())
            .with("user", details.user)
            .with("route", self.route)
            .with("model", details.model)
            .with("model_digest", details.digest)
            .with("prompt_tokens", details.prompt_tokens)
            .with("completion_tokens", details.completion_tokens)
            .with("outcome", outcome)
            .with("status", status.as_u16())
            .with("milliseconds", milliseconds)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            // 499, as nginx has it: the client closed the connection.
            let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
            let (event, content) = (self.event("abandoned", status), self.content());
            self.audit.append_with(event, content, |_| {});
        }
    }
}
