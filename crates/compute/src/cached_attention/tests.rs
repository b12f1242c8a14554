//! All formats against the formula, against themselves in other chunks, and f32 against training.

use super::*;
use crate::device::{Attention, AttentionSums, Device};
use crate::memory::Lines;
use crate::testing::{normal_numbers, same_on_every_path};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    F32,
    Bf16,
    Q8,
}

const FORMATS: [Format; 3] = [Format::F32, Format::Bf16, Format::Q8];

/// Blocks of one layer, as an earlier sequence may have left them.
struct Cache {
    shape: AttentionShape,
    format: Format,
    blocks: Vec<Lines>,
}

impl Cache {
    fn new(shape: AttentionShape, format: Format, positions: usize) -> Cache {
        let bytes = match format {
            Format::F32 => 4 * block_floats(shape),
            Format::Bf16 => 2 * block_numbers(shape),
            Format::Q8 => code_block_bytes(shape),
        };
        let dirty = || {
            let mut lines = Lines::zeroed(bytes);
            // Places that fill up a head stay zero for ever, so that dirt comes by storing.
            let mut cache = Cache { shape, format, blocks: vec![std::mem::take(&mut lines)] };
            let row = vec![f32::NAN; shape.key_width()];
            (0..BLOCK_POSITIONS).for_each(|offset| cache.store(offset, &row, &row));
            cache.blocks.remove(0)
        };
        Cache { shape, format, blocks: (0..positions.div_ceil(BLOCK_POSITIONS)).map(|_| dirty()).collect() }
    }

    fn store(&mut self, position: usize, keys: &[f32], values: &[f32]) {
        let block = &mut self.blocks[position / BLOCK_POSITIONS];
        let block = match self.format {
            Format::F32 => CacheBlockMut::F32(block.floats_mut()),
            Format::Bf16 => CacheBlockMut::Bf16(block.numbers_mut()),
            Format::Q8 => CacheBlockMut::Q8(block.bytes_mut()),
        };
        store(self.shape, block, position % BLOCK_POSITIONS, keys, values);
    }

    fn block(&self, index: usize) -> CacheBlock<'_> {
        let block = &self.blocks[index];
        match self.format {
            Format::F32 => CacheBlock::F32(block.floats()),
            Format::Bf16 => CacheBlock::Bf16(block.numbers()),
            Format::Q8 => CacheBlock::Q8(block.bytes()),
        }
    }
}

/// Attention of tokens that come `chunk` by `chunk`; keys and values [tokens, kv_heads · head_dim].
fn attend(
    shape: AttentionShape,
    rule: ScoreRule,
    format: Format,
    chunk: usize,
    [q, k, v]: [&[f32]; 3],
) -> Vec<f32> {
    let (width, k_width) = (shape.query_width(), shape.key_width());
    let tokens = q.len() / width;
    let mut cache = Cache::new(shape, format, tokens);
    let mut output = vec![0.0; q.len()];
    for first in (0..tokens).step_by(chunk) {
        let end = (first + chunk).min(tokens);
        for t in first..end {
            cache.store(t, &k[t * k_width..][..k_width], &v[t * k_width..][..k_width]);
        }
        // Single tokens as a decoding step has them: each group of heads by itself.
        let heads_together = if chunk == 1 { shape.group() } else { shape.heads };
        for head in (0..shape.heads).step_by(heads_together) {
            let span = first * width + head * shape.head_dim..;
            let length = (end - first) * heads_together * shape.head_dim;
            let rows = &q[span.clone()][..length];
            let queries = Queries { heads: head..head + heads_together, rows, first_position: first };
            let output = &mut output[span][..length];
            cached_attention(shape, rule, queries, |i| cache.block(i), &mut Vec::new(), output);
        }
    }
    output
}

#[test]
fn f32_gives_the_bits_of_training_in_any_chunks() {
    let shape = AttentionShape { heads: 6, kv_heads: 2, head_dim: 10 };
    let tokens = 150;
    let (q, k) = (normal_numbers(1, tokens * 60), normal_numbers(2, tokens * 20));
    let fused = normal_numbers(3, tokens * 100);
    let device = Device::cpu(1).unwrap();
    let [queries, keys, values] = [&q, &k, &fused].map(|x| device.upload(x.clone()));
    let document = 0..tokens;
    let input = Attention {
        shape,
        documents: std::slice::from_ref(&document),
        queries: queries.at(..),
        keys: keys.at(..),
        fused: values.at(..),
    };
    let mut expected = device.zeros(q.len());
    device.attention(input, expected.at_mut(..), &mut AttentionSums::new(&device, 6, tokens));
    let expected = device.read(expected.at(..));
    let v: Vec<f32> = fused.chunks_exact(100).flat_map(|row| row[80..].to_vec()).collect();
    for chunk in [1, 7, 64, 100, 150] {
        let found = attend(shape, ScoreRule::plain(shape), Format::F32, chunk, [&q, &k, &v]);
        assert_eq!(found, expected, "chunks of {chunk}");
    }
}

