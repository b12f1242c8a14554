//! What this machine can do at most: bytes read from memory and operations, per second. Decoding is limited by the first,
//! prefill by the second, so that both say what to expect of a model before it is loaded.
//!
//! Each figure is the best of a few short runs on all threads: the machine's limit, not its average under load.

use crate::bf16::{Bf16Matrix, Bf16Rows};
#[cfg(target_arch = "x86_64")]
use crate::path::CpuPath;
use crate::path::vectorised;
use crate::product::{MatrixMut, MatrixRef, Start, multiply_parallel};
use crate::team::Team;
use rayon::prelude::*;
use std::time::{Duration, Instant};

/// Bytes to read, larger than any cache: caches of several hundred megabytes are sold.
pub const BANDWIDTH_BYTES: usize = 1 << 30;
/// Each figure is measured for so long: on a machine with other work some runs are left alone.
const MEASURED: Duration = Duration::from_millis(800);
const FEWEST_RUNS: usize = 2;
/// Side of the square matrices: large enough for full speed, small enough to be soon over.
const PRODUCT_SIDE: usize = 1024;
/// One run of an instruction alone.
const ALONE_RUN: Duration = Duration::from_millis(50);
/// Sums beside each other, more than an instruction's latency times its throughput: none waits for itself.
const CHAINS: usize = 16;
/// Rounds between two looks at the clock.
const STEPS: u64 = 4096;

/// Bytes per second that all threads of `pool` read from memory together, over a buffer of `bytes` bytes.
pub fn read_bandwidth(pool: &rayon::ThreadPool, bytes: usize) -> f64 {
    let reading = Reading::new(pool, bytes);
    best(|| reading.once())
}

/// A buffer to be read as fast as it comes from memory, again and again beside something else that reads.
#[derive(Debug)]
pub struct Reading<'a> {
    pool: &'a rayon::ThreadPool,
    parts: Vec<Vec<u64>>,
}

impl Reading<'_> {
    /// Some `bytes` bytes for the threads of `pool`.
    pub fn new(pool: &rayon::ThreadPool, bytes: usize) -> Reading<'_> {
        let threads = pool.current_num_threads();
        let words = (bytes / size_of::<u64>()).max(threads);
        // Written by the thread that reads it: pages lie near their reader.
        let part = |part| vec![part as u64 + 1; words / threads];
        Reading { pool, parts: pool.install(|| (0..threads).into_par_iter().map(part).collect()) }
    }

    /// Reads all of it once, all threads together: bytes per second.
    pub fn once(&self) -> f64 {
        let words: usize = self.parts.iter().map(Vec::len).sum();
        self.pool.install(|| {
            let began = Instant::now();
            let sum: u64 = self.parts.par_iter().map(|part| sum(part)).reduce(|| 0, u64::wrapping_add);
            std::hint::black_box(sum);
            (words * size_of::<u64>()) as f64 / seconds(began.elapsed())
        })
    }
}

/// Floating-point operations (f32, a fused multiply-add counts two) per second of all threads of `pool` in this crate's
/// own matrix product.
pub fn f32_operations(pool: &rayon::ThreadPool) -> f64 {
    let (a, b) = (vec![0.5; PRODUCT_SIDE * PRODUCT_SIDE], vec![0.25; PRODUCT_SIDE * PRODUCT_SIDE]);
    let mut c = vec![0.0; PRODUCT_SIDE * PRODUCT_SIDE];
    let operations = 2.0 * (PRODUCT_SIDE as f64).powi(3);
    let side = PRODUCT_SIDE;
    pool.install(|| {
        best(|| {
            let began = Instant::now();
            multiply_parallel(
                pool.current_num_threads(),
                MatrixRef::new(&a, side, side),
                MatrixRef::new(&b, side, side),
                MatrixMut::new(&mut c, side, side),
                Start::Zero,
            );
            std::hint::black_box(&c);
            operations / seconds(began.elapsed())
        })
    })
}

