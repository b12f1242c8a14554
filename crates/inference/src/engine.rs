//! The engine: requests in, events out. One thread computes for all of them together.
//!
//! `submit` checks a request completely, queues it, and returns at once; everything later comes as events. Nothing here
//! knows of a network or of an async runtime: whoever needs one passes a function that forwards the events.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::{CacheFormat, InferenceModel, LoadWatch, WeightFormat};
use serde::{Deserialize, Serialize};
use tokenizer::Tokenizer;

use crate::blocks::Scope;
use crate::decoder::{Decoder, DecoderShape, ModelDecoder};
use crate::error::{EngineError, RequestFailure, SubmitError};
use crate::format::FormatCompiler;
use crate::generation::GenerationDefaults;
use crate::memory::{EngineMemory, plan_memory};
use crate::queue::FairQueue;
use crate::request::{Event, FinishReason, Request, TokenLogprob, Usage};
use crate::worker::{Waiting, Worker};

/// How an engine runs. None of it but `weights` and `kv_cache` changes a bit of any answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSettings {
    /// Threads to compute with.
    pub threads: usize,
    /// The numbers that weights are kept in.
    pub weights: WeightFormat,
    /// The numbers that keys and values are kept in; `None`: f32 with weights in f32, else bf16.
    pub kv_cache: Option<CacheFormat>,
    /// Memory for weights and cache together; `None`: as much as the requests that may run can fill, with a cache of at
    /// most 4 GiB.
    pub memory_bytes: Option<u64>,
    /// Longest sequence, if shorter than the model's own.
    pub context_length: Option<usize>,
    /// Requests that are computed together.
    pub running_requests: usize,
    /// For servers, where tenants come and go: nobody gets the last places and the last of the cache. A tenant may hold three
    /// times as much as is free: alone, three quarters.
    pub leaves_room: bool,
    /// Requests of one tenant that may wait; of all tenants together, four times as many.
    pub queued_requests: usize,
    /// Rows of one forward pass: a running answer takes one, a prompt as many as are left.
    pub tokens_per_step: usize,
    /// Keep complete blocks of 64 positions, so that a later text of the same tenant that begins alike need not compute
    /// them again. They take room that is free anyway.
    pub prefix_cache: bool,
    /// Most tokens that an answer guesses ahead from its own text, where the request does not say; 0 is off.
    pub speculation: usize,
    /// Adapters in PEFT folders, by the name that requests give.
    pub adapters: BTreeMap<String, PathBuf>,
}

/// Of the engine's thread: following a form's grammar takes more than the usual 2 MiB. Address space, not memory.
const ENGINE_STACK: usize = 64 << 20;

/// Most tokens that may be guessed at once: each is a row of logits.
const MOST_SPECULATION: usize = 64;

impl Default for EngineSettings {
    fn default() -> Self {
        EngineSettings {
            threads: 1,
            weights: WeightFormat::F32,
            kv_cache: None,
            memory_bytes: None,
            context_length: None,
            running_requests: 16,
            leaves_room: false,
            queued_requests: 64,
            tokens_per_step: 512,
            prefix_cache: true,
            speculation: 0,
            adapters: BTreeMap::new(),
        }
    }
}

impl EngineSettings {
    /// The numbers that a model's keys and values are kept in.
    pub fn cache_format(&self, model: &InferenceModel) -> CacheFormat {
        self.kv_cache.unwrap_or(model.default_cache_format())
    }

    /// Refuses what cannot work, naming the setting.
    pub fn check(&self) -> Result<(), EngineError> {
        let settings = [
            ("threads", self.threads),
            ("context_length", self.context_length.unwrap_or(1)),
            ("running_requests", self.running_requests),
            ("queued_requests", self.queued_requests),
            ("tokens_per_step", self.tokens_per_step),
        ];
        let wrong = |key, expected: String, found: usize| {
            Err(EngineError::Setting { key, expected, found: found.to_string() })
        };
        match settings.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => wrong(key, "at least 1".to_string(), 0),
            None if self.speculation > MOST_SPECULATION => {
                wrong("speculation", format!("at most {MOST_SPECULATION}"), self.speculation)
            }
            None => Ok(()),
        }
    }
}

/// A running engine. Share it with an `Arc`; dropping it ends its thread and fails what still runs.
pub struct Engine {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
    tokenizer: Arc<Tokenizer>,
    shape: DecoderShape,
    adapters: Vec<String>,
    memory: EngineMemory,
    defaults: GenerationDefaults,
    formats: FormatCompiler,
    settings: EngineSettings,
}

/// What the engine and its thread share.
pub(crate) struct Shared {
    pub inbox: Mutex<Inbox>,
    pub changed: Condvar,
}

