//! Tiles of 6 × 64 for AVX-512: twenty-four accumulators, four registers for a line of B, one for A's broadcast.

use super::{Column, PANEL_COLUMNS, Start};
use std::arch::x86_64::*;

pub const TILE_ROWS: usize = 6;
pub const TILE_COLUMNS: usize = 64;

/// # Safety
/// The pointers are valid for the shape; the processor has AVX-512 F.
pub unsafe fn run(tiles: &Column) {
    // SAFETY: passed on.
    unsafe {
        match tiles.columns.div_ceil(16) {
            1 => run_vectors::<1>(tiles),
            2 => run_vectors::<2>(tiles),
            3 => run_vectors::<3>(tiles),
            _ => run_vectors::<4>(tiles),
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn run_vectors<const VECTORS: usize>(tiles: &Column) {
    // SAFETY: passed on.
    unsafe {
        // Half a panel leaves registers for twice the rows: fewer loads for each multiplication.
        let in_place = tiles.a_strip_stride == TILE_ROWS * tiles.a_row_stride;
        let doubled =
            if VECTORS <= 2 && in_place { tiles.rows / (2 * TILE_ROWS) * (2 * TILE_ROWS) } else { 0 };
        if VECTORS <= 2 {
            run_rows::<{ 2 * TILE_ROWS }, VECTORS>(tiles, 0, doubled / (2 * TILE_ROWS));
        }
        let whole = tiles.rows / TILE_ROWS * TILE_ROWS;
        run_rows::<TILE_ROWS, VECTORS>(tiles, doubled, (whole - doubled) / TILE_ROWS);
        match tiles.rows % TILE_ROWS {
            1 => run_rows::<1, VECTORS>(tiles, whole, 1),
            2 => run_rows::<2, VECTORS>(tiles, whole, 1),
            3 => run_rows::<3, VECTORS>(tiles, whole, 1),
            4 => run_rows::<4, VECTORS>(tiles, whole, 1),
            5 => run_rows::<5, VECTORS>(tiles, whole, 1),
            _ => {}
        }
    }
}

/// # Safety
/// As [`run`]; there are `VECTORS` vectors of columns, of which the last may be partial, and `count` strips of `ROWS` rows from
/// row `first` on.
#[target_feature(enable = "avx512f")]
unsafe fn run_rows<const ROWS: usize, const VECTORS: usize>(tiles: &Column, first: usize, count: usize) {
    let rest = tiles.columns - 16 * (VECTORS - 1);
    let last: __mmask16 = (0xffff_u32 >> (16 - rest)) as __mmask16;
    let mask = |v: usize| if v + 1 == VECTORS { last } else { 0xffff };
    for row in (first..first + count * ROWS).step_by(ROWS) {
        // SAFETY: masked lanes are not touched; the others lie inside the strip.
        unsafe {
            let (mut a, c) = tiles.strip(row, TILE_ROWS);
            let mut b = tiles.b;
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
            if tiles.start == Start::Continue {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm512_maskz_loadu_ps(mask(v), c.add(r * tiles.c_row_stride + 16 * v));
                    }
                }
            }
            for _ in 0..tiles.depth {
                let mut line = [_mm512_setzero_ps(); VECTORS];
                for (v, line) in line.iter_mut().enumerate() {
                    *line = if v + 1 == VECTORS {
                        _mm512_maskz_loadu_ps(last, b.add(16 * v))
                    } else {
                        _mm512_loadu_ps(b.add(16 * v))
                    };
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = _mm512_set1_ps(*a.add(r * tiles.a_row_stride));
                    for (sum, line) in sums.iter_mut().zip(&line) {
                        *sum = _mm512_fmadd_ps(left, *line, *sum);
                    }
                }
                a = a.wrapping_add(tiles.a_column_stride);
                b = b.wrapping_add(tiles.b_row_stride);
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    _mm512_mask_storeu_ps(c.add(r * tiles.c_row_stride + 16 * v), mask(v), *sum);
                }
            }
        }
    }
}

/// Transposes whole squares of 16 × 16 from `source` (column j of the block begins at j · `column_stride`, its rows are
/// contiguous) into the panel `target`; returns how many rows are done, for the columns below a multiple of 16.
///
/// # Safety
/// `source` holds the block; the processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
pub unsafe fn pack_transposed(
    source: &[f32],
    column_stride: usize,
    rows: usize,
    columns: usize,
    target: &mut [f32],
) -> usize {
    let whole_rows = rows / 16 * 16;
    for column in (0..columns / 16 * 16).step_by(16) {
        for row in (0..whole_rows).step_by(16) {
            let mut r = [_mm512_setzero_ps(); 16];
            for (j, r) in r.iter_mut().enumerate() {
                let from = (column + j) * column_stride + row;
                // SAFETY: the slice's bounds are checked here.
                *r = unsafe { _mm512_loadu_ps(source[from..from + 16].as_ptr()) };
            }
            let mut t = r;
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            for i in 0..4 {
                let d = |v: usize| _mm512_castps_pd(t[4 * i + v]);
                r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(d(0), d(2)));
                r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(d(0), d(2)));
                r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(d(1), d(3)));
                r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(d(1), d(3)));
            }
            for c in 0..4 {
                t[c] = _mm512_shuffle_f32x4::<0x88>(r[c], r[4 + c]);
                t[4 + c] = _mm512_shuffle_f32x4::<0xdd>(r[c], r[4 + c]);
                t[8 + c] = _mm512_shuffle_f32x4::<0x88>(r[8 + c], r[12 + c]);
                t[12 + c] = _mm512_shuffle_f32x4::<0xdd>(r[8 + c], r[12 + c]);
            }
            for c in 0..4 {
                r[c] = _mm512_shuffle_f32x4::<0x88>(t[c], t[8 + c]);
                r[8 + c] = _mm512_shuffle_f32x4::<0xdd>(t[c], t[8 + c]);
                r[4 + c] = _mm512_shuffle_f32x4::<0x88>(t[4 + c], t[12 + c]);
                r[12 + c] = _mm512_shuffle_f32x4::<0xdd>(t[4 + c], t[12 + c]);
            }
            for (i, r) in r.iter().enumerate() {
                let to = (row + i) * PANEL_COLUMNS + column;
                // SAFETY: the slice's bounds are checked here.
                unsafe { _mm512_storeu_ps(target[to..to + 16].as_mut_ptr(), *r) };
            }
        }
    }
    whole_rows
}
