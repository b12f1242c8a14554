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
/// contiguous) into the panel `target` with rows of `width`; returns how many rows are done, for the columns below a multiple of 16.
///
/// # Safety
/// `source` holds the block; the processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
pub unsafe fn pack_transposed(
    source: &[f32],
    column_stride: usize,
    rows: usize,
    columns: usize,
    width: usize,
    target: &mut [f32],
) -> usize {
    let whole_rows = rows / 16 * 16;
    for column in (0..columns / 16 * 16).step_by(16) {
        for row in (0..whole_rows).step_by(16) {
            let mut r = [_mm512_setzero_ps(); 16];
            // Only a large product's B is far from the core.
            if width == PACKED_COLUMNS {
                prefetch_squares(&source[column * column_stride..], column_stride, 16, row, whole_rows);
            }
            for (j, r) in r.iter_mut().enumerate() {
                let from = (column + j) * column_stride + row;
                // SAFETY: the slice's bounds are checked here.
                *r = unsafe { _mm512_loadu_ps(source[from..from + 16].as_ptr()) };
            }
            let r = transpose(r);
            for (i, r) in r.iter().enumerate() {
                let to = (row + i) * width + column;
                // SAFETY: the slice's bounds are checked here.
                unsafe { _mm512_storeu_ps(target[to..to + 16].as_mut_ptr(), *r) };
            }
        }
    }
    whole_rows
}

/// Fetches what is transposed four squares later: `count` lines of `source`, of which element `at` of `length` is next, or
/// the beginnings of as many behind them.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch_squares(source: &[f32], stride: usize, count: usize, at: usize, length: usize) {
    const AHEAD: usize = 64;
    let first = if at + AHEAD < length { at + AHEAD } else { count * stride + at + AHEAD - length };
    for line in 0..count {
        let ahead = source.as_ptr().wrapping_add(line * stride + first);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
    }
}

/// Transposes sixteen rows of sixteen.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(mut r: [__m512; 16]) -> [__m512; 16] {
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
    r
}

/// Tiles of 12 × 32 over packed strips and panels: as many accumulators, fewer bytes of B for each.
pub const PACKED_ROWS: usize = 12;
pub const PACKED_COLUMNS: usize = 32;

/// One tile of a strip and a packed panel.
///
/// # Safety
/// The pointers are valid for the shape, and A has rows up to a multiple of four; the processor has AVX-512 F.
pub unsafe fn run_packed(tile: &Column) {
    // SAFETY: passed on.
    unsafe {
        match (tile.a_column_stride, tile.b_row_stride) {
            (1, PACKED_COLUMNS) => packed_tile_of_rows::<1, PACKED_COLUMNS>(tile),
            (1, _) => packed_tile_of_rows::<1, PANEL_COLUMNS>(tile),
            (_, PACKED_COLUMNS) => packed_tile_of_rows::<PACKED_ROWS, PACKED_COLUMNS>(tile),
            (_, _) => packed_tile_of_rows::<PACKED_ROWS, PANEL_COLUMNS>(tile),
        }
    }
}

/// # Safety
/// As [`run_packed`].
unsafe fn packed_tile_of_rows<const A_COLUMN_STRIDE: usize, const B_ROW_STRIDE: usize>(tile: &Column) {
    assert!(
        (tile.a_column_stride, tile.b_row_stride) == (A_COLUMN_STRIDE, B_ROW_STRIDE),
        "strides of a tile"
    );
    // SAFETY: passed on.
    unsafe {
        match (tile.rows.div_ceil(4), tile.columns == PACKED_COLUMNS) {
            (1, true) => packed_tile::<4, A_COLUMN_STRIDE, B_ROW_STRIDE, false>(tile),
            (2, true) => packed_tile::<8, A_COLUMN_STRIDE, B_ROW_STRIDE, false>(tile),
            (_, true) => packed_tile::<12, A_COLUMN_STRIDE, B_ROW_STRIDE, false>(tile),
            (1, false) => packed_tile::<4, A_COLUMN_STRIDE, B_ROW_STRIDE, true>(tile),
            (2, false) => packed_tile::<8, A_COLUMN_STRIDE, B_ROW_STRIDE, true>(tile),
            (_, false) => packed_tile::<12, A_COLUMN_STRIDE, B_ROW_STRIDE, true>(tile),
        }
    }
}