pub(crate) struct Inbox {
    pub queue: FairQueue<Waiting>,
    pub running: usize,
    pub stopping: bool,
    pub figures: EngineFigures,
    /// Blocks of the cache, and those that running requests hold.
    pub cache_blocks: usize,
    pub cache_blocks_used: usize,
}

impl Shared {
    pub fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // No code that holds the lock calls anything that may panic halfway through a change.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How busy an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EngineLoad {
    pub running: usize,
    pub waiting: usize,
    /// Whether it takes requests at all.
    pub alive: bool,
    /// Blocks of the key-value cache; known once the engine has looked for work.
    pub cache_blocks: usize,
    /// Of these, blocks that running requests hold.
    pub cache_blocks_used: usize,
    pub figures: EngineFigures,
}

/// What an engine has done since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EngineFigures {
    /// Forward passes.
    pub steps: u64,
    /// Rows that they computed.
    pub computed_tokens: u64,
    /// Requests that found the beginning of their prompt computed.
    pub prefix_hits: u64,
    /// Rows that these did not have to compute.
    pub prefix_tokens_saved: u64,
    /// Tokens guessed ahead, and those of them that held.
    pub guessed_tokens: u64,
    pub accepted_tokens: u64,
}

impl EngineFigures {
    /// Adds what was done since.
    pub(crate) fn add(&mut self, more: EngineFigures) {
        self.steps += more.steps;
        self.computed_tokens += more.computed_tokens;
        self.prefix_hits += more.prefix_hits;
        self.prefix_tokens_saved += more.prefix_tokens_saved;
        self.guessed_tokens += more.guessed_tokens;
        self.accepted_tokens += more.accepted_tokens;
    }
}

impl Engine {
    /// Loads a model folder in the Hugging Face layout, or a GGUF file, with its tokenizer and adapters, and starts.
    pub fn start(model_folder: &Path, settings: &EngineSettings) -> Result<Engine, EngineError> {
        Engine::start_watched(model_folder, settings, &|_, _| ControlFlow::Continue(()))
    }

    /// As [`Engine::start`]; `watch` follows the loading of the weights and may break it off.
    pub fn start_watched(
        model_folder: &Path,
        settings: &EngineSettings,
        watch: LoadWatch<'_>,
    ) -> Result<Engine, EngineError> {
        settings.check()?;
        let tokenizer = Arc::new(Tokenizer::load(model_folder)?);
        let (weights, threads) = (settings.weights, settings.threads);
        let model = Arc::new(InferenceModel::load_watched(model_folder, None, weights, threads, watch)?);
        let vocabulary_size = model.config().vocabulary_size;
        if tokenizer.vocabulary_size() > vocabulary_size {
            let tokenizer = tokenizer.vocabulary_size();
            return Err(EngineError::Vocabulary { tokenizer, model: vocabulary_size });
        }
        let plan = plan_memory(model.as_ref(), settings)?;
        let adapters: Vec<_> =
            settings.adapters.iter().map(|(name, folder)| (name.clone(), folder.clone())).collect();
        let defaults = GenerationDefaults::load(model_folder)?;
        let end_tokens = defaults.all_end_tokens(&model.config().end_tokens, &tokenizer);
        let cache = model.new_cache_as(plan.blocks, settings.cache_format(&model));
        let rows = settings.tokens_per_step;
        let decoder =
            ModelDecoder::new(model, &adapters, plan.context_length, cache, rows, settings.threads)?;
        let names = adapters.into_iter().map(|(name, _)| name).collect();
        let mut engine = Engine::over(Box::new(decoder), names, tokenizer, end_tokens, settings)?;
        engine.memory = plan.memory;
        engine.defaults = defaults;
        Ok(engine)
    }

