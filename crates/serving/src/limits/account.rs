//! What one tenant or one key has used of its limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::bucket::Bucket;
use super::policy::LimitsPolicy;
use super::refusal::Refusal;

/// Prompts of one tenant that are encoded at once.
const ENCODING_TURNS: usize = 2;
/// Days whose tokens are remembered: today, and those that a clock that is set back and forth passes.
const DAYS: usize = 4;
const SECONDS_PER_DAY: u64 = 86_400;
/// How soon a place among the running requests may be free: nobody knows, so soon.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// A moment: the monotonic clock for rates, the calendar for days.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub instant: Instant,
    /// Seconds since 1970.
    pub seconds: u64,
}

impl Moment {
    /// Days since 1970 (UTC).
    pub fn day(&self) -> u64 {
        self.seconds / SECONDS_PER_DAY
    }

    fn until_tomorrow(&self) -> Duration {
        Duration::from_secs(SECONDS_PER_DAY - self.seconds % SECONDS_PER_DAY)
    }
}

/// The state of one tenant or key.
pub struct UsageAccount {
    whose: &'static str,
    limits: LimitsPolicy,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    /// Requests under way.
    running: u64,
    /// Tokens used or reserved, by day.
    days: Vec<(u64, u64)>,
    touched: Instant,
    encoding: Arc<Semaphore>,
}

impl UsageAccount {
    pub fn new(whose: &'static str, now: Instant) -> UsageAccount {
        UsageAccount {
            whose,
            limits: LimitsPolicy::default(),
            requests: None,
            tokens: None,
            running: 0,
            days: Vec::new(),
            touched: now,
            encoding: Arc::new(Semaphore::new(ENCODING_TURNS)),
        }
    }

    /// Turns to encode prompts.
    pub fn encoding_turns(&self) -> Arc<Semaphore> {
        self.encoding.clone()
    }

    /// Sets the limits that hold from now on, and lets in what time has brought.
    pub fn prepare(&mut self, limits: LimitsPolicy, now: Instant) {
        self.limits = limits;
        self.touched = now;
        for (bucket, limit) in
            [(&mut self.requests, limits.requests_per_minute), (&mut self.tokens, limits.tokens_per_minute)]
        {
            match (bucket.as_mut(), limit) {
                (Some(bucket), Some(limit)) => bucket.fill(limit, now),
                (None, Some(limit)) => *bucket = Some(Bucket::new(limit, now)),
                (_, None) => *bucket = None,
            }
        }
    }

    /// Whether the tokens of that day are known; they are asked of the database once.
    pub fn knows_day(&self, day: u64) -> bool {
        self.days.iter().any(|(known, _)| *known == day)
    }

    /// Learns what was used on a day before this account was opened.
    pub fn learn_day(&mut self, day: u64, used: u64) {
        if self.knows_day(day) {
            return;
        }
        if self.days.len() == DAYS {
            self.days.remove(0);
        }
        self.days.push((day, used));
    }

    /// Whether one more request may begin, before anything of it was read.
    pub fn may_begin(&self, now: Moment) -> Result<(), Refusal> {
        if let Some(allowed) = self.limits.concurrent_requests
            && self.running >= allowed
        {
            return Err(self.refusal("concurrent_requests", allowed, 1, 0, Some(PLACE_WAIT)));
        }
        if let Some(bucket) = &self.requests
            && bucket.left() < 1
        {
            let wait = bucket.wait_for(1.0);
            return Err(self.refusal("requests_per_minute", bucket.limit(), 1, 0, Some(wait)));
        }
        // At least one token each: whoever has none left need not send a prompt.
        self.may_take(1, now)
    }

    /// One more request begins.
    pub fn begin(&mut self) {
        self.running += 1;
        if let Some(bucket) = &mut self.requests {
            bucket.take(1.0);
        }
    }

    /// Whether so many tokens may be reserved.
    pub fn may_take(&self, tokens: u64, now: Moment) -> Result<(), Refusal> {
        if let Some(bucket) = &self.tokens {
            let (allowed, left) = (bucket.limit(), bucket.left());
            if tokens > left {
                let wait = (tokens <= allowed).then(|| bucket.wait_for(tokens as f64));
                return Err(self.refusal("tokens_per_minute", allowed, tokens, left, wait));
            }
        }
        if let Some(allowed) = self.limits.tokens_per_day {
            let left = allowed.saturating_sub(self.used_on(now.day()));
            if tokens > left {
                let wait = (tokens <= allowed).then(|| now.until_tomorrow());
                return Err(self.refusal("tokens_per_day", allowed, tokens, left, wait));
            }
        }
        Ok(())
    }

