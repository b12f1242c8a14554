//! Groups by `vpdpbusd`: sixteen sums of four products of bytes at once (AVX-512 VNNI).

use super::{Bits, GROUP, QuantisedRows, SCALE_BYTES};
use crate::product::{PANEL_COLUMNS, Target};
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of x that are taken at a time: 3 × 4 whole sums and 3 × 4 sums fill 24 of 32 registers.
pub const ROWS: usize = 3;
/// Vectors of sixteen columns in a panel.
const VECTORS: usize = PANEL_COLUMNS / 16;
/// How far ahead weights are fetched: the reach of a core's own prefetcher ends at a page.
const AHEAD: usize = 4096;

/// Some rows of x against one panel.
///
/// # Safety
/// The processor has AVX-512 F and VNNI; rows and columns lie inside x and y, and nobody else touches them in y.
pub unsafe fn multiply(
    bits: Bits,
    weights: &[u8],
    x: &QuantisedRows,
    rows: Range<usize>,
    columns: Range<usize>,
    y: Target,
) {
    // SAFETY: passed on.
    unsafe {
        match (bits, rows.len()) {
            (Bits::Eight, 1) => eight::<1>(weights, x, rows.start, columns, y),
            (Bits::Eight, 2) => eight::<2>(weights, x, rows.start, columns, y),
            (Bits::Eight, _) => eight::<3>(weights, x, rows.start, columns, y),
            (Bits::Four, 1) => four::<1>(weights, x, rows.start, columns, y),
            (Bits::Four, 2) => four::<2>(weights, x, rows.start, columns, y),
            (Bits::Four, _) => four::<3>(weights, x, rows.start, columns, y),
        }
    }
}

/// # Safety
/// As [`multiply`], with `R` rows from `row` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn eight<const R: usize>(
    weights: &[u8],
    x: &QuantisedRows,
    row: usize,
    columns: Range<usize>,
    y: Target,
) {
    const BITS: Bits = Bits::Eight;
    let groups = x.groups();
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for (group, data) in weights.chunks_exact(BITS.group_bytes()).enumerate() {
        prefetch(data);
        let mut whole = [[_mm512_setzero_si512(); VECTORS]; R];
        for (r, whole) in whole.iter_mut().enumerate() {
            *whole = [_mm512_set1_epi32(-BITS.offset() * x.sums[(row + r) * groups + group]); VECTORS];
        }
        let codes = data[SCALE_BYTES..].as_ptr();
        for step in 0..GROUP / 4 {
            let mut line = [_mm512_setzero_si512(); VECTORS];
            for (v, line) in line.iter_mut().enumerate() {
                // SAFETY: a group has 8 · 4 vectors of codes.
                *line = unsafe { _mm512_loadu_si512(codes.add((step * VECTORS + v) * 64).cast()) };
            }
            for (r, whole) in whole.iter_mut().enumerate() {
                let four = x.codes[((row + r) * groups + group) * GROUP + 4 * step..][..4].as_ptr();
                // SAFETY: four codes.
                let four = _mm512_set1_epi32(unsafe { four.cast::<i32>().read_unaligned() });
                for (whole, line) in whole.iter_mut().zip(line) {
                    *whole = _mm512_dpbusd_epi32(*whole, line, four);
                }
            }
        }
        add_up(&mut sums, &whole, data, x, row, group);
    }
    // SAFETY: passed on.
    unsafe { store(&sums, row, columns, y) };
}

/// # Safety
/// As [`multiply`], with `R` rows from `row` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn four<const R: usize>(
    weights: &[u8],
    x: &QuantisedRows,
    row: usize,
    columns: Range<usize>,
    y: Target,
) {
    const BITS: Bits = Bits::Four;
    let groups = x.groups();
    let mask = _mm512_set1_epi8(15);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for (group, data) in weights.chunks_exact(BITS.group_bytes()).enumerate() {
        prefetch(data);
        let mut whole = [[_mm512_setzero_si512(); VECTORS]; R];
        for (r, whole) in whole.iter_mut().enumerate() {
            *whole = [_mm512_set1_epi32(-BITS.offset() * x.sums[(row + r) * groups + group]); VECTORS];
        }
        let codes = data[SCALE_BYTES..].as_ptr();
        for step in 0..GROUP / 8 {
            let mut low = [_mm512_setzero_si512(); VECTORS];
            let mut high = [_mm512_setzero_si512(); VECTORS];
            for v in 0..VECTORS {
                // SAFETY: a group has 4 · 4 vectors of pairs of codes.
                let line = unsafe { _mm512_loadu_si512(codes.add((step * VECTORS + v) * 64).cast()) };
                low[v] = _mm512_and_si512(line, mask);
                high[v] = _mm512_and_si512(_mm512_srli_epi16::<4>(line), mask);
            }
            for (r, whole) in whole.iter_mut().enumerate() {
                let codes = &x.codes[((row + r) * groups + group) * GROUP..][..GROUP];
                // SAFETY: four codes each.
                let (first, second) = unsafe {
                    let at = |k: usize| codes[k..][..4].as_ptr().cast::<i32>().read_unaligned();
                    (_mm512_set1_epi32(at(4 * step)), _mm512_set1_epi32(at(16 + 4 * step)))
                };
                for v in 0..VECTORS {
                    whole[v] = _mm512_dpbusd_epi32(whole[v], low[v], first);
                    whole[v] = _mm512_dpbusd_epi32(whole[v], high[v], second);
                }
            }
        }
        add_up(&mut sums, &whole, data, x, row, group);
    }
    // SAFETY: passed on.
    unsafe { store(&sums, row, columns, y) };
}

#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch(data: &[u8]) {
    for line in (0..data.len()).step_by(64) {
        _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().wrapping_add(AHEAD + line).cast());
    }
}

/// sums ← fma(whole, scale of w · scale of x, sums).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_up<const R: usize>(
    sums: &mut [[__m512; VECTORS]; R],
    whole: &[[__m512i; VECTORS]; R],
    data: &[u8],
    x: &QuantisedRows,
    row: usize,
    group: usize,
) {
    let mut scales = [_mm512_setzero_ps(); VECTORS];
    for (v, scale) in scales.iter_mut().enumerate() {
        let halves = data[32 * v..][..32].as_ptr();
        // SAFETY: sixteen scales.
        *scale = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(halves.cast()) });
    }
    for (r, (sums, whole)) in sums.iter_mut().zip(whole).enumerate() {
        let of_x = _mm512_set1_ps(x.scales[(row + r) * x.groups() + group]);
        for v in 0..VECTORS {
            let scale = _mm512_mul_ps(scales[v], of_x);
            sums[v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[v]), scale, sums[v]);
        }
    }
}

/// # Safety
/// As [`multiply`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store<const R: usize>(sums: &[[__m512; VECTORS]; R], row: usize, columns: Range<usize>, y: Target) {
    for (r, sums) in sums.iter().enumerate() {
        for (v, sum) in sums.iter().enumerate() {
            let here = columns.len().saturating_sub(16 * v).min(16);
            let mask = ((1u32 << here) - 1) as __mmask16;
            if here > 0 {
                // SAFETY: the masked lanes lie inside y.
                unsafe { _mm512_mask_storeu_ps(y.at(row + r, columns.start + 16 * v), mask, *sum) };
            }
        }
    }
}
