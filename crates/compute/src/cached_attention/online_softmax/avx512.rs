//! Scores to weights by AVX-512.

use super::{LOWEST, POWER, ROUNDER, SpanScores};
use crate::bf16::{DEPTH, TILE};
use crate::lanes::LANES;
use std::arch::x86_64::*;

/// As `weigh_plainly`, to the bit.
///
/// # Safety
/// The processor has AVX-512 F, DQ and BW; lengths are as `weigh` asserts.
#[target_feature(enable = "avx512f,avx512dq,avx512bw")]
pub unsafe fn weigh(span: &mut SpanScores, largest: &mut [f32], sums: &mut [f32], factors: &mut [f32]) {
    let parts = span.width / LANES;
    // SAFETY: a row has `parts` vectors.
    let load = |row: usize, part: usize| unsafe {
        _mm512_loadu_ps(span.scores.as_ptr().add(row * span.stride + part * LANES))
    };
    for (row, (largest, factor)) in largest.iter_mut().zip(factors.iter_mut()).enumerate() {
        let mut two = [_mm512_set1_ps(f32::NEG_INFINITY); 2];
        for part in 0..parts {
            two[part % 2] = _mm512_max_ps(load(row, part), two[part % 2]);
        }
        let found = _mm512_reduce_max_ps(_mm512_max_ps(two[0], two[1]));
        // For the time being: what the largest was before.
        *factor = *largest;
        *largest = if found > *largest { found } else { *largest };
    }
    let exponent = _mm512_set1_ps(span.exponent);
    for (factors, largest) in factors.chunks_mut(LANES).zip(largest.chunks(LANES)) {
        let mask = ((1u32 << factors.len()) - 1) as u16;
        // SAFETY: no more floats than there are.
        unsafe {
            let before = _mm512_maskz_loadu_ps(mask, factors.as_ptr());
            let after = _mm512_maskz_loadu_ps(mask, largest.as_ptr());
            let power = power_of_two(_mm512_mul_ps(_mm512_sub_ps(before, after), exponent));
            let same = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(before, after);
            let factor = _mm512_mask_mov_ps(power, same, _mm512_set1_ps(1.0));
            _mm512_mask_storeu_ps(factors.as_mut_ptr(), mask, factor);
        }
    }
    let (half, upper) = (_mm512_set1_epi32(0x8000), _mm512_set1_epi32(0xffff_0000_u32 as i32));
    // The upper halves of two vectors, one behind the other.
    let halves: [i16; DEPTH] = std::array::from_fn(|lane| (2 * lane + 1) as i16);
    // SAFETY: 32 numbers.
    let halves = unsafe { _mm512_loadu_si512(halves.as_ptr().cast()) };
    for (row, ((largest, sum), factor)) in largest.iter().zip(sums).zip(factors).enumerate() {
        let shift = _mm512_set1_ps(-(largest * span.exponent));
        let line = (row / TILE * span.tiles * TILE + row % TILE) * DEPTH;
        let mut lanes = _mm512_setzero_ps();
        for step in 0..parts / 2 {
            let mut bits = [_mm512_setzero_si512(); 2];
            for (part, bits) in bits.iter_mut().enumerate() {
                let part = 2 * step + part;
                let weight = power_of_two(_mm512_fmadd_ps(load(row, part), exponent, shift));
                match span.value_scales {
                    None => {
                        *bits = _mm512_add_epi32(_mm512_castps_si512(weight), half);
                        let rounded = _mm512_castsi512_ps(_mm512_and_si512(*bits, upper));
                        lanes = _mm512_add_ps(lanes, rounded);
                    }
                    Some(scales) => {
                        // SAFETY: there is a scale for each score.
                        let scale = unsafe { _mm512_loadu_ps(scales.as_ptr().add(part * LANES)) };
                        let scaled = _mm512_castps_si512(_mm512_mul_ps(weight, scale));
                        *bits = _mm512_add_epi32(scaled, half);
                        lanes = _mm512_add_ps(lanes, weight);
                    }
                }
            }
            let both = _mm512_permutex2var_epi16(bits[0], halves, bits[1]);
            // SAFETY: the row's line of this step's tile.
            unsafe {
                let place = span.weights.as_mut_ptr().add(line + step * TILE * DEPTH);
                _mm512_storeu_si512(place.cast(), both);
            }
        }
        *sum = sum.mul_add(*factor, sum_of_lanes(lanes));
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn power_of_two(x: __m512) -> __m512 {
    let rounder = _mm512_set1_ps(ROUNDER);
    let shifted = _mm512_add_ps(x, rounder);
    let r = _mm512_sub_ps(x, _mm512_sub_ps(shifted, rounder));
    let [third, second, first] = POWER.map(|factor| _mm512_set1_ps(factor));
    let p = _mm512_fmadd_ps(third, r, second);
    let p = _mm512_fmadd_ps(_mm512_fmadd_ps(p, r, first), r, _mm512_set1_ps(1.0));
    let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
    let counts = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, _mm512_set1_ps(LOWEST));
    _mm512_castsi512_ps(_mm512_maskz_add_epi32(counts, _mm512_castps_si512(p), exponent))
}

/// By the tree of `lanes`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn sum_of_lanes(lanes: __m512) -> f32 {
    let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
