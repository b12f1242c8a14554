//! Tiles of 6 × 16 for AVX2 with FMA: twelve accumulators of the sixteen registers.

use super::{Column, Start};
use std::arch::x86_64::*;

pub const TILE_ROWS: usize = 6;
pub const TILE_COLUMNS: usize = 16;

/// # Safety
/// The pointers are valid for the shape; the processor has AVX2 and FMA.
pub unsafe fn run(tiles: &Column) {
    // SAFETY: passed on.
    unsafe {
        let whole = tiles.rows / TILE_ROWS * TILE_ROWS;
        run_rows::<TILE_ROWS>(tiles, 0, whole / TILE_ROWS);
        match tiles.rows % TILE_ROWS {
            1 => run_rows::<1>(tiles, whole, 1),
            2 => run_rows::<2>(tiles, whole, 1),
            3 => run_rows::<3>(tiles, whole, 1),
            4 => run_rows::<4>(tiles, whole, 1),
            5 => run_rows::<5>(tiles, whole, 1),
            _ => {}
        }
    }
}

/// # Safety
/// As [`run`]; there are `count` strips of `ROWS` rows from row `first` on.
#[target_feature(enable = "avx2,fma")]
unsafe fn run_rows<const ROWS: usize>(tiles: &Column, first: usize, count: usize) {
    let mut lanes = [0i32; TILE_COLUMNS];
    lanes[..tiles.columns].fill(-1);
    // SAFETY: the array holds sixteen lanes.
    let masks = unsafe {
        [_mm256_loadu_si256(lanes.as_ptr().cast()), _mm256_loadu_si256(lanes.as_ptr().add(8).cast())]
    };
    for row in (first..first + count * ROWS).step_by(ROWS) {
        // SAFETY: masked lanes are not touched; the others lie inside the strip.
        unsafe {
            let (mut a, c) = tiles.strip(row, TILE_ROWS);
            let mut b = tiles.b;
            let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
            if tiles.start == Start::Continue {
                for (r, sums) in sums.iter_mut().enumerate() {
                    for v in 0..2 {
                        sums[v] =
                            _mm256_maskload_ps(c.wrapping_add(r * tiles.c_row_stride + 8 * v), masks[v]);
                    }
                }
            }
            for _ in 0..tiles.depth {
                let line = [_mm256_maskload_ps(b, masks[0]), _mm256_maskload_ps(b.wrapping_add(8), masks[1])];
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = _mm256_broadcast_ss(&*a.add(r * tiles.a_row_stride));
                    for v in 0..2 {
                        sums[v] = _mm256_fmadd_ps(left, line[v], sums[v]);
                    }
                }
                a = a.wrapping_add(tiles.a_column_stride);
                b = b.wrapping_add(tiles.b_row_stride);
            }
            for (r, sums) in sums.iter().enumerate() {
                for v in 0..2 {
                    _mm256_maskstore_ps(c.wrapping_add(r * tiles.c_row_stride + 8 * v), masks[v], sums[v]);
                }
            }
        }
    }
}
