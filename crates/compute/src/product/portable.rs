//! Tiles of 4 × 16 in plain Rust: NEON on aarch64, and the reference on x86-64 without FMA.

use super::{Start, Tile};

pub const TILE_ROWS: usize = 4;
pub const TILE_COLUMNS: usize = 16;

/// # Safety
/// The tile's pointers are valid for its shape.
pub unsafe fn run(tile: &Tile) {
    // SAFETY: passed on.
    unsafe {
        match tile.rows {
            1 => run_rows::<1>(tile),
            2 => run_rows::<2>(tile),
            3 => run_rows::<3>(tile),
            _ => run_rows::<4>(tile),
        }
    }
}

/// # Safety
/// As [`run`]; the tile has `ROWS` rows.
unsafe fn run_rows<const ROWS: usize>(tile: &Tile) {
    let mut sums = [[0.0f32; TILE_COLUMNS]; ROWS];
    // SAFETY: rows and columns stay within the tile's shape.
    unsafe {
        if tile.start == Start::Continue {
            for (r, sums) in sums.iter_mut().enumerate() {
                std::ptr::copy_nonoverlapping(
                    tile.c.add(r * tile.c_row_stride),
                    sums.as_mut_ptr(),
                    tile.columns,
                );
            }
        }
        let mut line = [0.0f32; TILE_COLUMNS];
        for k in 0..tile.depth {
            let b = tile.b.add(k * tile.b_row_stride);
            if tile.columns == TILE_COLUMNS {
                line = b.cast::<[f32; TILE_COLUMNS]>().read_unaligned();
            } else {
                std::ptr::copy_nonoverlapping(b, line.as_mut_ptr(), tile.columns);
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = *tile.a.add(r * tile.a_row_stride + k * tile.a_column_stride);
                for (sum, b) in sums.iter_mut().zip(&line) {
                    *sum = a.mul_add(*b, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            std::ptr::copy_nonoverlapping(sums.as_ptr(), tile.c.add(r * tile.c_row_stride), tile.columns);
        }
    }
}
