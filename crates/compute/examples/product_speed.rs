//! How fast the matrix product is on this processor, beside the `gemm` crate in the same run: the products of a training
//! step of recipe M (width 512, ffn 1536, 32768 tokens of vocabulary; a micro-batch of 1024 or 2048) and of recipe S, and
//! the small ones of attention and inference. Ours and theirs alternate; a busy machine disturbs both alike.
//!
//! cargo run --release -p compute --example product_speed [-- THREADS,THREADS… [WORDS OF A NAME]]

use compute::{CpuPath, MatrixMut, MatrixRef, Start, multiply_parallel};
use std::time::Instant;

/// A product's name, rows of C, columns of C, links of a chain; how A and B lie in memory; where the chains start.
struct Product {
    name: &'static str,
    shape: (usize, usize, usize),
    a_transposed: bool,
    b_transposed: bool,
    start: Start,
}

/// y ← x·wᵀ
fn forward(name: &'static str, tokens: usize, input: usize, output: usize) -> Product {
    let shape = (tokens, output, input);
    Product { name, shape, a_transposed: false, b_transposed: true, start: Start::Zero }
}

/// dx ← dy·w
fn input_gradient(name: &'static str, tokens: usize, input: usize, output: usize) -> Product {
    let shape = (tokens, input, output);
    Product { name, shape, a_transposed: false, b_transposed: false, start: Start::Zero }
}

/// dw ← dw + dyᵀ·x
fn weight_gradient(name: &'static str, tokens: usize, input: usize, output: usize) -> Product {
    let shape = (output, input, tokens);
    Product { name, shape, a_transposed: true, b_transposed: false, start: Start::Continue }
}

fn products() -> Vec<Product> {
    let mut products = Vec::new();
    for (names, tokens, input, output) in [
        (["M fused y", "M fused dx", "M fused dw"], 1024, 512, 1536),
        (["M output y", "M output dx", "M output dw"], 1024, 512, 512),
        (["M gate, up y", "M gate, up dx", "M gate, up dw"], 1024, 512, 3072),
        (["M down y", "M down dx", "M down dw"], 1024, 1536, 512),
        (["M, 2048 y", "M, 2048 dx", "M, 2048 dw"], 2048, 512, 1536),
        (["M head y", "M head dx", "M head dw"], 512, 512, 32768),
        (["S fused y", "S fused dx", "S fused dw"], 1024, 256, 768),
        (["S output y", "S output dx", "S output dw"], 1024, 256, 256),
        (["S gate, up y", "S gate, up dx", "S gate, up dw"], 1024, 256, 1536),
        (["S down y", "S down dx", "S down dw"], 1024, 768, 256),
        (["S head y", "S head dx", "S head dw"], 512, 256, 16384),
    ] {
        products.push(forward(names[0], tokens, input, output));
        products.push(input_gradient(names[1], tokens, input, output));
        products.push(weight_gradient(names[2], tokens, input, output));
    }
    products.push(forward("Muon gram", 512, 1536, 512));
    products.push(input_gradient("Muon square", 512, 512, 512));
    products.push(input_gradient("Muon update", 512, 1536, 512));
    products.push(forward("attention scores", 48, 64, 512));
    products.push(input_gradient("attention values", 48, 64, 512));
    products.push(weight_gradient("attention gradient", 48, 64, 512));
    products.push(forward("inference, 8 rows", 8, 512, 1536));
    products
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let threads: Vec<usize> = match arguments.next() {
        Some(list) => list.split(',').map(|t| t.parse().expect("a number of threads")).collect(),
        None => vec![1, 2],
    };
    let words: Vec<String> = arguments.collect();
    println!("{:?}, GFLOP/s: median and best of alternating runs", CpuPath::detected());
    println!("{:36} {:>7} {:>15} {:>15} {:>6}", "rows columns links", "threads", "ours", "gemm", "ratio");
    for threads in threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        for product in products().iter().filter(|p| words.iter().all(|word| p.name.contains(word.as_str()))) {
            pool.install(|| compare(product, threads));
        }
    }
}

/// One line of the table.
fn compare(product: &Product, threads: usize) {
    let (m, n, k) = product.shape;
    let a: Vec<f32> = (0..m * k).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect();
    let b: Vec<f32> = (0..k * n).map(|i| (i % 13) as f32 * 0.1 - 0.6).collect();
    let mut c = vec![0.0f32; m * n];
    let left =
        if product.a_transposed { MatrixRef::new(&a, k, m).transposed() } else { MatrixRef::new(&a, m, k) };
    let right =
        if product.b_transposed { MatrixRef::new(&b, n, k).transposed() } else { MatrixRef::new(&b, k, n) };
    let (a_rows, a_columns) = if product.a_transposed { (1, m as isize) } else { (k as isize, 1) };
    let (b_rows, b_columns) = if product.b_transposed { (1, k as isize) } else { (n as isize, 1) };
    let parallelism = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };

    let flops = 2.0 * (m * n * k) as f64;
    let repeats = (1e8 * threads as f64 / flops).ceil() as usize;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..if flops > 5e9 { 9 } else { 25 } {
        let start = Instant::now();
        for _ in 0..repeats {
            multiply_parallel(threads, left, right, MatrixMut::new(&mut c, m, n), product.start);
        }
        ours.push(flops * repeats as f64 / start.elapsed().as_secs_f64() / 1e9);
        let start = Instant::now();
        for _ in 0..repeats {
            let (to, continues) = (c.as_mut_ptr(), product.start == Start::Continue);
            // SAFETY: the vectors hold m·k, k·n and m·n floats.
            unsafe {
                gemm::gemm(
                    m,
                    n,
                    k,
                    to,
                    1,
                    n as isize,
                    continues,
                    a.as_ptr(),
                    a_columns,
                    a_rows,
                    b.as_ptr(),
                    b_columns,
                    b_rows,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    parallelism,
                );
            }
        }
        theirs.push(flops * repeats as f64 / start.elapsed().as_secs_f64() / 1e9);
    }
    ours.sort_by(f64::total_cmp);
    theirs.sort_by(f64::total_cmp);
    let (median, last) = (ours.len() / 2, ours.len() - 1);
    println!(
        "{:36} {threads:7} {:7.1} {:7.1} {:7.1} {:7.1} {:6.2}",
        format!("{:18} {m:5} {n:5} {k:5}", product.name),
        ours[median],
        ours[last],
        theirs[median],
        theirs[last],
        ours[median] / theirs[median]
    );
}