/// Operations per second of `threads` threads in this crate's own product in bf16, sums in f32.
pub fn bf16_operations(threads: usize) -> f64 {
    let side = PRODUCT_SIDE;
    let values = vec![0.5; side * side];
    let (weights, rows) = (Bf16Matrix::new(&values, side), Bf16Rows::of(&values, side));
    let mut y = vec![0.0; side * side];
    let team = Team::new(threads);
    best(|| {
        let began = Instant::now();
        weights.multiply(&team, &rows, &mut y);
        std::hint::black_box(&y);
        2.0 * (side as f64).powi(3) / seconds(began.elapsed())
    })
}

/// Whether kernels use 8-bit dot products (VNNI) here.
pub fn uses_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    return CpuPath::detected() == CpuPath::Avx512 && crate::path::has_vnni();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// What instructions do per second on all threads of `pool`, on numbers that stay in registers: no product of matrices is
/// faster. Multiplications and additions count one each.
#[derive(Clone, Copy, Debug)]
pub struct Peaks {
    /// Fused multiply-adds of f32 in the widest registers.
    pub f32: f64,
    /// Dot products of bytes in 512 bits (VNNI), where the processor has them.
    pub int8: Option<f64>,
    /// Sums of products of pairs in bf16 in 512 bits (AVX-512 BF16), where the processor has them.
    pub pairs: Option<f64>,
    /// The matrix unit (AMX) in bf16, where there is one that may be used.
    pub matrix_unit: Option<f64>,
}

impl Peaks {
    /// Measures for a second or two.
    pub fn measure(pool: &rayon::ThreadPool) -> Peaks {
        Peaks {
            f32: on_all(pool, fused_sums),
            int8: int8_operations(pool),
            // SAFETY: the processor has the instructions, as is asked.
            #[cfg(target_arch = "x86_64")]
            pairs: crate::bf16::has_pairs().then(|| on_all(pool, |span| unsafe { sums_of_pairs_512(span) })),
            #[cfg(not(target_arch = "x86_64"))]
            pairs: None,
            #[cfg(target_arch = "x86_64")]
            matrix_unit: crate::bf16::has_matrix_unit().then(|| on_all(pool, crate::bf16::tile_products)),
            #[cfg(not(target_arch = "x86_64"))]
            matrix_unit: None,
        }
    }
}

/// 8-bit multiplications and additions per second of all threads of `pool`, where the processor has an instruction for
/// their dot product in 512 bits (VNNI); `None` where it has not. Of the instruction alone: no product of matrices is faster.
pub fn int8_operations(pool: &rayon::ThreadPool) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the processor has the instructions, as was just asked.
        return Some(on_all(pool, |span| unsafe { dot_products_512(span) }));
    }
    let _ = pool;
    None
}

/// Operations per second when each thread counts those that it does in about a span.
fn on_all(pool: &rayon::ThreadPool, count: impl Fn(Duration) -> u64 + Sync) -> f64 {
    let threads = pool.current_num_threads();
    pool.install(|| {
        best(|| {
            let began = Instant::now();
            let operations: u64 = (0..threads).into_par_iter().map(|_| count(ALONE_RUN)).sum();
            operations as f64 / seconds(began.elapsed())
        })
    })
}

