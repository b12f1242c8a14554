//! A histogram of times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts of times below fixed bounds, and their sum.
pub struct Histogram {
    /// In seconds, ascending.
    bounds: &'static [f64],
    /// By bound, and a last one for what is beyond; not cumulative.
    counts: Vec<AtomicU64>,
    sum_microseconds: AtomicU64,
}

impl Histogram {
    pub fn new(bounds: &'static [f64]) -> Histogram {
        let counts = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Histogram { bounds, counts, sum_microseconds: AtomicU64::new(0) }
    }

    /// Counts a time `times` over.
    pub fn observe(&self, time: Duration, times: u64) {
        let seconds = time.as_secs_f64();
        let place = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        self.counts[place].fetch_add(times, Ordering::Relaxed);
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).saturating_mul(times);
        self.sum_microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// Bounds with how many times were at most so long; the last bound is infinite.
    pub fn cumulative(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut sum = 0;
        bounds
            .zip(&self.counts)
            .map(|(bound, count)| {
                sum += count.load(Ordering::Relaxed);
                (bound, sum)
            })
            .collect()
    }

    pub fn sum_seconds(&self) -> f64 {
        self.sum_microseconds.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_below_its_bounds() {
        let histogram = Histogram::new(&[0.1, 1.0]);
        for milliseconds in [50, 100, 500, 5_000] {
            histogram.observe(Duration::from_millis(milliseconds), 2);
        }
        assert_eq!(histogram.cumulative(), [(0.1, 4), (1.0, 6), (f64::INFINITY, 8)]);
        assert!((histogram.sum_seconds() - 11.3).abs() < 1e-9);
    }
}