/// Links of one turn of the inner loop.
const LINKS: usize = 4;
/// Links that the loads of B run ahead of their use: B comes from the L2 cache.
const AHEAD: usize = 8;

/// # Safety
/// As [`run_packed`]; the tile has at most `ROWS` rows, and fewer than 32 columns if `PARTIAL`.
#[target_feature(enable = "avx512f")]
unsafe fn packed_tile<
    const ROWS: usize,
    const A_COLUMN_STRIDE: usize,
    const B_ROW_STRIDE: usize,
    const PARTIAL: bool,
>(
    tile: &Column,
) {
    let lanes = if PARTIAL { (1u32 << tile.columns) - 1 } else { u32::MAX };
    let masks = [lanes as __mmask16, (lanes >> 16) as __mmask16];
    let mut b = tile.b;
    // One pointer for three rows: sixteen registers hold the addresses of twelve rows at any distance.
    let mut a = [tile.a; 4];
    for (triple, a) in a.iter_mut().enumerate() {
        *a = a.wrapping_add(3 * triple * tile.a_row_stride);
    }
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    // SAFETY: masked lanes and rows beyond the tile's are not touched; prefetches may point anywhere.
    unsafe {
        if tile.start == Start::Continue {
            for (r, sums) in sums.iter_mut().enumerate() {
                if r < tile.rows {
                    let c = tile.c.add(r * tile.c_row_stride);
                    sums[0] = _mm512_maskz_loadu_ps(masks[0], c);
                    sums[1] = _mm512_maskz_loadu_ps(masks[1], c.wrapping_add(16));
                }
            }
        }
        // The tile to the right is fetched row by row meanwhile.
        for part in 0..=ROWS {
            let next = tile.c.wrapping_add(part.min(ROWS - 1) * tile.c_row_stride + PACKED_COLUMNS);
            _mm_prefetch::<_MM_HINT_ET0>(next.cast());
            _mm_prefetch::<_MM_HINT_ET0>(next.wrapping_add(16).cast());
            let (count, unrolled) = if part < ROWS {
                (tile.depth / (LINKS * ROWS), LINKS)
            } else {
                (tile.depth % (LINKS * ROWS), 1)
            };
            for _ in 0..count {
                for link in 0..LINKS {
                    if link == unrolled {
                        break;
                    }
                    let b = b.wrapping_add(link * B_ROW_STRIDE);
                    let ahead = b.wrapping_add(AHEAD * B_ROW_STRIDE);
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(16).cast());
                    let line = if PARTIAL {
                        [_mm512_maskz_loadu_ps(masks[0], b), _mm512_maskz_loadu_ps(masks[1], b.add(16))]
                    } else {
                        [_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16))]
                    };
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let left = _mm512_set1_ps(
                            *a[r / 3].wrapping_add(r % 3 * tile.a_row_stride + link * A_COLUMN_STRIDE),
                        );
                        sums[0] = _mm512_fmadd_ps(left, line[0], sums[0]);
                        sums[1] = _mm512_fmadd_ps(left, line[1], sums[1]);
                    }
                }
                for a in &mut a {
                    *a = a.wrapping_add(unrolled * A_COLUMN_STRIDE);
                }
                b = b.wrapping_add(unrolled * B_ROW_STRIDE);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            if r < tile.rows {
                let c = tile.c.add(r * tile.c_row_stride);
                _mm512_mask_storeu_ps(c, masks[0], sums[0]);
                _mm512_mask_storeu_ps(c.wrapping_add(16), masks[1], sums[1]);
            }
        }
    }
}

