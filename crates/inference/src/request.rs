//! What one asks of the engine, and what comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::error::{RequestFailure, SubmitError};
use crate::format::AnswerFormat;

/// One text to continue, or to embed.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// On whose behalf: waiting requests of different tenants take turns.
    pub tenant: String,
    /// At least one token.
    pub prompt: Vec<u32>,
    /// Name of an adapter that the engine was started with.
    pub adapter: Option<String>,
    pub sampling: Sampling,
    /// Most tokens to generate; `None`: until the context is full. 0 is allowed: only the prompt is scored.
    pub max_tokens: Option<usize>,
    /// Generation ends before the first of these strings; neither it nor anything after it is delivered.
    pub stop: Vec<String>,
    /// Tokens that end generation besides the model's own, such as the end of a chat turn.
    pub stop_tokens: Vec<u32>,
    /// Log probabilities of the generated tokens, with this many alternatives beside each.
    pub logprobs: Option<usize>,
    /// Log probabilities of the prompt's tokens, with this many alternatives beside each.
    pub prompt_logprobs: Option<usize>,
    /// The form that the answer is held to. An answer that ends for want of room may be a piece of it.
    pub format: Option<AnswerFormat>,
    /// Most tokens to guess ahead; 0: none, `None`: as the engine does. The answer is the same with and without.
    pub speculation: Option<usize>,
    /// Instead of an answer: one vector for the text. `max_tokens` is then taken for 0.
    pub pooling: Option<Pooling>,
    /// From submission to the last token.
    pub time_limit: Option<Duration>,
    /// Set to the moment at which the request leaves the queue, for who wants to know how long it waited.
    pub admitted: Option<Arc<OnceLock<Instant>>>,
}

/// How the hidden states of a text's tokens, after the model's final norm, become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The last token's.
    Last,
}

impl Request {
    /// A greedy request without any extras.
    pub fn new(tenant: impl Into<String>, prompt: Vec<u32>) -> Request {
        Request {
            tenant: tenant.into(),
            prompt,
            adapter: None,
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            format: None,
            speculation: None,
            pooling: None,
            time_limit: None,
            admitted: None,
        }
    }

    /// A request for the vector of a text.
    pub fn embedding(tenant: impl Into<String>, text: Vec<u32>, pooling: Pooling) -> Request {
        Request { pooling: Some(pooling), max_tokens: Some(0), ..Request::new(tenant, text) }
    }
}

/// How the next token is chosen. The default is greedy: the likeliest token, the lowest id of equals.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 (and anything below 0.0001) is greedy.
    pub temperature: f32,
    /// Only the so many likeliest; 0 is all.
    pub top_k: usize,
    /// Only the likeliest that together have this probability (Holtzman et al. 2020); 1 is all.
    pub top_p: f32,
    /// Only those with at least this share of the likeliest one's probability (Nguyen et al. 2024); 0 is all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens that the prompt or the answer holds (Keskar et al.
    /// 2019); 1 is off.
    pub repetition_penalty: f32,
    /// Taken once from the logit of every token that the answer holds; 0 is off.
    pub presence_penalty: f32,
    /// Taken from the logit of a token for each time that the answer holds it; 0 is off.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Same request, same seed, same answer, whatever else runs.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Refuses values that mean nothing, by the name of the field.
    pub fn check(&self, vocabulary_size: usize) -> Result<(), SubmitError> {
        let within = |field, value: f32, fits: bool, expected| {
            if fits { Ok(()) } else { Err(SubmitError::Field { field, found: value.to_string(), expected }) }
        };
        let Sampling {
            temperature,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            ..
        } = *self;
        let finite = |value: f32| value.is_finite();
        within("temperature", temperature, finite(temperature) && temperature >= 0.0, "a number from 0")?;
        within("top_p", top_p, top_p > 0.0 && top_p <= 1.0, "a number above 0, at most 1")?;
        within("min_p", min_p, (0.0..=1.0).contains(&min_p), "a number from 0 to 1")?;
        let positive = finite(repetition_penalty) && repetition_penalty > 0.0;
        within("repetition_penalty", repetition_penalty, positive, "a number above 0")?;
        within("presence_penalty", presence_penalty, finite(presence_penalty), "a finite number")?;
        within("frequency_penalty", frequency_penalty, finite(frequency_penalty), "a finite number")?;
        for (&token, &bias) in &self.logit_bias {
            if token as usize >= vocabulary_size {
                return Err(SubmitError::UnknownBias { token, vocabulary_size });
            }
            within("logit_bias", bias, finite(bias), "finite numbers")?;
        }
        Ok(())
    }
}

/// What the engine tells about a request, in this order: the prompt (if its probabilities were asked for), any number of
/// tokens, and one ending.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// One entry per token of the prompt; the first has nothing before it and so no probability.
    Prompt { logprobs: Vec<Option<TokenLogprob>> },
    /// New text. It is whole characters; tokens whose text is held back (half a character, what may become a stop
    /// string) come with a later event or, past a stop, never. `logprobs` has an entry per id if they were asked for.
    Token { text: String, ids: Vec<u32>, logprobs: Vec<TokenLogprob> },
    /// The pooled hidden state, not scaled to length one.
    Embedding { values: Vec<f32> },
    /// The end, as wished.
    Finished { reason: FinishReason, usage: Usage },
    /// The end, for another reason.
    Failed(RequestFailure),
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its text, a stop token came, or the form of the answer allows nothing more.
    EndOfText,
    /// A stop string came.
    StopString,
    /// As many tokens as were asked for.
    MaxTokens,
    /// The context is full.
    ContextLength,
}

/// Tokens that were computed. Generated tokens that were held back or ended the text count too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub prompt_tokens: usize,
    pub completion_tokens: usize,
}

/// The model's own probability of a token, before temperature, penalties and bias.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    pub token: Alternative,
    /// The likeliest tokens at this place, likeliest first.
    pub top: Vec<Alternative>,
}

/// A token and its natural-log probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Alternative {
    pub id: u32,
    /// What it stands for; for a special token its name.
    pub bytes: Vec<u8>,
    pub logprob: f32,
}
