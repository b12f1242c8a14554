//! What every stage receives: storage, cancellation, progress, threads, rank, clock, meters. Nothing in a stage asks the
//! environment for any of these.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::meters::Meters;
use crate::storage::Storage;

/// What a stage may use of the world around it.
#[derive(Clone)]
pub struct Context {
    pub storage: Storage,
    pub cancellation: Cancellation,
    pub progress: Arc<dyn Progress>,
    /// Threads to compute with; never changes a byte of what is made.
    pub threads: usize,
    pub rank: Rank,
    pub clock: Clock,
    /// Energy and memory, from the stage's beginning.
    pub meters: Meters,
}

impl Context {
    /// A context for tests: real storage, no progress, rank 0 of 1, a clock that stands still.
    pub fn quiet(threads: usize) -> Context {
        Context {
            storage: Storage::disk(),
            cancellation: Cancellation::default(),
            progress: Arc::new(Silent),
            threads,
            rank: Rank::default(),
            clock: Clock::fixed(0),
            meters: Meters::none(),
        }
    }
}

/// Where a stage writes: see the artefact contract in `ARCHITECTURE.md`.
#[derive(Clone, Debug)]
pub struct StageOutput {
    /// Empty at the start; becomes the artefact. Deterministic bytes only, except below `circumstances/`.
    pub payload: PathBuf,
    /// Survives a crash, for checkpoints; deleted when the artefact stands.
    pub scratch: PathBuf,
}

/// A flag that Ctrl-C and SIGTERM raise and long loops look at.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

/// The run was asked to stop; what was unfinished is left resumable.
#[derive(Debug, thiserror::Error)]
#[error("stopped on request; run the same command again to go on from here")]
pub struct Cancelled;

impl Cancellation {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// `Err` once the run was asked to stop.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }

    /// The flag itself, for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

/// Which of several cooperating processes this one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    pub rank: usize,
    pub world: usize,
    /// How long another process may give no sign of life before its work is done by this one.
    pub patience: Duration,
}

impl Rank {
    /// Long enough for a file system on a network to show what another machine wrote.
    pub const PATIENCE: Duration = Duration::from_secs(60);

    /// Whether there are other processes.
    pub fn is_one_of_many(&self) -> bool {
        self.world > 1
    }
}

impl Default for Rank {
    fn default() -> Self {
        Rank { rank: 0, world: 1, patience: Rank::PATIENCE }
    }
}

/// How a stage tells a person how far it is. One task at a time.
pub trait Progress: Send + Sync {
    /// A task begins; `total` units are expected where that is known; `unit` is plural, such as `documents`.
    fn begin(&self, task: &str, total: Option<u64>, unit: &str);
    /// That many more units are done.
    fn advance(&self, units: u64);
    /// That many units were done by an earlier run, from which this one goes on: they say nothing about the rate.
    fn already(&self, units: u64) {
        self.advance(units);
    }
    /// A short live status beside the bar, such as `loss 2.31`.
    fn note(&self, text: &str);
    /// Something that a person should read, and that stays on the screen.
    fn warn(&self, text: &str);
    /// Something that went as it should and is worth knowing; it stays on the screen.
    fn say(&self, text: &str) {
        let _ = text;
    }
    /// The task is over.
    fn end(&self);
}

/// Progress that nobody sees.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: Option<u64>, _: &str) {}
    fn advance(&self, _: u64) {}
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn end(&self) {}
}

/// The time of day, passed in so that tests can hold it still.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    pub fn system() -> Clock {
        Clock(Arc::new(SystemTime::now))
    }

    /// A clock that always shows `seconds` since 1970.
    pub fn fixed(seconds: u64) -> Clock {
        Clock(Arc::new(move || UNIX_EPOCH + Duration::from_secs(seconds)))
    }

    /// A clock of one's own.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// The time as RFC 3339 in UTC, to the second: `2026-11-20T23:39:00Z`.
    pub fn timestamp(&self) -> String {
        let seconds = self.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        timestamp(seconds)
    }
}

/// Seconds since 1970 as RFC 3339 in UTC. Days to civil date after Howard Hinnant's `civil_from_days`.
pub fn timestamp(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_civil_dates() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00Z");
        assert_eq!(timestamp(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(timestamp(1_795_217_940), "2026-11-20T23:39:00Z");
    }
}
