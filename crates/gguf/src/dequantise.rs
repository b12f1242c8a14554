//! Stored rows as f32, with the same bits as llama.cpp's `dequantize_row_*` (`ggml-quants.c`).

use crate::element::ElementType;
use half::{bf16, f16};

/// Decodes whole blocks. `stored` has the bytes of exactly `out.len()` numbers.
///
/// # Panics
/// When the lengths do not fit each other, or are no whole number of blocks.
pub fn dequantise(element: ElementType, stored: &[u8], out: &mut [f32]) {
    assert_eq!(
        element.row_bytes(out.len()),
        Some(stored.len()),
        "{} numbers of {}",
        out.len(),
        element.name()
    );
    match element {
        ElementType::F32 => {
            blocks(stored, out, |b: &[u8; 4], y: &mut [f32; 1]| y[0] = f32::from_le_bytes(*b))
        }
        ElementType::F16 => blocks(stored, out, |b: &[u8; 2], y: &mut [f32; 1]| y[0] = half(b, 0)),
        ElementType::Bf16 => {
            blocks(stored, out, |b: &[u8; 2], y: &mut [f32; 1]| y[0] = bf16::from_le_bytes(*b).to_f32());
        }
        ElementType::Q8_0 => blocks(stored, out, q8_0),
        ElementType::Q4_0 => blocks(stored, out, q4_0),
        ElementType::Q4_1 => blocks(stored, out, q4_1),
        ElementType::Q5_0 => blocks(stored, out, q5_0),
        ElementType::Q5_1 => blocks(stored, out, q5_1),
        ElementType::Q4K => blocks(stored, out, q4_k),
        ElementType::Q5K => blocks(stored, out, q5_k),
        ElementType::Q6K => blocks(stored, out, q6_k),
    }
}

fn blocks<const BYTES: usize, const NUMBERS: usize>(
    stored: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; NUMBERS]),
) {
    let (blocks, _) = stored.as_chunks::<BYTES>();
    let (targets, _) = out.as_chunks_mut::<NUMBERS>();
    for (block, target) in blocks.iter().zip(targets) {
        decode(block, target);
    }
}

/// The f16 at a place of a block.
fn half(block: &[u8], place: usize) -> f32 {
    f16::from_le_bytes([block[place], block[place + 1]]).to_f32()
}

fn q8_0(block: &[u8; 34], y: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (y, &q) in y.iter_mut().zip(&block[2..]) {
        *y = f32::from(q as i8) * scale;
    }
}

fn q4_0(block: &[u8; 18], y: &mut [f32; 32]) {
    let scale = half(block, 0);
    for (j, &q) in block[2..].iter().enumerate() {
        y[j] = (f32::from(q & 15) - 8.0) * scale;
        y[j + 16] = (f32::from(q >> 4) - 8.0) * scale;
    }
}

fn q4_1(block: &[u8; 20], y: &mut [f32; 32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (j, &q) in block[4..].iter().enumerate() {
        y[j] = f32::from(q & 15) * scale + minimum;
        y[j + 16] = f32::from(q >> 4) * scale + minimum;
    }
}

/// The fifth bits of 32 numbers, which stand apart from the others.
fn fifth_bits(block: &[u8], place: usize) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([block[place], block[place + 1], block[place + 2], block[place + 3]]);
    move |j| ((bits >> j) as u8 & 1) << 4
}

fn q5_0(block: &[u8; 22], y: &mut [f32; 32]) {
    let scale = half(block, 0);
    let fifth = fifth_bits(block, 2);
    for (j, &q) in block[6..].iter().enumerate() {
        y[j] = (f32::from(q & 15 | fifth(j)) - 16.0) * scale;
        y[j + 16] = (f32::from(q >> 4 | fifth(j + 16)) - 16.0) * scale;
    }
}

fn q5_1(block: &[u8; 24], y: &mut [f32; 32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let fifth = fifth_bits(block, 4);
    for (j, &q) in block[8..].iter().enumerate() {
        y[j] = f32::from(q & 15 | fifth(j)) * scale + minimum;
        y[j + 16] = f32::from(q >> 4 | fifth(j + 16)) * scale + minimum;
    }
}

/// Six-bit scale and minimum of group `group` of eight, packed into twelve bytes.
fn scale_and_minimum(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => (
            packed[group + 4] & 15 | packed[group - 4] >> 6 << 4,
            packed[group + 4] >> 4 | packed[group] >> 6 << 4,
        ),
    };
    (f32::from(scale), f32::from(minimum))
}

fn q4_k(block: &[u8; 144], y: &mut [f32; 256]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_minimum(&block[4..16], group);
        let (s, m) = (scale * s, minimum * m);
        for (y, &q) in y.iter_mut().zip(&block[16 + group / 2 * 32..]) {
            let q = if group % 2 == 0 { q & 15 } else { q >> 4 };
            *y = s * f32::from(q) - m;
        }
    }
}

fn q5_k(block: &[u8; 176], y: &mut [f32; 256]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (group, y) in y.chunks_exact_mut(32).enumerate() {
        let (s, m) = scale_and_minimum(&block[4..16], group);
        let (s, m) = (scale * s, minimum * m);
        let low = block[48 + group / 2 * 32..].iter();
        for ((y, &q), &fifth) in y.iter_mut().zip(low).zip(&block[16..48]) {
            let q = if group % 2 == 0 { q & 15 } else { q >> 4 };
            *y = s * f32::from(q | (fifth >> group & 1) << 4) - m;
        }
    }
}

fn q6_k(block: &[u8; 210], y: &mut [f32; 256]) {
    let scale = half(block, 208);
    for (part, y) in y.chunks_exact_mut(128).enumerate() {
        let low = &block[part * 64..][..64];
        let high = &block[128 + part * 32..][..32];
        let scales = &block[192 + part * 8..][..8];
        for (j, y) in y.iter_mut().enumerate() {
            let (quarter, l) = (j / 32, j % 32);
            let low = low[quarter % 2 * 32 + l];
            let low = if quarter < 2 { low & 15 } else { low >> 4 };
            let q = f32::from(low | (high[l] >> (2 * quarter) & 3) << 4) - 32.0;
            *y = scale * f32::from(scales[quarter * 2 + l / 16] as i8) * q;
        }
    }
}
