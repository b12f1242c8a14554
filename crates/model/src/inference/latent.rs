//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) in its absorbed form: what makes keys of the
//! cached vector is applied to the queries, and what makes values of it to attention's result. So all heads share one
//! short cached row, and no head's keys or values are ever made.

use super::read::Reader;
use super::weight::{Products, RoundedRows, Weight};
use crate::ModelError;
use crate::config::{AttentionSpecification, LatentAttention};
use crate::spans::LatentSpans;
use compute::normalisation::{rms_norm, rms_norm_in_place};
use compute::rotary::{HeadSpan, RotaryTable, normalise_and_rotate};
use std::ops::Range;

/// transformers gives these norms no ε of the configuration's.
const EPSILON: f32 = 1e-6;

#[derive(Debug)]
pub(super) struct PackedLatent {
    heads: usize,
    head_dim: usize,
    latent: LatentAttention,
    query_down: Option<(Weight, Vec<f32>)>,
    query_up: Weight,
    down: Weight,
    norm: Vec<f32>,
    /// Of each head: from its queries without position to the latent vector, and from there to its values.
    absorbed: Vec<(Weight, Weight)>,
}

/// Rows on their way to queries and keys, and back from attention.
#[derive(Debug, Default)]
pub(super) struct LatentRows {
    short: Vec<f32>,
    queries: Vec<f32>,
    rotated: Vec<f32>,
    positions: Vec<u32>,
    head: Vec<f32>,
    wide: Vec<f32>,
}

impl PackedLatent {
    pub fn new(
        attention: &AttentionSpecification,
        latent: LatentAttention,
        spans: &LatentSpans,
        reader: &Reader,
        hidden: usize,
    ) -> Result<PackedLatent, ModelError> {
        let LatentAttention { query_rank, rank, rotary_dim, value_dim, interleaved, .. } = latent;
        let AttentionSpecification { heads, head_dim, .. } = *attention;
        let plain_dim = head_dim - rotary_dim;
        let read = |span: &Range<usize>| reader.values(span);
        let query_down = match &spans.query_down {
            Some((down, norm)) => Some((reader.matrix(down, hidden)?, read(norm)?)),
            None => None,
        };
        let width = query_rank.unwrap_or(hidden);
        let mut query_up = read(&spans.query_up)?;
        let mut down = read(&spans.down)?;
        if interleaved {
            for head in query_up.chunks_exact_mut(head_dim * width) {
                separate_pairs(&mut head[plain_dim * width..], width);
            }
            separate_pairs(&mut down[rank * hidden..], hidden);
        }
        let up = read(&spans.up)?;
        let absorb = |head: &[f32]| {
            let (keys, values) = head.split_at(plain_dim * rank);
            let mut transposed = vec![0.0; keys.len()];
            for (row, key) in keys.chunks_exact(rank).enumerate() {
                for (column, &value) in key.iter().enumerate() {
                    transposed[column * plain_dim + row] = value;
                }
            }
            (reader.pack(&transposed, plain_dim), reader.pack(values, rank))
        };
        Ok(PackedLatent {
            heads,
            head_dim,
            latent,
            query_down,
            query_up: reader.pack(&query_up, width),
            down: reader.pack(&down, hidden),
            norm: read(&spans.norm)?,
            absorbed: up.chunks_exact((plain_dim + value_dim) * rank).map(absorb).collect(),
        })
    }

    /// All matrices.
    pub fn matrices(&self) -> impl Iterator<Item = &Weight> {
        let first = self.query_down.iter().map(|(down, _)| down);
        let absorbed = self.absorbed.iter().flat_map(|(keys, values)| [keys, values]);
        first.chain([&self.query_up, &self.down]).chain(absorbed)
    }

    /// Bytes of [`LatentRows`] for so many rows.
    pub fn rows_bytes(&self, rows: usize) -> usize {
        let LatentAttention { rank, rotary_dim, value_dim, .. } = self.latent;
        let short = self.query_down.as_ref().map_or(0, |(down, _)| 2 * down.outputs());
        let plain_dim = self.head_dim - rotary_dim;
        let positions = self.heads;
        let queries = self.heads * self.head_dim;
        let rotated = (self.heads * rotary_dim).max(1);
        4 * rows * (short + queries + rotated + positions + plain_dim.max(value_dim) + rank)
    }

    /// Bytes of memory of the matrices.
    pub fn bytes(&self) -> usize {
        let first = self.query_down.as_ref().map_or(0, |(down, _)| down.bytes());
        let absorbed: usize = self.absorbed.iter().map(|(keys, values)| keys.bytes() + values.bytes()).sum();
        first + self.query_up.bytes() + self.down.bytes() + absorbed
    }

