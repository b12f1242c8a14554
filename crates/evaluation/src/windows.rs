//! Scoring a text that is longer than the model's context: every token once, each with as much context as the stride
//! leaves it.

use std::ops::Range;

/// A stretch of tokens that the model sees at once, and those of it that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Tokens that the model sees.
    pub seen: Range<usize>,
    /// Tokens whose probability counts; never the first that is seen.
    pub scored: Range<usize>,
}

/// Windows over `count` tokens, the first of which only opens the text: tokens `1..count` are scored exactly once, in
/// order.
pub(crate) fn windows(count: usize, context_length: usize, stride: usize) -> impl Iterator<Item = Window> {
    let mut next = 1;
    std::iter::from_fn(move || {
        if next >= count {
            return None;
        }
        let end = if next == 1 { context_length.min(count) } else { (next + stride).min(count) };
        let window = Window { seen: end.saturating_sub(context_length)..end, scored: next..end };
        next = end;
        Some(window)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_scored_once_with_context() {
        for (context_length, stride) in [(2, 1), (8, 1), (8, 4), (8, 7), (5, 2)] {
            for count in 0..40 {
                let mut next = 1;
                for window in windows(count, context_length, stride) {
                    assert_eq!(window.scored.start, next);
                    assert_eq!(window.seen.end, window.scored.end);
                    assert!(window.seen.len() <= context_length);
                    assert!(window.seen.start < window.scored.start);
                    let context = window.scored.start - window.seen.start;
                    assert!(context >= (context_length - stride).min(window.scored.start), "{window:?}");
                    next = window.scored.end;
                }
                assert_eq!(next, count.max(1));
            }
        }
    }
}
