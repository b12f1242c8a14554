//! What each kernel other than the product costs, in nanoseconds a token, at the tiny recipe's sizes (width 128, 4 + 2 heads of
//! 32, 384 between gate and down, 512 tokens in one document).
//!
//! cargo run --release -p compute --example kernel_speed

use compute::attention::{
    AttentionInput, AttentionShape, AttentionWorkspace, RowSums, attention, attention_backward,
};
use compute::cross_entropy::cross_entropy_rows;
use compute::dropout::{Dropout, add_with_dropout, add_with_dropout_backward};
use compute::normalisation::{rms_norm, rms_norm_backward};
use compute::rotary::{HeadNorm, HeadSpan, RotaryTable, normalise_and_rotate, normalise_and_rotate_backward};
use compute::swiglu::{swiglu, swiglu_backward};
use std::time::Instant;

const TOKENS: usize = 512;
const WIDTH: usize = 128;
const INNER: usize = 384;

fn main() {
    println!("{:?}, one thread, nanoseconds a token", compute::CpuPath::detected());
    let (x, dy) = (numbers(1, TOKENS * WIDTH), numbers(2, TOKENS * WIDTH));
    let weight = numbers(3, WIDTH);
    let (mut y, mut dx, mut dw) = (vec![0.0; TOKENS * WIDTH], vec![0.0; TOKENS * WIDTH], vec![0.0; WIDTH]);
    let mut reciprocal = vec![0.0; TOKENS * 4];
    show("rms_norm", || rms_norm(&x, &weight, 1e-6, &mut y, &mut reciprocal[..TOKENS]));
    show("rms_norm_backward", || {
        rms_norm_backward(&dy, &x, &weight, &reciprocal[..TOKENS], &mut dx, Some(&mut dw))
    });
    let rate = Dropout::new(5, 0.15);
    show("add_with_dropout", || add_with_dropout(&x, &dy, rate, 0, &mut y));
    show("add_with_dropout_backward", || add_with_dropout_backward(&dy, rate, 0, &mut dx));

    let gate_up = numbers(4, TOKENS * 2 * INNER);
    let (mut activated, mut gradient) = (numbers(5, TOKENS * INNER), vec![0.0; TOKENS * 2 * INNER]);
    show("swiglu", || swiglu(&gate_up, INNER, &mut activated));
    show("swiglu_backward", || swiglu_backward(&activated, &gate_up, INNER, &mut gradient));

    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 32 };
    let fused = numbers(6, TOKENS * shape.fused_width());
    let table = RotaryTable::new(TOKENS, 32, 10_000.0);
    let positions: Vec<u32> = (0..TOKENS as u32).collect();
    let span = HeadSpan { row_stride: shape.fused_width(), first: 0, heads: 4, head_dim: 32 };
    let head_weight = numbers(7, 32);
    let norm = Some(HeadNorm { weight: &head_weight, epsilon: 1e-6 });
    let (mut queries, mut fused_gradient) = (vec![0.0; TOKENS * WIDTH], vec![0.0; fused.len()]);
    let mut head_gradient = [0.0; 32];
    show("normalise_and_rotate (4 heads)", || {
        normalise_and_rotate(&fused, span, norm, &table, &positions, &mut queries, &mut reciprocal)
    });
    let mut turned = dy.clone();
    show("normalise_and_rotate_backward", || {
        let head_gradient = Some(&mut head_gradient[..]);
        normalise_and_rotate_backward(
            &mut turned,
            &fused,
            span,
            norm,
            &table,
            &positions,
            &reciprocal,
            &mut fused_gradient,
            head_gradient,
        );
    });

    let keys = numbers(8, TOKENS * 64);
    let document = 0..TOKENS;
    let input = AttentionInput {
        shape,
        documents: std::slice::from_ref(&document),
        queries: &x,
        keys: &keys,
        fused: &fused,
    };
    let (mut sums, mut workspace) = (RowSums::new(4, TOKENS), AttentionWorkspace::default());
    show("attention", || attention(&input, &mut y, &mut sums, &mut workspace));
    let mut key_gradient = vec![0.0; TOKENS * 64];
    show("attention_backward", || {
        attention_backward(
            &input,
            &y,
            &dy,
            &sums,
            &mut dx,
            &mut key_gradient,
            &mut fused_gradient,
            &mut workspace,
        );
    });
    let mut logits = numbers(9, TOKENS * 512);
    let targets = vec![7; TOKENS];
    show("cross_entropy_rows (512)", || {
        cross_entropy_rows(&mut logits, 512, &targets, 1.0);
    });
}

fn numbers(seed: u64, length: usize) -> Vec<f32> {
    (0..length).map(|i| compute::random::normal(seed, i as u64) as f32).collect()
}

/// The best of many short runs: on a busy machine most of them are disturbed.
fn show(name: &str, mut work: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..200 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name:32} {:8.1}", best * 1e9 / TOKENS as f64);
}
