//! How often filters found something: for metrics, which know names of filters and nothing of texts.

use std::sync::atomic::{AtomicU64, Ordering};

/// What one filter did since its chain was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// `input` or `output`.
    pub place: &'static str,
    /// The filter's name.
    pub filter: String,
    /// Texts that it looked at.
    pub texts: u64,
    /// Findings: placeholders put, matches flagged.
    pub found: u64,
    /// Texts that it refused.
    pub refused: u64,
}

/// The counter behind a [`Count`].
#[derive(Debug, Default)]
pub(crate) struct Counter {
    texts: AtomicU64,
    found: AtomicU64,
    refused: AtomicU64,
}

impl Counter {
    pub fn text(&self) {
        self.texts.fetch_add(1, Ordering::Relaxed);
    }

    pub fn found(&self, count: u64) {
        if count > 0 {
            self.found.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub fn read(&self, place: &'static str, filter: &str) -> Count {
        Count {
            place,
            filter: filter.to_string(),
            texts: self.texts.load(Ordering::Relaxed),
            found: self.found.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
        }
    }
}
