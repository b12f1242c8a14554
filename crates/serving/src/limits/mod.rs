//! How much each tenant and each key may use, and what they have used: requests and tokens by the minute, tokens by the
//! day, requests at once.
//!
//! A request passes twice. Before its body is read, the guard asks [`Limiter::admit`]: is there a place, is anything
//! left? When it is read and its prompt is counted, [`Admission::reserve`] sets aside what it may come to use; when it
//! ends, the reservation is settled with what it did use. Rates run on the monotonic clock, days are UTC dates. Every
//! limit holds for the tenant (all keys together) and for the key.
//!
//! What is held in memory is bounded: one small account for each tenant and key that asked within the last minutes. What
//! a day has used so far is read from the database when an account is opened, so that daily limits outlive a restart.

mod account;
mod admission;
mod bucket;
pub mod fit;
pub mod policy;
mod refusal;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use provenance::Clock;

use crate::api::failure::ApiFailure;
use crate::error::ServingError;
use crate::identity::Caller;
use crate::settings::LimitsSettings;
use crate::store::Store;
use account::{Moment, UsageAccount};
pub use admission::Admission;
use policy::LimitsPolicy;
use refusal::Refusal;

/// Accounts that nobody touched for so long are forgotten: a bucket is full again after a minute, and the day's tokens
/// have long reached the database.
const REST: Duration = Duration::from_secs(600);
/// Most accounts in memory, a few hundred bytes each.
const MOST_ACCOUNTS: usize = 1 << 16;
/// How long a key's limits hold before they are read again.
const FRESH: Duration = Duration::from_secs(1);

/// Whose limit it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    Tenant(String),
    Key(String),
}

impl Subject {
    fn whose(&self) -> &'static str {
        match self {
            Subject::Tenant(_) => "tenant",
            Subject::Key(_) => "key",
        }
    }
}

/// Requests that were refused before they were read, since this was last asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refused {
    pub tenant: String,
    pub key_id: String,
    pub limit: &'static str,
}

/// The share of `all` places that one of several who want them may have: three quarters, so that the others find some.
/// Alone, one is content with that.
pub fn share_of_one(all: u64) -> u64 {
    all.saturating_mul(3).div_ceil(4)
}

/// All accounts of a server.
pub struct Limiter {
    store: Store,
    clock: Clock,
    accounts: Mutex<Accounts>,
    refused: Mutex<HashMap<Refused, u64>>,
}

#[derive(Default)]
struct Accounts {
    by_subject: HashMap<Subject, UsageAccount>,
    /// A key's own limits, and when they were read.
    key_limits: HashMap<String, (LimitsPolicy, Instant)>,
}

impl Limiter {
    pub fn new(store: Store, clock: Clock) -> Limiter {
        Limiter { store, clock, accounts: Mutex::default(), refused: Mutex::default() }
    }

    /// Lets a request of this caller begin, or says why not. `defaults` hold where nothing else is said.
    pub fn admit(
        self: &Arc<Limiter>,
        caller: &Caller,
        defaults: &LimitsSettings,
    ) -> Result<Admission, ApiFailure> {
        let now = self.now();
        let subjects = [Subject::Tenant(caller.tenant.clone()), Subject::Key(caller.key_id.clone())];
        let internal = |error: ServingError| ApiFailure::internal(&error.to_string());
        let key = self.key_limits(&caller.key_id, now.instant).map_err(internal)?;
        let limits = [caller.policy.limits.over(&defaults.tenant), key.over(&defaults.key)];
        self.learn_day(&subjects, &limits, now).map_err(internal)?;
        match self.begin(&subjects, &limits, now) {
            Ok(()) => Ok(Admission::new(self.clone(), subjects, limits[0].and(&limits[1]))),
            Err(refusal) => {
                let refused = Refused {
                    tenant: caller.tenant.clone(),
                    key_id: caller.key_id.clone(),
                    limit: refusal.limit,
                };
                *lock(&self.refused).entry(refused).or_default() += 1;
                Err(refusal.into_failure())
            }
        }
    }

    /// Takes the counts of requests refused since the last time.
    pub fn take_refused(&self) -> HashMap<Refused, u64> {
        std::mem::take(&mut *lock(&self.refused))
    }

    fn begin(&self, subjects: &[Subject; 2], limits: &[LimitsPolicy; 2], now: Moment) -> Result<(), Refusal> {
        let mut accounts = lock(&self.accounts);
        for (subject, limits) in subjects.iter().zip(limits) {
            let account = accounts.open(subject, now.instant);
            account.prepare(*limits, now.instant);
            account.may_begin(now)?;
        }
        for subject in subjects {
            accounts.open(subject, now.instant).begin();
        }
        Ok(())
    }

