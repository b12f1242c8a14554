//! The chain of the matrix unit by AVX-512 BF16, for processors that have its dot product of pairs and no matrix unit.
//!
//! `VDPBF16PS` adds the upper product of a pair and then the lower one to a lane (AMD64 architecture programmer's manual, volume
//! 4; Intel's, volume 2). The chain wants even and odd inputs apart: so the pairs are put together anew, of two even inputs or of
//! two odd ones, the earlier above. Products of bf16 are exact in f32; subnormal numbers count as zero, as in the matrix unit.

use super::{
    COLUMNS, DEPTH, Part, STEP_NUMBERS, STEPS, Sums, TILE, TILE_NUMBERS, TileRows, avx512, portable,
};
use crate::float16::bf16_bits;
use crate::random::uniform;
use std::arch::x86_64::*;
use std::cell::RefCell;
use std::sync::OnceLock;

/// Rows that share a weight in a register: their sums, even and odd ones of two vectors, are 24 registers.
const ROWS: usize = 6;
/// From this many rows on, it is worth the while to put the weights' pairs together anew.
const ROWS_WORTH_PAIRING: usize = 10;
/// Vectors of sixteen columns in a panel.
const VECTORS: usize = COLUMNS / TILE;
/// Pairs of even inputs in a step; as many of odd ones.
const PAIRS: usize = DEPTH / 4;
/// Numbers of a vector.
const LANES: usize = 2 * TILE;

/// Whether the processor has the instruction, and follows the chain with it: a product is tried.
pub fn is_ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| {
        let has = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512bw");
        // SAFETY: the processor has the instructions.
        has && unsafe { follows_the_chain() }
    })
}

/// # Safety
/// The processor has AVX-512 F, BW and BF16.
unsafe fn follows_the_chain() -> bool {
    let numbers = |seed: u64, count: u64| -> Vec<u16> {
        let number = |place| bf16_bits(uniform(seed, place) as f32 - 0.5);
        (0..count).map(number).collect()
    };
    let (x, weights) = (numbers(1, (TILE * DEPTH) as u64), numbers(2, STEP_NUMBERS as u64));
    let x = TileRows { numbers: &x, rows: TILE, steps: 1 };
    let part = Part { x, first: 0, weights: &weights, paired: None };
    let [mut expected, mut found] = [0.25f32; 2].map(|start| vec![start; TILE * COLUMNS]);
    portable::multiply(&part, &mut Sums { numbers: &mut expected, stride: COLUMNS });
    // SAFETY: passed on.
    unsafe { multiply(&part, &mut Sums { numbers: &mut found, stride: COLUMNS }) };
    expected == found
}

thread_local! {
    static WEIGHTS: RefCell<Box<[Weights]>> = RefCell::new(vec![[[0; LANES]; STEP_NUMBERS / LANES]; STEPS].into());
    static X: RefCell<Vec<RowsStep>> = const { RefCell::new(Vec::new()) };
}

/// A step of a panel, paired anew: for each vector, the pairs of even inputs, then those of odd ones.
type Weights = [[u16; LANES]; STEP_NUMBERS / LANES];

/// A step of some rows, paired anew: of each row, the pairs of even inputs, then those of odd ones.
pub type RowsStep = [[u16; DEPTH]; ROWS];

/// How many rows go together, of so many: at most [`ROWS`], and about as many each time, since the rows of few wait for each other.
fn together(rows: usize) -> usize {
    rows.div_ceil(rows.div_ceil(ROWS).max(1)).max(1)
}

/// Whether so many rows are paired anew.
pub fn is_worth(rows: usize) -> bool {
    rows >= ROWS_WORTH_PAIRING
}

/// Steps of rows that [`pair_rows`] writes.
pub fn paired_steps(rows: usize, steps: usize) -> usize {
    rows.div_ceil(together(rows)) * steps
}

