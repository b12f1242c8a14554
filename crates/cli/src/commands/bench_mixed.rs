//! `eulalia bench inference --mixed N`: requests of different lengths through the engine, together and one after the other.
//!
//! Prompts have 16 to 512 tokens, answers three quarters of `--decode` to one and a half of it. The tokens are the model's
//! own greedy choice after a prompt without sense; both ways do the same work and count the tokens that came. Two rates are
//! found. Of answers: tokens a second while nothing but answers is computed, which is from the moment at which the last
//! request has its first token to the end, and one after the other the sum of the times from each request's first token to
//! its last. Of the whole: all tokens of answers over all the time, with prompts read in it.

use std::time::Instant;

use inference::{Engine, EngineSettings, Event, Request, RequestHandle};
use model::WeightFormat;
use serde_json::{Value, json};

use super::bench_inference::median;
use crate::arguments::BenchInferenceArguments;
use crate::run::World;

/// Tokens per second of one way to serve the requests.
#[derive(Clone, Copy)]
pub struct Rate {
    /// Tokens of answers over the time from submission to the last token.
    pub whole: f64,
    /// Tokens of answers over the time in which nothing but answers was computed.
    pub writing: f64,
}

/// What was measured, medians.
pub struct Mixed {
    pub together: Rate,
    pub in_turn: Rate,
}

impl Mixed {
    pub fn to_json(&self, requests: u64) -> Value {
        json!({
            "requests": requests,
            "together": { "answer_tokens_per_second": self.together.writing, "whole_tokens_per_second": self.together.whole },
            "in_turn": { "answer_tokens_per_second": self.in_turn.writing, "whole_tokens_per_second": self.in_turn.whole },
            "ratio": self.together.writing / self.in_turn.writing,
        })
    }
}

/// Measures `arguments.mixed` requests both ways, in turns.
pub fn mixed(
    arguments: &BenchInferenceArguments,
    format: WeightFormat,
    world: &World,
) -> anyhow::Result<Mixed> {
    let settings = EngineSettings {
        threads: world.threads,
        weights: format,
        kv_cache: arguments.kv_cache,
        running_requests: arguments.mixed as usize,
        queued_requests: arguments.mixed as usize,
        context_length: Some(PROMPTS[PROMPTS.len() - 1] + arguments.decode as usize * 2),
        prefix_cache: false,
        ..EngineSettings::default()
    };
    let engine = Engine::start(&arguments.model, &settings)?;
    let requests: Vec<Request> =
        (0..arguments.mixed as usize).map(|number| request(&engine, number, arguments.decode)).collect();
    let (mut together, mut in_turn) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        world.cancellation.check()?;
        together.push(run_together(&engine, &requests)?);
        world.cancellation.check()?;
        in_turn.push(run_in_turn(&engine, &requests)?);
    }
    Ok(Mixed { together: medians(&together), in_turn: medians(&in_turn) })
}

/// Tokens of the prompts, one request after the other.
const PROMPTS: [usize; 8] = [16, 32, 64, 96, 128, 192, 256, 512];

fn request(engine: &Engine, number: usize, decode: u64) -> Request {
    let vocabulary = engine.vocabulary_size();
    let prompt =
        (0..PROMPTS[number % PROMPTS.len()]).map(|i| ((i * 7919 + number) % vocabulary) as u32).collect();
    let answer = (decode * [4, 3, 6, 5][number % 4]).div_ceil(4);
    Request { max_tokens: Some(answer as usize), ..Request::new("bench", prompt) }
}

/// When the tokens of one answer came: seconds since `began`, and how many at once.
struct Written(Vec<(f64, usize)>);

impl Written {
    fn first(&self) -> f64 {
        self.0.first().map_or(0.0, |&(time, _)| time)
    }

    fn last(&self) -> f64 {
        self.0.last().map_or(0.0, |&(time, _)| time)
    }

    /// Tokens that came after a moment.
    fn after(&self, moment: f64) -> usize {
        self.0.iter().filter(|&&(time, _)| time > moment).map(|&(_, count)| count).sum()
    }
}

fn follow(handle: RequestHandle, began: Instant) -> anyhow::Result<Written> {
    let mut written = Written(Vec::new());
    while let Some(event) = handle.next_event() {
        match event {
            Event::Token { ids, .. } => written.0.push((began.elapsed().as_secs_f64(), ids.len())),
            Event::Failed(failure) => return Err(failure.into()),
            _ => {}
        }
    }
    Ok(written)
}

fn run_together(engine: &Engine, requests: &[Request]) -> anyhow::Result<Rate> {
    let began = Instant::now();
    let written = std::thread::scope(|scope| {
        let mut followers = Vec::new();
        for request in requests {
            let handle = engine.submit(request.clone())?;
            followers.push(scope.spawn(move || follow(handle, began)));
        }
        followers
            .into_iter()
            .map(|follower| {
                follower.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a measuring thread ended early")))
            })
            .collect::<anyhow::Result<Vec<Written>>>()
    })?;
    let all_began = written.iter().map(Written::first).fold(0.0, f64::max);
    let last = written.iter().map(Written::last).fold(0.0, f64::max);
    let tokens = |moment: f64| written.iter().map(|one| one.after(moment)).sum::<usize>() as f64;
    Ok(Rate { whole: tokens(0.0) / last, writing: tokens(all_began) / (last - all_began) })
}

fn run_in_turn(engine: &Engine, requests: &[Request]) -> anyhow::Result<Rate> {
    let began = Instant::now();
    let (mut tokens, mut of_writing, mut writing) = (0, 0, 0.0);
    for request in requests {
        let written = follow(engine.submit(request.clone())?, began)?;
        tokens += written.after(0.0);
        of_writing += written.after(written.first());
        writing += written.last() - written.first();
    }
    let whole = tokens as f64 / began.elapsed().as_secs_f64();
    Ok(Rate { whole, writing: of_writing as f64 / writing })
}

fn medians(rates: &[Rate]) -> Rate {
    Rate {
        whole: median(rates.iter().map(|rate| rate.whole).collect()),
        writing: median(rates.iter().map(|rate| rate.writing).collect()),
    }
}
