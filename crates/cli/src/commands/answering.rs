//! What `generate` and `chat` have in common: flags of sampling and form, an engine that is ready, an answer that is shown
//! while it grows.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use inference::{
    Alternative, AnswerFormat, Engine, EngineSettings, Event, FinishReason, Request, RequestFailure,
    RequestHandle, Sampling, TokenLogprob, Usage,
};
use model::{CacheFormat, WeightFormat};
use provenance::Cancelled;
use serde_json::{Value, json};

use crate::commands::{load, loading};
use crate::console::printable;
use crate::errors::{self, to_output};
use crate::program::STOPPED;
use crate::run::World;

/// The adapter's name inside the engine.
const ADAPTER: &str = "adapter";
/// On whose behalf the engine computes: there is but one person here.
const TENANT: &str = "local";
/// How often one looks whether Ctrl-C was pressed.
const GLANCE: Duration = Duration::from_millis(50);

/// How answers are sampled and formed.
#[derive(Args)]
pub struct AnswerArguments {
    /// Randomness of the choice of words; 0 always takes the likeliest [default: the model's own, else 0.7]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub temperature: Option<f32>,
    /// Choose among this many likeliest tokens; 0 is all [default: the model's own, else 0]
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// Choose among the likeliest tokens that together have this probability [default: the model's own, else 1]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub top_p: Option<f32>,
    /// Choose among tokens with at least this share of the likeliest one's probability [default: the model's own, else 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub min_p: Option<f32>,
    /// Makes tokens that stand in the text already less likely; 1 is off [default: the model's own, else 1]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f32>,
    /// Makes tokens that the answer holds already less likely, however often it holds them; 0 is off
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, allow_negative_numbers = true)]
    pub presence_penalty: f32,
    /// Makes tokens less likely for each time that the answer holds them; 0 is off
    #[arg(long, value_name = "NUMBER", default_value_t = 0.0, allow_negative_numbers = true)]
    pub frequency_penalty: f32,
    /// Add a number to a token's logit, such as 17=-100 to forbid token 17 (repeatable)
    #[arg(long, value_name = "ID=NUMBER", value_parser = logit_bias)]
    pub logit_bias: Vec<(u32, f32)>,
    /// Most tokens in one answer [default: the model's own, else 512]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// End the answer before this text (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// Start of the random numbers: the same seed gives the same answer
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Hold the answer to a JSON Schema
    #[arg(long, value_name = "FILE", conflicts_with_all = ["regex", "grammar"])]
    pub schema: Option<PathBuf>,
    /// Hold the answer to a regular expression
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "grammar")]
    pub regex: Option<String>,
    /// Hold the answer to a grammar in Lark's syntax
    #[arg(long, value_name = "FILE")]
    pub grammar: Option<PathBuf>,
    /// The numbers that weights are kept in: f32, bf16, q8_0 or q4_0, fewer bits are faster and take less memory; or stored:
    /// those of a GGUF file as they are, of a folder f32
    #[arg(long, value_name = "FORMAT", default_value = "stored", value_parser = weight_format)]
    pub weights: WeightFormat,
    /// The numbers that keys and values are kept in: f32, bf16 or q8_0 [default: f32 with weights in f32, else bf16]
    #[arg(long, value_name = "FORMAT", value_parser = cache_format)]
    pub kv_cache: Option<CacheFormat>,
    /// Guess up to so many tokens ahead from the text itself; the answer stays the same
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub speculation: usize,
}

/// A format of weights by its name.
pub fn weight_format(name: &str) -> Result<WeightFormat, String> {
    let names = || WeightFormat::ALL.map(WeightFormat::name).join(", ");
    WeightFormat::of_name(name).ok_or_else(|| format!("expected one of {}, stored", names()))
}

/// A token and what is added to its logit.
fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let parsed = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    parsed.ok_or_else(|| "expected a token's id and a number, such as 17=-100".to_string())
}

