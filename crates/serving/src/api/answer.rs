//! From a checked request to its answer: whole, or as a stream of server-sent events.
//!
//! The handles of the engine's requests live in the future or task that answers. When the client leaves, hyper drops
//! that future, or the stream's receiver, and with the handles goes the work.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use filters::Chain;
use inference::{Event, Request, RunningRequest};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, channel, unbounded_channel};
use tokio_stream::wrappers::ReceiverStream;

use super::failure::ApiFailure;
use super::models::ServedModel;
use super::render::{ChoiceText, Frame, Kind};
use crate::account::Account;
use crate::limits;
use crate::server::Server;

/// Events that wait for a client that reads slowly; beyond that its answer waits in the engine's channel, which the
/// answer's length bounds.
const STREAM_BUFFER: usize = 16;

/// A request that was read and filtered, before any work on its prompts.
pub struct Asked {
    pub kind: Kind,
    pub model: ServedModel,
    /// What answers are filtered by.
    pub chain: Arc<Chain>,
    /// `None`: any.
    pub seed: Option<u64>,
    pub stream: bool,
    pub stream_usage: bool,
}

/// What all answers to one request are computed with.
pub struct Terms {
    pub tenant: String,
    /// Seeds of the answers follow from it.
    pub seed: u64,
    pub time_limit: Duration,
    /// Seconds since 1970, for templates that name the date.
    pub now: u64,
}

/// A request whose prompts are encoded and checked.
pub struct Job {
    pub asked: Asked,
    pub choices: Vec<Choice>,
    /// Of all prompts, each counted once however many answers it gets.
    pub prompt_tokens: usize,
}

/// One of the answers that a request asks for.
pub struct Choice {
    pub request: Request,
    /// The prompt's text, if it is to stand before the answer.
    pub echo: Option<String>,
}

/// The answers under way.
struct Work {
    events: UnboundedReceiver<(usize, Event)>,
    submitted: Instant,
    /// When the engine took up the first of them.
    admitted: Arc<OnceLock<Instant>>,
    /// Dropping these cancels.
    _running: Vec<RunningRequest>,
    choices: Vec<ChoiceText>,
}

/// Answers a request. `encode` makes the answers to compute, and counts the tokens of all prompts.
pub async fn respond(
    server: &Arc<Server>,
    account: Account,
    asked: Asked,
    encode: impl FnOnce(&ServedModel, &Terms) -> Result<(Vec<Choice>, usize), ApiFailure> + Send + 'static,
) -> Result<Response, ApiFailure> {
    let terms = Terms {
        tenant: account.caller().tenant.clone(),
        seed: server.seed(asked.seed)?,
        time_limit: server.settings().request_time(),
        now: server.now(),
    };
    // Before work on the prompts: refusing must cost little.
    let room = asked.model.engine.has_room_for(&terms.tenant);
    room.map_err(|error| ApiFailure::from_submit(error, asked.kind.prompt_field()))?;
    let turn = account.admission().encoding_turn().await;
    // Templates and long prompts take a while: not on the threads that serve connections.
    let encoding = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let (choices, prompt_tokens) = encode(&asked.model, &terms)?;
        Ok(Job { asked, choices, prompt_tokens })
    });
    let job = encoding.await.map_err(ApiFailure::of_task)??;
    answer(server, account, job).await
}