/// `steps` steps of all rows from `first` on: those of the rows that go together one behind another.
///
/// # Safety
/// [`is_ready`] says so.
#[target_feature(enable = "avx512f,avx512bw")]
pub unsafe fn pair_rows(x: TileRows, first: usize, steps: usize, paired: &mut [RowsStep]) {
    let (order, each) = (load(&ORDER), together(x.rows));
    for (rows, paired) in (0..x.rows).step_by(each).zip(paired.chunks_exact_mut(steps)) {
        for (step, paired) in paired.iter_mut().enumerate() {
            for (row, paired) in (rows..(rows + each).min(x.rows)).zip(paired) {
                store(_mm512_permutexvar_epi16(order, load(x.part(row, first + step))), paired);
            }
        }
    }
}

/// All rows of x against one panel.
///
/// # Safety
/// [`is_ready`] says so.
pub unsafe fn multiply(part: &Part, sums: &mut Sums) {
    let steps = part.weights.len() / STEP_NUMBERS;
    if steps == 0 {
        return;
    }
    let rows = part.x.rows;
    match part.paired {
        // SAFETY: passed on.
        Some(paired) => unsafe {
            multiply_paired(rows, paired, part.x.steps, part.first, part.weights, sums)
        },
        // SAFETY: passed on.
        None if !is_worth(rows) => unsafe { avx512::multiply(part, sums) },
        None => X.with_borrow_mut(|x| {
            x.resize(x.len().max(paired_steps(rows, steps)), [[0; DEPTH]; ROWS]);
            // SAFETY: passed on.
            unsafe {
                pair_rows(part.x, part.first, steps, x);
                multiply_paired(rows, x, steps, 0, part.weights, sums);
            }
        }),
    }
}

