//! Goldfish loss (Hans et al., arXiv 2406.10209): about every k-th token is never learned from, so that a passage that comes
//! back cannot be recited word for word.
//!
//! Which tokens these are follows from the tokens before them and from nothing else. A passage has therefore the same holes
//! wherever and however often it comes, in this run and in any other.

use compute::random;

/// Which targets are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goldfish {
    /// Every k-th; 0 leaves none out.
    pub k: u64,
    /// Tokens before the target that decide.
    pub context: usize,
}

impl Goldfish {
    /// Whether the token that follows `before` (all of its document so far) is left out. The first tokens of a document,
    /// which have less before them than decides, are always learned from.
    pub fn leaves_out(self, before: &[u32]) -> bool {
        if self.k == 0 || before.len() < self.context {
            return false;
        }
        let deciding = &before[before.len() - self.context..];
        let hash = deciding.iter().fold(0x676f_6c64, |state, &token| random::bits(state, u64::from(token)));
        random::below(hash, 0, self.k) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_every_kth_and_the_same_wherever_the_passage_stands() {
        let text: Vec<u32> = (0..20_000).map(|i| random::below(3, i, 500) as u32).collect();
        for k in [2, 4, 50] {
            let goldfish = Goldfish { k, context: 13 };
            let holes: Vec<bool> = (0..text.len()).map(|end| goldfish.leaves_out(&text[..end])).collect();
            assert!(holes[..13].iter().all(|hole| !hole));
            let share = holes.iter().filter(|hole| **hole).count() as f64 * k as f64 / text.len() as f64;
            assert!((share - 1.0).abs() < 0.15, "1 of {k}: {share}");
            for (end, hole) in holes.iter().enumerate().skip(700) {
                assert_eq!(goldfish.leaves_out(&text[600..end]), *hole, "the same passage elsewhere");
            }
        }
        let off = Goldfish { k: 0, context: 13 };
        assert!((0..2000).all(|end| !off.leaves_out(&text[..end])));
    }
}