async fn answer(server: &Arc<Server>, account: Account, mut job: Job) -> Result<Response, ApiFailure> {
    account.details().prompt_tokens = job.prompt_tokens;
    limits::fit::fit(account.admission(), &mut job)?;
    let frame = Frame::new(&job.asked, server.now(), job.prompt_tokens)?;
    let (stream, stream_usage) = (job.asked.stream, job.asked.stream_usage);
    let mut work = if job.choices.iter().any(|choice| choice.request.format.is_some()) {
        // Compiling a form may take a second: not on the threads that serve connections.
        let begun = tokio::task::spawn_blocking(move || Work::begin(job)).await;
        begun.map_err(ApiFailure::of_task)??
    } else {
        Work::begin(job)?
    };
    if !stream {
        while let Some(number) = work.step(&account).await? {
            work.choices[number].collect();
        }
        return Ok(Json(frame.whole(&work.choices)).into_response());
    }
    account.hand_to_stream();
    let (sender, receiver) = channel(STREAM_BUFFER);
    let server = server.clone();
    tokio::spawn(async move {
        let left = tokio::select! {
            () = stream_events(work, &frame, stream_usage, &account, &sender, &server) => false,
            () = sender.closed() => true,
        };
        if left {
            // The account, dropped unsettled, says that the request was abandoned.
            tracing::debug!("a client left its stream");
        }
    });
    let mut response = Body::from_stream(ReceiverStream::new(receiver)).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

async fn stream_events(
    mut work: Work,
    frame: &Frame,
    stream_usage: bool,
    account: &Account,
    sender: &Sender<Result<Bytes, Infallible>>,
    server: &Server,
) {
    let patience = server.settings().stalled_client_time();
    let send = |event: Value| async move {
        let bytes = Bytes::from(format!("data: {event}\n\n"));
        // A client that does not read in time is gone like one that closed the connection.
        matches!(tokio::time::timeout(patience, sender.send(Ok(bytes))).await, Ok(Ok(())))
    };
    for number in 0..work.choices.len() {
        if let Some(chunk) = frame.opening(number)
            && !send(chunk).await
        {
            return;
        }
    }
    loop {
        match work.step(account).await {
            Ok(Some(number)) => {
                for chunk in frame.chunks(number, &mut work.choices[number]) {
                    if !send(chunk).await {
                        return;
                    }
                }
            }
            Ok(None) => break,
            Err(failure) => {
                let failure = account.settle(failure.code, failure.status).await.err().unwrap_or(failure);
                send(failure.body()).await;
                return;
            }
        }
    }
    if stream_usage && !send(frame.usage_chunk(&work.choices)).await {
        return;
    }
    let end = match account.settle("ok", StatusCode::OK).await {
        Ok(()) => Bytes::from_static(b"data: [DONE]\n\n"),
        Err(failure) => Bytes::from(format!("data: {}\n\n", failure.body())),
    };
    // If the client is gone by now, it has everything but the end.
    let _ = tokio::time::timeout(patience, sender.send(Ok(end))).await;
}

impl Work {
    /// Hands all requests to the engine; if it refuses one, those before it are cancelled.
    fn begin(job: Job) -> Result<Work, ApiFailure> {
        let (sender, events) = unbounded_channel();
        let (mut running, mut choices) = (Vec::new(), Vec::new());
        let (submitted, admitted) = (Instant::now(), Arc::new(OnceLock::new()));
        let Job { asked, choices: wanted, .. } = job;
        for (number, mut choice) in wanted.into_iter().enumerate() {
            choice.request.admitted = Some(admitted.clone());
            let tokenizer = asked.model.engine.tokenizer();
            choices.push(ChoiceText::new(&choice, tokenizer, &asked.chain));
            let sender = sender.clone();
            let deliver = move |event| {
                // Nobody listens any more: the request is being cancelled.
                let _ = sender.send((number, event));
            };
            let submitted = asked.model.engine.submit_with(choice.request, deliver);
            let field = asked.kind.prompt_field();
            running.push(submitted.map_err(|error| ApiFailure::from_submit(error, field))?);
        }
        Ok(Work { events, submitted, admitted, _running: running, choices })
    }

    /// Takes the next event and returns the number of its choice; `None` when all have ended.
    async fn step(&mut self, account: &Account) -> Result<Option<usize>, ApiFailure> {
        if self.choices.iter().all(ChoiceText::has_ended) {
            return Ok(None);
        }
        let (number, event) = loop {
            let Some((number, event)) = self.events.recv().await else { return Err(ApiFailure::stopping()) };
            // A filter may have ended it before its engine did.
            if !self.choices[number].has_ended() {
                break (number, event);
            }
        };
        if let Event::Failed(failure) = &event {
            return Err(ApiFailure::from_request(failure));
        }
        self.choices[number].take(event);
        account.keep_text(number, self.choices[number].answered());
        account.tokens_came(number, self.choices[number].completion_tokens());
        let queued = self.admitted.get().map(|admitted| *admitted - self.submitted);
        let mut details = account.details();
        details.queued = queued;
        details.completion_tokens = self.choices.iter().map(ChoiceText::completion_tokens).sum();
        Ok(Some(number))
    }
}

/// Usage as OpenAI counts it.
pub fn usage(prompt_tokens: usize, completion_tokens: usize) -> Value {
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    })
}
