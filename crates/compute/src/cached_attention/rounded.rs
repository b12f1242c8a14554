//! Attention over keys and values in bf16, or in codes of 8 bits, through the processor's matrix unit or its twins (`bf16`).
//!
//! The rows of a group of heads that share keys go together. Span by span of 128 positions, from position 0 on: their scores;
//! the softmax so far (`online_softmax`); their weights, in bf16, times the values (Dao et al., arXiv 2205.14135). Nothing of a row's
//! chain depends on the rows beside it: what a row does not see has weight zero, and adding zero changes no sum.
//!
//! Codes go through the unit as whole numbers, which bf16 holds exactly; scores are multiplied by the scales of keys, and weights
//! by those of values.

use super::blocks::{BLOCK_STEPS, head_numbers, head_of, head_steps, split_codes};
use super::online_softmax::{RunningRows, SpanScores, scale_columns, shrink, weigh};
use super::{BLOCK_POSITIONS, CacheBlock, Queries, ScoreRule};
use crate::attention::AttentionShape;
use crate::bf16::{COLUMNS, DEPTH, Kernel, Part, Ready, STEP_NUMBERS, Sums, TILE, TileRows};
use crate::float16::bf16_bits;
use crate::memory::Lines;
use crate::path::vectorised;
use crate::softmax::soft_cap;
use std::cell::RefCell;
use std::ops::Range;

/// Positions between two looks at the largest score. It shows in the bits.
const SPAN: usize = 128;
const SPAN_BLOCKS: usize = SPAN / BLOCK_POSITIONS;
const SPAN_STEPS: usize = SPAN / DEPTH;
/// Rows whose scores are made at a time: two tiles.
const ROWS: usize = 2 * TILE;

#[derive(Default)]
struct Workspace {
    /// Rows of the group, in tiles.
    queries: Lines,
    /// [rows, steps · 32]: weighted values.
    values: Lines,
    running: RunningRows,
    /// [32, 128]
    scores: Lines,
    /// 32 rows of a span's weights, in tiles.
    weights: Lines,
    /// A span's keys and values where they are kept as codes.
    widened: Lines,
    /// A span's scales of keys and of values.
    scales: [Vec<f32>; 2],
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// [`super::cached_attention`] over blocks in bf16 or codes.
pub(super) fn attend<'b>(
    shape: AttentionShape,
    rule: ScoreRule,
    queries: Queries,
    block: impl Fn(usize) -> CacheBlock<'b>,
    output: &mut [f32],
) {
    let (group, width) = (shape.group(), queries.heads.len() * shape.head_dim);
    let group_width = group * shape.head_dim;
    let unit = Ready::new(Kernel::for_attention());
    WORKSPACE.with_borrow_mut(|workspace| {
        for (index, kv_head) in (queries.heads.start / group..queries.heads.end / group).enumerate() {
            let task = Task { shape, rule, first_position: queries.first_position, kv_head };
            let at = index * group_width;
            let tokens = queries.rows.len() / width;
            task.begin(tokens, &queries.rows[at..], width, workspace);
            task.run(&unit, tokens, &block, workspace);
            let values = workspace.values.floats();
            finish(
                values,
                head_steps(shape) * DEPTH,
                &workspace.running.sums,
                group,
                shape.head_dim,
                &mut output[at..],
                width,
            );
        }
    });
}

/// The rows of one group of heads.
struct Task {
    shape: AttentionShape,
    rule: ScoreRule,
    first_position: usize,
    kv_head: usize,
}

/// A span's keys and values, block by block.
type SpanBlocks<'a> = [[&'a [u16]; 2]; SPAN_BLOCKS];

impl Task {
    /// Rounds the queries and forgets what was before.
    fn begin(&self, tokens: usize, queries: &[f32], stride: usize, workspace: &mut Workspace) {
        let (group, steps) = (self.shape.group(), head_steps(self.shape));
        let rows = tokens * group;
        let padded = rows.next_multiple_of(ROWS) * steps * DEPTH;
        for (lines, bytes) in [
            (&mut workspace.queries, 2 * padded),
            (&mut workspace.values, 4 * padded),
            (&mut workspace.scores, 4 * ROWS * SPAN),
            (&mut workspace.weights, 2 * ROWS * SPAN),
        ] {
            if lines.bytes().len() < bytes {
                *lines = Lines::zeroed(bytes);
            }
        }
        workspace.running.begin(rows);
        workspace.values.floats_mut()[..rows * steps * DEPTH].fill(0.0);
        round(queries, stride, group, self.shape.head_dim, rows, workspace.queries.numbers_mut());
    }

