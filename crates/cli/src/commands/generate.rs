//! `eulalia generate`: a text goes on, from a flag, a file or standard input.

use std::io::{Read, Write};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::arguments::GenerateArguments;
use crate::commands::answering::{self, Answering, Growing};
use crate::errors::{Usage, to_output};
use crate::run::World;

pub fn generate(arguments: &GenerateArguments, json: bool, world: &World) -> anyhow::Result<Value> {
    if arguments.count == 0 {
        return Err(Usage("--count 0: expected at least 1".into()).into());
    }
    if arguments.logprobs.is_some() && !json {
        return Err(Usage(
            "--logprobs: probabilities stand in the result of --json; ask for it as well".into(),
        )
        .into());
    }
    let prompt = prompt(arguments)?;
    let answering = Answering::start(
        &arguments.model,
        arguments.adapter.as_deref(),
        arguments.allow_unverified,
        &arguments.answer,
        world,
    )?;
    let tokenizer = answering.engine.tokenizer();
    answering.engine.admit_text(&prompt).map_err(|error| Usage(error.to_string()))?;
    let mut ids = tokenizer.encode_prompt(&prompt)?;
    if ids.is_empty() {
        // An empty prompt asks for a text from its beginning.
        ids.extend(tokenizer.beginning_id());
    }
    // All at once: they share the prompt.
    let handles = (0..arguments.count)
        .map(|index| answering.ask(ids.clone(), index, Vec::new(), arguments.logprobs))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let people = answering::shown_to_people(json);
    let mut out = answering::answer_stream(json);
    let mut answers = Vec::new();
    let mut growing: Vec<Growing<'_>> =
        handles.iter().map(|handle| Growing::new(handle, ids.len())).collect();
    for index in 0..growing.len() {
        if arguments.count > 1 {
            world.console.say(&format!("--- {} of {}", index + 1, arguments.count));
        }
        let answered = answering::show(&mut growing, index, &mut *out, people, world)?;
        to_output(writeln!(out))?;
        world.console.say(&answered.summary());
        if answered.reason.is_none() {
            return Err(answering::interrupted());
        }
        answers.push(answered.to_json());
    }
    let figures = answering.engine.load().figures;
    if figures.guessed_tokens > 0 {
        let (held, guessed) = (figures.accepted_tokens, figures.guessed_tokens);
        world.console.say(&format!("[{held} of {guessed} guesses ahead held]"));
    }
    Ok(json!({ "prompt": prompt, "answers": answers, "engine": figures }))
}

/// The prompt as it is, to the last space.
fn prompt(arguments: &GenerateArguments) -> anyhow::Result<String> {
    if let Some(prompt) = &arguments.prompt {
        return Ok(prompt.clone());
    }
    if let Some(path) = &arguments.file {
        return std::fs::read_to_string(path)
            .with_context(|| format!("{}: cannot be read as text", path.display()));
    }
    let mut text = String::new();
    std::io::stdin().lock().read_to_string(&mut text).context("standard input is no text")?;
    // The shell's echo ends a line that nobody meant to be part of the text.
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}