    /// The most tokens that any one request could reserve.
    pub fn most_tokens(&self) -> u64 {
        let limits = [self.limits.tokens_per_minute, self.limits.tokens_per_day];
        limits.into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    pub fn take(&mut self, tokens: u64, day: u64) {
        if let Some(bucket) = &mut self.tokens {
            bucket.take(tokens as f64);
        }
        if let Some((_, used)) = self.days.iter_mut().find(|(known, _)| *known == day) {
            *used = used.saturating_add(tokens);
        }
    }

    /// A request has ended that had reserved so many tokens and used so many.
    pub fn end(&mut self, reserved: u64, used: u64, day: u64) {
        self.running = self.running.saturating_sub(1);
        if let Some(bucket) = &mut self.tokens {
            if used > reserved {
                bucket.take((used - reserved) as f64);
            } else {
                bucket.give_back((reserved - used) as f64);
            }
        }
        if let Some((_, sum)) = self.days.iter_mut().find(|(known, _)| *known == day) {
            *sum = sum.saturating_sub(reserved).saturating_add(used);
        }
    }

    pub fn requests(&self) -> Option<&Bucket> {
        self.requests.as_ref()
    }

    pub fn tokens(&self) -> Option<&Bucket> {
        self.tokens.as_ref()
    }

    /// Whether it can be forgotten without anybody noticing: nothing runs, nothing is owed.
    pub fn is_idle(&self, now: Instant, rest: Duration) -> bool {
        self.running == 0 && now.saturating_duration_since(self.touched) >= rest
    }

    pub fn touched(&self) -> Instant {
        self.touched
    }

    pub fn is_running(&self) -> bool {
        self.running > 0
    }

    fn used_on(&self, day: u64) -> u64 {
        self.days.iter().find(|(known, _)| *known == day).map_or(0, |(_, used)| *used)
    }

    fn refusal(
        &self,
        limit: &'static str,
        allowed: u64,
        needed: u64,
        left: u64,
        retry_after: Option<Duration>,
    ) -> Refusal {
        Refusal { whose: self.whose, limit, allowed, needed, left, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(limits: LimitsPolicy) -> (UsageAccount, Moment) {
        // Noon of the tenth day.
        let now = Moment { instant: Instant::now(), seconds: 10 * SECONDS_PER_DAY + 43_200 };
        let mut account = UsageAccount::new("tenant", now.instant);
        account.prepare(limits, now.instant);
        account.learn_day(10, 0);
        (account, now)
    }

    fn broken(result: Result<(), Refusal>) -> (&'static str, Option<u64>) {
        let refusal = result.unwrap_err();
        (refusal.limit, refusal.retry_after.map(|wait| wait.as_secs()))
    }

    #[test]
    fn requests_are_counted_by_the_minute_and_while_they_run() {
        let limits = LimitsPolicy {
            requests_per_minute: Some(2),
            concurrent_requests: Some(1),
            ..LimitsPolicy::default()
        };
        let (mut account, now) = account(limits);
        account.may_begin(now).unwrap();
        account.begin();
        assert_eq!(broken(account.may_begin(now)), ("concurrent_requests", Some(1)));
        account.end(0, 0, 10);
        account.begin();
        account.end(0, 0, 10);
        assert_eq!(broken(account.may_begin(now)), ("requests_per_minute", Some(30)));
        account.prepare(limits, now.instant + Duration::from_secs(31));
        account.may_begin(now).unwrap();
    }

    #[test]
    fn reserved_tokens_are_settled_with_what_was_used() {
        let limits = LimitsPolicy {
            tokens_per_minute: Some(100),
            tokens_per_day: Some(150),
            ..LimitsPolicy::default()
        };
        let (mut account, now) = account(limits);
        account.begin();
        account.take(80, 10);
        assert_eq!(broken(account.may_take(30, now)), ("tokens_per_minute", Some(6)));
        assert_eq!(
            broken(account.may_take(101, now)),
            ("tokens_per_minute", None),
            "no waiting makes it fit"
        );
        account.end(80, 20, 10);
        account.may_take(80, now).unwrap();
        account.begin();
        account.take(80, 10);
        account.end(80, 120, 10);
        let minute_later = now.instant + Duration::from_secs(120);
        account.prepare(limits, minute_later);
        assert_eq!(broken(account.may_take(20, now)), ("tokens_per_day", Some(43_200)));
    }

    #[test]
    fn a_clock_that_jumps_finds_the_counts_of_each_day() {
        let limits = LimitsPolicy { tokens_per_day: Some(100), ..LimitsPolicy::default() };
        let (mut account, now) = account(limits);
        account.take(90, 10);
        let tomorrow = Moment { seconds: now.seconds + SECONDS_PER_DAY, ..now };
        account.learn_day(11, 0);
        account.may_take(100, tomorrow).unwrap();
        assert_eq!(broken(account.may_take(20, now)).0, "tokens_per_day", "set back, it is as it was");
        for day in 12..20 {
            account.learn_day(day, 0);
        }
        assert_eq!(account.days.len(), DAYS);
    }
}