/// A format of the cache by its name.
pub fn cache_format(name: &str) -> Result<CacheFormat, String> {
    CacheFormat::of_name(name)
        .ok_or_else(|| format!("expected one of {}", CacheFormat::ALL.map(CacheFormat::name).join(", ")))
}

/// A model that answers.
pub struct Answering {
    pub engine: Engine,
    adapter: bool,
    sampling: Sampling,
    max_tokens: usize,
    stop: Vec<String>,
    format: Option<AnswerFormat>,
}

impl Answering {
    /// Checks the flags, loads the model, and says what its makers want that is not followed.
    pub fn start(
        model: &Path,
        adapter: Option<&Path>,
        allow_unverified: bool,
        arguments: &AnswerArguments,
        world: &World,
    ) -> anyhow::Result<Answering> {
        // What is in the files may be wrong: better known before a model of gigabytes is read.
        let format = format(arguments)?;
        let _ends = loading::EndsAtOnce::new(world, STOPPED);
        let checked = load::check(model, allow_unverified, world)?;
        let mut settings = EngineSettings {
            threads: world.threads,
            weights: arguments.weights,
            kv_cache: arguments.kv_cache,
            speculation: arguments.speculation,
            // Nobody else asks: however many answers are wanted, they may wait.
            queued_requests: usize::MAX,
            ..EngineSettings::default()
        };
        settings.check()?;
        let adapter = adapter.map(Path::to_path_buf).or(checked.adapter);
        if let Some(adapter) = &adapter {
            settings.adapters.insert(ADAPTER.into(), adapter.clone());
        }
        let engine = loading::shown(&checked.name, world, |watch| {
            Engine::start_watched(&checked.folder, &settings, watch)
        })?;
        let defaults = engine.defaults();
        for key in &defaults.not_followed {
            world.progress.warn(&format!("generation_config.json: `{key}` is not followed here"));
        }
        let sampling = sampling(arguments, &engine)?;
        let max_tokens = arguments.max_tokens.or(defaults.max_new_tokens).unwrap_or(512);
        let stop = arguments.stop.clone();
        Ok(Answering { engine, adapter: adapter.is_some(), sampling, max_tokens, stop, format })
    }

    /// Most tokens of one answer.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Hands in a request; `index` tells answers to one prompt apart, `logprobs` asks for each token's probability and for so
    /// many of the likeliest. Asks for no more tokens than the context holds.
    pub fn ask(
        &self,
        prompt: Vec<u32>,
        index: u64,
        stop_tokens: Vec<u32>,
        logprobs: Option<usize>,
    ) -> anyhow::Result<RequestHandle> {
        let room = self.engine.context_length().saturating_sub(prompt.len()).max(1);
        let seed = inference::seed_of_answer(self.sampling.seed, index);
        let request = Request {
            adapter: self.adapter.then(|| ADAPTER.to_string()),
            sampling: Sampling { seed, ..self.sampling.clone() },
            max_tokens: Some(self.max_tokens.min(room)),
            stop: self.stop.clone(),
            stop_tokens,
            logprobs,
            format: self.format.clone(),
            ..Request::new(TENANT, prompt)
        };
        self.engine.submit(request).map_err(|error| errors::Usage(error.to_string()).into())
    }
}

fn sampling(arguments: &AnswerArguments, engine: &Engine) -> anyhow::Result<Sampling> {
    let model = engine.defaults().over(Sampling { temperature: 0.7, ..Sampling::default() });
    let sampling = Sampling {
        temperature: arguments.temperature.unwrap_or(model.temperature),
        top_k: arguments.top_k.unwrap_or(model.top_k),
        top_p: arguments.top_p.unwrap_or(model.top_p),
        min_p: arguments.min_p.unwrap_or(model.min_p),
        repetition_penalty: arguments.repetition_penalty.unwrap_or(model.repetition_penalty),
        presence_penalty: arguments.presence_penalty,
        frequency_penalty: arguments.frequency_penalty,
        logit_bias: arguments.logit_bias.iter().copied().collect(),
        seed: arguments.seed,
    };
    sampling.check(engine.vocabulary_size()).map_err(|error| errors::Usage(error.to_string()))?;
    Ok(sampling)
}

