//! Sign-ins that failed, gathered for the audit log: from where, why, and how often.
//!
//! Whoever guesses must not fill the disk: what came from one address for one reason within a second is one line, and in
//! any minute there are no more than so many; what is beyond them is counted, and one line says how much it was. Who shows
//! no credential at all has not tried to sign in.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::identity::network;

/// Lines within a minute that name an address.
const MOST_LINES: usize = 20;
/// Addresses and reasons that wait for their line; further ones are counted only.
const MOST_WAITING: usize = 200;
const MINUTE: Duration = Duration::from_secs(60);

/// What failed since it was last taken.
pub struct RefusedSignIns(Mutex<Table>);

struct Table {
    waiting: BTreeMap<(IpAddr, &'static str), u64>,
    /// Failures that get no line of their own.
    beyond: u64,
    minute_began: Instant,
    lines: usize,
}

/// One line of the audit log.
#[derive(Debug, PartialEq, Eq)]
pub struct RefusedSignIn {
    /// The address (of IPv6 the network) and the reason; `None` for all that are beyond what gets a line of its own.
    pub of: Option<(IpAddr, &'static str)>,
    pub count: u64,
}

impl RefusedSignIns {
    /// None so far.
    pub fn new(now: Instant) -> RefusedSignIns {
        let table = Table { waiting: BTreeMap::new(), beyond: 0, minute_began: now, lines: 0 };
        RefusedSignIns(Mutex::new(table))
    }

    /// A sign-in from there failed; `reason` is the code that the client was told.
    pub fn note(&self, address: IpAddr, reason: &'static str) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (network(address), reason);
        if table.waiting.len() < MOST_WAITING || table.waiting.contains_key(&place) {
            *table.waiting.entry(place).or_default() += 1;
        } else {
            table.beyond += 1;
        }
    }

    /// The lines that are due. With `all` also that of the minute that has not ended, since there will be no later one.
    pub fn take(&self, now: Instant, all: bool) -> Vec<RefusedSignIn> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = Vec::new();
        let has_ended = now.saturating_duration_since(table.minute_began) >= MINUTE;
        if has_ended {
            (table.minute_began, table.lines) = (now, 0);
        }
        for (of, count) in std::mem::take(&mut table.waiting) {
            if table.lines < MOST_LINES {
                table.lines += 1;
                taken.push(RefusedSignIn { of: Some(of), count });
            } else {
                table.beyond += count;
            }
        }
        if (has_ended || all) && table.beyond > 0 {
            taken.push(RefusedSignIn { of: None, count: std::mem::take(&mut table.beyond) });
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(lines: &[RefusedSignIn]) -> u64 {
        lines.iter().map(|line| line.count).sum()
    }

    #[test]
    fn what_is_alike_is_one_line() {
        let start = Instant::now();
        let refused = RefusedSignIns::new(start);
        for address in ["192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "::ffff:192.0.2.1"] {
            refused.note(address.parse().unwrap(), "invalid_api_key");
        }
        refused.note("192.0.2.1".parse().unwrap(), "too_many_failures");
        let taken = refused.take(start, false);
        let counts: Vec<(&str, u64)> = taken.iter().map(|line| (line.of.unwrap().1, line.count)).collect();
        assert_eq!(counts, [("invalid_api_key", 3), ("too_many_failures", 1), ("invalid_api_key", 2)]);
        assert!(refused.take(start, true).is_empty(), "said once");
    }

    #[test]
    fn a_flood_gets_few_lines_and_is_counted_whole() {
        let start = Instant::now();
        let refused = RefusedSignIns::new(start);
        let (mut lines, mut seen) = (Vec::new(), 0);
        for second in 0..600u64 {
            for number in 0..1_000u64 {
                seen += 1;
                let address = IpAddr::from((seen as u32).wrapping_mul(2_654_435_761).to_be_bytes());
                refused.note(address, if number % 2 == 0 { "invalid_api_key" } else { "invalid_token" });
            }
            lines.extend(refused.take(start + Duration::from_secs(second), false));
        }
        lines.extend(refused.take(start + Duration::from_secs(600), true));
        assert_eq!(count(&lines), seen, "none is forgotten");
        assert!((200..=231).contains(&lines.len()), "{} lines in ten minutes", lines.len());
        assert!(lines.iter().filter(|line| line.of.is_none()).count() >= 9);
    }
}
