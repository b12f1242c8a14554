//! f32 rows as they are stored, with the same bits as llama.cpp's reference quantisers (`quantize_row_q8_0_ref`,
//! `quantize_row_q4_0_ref` in `ggml-quants.c`).

use crate::element::ElementType;
use half::{bf16, f16};

/// Encodes whole blocks of finite numbers and appends them to `stored`.
///
/// # Panics
/// When `values` are no whole number of blocks, or the type is one that is only read.
pub fn quantise(element: ElementType, values: &[f32], stored: &mut Vec<u8>) {
    assert!(values.len().is_multiple_of(element.block_elements()), "{} of {}", values.len(), element.name());
    match element {
        ElementType::F32 => stored.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        ElementType::F16 => {
            stored.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()))
        }
        ElementType::Bf16 => {
            stored.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()))
        }
        ElementType::Q8_0 => values.as_chunks().0.iter().for_each(|block| q8_0(block, stored)),
        ElementType::Q4_0 => values.as_chunks().0.iter().for_each(|block| q4_0(block, stored)),
        ElementType::Q4_1
        | ElementType::Q5_0
        | ElementType::Q5_1
        | ElementType::Q4K
        | ElementType::Q5K
        | ElementType::Q6K => panic!("{} is read, not written", element.name()),
    }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

fn q8_0(x: &[f32; 32], stored: &mut Vec<u8>) {
    let largest = x.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    stored.extend(f16::from_f32(scale).to_le_bytes());
    stored.extend(x.iter().map(|value| (value * inverse).round() as i8 as u8));
}

fn q4_0(x: &[f32; 32], stored: &mut Vec<u8>) {
    // The number farthest from zero, with its sign, becomes -8.
    let farthest = x.iter().fold(0.0f32, |far, &value| if far.abs() < value.abs() { value } else { far });
    let scale = farthest / -8.0;
    let inverse = inverse(scale);
    stored.extend(f16::from_f32(scale).to_le_bytes());
    let number = |value: f32| ((value * inverse + 8.5) as i8 as u8).min(15);
    stored.extend((0..16).map(|j| number(x[j]) | number(x[j + 16]) << 4));
}
