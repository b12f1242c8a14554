//! Tiles of 6 × 16 for AVX2 with FMA: twelve accumulators of the sixteen registers.

use super::{Start, Tile};
use std::arch::x86_64::*;

pub const TILE_ROWS: usize = 6;
pub const TILE_COLUMNS: usize = 16;

/// # Safety
/// The tile's pointers are valid for its shape; the processor has AVX2 and FMA.
pub unsafe fn run(tile: &Tile) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            1 => run_rows::<1>(tile),
            2 => run_rows::<2>(tile),
            3 => run_rows::<3>(tile),
            4 => run_rows::<4>(tile),
            5 => run_rows::<5>(tile),
            _ => run_rows::<6>(tile),
        }
    }
}

/// # Safety
/// As [`run`]; the tile has `ROWS` rows.
#[target_feature(enable = "avx2,fma")]
unsafe fn run_rows<const ROWS: usize>(tile: &Tile) {
    let mut lanes = [0i32; TILE_COLUMNS];
    lanes[..tile.columns].fill(-1);
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    // SAFETY: masked lanes are not touched; the others lie inside the tile.
    unsafe {
        let masks =
            [_mm256_loadu_si256(lanes.as_ptr().cast()), _mm256_loadu_si256(lanes.as_ptr().add(8).cast())];
        if tile.start == Start::Continue {
            for (r, sums) in sums.iter_mut().enumerate() {
                for v in 0..2 {
                    sums[v] = _mm256_maskload_ps(tile.c.add(r * tile.c_row_stride + 8 * v), masks[v]);
                }
            }
        }
        let (mut a, mut b) = (tile.a, tile.b);
        for _ in 0..tile.depth {
            let line = [_mm256_maskload_ps(b, masks[0]), _mm256_maskload_ps(b.wrapping_add(8), masks[1])];
            for (r, sums) in sums.iter_mut().enumerate() {
                let left = _mm256_broadcast_ss(&*a.add(r * tile.a_row_stride));
                for v in 0..2 {
                    sums[v] = _mm256_fmadd_ps(left, line[v], sums[v]);
                }
            }
            a = a.wrapping_add(tile.a_column_stride);
            b = b.wrapping_add(tile.b_row_stride);
        }
        for (r, sums) in sums.iter().enumerate() {
            for v in 0..2 {
                _mm256_maskstore_ps(tile.c.wrapping_add(r * tile.c_row_stride + 8 * v), masks[v], sums[v]);
            }
        }
    }
}