    /// From normed rows x [rows, hidden] to `queries` [rows, heads, rank + rotary] and `keys` [rows, rank + rotary], both
    /// rotated. `table` has one entry for each row.
    #[allow(clippy::too_many_arguments)]
    pub fn project(
        &self,
        x: &[f32],
        hidden: usize,
        table: &RotaryTable,
        products: Products,
        rounded: &mut RoundedRows,
        rows_of: &mut LatentRows,
        queries: &mut [f32],
        keys: &mut [f32],
    ) {
        let LatentAttention { rank, rotary_dim, .. } = self.latent;
        let (heads, head_dim, rows) = (self.heads, self.head_dim, x.len() / hidden);
        let (plain_dim, wide) = (head_dim - rotary_dim, rank + rotary_dim);
        let LatentRows { short, queries: full, rotated, positions, head, wide: absorbed } = rows_of;

        full.resize(rows * heads * head_dim, 0.0);
        match &self.query_down {
            Some((down, norm)) => {
                let width = down.outputs();
                short.resize(2 * rows * width, 0.0);
                let (raw, normed) = short.split_at_mut(rows * width);
                products.multiply(x, down, raw, rounded);
                rotated.resize(rows, 0.0);
                rms_norm(raw, norm, EPSILON, normed, rotated);
                products.multiply(normed, &self.query_up, full, rounded);
            }
            None => products.multiply(x, &self.query_up, full, rounded),
        }
        products.multiply(x, &self.down, keys, rounded);
        rms_norm_in_place(keys, wide, 0, &self.norm, EPSILON);

        let entries = 0..rows as u32;
        positions.clear();
        positions.extend(entries.clone());
        rotated.resize(rows * heads * rotary_dim, 0.0);
        let span = HeadSpan { row_stride: wide, first: rank, heads: 1, head_dim: rotary_dim };
        normalise_and_rotate(keys, span, None, table, positions, rotated, &mut []);
        for (row, turned) in keys.chunks_exact_mut(wide).zip(rotated.chunks_exact(rotary_dim)) {
            row[rank..].copy_from_slice(turned);
        }
        positions.clear();
        positions.extend(entries.flat_map(|row| std::iter::repeat_n(row, heads)));
        let span = HeadSpan { row_stride: head_dim, first: plain_dim, heads: 1, head_dim: rotary_dim };
        normalise_and_rotate(full, span, None, table, positions, rotated, &mut []);
        for (row, turned) in queries.chunks_exact_mut(wide).zip(rotated.chunks_exact(rotary_dim)) {
            row[rank..].copy_from_slice(turned);
        }

        head.resize(rows * plain_dim, 0.0);
        absorbed.resize(rows * rank, 0.0);
        for (index, (to_latent, _)) in self.absorbed.iter().enumerate() {
            for (row, part) in head.chunks_exact_mut(plain_dim.max(1)).enumerate() {
                part.copy_from_slice(&full[(row * heads + index) * head_dim..][..plain_dim]);
            }
            products.multiply(head, to_latent, absorbed, rounded);
            for (row, part) in absorbed.chunks_exact(rank).enumerate() {
                queries[(row * heads + index) * wide..][..rank].copy_from_slice(part);
            }
        }
    }

    /// From attention's rows over latent vectors [rows, heads, rank + rotary] to `output` [rows, heads · value_dim].
    pub fn values(
        &self,
        attended: &[f32],
        products: Products,
        rounded: &mut RoundedRows,
        rows_of: &mut LatentRows,
        output: &mut [f32],
    ) {
        let LatentAttention { rank, rotary_dim, value_dim, .. } = self.latent;
        let (heads, wide) = (self.heads, rank + rotary_dim);
        let rows = attended.len() / (heads * wide);
        let LatentRows { head, wide: latent, .. } = rows_of;
        latent.resize(rows * rank, 0.0);
        head.resize(rows * value_dim, 0.0);
        for (index, (_, to_values)) in self.absorbed.iter().enumerate() {
            for (row, part) in latent.chunks_exact_mut(rank).enumerate() {
                part.copy_from_slice(&attended[(row * heads + index) * wide..][..rank]);
            }
            products.multiply(latent, to_values, head, rounded);
            for (row, part) in head.chunks_exact(value_dim).enumerate() {
                output[(row * heads + index) * value_dim..][..value_dim].copy_from_slice(part);
            }
        }
    }
}

/// Moves every other row to the front, so that pairs which stood side by side stand half the rows apart.
fn separate_pairs(rows: &mut [f32], width: usize) {
    let before = rows.to_vec();
    let half = rows.len() / width / 2;
    for (index, row) in before.chunks_exact(width).enumerate() {
        rows[(index / 2 + index % 2 * half) * width..][..width].copy_from_slice(row);
    }
}