/// Packs `rows` rows of A, `stride` apart, into strips of twelve.
///
/// # Safety
/// The processor has AVX-512 F.
///
/// # Panics
/// When `target` has no room for whole strips and four floats more.
#[target_feature(enable = "avx512f")]
pub unsafe fn pack_strips_of_rows(
    source: &[f32],
    stride: usize,
    rows: usize,
    depth: usize,
    target: &mut [f32],
) {
    for first in (0..rows).step_by(PACKED_ROWS) {
        let here = PACKED_ROWS.min(rows - first);
        let target = &mut target[first * depth..][..PACKED_ROWS * depth + 4];
        for k in (0..depth).step_by(16) {
            let links = 16.min(depth - k);
            let mask = (0xffff_u32 >> (16 - links)) as __mmask16;
            let mut square = [_mm512_setzero_ps(); 16];
            prefetch_squares(&source[first * stride..], stride, PACKED_ROWS, k, depth);
            for (r, to) in square[..here].iter_mut().enumerate() {
                let line = &source[(first + r) * stride + k..][..links];
                // SAFETY: the line has `links` floats.
                *to = unsafe { _mm512_maskz_loadu_ps(mask, line.as_ptr()) };
            }
            for (i, line) in transpose(square)[..links].iter().enumerate() {
                // Sixteen floats, of which the next line overwrites four.
                let to = &mut target[(k + i) * PACKED_ROWS..][..16];
                // SAFETY: the slice has sixteen floats.
                unsafe { _mm512_storeu_ps(to.as_mut_ptr(), *line) };
            }
        }
    }
}

/// Packs `rows` rows of a transposed A, whose lines begin `stride` apart, into strips of twelve.
///
/// # Safety
/// The processor has AVX-512 F.
///
/// # Panics
/// As [`pack_strips_of_rows`].
#[target_feature(enable = "avx512f")]
pub unsafe fn pack_strips_of_lines(
    source: &[f32],
    stride: usize,
    rows: usize,
    depth: usize,
    target: &mut [f32],
) {
    const LINES: usize = 16;
    for k in (0..depth).step_by(LINES) {
        // The lines lie far apart, which no processor foresees.
        for k in (k + LINES..k + 2 * LINES).take_while(|k| *k < depth) {
            for r in (0..rows).step_by(16) {
                _mm_prefetch::<_MM_HINT_T0>(source.as_ptr().wrapping_add(k * stride + r).cast());
            }
        }
        for first in (0..rows).step_by(PACKED_ROWS) {
            let here = PACKED_ROWS.min(rows - first);
            let mask = (0xffff_u32 >> (16 - here)) as __mmask16;
            let target = &mut target[first * depth..];
            for k in k..depth.min(k + LINES) {
                let line = &source[k * stride + first..][..here];
                let to = &mut target[k * PACKED_ROWS..][..PACKED_ROWS];
                // SAFETY: both slices have the floats.
                unsafe {
                    _mm512_mask_storeu_ps(to.as_mut_ptr(), 0xfff, _mm512_maskz_loadu_ps(mask, line.as_ptr()));
                }
            }
        }
    }
}

/// Copies `rows` rows of B, `stride` apart, into `panels` panels one behind another: whole stretches of a row at once, for
/// the rows lie far apart.
///
/// # Safety
/// The processor has AVX-512 F.
///
/// # Panics
/// When `source` or `target` is too short.
#[target_feature(enable = "avx512f")]
pub unsafe fn pack_panels_of_rows(
    source: &[f32],
    stride: usize,
    rows: usize,
    panels: usize,
    target: &mut [f32],
) {
    const AHEAD: usize = 8;
    let target = &mut target[..panels * rows * PACKED_COLUMNS];
    for row in 0..rows {
        let line = &source[row * stride..][..panels * PACKED_COLUMNS];
        for (panel, from) in line.chunks_exact(PACKED_COLUMNS).enumerate() {
            let to = &mut target[(panel * rows + row) * PACKED_COLUMNS..][..PACKED_COLUMNS];
            // SAFETY: both slices have 32 floats; a prefetch may point anywhere.
            unsafe {
                let ahead = from.as_ptr().wrapping_add(AHEAD * stride);
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(16).cast());
                let (first, last) = (_mm512_loadu_ps(from.as_ptr()), _mm512_loadu_ps(from.as_ptr().add(16)));
                _mm512_storeu_ps(to.as_mut_ptr(), first);
                _mm512_storeu_ps(to.as_mut_ptr().add(16), last);
            }
        }
    }
}