/// Rows of `all` steps against those weights that begin at the `first` of them.
///
/// # Safety
/// [`is_ready`] says so.
unsafe fn multiply_paired(
    rows: usize,
    x: &[RowsStep],
    all: usize,
    first: usize,
    weights: &[u16],
    sums: &mut Sums,
) {
    WEIGHTS.with_borrow_mut(|paired| {
        for (index, weights) in weights.chunks(STEPS * STEP_NUMBERS).enumerate() {
            let weights = weights.as_chunks::<STEP_NUMBERS>().0;
            let paired = &mut paired[..weights.len()];
            for (paired, weights) in paired.iter_mut().zip(weights) {
                // SAFETY: passed on.
                unsafe { pair(weights, paired) };
            }
            let each = together(rows);
            for (row, x) in (0..rows).step_by(each).zip(x.chunks_exact(all)) {
                let x = &x[first + index * STEPS..][..paired.len()];
                // SAFETY: passed on.
                unsafe {
                    match each.min(rows - row) {
                        1 => run::<1>(x, paired, row, sums),
                        2 => run::<2>(x, paired, row, sums),
                        3 => run::<3>(x, paired, row, sums),
                        4 => run::<4>(x, paired, row, sums),
                        5 => run::<5>(x, paired, row, sums),
                        _ => run::<ROWS>(x, paired, row, sums),
                    }
                }
            }
        }
    });
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pair(weights: &[u16; STEP_NUMBERS], paired: &mut Weights) {
    // The lower half of each pair.
    const LOWER: __mmask32 = 0x5555_5555;
    let lines = weights.as_chunks::<LANES>().0.as_chunks::<2>().0;
    let tiles = paired.as_chunks_mut::<{ TILE_NUMBERS / LANES }>().0;
    for (tile, lines) in tiles.iter_mut().zip(lines.as_chunks::<PAIRS>().0) {
        let (even, odd) = tile.split_at_mut(PAIRS);
        for ((lines, even), odd) in lines.iter().zip(even).zip(odd) {
            let [earlier, later] = [load(&lines[0]), load(&lines[1])];
            store(_mm512_mask_blend_epi16(LOWER, _mm512_slli_epi32::<16>(earlier), later), even);
            store(_mm512_mask_blend_epi16(LOWER, earlier, _mm512_srli_epi32::<16>(later)), odd);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(numbers: &[u16; LANES]) -> __m512i {
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(vector: __m512i, numbers: &mut [u16; LANES]) {
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_si512(numbers.as_mut_ptr().cast(), vector) };
}

/// Where the inputs of a step stand when they are paired anew: the lower one of a pair is the later.
const ORDER: [u16; DEPTH] = {
    let mut order = [0; DEPTH];
    let mut place = 0;
    while place < DEPTH {
        let (pair, odd) = (place / 2 % PAIRS, place / 2 / PAIRS);
        order[place] = (4 * pair + odd + if place % 2 == 0 { 2 } else { 0 }) as u16;
        place += 1;
    }
    order
};

/// `R` rows from `row` on.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn run<const R: usize>(x: &[RowsStep], weights: &[Weights], row: usize, sums: &mut Sums) {
    for (weights, x) in weights.iter().zip(x) {
        let mut even = [[_mm512_setzero_ps(); VECTORS]; R];
        let mut odd = [[_mm512_setzero_ps(); VECTORS]; R];
        for pair in 0..PAIRS {
            let weight = |v: usize, of: usize| bits(load(&weights[(2 * v + of) * PAIRS + pair]));
            let weights: [[__m512bh; 2]; VECTORS] = std::array::from_fn(|v| [weight(v, 0), weight(v, 1)]);
            for r in 0..R {
                let [low, high] = [both(&x[r], pair), both(&x[r], PAIRS + pair)];
                for v in 0..VECTORS {
                    even[r][v] = _mm512_dpbf16_ps(even[r][v], low, weights[v][0]);
                    odd[r][v] = _mm512_dpbf16_ps(odd[r][v], high, weights[v][1]);
                }
            }
        }
        for r in 0..R {
            for (v, sums) in sums.row(row + r).as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
                // SAFETY: sixteen floats.
                unsafe {
                    let before = _mm512_loadu_ps(sums.as_ptr());
                    let sum = _mm512_add_ps(before, _mm512_add_ps(even[r][v], odd[r][v]));
                    _mm512_storeu_ps(sums.as_mut_ptr(), sum);
                }
            }
        }
    }
}

/// A pair of a row for all columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn both(row: &[u16; DEPTH], pair: usize) -> __m512bh {
    let [low, high] = [row[2 * pair], row[2 * pair + 1]];
    bits(_mm512_set1_epi32((low as u32 | (high as u32) << 16) as i32))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn bits(vector: __m512i) -> __m512bh {
    // SAFETY: 32 numbers of sixteen bits.
    unsafe { std::mem::transmute(vector) }
}

#[cfg(test)]
mod tests {
    use super::super::{Bf16Matrix, Bf16Rows};
    use super::*;
    use crate::testing::normal_numbers;

    /// Also where a matrix unit goes before.
    #[test]
    fn pairs_give_the_chain_of_the_matrix_unit() {
        let (inputs, all) = (20 * DEPTH, 37);
        let (x, w) = (normal_numbers(1, all * inputs), normal_numbers(2, COLUMNS * inputs));
        let matrix = Bf16Matrix::new(&w, inputs);
        for rows in (1..=all).filter(|_| is_ready()) {
            let x = Bf16Rows::of(&x[..rows * inputs], inputs);
            for (first, steps) in [(0, 20), (3, 17), (19, 1), (5, 0)] {
                let part = Part { x: x.tiles(), first, weights: matrix.steps(0, first, steps), paired: None };
                let [mut expected, mut found] = [1, 2].map(|_| vec![0.5; all * COLUMNS]);
                portable::multiply(&part, &mut Sums { numbers: &mut expected, stride: COLUMNS });
                // SAFETY: the processor has the instructions, as was asked.
                unsafe { multiply(&part, &mut Sums { numbers: &mut found, stride: COLUMNS }) };
                assert!(found == expected, "{rows} rows, {steps} steps from {first} on");
            }
        }
    }
}