fn format(arguments: &AnswerArguments) -> anyhow::Result<Option<AnswerFormat>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))
    };
    if let Some(path) = &arguments.schema {
        let schema = serde_json::from_str(&read(path)?)
            .map_err(|error| errors::Usage(format!("{}: not valid JSON: {error}", path.display())))?;
        return Ok(Some(AnswerFormat::JsonSchema(schema)));
    }
    if let Some(path) = &arguments.grammar {
        return Ok(Some(AnswerFormat::Lark(read(path)?)));
    }
    Ok(arguments.regex.clone().map(AnswerFormat::Regex))
}

/// An answer that has ended.
pub struct Answered {
    pub text: String,
    /// `None`: it was stopped by Ctrl-C.
    pub reason: Option<FinishReason>,
    pub usage: Usage,
    /// One for each token, where they were asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// From the request to the first text.
    pub first: Duration,
    pub whole: Duration,
}

impl Answered {
    /// Tokens after the first, by the time that they took: the prompt is not part of it. Of one token, or where they took too
    /// short a time to be told from the first, with the prompt.
    fn tokens_per_second(&self) -> f64 {
        let after_first = self.whole.saturating_sub(self.first);
        let (tokens, time) = match self.usage.completion_tokens {
            several if several > 1 && after_first >= GLANCE => (several - 1, after_first),
            tokens => (tokens, self.whole),
        };
        tokens as f64 / time.as_secs_f64().max(1e-9)
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        let tokens = self.usage.completion_tokens;
        let mut parts = vec![
            crate::console::counted(tokens as u64, "token"),
            format!("{:.1} tokens/s", self.tokens_per_second()),
        ];
        parts.push(format!(
            "{} of prompt, first word after {:.2} s",
            self.usage.prompt_tokens,
            self.first.as_secs_f64()
        ));
        match self.reason {
            None => parts.push("stopped".to_string()),
            Some(FinishReason::ContextLength) => parts.push("the context is full".to_string()),
            Some(FinishReason::MaxTokens) => parts.push("cut off; --max-tokens allows more".to_string()),
            Some(FinishReason::EndOfText | FinishReason::StopString) => {}
        }
        format!("[{}]", parts.join(", "))
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let reason = match self.reason {
            None => "stopped",
            Some(FinishReason::ContextLength) => "context_full",
            Some(FinishReason::MaxTokens) => "max_tokens",
            Some(FinishReason::EndOfText) => "end_of_text",
            Some(FinishReason::StopString) => "stop_string",
        };
        let alternative = |found: &Alternative| {
            json!({
                "id": found.id,
                "text": String::from_utf8_lossy(&found.bytes),
                "logprob": found.logprob,
            })
        };
        let with_top = |found: &TokenLogprob| {
            let mut token = alternative(&found.token);
            token["top"] = found.top.iter().map(alternative).collect();
            token
        };
        let mut answer = json!({
            "text": self.text,
            "reason": reason,
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "seconds_to_first_text": self.first.as_secs_f64(),
            "seconds": self.whole.as_secs_f64(),
            "tokens_per_second": self.tokens_per_second(),
        });
        if !self.logprobs.is_empty() {
            answer["logprobs"] = self.logprobs.iter().map(with_top).collect();
        }
        answer
    }
}

/// Where an answer is shown while it grows.
pub fn answer_stream(json: bool) -> Box<dyn Write> {
    // With --json, standard output belongs to the result.
    if json { Box::new(std::io::stderr().lock()) } else { Box::new(std::io::stdout().lock()) }
}

/// An answer on its way: what has come of it, whether or not it was shown yet.
pub struct Growing<'a> {
    handle: &'a RequestHandle,
    prompt_tokens: usize,
    began: Instant,
    first: Option<Duration>,
    tokens: usize,
    text: String,
    /// Bytes of `text` that were shown.
    shown: usize,
    logprobs: Vec<TokenLogprob>,
    ended: Option<Ended>,
}

