//! Attention of a few new tokens over keys and values kept in blocks of 64 positions, in one of three formats.
//!
//! Whatever the format, a token's result has the same bits whether its sequence came at once, in chunks or token by token,
//! and whatever is computed beside it: sums over positions are cut at fixed positions.
//! - f32 (`exact`): the chains of training;
//! - bf16, and codes of 8 bits with one scale for each head and position (`rounded`): blocks of scores through the processor's
//!   matrix unit, and a softmax that goes along with them.

mod blocks;
mod exact;
mod online_softmax;
mod rounded;
#[cfg(test)]
mod tests;

pub use blocks::{block_floats, block_numbers, code_block_bytes};

use crate::attention::AttentionShape;
use std::ops::Range;

/// Positions of one block.
pub const BLOCK_POSITIONS: usize = 64;

/// What a layer does to its scores, besides the softmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreRule {
    /// Factor of a query's product with a key.
    pub scale: f32,
    /// c, where a scaled score becomes c · tanh(score / c).
    pub soft_cap: Option<f32>,
    /// How many positions a token sees, its own among them; all up to its own without.
    pub window: Option<usize>,
}

impl ScoreRule {
    /// 1 / √head_dim, and nothing else.
    pub fn plain(shape: AttentionShape) -> ScoreRule {
        ScoreRule { scale: shape.scale(), soft_cap: None, window: None }
    }

    /// First position that a token at `position` sees.
    fn first_seen(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// One layer's keys and values of 64 positions.
#[derive(Clone, Copy, Debug)]
pub enum CacheBlock<'a> {
    /// [`block_floats`]
    F32(&'a [f32]),
    /// Numbers in bf16, [`block_numbers`].
    Bf16(&'a [u16]),
    /// Codes of 8 bits with one scale for each head and position, [`code_block_bytes`].
    Q8(&'a [u8]),
}

/// A [`CacheBlock`] to write to.
#[derive(Debug)]
pub enum CacheBlockMut<'a> {
    /// [`block_floats`]
    F32(&'a mut [f32]),
    /// Numbers in bf16, [`block_numbers`].
    Bf16(&'a mut [u16]),
    /// Codes of 8 bits with one scale for each head and position, [`code_block_bytes`].
    Q8(&'a mut [u8]),
}

/// Writes one position's keys and values (each [key_width]) into its block. A block is filled from its first position on.
pub fn store(shape: AttentionShape, block: CacheBlockMut, offset: usize, keys: &[f32], values: &[f32]) {
    match block {
        CacheBlockMut::F32(block) => blocks::store_floats(shape, block, offset, keys, values),
        CacheBlockMut::Bf16(block) => blocks::store_numbers(shape, block, offset, keys, values),
        CacheBlockMut::Q8(block) => blocks::store_codes(shape, block, offset, keys, values),
    }
}

/// Consecutive rows of queries of one sequence.
#[derive(Clone, Debug)]
pub struct Queries<'a> {
    /// Heads that are computed: whole groups of those that share keys. Rows and output hold these heads alone.
    pub heads: Range<usize>,
    /// [rows, heads, head_dim]
    pub rows: &'a [f32],
    /// Of the first row.
    pub first_position: usize,
}

/// `output` [rows, heads, head_dim] ← attention of consecutive rows of one sequence, each over
/// the positions up to its own that `rule` lets it see. `block(i)` yields the layer's block with positions 64·i …; the new
/// positions are stored. Blocks far before the first row's window are not asked for.
///
/// `scores` is a buffer, grown as needed.
///
/// # Panics
/// When blocks are of different formats.
pub fn cached_attention<'b>(
    shape: AttentionShape,
    rule: ScoreRule,
    queries: Queries,
    block: impl Fn(usize) -> CacheBlock<'b>,
    scores: &mut Vec<f32>,
    output: &mut [f32],
) {
    let group = shape.group();
    debug_assert!(
        queries.heads.start.is_multiple_of(group) && queries.heads.len().is_multiple_of(group),
        "whole groups of heads"
    );
    if let CacheBlock::F32(_) = block(queries.first_position / BLOCK_POSITIONS) {
        let floats = |index| match block(index) {
            CacheBlock::F32(block) => block,
            _ => panic!("blocks of one format"),
        };
        exact::attend(shape, rule, queries, floats, scores, output);
    } else {
        rounded::attend(shape, rule, queries, block, output);
    }
}