/// Operations that one thread does in about `$span`, on numbers that stay in registers: each step gives every one of `$sums`
/// its next value, at `$each` operations.
macro_rules! repeated {
    ($span:expr, $sums:ident, $each:expr, |$sum:ident| $next:expr) => {{
        let began = Instant::now();
        let mut operations = 0;
        while began.elapsed() < $span {
            for _ in 0..STEPS {
                for $sum in &mut $sums {
                    *$sum = $next;
                }
            }
            operations += STEPS * $sums.len() as u64 * $each;
        }
        // Otherwise nobody would need them.
        std::hint::black_box($sums);
        operations
    }};
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_products_512(span: Duration) -> u64 {
    use std::arch::x86_64::{_mm512_dpbusd_epi32, _mm512_set1_epi8};
    let (a, b) = (_mm512_set1_epi8(std::hint::black_box(3)), _mm512_set1_epi8(std::hint::black_box(-2)));
    let mut sums = [_mm512_set1_epi8(0); CHAINS];
    // 64 products and as many additions each.
    repeated!(span, sums, 128, |sum| _mm512_dpbusd_epi32(*sum, a, b))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn sums_of_pairs_512(span: Duration) -> u64 {
    use std::arch::x86_64::{__m512bh, _mm512_dpbf16_ps, _mm512_set1_epi16, _mm512_set1_ps};
    // SAFETY: 32 numbers in bf16, of sixteen bits.
    let [a, b]: [__m512bh; 2] = [0x3f00, 0x3e80]
        .map(|bits| unsafe { std::mem::transmute(_mm512_set1_epi16(std::hint::black_box(bits))) });
    let mut sums = [_mm512_set1_ps(0.0); CHAINS];
    // 32 products and as many additions.
    repeated!(span, sums, 64, |sum| _mm512_dpbf16_ps(*sum, a, b))
}

/// By the widest fused multiply-adds.
fn fused_sums(span: Duration) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has the instructions, as was just asked.
            return unsafe { fused_sums_512(span) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { fused_sums_256(span) };
        }
    }
    let (a, b) = (std::hint::black_box([0.5f32; 4]), std::hint::black_box(0.25f32));
    let mut sums = [[0.0f32; 4]; CHAINS];
    repeated!(span, sums, 8, |sum| std::array::from_fn(|lane| sum[lane] + a[lane] * b))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn fused_sums_512(span: Duration) -> u64 {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let (a, b) = (_mm512_set1_ps(std::hint::black_box(0.5)), _mm512_set1_ps(std::hint::black_box(0.25)));
    let mut sums = [_mm512_set1_ps(0.0); CHAINS];
    repeated!(span, sums, 32, |sum| _mm512_fmadd_ps(a, b, *sum))
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn fused_sums_256(span: Duration) -> u64 {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let (a, b) = (_mm256_set1_ps(std::hint::black_box(0.5)), _mm256_set1_ps(std::hint::black_box(0.25)));
    // With the two factors, what sixteen registers hold.
    let mut sums = [_mm256_set1_ps(0.0); 12];
    repeated!(span, sums, 16, |sum| _mm256_fmadd_ps(a, b, *sum))
}

vectorised! {
    /// The sum of all words: as fast as they come from memory.
    fn sum(words: &[u64]) -> u64 {
        let mut lanes = [0u64; 64];
        let (chunks, rest) = words.as_chunks::<64>();
        for chunk in chunks {
            for lane in 0..64 {
                lanes[lane] = lanes[lane].wrapping_add(chunk[lane]);
            }
        }
        lanes.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
    }
}

fn best(mut once: impl FnMut() -> f64) -> f64 {
    let began = Instant::now();
    let (mut runs, mut best) = (0, 0.0);
    while runs < FEWEST_RUNS || began.elapsed() < MEASURED {
        best = f64::max(best, once());
        runs += 1;
    }
    best
}

fn seconds(span: Duration) -> f64 {
    span.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_word_is_read() {
        for length in [0, 1, 63, 64, 65, 1000] {
            let words: Vec<u64> = (1..=length).collect();
            assert_eq!(sum(&words), length * (length + 1) / 2);
        }
    }

    #[test]
    fn figures_are_of_this_world() {
        for threads in [1, 2] {
            let pool = pool(threads);
            let bandwidth = read_bandwidth(&pool, 8 << 20);
            assert!((1e8..1e13).contains(&bandwidth), "{bandwidth} bytes/s");
        }
        let Peaks { f32, int8, pairs, matrix_unit } = Peaks::measure(&pool(1));
        for operations in [Some(f32), int8, pairs, matrix_unit].into_iter().flatten() {
            assert!((1e8..1e15).contains(&operations), "{operations} operations/s");
        }
    }
}
