//! How much memory the buffers of a forward pass take: known before they are made, and made once.

use super::weight::Weight;
use super::{InferenceModel, InferenceWorkspace, PackedLayer, Projections, TASK_ROWS};
use compute::cached_attention::BLOCK_POSITIONS;
use compute::product::PANEL_BYTES;
use compute::{bf16, quantised};

/// The largest calls that buffers are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallLimits {
    /// Rows of one call, of all sequences together.
    pub rows: usize,
    /// Rows of logits among them.
    pub logit_rows: usize,
    /// Positions of a sequence.
    pub positions: usize,
}

/// Numbers of each row in the buffers that every layer uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowWidths {
    pub hidden: usize,
    pub heads: usize,
    pub fused: usize,
    pub queries: usize,
    pub keys: usize,
    pub gate_up: usize,
    pub activated: usize,
}

impl InferenceModel {
    pub(super) fn row_widths(&self) -> RowWidths {
        let config = self.config();
        let widest = |of: &dyn Fn(usize) -> usize| (0..self.layers.len()).map(of).max().unwrap_or(0);
        let shape = |layer| self.shape(layer);
        let feed_forward = |layer: usize| config.layers[layer].feed_forward;
        let output_width = |layer: usize| config.layers[layer].attention.output_width();
        RowWidths {
            hidden: config.hidden_size,
            heads: widest(&|layer| shape(layer).heads),
            fused: widest(&|layer| shape(layer).fused_width().max(output_width(layer))),
            queries: widest(&|layer| shape(layer).query_width()),
            keys: widest(&|layer| shape(layer).key_width()),
            gate_up: widest(&|layer| feed_forward(layer).wide()),
            activated: widest(&|layer| feed_forward(layer).intermediate_size),
        }
    }

    /// Bytes that a workspace for such calls takes on `threads` threads, whatever comes. An adapter adds its rank for each row.
    pub fn workspace_bytes(&self, limits: CallLimits, threads: usize) -> usize {
        let CallLimits { rows, logit_rows, positions } = limits;
        let RowWidths { hidden, heads, fused, queries, keys, gate_up, activated } = self.row_widths();
        let of_rows = 2 * hidden + heads + fused + 2 * queries + keys + gate_up + activated;
        let places = 2;
        let floats = rows * (of_rows + places) + logit_rows * self.config().vocabulary_size;
        let widest = (self.matrices().map(|weight| weight.inputs())).max().unwrap_or(0);
        // Quantised weights meet rows in bf16 on a matrix unit alone.
        let meets_bf16 = |weight: &Weight| match weight.is_quantised() {
            true => weight.tells_prompts_from_answers(),
            false => !weight.is_f32(),
        };
        let rounded = match self.matrices().any(meets_bf16) {
            true => {
                bf16::rows_bytes(rows, widest)
                    + bf16::rows_bytes(rows, activated)
                    + threads * bf16::buffer_bytes(rows, widest)
            }
            false => 0,
        };
        let quantised = match self.matrices().any(|weight| weight.is_quantised()) {
            true => {
                quantised::rows_bytes(rows, widest)
                    + quantised::rows_bytes(rows, activated)
                    + threads * quantised::buffer_bytes(rows, widest)
            }
            false => 0,
        };
        let of_layers = |of: &dyn Fn(&PackedLayer) -> usize| self.layers.iter().map(of).max().unwrap_or(0);
        let routed =
            of_layers(&|layer| layer.mixture.as_ref().map_or(0, |mixture| mixture.rows_bytes(rows, hidden)));
        let latent = of_layers(&|layer| match &layer.projections {
            Projections::Latent(latent) => latent.rows_bytes(rows),
            Projections::Fused(_) => 0,
        });
        let scores = threads * (self.most_scores(positions) * 4 + PANEL_BYTES);
        4 * floats + self.rotations.bytes(rows) + rounded + quantised + routed + latent + scores
    }

    /// A workspace that holds all that such calls need: it does not grow.
    pub fn new_workspace_for(&self, limits: CallLimits, threads: usize) -> InferenceWorkspace {
        let mut workspace = self.new_workspace(limits.rows, threads);
        workspace.logits = vec![0.0; limits.logit_rows * self.config().vocabulary_size];
        let scores = self.most_scores(limits.positions);
        workspace.scores = (0..threads).map(|_| Vec::with_capacity(scores)).collect();
        workspace
    }

    /// Numbers of the scores of one task: its rows, or the heads of one row that share keys, over all positions.
    fn most_scores(&self, positions: usize) -> usize {
        let lines = (0..self.layers.len()).map(|layer| {
            let shape = self.shape(layer);
            TASK_ROWS.max(shape.heads / shape.kv_heads)
        });
        lines.max().unwrap_or(0) * positions.next_multiple_of(BLOCK_POSITIONS)
    }

    /// All matrices.
    pub(super) fn matrices(&self) -> impl Iterator<Item = &Weight> {
        self.layers.iter().flat_map(PackedLayer::matrices).chain([&self.head])
    }
}

impl PackedLayer {
    fn matrices(&self) -> Vec<&Weight> {
        let (fused, latent) = match &self.projections {
            Projections::Fused(fused) => (Some(fused), None),
            Projections::Latent(latent) => (None, Some(latent)),
        };
        let dense = self.dense.iter().flat_map(|(gate_up, down)| [gate_up, down]);
        let routed = self.mixture.iter().flat_map(|mixture| mixture.matrices());
        let latent = latent.into_iter().flat_map(|latent| latent.matrices());
        fused.into_iter().chain(latent).chain([&self.output]).chain(dense).chain(routed).collect()
    }
}
