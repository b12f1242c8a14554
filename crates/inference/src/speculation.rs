//! Guessing ahead from the text itself (prompt lookup, Saxena 2023): where the last few tokens stood before, what
//! followed them then is proposed to follow again.
//!
//! Proposals are computed together with the last token, as further rows of one forward pass. Each row then goes through
//! the sampler in turn, exactly as without proposals, and the next row counts only if the token that was sampled is the
//! one that was proposed. The draw is a pure function of the seed and the number of the token, so the tokens are the same
//! to the last one, whatever was proposed.

/// Tokens that must agree before anything is proposed: a single one is nearly always chance.
const LEAST_AGREEMENT: usize = 2;
/// Further agreement tells two places apart no better.
const MOST_AGREEMENT: usize = 8;
/// How far back one looks, in tokens: what the search costs is bounded.
const LOOK_BACK: usize = 16_384;

/// How far ahead one request guesses: farther after proposals that held, less far after those that did not.
#[derive(Clone, Debug)]
pub struct Speculation {
    most: usize,
    next: usize,
}

impl Speculation {
    /// `most` tokens at once; 0 proposes nothing.
    pub fn new(most: usize) -> Speculation {
        Speculation { most, next: most.min(4) }
    }

    /// Up to `room` tokens that may follow `tokens`.
    pub fn propose<'a>(&self, tokens: &'a [u32], room: usize) -> &'a [u32] {
        let most = self.next.min(room);
        if most == 0 { &[] } else { continuation(tokens, most) }
    }

    /// `accepted` of `proposed` tokens held.
    pub fn learn(&mut self, proposed: usize, accepted: usize) {
        if proposed == 0 {
            return;
        }
        self.next = if accepted == proposed { (self.next * 2).min(self.most) } else { accepted.max(1) };
    }
}

/// What followed where the end of `tokens` stood before: the longest agreement, the latest of equals.
fn continuation(tokens: &[u32], most: usize) -> &[u32] {
    let Some((&last, before)) = tokens.split_last() else { return &[] };
    let first = before.len().saturating_sub(LOOK_BACK);
    let (mut best, mut agreement) = (None, LEAST_AGREEMENT - 1);
    for end in (first..before.len()).rev().filter(|&end| before[end] == last) {
        let backwards = before[first..end].iter().rev().zip(before.iter().rev());
        let length = 1 + backwards.take(MOST_AGREEMENT - 1).take_while(|(a, b)| a == b).count();
        if length > agreement {
            (best, agreement) = (Some(end), length);
            if length == MOST_AGREEMENT {
                break;
            }
        }
    }
    match best {
        Some(end) => &tokens[end + 1..(end + 1 + most).min(tokens.len())],
        None => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_agreement_continues() {
        let check = |tokens: &[u32], expected: &[u32]| assert_eq!(continuation(tokens, 3), expected);
        check(&[1, 2, 3, 4, 5, 1, 2], &[3, 4, 5]);
        check(&[1, 2, 3, 9, 2, 7, 1, 2], &[3, 9, 2]);
        check(&[1, 2, 3, 1, 2, 4, 1, 2], &[4, 1, 2]);
        check(&[7, 1, 2, 3, 1, 2, 4, 7, 1, 2], &[3, 1, 2]);
        check(&[5, 2, 3, 2], &[]);
        check(&[6, 6, 6], &[6]);
        check(&[1], &[]);
        check(&[], &[]);
    }

    #[test]
    fn it_guesses_farther_while_it_is_right() {
        let tokens: Vec<u32> = (0..64).map(|token| token % 20).collect();
        let mut speculation = Speculation::new(12);
        assert_eq!(speculation.propose(&tokens, 99).len(), 4);
        speculation.learn(4, 4);
        speculation.learn(8, 8);
        assert_eq!(speculation.propose(&tokens, 99).len(), 12);
        assert_eq!(speculation.propose(&tokens, 5).len(), 5);
        speculation.learn(12, 0);
        assert_eq!(speculation.propose(&tokens, 99).len(), 1);
        assert_eq!(Speculation::new(0).propose(&tokens, 99).len(), 0);
    }
}
