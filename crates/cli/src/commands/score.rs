//! `eulalia score`: how probable a model finds lines of text, token by token. For looking, and for comparing with other
//! programs that load the same weights.

use std::io::{BufRead, Write};

use anyhow::{Context as _, bail};
use inference::Scorer;
use serde_json::{Value, json};
use tokenizer::Tokenizer;

use crate::arguments::ScoreArguments;
use crate::commands::{load, loading};
use crate::errors::to_output;
use crate::program::STOPPED;
use crate::run::World;

pub fn score(arguments: &ScoreArguments, json: bool, world: &World) -> anyhow::Result<Value> {
    // To the end: a line that was asked for is written whole or not at all.
    let _ends = loading::EndsAtOnce::new(world, STOPPED);
    let checked = load::check(&arguments.model, arguments.allow_unverified, world)?;
    let tokenizer = Tokenizer::load(&checked.folder)?;
    let adapter = arguments.adapter.as_deref();
    let mut scorer = loading::shown(&checked.name, world, |watch| {
        Scorer::load_watched(&checked.folder, adapter, arguments.weights, world.threads, watch)
    })?;
    for (number, line) in (1..).zip(std::io::stdin().lock().lines()) {
        world.cancellation.check()?;
        let text = line.with_context(|| format!("line {number} of standard input is no text"))?;
        let context = scorer.context_length();
        if tokenizer.exceeds(&text, context)? {
            let bytes = text.len();
            bail!(
                "line {number}: the text has {bytes} bytes, more than the context of {context} tokens can hold; cut it"
            );
        }
        let mut ids: Vec<u32> = tokenizer.beginning_id().into_iter().collect();
        ids.extend(tokenizer.encode_ordinary(&text)?);
        // One token alone has nothing before it: an empty line has no probability.
        let logprobs = if ids.len() < 2 { Vec::new() } else { scorer.score(&ids)? };
        let bits = -logprobs.iter().map(|logprob| f64::from(*logprob)).sum::<f64>() / std::f64::consts::LN_2;
        let bits_per_byte = bits / text.len().max(1) as f64;
        let mut out = std::io::stdout().lock();
        to_output(match json {
            true => {
                writeln!(out, "{}", json!({"ids": ids, "logprobs": logprobs, "bits_per_byte": bits_per_byte}))
            }
            false => writeln!(out, "{bits_per_byte:.4}\t{text}"),
        })?;
    }
    // The lines themselves were the result.
    Ok(Value::Null)
}
