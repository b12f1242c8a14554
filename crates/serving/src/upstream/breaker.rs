//! A circuit breaker: an engine that fails again and again is left alone for a while.
//!
//! Closed, everything passes. After so many failures in a row it opens, and nothing passes until it has rested; then one
//! request may try (half-open), and its end decides.
//!
//! Each tenant has a circuit of its own, which counts its failures, and there is one for all. A failure that a request may
//! have provoked counts for all only once two tenants have had one, or whoever finds a request that breaks an engine would
//! close it to everyone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a breaker does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

/// Where a failure may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The engine or the way to it: no request can have done this.
    Way,
    /// Perhaps what was asked: a request that breaks the engine, or takes it too long.
    Request,
}

pub struct Breaker {
    threshold: usize,
    rest: Duration,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    all: Circuit,
    /// Failures in the row of all that no request can have provoked.
    of_the_way: usize,
    provokers: Provokers,
    /// Who has a row of failures; a success takes a tenant out.
    tenants: HashMap<String, Circuit>,
}

/// Whose requests may have provoked the row of all.
#[derive(Default)]
enum Provokers {
    #[default]
    Nobody,
    One(String),
    Several,
}

#[derive(Default)]
struct Circuit {
    /// In a row.
    failures: usize,
    /// When it opened; `None` while it is closed.
    opened: Option<Instant>,
    /// Since when a request tries, and whose it is.
    trial: Option<(Instant, String)>,
}

impl Circuit {
    fn would_pass(&self, now: Instant, rest: Duration) -> bool {
        let Some(opened) = self.opened else { return true };
        // A trial that never told how it ended does not block the next for ever.
        let since = self.trial.as_ref().map_or(opened, |(since, _)| *since);
        now.saturating_duration_since(since) >= rest
    }

    fn pass(&mut self, tenant: &str, now: Instant) {
        if self.opened.is_some() {
            self.trial = Some((now, tenant.to_string()));
        }
    }

    fn open(&mut self, now: Instant) {
        self.opened = Some(now);
        self.trial = None;
    }

    /// Closes it if this tenant tries; the next failure opens it again.
    fn close_on_trial(&mut self, tenant: &str, threshold: usize) {
        if self.is_tried_by(tenant) {
            let failures = self.failures.min(threshold.saturating_sub(1));
            *self = Circuit { failures, ..Circuit::default() };
        }
    }

    fn is_tried_by(&self, tenant: &str) -> bool {
        self.trial.as_ref().is_some_and(|(_, trier)| trier == tenant)
    }

    fn state(&self, now: Instant, rest: Duration) -> BreakerState {
        match self.opened {
            None => BreakerState::Closed,
            Some(opened) if self.trial.is_some() || now.saturating_duration_since(opened) >= rest => {
                BreakerState::HalfOpen
            }
            Some(_) => BreakerState::Open,
        }
    }
}

impl Provokers {
    fn add(&mut self, tenant: &str) {
        match self {
            Provokers::Nobody => *self = Provokers::One(tenant.to_string()),
            Provokers::One(other) if other != tenant => *self = Provokers::Several,
            _ => (),
        }
    }
}

impl Breaker {
    pub fn new(threshold: usize, rest: Duration) -> Breaker {
        Breaker { threshold, rest, inner: Arc::default() }
    }

