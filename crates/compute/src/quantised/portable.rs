//! The same products in plain Rust: what the vector kernels are compared with, and what runs without them.

use super::{Bits, GROUP, QuantisedMatrix, QuantisedRows, SCALE_BYTES};
use crate::float16::f16_value;
use crate::path::vectorised;
use crate::product::PANEL_COLUMNS;

vectorised! {
    /// One row of x against one panel.
    pub fn multiply(bits: Bits, weights: &[u8], x: &QuantisedRows, row: usize, sums: &mut [f32; PANEL_COLUMNS]) {
        *sums = [0.0; PANEL_COLUMNS];
        let groups = x.groups();
        for (group, weights) in weights.chunks_exact(bits.group_bytes()).enumerate() {
            let at = row * groups + group;
            let codes = &x.codes.as_chunks::<GROUP>().0[at];
            let (scales, weights) = weights.split_at(SCALE_BYTES);
            let start = -bits.offset() * x.sums[at];
            let mut whole = [start; PANEL_COLUMNS];
            match bits {
                Bits::Eight => add(weights, codes, 0, 0xff, &mut whole),
                Bits::Four => {
                    let (low, high) = codes.split_at(GROUP / 2);
                    add(weights, low, 0, 15, &mut whole);
                    add(weights, high, 4, 15, &mut whole);
                }
            }
            for column in 0..PANEL_COLUMNS {
                let scale = f16_value(u16::from_le_bytes([scales[2 * column], scales[2 * column + 1]]));
                sums[column] = (whole[column] as f32).mul_add(scale * x.scales[at], sums[column]);
            }
        }
    }
}

#[inline(always)]
fn add(weights: &[u8], codes: &[i8], shift: u32, mask: i32, sums: &mut [i32; PANEL_COLUMNS]) {
    let steps = weights.as_chunks::<{ 4 * PANEL_COLUMNS }>().0;
    for (weights, codes) in steps.iter().zip(codes.as_chunks::<4>().0) {
        for column in 0..PANEL_COLUMNS {
            let mut sum = sums[column];
            for k in 0..4 {
                sum += ((weights[4 * column + k] as i32 >> shift) & mask) * codes[k] as i32;
            }
            sums[column] = sum;
        }
    }
}

/// One row of W.
pub fn row(matrix: &QuantisedMatrix, output: usize, row: &mut [f32]) {
    let bits = matrix.bits();
    let column = output % PANEL_COLUMNS;
    let panel = matrix.panel(output / PANEL_COLUMNS);
    for (data, row) in panel.chunks_exact(bits.group_bytes()).zip(row.chunks_mut(GROUP)) {
        let scale = f16_value(u16::from_le_bytes([data[2 * column], data[2 * column + 1]]));
        for (k, value) in row.iter_mut().enumerate() {
            let code = match bits {
                Bits::Eight => data[SCALE_BYTES + (k / 4 * PANEL_COLUMNS + column) * 4 + k % 4],
                Bits::Four => {
                    let low = k % 16;
                    let byte = data[SCALE_BYTES + (low / 4 * PANEL_COLUMNS + column) * 4 + low % 4];
                    (byte >> (k / 16 * 4)) & 15
                }
            };
            *value = scale * (code as i32 - bits.offset()) as f32;
        }
    }
}
