//! The chain of the matrix unit by AVX-512: for processors without one, and for few rows.

use super::{DEPTH, Part, STEP_NUMBERS, TILE, TILE_NUMBERS};
use crate::product::PANEL_COLUMNS;
use std::arch::x86_64::*;

const VECTORS: usize = PANEL_COLUMNS / TILE;
/// How far ahead weights are fetched.
const AHEAD: usize = 4096;

/// All rows of x against one panel.
///
/// # Safety
/// The processor has AVX-512 F; rows and columns lie inside y, and nobody else touches them there.
pub unsafe fn multiply(part: &Part) {
    let rows = part.x.rows();
    for row in (0..rows).step_by(3) {
        // SAFETY: passed on.
        unsafe {
            match rows - row {
                1 => run::<1>(part, row),
                2 => run::<2>(part, row),
                _ => run::<3>(part, row),
            }
        }
    }
}

/// # Safety
/// As [`multiply`], with `R` rows from `row` on.
#[target_feature(enable = "avx512f")]
unsafe fn run<const R: usize>(part: &Part, row: usize) {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let mask = |v: usize| {
        let here = part.columns.len().saturating_sub(TILE * v).min(TILE);
        ((1u32 << here) - 1) as __mmask16
    };
    let place = |r: usize, v: usize| part.y.at(row + r, part.columns.start).wrapping_add(TILE * v);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    if part.first > 0 {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the masked lanes lie inside y.
                *sum = unsafe { _mm512_maskz_loadu_ps(mask(v), place(r, v)) };
            }
        }
    }
    for (step, weights) in part.weights.as_chunks::<STEP_NUMBERS>().0.iter().enumerate() {
        let x: [&[u16; DEPTH]; R] = std::array::from_fn(|r| part.x.part(row + r, part.first + step));
        let mut even = [[_mm512_setzero_ps(); VECTORS]; R];
        let mut odd = [[_mm512_setzero_ps(); VECTORS]; R];
        for pair in 0..DEPTH / 2 {
            let mut line = [_mm512_setzero_si512(); VECTORS];
            for (v, line) in line.iter_mut().enumerate() {
                let at = weights[v * TILE_NUMBERS + pair * 2 * TILE..][..2 * TILE].as_ptr();
                _mm_prefetch::<_MM_HINT_T0>(at.cast::<i8>().wrapping_add(AHEAD));
                // SAFETY: sixteen pairs.
                *line = unsafe { _mm512_loadu_si512(at.cast()) };
            }
            let first = line.map(|line| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(line)));
            let second = line.map(|line| _mm512_castsi512_ps(_mm512_and_si512(line, upper)));
            for r in 0..R {
                let [low, high] = [x[r][2 * pair], x[r][2 * pair + 1]];
                let low = _mm512_set1_ps(f32::from_bits((low as u32) << 16));
                let high = _mm512_set1_ps(f32::from_bits((high as u32) << 16));
                for v in 0..VECTORS {
                    even[r][v] = _mm512_fmadd_ps(low, first[v], even[r][v]);
                    odd[r][v] = _mm512_fmadd_ps(high, second[v], odd[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..VECTORS {
                sums[r][v] = _mm512_add_ps(sums[r][v], _mm512_add_ps(even[r][v], odd[r][v]));
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            // SAFETY: the masked lanes lie inside y.
            unsafe { _mm512_mask_storeu_ps(place(r, v), mask(v), *sum) };
        }
    }
}
