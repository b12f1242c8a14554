//! Tiles of 4 × 16 in plain Rust: NEON on aarch64, and the reference on x86-64 without FMA.

use super::{Column, Start};

pub const TILE_ROWS: usize = 4;
pub const TILE_COLUMNS: usize = 16;

/// # Safety
/// The pointers are valid for the shape.
pub unsafe fn run(tiles: &Column) {
    // SAFETY: passed on.
    unsafe {
        let whole = tiles.rows / TILE_ROWS * TILE_ROWS;
        run_rows::<TILE_ROWS>(tiles, 0, whole / TILE_ROWS);
        match tiles.rows % TILE_ROWS {
            1 => run_rows::<1>(tiles, whole, 1),
            2 => run_rows::<2>(tiles, whole, 1),
            3 => run_rows::<3>(tiles, whole, 1),
            _ => {}
        }
    }
}

/// # Safety
/// As [`run`]; there are `count` strips of `ROWS` rows from row `first` on.
unsafe fn run_rows<const ROWS: usize>(tiles: &Column, first: usize, count: usize) {
    for row in (first..first + count * ROWS).step_by(ROWS) {
        let mut sums = [[0.0f32; TILE_COLUMNS]; ROWS];
        // SAFETY: rows and columns stay within the strip.
        unsafe {
            let (a, c) = tiles.strip(row, TILE_ROWS);
            if tiles.start == Start::Continue {
                for (r, sums) in sums.iter_mut().enumerate() {
                    std::ptr::copy_nonoverlapping(
                        c.add(r * tiles.c_row_stride),
                        sums.as_mut_ptr(),
                        tiles.columns,
                    );
                }
            }
            let mut line = [0.0f32; TILE_COLUMNS];
            for k in 0..tiles.depth {
                let b = tiles.b.add(k * tiles.b_row_stride);
                if tiles.columns == TILE_COLUMNS {
                    line = b.cast::<[f32; TILE_COLUMNS]>().read_unaligned();
                } else {
                    std::ptr::copy_nonoverlapping(b, line.as_mut_ptr(), tiles.columns);
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let left = *a.add(r * tiles.a_row_stride + k * tiles.a_column_stride);
                    for (sum, b) in sums.iter_mut().zip(&line) {
                        *sum = left.mul_add(*b, *sum);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                std::ptr::copy_nonoverlapping(sums.as_ptr(), c.add(r * tiles.c_row_stride), tiles.columns);
            }
        }
    }
}
