//! A circuit breaker: an engine that fails again and again is left alone for a while.
//!
//! Closed, everything passes. After so many failures in a row it opens, and nothing passes until it has rested; then one
//! request may try (half-open), and its end decides.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a breaker does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

pub struct Breaker {
    threshold: usize,
    rest: Duration,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    failures: usize,
    /// When it opened; `None` while it is closed.
    opened: Option<Instant>,
    /// Since when a request tries.
    trial: Option<Instant>,
}

impl Breaker {
    pub fn new(threshold: usize, rest: Duration) -> Breaker {
        let inner = Arc::new(Mutex::new(Inner { failures: 0, opened: None, trial: None }));
        Breaker { threshold, rest, inner }
    }

    /// The same breaker under other settings: what one of them learns, both know.
    pub fn under(&self, threshold: usize, rest: Duration) -> Breaker {
        Breaker { threshold, rest, inner: self.inner.clone() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request may pass now; in the half-open state the first that asks takes the place of the trial.
    pub fn lets_pass(&self, now: Instant) -> bool {
        let mut inner = self.inner();
        let Some(opened) = inner.opened else { return true };
        // A trial that never told how it ended does not block the next for ever.
        let since = inner.trial.unwrap_or(opened);
        if now.saturating_duration_since(since) < self.rest {
            return false;
        }
        inner.trial = Some(now);
        true
    }

    pub fn succeeded(&self) {
        *self.inner() = Inner { failures: 0, opened: None, trial: None };
    }

    pub fn failed(&self, now: Instant) {
        let mut inner = self.inner();
        inner.failures = inner.failures.saturating_add(1);
        if inner.failures >= self.threshold {
            inner.opened = Some(now);
            inner.trial = None;
        }
    }

    pub fn state(&self, now: Instant) -> BreakerState {
        let inner = self.inner();
        match inner.opened {
            None => BreakerState::Closed,
            Some(opened) if inner.trial.is_some() || now.saturating_duration_since(opened) >= self.rest => {
                BreakerState::HalfOpen
            }
            Some(_) => BreakerState::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_rests_and_lets_one_try() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let breaker = Breaker::new(3, Duration::from_secs(10));
        for _ in 0..2 {
            breaker.failed(at(0));
        }
        breaker.succeeded();
        for _ in 0..2 {
            breaker.failed(at(1));
        }
        assert!(breaker.lets_pass(at(1)), "only failures in a row count");
        breaker.failed(at(1));
        assert_eq!(breaker.state(at(2)), BreakerState::Open);
        assert!(!breaker.lets_pass(at(10)));
        assert!(breaker.lets_pass(at(11)) && !breaker.lets_pass(at(12)), "one tries");
        assert_eq!(breaker.state(at(12)), BreakerState::HalfOpen);
        breaker.failed(at(13));
        assert!(!breaker.lets_pass(at(22)) && breaker.lets_pass(at(23)));
        breaker.succeeded();
        assert!(breaker.state(at(23)) == BreakerState::Closed && breaker.lets_pass(at(23)));
    }

    #[test]
    fn a_trial_that_vanishes_makes_room_for_another() {
        let start = Instant::now();
        let breaker = Breaker::new(1, Duration::from_secs(10));
        breaker.failed(start);
        assert!(breaker.lets_pass(start + Duration::from_secs(10)));
        assert!(!breaker.lets_pass(start + Duration::from_secs(19)));
        assert!(breaker.lets_pass(start + Duration::from_secs(20)));
    }
}
