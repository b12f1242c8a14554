//! How much work and memory one run of a template may cost.
//!
//! The template engine counts instructions, but a single one can double a text or walk through a list that holds itself a
//! thousand times over. So everything that a template makes or looks through is counted here too: bytes of texts made,
//! and places looked at.

use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Instructions of one run; real templates need a few hundred for each message.
pub(super) const INSTRUCTIONS: u64 = 10_000_000;
/// Longest source of a template, in bytes; the longest published ones have about 50,000.
pub(super) const LONGEST_SOURCE: usize = 256 << 10;
/// Deepest nesting of a value, such as the arguments of a tool.
pub(super) const DEEPEST_VALUE: usize = 100;
/// Bytes of text that a run may make, whatever it was given, and for each byte that it was given. Joining the pieces of a
/// message copies it a few times.
const BYTES_MADE: u64 = 32 << 20;
const BYTES_MADE_FOR_EACH: u64 = 64;
/// The largest share of that for one text: 8 MiB, or more where more was given.
const SHARE_OF_ONE: u64 = 4;
/// Values and 64-byte pieces of text that a run may look at, and one more for each byte that it was given.
const LOOKS: u64 = 2_000_000;

/// What is left of one run's allowance.
pub(super) struct Budget {
    longest: u64,
    bytes: AtomicU64,
    looks: AtomicU64,
}

impl Budget {
    /// For a conversation of `given` bytes.
    pub fn new(given: usize) -> Budget {
        let bytes = BYTES_MADE + BYTES_MADE_FOR_EACH * given as u64;
        let longest = bytes / SHARE_OF_ONE;
        Budget { longest, bytes: AtomicU64::new(bytes), looks: AtomicU64::new(LOOKS + given as u64) }
    }

    /// A text or list of `bytes` bytes is about to be made.
    pub fn make(&self, bytes: usize) -> Result<(), Error> {
        let problem = "the template makes too much text";
        if bytes as u64 > self.longest {
            return Err(refused(problem));
        }
        spend(&self.bytes, bytes as u64, problem)
    }

    /// `count` values are about to be looked at.
    pub fn look(&self, count: usize) -> Result<(), Error> {
        spend(&self.looks, count as u64, "the template does too much")
    }

    /// A text is about to be read, or a list without what stands in its elements.
    pub fn look_at(&self, value: &Value) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.look(1 + text.len() / 64),
            None => self.look(1 + value.len().unwrap_or(0)),
        }
    }

    /// All of a value is about to be read. Refuses what is nested too deep, so that nothing that follows it down runs out
    /// of stack.
    pub fn look_through(&self, value: &Value) -> Result<(), Error> {
        self.descend(value, DEEPEST_VALUE)
    }

    fn descend(&self, value: &Value, depth: usize) -> Result<(), Error> {
        self.look_at(value)?;
        let kind = value.kind();
        if !matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
            return Ok(());
        }
        if depth == 0 {
            return Err(refused("a value is nested too deep"));
        }
        for item in value.try_iter()?.checked() {
            let item = item?;
            if kind == ValueKind::Map {
                self.descend(&value.get_item(&item)?, depth - 1)?;
            }
            self.descend(&item, depth - 1)?;
        }
        Ok(())
    }
}

fn spend(left: &AtomicU64, cost: u64, problem: &'static str) -> Result<(), Error> {
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(cost));
    taken.map(|_| ()).map_err(|_| refused(problem))
}

/// An error that ends the run with this reason.
pub(super) fn refused(problem: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem.into())
}
