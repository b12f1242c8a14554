//! One request's hold on the limits: a place among those under way, and the tokens set aside for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::OwnedSemaphorePermit;

use super::account::UsageAccount;
use super::bucket::Bucket;
use super::policy::LimitsPolicy;
use super::refusal::shown;
use super::{Limiter, Subject, lock};
use crate::api::failure::ApiFailure;

/// Given back when the request ends, whichever way it ends.
pub struct Admission {
    limiter: Option<(Arc<Limiter>, [Subject; 2])>,
    limits: LimitsPolicy,
    reserved: AtomicU64,
    /// The day that the reservation counts for.
    day: AtomicU64,
    ended: AtomicBool,
}

impl Admission {
    pub(super) fn new(limiter: Arc<Limiter>, subjects: [Subject; 2], limits: LimitsPolicy) -> Admission {
        let mut admission = Admission::unlimited();
        (admission.limiter, admission.limits) = (Some((limiter, subjects)), limits);
        admission
    }

    /// For what no limit counts, such as the administration.
    pub fn unlimited() -> Admission {
        Admission {
            limiter: None,
            limits: LimitsPolicy::default(),
            reserved: AtomicU64::new(0),
            day: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// The stricter limits of tenant and key.
    pub fn limits(&self) -> &LimitsPolicy {
        &self.limits
    }

    /// Sets tokens aside: `firm` ones that the request names, and as many of `soft` as any request could have.
    pub fn reserve(&self, firm: usize, soft: usize) -> Result<(), ApiFailure> {
        let Some((limiter, subjects)) = &self.limiter else { return Ok(()) };
        let now = limiter.now();
        let reserved = limiter
            .reserve(subjects, firm as u64, soft as u64, now)
            .map_err(|refusal| refusal.into_failure())?;
        self.day.store(now.day(), Ordering::Relaxed);
        self.reserved.fetch_add(reserved, Ordering::Relaxed);
        Ok(())
    }

    /// A turn to encode a prompt. A tenant has few at once: the others' prompts must not wait for all of its own.
    pub async fn encoding_turn(&self) -> Option<OwnedSemaphorePermit> {
        let (limiter, subjects) = self.limiter.as_ref()?;
        let turns = lock(&limiter.accounts).by_subject.get(&subjects[0]).map(UsageAccount::encoding_turns)?;
        // They are never closed.
        turns.acquire_owned().await.ok()
    }

    /// The request has ended and used so many tokens. Only the first call counts.
    pub fn settle(&self, used: usize) {
        if self.ended.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some((limiter, subjects)) = &self.limiter {
            let reserved = self.reserved.load(Ordering::Relaxed);
            // Without a reservation nothing was computed: tokens were counted for the one who asked how many there are.
            let used = if reserved == 0 { 0 } else { used };
            let day = match self.day.load(Ordering::Relaxed) {
                0 => limiter.now().day(),
                day => day,
            };
            limiter.end(subjects, reserved, used as u64, day);
        }
    }

    /// Says in OpenAI's headers what is left, of tenant or key whichever is nearer its end.
    pub fn announce(&self, headers: &mut HeaderMap) {
        let Some((limiter, subjects)) = &self.limiter else { return };
        let accounts = lock(&limiter.accounts);
        let known: Vec<&UsageAccount> =
            subjects.iter().filter_map(|subject| accounts.by_subject.get(subject)).collect();
        let scarcest = |bucket: fn(&UsageAccount) -> Option<&Bucket>| {
            known.iter().filter_map(|account| bucket(account)).min_by_key(|bucket| bucket.left()).copied()
        };
        let found =
            [("requests", scarcest(UsageAccount::requests)), ("tokens", scarcest(UsageAccount::tokens))];
        drop(accounts);
        for (what, bucket) in found {
            let Some(bucket) = bucket else { continue };
            let values = [
                ("limit", bucket.limit().to_string()),
                ("remaining", bucket.left().to_string()),
                ("reset", shown(bucket.wait_until_full())),
            ];
            for (kind, value) in values {
                let name = HeaderName::try_from(format!("x-ratelimit-{kind}-{what}"));
                if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                    headers.insert(name, value);
                }
            }
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.settle(0);
    }
}
