//! GGUF's blocks into our panels, bit by bit: the same codes and scales in another order (`ggml-common.h` of llama.cpp).

use super::{Bits, GROUP};
use crate::path::vectorised;
use crate::product::PANEL_COLUMNS;

/// Groups of one of GGUF's blocks of 256.
const NESTED_GROUPS: usize = 8;

vectorised! {
    /// Up to 64 rows of `row_bytes` into a panel.
    pub fn repack(bits: Bits, stored: &[u8], row_bytes: usize, panel: &mut [u8]) {
        let groups = row_bytes / bits.stored_block_bytes() * (bits.block_inputs() / GROUP);
        for group in 0..groups {
            match bits {
                Bits::Eight => eight(group, stored, row_bytes, panel),
                Bits::Four => four::<18, 2>(bits, group, stored, row_bytes, panel),
                Bits::FourAndMinimum => four::<20, 4>(bits, group, stored, row_bytes, panel),
                Bits::FourNested => nested(group, stored, row_bytes, panel),
            }
        }
    }
}

/// A group's block of each row.
#[inline(always)]
fn blocks<const BYTES: usize>(
    stored: &[u8],
    row_bytes: usize,
    block: usize,
) -> impl Iterator<Item = (usize, &[u8; BYTES])> {
    stored
        .chunks_exact(row_bytes)
        .enumerate()
        .map(move |(row, stored)| (row, &stored.as_chunks::<BYTES>().0[block]))
}

/// Words of four codes: the place of word `word` of a column.
#[inline(always)]
fn put(codes: &mut [[u8; 4]], word: usize, column: usize, bytes: [u8; 4]) {
    codes[word * PANEL_COLUMNS + column] = bytes;
}

/// Two bytes for each output.
#[inline(always)]
fn put_half(halves: &mut [u8], column: usize, bytes: &[u8]) {
    halves[2 * column..2 * column + 2].copy_from_slice(bytes);
}

#[inline(always)]
fn eight(group: usize, stored: &[u8], row_bytes: usize, panel: &mut [u8]) {
    let target = Bits::Eight.group_mut(panel, group);
    let codes = target.codes.as_chunks_mut::<4>().0;
    for (column, block) in blocks::<34>(stored, row_bytes, group) {
        put_half(target.head, column, &block[..2]);
        for (word, bytes) in block[2..].as_chunks::<4>().0.iter().enumerate() {
            // A signed byte with its sign turned is the byte plus 128.
            let bytes = u32::from_le_bytes(*bytes) ^ 0x8080_8080;
            put(codes, word, column, bytes.to_le_bytes());
        }
    }
}

/// A block has its scale, and perhaps its minimum, in the first `HEAD` bytes.
#[inline(always)]
fn four<const BYTES: usize, const HEAD: usize>(
    bits: Bits,
    group: usize,
    stored: &[u8],
    row_bytes: usize,
    panel: &mut [u8],
) {
    let target = bits.group_mut(panel, group);
    let codes = target.codes.as_chunks_mut::<4>().0;
    for (column, block) in blocks::<BYTES>(stored, row_bytes, group) {
        for (half, bytes) in block[..HEAD].as_chunks::<2>().0.iter().enumerate() {
            put_half(target.head, half * PANEL_COLUMNS + column, bytes);
        }
        for (word, bytes) in block[HEAD..].as_chunks::<4>().0.iter().enumerate() {
            put(codes, word, column, *bytes);
        }
    }
}

#[inline(always)]
fn nested(group: usize, stored: &[u8], row_bytes: usize, panel: &mut [u8]) {
    let target = Bits::FourNested.group_mut(panel, group);
    let codes = target.codes.as_chunks_mut::<4>().0;
    let (block, inside) = (group / NESTED_GROUPS, group % NESTED_GROUPS);
    for (column, block) in blocks::<144>(stored, row_bytes, block) {
        if inside == 0 {
            put_half(target.block, column, &block[..2]);
            put_half(target.block, PANEL_COLUMNS + column, &block[2..4]);
        }
        let (s, m) = scale_and_minimum(&block[4..16], inside);
        target.head[column] = s;
        target.head[PANEL_COLUMNS + column] = m;
        // Two groups share 32 bytes: one has the lower halves, the other the upper ones.
        let shift = inside % 2 * 4;
        let words = block[16 + inside / 2 * 32..][..32].as_chunks::<4>().0;
        for word in 0..4 {
            let half = |word: usize| u32::from_le_bytes(words[word]) >> shift & 0x0f0f_0f0f;
            put(codes, word, column, (half(word) | half(word + 4) << 4).to_le_bytes());
        }
    }
}

/// Six-bit scale and minimum of one of eight groups, packed into twelve bytes.
#[inline(always)]
fn scale_and_minimum(packed: &[u8], group: usize) -> (u8, u8) {
    match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => (
            packed[group + 4] & 15 | packed[group - 4] >> 6 << 4,
            packed[group + 4] >> 4 | packed[group] >> 6 << 4,
        ),
    }
}
