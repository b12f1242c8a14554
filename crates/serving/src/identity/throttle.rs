//! Guessing is slowed: who shows wrong credentials waits, each time twice as long.
//!
//! Counted are credentials that were shown and wrong, by address (IPv6 by its /64, which is what one customer has). Up to
//! so many a minute are an old key in a forgotten script; beyond that, whatever comes from there is answered with 429 and
//! not looked at, first for a second, then for two, up to a minute. So that one bad neighbour behind the same address
//! does not shut out the others, a credential that has opened something from there within the last hour is looked at all
//! the same. When the whole server sees too many wrong credentials, an address gets its first one free and no more; an
//! address that has shown none is never made to wait.
//!
//! The table is bounded; what was touched longest ago goes first.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::settings::ThrottleSettings;

const MINUTE: Duration = Duration::from_secs(60);
/// The longest wait is 2⁶ seconds.
const MOST_DOUBLINGS: u32 = 6;
/// Without a failure for so long, an address begins anew.
const FORGIVEN: Duration = Duration::from_secs(300);
/// For how long a credential that opened something is known at its address.
const GOOD_FOR: Duration = Duration::from_secs(3_600);
/// Addresses, and credentials at addresses, that are remembered: some hundred bytes each.
const MOST_REMEMBERED: usize = 10_000;

/// What is known of who guesses.
pub struct Throttle {
    most: usize,
    table: Mutex<Table>,
}

struct Table {
    addresses: HashMap<IpAddr, Failures>,
    /// By address and the digest of what was shown.
    good: HashMap<(IpAddr, [u8; 32]), Instant>,
    overall: Window,
}

struct Failures {
    window: Window,
    doublings: u32,
    blocked_until: Option<Instant>,
    last: Instant,
}

/// Failures within the minute that began then.
struct Window {
    began: Instant,
    count: u32,
}

impl Window {
    fn add(&mut self, now: Instant) -> u32 {
        self.roll(now);
        self.count = self.count.saturating_add(1);
        self.count
    }

    fn roll(&mut self, now: Instant) {
        if now.saturating_duration_since(self.began) >= MINUTE {
            (self.began, self.count) = (now, 0);
        }
    }
}

impl Throttle {
    pub fn new(now: Instant) -> Throttle {
        Throttle::of_size(MOST_REMEMBERED, now)
    }

    fn of_size(most: usize, now: Instant) -> Throttle {
        let overall = Window { began: now, count: 0 };
        let table = Table { addresses: HashMap::new(), good: HashMap::new(), overall };
        Throttle { most, table: Mutex::new(table) }
    }

    /// Whether a credential from there may be looked at; `Err` says in how many seconds. `shown` is its digest.
    pub fn may_try(&self, address: IpAddr, shown: &[u8; 32], now: Instant) -> Result<(), u64> {
        let address = network(address);
        let table = self.lock();
        let Some(until) = table.addresses.get(&address).and_then(|failures| failures.blocked_until) else {
            return Ok(());
        };
        let left = until.saturating_duration_since(now);
        let known = table.good.get(&(address, *shown));
        if left.is_zero() || known.is_some_and(|seen| now.saturating_duration_since(*seen) < GOOD_FOR) {
            return Ok(());
        }
        Err(left.as_secs() + u64::from(left.subsec_nanos() > 0))
    }

    /// A credential from there opened nothing.
    pub fn failed(&self, address: IpAddr, settings: &ThrottleSettings, now: Instant) {
        let mut table = self.lock();
        let table = &mut *table;
        let crowded = table.overall.add(now) > settings.overall_failures_per_minute;
        make_room(&mut table.addresses, self.most, |failures| failures.last);
        let failures = table.addresses.entry(network(address)).or_insert_with(|| Failures {
            window: Window { began: now, count: 0 },
            doublings: 0,
            blocked_until: None,
            last: now,
        });
        if now.saturating_duration_since(failures.last) >= FORGIVEN {
            failures.doublings = 0;
        }
        failures.last = now;
        let free = if crowded { 1 } else { settings.failures_per_minute };
        if failures.window.add(now) > free || failures.doublings > 0 {
            let wait = Duration::from_secs(1 << failures.doublings);
            failures.doublings = (failures.doublings + 1).min(MOST_DOUBLINGS);
            failures.blocked_until = Some(now + wait);
        }
    }

