//! What a run remembers beside the state: in the checkpoint, so that a resumed run ends with the bytes of one that was not
//! interrupted.
//!
//! Numbers are kept by their bits: a detour over decimal digits could change the last one.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// A number that comes back bit for bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Exact(pub f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.to_bits())
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Exact, D::Error> {
        Ok(Exact(f64::from_bits(u64::deserialize(deserializer)?)))
    }
}

/// The run so far, beside the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// Gradient norms of the last steps that were applied, oldest first.
    pub norms: Vec<Exact>,
    /// Steps that were left out as outliers, counted from 1.
    pub skipped: Vec<u64>,
    /// What the held-out text needed.
    pub heldout: Vec<HeldOutPoint>,
}

/// Held-out text at one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HeldOutPoint {
    /// Steps done.
    pub step: u64,
    /// Of each language.
    pub bits_per_byte: BTreeMap<String, Exact>,
}

impl Journal {
    /// As a checkpoint carries it.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain fields")
    }

    /// From a checkpoint; its digest vouches for the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Journal> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_comes_back() {
        let number = |bits: u64| Exact(f64::from_bits(0x3ff0_0000_0000_0000 | bits >> 12));
        let norms: Vec<Exact> = (0..1000).map(|i| number(compute::random::mix(i))).collect();
        let bits_per_byte = BTreeMap::from([("mt".to_string(), Exact(0.1 + 0.2))]);
        let heldout = vec![HeldOutPoint { step: 3, bits_per_byte }];
        let journal = Journal { norms, skipped: vec![7], heldout };
        assert_eq!(Journal::from_bytes(&journal.to_bytes()), Some(journal));
        assert_eq!(Journal::from_bytes(b""), None);
    }
}
