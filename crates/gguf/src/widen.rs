//! Blocks of other types as Q8_0: for those that nothing computes with as they are.

use crate::dequantise::dequantise;
use crate::element::ElementType;
use crate::quantise::quantise;

/// Numbers that are widened at a time: a whole number of blocks of every type.
const PART: usize = 256;

/// Appends `stored` blocks of a quantised type to `out` as blocks of Q8_0. Q8_0, Q5_0 and Q4_0 keep their numbers, since their
/// codes are whole numbers times the same scale; of the others each number moves by at most half a step of its new block.
///
/// # Panics
/// When `stored` is no whole number of blocks, or of 32 numbers.
pub fn widen(element: ElementType, stored: &[u8], out: &mut Vec<u8>) {
    assert!(stored.len().is_multiple_of(element.block_bytes()), "whole blocks of {}", element.name());
    match element {
        ElementType::Q8_0 => out.extend_from_slice(stored),
        ElementType::Q4_0 => {
            codes::<18>(stored, |block, j| (block[2 + j % 16] >> (j / 16 * 4) & 15) as i8 - 8, out)
        }
        ElementType::Q5_0 => codes::<22>(
            stored,
            |block, j| {
                let fifth = block[2 + j / 8] >> (j % 8) & 1;
                (block[6 + j % 16] >> (j / 16 * 4) & 15 | fifth << 4) as i8 - 16
            },
            out,
        ),
        _ => {
            let mut numbers = [0.0f32; PART];
            let bytes = PART / element.block_elements() * element.block_bytes();
            for part in stored.chunks(bytes) {
                let count = part.len() / element.block_bytes() * element.block_elements();
                dequantise(element, part, &mut numbers[..count]);
                quantise(ElementType::Q8_0, &numbers[..count], out);
            }
        }
    }
}

/// Blocks that begin with their scale.
fn codes<const BYTES: usize>(stored: &[u8], code: impl Fn(&[u8; BYTES], usize) -> i8, out: &mut Vec<u8>) {
    for block in stored.as_chunks::<BYTES>().0 {
        out.extend_from_slice(&block[..2]);
        out.extend((0..32).map(|j| code(block, j) as u8));
    }
}
