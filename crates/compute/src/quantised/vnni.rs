//! Groups by `vpdpbusd`: sixteen sums of four products of bytes at once (AVX-512 VNNI).

use super::blocks::Group;
use super::scales::scales_and_minima;
use super::{Bits, GROUP, QuantisedRows};
use crate::product::{PANEL_COLUMNS, Target};
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of x that are taken at a time.
pub const ROWS: usize = 8;
/// Up to so many rows, a group is taken for all columns of a panel at once: 3 × 4 whole sums and 3 × 4 sums fill 24 of 32
/// registers. More rows are taken for sixteen columns at a time, with their sums in the first cache: every weight still comes
/// from the memory once, while there is work for all rows.
const FEW_ROWS: usize = 3;
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
        match bits {
            _ if rows.len() > FEW_ROWS => match bits {
                Bits::Eight => many_of::<EIGHT>(weights, x, rows, columns, y),
                Bits::Four => many_of::<PLAIN>(weights, x, rows, columns, y),
                Bits::FourAndMinimum => many_of::<AND_MINIMUM>(weights, x, rows, columns, y),
                Bits::FourNested => many_of::<NESTED>(weights, x, rows, columns, y),
            },
            Bits::Eight => match rows.len() {
                1 => eight::<1>(weights, x, rows.start, columns, y),
                2 => eight::<2>(weights, x, rows.start, columns, y),
                _ => eight::<3>(weights, x, rows.start, columns, y),
            },
            Bits::Four => four_of::<PLAIN>(weights, x, rows, columns, y),
            Bits::FourAndMinimum => four_of::<AND_MINIMUM>(weights, x, rows, columns, y),
            Bits::FourNested => four_of::<NESTED>(weights, x, rows, columns, y),
        }
    }
}

/// The codes, as numbers that a kernel can be compiled for.
const PLAIN: u8 = 0;
const AND_MINIMUM: u8 = 1;
const NESTED: u8 = 2;
const EIGHT: u8 = 3;

const fn bits_of(code: u8) -> Bits {
    match code {
        PLAIN => Bits::Four,
        AND_MINIMUM => Bits::FourAndMinimum,
        EIGHT => Bits::Eight,
        _ => Bits::FourNested,
    }
}

