//! `eulalia chat`: a conversation in the terminal, the answer as it is generated, then its speed.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use inference::{Engine, EngineSettings, Event, FinishReason, Request, Sampling};
use provenance::Cancelled;
use serde_json::{Value, json};
use tokenizer::Message;

use crate::arguments::ChatArguments;
use crate::commands::load;
use crate::console::printable;
use crate::errors::Usage;
use crate::run::World;

const ADAPTER: &str = "adapter";

/// The answer goes to standard output; with `json` that belongs to the result, and the answer to standard error.
pub fn chat(arguments: &ChatArguments, json: bool, world: &World) -> anyhow::Result<Value> {
    if !(arguments.temperature >= 0.0 && arguments.temperature <= 10.0) {
        return Err(Usage(format!("--temperature {}: expected 0 to 10", arguments.temperature)).into());
    }
    let checked = load::check(&arguments.model, arguments.allow_unverified, world)?;
    let mut settings = EngineSettings { threads: world.threads, ..EngineSettings::default() };
    let adapter = arguments.adapter.clone().or(checked.adapter);
    if let Some(adapter) = &adapter {
        settings.adapters.insert(ADAPTER.into(), adapter.clone());
    }
    let engine = Engine::start(&checked.folder, &settings)?;
    let mut messages: Vec<Message> =
        arguments.system.iter().map(|text| Message::new("system", text.clone())).collect();
    let people = std::io::stdin().is_terminal();
    if people {
        world.console.say("You talk to a machine. An empty line or Ctrl-D ends the conversation.");
    }
    let lines = read_lines();
    let mut turns = Vec::new();
    while let Some(line) = next_line(&lines, people, world)? {
        messages.push(Message::new("user", line.clone()));
        let answer = answer(arguments, &engine, adapter.is_some(), &mut messages, json, world)?;
        turns.push(json!({ "user": line, "assistant": answer }));
    }
    Ok(json!({ "turns": turns }))
}

/// Standard input on a thread of its own, so that Ctrl-C is heard while it waits.
fn read_lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

fn next_line(
    lines: &mpsc::Receiver<std::io::Result<String>>,
    people: bool,
    world: &World,
) -> anyhow::Result<Option<String>> {
    if people {
        eprint!("> ");
    }
    loop {
        match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => {
                let line = line?.trim().to_string();
                return Ok((!line.is_empty()).then_some(line));
            }
            Err(mpsc::RecvTimeoutError::Timeout) if world.cancellation.is_cancelled() => {
                return Err(Cancelled.into());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// One answer, printed as it comes. When the context is full, the oldest turns are forgotten.
fn answer(
    arguments: &ChatArguments,
    engine: &Engine,
    adapter: bool,
    messages: &mut Vec<Message>,
    json: bool,
    world: &World,
) -> anyhow::Result<String> {
    let tokenizer = engine.tokenizer();
    let mut prompt = tokenizer.encode_chat(messages, true)?;
    let room = engine.context_length().saturating_sub(arguments.max_tokens.min(engine.context_length() / 2));
    while prompt.len() > room && messages.len() > 1 {
        let oldest = usize::from(messages.len() > 2 && messages[0].role == "system");
        messages.remove(oldest);
        prompt = tokenizer.encode_chat(messages, true)?;
    }
    let mut request = Request::new("local", prompt);
    request.adapter = adapter.then(|| ADAPTER.to_string());
    request.max_tokens = Some(arguments.max_tokens);
    request.stop_tokens = engine.turn_end_tokens();
    request.sampling =
        Sampling { temperature: arguments.temperature, seed: arguments.seed, ..Sampling::default() };
    let began = Instant::now();
    let handle = engine.submit(request)?;
    let mut text = String::new();
    let mut out: Box<dyn Write> =
        if json { Box::new(std::io::stderr().lock()) } else { Box::new(std::io::stdout().lock()) };
    loop {
        match handle.next_event_within(Duration::from_millis(100)) {
            Ok(Event::Token { text: piece, .. }) => {
                write!(out, "{}", printable(&piece))?;
                out.flush()?;
                text.push_str(&piece);
            }
            Ok(Event::Finished { reason, usage }) => {
                writeln!(out)?;
                let seconds = began.elapsed().as_secs_f64();
                let full = if reason == FinishReason::ContextLength { ", the context is full" } else { "" };
                world.console.say(&format!(
                    "[{} tokens, {:.0} tokens/s{full}]",
                    usage.completion_tokens,
                    usage.completion_tokens as f64 / seconds.max(1e-9)
                ));
                break;
            }
            Ok(Event::Failed(failure)) => return Err(failure.into()),
            Ok(Event::Prompt { .. } | Event::Embedding { .. }) => {}
            Err(mpsc::RecvTimeoutError::Timeout) if world.cancellation.is_cancelled() => {
                handle.cancel();
                return Err(Cancelled.into());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => anyhow::bail!("the engine stopped"),
        }
    }
    messages.push(Message::new("assistant", text.clone()));
    Ok(text)
}
