//! An external sort: (key, document) pairs, sorted within each block when it is written, and read back by ranges of keys.
//!
//! A range of all blocks together fits into memory; each block gives its part of the range (found by bisection in its
//! sorted keys), the parts are sorted together, and documents with the same key stand side by side. Ranges are worked on
//! by all threads and give their results in the order of keys, so nothing depends on the number of threads.

use rayon::prelude::*;

use crate::block::Block;
use crate::error::Error;
use crate::holding::Holding;

/// A key of a document: within a block its number there, over all blocks its number in the holding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub key: u64,
    pub document: u32,
}

/// Entries of one range of keys: 64 MB in memory.
const RANGE_ENTRIES: u64 = 4 << 20;
const KEY_BYTES: usize = 8;
const DOCUMENT_BYTES: usize = 2;
const ENTRY_BYTES: usize = KEY_BYTES + DOCUMENT_BYTES;

/// A sorted run: all keys, then all documents.
pub fn to_bytes(entries: &mut Vec<Entry>) -> Vec<u8> {
    entries.sort_unstable();
    entries.dedup();
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.key.to_le_bytes()));
    entries.iter().for_each(|entry| bytes.extend_from_slice(&(entry.document as u16).to_le_bytes()));
    bytes
}

/// Calls `work` with the sorted entries of one range of keys after the other; its results in the order of the ranges.
pub fn by_ranges<T: Send>(
    holding: &Holding,
    section: &str,
    work: impl Fn(&[Entry]) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let entries: u64 = holding.blocks.iter().map(|block| block.section(section).1 / ENTRY_BYTES as u64).sum();
    let ranges = entries.div_ceil(RANGE_ENTRIES).max(1).next_power_of_two();
    let bounds: Vec<u64> = match ranges {
        1 => Vec::new(),
        _ => (1..ranges).map(|range| range << (64 - ranges.trailing_zeros())).collect(),
    };
    // Where each range begins in each block.
    let places: Vec<Vec<u64>> = holding
        .blocks
        .par_iter()
        .map(|block| {
            let count = block.section(section).1 / ENTRY_BYTES as u64;
            let mut places = vec![0];
            for &bound in &bounds {
                let from = places[places.len() - 1];
                places.push(first_at_least(block, section, bound, from, count)?);
            }
            places.push(count);
            Ok(places)
        })
        .collect::<Result<_, Error>>()?;
    (0..ranges as usize)
        .into_par_iter()
        .map(|range| {
            let mut entries = Vec::new();
            for (number, (block, places)) in holding.blocks.iter().zip(&places).enumerate() {
                let (first, end) = (places[range], places[range + 1]);
                read_entries(block, section, first, end, holding.starts[number], &mut entries)?;
            }
            entries.sort_unstable();
            work(&entries)
        })
        .collect()
}

/// The entries of documents that are not `gone`, of all keys that at least two of them share.
pub fn shared_entries(holding: &Holding, section: &str, gone: &[bool]) -> Result<Vec<Entry>, Error> {
    let ranges = by_ranges(holding, section, |entries| {
        let mut found: Vec<Entry> = Vec::new();
        for group in groups(entries, 2) {
            let before = found.len();
            found.extend(group.iter().filter(|entry| !gone[entry.document as usize]));
            if found.len() < before + 2 {
                found.truncate(before);
            }
        }
        Ok(found)
    })?;
    Ok(ranges.concat())
}

/// The groups of entries with one key, of those that have at least `minimum`.
pub fn groups(entries: &[Entry], minimum: usize) -> impl Iterator<Item = &[Entry]> {
    entries.chunk_by(|left, right| left.key == right.key).filter(move |group| group.len() >= minimum)
}

fn read_entries(
    block: &Block,
    section: &str,
    first: u64,
    end: u64,
    start_document: u32,
    entries: &mut Vec<Entry>,
) -> Result<(), Error> {
    let count = (end - first) as usize;
    if count == 0 {
        return Ok(());
    }
    let all = block.section(section).1 / ENTRY_BYTES as u64;
    let keys = block.read(section, first * KEY_BYTES as u64, count * KEY_BYTES)?;
    let documents_start = all * KEY_BYTES as u64 + first * DOCUMENT_BYTES as u64;
    let documents = block.read(section, documents_start, count * DOCUMENT_BYTES)?;
    let pairs = keys.chunks_exact(KEY_BYTES).zip(documents.chunks_exact(DOCUMENT_BYTES));
    entries.extend(pairs.map(|(key, document)| Entry {
        key: key.iter().rev().fold(0, |key, &byte| key << 8 | u64::from(byte)),
        document: start_document + u32::from(u16::from_le_bytes([document[0], document[1]])),
    }));
    Ok(())
}

/// The first place from `low` on whose key is at least `bound`.
fn first_at_least(block: &Block, section: &str, bound: u64, low: u64, high: u64) -> Result<u64, Error> {
    let (mut low, mut high) = (low, high);
    while low < high {
        let middle = low + (high - low) / 2;
        let key = block.read(section, middle * KEY_BYTES as u64, KEY_BYTES)?;
        let key = key.iter().rev().fold(0, |key, &byte| key << 8 | u64::from(byte));
        if key < bound { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}
