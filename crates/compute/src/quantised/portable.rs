//! The same products in plain Rust: what the vector kernels are compared with, and what runs without them.

use super::{Bits, GROUP, QuantisedMatrix, QuantisedRows};
use crate::path::vectorised;
use crate::product::PANEL_COLUMNS;

vectorised! {
    /// One row of x against one panel.
    pub fn multiply(bits: Bits, weights: &[u8], x: &QuantisedRows, row: usize, sums: &mut [f32; PANEL_COLUMNS]) {
        *sums = [0.0; PANEL_COLUMNS];
        let groups = x.groups();
        for group in 0..groups {
            let at = row * groups + group;
            let codes = &x.codes.as_chunks::<GROUP>().0[at];
            let weights = bits.group(weights, group);
            let start = -bits.offset() * x.sums[at];
            let mut whole = [start; PANEL_COLUMNS];
            match bits {
                Bits::Eight => add(weights.codes, codes, 0, 0xff, &mut whole),
                Bits::Four | Bits::FourAndMinimum | Bits::FourNested => {
                    let (low, high) = codes.split_at(GROUP / 2);
                    add(weights.codes, low, 0, 15, &mut whole);
                    add(weights.codes, high, 4, 15, &mut whole);
                }
            }
            let sum = x.sums[at] as f32 * x.scales[at];
            for column in 0..PANEL_COLUMNS {
                let (scale, minimum) = bits.scale_and_minimum(&weights, column);
                sums[column] = (whole[column] as f32).mul_add(scale * x.scales[at], sums[column]);
                if bits.has_minimum() {
                    sums[column] = sum.mul_add(minimum, sums[column]);
                }
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
    let panel = matrix.panels.partition_point(|panel| panel.columns.end <= output);
    let (bits, columns, panel) = matrix.panel(panel);
    let column = output - columns.start;
    for (group, row) in row.chunks_mut(GROUP).enumerate() {
        let group = bits.group(panel, group);
        let (scale, minimum) = bits.scale_and_minimum(&group, column);
        for (k, value) in row.iter_mut().enumerate() {
            let code = match bits {
                Bits::Eight => group.codes[(k / 4 * PANEL_COLUMNS + column) * 4 + k % 4],
                Bits::Four | Bits::FourAndMinimum | Bits::FourNested => {
                    let low = k % 16;
                    let byte = group.codes[(low / 4 * PANEL_COLUMNS + column) * 4 + low % 4];
                    (byte >> (k / 16 * 4)) & 15
                }
            };
            let value_of_code = scale * (code as i32 - bits.offset()) as f32;
            *value = if bits.has_minimum() { value_of_code + minimum } else { value_of_code };
        }
    }
}