    /// The same breaker under other settings: what one of them learns, both know.
    pub fn under(&self, threshold: usize, rest: Duration) -> Breaker {
        Breaker { threshold, rest, inner: self.inner.clone() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request of this tenant may pass now; in the half-open state the first that asks takes the place of the trial.
    pub fn lets_pass(&self, tenant: &str, now: Instant) -> bool {
        let inner = &mut *self.inner();
        let own = inner.tenants.get_mut(tenant);
        if !own.as_ref().is_none_or(|own| own.would_pass(now, self.rest))
            || !inner.all.would_pass(now, self.rest)
        {
            return false;
        }
        own.into_iter().for_each(|own| own.pass(tenant, now));
        inner.all.pass(tenant, now);
        true
    }

    /// A request of this tenant is being answered: what was open closes, on probation until an answer is whole.
    pub fn begins_to_answer(&self, tenant: &str) {
        let inner = &mut *self.inner();
        inner.all.close_on_trial(tenant, self.threshold);
        inner.of_the_way = inner.of_the_way.min(inner.all.failures);
        if let Some(own) = inner.tenants.get_mut(tenant) {
            own.close_on_trial(tenant, self.threshold);
        }
    }

    /// A request of this tenant was answered to its end.
    pub fn succeeded(&self, tenant: &str) {
        let inner = &mut *self.inner();
        let mut tenants = std::mem::take(&mut inner.tenants);
        tenants.remove(tenant);
        *inner = Inner { tenants, ..Inner::default() };
    }

    /// A request of this tenant failed.
    pub fn failed(&self, tenant: &str, fault: Fault, now: Instant) {
        let inner = &mut *self.inner();
        let own = inner.tenants.entry(tenant.to_string()).or_default();
        let was_left_alone = own.failures >= self.threshold;
        own.failures = own.failures.saturating_add(1);
        if own.failures >= self.threshold && (own.opened.is_none() || own.is_tried_by(tenant)) {
            own.open(now);
        }
        inner.all.failures = inner.all.failures.saturating_add(1);
        match fault {
            Fault::Way => inner.of_the_way = inner.of_the_way.saturating_add(1),
            Fault::Request => inner.provokers.add(tenant),
        }
        let is_several = matches!(inner.provokers, Provokers::Several);
        let is_enough =
            inner.of_the_way >= self.threshold || (is_several && inner.all.failures >= self.threshold);
        match inner.all.opened {
            None if is_enough => inner.all.open(now),
            // A trial of one who breaks it again and again says nothing to the others: the next may try at once.
            Some(_) if inner.all.is_tried_by(tenant) && was_left_alone && fault == Fault::Request => {
                inner.all.trial = None;
            }
            Some(_) if inner.all.is_tried_by(tenant) => inner.all.open(now),
            // Requests that were under way when it opened keep nobody out for longer.
            _ => (),
        }
    }

    /// What it does with requests of tenants that have no failures of their own.
    pub fn state(&self, now: Instant) -> BreakerState {
        self.inner().all.state(now, self.rest)
    }

    /// How many tenants are kept back by failures of their own.
    pub fn tenants_kept_back(&self) -> usize {
        self.inner().tenants.values().filter(|own| own.opened.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant) -> impl Fn(u64) -> Instant {
        move |seconds| start + Duration::from_secs(seconds)
    }

    #[test]
    fn it_opens_rests_and_lets_one_try() {
        let at = at(Instant::now());
        // Failures of the way count for all, whoever meets them; those of its own requests for a tenant alone.
        for (fault, other) in [(Fault::Way, "b"), (Fault::Request, "a")] {
            let breaker = Breaker::new(3, Duration::from_secs(10));
            for _ in 0..2 {
                breaker.failed("a", fault, at(0));
            }
            breaker.succeeded("a");
            for _ in 0..2 {
                breaker.failed("a", fault, at(1));
            }
            assert!(breaker.lets_pass(other, at(1)), "only failures in a row count");
            breaker.failed("a", fault, at(1));
            breaker.failed("a", fault, at(9));
            assert!(!breaker.lets_pass(other, at(10)));
            assert!(breaker.lets_pass(other, at(11)), "late ends lengthen nothing");
            assert!(!breaker.lets_pass(other, at(12)), "one tries");
            breaker.failed(other, fault, at(13));
            assert!(!breaker.lets_pass(other, at(22)) && breaker.lets_pass(other, at(23)));
            breaker.begins_to_answer(other);
            assert!(breaker.lets_pass(other, at(23)) && breaker.lets_pass(other, at(23)));
            breaker.failed("a", fault, at(23));
            assert!(!breaker.lets_pass("a", at(24)), "an answer that begins is not yet whole");
            breaker.succeeded("a");
            assert!(breaker.state(at(24)) == BreakerState::Closed && breaker.lets_pass("a", at(24)));
        }
    }

    #[test]
    fn what_one_tenant_provokes_keeps_that_tenant_back() {
        let at = at(Instant::now());
        let breaker = Breaker::new(3, Duration::from_secs(10));
        for _ in 0..100 {
            breaker.failed("a", Fault::Request, at(0));
        }
        assert!(!breaker.lets_pass("a", at(1)) && breaker.lets_pass("b", at(1)));
        assert_eq!((breaker.state(at(1)), breaker.tenants_kept_back()), (BreakerState::Closed, 1));
        breaker.succeeded("b");
        assert!(!breaker.lets_pass("a", at(1)), "what succeeds for others says nothing of its requests");
        // A second tenant has them too: it is the engine.
        breaker.failed("a", Fault::Request, at(2));
        breaker.failed("a", Fault::Request, at(2));
        breaker.failed("b", Fault::Request, at(2));
        assert_eq!(breaker.state(at(3)), BreakerState::Open);
        assert!(!breaker.lets_pass("c", at(3)));
        // The trial of the one that breaks it again and again decides for that one alone.
        assert!(breaker.lets_pass("a", at(12)) && !breaker.lets_pass("c", at(12)));
        breaker.failed("a", Fault::Request, at(12));
        assert!(!breaker.lets_pass("a", at(13)) && breaker.lets_pass("c", at(13)));
        breaker.failed("c", Fault::Request, at(14));
        assert!(!breaker.lets_pass("b", at(23)) && breaker.lets_pass("b", at(24)));
        breaker.succeeded("b");
        assert!(breaker.lets_pass("c", at(24)) && breaker.tenants_kept_back() == 1);
    }

    #[test]
    fn a_trial_that_vanishes_makes_room_for_another() {
        let at = at(Instant::now());
        let breaker = Breaker::new(1, Duration::from_secs(10));
        breaker.failed("a", Fault::Way, at(0));
        assert!(breaker.lets_pass("a", at(10)));
        assert_eq!(breaker.state(at(10)), BreakerState::HalfOpen);
        assert!(!breaker.lets_pass("a", at(19)));
        assert!(breaker.lets_pass("a", at(20)));
    }
}
