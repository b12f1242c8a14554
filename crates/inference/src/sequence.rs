//! One request while it is computed: its tokens, its place in the cache, and what each new row of logits does to it.

use tokenizer::Tokenizer;

use crate::decoder::{Chunk, Rows};
use crate::error::RequestFailure;
use crate::request::{Alternative, Event, FinishReason, TokenLogprob, Usage};
use crate::sampling::{Probabilities, Sampler, likeliest};
use crate::text::{AnswerText, Released};
use crate::worker::Waiting;

/// A request that is being computed.
pub(crate) struct Sequence {
    pub waiting: Waiting,
    /// Blocks of the cache that are its own.
    pub blocks: Vec<u32>,
    /// Its last event was delivered.
    pub ended: bool,
    /// Prompt and answer.
    tokens: Vec<u32>,
    /// Positions that are in the cache.
    computed: usize,
    /// Generated tokens, one that ended the text included.
    generated: usize,
    sampler: Sampler,
    text: AnswerText,
    prompt_logprobs: Vec<Option<TokenLogprob>>,
}

impl Sequence {
    pub fn new(mut waiting: Waiting, blocks: Vec<u32>) -> Sequence {
        let request = &mut waiting.request;
        Sequence {
            blocks,
            ended: false,
            tokens: request.prompt.clone(),
            computed: 0,
            generated: 0,
            sampler: Sampler::new(request.sampling.clone(), &request.prompt),
            text: AnswerText::new(std::mem::take(&mut request.stop)),
            prompt_logprobs: vec![None],
            waiting,
        }
    }

    /// Tokens that are not in the cache yet: the rest of the prompt, or the one generated last.
    pub fn left(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether the next rows are rows of the prompt whose probabilities are wanted.
    pub fn scores_prompt(&self) -> bool {
        self.waiting.request.prompt_logprobs.is_some() && self.computed < self.waiting.request.prompt.len()
    }

    /// The next `length` rows.
    pub fn chunk(&self, length: usize) -> Chunk<'_> {
        Chunk {
            tokens: &self.tokens[self.computed..self.computed + length],
            first_position: self.computed,
            blocks: &self.blocks,
            adapter: self.waiting.adapter,
            rows: match () {
                () if self.scores_prompt() => Rows::All,
                () if length == self.left() => Rows::Last,
                () => Rows::None,
            },
        }
    }

    /// The `length` rows of [`Sequence::chunk`] were computed; `rows` are the logits that it asked for.
    pub fn advance(&mut self, length: usize, rows: &[&[f32]], tokenizer: &Tokenizer, end_tokens: &[u32]) {
        let prompt = self.waiting.request.prompt.len();
        if self.scores_prompt() {
            let alternatives = self.waiting.request.prompt_logprobs.unwrap_or(0);
            for (position, row) in
                (self.computed..).zip(rows).take_while(|(position, _)| position + 1 < prompt)
            {
                let logprob = token_logprob(row, self.tokens[position + 1], alternatives, tokenizer);
                self.prompt_logprobs.push(Some(logprob));
            }
        }
        let in_prompt = self.computed < prompt;
        self.computed += length;
        if self.left() > 0 {
            return;
        }
        if in_prompt && self.waiting.request.prompt_logprobs.is_some() {
            let logprobs = std::mem::take(&mut self.prompt_logprobs);
            (self.waiting.deliver)(Event::Prompt { logprobs });
        }
        if let Some(row) = rows.last()
            && let Err(error) = self.generate(row, tokenizer, end_tokens)
        {
            self.end(Event::Failed(RequestFailure::Computing(error.to_string())));
        }
    }

    /// Delivers the last event.
    pub fn end(&mut self, event: Event) {
        if !self.ended {
            self.ended = true;
            (self.waiting.deliver)(event);
        }
    }

    fn generate(
        &mut self,
        logits: &[f32],
        tokenizer: &Tokenizer,
        end_tokens: &[u32],
    ) -> Result<(), tokenizer::Error> {
        let most = self.waiting.most_tokens;
        if self.generated == most {
            return self.finish(FinishReason::MaxTokens, tokenizer);
        }
        let token = self.sampler.next(logits);
        self.generated += 1;
        if end_tokens.contains(&token) || self.waiting.request.stop_tokens.contains(&token) {
            return self.finish(FinishReason::EndOfText, tokenizer);
        }
        let alternatives = self.waiting.request.logprobs;
        let logprob = alternatives.map(|count| token_logprob(logits, token, count, tokenizer));
        self.tokens.push(token);
        let released = self.text.push(tokenizer, token, logprob)?;
        let stopped = released.stopped;
        self.deliver(released);
        if stopped {
            self.end_with(FinishReason::StopString);
        } else if self.generated == most {
            let asked = self.waiting.request.max_tokens.is_some();
            let reason = if asked { FinishReason::MaxTokens } else { FinishReason::ContextLength };
            self.finish(reason, tokenizer)?;
        }
        Ok(())
    }

    fn finish(&mut self, reason: FinishReason, tokenizer: &Tokenizer) -> Result<(), tokenizer::Error> {
        let released = self.text.finish(tokenizer)?;
        let reason = if released.stopped { FinishReason::StopString } else { reason };
        self.deliver(released);
        self.end_with(reason);
        Ok(())
    }

    fn deliver(&mut self, released: Released) {
        if !released.is_empty() {
            let Released { text, ids, logprobs, .. } = released;
            (self.waiting.deliver)(Event::Token { text, ids, logprobs });
        }
    }

    fn end_with(&mut self, reason: FinishReason) {
        let usage =
            Usage { prompt_tokens: self.waiting.request.prompt.len(), completion_tokens: self.generated };
        self.end(Event::Finished { reason, usage });
    }
}

fn token_logprob(logits: &[f32], token: u32, alternatives: usize, tokenizer: &Tokenizer) -> TokenLogprob {
    let log_sum = Probabilities::default().log_sum(logits);
    let alternative = |id: u32| Alternative {
        id,
        bytes: token_bytes(tokenizer, id),
        logprob: (f64::from(logits[id as usize]) - log_sum) as f32,
    };
    TokenLogprob {
        token: alternative(token),
        top: likeliest(logits, alternatives).into_iter().map(alternative).collect(),
    }
}

fn token_bytes(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    match tokenizer.bytes_of(id) {
        Some(bytes) => bytes.to_vec(),
        // Beyond the tokenizer's entries a model's padded table has ids without any text.
        None => tokenizer.decode(&[id]).map(String::into_bytes).unwrap_or_default(),
    }
}
