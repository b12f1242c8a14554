//! The matrix products of a training step, and how fast this machine runs them: the ceiling that a step is measured
//! against, and the speed that an estimate starts from.
//!
//! A linear map of n outputs and k inputs over m tokens is three products: forward x·wᵀ, the gradient of its input dy·w,
//! and of its weights dyᵀ·x. They differ in how they walk through memory, so each is measured in its own layout, on
//! buffers of the real sizes, and the times are added: operations of all over seconds of all.

use crate::Error;
use crate::bench::core_seconds;
use compute::device::{MatrixView, rows_of_logits};
use compute::{Buffer, Device, Start};
use model::ModelConfig;
use std::time::Instant;

/// C [rows, columns] ← A [rows, depth] · B [depth, columns], so many times in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product {
    /// Rows of A and C.
    pub rows: usize,
    /// Columns of B and C.
    pub columns: usize,
    /// Columns of A, rows of B.
    pub depth: usize,
    /// Whether A is the transposed view of what lies in memory.
    pub a_transposed: bool,
    /// Whether B is.
    pub b_transposed: bool,
    /// Whether it is added to what C holds.
    pub adds: bool,
    /// How often a step computes it.
    pub times: usize,
}

impl Product {
    /// Floating-point operations of all of its times.
    pub fn operations(&self) -> f64 {
        2.0 * self.rows as f64 * self.columns as f64 * self.depth as f64 * self.times as f64
    }
}

/// The products of a step over `tokens` tokens, in micro-batches of `micro_tokens`; attention's own are not among them.
pub fn step_products(config: &ModelConfig, tokens: usize, micro_tokens: usize) -> Vec<Product> {
    let micro_tokens = micro_tokens.clamp(1, tokens.max(1));
    let micro_batches = tokens.div_ceil(micro_tokens);
    let hidden = config.hidden_size;
    let mut products: Vec<Product> = Vec::new();
    let mut linear = |rows: usize, output: usize, input: usize, times: usize| {
        for (rows, columns, depth, a_transposed, b_transposed, adds) in [
            (rows, output, input, false, true, false),
            (rows, input, output, false, false, false),
            (output, input, rows, true, false, true),
        ] {
            let product = Product { rows, columns, depth, a_transposed, b_transposed, adds, times: 0 };
            let same = products.iter().position(|other| Product { times: 0, ..*other } == product);
            let index = same.unwrap_or_else(|| {
                products.push(product);
                products.len() - 1
            });
            products[index].times += times;
        }
    };
    for layer in &config.layers {
        let attention = layer.attention;
        let (q, kv) = (attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim);
        linear(micro_tokens, q + 2 * kv, hidden, micro_batches);
        linear(micro_tokens, hidden, q, micro_batches);
        let width = layer.feed_forward.intermediate_size;
        linear(micro_tokens, 2 * width, hidden, micro_batches);
        linear(micro_tokens, hidden, width, micro_batches);
        if let Some(mixture) = layer.feed_forward.mixture {
            linear(micro_tokens, mixture.experts, hidden, micro_batches);
            // as if all had the same number of tokens
            let (rows, width) = (micro_tokens * mixture.experts_per_token, mixture.intermediate_size);
            let rows = rows.div_ceil(mixture.experts);
            linear(rows, 2 * width, hidden, micro_batches * mixture.experts);
            linear(rows, hidden, width, micro_batches * mixture.experts);
        }
    }
    let head_rows = rows_of_logits(config.vocabulary_size).min(micro_tokens);
    linear(head_rows, config.vocabulary_size, hidden, tokens.div_ceil(head_rows));
    products
}

/// How fast products are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProductSpeed {
    /// Floating-point operations a second, weighted by the time that each product takes.
    pub operations_per_second: f64,
    /// The same in a second of one core's time, where the system counts that.
    pub operations_per_core_second: Option<f64>,
}

/// Measures products on `threads` threads: each is run `repeats` times, and its median counts.
///
/// # Errors
/// When the threads cannot be started.
pub fn measure(products: &[Product], threads: usize, repeats: usize) -> Result<ProductSpeed, Error> {
    let device = Device::cpu(threads)?;
    let largest = |of: fn(&Product) -> usize| products.iter().map(of).max().unwrap_or(0);
    let fill = |length: usize| -> Vec<f32> { (0..length).map(|i| (i % 29) as f32 * 0.01 - 0.14).collect() };
    let a = device.upload(fill(largest(|product| product.rows * product.depth)));
    let b = device.upload(fill(largest(|product| product.depth * product.columns)));
    let mut c = device.zeros(largest(|product| product.rows * product.columns));
    let (mut operations, mut seconds, mut on_cores) = (0.0, 0.0, Some(0.0));
    for product in products {
        let mut once = || {
            let begin = Instant::now();
            device.run(|| run(product, &device, &a, &b, &mut c));
            begin.elapsed().as_secs_f64()
        };
        // The first touches the buffers.
        once();
        let before = core_seconds();
        let mut times: Vec<f64> = (0..repeats.max(1)).map(|_| once()).collect();
        let used = core_seconds().zip(before).map(|(end, begin)| (end - begin) / times.len() as f64);
        times.sort_by(f64::total_cmp);
        operations += product.operations();
        seconds += times[times.len() / 2] * product.times as f64;
        on_cores = on_cores.zip(used).map(|(sum, used)| sum + used * product.times as f64);
    }
    Ok(ProductSpeed {
        operations_per_second: operations / seconds.max(1e-12),
        operations_per_core_second: on_cores.map(|seconds| operations / f64::max(seconds, 1e-12)),
    })
}

fn run(product: &Product, device: &Device, a: &Buffer, b: &Buffer, c: &mut Buffer) {
    let Product { rows, columns, depth, a_transposed, b_transposed, adds, .. } = *product;
    let (a, b) = (view(a, rows, depth, a_transposed), view(b, depth, columns, b_transposed));
    let start = if adds { Start::Continue } else { Start::Zero };
    device.multiply(a, b, c.at_mut(..rows * columns).matrix(rows, columns), start);
}

fn view(data: &Buffer, rows: usize, columns: usize, transposed: bool) -> MatrixView<'_> {
    let elements = data.at(..rows * columns);
    if transposed { elements.matrix(columns, rows).transposed() } else { elements.matrix(rows, columns) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_products_are_six_operations_for_each_weight_and_token() {
        let config = ModelConfig::tiny_for_tests(64);
        let tokens = 256;
        let products = step_products(&config, tokens, 128);
        let decoder = model::Decoder::new(&config, 16).unwrap();
        let matrices = decoder.table().entries().iter().filter(|entry| entry.shape.len() == 2);
        let weights: usize = matrices.map(|entry| entry.span.len()).sum();
        let head = if config.tie_embeddings { 0 } else { config.vocabulary_size * config.hidden_size };
        let operations: f64 = products.iter().map(Product::operations).sum();
        assert_eq!(operations, 6.0 * (weights - head) as f64 * tokens as f64);
        assert!(measure(&products, 2, 1).unwrap().operations_per_second > 1e6);
    }
}