/// Attention by its formula, in double precision.
fn expected(shape: AttentionShape, rule: ScoreRule, [q, k, v]: [&[f32]; 3]) -> Vec<f64> {
    let (width, k_width, head_dim) = (shape.query_width(), shape.key_width(), shape.head_dim);
    let mut output = vec![0.0; q.len()];
    for t in 0..q.len() / width {
        for head in 0..shape.heads {
            let at = head / shape.group() * head_dim;
            let query = &q[t * width + head * head_dim..][..head_dim];
            let seen = rule.first_seen(t)..t + 1;
            let score = |s: usize| {
                let key = &k[s * k_width + at..][..head_dim];
                let dot: f64 = query.iter().zip(key).map(|(a, b)| *a as f64 * *b as f64).sum();
                let score = dot * rule.scale as f64;
                rule.soft_cap.map_or(score, |cap| cap as f64 * (score / cap as f64).tanh())
            };
            let weights: Vec<f64> = seen.clone().map(|s| score(s).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for (s, weight) in seen.zip(weights) {
                for i in 0..head_dim {
                    output[t * width + head * head_dim + i] += weight / sum * v[s * k_width + at + i] as f64;
                }
            }
        }
    }
    output
}

/// What formats, windows and caps are tried with: several groups, heads that fill no step, and whole ones.
const SHAPES: [AttentionShape; 3] = [
    AttentionShape { heads: 4, kv_heads: 2, head_dim: 10 },
    AttentionShape { heads: 5, kv_heads: 1, head_dim: 64 },
    AttentionShape { heads: 2, kv_heads: 2, head_dim: 80 },
];
const RULES: [(Option<usize>, Option<f32>); 6] = [
    (None, None),
    (Some(1), None),
    (Some(5), None),
    (Some(64), Some(2.0)),
    (Some(150), None),
    (None, Some(1.5)),
];

fn numbers(shape: AttentionShape, tokens: usize) -> [Vec<f32>; 3] {
    let k_width = tokens * shape.key_width();
    [normal_numbers(1, tokens * shape.query_width()), normal_numbers(2, k_width), normal_numbers(3, k_width)]
}

#[test]
fn every_format_agrees_with_the_formula_and_with_itself_in_any_chunks() {
    let tokens = 300;
    for shape in SHAPES {
        let [q, k, v] = numbers(shape, tokens);
        for (window, soft_cap) in RULES {
            let rule = ScoreRule { scale: 2.0 / (shape.head_dim as f32).sqrt(), soft_cap, window };
            let expected = expected(shape, rule, [&q, &k, &v]);
            for (format, most) in [(Format::F32, 1e-6), (Format::Bf16, 6e-3), (Format::Q8, 1.2e-2)] {
                let whole = attend(shape, rule, format, tokens, [&q, &k, &v]);
                let error: f64 = whole.iter().zip(&expected).map(|(&y, e)| (y as f64 - e).powi(2)).sum();
                let scale: f64 = expected.iter().map(|e| e * e).sum();
                let error = (error / scale).sqrt();
                assert!(error < most, "{shape:?}, {rule:?}, {format:?}: {error}");
                for chunk in [1, 7, 64, 200] {
                    let found = attend(shape, rule, format, chunk, [&q, &k, &v]);
                    assert!(found == whole, "{shape:?}, {rule:?}, {format:?}, chunks of {chunk}");
                }
            }
        }
    }
}

#[test]
fn every_path_gives_the_same_bits() {
    for shape in SHAPES {
        let [q, k, v] = numbers(shape, 170);
        let rule = ScoreRule { window: Some(140), ..ScoreRule::plain(shape) };
        for format in FORMATS {
            same_on_every_path(|| {
                attend(shape, rule, format, 50, [&q, &k, &v])
                    .into_iter()
                    .map(f32::to_bits)
                    .collect::<Vec<_>>()
            });
        }
    }
}

#[test]
fn scores_far_apart_leave_one_position() {
    let shape = SHAPES[1];
    let [q, mut k, v] = numbers(shape, 200);
    for (t, row) in k.chunks_exact_mut(64).enumerate() {
        // Each third token outdoes everything before it.
        let height = if t % 3 == 0 { t as f32 } else { -50.0 };
        row.iter_mut().zip(&q[..64]).for_each(|(k, q)| *k = height * q);
    }
    let q: Vec<f32> = q[..64].iter().copied().cycle().take(200 * 320).collect();
    for format in [Format::Bf16, Format::Q8] {
        let run = |chunk| attend(shape, ScoreRule::plain(shape), format, chunk, [&q, &k, &v]);
        let found = run(200);
        for (t, row) in found.chunks_exact(320).enumerate() {
            for (y, value) in row.iter().zip(v[t / 3 * 3 * 64..][..64].iter().cycle()) {
                assert!((y - value).abs() < 0.03, "{format:?}, token {t}: {y} for {value}");
            }
        }
        assert!(run(1) == found && run(77) == found);
        same_on_every_path(|| run(200));
    }
}

#[test]
fn blocks_take_the_bytes_that_they_say() {
    let shape = AttentionShape { heads: 20, kv_heads: 4, head_dim: 64 };
    assert_eq!(4 * block_floats(shape), 64 * 512 * 4);
    assert_eq!(2 * block_numbers(shape), 64 * 512 * 2);
    assert_eq!(code_block_bytes(shape), 64 * (512 + 8 * 4));
}