/// How and when an answer ended.
#[derive(Clone)]
struct Ended {
    /// The reason; `None`: it was stopped.
    outcome: Result<(Option<FinishReason>, Usage), RequestFailure>,
    whole: Duration,
}

impl<'a> Growing<'a> {
    /// Of a request that was handed in just now.
    pub fn new(handle: &'a RequestHandle, prompt_tokens: usize) -> Growing<'a> {
        Growing {
            handle,
            prompt_tokens,
            began: Instant::now(),
            first: None,
            tokens: 0,
            text: String::new(),
            shown: 0,
            logprobs: Vec::new(),
            ended: None,
        }
    }

    /// Takes what comes within `patience`; `false`: nothing came.
    fn take(&mut self, patience: Duration) -> anyhow::Result<bool> {
        if self.ended.is_some() {
            return Ok(false);
        }
        let event = match self.handle.next_event_within(patience) {
            Ok(event) => event,
            Err(mpsc::RecvTimeoutError::Timeout) => return Ok(false),
            Err(mpsc::RecvTimeoutError::Disconnected) => anyhow::bail!("the engine stopped"),
        };
        let outcome = match event {
            Event::Token { text, ids, logprobs } => {
                self.logprobs.extend(logprobs);
                self.first.get_or_insert_with(|| self.began.elapsed());
                self.tokens += ids.len();
                self.text.push_str(&text);
                return Ok(true);
            }
            Event::Prompt { .. } | Event::Embedding { .. } => return Ok(true),
            Event::Finished { reason, usage } => Ok((Some(reason), usage)),
            Event::Failed(RequestFailure::Cancelled) => {
                Ok((None, Usage { prompt_tokens: self.prompt_tokens, completion_tokens: self.tokens }))
            }
            Event::Failed(failure) => Err(failure),
        };
        self.ended = Some(Ended { outcome, whole: self.began.elapsed() });
        Ok(true)
    }

    /// What is not shown yet, which it then counts as.
    fn unshown(&mut self) -> &str {
        let from = std::mem::replace(&mut self.shown, self.text.len());
        &self.text[from..]
    }
}

/// Shows an answer of several while all grow: what comes of the others meanwhile is taken as it comes, so that the time of
/// each is its own. Ctrl-C ends them, with what there is so far.
///
/// # Errors
/// When it could not be computed or shown.
pub fn show(
    answers: &mut [Growing<'_>],
    index: usize,
    out: &mut dyn Write,
    terminal: bool,
    world: &World,
) -> anyhow::Result<Answered> {
    loop {
        let piece = answers[index].unshown();
        if !piece.is_empty() {
            // A terminal obeys control characters; a file takes the text as it is.
            let shown = if terminal { printable(piece) } else { piece.to_string() };
            to_output(write!(out, "{shown}").and_then(|()| out.flush()))?;
        }
        if let Some(Ended { outcome, whole }) = answers[index].ended.clone() {
            let (reason, usage) = outcome?;
            let answer = &mut answers[index];
            return Ok(Answered {
                text: std::mem::take(&mut answer.text),
                reason,
                usage,
                logprobs: std::mem::take(&mut answer.logprobs),
                first: answer.first.unwrap_or(whole),
                whole,
            });
        }
        answers[index].take(GLANCE)?;
        for other in answers.iter_mut().skip(index + 1) {
            while other.take(Duration::ZERO)? {}
        }
        if world.cancellation.is_cancelled() {
            answers.iter().for_each(|answer| answer.handle.cancel());
        }
    }
}

/// Whether the answer goes to a terminal.
pub fn shown_to_people(json: bool) -> bool {
    if json { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() }
}

/// Ctrl-C has ended an answer and no more than that.
pub fn forget_interruption(world: &World) {
    world.cancellation.flag().store(false, std::sync::atomic::Ordering::SeqCst);
}

/// The error of a command that Ctrl-C has ended.
pub fn interrupted() -> anyhow::Error {
    Cancelled.into()
}
