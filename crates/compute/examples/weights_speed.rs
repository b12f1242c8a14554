//! How fast products with packed weights are: few rows against 400 MB of weights (bytes read per second), and many rows
//! (operations per second).
//!
//!     cargo run --release -p compute --example weights_speed -- [THREADS]

use compute::{Bf16Matrix, Bf16Rows, Bits, QuantisedMatrix, QuantisedRows, Team};
use std::time::Instant;

const INPUTS: usize = 1280;
const OUTPUTS: usize = 7168;

fn main() {
    let threads = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2);
    let team = Team::new(threads);
    let values: Vec<f32> =
        (0..INPUTS * OUTPUTS).map(|i| compute::random::normal(1, i as u64) as f32).collect();
    let rows: Vec<f32> = (0..512 * INPUTS).map(|i| compute::random::normal(2, i as u64) as f32).collect();
    let mut y = vec![0.0; 512 * OUTPUTS];
    println!("read bandwidth {:.1} GB/s", bandwidth(&team));
    for bits in [Bits::Eight, Bits::Four] {
        let one = QuantisedMatrix::new(&values, INPUTS, bits);
        let count = 400_000_000 / one.bytes();
        let all: Vec<_> = (0..count).map(|_| one.clone()).collect();
        for rows_of_x in [1, 2, 3, 4, 8] {
            let x = QuantisedRows::of(&rows[..rows_of_x * INPUTS], INPUTS);
            let y = &mut y[..rows_of_x * OUTPUTS];
            let seconds = best(|| all.iter().for_each(|w| w.multiply(&team, &x, y)));
            println!("{bits:?} {rows_of_x} rows: {:.1} GB/s", (count * one.bytes()) as f64 / seconds / 1e9);
        }
        for count in [8, 64, 512] {
            let x = QuantisedRows::of(&rows[..count * INPUTS], INPUTS);
            let seconds = best(|| one.multiply(&team, &x, &mut y[..count * OUTPUTS]));
            println!("{bits:?} {count} rows, whole numbers: {:.0} GOP/s", operations(count) / seconds);
            let x = Bf16Rows::of(&rows[..count * INPUTS], INPUTS);
            let seconds = best(|| one.multiply_bf16(&team, &x, &mut y[..count * OUTPUTS]));
            println!("{bits:?} {count} rows, bf16: {:.0} GFLOP/s", operations(count) / seconds);
        }
    }
    let one = Bf16Matrix::new(&values, INPUTS);
    let count = 400_000_000 / one.bytes();
    let all: Vec<_> = (0..count).map(|_| one.clone()).collect();
    let x = Bf16Rows::of(&rows[..INPUTS], INPUTS);
    let seconds = best(|| all.iter().for_each(|w| w.multiply(&team, &x, &mut y[..OUTPUTS])));
    println!("bf16 1 row: {:.1} GB/s", (count * one.bytes()) as f64 / seconds / 1e9);
    for count in [8, 64, 512] {
        let x = Bf16Rows::of(&rows[..count * INPUTS], INPUTS);
        let seconds = best(|| one.multiply(&team, &x, &mut y[..count * OUTPUTS]));
        println!("bf16 {count} rows: {:.0} GFLOP/s", operations(count) / seconds);
    }
}

fn operations(rows: usize) -> f64 {
    2.0 * (rows * INPUTS * OUTPUTS) as f64 / 1e9
}

fn best(mut work: impl FnMut()) -> f64 {
    work();
    (0..7)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

/// GB/s of adding up 1 GB.
fn bandwidth(team: &Team) -> f64 {
    let data = vec![1u64; 1 << 27];
    let share = data.len() / team.threads();
    let sums: Vec<_> = (0..team.threads()).map(|_| std::sync::atomic::AtomicU64::new(0)).collect();
    let seconds = best(|| {
        team.run(&|thread| {
            let part = &data[thread * share..][..share];
            let mut lanes = [0u64; 64];
            for chunk in part.as_chunks::<64>().0 {
                for (lane, value) in lanes.iter_mut().zip(chunk) {
                    *lane = lane.wrapping_add(*value);
                }
            }
            sums[thread].store(lanes.iter().sum(), std::sync::atomic::Ordering::Relaxed);
        })
    });
    (share * team.threads() * 8) as f64 / seconds / 1e9
}