    /// Starts over any decoder; `adapters` names those that it has, `end_tokens` end every answer.
    pub fn over(
        decoder: Box<dyn Decoder>,
        adapters: Vec<String>,
        tokenizer: Arc<Tokenizer>,
        end_tokens: Vec<u32>,
        settings: &EngineSettings,
    ) -> Result<Engine, EngineError> {
        settings.check()?;
        let shape = decoder.shape();
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox {
                queue: FairQueue::new(settings.leaves_room),
                running: 0,
                stopping: false,
                figures: EngineFigures::default(),
                cache_blocks: 0,
                cache_blocks_used: 0,
            }),
            changed: Condvar::new(),
        });
        let formats = FormatCompiler::new(tokenizer.clone(), shape.vocabulary_size, end_tokens.clone());
        let worker = Worker::new(decoder, tokenizer.clone(), end_tokens, shared.clone(), settings);
        let thread = std::thread::Builder::new()
            .name("engine".to_string())
            .stack_size(ENGINE_STACK)
            .spawn(move || worker.run())
            .map_err(EngineError::Thread)?;
        Ok(Engine {
            shared,
            worker: Some(thread),
            tokenizer,
            shape,
            adapters,
            memory: EngineMemory::default(),
            defaults: GenerationDefaults::default(),
            formats,
            settings: settings.clone(),
        })
    }

    /// Queues a request; its events come over a channel.
    pub fn submit(&self, request: Request) -> Result<RequestHandle, SubmitError> {
        let (sender, events) = mpsc::channel();
        let running = self.submit_with(request, move |event| {
            // Nobody listens any more: the handle is gone, and the request with it.
            let _ = sender.send(event);
        })?;
        Ok(RequestHandle { running, events })
    }

    /// Queues a request; its events go to `deliver`, on the engine's thread: it must neither block nor panic.
    pub fn submit_with(
        &self,
        request: Request,
        deliver: impl FnMut(Event) + Send + 'static,
    ) -> Result<RunningRequest, SubmitError> {
        let waiting = self.admit(request, Box::new(deliver))?;
        let running = RunningRequest { cancelled: waiting.cancelled.clone(), shared: self.shared.clone() };
        let mut inbox = self.shared.inbox();
        if inbox.stopping {
            return Err(SubmitError::Stopped);
        }
        self.check_queue(&inbox, &waiting.request.tenant)?;
        let tenant = waiting.request.tenant.clone();
        inbox.queue.push(&tenant, waiting.blocks, waiting, Instant::now());
        drop(inbox);
        self.shared.changed.notify_one();
        Ok(running)
    }

    /// Whether a request of this tenant would find a place in the queue now: to be asked before work on its prompt.
    pub fn has_room_for(&self, tenant: &str) -> Result<(), SubmitError> {
        self.check_queue(&self.shared.inbox(), tenant)
    }

    fn check_queue(&self, inbox: &Inbox, tenant: &str) -> Result<(), SubmitError> {
        let limit = self.settings.queued_requests;
        let waiting = inbox.queue.waiting();
        if inbox.queue.waiting_of(tenant) >= limit || waiting >= limit.saturating_mul(4) {
            return Err(SubmitError::QueueFull { waiting });
        }
        Ok(())
    }

    /// Checks a request at the edge, so that nothing inside has to doubt it.
    fn admit(&self, request: Request, deliver: Box<dyn FnMut(Event) + Send>) -> Result<Waiting, SubmitError> {
        let DecoderShape { vocabulary_size, hidden_size, context_length: context, .. } = self.shape;
        let prompt = request.prompt.len();
        if prompt == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        let max_tokens = if request.pooling.is_some() { Some(0) } else { request.max_tokens };
        let wanted = max_tokens.unwrap_or(1);
        if prompt.saturating_add(wanted) > context {
            return Err(SubmitError::ContextLength { prompt, wanted, context });
        }
        if let Some(&token) = request.prompt.iter().find(|&&token| token as usize >= vocabulary_size) {
            return Err(SubmitError::UnknownToken { token, vocabulary_size });
        }
        if request.stop.iter().any(String::is_empty) {
            let expected = "strings of at least one character";
            return Err(SubmitError::Field { field: "stop", found: "\"\"".to_string(), expected });
        }
        let field = |field, found: String, expected| Err(SubmitError::Field { field, found, expected });
        match request.speculation {
            Some(most) if most > MOST_SPECULATION => {
                return field("speculation", most.to_string(), "at most 64");
            }
            _ => {}
        }
        if request.pooling.is_some() && hidden_size == 0 {
            return field("pooling", "set".to_string(), "none: this model gives no hidden states");
        }
        if request.pooling.is_some() && (request.prompt_logprobs.is_some() || request.format.is_some()) {
            return field("pooling", "set".to_string(), "neither prompt_logprobs nor a format beside it");
        }
        request.sampling.check(vocabulary_size)?;
        let adapter = match &request.adapter {
            None => None,
            Some(name) => Some(
                self.adapters
                    .iter()
                    .position(|adapter| adapter == name)
                    .ok_or_else(|| SubmitError::UnknownAdapter { name: name.clone() })?,
            ),
        };
        if let Some(&token) = request.stop_tokens.iter().find(|&&token| token as usize >= vocabulary_size) {
            return Err(SubmitError::UnknownToken { token, vocabulary_size });
        }
        let form = match &request.format {
            Some(format) => Some(self.formats.compile(&request.tenant, format, &request.stop_tokens)?),
            None => None,
        };
        let most_tokens = max_tokens.unwrap_or(context - prompt);
        let positions = prompt + most_tokens;
        Ok(Waiting {
            scope: Scope { tenant: request.tenant.clone(), adapter },
            adapter,
            form,
            most_tokens,
            blocks: positions.div_ceil(self.shape.block_positions),
            deadline: request.time_limit.and_then(|limit| Instant::now().checked_add(limit)),
            cancelled: Arc::new(AtomicBool::new(false)),
            request,
            deliver,
        })
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Longest sequence, prompt and answer together.
    pub fn context_length(&self) -> usize {
        self.shape.context_length
    }

    pub fn vocabulary_size(&self) -> usize {
        self.shape.vocabulary_size
    }

    /// Refuses so many bytes of text where they cannot fit the context however they are encoded, before any work on them.
    ///
    /// # Errors
    /// [`SubmitError::TextLength`].
    pub fn admit_bytes(&self, bytes: usize) -> Result<(), SubmitError> {
        let context = self.shape.context_length;
        let most = context.saturating_mul(self.tokenizer.longest_token_bytes());
        match bytes <= most {
            true => Ok(()),
            false => Err(SubmitError::TextLength { bytes, context }),
        }
    }

    /// Refuses a text that surely does not fit the context, without encoding all of a long one.
    ///
    /// # Errors
    /// [`SubmitError::TextLength`].
    pub fn admit_text(&self, text: &str) -> Result<(), SubmitError> {
        let context = self.shape.context_length;
        // What the tokenizer refuses, it refuses when the text is encoded.
        match self.tokenizer.exceeds(text, context) {
            Ok(true) => Err(SubmitError::TextLength { bytes: text.len(), context }),
            _ => Ok(()),
        }
    }

    pub fn memory(&self) -> EngineMemory {
        self.memory
    }

    /// How the makers of the model want it to be sampled. Nothing of it is in force by itself: whoever makes a request
    /// puts it where the request's own maker says nothing.
    pub fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }

    /// Tokens that end a turn of a conversation, for [`Request::stop_tokens`].
    pub fn turn_end_tokens(&self) -> Vec<u32> {
        self.tokenizer.special_id(TURN_END).into_iter().collect()
    }

    pub fn load(&self) -> EngineLoad {
        let inbox = self.shared.inbox();
        EngineLoad {
            running: inbox.running,
            waiting: inbox.queue.waiting(),
            alive: !inbox.stopping,
            cache_blocks: inbox.cache_blocks,
            cache_blocks_used: inbox.cache_blocks_used,
            figures: inbox.figures,
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.inbox().stopping = true;
        self.shared.changed.notify_one();
        if let Some(worker) = self.worker.take() {
            // A worker that panicked has already failed its requests by dropping them.
            let _ = worker.join();
        }
    }
}