    fn run<'b>(
        &self,
        unit: &Ready,
        tokens: usize,
        block: &impl Fn(usize) -> CacheBlock<'b>,
        workspace: &mut Workspace,
    ) {
        let end = self.first_position + tokens;
        let rows = tokens * self.shape.group();
        let Workspace { queries, values, running, scores, weights, widened, scales } = workspace;
        for begin in (self.rule.first_seen(self.first_position) / SPAN * SPAN..end).step_by(SPAN) {
            let span = begin..(begin + SPAN).min(end);
            let (blocks, scaled) = self.blocks(span.clone(), block, widened, scales);
            for first in (0..rows).step_by(ROWS) {
                let part = first..(first + ROWS).min(rows);
                let position = |row: usize| self.first_position + row / self.shape.group();
                let seen = (position(part.end - 1) + 1).min(span.end);
                if seen <= begin || self.rule.first_seen(position(first)) >= span.end {
                    continue;
                }
                let width = (seen - begin).next_multiple_of(DEPTH);
                let scores = scores.floats_mut();
                self.score(unit, &blocks, queries.numbers(), part.clone(), width, scores);
                if scaled {
                    scale_columns(&mut scores[..part.len() * SPAN], SPAN, &scales[0][..width]);
                }
                let factor = match self.rule.soft_cap {
                    Some(cap) => {
                        soft_cap(&mut scores[..part.len() * SPAN], SPAN, width, self.rule.scale, cap);
                        1.0
                    }
                    None => self.rule.scale,
                };
                for (row, scores) in part.clone().zip(scores.chunks_exact_mut(SPAN)) {
                    let position = position(row);
                    let from = self.rule.first_seen(position).saturating_sub(begin).min(width);
                    let to = (position + 1).saturating_sub(begin).min(width);
                    scores[..from].fill(f32::NEG_INFINITY);
                    scores[to..width].fill(f32::NEG_INFINITY);
                }
                let mut span = SpanScores {
                    scores: &scores[..part.len() * SPAN],
                    stride: SPAN,
                    width,
                    exponent: factor * std::f32::consts::LOG2_E,
                    value_scales: scaled.then_some(&scales[1]),
                    weights: weights.numbers_mut(),
                    tiles: SPAN_STEPS,
                };
                weigh(&mut span, running, first);
                let (factors, weights) = (&running.factors[part.clone()], weights.numbers());
                let stride = head_steps(self.shape) * DEPTH;
                let values = &mut values.floats_mut()[first * stride..];
                shrink(values, stride, stride, factors);
                self.add_values(unit, &blocks, weights, part.len(), width, values);
            }
        }
    }

    /// The blocks of a span, widened where they are codes; then `true`, and `scales` are theirs.
    fn blocks<'a, 'b: 'a>(
        &self,
        span: Range<usize>,
        block: &impl Fn(usize) -> CacheBlock<'b>,
        widened: &'a mut Lines,
        scales: &mut [Vec<f32>; 2],
    ) -> (SpanBlocks<'a>, bool) {
        let count = span.len().div_ceil(BLOCK_POSITIONS);
        let first = span.start / BLOCK_POSITIONS;
        let mut blocks: SpanBlocks = [[&[]; 2]; SPAN_BLOCKS];
        if let CacheBlock::Q8(_) = block(first) {
            let length = head_numbers(self.shape);
            if widened.numbers().len() < 2 * SPAN_BLOCKS * length {
                *widened = Lines::zeroed(4 * SPAN_BLOCKS * length);
            }
            scales.iter_mut().for_each(Vec::clear);
            let parts = widened.numbers_mut().chunks_exact_mut(length);
            let mut parts = parts.into_iter();
            for (index, place) in blocks.iter_mut().enumerate().take(count) {
                let CacheBlock::Q8(block) = block(first + index) else { panic!("blocks of one format") };
                let (of_heads, codes) = split_codes(self.shape, block);
                let of_head = of_heads[2 * self.kv_head * BLOCK_POSITIONS..].chunks_exact(BLOCK_POSITIONS);
                for (scales, bytes) in scales.iter_mut().zip(of_head) {
                    scales.extend(bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)));
                }
                for (place, codes) in place.iter_mut().zip(head_of(self.shape, codes, self.kv_head)) {
                    let Some(part) = parts.next() else { break };
                    widen(codes, part);
                    *place = part;
                }
            }
            return (blocks, true);
        }
        for (index, place) in blocks.iter_mut().enumerate().take(count) {
            let CacheBlock::Bf16(block) = block(first + index) else { panic!("blocks of one format") };
            *place = head_of(self.shape, block, self.kv_head);
        }
        (blocks, false)
    }

    /// Scores of up to 32 rows with the first `width` positions of a span.
    fn score(
        &self,
        unit: &Ready,
        blocks: &SpanBlocks,
        queries: &[u16],
        rows: Range<usize>,
        width: usize,
        scores: &mut [f32],
    ) {
        let steps = head_steps(self.shape);
        let x = TileRows { numbers: &queries[rows.start * steps * DEPTH..], rows: rows.len(), steps };
        for panel in 0..width / COLUMNS {
            let keys = blocks[panel / BLOCK_STEPS][0];
            let weights = &keys[panel % BLOCK_STEPS * steps * STEP_NUMBERS..][..steps * STEP_NUMBERS];
            let mut sums = Sums { numbers: &mut scores[panel * COLUMNS..], stride: SPAN };
            unit.add(&[Part { x, first: 0, weights, paired: None }], &mut sums, true);
        }
    }

    /// Adds the first `width` positions' values, weighted, to up to 32 rows.
    fn add_values(
        &self,
        unit: &Ready,
        blocks: &SpanBlocks,
        weights: &[u16],
        rows: usize,
        width: usize,
        values: &mut [f32],
    ) {
        let x = TileRows { numbers: weights, rows, steps: SPAN_STEPS };
        let (panels, all) = (head_steps(self.shape), width / DEPTH);
        for panel in 0..panels {
            let part = |index: usize| {
                let first = (index * BLOCK_STEPS).min(all);
                let numbers = (all - first).min(BLOCK_STEPS) * STEP_NUMBERS;
                let weights = match numbers {
                    0 => &[][..],
                    _ => &blocks[index][1][panel * BLOCK_STEPS * STEP_NUMBERS..][..numbers],
                };
                Part { x, first, weights, paired: None }
            };
            let parts: [Part; SPAN_BLOCKS] = std::array::from_fn(part);
            let mut sums = Sums { numbers: &mut values[panel * COLUMNS..], stride: panels * COLUMNS };
            unit.add(&parts, &mut sums, false);
        }
    }
}

