//! Near-duplicate search beside a comparison of all pairs (at full size: the example `near_duplicates`).

use crate::pairs::compare;

#[test]
fn nearly_all_pairs_are_found_and_none_below_the_threshold() {
    let found = compare(1_200, 2);
    assert!(found.pairs > 400 && found.pairs_at_threshold > 50, "{found:?}");
    assert!((found.missed as f64) <= 0.05 * found.pairs as f64, "{found:?}");
    assert!((found.missed_at_threshold as f64) <= 0.05 * found.pairs_at_threshold as f64, "{found:?}");
    assert_eq!(found.merged_below, 0, "{found:?}");
    assert!(found.dropped > 100 && found.lowest_merged >= 0.75, "{found:?}");
}
