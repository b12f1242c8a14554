//! Why a request is not admitted, and what its client should do.

use std::time::Duration;

use axum::http::StatusCode;

use crate::api::failure::ApiFailure;

/// A limit that a request would break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `tenant` or `key`.
    pub whose: &'static str,
    /// Name of the limit, as settings have it.
    pub limit: &'static str,
    pub allowed: u64,
    /// What the request needs of it, and what is left.
    pub needed: u64,
    pub left: u64,
    /// When it may be tried again; `None`: never as it is.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// The answer: 429 with the time to wait, or 400 for what no waiting makes fit.
    pub fn into_failure(self) -> ApiFailure {
        let Refusal { whose, limit, allowed, needed, left, retry_after } = self;
        match retry_after {
            Some(wait) => {
                let seconds = whole_seconds(wait);
                let message = format!(
                    "the {whose}'s limit `{limit}` is {allowed}; {left} are left, this request needs {needed}: try again in \
                     {seconds} s"
                );
                ApiFailure {
                    retry_after: Some(seconds),
                    ..ApiFailure::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message)
                }
            }
            None => {
                let message = format!(
                    "the {whose}'s limit `{limit}` is {allowed}, and this request alone needs {needed}: ask for less"
                );
                ApiFailure::new(StatusCode::BAD_REQUEST, "request_too_large", message)
            }
        }
    }
}

/// Seconds to wait, rounded up: who comes back a moment too early is refused again.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// A time as OpenAI writes it in its headers: `1m30s`, `12s`, `250ms`.
pub fn shown(wait: Duration) -> String {
    let milliseconds = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    let (hours, minutes, seconds) =
        (milliseconds / 3_600_000, milliseconds / 60_000 % 60, milliseconds / 1_000 % 60);
    match (hours, minutes, seconds) {
        (0, 0, 0) => format!("{milliseconds}ms"),
        (0, 0, _) => format!("{seconds}s"),
        (0, _, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_clients_know_them() {
        for (milliseconds, expected) in
            [(0, "0ms"), (250, "250ms"), (12_000, "12s"), (90_500, "1m30s"), (7_200_000, "2h0m0s")]
        {
            assert_eq!(shown(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn what_may_come_back_is_told_when() {
        let refusal = Refusal {
            whose: "key",
            limit: "tokens_per_minute",
            allowed: 100,
            needed: 60,
            left: 20,
            retry_after: Some(Duration::from_millis(1_001)),
        };
        let failure = refusal.clone().into_failure();
        assert_eq!((failure.status.as_u16(), failure.retry_after), (429, Some(2)));
        assert!(failure.message.contains("`tokens_per_minute`"), "{}", failure.message);
        let never = Refusal { retry_after: None, ..refusal }.into_failure();
        assert_eq!((never.status.as_u16(), never.code), (400, "request_too_large"));
    }
}
