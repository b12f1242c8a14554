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
#[cfg(target_arch = "x86_64")]
const DOT_RUN: Duration = Duration::from_millis(50);

/// Bytes per second that all threads of `pool` read from memory together, over a buffer of `bytes` bytes.
pub fn read_bandwidth(pool: &rayon::ThreadPool, bytes: usize) -> f64 {
    let threads = pool.current_num_threads();
    let words = (bytes / size_of::<u64>()).max(threads);
    pool.install(|| {
        // Written by the thread that reads it: pages lie near their reader.
        let parts: Vec<Vec<u64>> =
            (0..threads).into_par_iter().map(|part| vec![part as u64 + 1; words / threads]).collect();
        let read = (words / threads * threads * size_of::<u64>()) as f64;
        let once = || {
            let began = Instant::now();
            let sum: u64 = parts.par_iter().map(|part| sum(part)).reduce(|| 0, u64::wrapping_add);
            std::hint::black_box(sum);
            read / seconds(began.elapsed())
        };
        best(once)
    })
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

/// 8-bit multiplications and additions per second of all threads of `pool`, where the processor has an instruction for
/// their dot product in 512 bits (VNNI); `None` where it has not. Of the instruction alone: no product of matrices is faster.
pub fn int8_operations(pool: &rayon::ThreadPool) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        let threads = pool.current_num_threads();
        let once = || {
            let began = Instant::now();
            // SAFETY: the processor has the instructions, as was just asked.
            let per_thread = |_| unsafe { dot_products_512(DOT_RUN) };
            let operations: u64 = (0..threads).into_par_iter().map(per_thread).sum();
            operations as f64 / seconds(began.elapsed())
        };
        return Some(pool.install(|| best(once)));
    }
    let _ = pool;
    None
}

/// Operations that one thread does in about `span`, on numbers that stay in registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_products_512(span: Duration) -> u64 {
    use std::arch::x86_64::{__m512i, _mm512_dpbusd_epi32, _mm512_reduce_add_epi32, _mm512_set1_epi8};
    /// More than the instruction's latency times its throughput: no sum waits for itself.
    const CHAINS: usize = 16;
    const STEPS: u64 = 4096;
    let (a, b) = (_mm512_set1_epi8(std::hint::black_box(3)), _mm512_set1_epi8(std::hint::black_box(-2)));
    let mut sums: [__m512i; CHAINS] = [_mm512_set1_epi8(0); CHAINS];
    let began = Instant::now();
    let mut operations = 0;
    while began.elapsed() < span {
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        // 64 products and as many additions each.
        operations += STEPS * CHAINS as u64 * 128;
    }
    for sum in sums {
        std::hint::black_box(_mm512_reduce_add_epi32(sum));
    }
    operations
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
        if let Some(operations) = int8_operations(&pool(1)) {
            assert!((1e9..1e14).contains(&operations), "{operations} 8-bit operations/s");
        }
    }
}
