//! From numbers to codes.

use super::{Bits, GROUP};
use crate::float16::{f16_bits, f16_value};
use crate::path::vectorised;
use crate::product::PANEL_COLUMNS;

vectorised! {
    /// Quantises `values` [up to 64, inputs] into a panel.
    pub fn pack(bits: Bits, values: &[f32], inputs: usize, panel: &mut [u8]) {
        for (column, row) in values.chunks_exact(inputs).enumerate() {
            for (group, part) in row.chunks(GROUP).enumerate() {
                let mut x = [0.0f32; GROUP];
                x[..part.len()].copy_from_slice(part);
                let (scale, codes) = match bits {
                    Bits::Eight => eight(&x),
                    Bits::Four => four(&x),
                    Bits::FourAndMinimum | Bits::FourNested => panic!("{bits:?} is taken over from files alone"),
                };
                let target = bits.group_mut(panel, group);
                target.head[2 * column..][..2].copy_from_slice(&scale.to_le_bytes());
                place(bits, &codes, column, target.codes);
            }
        }
        // A column that is not there has scales of zero; so its codes do not count.
    }
}

/// Puts one column's codes of a group where the kernels look for them.
#[inline(always)]
fn place(bits: Bits, codes: &[i8; GROUP], column: usize, target: &mut [u8]) {
    let target = target.as_chunks_mut::<4>().0;
    let words = codes.as_chunks::<4>().0;
    let offset = bits.offset();
    let word = |word: &[i8; 4]| word.map(|code| (code as i32 + offset) as u8);
    match bits {
        Bits::Eight => {
            for (k, codes) in words.iter().enumerate() {
                target[k * PANEL_COLUMNS + column] = word(codes);
            }
        }
        _ => {
            for k in 0..words.len() / 2 {
                let (low, high) = (word(&words[k]), word(&words[k + words.len() / 2]));
                let both = u32::from_le_bytes(low) | u32::from_le_bytes(high) << 4;
                target[k * PANEL_COLUMNS + column] = both.to_le_bytes();
            }
        }
    }
}

/// The nearest whole number, of two equally near the even one, for |x| < 2^22.
#[inline(always)]
fn nearest(x: f32) -> f32 {
    const ROUNDER: f32 = 12_582_912.0; // 1.5·2^23
    (x + ROUNDER) - ROUNDER
}

/// Lanes of the sums over a group.
const LANES: usize = 16;

/// The largest size in a group, and whether all are finite.
#[inline(always)]
fn largest(x: &[f32; GROUP]) -> (f32, bool) {
    let mut lanes = [0.0f32; LANES];
    let mut whole = [0.0f32; LANES];
    for x in x.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let size = x[lane].abs();
            lanes[lane] = if size > lanes[lane] { size } else { lanes[lane] };
            whole[lane] = if size <= f32::MAX { whole[lane] } else { 1.0 };
        }
    }
    let most = lanes.iter().fold(0.0f32, |most, &lane| if lane > most { lane } else { most });
    (most, whole == [0.0; LANES])
}

/// As GGUF's Q8_0: the largest size becomes 127.
#[inline(always)]
fn eight(x: &[f32; GROUP]) -> (u16, [i8; GROUP]) {
    let (largest, finite) = largest(x);
    let scale = if finite { largest / 127.0 } else { f32::NAN };
    let reciprocal = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut codes = [0i8; GROUP];
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = nearest(x * reciprocal).clamp(-127.0, 127.0) as i8;
    }
    (f16_bits(scale), codes)
}

/// The scale that leaves the least error, looked for around the one that makes the largest value −8 (GGUF's Q4_0).
#[inline(always)]
fn four(x: &[f32; GROUP]) -> (u16, [i8; GROUP]) {
    let (size, finite) = largest(x);
    if !finite {
        return (f16_bits(f32::NAN), [0; GROUP]);
    }
    if size == 0.0 {
        return (0, [0; GROUP]);
    }
    // The first of the largest, with its sign.
    let largest = x.iter().copied().find(|x| x.abs() == size).unwrap_or(size);
    let mut best = (f32::INFINITY, 0.0f32);
    for step in -8..=8 {
        let start = largest / (-8.0 + 0.1 * step as f32);
        // The best scale for the codes of this start, by least squares.
        let q = codes(x, start);
        let qq = sum(|k| q[k] * q[k]);
        let scale = f16_value(f16_bits(if qq > 0.0 { sum(|k| x[k] * q[k]) / qq } else { start }));
        if scale == 0.0 || !scale.is_finite() {
            continue;
        }
        let q = codes(x, scale);
        let error = sum(|k| (x[k] - scale * q[k]) * (x[k] - scale * q[k]));
        if error < best.0 {
            best = (error, scale);
        }
    }
    let scale = best.1;
    if scale == 0.0 {
        return (0, [0; GROUP]);
    }
    (f16_bits(scale), codes(x, scale).map(|q| q as i8))
}

#[inline(always)]
fn codes(x: &[f32; GROUP], scale: f32) -> [f32; GROUP] {
    let mut q = [0.0f32; GROUP];
    let reciprocal = 1.0 / scale;
    for (q, &x) in q.iter_mut().zip(x) {
        *q = nearest(x * reciprocal).clamp(-8.0, 7.0);
    }
    q
}

/// Sixteen sums side by side, then those in their order.
#[inline(always)]
fn sum(term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for first in (0..GROUP).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(first + lane);
        }
    }
    lanes.iter().sum()
}
