//! Where keys and values stand in a block of 64 positions.
//!
//! In f32 as `product` reads them. In bf16 as the matrix unit does, in panels of 32 columns (`bf16`): a head's keys are a matrix
//! of which positions are the columns, its values one of which positions are the inputs. Codes of 8 bits stand in the same
//! order. A head is filled up to whole steps of 32 with zeros.

use super::BLOCK_POSITIONS;
use crate::attention::AttentionShape;
use crate::bf16::{COLUMNS, DEPTH, STEP_NUMBERS, place};
use crate::float16::bf16_bits;
use crate::path::vectorised;

/// Steps of 32 positions in a block, which are also panels of 32.
pub(super) const BLOCK_STEPS: usize = BLOCK_POSITIONS / DEPTH;
/// Bytes of a head's scales, of keys or of values.
const SCALE_BYTES: usize = BLOCK_POSITIONS * 4;

/// Floats of one block of one layer: keys [kv_heads, head_dim, 64], then values [kv_heads, 64, head_dim].
pub fn block_floats(shape: AttentionShape) -> usize {
    2 * shape.key_width() * BLOCK_POSITIONS
}

/// Numbers in bf16 of one block of one layer: keys of each head, then values of each head.
pub fn block_numbers(shape: AttentionShape) -> usize {
    2 * shape.kv_heads * head_numbers(shape)
}

/// Bytes of one block of one layer in codes of 8 bits: for each head the scales of its keys and of its values, then the codes.
pub fn code_block_bytes(shape: AttentionShape) -> usize {
    2 * shape.kv_heads * SCALE_BYTES + block_numbers(shape)
}

/// Steps of 32 elements in a head, which are also panels of 32.
pub(super) fn head_steps(shape: AttentionShape) -> usize {
    shape.head_dim.div_ceil(DEPTH)
}

/// Numbers, or codes, of one head's keys, or values, in a block.
pub(super) fn head_numbers(shape: AttentionShape) -> usize {
    BLOCK_STEPS * head_steps(shape) * STEP_NUMBERS
}

/// A head's keys and values.
pub(super) fn head_of<T>(shape: AttentionShape, numbers: &[T], kv_head: usize) -> [&[T]; 2] {
    let length = head_numbers(shape);
    [kv_head, shape.kv_heads + kv_head].map(|part| &numbers[part * length..][..length])
}

/// A block of codes: all heads' scales, and all heads' codes.
pub(super) fn split_codes(shape: AttentionShape, block: &[u8]) -> (&[[u8; 4]], &[u8]) {
    let (scales, codes) = block.split_at(2 * shape.kv_heads * SCALE_BYTES);
    (scales.as_chunks().0, codes)
}

pub(super) fn store_floats(
    shape: AttentionShape,
    block: &mut [f32],
    offset: usize,
    keys: &[f32],
    values: &[f32],
) {
    let head_dim = shape.head_dim;
    let (key_part, value_part) = block.split_at_mut(shape.key_width() * BLOCK_POSITIONS);
    for (channel, &key) in keys.iter().enumerate() {
        key_part[channel * BLOCK_POSITIONS + offset] = key;
    }
    for (head, values) in values.chunks_exact(head_dim).enumerate() {
        value_part[(head * BLOCK_POSITIONS + offset) * head_dim..][..head_dim].copy_from_slice(values);
    }
}

pub(super) fn store_numbers(
    shape: AttentionShape,
    block: &mut [u16],
    offset: usize,
    keys: &[f32],
    values: &[f32],
) {
    let length = head_numbers(shape);
    let (key_part, value_part) = block.split_at_mut(shape.kv_heads * length);
    if offset == 0 {
        // A weight of zero does not make nothing of what an earlier sequence may have left here: it might be no number.
        value_part.fill(0);
    }
    let steps = head_steps(shape);
    for (part, row) in key_part.chunks_exact_mut(length).zip(keys.chunks_exact(shape.head_dim)) {
        let panel = &mut part[offset / COLUMNS * steps * STEP_NUMBERS..][..steps * STEP_NUMBERS];
        scatter_key(panel, offset % COLUMNS, row);
    }
    for (part, row) in value_part.chunks_exact_mut(length).zip(values.chunks_exact(shape.head_dim)) {
        scatter_value(part, offset, row);
    }
}

vectorised! {
    fn scatter_key(panel: &mut [u16], column: usize, row: &[f32]) {
        for (k, &key) in row.iter().enumerate() {
            panel[place(k, column)] = bf16_bits(key);
        }
    }
}

vectorised! {
    fn scatter_value(part: &mut [u16], offset: usize, row: &[f32]) {
        for (panel, row) in part.chunks_exact_mut(BLOCK_STEPS * STEP_NUMBERS).zip(row.chunks(COLUMNS)) {
            for (column, &value) in row.iter().enumerate() {
                panel[place(offset, column)] = bf16_bits(value);
            }
        }
    }
}

pub(super) fn store_codes(
    shape: AttentionShape,
    block: &mut [u8],
    offset: usize,
    keys: &[f32],
    values: &[f32],
) {
    let (scales, codes) = block.split_at_mut(2 * shape.kv_heads * SCALE_BYTES);
    let scales: &mut [[u8; 4]] = scales.as_chunks_mut().0;
    if offset == 0 {
        // As with numbers; a code is always one.
        scales.fill([0; 4]);
    }
    let length = head_numbers(shape);
    let (key_part, value_part) = codes.split_at_mut(shape.kv_heads * length);
    let steps = head_steps(shape);
    let heads = key_part.chunks_exact_mut(length).zip(value_part.chunks_exact_mut(length));
    let rows = keys.chunks_exact(shape.head_dim).zip(values.chunks_exact(shape.head_dim));
    for (((key_part, value_part), (key, value)), scales) in
        heads.zip(rows).zip(scales.chunks_exact_mut(2 * BLOCK_POSITIONS))
    {
        let (scale, factor) = scale_of(key);
        scales[offset] = scale.to_le_bytes();
        let panel = &mut key_part[offset / COLUMNS * steps * STEP_NUMBERS..];
        for (k, &key) in key.iter().enumerate() {
            panel[place(k, offset % COLUMNS)] = code(key, factor);
        }
        let (scale, factor) = scale_of(value);
        scales[BLOCK_POSITIONS + offset] = scale.to_le_bytes();
        for (column, &value) in value.iter().enumerate() {
            let panel = column / COLUMNS * BLOCK_STEPS * STEP_NUMBERS;
            value_part[panel + place(offset, column % COLUMNS)] = code(value, factor);
        }
    }
}

/// A row's scale, and what its numbers are multiplied by on their way to codes. What is no number stays none.
fn scale_of(row: &[f32]) -> (f32, f32) {
    let largest = row.iter().fold(0.0f32, |largest, x| if x.abs() > largest { x.abs() } else { largest });
    match (row.iter().all(|x| x.is_finite()), largest > 0.0) {
        (true, true) => (largest / 127.0, 127.0 / largest),
        (true, false) => (0.0, 0.0),
        (false, _) => (f32::NAN, 0.0),
    }
}

/// From −127 to 127, as a byte.
fn code(value: f32, factor: f32) -> u8 {
    (value * factor).round_ties_even() as i8 as u8
}
