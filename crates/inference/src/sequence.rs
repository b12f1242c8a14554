//! One request while it is computed: its tokens, its place in the cache, and what each new row of logits does to it.

use tokenizer::Tokenizer;

use crate::decoder::{Chunk, Rows};
use crate::error::RequestFailure;
use crate::format::Form;
use crate::request::{Alternative, Event, FinishReason, Pooling, TokenLogprob, Usage};
use crate::sampling::{Probabilities, Sampler, likeliest};
use crate::speculation::Speculation;
use crate::text::{AnswerText, Released};
use crate::worker::Waiting;

/// A request that is being computed.
pub(crate) struct Sequence {
    pub waiting: Waiting,
    /// In order of admission.
    pub number: u64,
    /// Its blocks of the cache: first those that are kept for others too, then its own.
    pub blocks: Vec<u32>,
    /// How many of them are kept.
    pub kept: usize,
    /// It waits for a sequence that computes the beginning of its prompt right now.
    pub awaited: Option<Awaited>,
    /// Its last event is there.
    pub ended: bool,
    /// Events that nobody was told yet.
    outgoing: Vec<Event>,
    /// Prompt and answer.
    tokens: Vec<u32>,
    /// Positions that are in the cache.
    computed: usize,
    /// Generated tokens, one that ended the text included.
    generated: usize,
    /// The rows of the next step once the prompt is read: the last token, and what may follow it.
    draft: Vec<u32>,
    speculation: Speculation,
    sampler: Sampler,
    text: AnswerText,
    prompt_logprobs: Vec<Option<TokenLogprob>>,
    /// Sums of the hidden states so far.
    pooled: Vec<f64>,
}

/// Another sequence that will have computed the first `length` tokens of this one's prompt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaited {
    pub number: u64,
    pub length: usize,
}

/// What one step did for a sequence.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub guessed: usize,
    pub accepted: usize,
}

impl Sequence {
    /// `found` are kept blocks that hold the beginning of the prompt, `own` those beside them; `speculation` is the
    /// engine's setting.
    pub fn new(
        mut waiting: Waiting,
        number: u64,
        found: Vec<u32>,
        own: Vec<u32>,
        block_positions: usize,
        speculation: usize,
    ) -> Sequence {
        let request = &mut waiting.request;
        let kept = found.len();
        Sequence {
            number,
            blocks: [found, own].concat(),
            kept,
            awaited: None,
            ended: false,
            outgoing: Vec::new(),
            tokens: request.prompt.clone(),
            computed: kept * block_positions,
            generated: 0,
            draft: Vec::new(),
            speculation: Speculation::new(request.speculation.unwrap_or(speculation)),
            sampler: Sampler::new(request.sampling.clone(), &request.prompt),
            text: AnswerText::new(std::mem::take(&mut request.stop)),
            prompt_logprobs: vec![None],
            pooled: Vec::new(),
            waiting,
        }
    }

    /// Rows that the next step may compute: the rest of the prompt, or the last token and what may follow it.
    pub fn left(&self) -> usize {
        if self.draft.is_empty() { self.tokens.len() - self.computed } else { self.draft.len() }
    }

    /// Whether the next rows are rows of the prompt whose probabilities are wanted.
    pub fn scores_prompt(&self) -> bool {
        self.waiting.request.prompt_logprobs.is_some() && self.computed < self.waiting.request.prompt.len()
    }

    /// Whether its prompt is read, so that its next rows are rows of the answer.
    pub fn is_answering(&self) -> bool {
        !self.draft.is_empty()
    }

    /// Positions in the cache.
    pub fn computed(&self) -> usize {
        self.computed
    }

    /// Tokens of the prompt.
    pub fn prompt_length(&self) -> usize {
        self.waiting.request.prompt.len()
    }

    /// Prompt and answer so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Goes on after `length` positions of the prompt, which somebody else has computed.
    pub fn skip_to(&mut self, length: usize) {
        self.computed = length;
    }