    /// Sets aside `firm` tokens, and of `soft` as many as fit a limit at all. Returns how many were set aside.
    fn reserve(&self, subjects: &[Subject; 2], firm: u64, soft: u64, now: Moment) -> Result<u64, Refusal> {
        let mut accounts = lock(&self.accounts);
        let known = |subject| accounts.by_subject.get(subject);
        let most = subjects.iter().filter_map(known).map(UsageAccount::most_tokens).min().unwrap_or(u64::MAX);
        let tokens = firm.saturating_add(soft.min(most.saturating_sub(firm)));
        for account in subjects.iter().filter_map(known) {
            account.may_take(tokens, now)?;
        }
        for subject in subjects {
            accounts.open(subject, now.instant).take(tokens, now.day());
        }
        Ok(tokens)
    }

    fn end(&self, subjects: &[Subject; 2], reserved: u64, used: u64, day: u64) {
        let mut accounts = lock(&self.accounts);
        for subject in subjects {
            if let Some(account) = accounts.by_subject.get_mut(subject) {
                account.end(reserved, used, day);
            }
        }
    }

    /// A key's own limits, read again when they are no longer fresh.
    fn key_limits(&self, key_id: &str, now: Instant) -> Result<LimitsPolicy, ServingError> {
        if let Some((limits, read_at)) = lock(&self.accounts).key_limits.get(key_id)
            && now.saturating_duration_since(*read_at) < FRESH
        {
            return Ok(*limits);
        }
        let limits = self.store.key_limits(key_id)?.unwrap_or_default();
        lock(&self.accounts).key_limits.insert(key_id.to_string(), (limits, now));
        Ok(limits)
    }

    /// Reads what a day has used, for accounts with a daily limit that do not know it yet.
    fn learn_day(
        &self,
        subjects: &[Subject; 2],
        limits: &[LimitsPolicy; 2],
        now: Moment,
    ) -> Result<(), ServingError> {
        let day = now.day();
        for (subject, limits) in subjects.iter().zip(limits) {
            let known = |accounts: &Accounts| {
                accounts.by_subject.get(subject).is_some_and(|account| account.knows_day(day))
            };
            if limits.tokens_per_day.is_none() || known(&lock(&self.accounts)) {
                continue;
            }
            let used = match subject {
                Subject::Tenant(tenant) => self.store.tokens_of_tenant(tenant, day)?,
                Subject::Key(key) => self.store.tokens_of_key(key, day)?,
            };
            lock(&self.accounts).open(subject, now.instant).learn_day(day, used);
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        let seconds = self.clock.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Moment { instant: Instant::now(), seconds }
    }
}

impl Accounts {
    fn open(&mut self, subject: &Subject, now: Instant) -> &mut UsageAccount {
        if !self.by_subject.contains_key(subject) && self.by_subject.len() >= MOST_ACCOUNTS {
            self.forget(now);
        }
        self.by_subject.entry(subject.clone()).or_insert_with(|| UsageAccount::new(subject.whose(), now))
    }

    /// Makes room: those at rest go; if all were busy of late, the half that was touched longest ago.
    fn forget(&mut self, now: Instant) {
        self.by_subject.retain(|_, account| !account.is_idle(now, REST));
        if self.by_subject.len() >= MOST_ACCOUNTS {
            let mut touched: Vec<Instant> = self.by_subject.values().map(UsageAccount::touched).collect();
            touched.sort_unstable();
            let middle = touched[touched.len() / 2];
            self.by_subject.retain(|_, account| account.is_running() || account.touched() > middle);
        }
        let Accounts { by_subject, key_limits } = self;
        key_limits.retain(|key, _| by_subject.contains_key(&Subject::Key(key.clone())));
    }
}

/// Gives a key limits of its own, or with `None` takes them away. A running server heeds them within a second.
pub fn set_key_limits(
    state_folder: &Path,
    key_id: &str,
    limits: Option<&LimitsPolicy>,
    now: u64,
) -> Result<(), ServingError> {
    limits.map_or(Ok(()), LimitsPolicy::check)?;
    let id = key_id.strip_prefix("eu-").unwrap_or(key_id);
    let store = Store::open(state_folder)?;
    let change = || {
        if store.set_key_limits(id, limits)? {
            Ok(())
        } else {
            Err(ServingError::NoSuchKey { id: id.to_string() })
        }
    };
    store.noting(now, "key_changed", change, |()| id.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds a lock here can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
