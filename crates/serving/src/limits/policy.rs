//! What a tenant or a key may use. Stands in the settings as the default, in a tenant's policy, and beside a key.

use serde::{Deserialize, Serialize};

use crate::error::ServingError;

/// Limits of one tenant or one key; what is not given is not limited. A tenant's limits hold for all its keys together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsPolicy {
    /// Requests that may begin within a minute; also the largest burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Tokens of prompts and answers together within a minute; also the largest burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Tokens of prompts and answers together within a day (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_day: Option<u64>,
    /// Requests under way at once; a stream counts until it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrent_requests: Option<u64>,
    /// Tokens of the longest prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Tokens of the longest answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_tokens: Option<u64>,
    /// Answers to one request: prompts times `n`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
}

impl LimitsPolicy {
    /// These limits, and where they say nothing, those of `defaults`.
    pub fn over(&self, defaults: &LimitsPolicy) -> LimitsPolicy {
        self.combined(defaults, |own, default| own.or(default))
    }

    /// The stricter of both.
    pub fn and(&self, other: &LimitsPolicy) -> LimitsPolicy {
        self.combined(other, |own, other| match (own, other) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        })
    }

    /// Whether any of these needs the tokens of a prompt.
    pub fn counts_tokens(&self) -> bool {
        [self.tokens_per_minute, self.tokens_per_day, self.prompt_tokens].iter().any(Option::is_some)
    }

    /// Refuses a limit of nothing, by name: who may do nothing should have no key.
    pub fn check(&self) -> Result<(), ServingError> {
        match self.named().into_iter().find(|(_, limit)| *limit == Some(0)) {
            None => Ok(()),
            Some((key, _)) => {
                let expected = "at least 1 (to bar somebody, revoke the key)".to_string();
                Err(ServingError::Setting { key, expected, found: "0".to_string() })
            }
        }
    }

    fn named(&self) -> [(&'static str, Option<u64>); 7] {
        [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("tokens_per_day", self.tokens_per_day),
            ("concurrent_requests", self.concurrent_requests),
            ("prompt_tokens", self.prompt_tokens),
            ("answer_tokens", self.answer_tokens),
            ("answers", self.answers),
        ]
    }

    fn combined(
        &self,
        other: &LimitsPolicy,
        choose: impl Fn(Option<u64>, Option<u64>) -> Option<u64>,
    ) -> LimitsPolicy {
        LimitsPolicy {
            requests_per_minute: choose(self.requests_per_minute, other.requests_per_minute),
            tokens_per_minute: choose(self.tokens_per_minute, other.tokens_per_minute),
            tokens_per_day: choose(self.tokens_per_day, other.tokens_per_day),
            concurrent_requests: choose(self.concurrent_requests, other.concurrent_requests),
            prompt_tokens: choose(self.prompt_tokens, other.prompt_tokens),
            answer_tokens: choose(self.answer_tokens, other.answer_tokens),
            answers: choose(self.answers, other.answers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearer_counts_and_the_stricter_of_two_holds() {
        let defaults =
            LimitsPolicy { answers: Some(4), tokens_per_day: Some(1_000), ..LimitsPolicy::default() };
        let own = LimitsPolicy { answers: Some(8), prompt_tokens: Some(50), ..LimitsPolicy::default() };
        let over = own.over(&defaults);
        assert_eq!((over.answers, over.tokens_per_day, over.prompt_tokens), (Some(8), Some(1_000), Some(50)));
        assert_eq!(own.and(&defaults).answers, Some(4));
        assert_eq!(own.and(&defaults).tokens_per_minute, None);
    }

    #[test]
    fn a_limit_of_nothing_is_refused_by_name() {
        let policy = LimitsPolicy { tokens_per_day: Some(0), ..LimitsPolicy::default() };
        assert!(policy.check().unwrap_err().to_string().contains("tokens_per_day"));
        assert!(serde_json::from_str::<LimitsPolicy>(r#"{"tokens_per_week": 3}"#).is_err());
    }
}
