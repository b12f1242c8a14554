//! The chain of the matrix unit by AVX-512: for processors without one, and for few rows.

use super::{COLUMNS, DEPTH, Part, STEP_NUMBERS, Sums, TILE, TILE_NUMBERS};
use std::arch::x86_64::*;

/// Vectors of sixteen columns in a panel.
const VECTORS: usize = COLUMNS / TILE;
/// How far ahead weights are fetched.
const AHEAD: usize = 4096;

/// All rows of x against one panel.
///
/// # Safety
/// The processor has AVX-512 F.
pub unsafe fn multiply(part: &Part, sums: &mut Sums) {
    let rows = part.x.rows;
    for row in (0..rows).step_by(6) {
        // SAFETY: passed on.
        unsafe {
            match rows - row {
                1 => run::<1>(part, row, sums),
                2 => run::<2>(part, row, sums),
                3 => run::<3>(part, row, sums),
                4 => run::<4>(part, row, sums),
                5 => run::<5>(part, row, sums),
                _ => run::<6>(part, row, sums),
            }
        }
    }
}

/// `R` rows from `row` on.
#[target_feature(enable = "avx512f")]
fn run<const R: usize>(part: &Part, row: usize, sums: &mut Sums) {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
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
            let (mut first, mut second) = ([_mm512_setzero_ps(); VECTORS], [_mm512_setzero_ps(); VECTORS]);
            for v in 0..VECTORS {
                first[v] = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(line[v]));
                second[v] = _mm512_castsi512_ps(_mm512_and_si512(line[v], upper));
            }
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
            for (v, sums) in sums.row(row + r).as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                // SAFETY: sixteen floats.
                unsafe {
                    let before = _mm512_loadu_ps(sums.as_ptr());
                    let sum = _mm512_add_ps(before, _mm512_add_ps(even[r][v], odd[r][v]));
                    _mm512_storeu_ps(sums.as_mut_ptr(), sum);
                }
            }
        }
    }
}
