//! Which documents of a language are kept out of training: those with the lowest keyed digests, until there are enough.
//!
//! The choice follows from content and seed alone, so a document stays on its side when the corpus grows, files move or
//! threads change.

use provenance::Digest;
use provenance::digest::keyed_digest;

/// A kept document, as the split needs it.
pub struct Candidate {
    /// Digest of the document's words.
    pub digest: Digest,
    pub text_bytes: u64,
}

/// For each candidate whether it is held out; `None` where the language has too little for both parts (at least one
/// document has to remain for training).
pub fn split(candidates: &[Candidate], documents: usize, bytes: u64, seed: u64) -> Option<Vec<bool>> {
    let mut order: Vec<(Digest, usize)> = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| (keyed_digest(&seed.to_le_bytes(), &candidate.digest.0), index))
        .collect();
    order.sort();
    let mut held_out = vec![false; candidates.len()];
    let (mut held_documents, mut held_bytes) = (0, 0);
    for (_, index) in order {
        if held_documents >= documents && held_bytes >= bytes {
            return Some(held_out);
        }
        held_out[index] = true;
        held_documents += 1;
        held_bytes += candidates[index].text_bytes;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use provenance::digest::sha256;

    fn candidates(sizes: &[u64]) -> Vec<Candidate> {
        let digest = |n: usize| sha256(&n.to_le_bytes());
        sizes.iter().enumerate().map(|(n, &text_bytes)| Candidate { digest: digest(n), text_bytes }).collect()
    }

    #[test]
    fn enough_documents_and_enough_bytes() {
        let check = |sizes: &[u64], expected: Option<usize>| {
            let held =
                split(&candidates(sizes), 2, 1000, 7).map(|held| held.iter().filter(|held| **held).count());
            assert_eq!(held, expected, "{sizes:?}");
        };
        check(&[900; 10], Some(2));
        check(&[300; 10], Some(4));
        check(&[5000; 3], Some(2));
        check(&[5000; 2], None);
        check(&[100; 10], None);
        check(&[], None);
    }

    #[test]
    fn a_document_keeps_its_side_when_others_leave() {
        let all = candidates(&[900; 50]);
        let before = split(&all, 2, 1000, 7).unwrap();
        let held: Vec<Digest> =
            all.iter().zip(&before).filter(|(_, held)| **held).map(|(c, _)| c.digest).collect();
        let fewer: Vec<Candidate> =
            all.into_iter().rev().filter(|c| held.contains(&c.digest) || c.digest.0[0] % 2 == 0).collect();
        let after = split(&fewer, 2, 1000, 7).unwrap();
        assert!(
            fewer.iter().zip(after).all(|(candidate, is_held)| held.contains(&candidate.digest) == is_held)
        );
    }
}