    /// The next `length` rows.
    pub fn chunk(&self, length: usize) -> Chunk<'_> {
        let drafting = !self.draft.is_empty();
        let of_prompt = || &self.tokens[self.computed..self.computed + length];
        Chunk {
            tokens: if drafting { &self.draft[..length] } else { of_prompt() },
            first_position: self.computed,
            blocks: &self.blocks,
            adapter: self.waiting.adapter,
            rows: match self.waiting.request.pooling {
                Some(Pooling::Mean) => Rows::All,
                _ if drafting || self.scores_prompt() => Rows::All,
                _ if length == self.left() => Rows::Last,
                _ => Rows::None,
            },
            answer: self.computed >= self.waiting.request.prompt.len(),
        }
    }

    /// The `length` rows of [`Sequence::chunk`] were computed; `rows` are the logits that it asked for.
    pub fn advance(
        &mut self,
        length: usize,
        rows: &[&[f32]],
        tokenizer: &Tokenizer,
        end_tokens: &[u32],
    ) -> Progress {
        if !self.draft.is_empty() {
            return self.advance_draft(rows, tokenizer, end_tokens);
        }
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
        self.computed += length;
        if self.left() > 0 {
            return Progress::default();
        }
        if self.waiting.request.prompt_logprobs.is_some() {
            let logprobs = std::mem::take(&mut self.prompt_logprobs);
            self.outgoing.push(Event::Prompt { logprobs });
        }
        if let Some(row) = rows.last() {
            self.generate(row, tokenizer, end_tokens);
        }
        self.draft();
        Progress::default()
    }

    /// Rows of the answer: each chooses a token, and the next row counts if it was computed for that very token.
    fn advance_draft(&mut self, rows: &[&[f32]], tokenizer: &Tokenizer, end_tokens: &[u32]) -> Progress {
        let draft = std::mem::take(&mut self.draft);
        let guessed = rows.len() - 1;
        let mut accepted = 0;
        for (index, row) in rows.iter().enumerate() {
            self.computed += 1;
            self.generate(row, tokenizer, end_tokens);
            if self.ended || index == guessed || self.tokens.last() != Some(&draft[index + 1]) {
                break;
            }
            accepted += 1;
        }
        self.speculation.learn(guessed, accepted);
        self.draft();
        Progress { guessed, accepted }
    }

    /// Sets the next rows: the token generated last, and guesses that still fit.
    fn draft(&mut self) {
        if self.ended {
            return;
        }
        let room = (self.waiting.most_tokens - self.generated).saturating_sub(1);
        let guesses = self.speculation.propose(&self.tokens, room);
        self.draft = self.tokens[self.computed..].iter().chain(guesses).copied().collect();
    }

    /// The `length` rows of a text to embed were computed; `rows` are the hidden states that were asked for.
    pub fn advance_pooling(&mut self, length: usize, rows: &[&[f32]]) {
        self.computed += length;
        for row in rows {
            self.pooled.resize(row.len(), 0.0);
            // One after the other, in the order of the text: the same bits however it is cut.
            self.pooled.iter_mut().zip(*row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        if self.left() > 0 {
            return;
        }
        let count = match self.waiting.request.pooling {
            Some(Pooling::Mean) => self.tokens.len() as f64,
            _ => 1.0,
        };
        let values = self.pooled.iter().map(|sum| (sum / count) as f32).collect();
        self.outgoing.push(Event::Embedding { values });
        self.end_with(FinishReason::MaxTokens);
    }

    /// Ends with this last event.
    pub fn end(&mut self, event: Event) {
        if !self.ended {
            self.ended = true;
            self.outgoing.push(event);
        }
    }

    /// Delivers the events since the last time. Whoever hears of them finds the engine's figures up to date.
    pub fn tell(&mut self) {
        for event in self.outgoing.drain(..) {
            (self.waiting.deliver)(event);
        }
    }

    /// Chooses a token; what goes wrong ends the request.
    fn generate(&mut self, logits: &[f32], tokenizer: &Tokenizer, end_tokens: &[u32]) {
        if let Err(failure) = self.try_generate(logits, tokenizer, end_tokens) {
            self.end(Event::Failed(failure));
        }
    }

    fn try_generate(
        &mut self,
        logits: &[f32],
        tokenizer: &Tokenizer,
        end_tokens: &[u32],
    ) -> Result<(), RequestFailure> {
        let most = self.waiting.most_tokens;
        if self.generated == most {
            return self.finish(FinishReason::MaxTokens, tokenizer);
        }
        let form = self.waiting.form.as_mut();
        let allowed = form.map(Form::allowed).transpose().map_err(RequestFailure::Format)?;
        let token = self.sampler.next(logits, allowed.as_ref());
        self.generated += 1;
        if end_tokens.contains(&token) || self.waiting.request.stop_tokens.contains(&token) {
            return self.finish(FinishReason::EndOfText, tokenizer);
        }
        let complete = match &mut self.waiting.form {
            Some(form) => form.take(token).map_err(RequestFailure::Format)?,
            None => false,
        };
        let alternatives = self.waiting.request.logprobs;
        let logprob = alternatives.map(|count| token_logprob(logits, token, count, tokenizer));
        self.tokens.push(token);
        let released = self.text.push(tokenizer, token, logprob).map_err(computing)?;
        let stopped = released.stopped;
        self.release(released);
        if stopped {
            self.end_with(FinishReason::StopString);
        } else if complete {
            self.finish(FinishReason::EndOfText, tokenizer)?;
        } else if self.generated == most {
            let asked = self.waiting.request.max_tokens.is_some();
            let reason = if asked { FinishReason::MaxTokens } else { FinishReason::ContextLength };
            self.finish(reason, tokenizer)?;
        }
        Ok(())
    }

    fn finish(&mut self, reason: FinishReason, tokenizer: &Tokenizer) -> Result<(), RequestFailure> {
        let released = self.text.finish(tokenizer).map_err(computing)?;
        let reason = if released.stopped { FinishReason::StopString } else { reason };
        self.release(released);
        self.end_with(reason);
        Ok(())
    }

    fn release(&mut self, released: Released) {
        if !released.is_empty() {
            let Released { text, ids, logprobs, .. } = released;
            self.outgoing.push(Event::Token { text, ids, logprobs });
        }
    }

    fn end_with(&mut self, reason: FinishReason) {
        let usage =
            Usage { prompt_tokens: self.waiting.request.prompt.len(), completion_tokens: self.generated };
        self.end(Event::Finished { reason, usage });
    }
}

fn computing(error: tokenizer::Error) -> RequestFailure {
    RequestFailure::Computing(error.to_string())
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
