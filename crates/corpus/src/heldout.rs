//! Which documents of a language are kept out of training: those with the lowest keyed digests, until there are enough.
//!
//! The choice follows from content and seed alone, so a document stays on its side when the corpus grows, files move or
//! threads change.

use std::collections::BinaryHeap;

use provenance::Digest;
use provenance::digest::keyed_digest;

/// The held-out documents of one language, as documents are shown to it one after the other.
pub struct Selection {
    documents: usize,
    bytes: u64,
    /// The lowest digests so far; the highest of them is on top.
    chosen: BinaryHeap<(Digest, u64, u32)>,
    chosen_bytes: u64,
    shown: u64,
    pub shown_bytes: u64,
}

impl Selection {
    /// Looks for at least `documents` documents and `bytes` bytes.
    pub fn new(documents: usize, bytes: u64) -> Selection {
        let chosen = BinaryHeap::new();
        Selection { documents, bytes, chosen, chosen_bytes: 0, shown: 0, shown_bytes: 0 }
    }

    /// What decides about a document: its words and the seed, never its place.
    pub fn digest(seed: u64, digest_of_words: &[u8; 32]) -> Digest {
        keyed_digest(&seed.to_le_bytes(), digest_of_words)
    }

    pub fn show(&mut self, document: u32, digest: Digest, text_bytes: u64) {
        self.shown += 1;
        self.shown_bytes += text_bytes;
        self.chosen.push((digest, text_bytes, document));
        self.chosen_bytes += text_bytes;
        // What is enough without the highest does without it.
        while let Some(&(_, highest_bytes, _)) = self.chosen.peek() {
            let enough =
                self.chosen.len() > self.documents && self.chosen_bytes - highest_bytes >= self.bytes;
            if !enough {
                break;
            }
            self.chosen.pop();
            self.chosen_bytes -= highest_bytes;
        }
    }

    pub fn shown(&self) -> u64 {
        self.shown
    }

    /// The documents to hold out; `None` where there is too little for both parts (at least one document has to remain
    /// for training).
    pub fn finish(self) -> Option<Vec<u32>> {
        let enough = self.chosen.len() >= self.documents && self.chosen_bytes >= self.bytes;
        let some_remain = (self.chosen.len() as u64) < self.shown;
        (enough && some_remain).then(|| self.chosen.into_iter().map(|(_, _, document)| document).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use provenance::digest::sha256;

    fn split(sizes: &[(u32, u64)]) -> Option<Vec<u32>> {
        let mut selection = Selection::new(2, 1000);
        for &(document, bytes) in sizes {
            selection.show(document, sha256(&document.to_le_bytes()), bytes);
        }
        selection.finish().map(|mut documents| {
            documents.sort_unstable();
            documents
        })
    }

    fn numbered(sizes: &[u64]) -> Vec<(u32, u64)> {
        (0..).zip(sizes.iter().copied()).collect()
    }

    #[test]
    fn enough_documents_and_enough_bytes() {
        let check = |sizes: &[u64], expected: Option<usize>| {
            assert_eq!(split(&numbered(sizes)).map(|held| held.len()), expected, "{sizes:?}");
        };
        check(&[900; 10], Some(2));
        check(&[300; 10], Some(4));
        check(&[5000; 3], Some(2));
        check(&[5000; 2], None);
        check(&[100; 10], None);
        check(&[], None);
    }

    #[test]
    fn a_document_keeps_its_side_in_any_order_and_when_others_leave() {
        let all = numbered(&[900; 50]);
        let before = split(&all).unwrap();
        let mut fewer: Vec<(u32, u64)> =
            all.into_iter().filter(|(document, _)| before.contains(document) || document % 2 == 0).collect();
        fewer.reverse();
        assert_eq!(split(&fewer).unwrap(), before);
    }
}