    /// A credential from there opened something.
    pub fn passed(&self, address: IpAddr, shown: &[u8; 32], now: Instant) {
        let mut table = self.lock();
        let place = (network(address), *shown);
        // Most requests end here: with one look and at most one write an hour.
        if table.good.get(&place).is_some_and(|seen| now.saturating_duration_since(*seen) < GOOD_FOR / 2) {
            return;
        }
        make_room(&mut table.good, self.most, |seen| *seen);
        table.good.insert(place, now);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the table is full, the half goes that was touched longest ago.
fn make_room<K: Eq + Hash, V>(table: &mut HashMap<K, V>, most: usize, touched: impl Fn(&V) -> Instant) {
    if table.len() < most {
        return;
    }
    let mut times: Vec<Instant> = table.values().map(&touched).collect();
    times.sort_unstable();
    let middle = times[times.len() / 2];
    table.retain(|_, value| touched(value) > middle);
}

/// What counts as one address: of IPv6 the first 64 bits, which is what one customer has.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const SHOWN: [u8; 32] = [1; 32];

    fn settings(failures: u32, overall: u32) -> ThrottleSettings {
        ThrottleSettings { failures_per_minute: failures, overall_failures_per_minute: overall }
    }

    /// Guesses as fast as may be for so many seconds; how many were looked at.
    fn guess(
        throttle: &Throttle,
        address: IpAddr,
        settings: &ThrottleSettings,
        from: Instant,
        seconds: u64,
    ) -> u32 {
        let mut looked_at = 0;
        for tick in 0..seconds * 10 {
            let now = from + Duration::from_millis(tick * 100);
            if throttle.may_try(address, &SHOWN, now).is_ok() {
                throttle.failed(address, settings, now);
                looked_at += 1;
            }
        }
        looked_at
    }

    #[test]
    fn guessing_gets_slower_and_slower() {
        let start = Instant::now();
        let throttle = Throttle::new(start);
        let settings = settings(20, 1_000);
        // 20 are free, then one after each wait of 1, 2, 4, 8, 16, 32, 64, 64, … seconds.
        let first = guess(&throttle, HERE, &settings, start, 600);
        assert!((25..40).contains(&first), "{first} of 6000");
        let later = guess(&throttle, HERE, &settings, start + Duration::from_secs(600), 600);
        assert!(later <= 11, "{later} of 6000");
        assert!(throttle.may_try(HERE, &SHOWN, start + Duration::from_secs(1_199)).is_err());
        assert!(throttle.may_try(THERE, &SHOWN, start + Duration::from_secs(1_199)).is_ok());
        assert!(throttle.may_try(HERE, &SHOWN, start + Duration::from_secs(1_300)).is_ok());
    }

    #[test]
    fn who_was_good_here_goes_on_beside_who_guesses() {
        let start = Instant::now();
        let throttle = Throttle::new(start);
        throttle.passed(HERE, &[2; 32], start);
        guess(&throttle, HERE, &settings(3, 1_000), start, 2);
        let now = start + Duration::from_secs(2);
        assert!(throttle.may_try(HERE, &SHOWN, now).is_err());
        assert!(throttle.may_try(HERE, &[2; 32], now).is_ok());
    }

    #[test]
    fn many_addresses_together_get_one_guess_each() {
        let start = Instant::now();
        let throttle = Throttle::new(start);
        let settings = settings(20, 50);
        for last in 0..100 {
            throttle.failed(IpAddr::from([198, 51, 100, last]), &settings, start);
        }
        let guesser = IpAddr::from([198, 51, 100, 99]);
        assert!(throttle.may_try(guesser, &SHOWN, start).is_ok(), "the first is free");
        throttle.failed(guesser, &settings, start);
        assert_eq!(throttle.may_try(guesser, &SHOWN, start), Err(1));
        assert!(throttle.may_try(HERE, &SHOWN, start).is_ok(), "who showed nothing wrong never waits");
    }

    #[test]
    fn the_table_is_bounded_and_a_network_is_one_address() {
        let start = Instant::now();
        let throttle = Throttle::of_size(100, start);
        for number in 0..1_000u32 {
            let address = IpAddr::from(number.to_be_bytes());
            let now = start + Duration::from_millis(u64::from(number));
            throttle.failed(address, &settings(20, 1_000_000), now);
            throttle.passed(address, &SHOWN, now);
        }
        let table = throttle.lock();
        assert!(table.addresses.len() <= 100 && table.good.len() <= 100);
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(
            same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9") && !same("2001:db8:1:2::1", "2001:db8:1:3::1")
        );
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
    }
}
