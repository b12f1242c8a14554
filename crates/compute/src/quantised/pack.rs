//! From numbers to codes.

use super::{Bits, GROUP, QuantisedMatrix, SCALE_BYTES};
use crate::float16::{f16_bits, f16_value};
use crate::product::PANEL_COLUMNS;

/// Quantises `values` [outputs, inputs] into the matrix's panels.
pub fn pack(values: &[f32], matrix: &mut QuantisedMatrix) {
    let (bits, inputs, outputs, groups) = (matrix.bits(), matrix.inputs, matrix.outputs, matrix.groups());
    let (group_bytes, panel_bytes) = (bits.group_bytes(), matrix.panel_bytes());
    let data = matrix.data.bytes_mut();
    for (panel, data) in data.chunks_exact_mut(panel_bytes).enumerate() {
        for column in 0..PANEL_COLUMNS {
            let output = panel * PANEL_COLUMNS + column;
            let row = if output < outputs { &values[output * inputs..][..inputs] } else { &[][..] };
            for group in 0..groups {
                let mut x = [0.0f32; GROUP];
                let first = group * GROUP;
                let part = row.get(first..(first + GROUP).min(row.len())).unwrap_or(&[]);
                x[..part.len()].copy_from_slice(part);
                let (scale, codes) = match bits {
                    Bits::Eight => eight(&x),
                    Bits::Four => four(&x),
                };
                let data = &mut data[group * group_bytes..][..group_bytes];
                data[2 * column..][..2].copy_from_slice(&scale.to_le_bytes());
                place(bits, &codes, column, &mut data[SCALE_BYTES..]);
            }
        }
    }
}

/// Puts one column's codes of a group where the kernels look for them.
fn place(bits: Bits, codes: &[i8; GROUP], column: usize, data: &mut [u8]) {
    for (k, &code) in codes.iter().enumerate() {
        let code = (code as i32 + bits.offset()) as u8;
        match bits {
            Bits::Eight => data[(k / 4 * PANEL_COLUMNS + column) * 4 + k % 4] = code,
            Bits::Four => {
                let k_low = k % 16;
                data[(k_low / 4 * PANEL_COLUMNS + column) * 4 + k_low % 4] |= code << (k / 16 * 4);
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

/// As GGUF's Q8_0: the largest size becomes 127.
fn eight(x: &[f32; GROUP]) -> (u16, [i8; GROUP]) {
    let largest = x.iter().fold(0.0f32, |most, x| if x.abs() > most { x.abs() } else { most });
    let broken = x.iter().any(|x| !x.is_finite());
    let scale = if broken { f32::NAN } else { largest / 127.0 };
    let reciprocal = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let code = |x: f32| nearest(x * reciprocal).clamp(-127.0, 127.0) as i8;
    (f16_bits(scale), x.map(code))
}

/// The scale that leaves the least error, looked for around the one that makes the largest value −8 (GGUF's Q4_0).
fn four(x: &[f32; GROUP]) -> (u16, [i8; GROUP]) {
    if x.iter().any(|x| !x.is_finite()) {
        return (f16_bits(f32::NAN), [0; GROUP]);
    }
    let largest = x.iter().fold(0.0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
    if largest == 0.0 {
        return (0, [0; GROUP]);
    }
    let code = |x: f32, scale: f32| nearest(x / scale).clamp(-8.0, 7.0);
    let mut best = (f32::INFINITY, 0.0f32);
    for step in -8..=8 {
        let start = largest / (-8.0 + 0.1 * step as f32);
        // The best scale for the codes of this start, by least squares.
        let (mut xq, mut qq) = (0.0f32, 0.0f32);
        for &x in x {
            let q = code(x, start);
            xq += x * q;
            qq += q * q;
        }
        let scale = f16_value(f16_bits(if qq > 0.0 { xq / qq } else { start }));
        if scale == 0.0 || !scale.is_finite() {
            continue;
        }
        let error: f32 = x.iter().map(|&x| (x - scale * code(x, scale)).powi(2)).sum();
        if error < best.0 {
            best = (error, scale);
        }
    }
    let scale = best.1;
    if scale == 0.0 {
        return (0, [0; GROUP]);
    }
    (f16_bits(scale), x.map(|x| code(x, scale) as i8))
}