/// The end of a ChatML turn.
const TURN_END: &str = tokenizer::SPECIAL_TOKENS[2];

/// A request that was taken. Dropping it cancels it.
pub struct RunningRequest {
    cancelled: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl RunningRequest {
    /// Stops the work at the next step; the last event is then `Failed(Cancelled)`, or an ending that came first.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.shared.changed.notify_one();
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// A request and the channel of its events. Dropping it cancels the request.
pub struct RequestHandle {
    running: RunningRequest,
    events: Receiver<Event>,
}

impl RequestHandle {
    /// Waits for the next event; `None` after the last one.
    pub fn next_event(&self) -> Option<Event> {
        self.events.recv().ok()
    }

    /// As [`RequestHandle::next_event`], but waits no longer than `patience`.
    pub fn next_event_within(&self, patience: Duration) -> Result<Event, mpsc::RecvTimeoutError> {
        self.events.recv_timeout(patience)
    }

    pub fn cancel(&self) {
        self.running.cancel();
    }

    /// Waits for the end and gives everything at once.
    pub fn wait(self) -> Result<Answer, RequestFailure> {
        let mut answer = Answer::default();
        loop {
            match self.next_event().unwrap_or(Event::Failed(RequestFailure::EngineStopped)) {
                Event::Prompt { logprobs } => answer.prompt_logprobs = logprobs,
                Event::Embedding { values } => answer.embedding = values,
                Event::Token { text, ids, logprobs } => {
                    answer.text.push_str(&text);
                    answer.ids.extend(ids);
                    answer.logprobs.extend(logprobs);
                }
                Event::Finished { reason, usage } => {
                    (answer.reason, answer.usage) = (Some(reason), usage);
                    return Ok(answer);
                }
                Event::Failed(failure) => return Err(failure),
            }
        }
    }
}

impl Iterator for RequestHandle {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.next_event()
    }
}

/// All events of a request together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub text: String,
    pub ids: Vec<u32>,
    pub logprobs: Vec<TokenLogprob>,
    pub prompt_logprobs: Vec<Option<TokenLogprob>>,
    /// The vector of the text, if one was asked for.
    pub embedding: Vec<f32>,
    /// Always set once the request has ended.
    pub reason: Option<FinishReason>,
    pub usage: Usage,
}
