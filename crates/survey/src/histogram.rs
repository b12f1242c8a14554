//! Counts in bins.

use serde::Serialize;

/// How many values fell between each bound and the next.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// Lower bound of every bin, rising; the last bin has no end.
    pub bounds: Vec<f64>,
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Bins that begin at these bounds; a value below the first counts in the first.
    pub fn new(bounds: impl IntoIterator<Item = f64>) -> Histogram {
        let bounds: Vec<f64> = bounds.into_iter().collect();
        Histogram { counts: vec![0; bounds.len()], bounds }
    }

    /// Lengths in characters: 1, 2 and 5 times the powers of ten, to a million.
    pub fn of_lengths() -> Histogram {
        let decades = [10.0, 100.0, 1e3, 1e4, 1e5];
        let within = decades.into_iter().flat_map(|decade| [decade, 2.0 * decade, 5.0 * decade]);
        Histogram::new([0.0].into_iter().chain(within).chain([1e6]))
    }

    /// Scores from 0 to 1 in twentieths.
    pub fn of_scores() -> Histogram {
        Histogram::new((0..20).map(|bin| f64::from(bin) / 20.0))
    }

    pub fn add(&mut self, value: f64) {
        let bin = self.bounds.partition_point(|bound| *bound <= value).saturating_sub(1);
        self.counts[bin] += 1;
    }

    /// Adds the counts of a histogram with the same bounds.
    pub fn merge(&mut self, other: &Histogram) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
    }

    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_bin_that_begins_at_or_below_it() {
        let mut histogram = Histogram::new([0.0, 1.0, 10.0]);
        for value in [-1.0, 0.0, 0.99, 1.0, 9.9, 10.0, 1e9] {
            histogram.add(value);
        }
        assert_eq!(histogram.counts, [3, 2, 2]);
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!((twice.counts.as_slice(), twice.total()), (&[6, 4, 4][..], 14));
        assert_eq!(Histogram::of_lengths().bounds[..5], [0.0, 10.0, 20.0, 50.0, 100.0]);
    }
}
