//! Steps that are better left out: a gradient far longer than those before it is more likely a fault in the data than
//! something to learn from.
//!
//! OLMo 2 (arXiv 2501.00656) and others leave such steps out. The measure is the median of the last applied norms, which a
//! few outliers do not move.

use crate::journal::Exact;

/// Norms that are remembered.
const WINDOW: usize = 128;
/// Before there are so many, nothing is an outlier.
const LEAST: usize = 16;
/// After so many in a row it is not the data: the run ends.
pub(crate) const MOST_IN_A_ROW: usize = 16;

/// The largest norm that is applied; None where all are.
pub(crate) fn largest_norm(factor: f64, norms: &[Exact]) -> Option<f64> {
    if factor == 0.0 || norms.len() < LEAST {
        return None;
    }
    let mut sorted: Vec<f64> = norms.iter().map(|norm| norm.0).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median =
        if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
    Some(factor * median)
}

/// Remembers the norm of a step that was applied.
pub(crate) fn remember(norms: &mut Vec<Exact>, norm: f64) {
    if norms.len() == WINDOW {
        norms.remove(0);
    }
    norms.push(Exact(norm));
}

/// How many steps in a row, up to the last, are among those that were left out.
pub(crate) fn in_a_row(skipped: &[u64]) -> usize {
    let last = skipped.last().copied().unwrap_or(0);
    skipped.iter().rev().zip(0..).take_while(|(step, back)| **step + back == last).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_the_median_of_the_last_norms() {
        let mut norms = Vec::new();
        for index in 0..LEAST {
            assert_eq!(largest_norm(4.0, &norms), None);
            remember(&mut norms, if index == 3 { 1e9 } else { 1.0 });
        }
        assert_eq!(largest_norm(4.0, &norms), Some(4.0));
        assert_eq!(largest_norm(0.0, &norms), None);
        for index in 0..1000 {
            remember(&mut norms, 2.0 + f64::from(index % 2));
        }
        assert_eq!((norms.len(), largest_norm(2.0, &norms)), (WINDOW, Some(5.0)));
    }

    #[test]
    fn only_those_in_a_row_count() {
        assert_eq!(in_a_row(&[]), 0);
        assert_eq!(in_a_row(&[5]), 1);
        assert_eq!(in_a_row(&[1, 2, 5, 6, 7]), 3);
    }
}