/// # Safety
/// As [`multiply`].
unsafe fn four_of<const CODE: u8>(
    weights: &[u8],
    x: &QuantisedRows,
    rows: Range<usize>,
    columns: Range<usize>,
    y: Target,
) {
    // SAFETY: passed on.
    unsafe {
        match rows.len() {
            1 => four::<1, CODE>(weights, x, rows.start, columns, y),
            2 => four::<2, CODE>(weights, x, rows.start, columns, y),
            _ => four::<3, CODE>(weights, x, rows.start, columns, y),
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
    for group in 0..groups {
        let data = BITS.group(weights, group);
        prefetch(data.codes);
        let mut whole = [[_mm512_setzero_si512(); VECTORS]; R];
        for (r, whole) in whole.iter_mut().enumerate() {
            *whole = [_mm512_set1_epi32(-BITS.offset() * x.sums[(row + r) * groups + group]); VECTORS];
        }
        let codes = data.codes.as_ptr();
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
        // SAFETY: passed on.
        unsafe { add_up(BITS, &mut sums, &whole, &data, x, row, group) };
    }
    // SAFETY: passed on.
    unsafe { store(&sums, row, columns, y) };
}

/// # Safety
/// As [`multiply`], with `R` rows from `row` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn four<const R: usize, const CODE: u8>(
    weights: &[u8],
    x: &QuantisedRows,
    row: usize,
    columns: Range<usize>,
    y: Target,
) {
    let bits = const { bits_of(CODE) };
    let groups = x.groups();
    let mask = _mm512_set1_epi8(15);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for group in 0..groups {
        let data = bits.group(weights, group);
        prefetch(data.codes);
        let mut whole = [[_mm512_setzero_si512(); VECTORS]; R];
        for (r, whole) in whole.iter_mut().enumerate() {
            *whole = [_mm512_set1_epi32(-bits.offset() * x.sums[(row + r) * groups + group]); VECTORS];
        }
        let codes = data.codes.as_ptr();
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
        // SAFETY: passed on.
        unsafe { add_up(bits, &mut sums, &whole, &data, x, row, group) };
    }
    // SAFETY: passed on.
    unsafe { store(&sums, row, columns, y) };
}

/// # Safety
/// As [`multiply`].
unsafe fn many_of<const CODE: u8>(
    weights: &[u8],
    x: &QuantisedRows,
    rows: Range<usize>,
    columns: Range<usize>,
    y: Target,
) {
    // SAFETY: passed on.
    unsafe {
        match rows.len() {
            4 => many::<4, CODE>(weights, x, rows.start, columns, y),
            5 => many::<5, CODE>(weights, x, rows.start, columns, y),
            6 => many::<6, CODE>(weights, x, rows.start, columns, y),
            7 => many::<7, CODE>(weights, x, rows.start, columns, y),
            _ => many::<8, CODE>(weights, x, rows.start, columns, y),
        }
    }
}

/// # Safety
/// As [`multiply`], with `R` rows from `row` on.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn many<const R: usize, const CODE: u8>(
    weights: &[u8],
    x: &QuantisedRows,
    row: usize,
    columns: Range<usize>,
    y: Target,
) {
    let bits = const { bits_of(CODE) };
    let groups = x.groups();
    let mask = _mm512_set1_epi8(15);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    for group in 0..groups {
        let data = bits.group(weights, group);
        prefetch(data.codes);
        let codes_of_x: [&[i8; GROUP]; R] =
            std::array::from_fn(|r| &x.codes.as_chunks::<GROUP>().0[(row + r) * groups + group]);
        let start: [i32; R] = std::array::from_fn(|r| -bits.offset() * x.sums[(row + r) * groups + group]);
        let of_x: [f32; R] = std::array::from_fn(|r| x.scales[(row + r) * groups + group]);
        let codes = data.codes.as_ptr();
        for v in 0..VECTORS {
            let mut whole: [__m512i; R] = std::array::from_fn(|r| _mm512_set1_epi32(start[r]));
            for step in 0..GROUP / 8 {
                // Two lines of four inputs each, and which inputs they are.
                let (first, second, at, other) = match CODE {
                    EIGHT => {
                        // SAFETY: a group has 8 · 4 vectors of codes.
                        let line = |step: usize| unsafe {
                            _mm512_loadu_si512(codes.add((step * VECTORS + v) * 64).cast())
                        };
                        (line(2 * step), line(2 * step + 1), 8 * step, 8 * step + 4)
                    }
                    _ => {
                        // SAFETY: a group has 4 · 4 vectors of pairs of codes.
                        let line = unsafe { _mm512_loadu_si512(codes.add((step * VECTORS + v) * 64).cast()) };
                        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(line), mask);
                        (_mm512_and_si512(line, mask), high, 4 * step, 16 + 4 * step)
                    }
                };
                for (whole, codes) in whole.iter_mut().zip(codes_of_x) {
                    // SAFETY: four codes, twice.
                    let four = |k: usize| unsafe { codes.as_ptr().add(k).cast::<i32>().read_unaligned() };
                    *whole = _mm512_dpbusd_epi32(*whole, first, _mm512_set1_epi32(four(at)));
                    *whole = _mm512_dpbusd_epi32(*whole, second, _mm512_set1_epi32(four(other)));
                }
            }
            // SAFETY: the processor has the instructions.
            let (scales, minima) = unsafe { scales_and_minima(bits, &data, v) };
            for (r, (sums, whole)) in sums.iter_mut().zip(whole).enumerate() {
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(of_x[r]));
                let mut sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scale, sums[v]);
                if bits.has_minimum() {
                    let of_group = x.sums[(row + r) * groups + group] as f32 * of_x[r];
                    sum = _mm512_fmadd_ps(_mm512_set1_ps(of_group), minima, sum);
                }
                sums[v] = sum;
            }
        }
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

/// sums ← fma(whole, scale of w · scale of x, sums), and where there are minima, sums ← fma(Σ x, minimum, sums).
///
/// # Safety
/// The processor has AVX-512 F, BW and VL.
#[inline(always)]
unsafe fn add_up<const R: usize>(
    bits: Bits,
    sums: &mut [[__m512; VECTORS]; R],
    whole: &[[__m512i; VECTORS]; R],
    data: &Group,
    x: &QuantisedRows,
    row: usize,
    group: usize,
) {
    for v in 0..VECTORS {
        // SAFETY: passed on.
        unsafe {
            let (scales, minima) = scales_and_minima(bits, data, v);
            for (r, (sums, whole)) in sums.iter_mut().zip(whole).enumerate() {
                let at = (row + r) * x.groups() + group;
                let of_x = x.scales[at];
                let scale = _mm512_mul_ps(scales, _mm512_set1_ps(of_x));
                sums[v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole[v]), scale, sums[v]);
                if bits.has_minimum() {
                    let sum = _mm512_set1_ps(x.sums[at] as f32 * of_x);
                    sums[v] = _mm512_fmadd_ps(sum, minima, sums[v]);
                }
            }
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