vectorised! {
    /// Rows of heads into tiles: `group` heads of each token, tokens `stride` apart.
    fn round(x: &[f32], stride: usize, group: usize, head_dim: usize, rows: usize, numbers: &mut [u16]) {
        let steps = head_dim.div_ceil(DEPTH);
        let parts = numbers.as_chunks_mut::<DEPTH>().0;
        for row in 0..rows.next_multiple_of(ROWS) {
            let at = row / group * stride + row % group * head_dim;
            let here = if row < rows { &x[at..][..head_dim] } else { &[][..] };
            for step in 0..steps {
                let part = &mut parts[(row / TILE * steps + step) * TILE + row % TILE];
                let here = here.get(step * DEPTH..(step * DEPTH + DEPTH).min(here.len())).unwrap_or(&[]);
                let mut values = [0.0f32; DEPTH];
                values[..here.len()].copy_from_slice(here);
                for (number, value) in part.iter_mut().zip(values) {
                    *number = bf16_bits(value);
                }
            }
        }
    }
}

vectorised! {
    /// Codes as numbers in bf16, which holds them exactly.
    fn widen(codes: &[u8], numbers: &mut [u16]) {
        for (codes, numbers) in codes.as_chunks::<DEPTH>().0.iter().zip(numbers.as_chunks_mut::<DEPTH>().0) {
            for (code, number) in codes.iter().zip(numbers) {
                *number = ((*code as i8 as f32).to_bits() >> 16) as u16;
            }
        }
    }
}

vectorised! {
    /// `output`, tokens `stride` apart ← weighted values divided by the sum of their weights.
    fn finish(
        values: &[f32],
        values_stride: usize,
        sums: &[f32],
        group: usize,
        head_dim: usize,
        output: &mut [f32],
        stride: usize,
    ) {
        for (row, (values, sum)) in values.chunks_exact(values_stride).zip(sums).enumerate() {
            let reciprocal = 1.0 / sum;
            let output = &mut output[row / group * stride + row % group * head_dim..][..head_dim];
            for (y, value) in output.iter_mut().zip(values) {
                *y = value * reciprocal;
            }
        }
    }
}
