//! From generated tokens to the text that may leave: whole characters only, and nothing of a stop string.
//!
//! Text that could still become a stop string is held back until it cannot, so a stop string is found also where it
//! straddles tokens, and neither it nor anything after it is ever delivered. A token leaves when all of its text has
//! left; one that straddles the cut never does, since its bytes would tell what follows.

use std::collections::VecDeque;

use tokenizer::{StreamDecoder, Tokenizer};

use crate::request::TokenLogprob;

/// The growing text of one answer.
pub struct AnswerText {
    decoder: StreamDecoder,
    stop: Vec<String>,
    /// Decoded and not delivered.
    held: String,
    /// Bytes delivered so far.
    delivered: usize,
    tokens: VecDeque<HeldToken>,
}

struct HeldToken {
    id: u32,
    logprob: Option<TokenLogprob>,
    /// Where its text ends, in bytes from the beginning; unknown while a character is incomplete.
    end: Option<usize>,
}

/// What may leave after a token.
#[derive(Debug, Default, PartialEq)]
pub struct Released {
    pub text: String,
    pub ids: Vec<u32>,
    pub logprobs: Vec<TokenLogprob>,
    /// A stop string was found; the text before it is all there is.
    pub stopped: bool,
}

impl Released {
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.ids.is_empty()
    }
}

impl AnswerText {
    pub fn new(stop: Vec<String>) -> AnswerText {
        AnswerText {
            decoder: StreamDecoder::new(true),
            stop,
            held: String::new(),
            delivered: 0,
            tokens: VecDeque::new(),
        }
    }

    /// Takes the next token.
    pub fn push(
        &mut self,
        tokenizer: &Tokenizer,
        id: u32,
        logprob: Option<TokenLogprob>,
    ) -> Result<Released, tokenizer::Error> {
        // A model's table may be padded beyond its tokenizer: such an id is a token without text.
        let without_text = id as usize >= tokenizer.vocabulary_size() || tokenizer.is_special(id);
        let piece = if without_text { String::new() } else { self.decoder.push(tokenizer, id)? };
        let complete = without_text || !piece.is_empty();
        self.held.push_str(&piece);
        self.tokens.push_back(HeldToken { id, logprob, end: None });
        if complete {
            self.close_tokens();
        }
        Ok(self.release(false))
    }

    /// The end: everything that was held back, unless it holds a stop string.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<Released, tokenizer::Error> {
        let rest = self.decoder.finish(tokenizer)?;
        self.held.push_str(&rest);
        self.close_tokens();
        Ok(self.release(true))
    }

    /// The text of all tokens so far is known: it ends here.
    fn close_tokens(&mut self) {
        let end = self.delivered + self.held.len();
        for token in self.tokens.iter_mut().rev().take_while(|token| token.end.is_none()) {
            token.end = Some(end);
        }
    }

    fn release(&mut self, all: bool) -> Released {
        let stop_at = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        let length = match stop_at {
            Some(position) => position,
            None if all => self.held.len(),
            None => self.held.len() - self.possible_stop(),
        };
        let mut released = Released {
            text: self.held.drain(..length).collect(),
            stopped: stop_at.is_some(),
            ..Released::default()
        };
        self.delivered += length;
        while let Some(token) =
            self.tokens.pop_front_if(|token| token.end.is_some_and(|end| end <= self.delivered))
        {
            released.ids.push(token.id);
            released.logprobs.extend(token.logprob);
        }
        released
    }

    /// Bytes at the end of the held text that may be the beginning of a stop string.
    fn possible_stop(&self) -> usize {
        let beginning = |stop: &String| {
            let lengths = stop.char_indices().map(|(position, _)| position).skip(1);
            lengths.filter(|&length| self.held.ends_with(&stop[..length])).max().unwrap_or(0)
        };
        self.stop.iter().map(beginning).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::byte_tokenizer;

    /// Pushes a text byte by byte (each byte is a token) and returns the delivered pieces, `|` where a stop was found.
    fn check(text: &str, stop: &[&str], expected: &[&str]) {
        let tokenizer = byte_tokenizer();
        let mut answer = AnswerText::new(stop.iter().map(|stop| stop.to_string()).collect());
        let mut pieces = Vec::new();
        let mut ids = 0;
        let mut stopped = false;
        for id in tokenizer.encode_ordinary(text).unwrap() {
            let released = answer.push(&tokenizer, id, None).unwrap();
            ids += released.ids.len();
            stopped = released.stopped;
            pieces.push(released.text);
            if stopped {
                pieces.push("|".to_string());
                break;
            }
        }
        if !stopped {
            let released = answer.finish(&tokenizer).unwrap();
            ids += released.ids.len();
            pieces.push(released.text);
        }
        pieces.retain(|piece| !piece.is_empty());
        assert_eq!(pieces, expected, "{text:?} until {stop:?}");
        assert_eq!(ids, pieces.concat().replace('|', "").len(), "a token leaves with its text");
    }

    #[test]
    fn characters_leave_whole() {
        check("aż", &[], &["a", "ż"]);
        check("Ωж€", &[], &["Ω", "ж", "€"]);
    }

    #[test]
    fn stop_strings_are_found_across_tokens() {
        check("ab stop cd", &["stop"], &["a", "b", " ", "|"]);
        check("κόσμε τέλος", &["τέλος"], &["κ", "ό", "σ", "μ", "ε", " ", "|"]);
        check("ħħġ", &["ħġ"], &["ħ", "|"]);
    }

    #[test]
    fn what_only_looked_like_a_stop_is_delivered() {
        check("sto", &["stop"], &["sto"]);
        check("stoa", &["stop"], &["stoa"]);
        check("aab", &["ab", "aac"], &["a", "|"]);
    }

    #[test]
    fn the_first_of_several_stops_counts() {
        check("xyz", &["z", "y"], &["x", "|"]);
    }
}
