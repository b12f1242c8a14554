//! How fast the matrix product is on this processor, one thread, beside the `gemm` crate in the same run.
//!
//! cargo run --release -p compute --example product_speed

use compute::{MatrixMut, MatrixRef, Start, multiply};
use std::time::Instant;

fn main() {
    println!("{:?}, one thread, GFLOP/s", compute::CpuPath::detected());
    println!("{:28} {:>8} {:>8}", "shape (m n k, layout)", "ours", "gemm");
    row("within the first cache", 48, 64, 64, false, false);
    row("within the first cache", 48, 64, 64, false, false);
    for (m, n, k) in [
        (512, 128, 128),
        (512, 256, 128),
        (512, 768, 128),
        (512, 128, 384),
        (512, 512, 128),
        (512, 512, 512),
        (512, 1536, 512),
        (2048, 2048, 512),
    ] {
        row("forward  x·wT", m, n, k, false, true);
        row("input    dy·w", m, k, n, false, false);
        row("weights  dyT·x", n, k, m, true, false);
    }
    for (m, n, k) in [(48, 256, 32), (48, 32, 256), (256, 32, 48)] {
        row("attention", m, n, k, m == 256, n == 256);
    }
}

fn row(name: &str, m: usize, n: usize, k: usize, a_transposed: bool, b_transposed: bool) {
    let a: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 * 0.1).collect();
    let b: Vec<f32> = (0..k * n).map(|i| (i % 13) as f32 * 0.1).collect();
    let mut c = vec![0.0f32; m * n];
    let left = if a_transposed { MatrixRef::new(&a, k, m).transposed() } else { MatrixRef::new(&a, m, k) };
    let right = if b_transposed { MatrixRef::new(&b, n, k).transposed() } else { MatrixRef::new(&b, k, n) };
    let ours = measure(m, n, k, || multiply(left, right, MatrixMut::new(&mut c, m, n), Start::Zero));
    let (a_rs, a_cs) = if a_transposed { (1, m as isize) } else { (k as isize, 1) };
    let (b_rs, b_cs) = if b_transposed { (1, k as isize) } else { (n as isize, 1) };
    let (pa, pb, pc) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    let theirs = measure(m, n, k, || {
        // SAFETY: the vectors hold m·k, k·n and m·n floats.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                pc,
                1,
                n as isize,
                false,
                pa,
                a_cs,
                a_rs,
                pb,
                b_cs,
                b_rs,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    });
    println!("{:28} {ours:8.1} {theirs:8.1}", format!("{name} {m} {n} {k}"));
}

/// The best of many short runs: on a busy machine most of them are disturbed.
fn measure(m: usize, n: usize, k: usize, mut work: impl FnMut()) -> f64 {
    let flops = 2.0 * (m * n * k) as f64;
    let repeats = (4e7 / flops).ceil() as usize;
    let mut best = f64::INFINITY;
    for _ in 0..40 {
        let start = Instant::now();
        for _ in 0..repeats {
            work();
        }
        best = best.min(start.elapsed().as_secs_f64() / repeats as f64);
    }
    flops / best / 1e9
}
