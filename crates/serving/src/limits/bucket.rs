//! A budget per minute that fills evenly: the token bucket. It counts on the monotonic clock, which no one can set.

use std::time::{Duration, Instant};

const MINUTE: f64 = 60.0;

/// What may still be used. Work that took more than was reserved for it puts the bucket into debt, which it pays first.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    per_minute: f64,
    level: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full one; its size is what flows in within a minute.
    pub fn new(per_minute: u64, now: Instant) -> Bucket {
        Bucket { per_minute: per_minute as f64, level: per_minute as f64, filled_at: now }
    }

    /// Lets in what came since the last time, under a limit that may have changed.
    pub fn fill(&mut self, per_minute: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.per_minute = per_minute as f64;
        self.level = (self.level + self.per_minute * elapsed / MINUTE).min(self.per_minute);
        self.filled_at = self.filled_at.max(now);
    }

    /// How long until `amount` is there; zero if it is.
    pub fn wait_for(&self, amount: f64) -> Duration {
        let missing = (amount - self.level).max(0.0);
        // More than a day says nothing more; it also keeps the conversion within its range.
        Duration::from_secs_f64((missing * MINUTE / self.per_minute).min(86_400.0))
    }

    /// How long until it is full.
    pub fn wait_until_full(&self) -> Duration {
        self.wait_for(self.per_minute)
    }

    pub fn take(&mut self, amount: f64) {
        self.level -= amount;
    }

    /// Gives back what was reserved and not used.
    pub fn give_back(&mut self, amount: f64) {
        self.level = (self.level + amount).min(self.per_minute);
    }

    /// Whole units that are there.
    pub fn left(&self) -> u64 {
        self.level.max(0.0) as u64
    }

    pub fn limit(&self) -> u64 {
        self.per_minute as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_evenly_up_to_its_size() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut bucket = Bucket::new(60, start);
        bucket.take(60.0);
        assert_eq!((bucket.left(), bucket.wait_for(1.0)), (0, Duration::from_secs(1)));
        bucket.fill(60, at(10));
        assert_eq!((bucket.left(), bucket.wait_until_full()), (10, Duration::from_secs(50)));
        bucket.fill(60, at(5));
        assert_eq!(bucket.left(), 10, "an earlier moment changes nothing");
        bucket.fill(60, at(500));
        assert_eq!(bucket.left(), 60);
    }

    #[test]
    fn debts_are_paid_before_anything_is_left() {
        let start = Instant::now();
        let mut bucket = Bucket::new(600, start);
        bucket.take(900.0);
        assert_eq!((bucket.left(), bucket.wait_for(1.0)), (0, Duration::from_secs_f64(30.1)));
        bucket.give_back(5_000.0);
        assert_eq!(bucket.left(), 600, "never more than its size");
        bucket.fill(60, start);
        assert_eq!(bucket.left(), 60, "a stricter limit holds at once");
    }
}
