//! Sixteen weights at a time: each code meets its scale where it stands in its word, so only the rounding shifts.

use super::{COLUMNS, HALVES, STEP_NUMBERS, TILE, TILE_NUMBERS};
use crate::product::PANEL_COLUMNS;
use crate::quantised::{Bits, GROUP, QuantisedMatrix, scales_and_minima};
use std::arch::x86_64::*;

/// As [`super::spread`]; what `ahead` names, a panel and a step, is fetched meanwhile.
///
/// # Safety
/// The processor has AVX-512 F, BW and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub unsafe fn spread(
    matrix: &QuantisedMatrix,
    panel: usize,
    first: usize,
    numbers: &mut [u16],
    ahead: Option<(usize, usize)>,
) {
    let (bits, _, weights) = matrix.panel(panel / HALVES);
    let groups = matrix.inputs().div_ceil(GROUP);
    for (step, numbers) in numbers.as_chunks_mut::<STEP_NUMBERS>().0.iter_mut().enumerate() {
        if let Some((panel, first)) = ahead
            && first + step < groups
        {
            let (bits, _, weights) = matrix.panel(panel / HALVES);
            let group = bits.group(weights, first + step);
            fetch(group.head);
            fetch(group.codes);
        }
        let group = bits.group(weights, first + step);
        for (tile, numbers) in numbers.as_chunks_mut::<TILE_NUMBERS>().0.iter_mut().enumerate() {
            let tile = panel % HALVES * (COLUMNS / TILE) + tile;
            // SAFETY: the processor has the instructions.
            let (scale, minimum) = unsafe { scales_and_minima(bits, &group, tile) };
            // What a code of zero stands for.
            let zero = match bits.has_minimum() {
                true => minimum,
                false => _mm512_mul_ps(_mm512_set1_ps(-(bits.offset() as f32)), scale),
            };
            let codes = &group.codes[4 * TILE * tile..];
            match bits {
                Bits::Eight => eight(codes, scale, zero, numbers),
                _ => four(codes, scale, zero, numbers),
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn fetch(bytes: &[u8]) {
    for line in bytes.as_chunks::<64>().0 {
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
    }
}

/// Bytes from the codes of four inputs to the next four.
const FOUR_INPUTS: usize = 4 * PANEL_COLUMNS;

/// The words of sixteen outputs.
#[inline]
#[target_feature(enable = "avx512f")]
fn words(codes: &[u8], four: usize) -> __m512i {
    let words = codes[four * FOUR_INPUTS..][..4 * TILE].as_ptr();
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(words.cast()) }
}

/// The scale for codes that stand so many bits up in their words. Exact: a power of two, far from both ends of f32.
#[inline]
#[target_feature(enable = "avx512f")]
fn shifted(scale: __m512, bits: u32) -> __m512 {
    _mm512_mul_ps(scale, _mm512_set1_ps(1.0 / (1u64 << bits) as f32))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn eight(codes: &[u8], scale: __m512, zero: __m512, numbers: &mut [u16; TILE_NUMBERS]) {
    let scales = [0, 8, 16, 24].map(|bits| shifted(scale, bits));
    let masks = [0xff, 0xff00, 0xff_0000].map(|mask| _mm512_set1_epi32(mask));
    for (four, numbers) in numbers.as_chunks_mut::<{ 4 * TILE }>().0.iter_mut().enumerate() {
        let words = words(codes, four);
        let value = |k: usize| value(_mm512_and_si512(words, masks[k]), scales[k], zero);
        let last = value_of(_mm512_cvtepi32_ps(_mm512_srli_epi32::<24>(words)), scale, zero);
        let (first, second) = numbers.split_at_mut(2 * TILE);
        store(value(0), value(1), first);
        store(value(2), last, second);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn four(codes: &[u8], scale: __m512, zero: __m512, numbers: &mut [u16; TILE_NUMBERS]) {
    let (low, high) = numbers.split_at_mut(TILE_NUMBERS / 2);
    for (shift, numbers) in [(0u32, low), (4, high)] {
        let scales = [0, 8, 16].map(|bits| shifted(scale, bits + shift));
        let masks = [0xf, 0xf00, 0xf_0000].map(|mask: i32| _mm512_set1_epi32(mask << shift));
        for (four, numbers) in numbers.as_chunks_mut::<{ 4 * TILE }>().0.iter_mut().enumerate() {
            let words = words(codes, four);
            let value = |k: usize| value(_mm512_and_si512(words, masks[k]), scales[k], zero);
            let last = _mm512_and_si512(
                _mm512_srlv_epi32(words, _mm512_set1_epi32(24 + shift as i32)),
                _mm512_set1_epi32(15),
            );
            let last = value_of(_mm512_cvtepi32_ps(last), scale, zero);
            let (first, second) = numbers.split_at_mut(2 * TILE);
            store(value(0), value(1), first);
            store(value(2), last, second);
        }
    }
}

/// code · scale + zero, with what rounds it to the nearest bf16, of two equally near the larger one.
#[inline]
#[target_feature(enable = "avx512f")]
fn value(code: __m512i, scale: __m512, zero: __m512) -> __m512i {
    value_of(_mm512_cvtepi32_ps(code), scale, zero)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn value_of(code: __m512, scale: __m512, zero: __m512) -> __m512i {
    let value = _mm512_castps_si512(_mm512_fmadd_ps(code, scale, zero));
    _mm512_add_epi32(value, _mm512_set1_epi32(0x8000))
}

/// Two inputs of sixteen outputs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store(low: __m512i, high: __m512i, numbers: &mut [u16]) {
    // (high and upper half) or low
    const SELECT: i32 = 0b1111_1000;
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let pairs = _mm512_ternarylogic_epi32::<SELECT>(_mm512_srli_epi32::<16>(low), high, upper);
    let numbers = numbers[..2 * TILE].as_mut_ptr();
    // SAFETY: 32 numbers.
    unsafe { _mm512_storeu_si512(numbers.cast(), pairs) };
}
