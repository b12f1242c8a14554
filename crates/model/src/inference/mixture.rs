//! The routed experts of a layer at work.

use super::TASK_ROWS;
use super::read::Reader;
use super::weight::{Products, RoundedRows, Weight, WeightFormat};
use crate::ModelError;
use crate::config::MixtureSpecification;
use crate::spans::MixtureSpans;
use compute::routing::{combine, gather, group, route};
use compute::swiglu::swiglu;

#[derive(Debug)]
pub(super) struct PackedMixture {
    specification: MixtureSpecification,
    router: Weight,
    bias: Vec<f32>,
    pub experts: Vec<PackedExpert>,
}

#[derive(Debug)]
pub(super) struct PackedExpert {
    pub gate_up: Weight,
    pub down: Weight,
}

/// Rows on their way through a mixture's experts.
#[derive(Debug, Default)]
pub(super) struct RoutedRows {
    logits: Vec<f32>,
    scores: Vec<f32>,
    chosen: Vec<u32>,
    weights: Vec<f32>,
    offsets: Vec<u32>,
    pairs: Vec<u32>,
    places: Vec<u32>,
    gathered: Vec<f32>,
    gate_up: Vec<f32>,
    activated: Vec<f32>,
    outputs: Vec<f32>,
}

impl PackedMixture {
    pub fn new(
        specification: MixtureSpecification,
        spans: &MixtureSpans,
        reader: &Reader,
        hidden: usize,
    ) -> Result<PackedMixture, ModelError> {
        let mut experts = Vec::with_capacity(specification.experts);
        for expert in 0..specification.experts {
            experts.push(PackedExpert {
                gate_up: reader.matrix(&spans.gate_up(expert), hidden)?,
                down: reader.matrix(&spans.down(expert), specification.intermediate_size)?,
            });
        }
        Ok(PackedMixture {
            specification,
            // A choice turns on small differences, and the router is small.
            router: reader.matrix_as(&spans.router, hidden, WeightFormat::F32)?,
            bias: match spans.router_bias.is_empty() {
                true => vec![0.0; specification.experts],
                false => reader.values(&spans.router_bias)?,
            },
            experts,
        })
    }

    /// All matrices.
    pub fn matrices(&self) -> impl Iterator<Item = &Weight> {
        let experts = self.experts.iter().flat_map(|expert| [&expert.gate_up, &expert.down]);
        experts.chain([&self.router])
    }

    /// Bytes of [`RoutedRows`] for so many rows, and of what rounds the rows of an expert at a time.
    pub fn rows_bytes(&self, rows: usize, hidden: usize) -> usize {
        let MixtureSpecification { experts, experts_per_token: k, intermediate_size: width, .. } =
            self.specification;
        let of_rows = 2 * experts + 3 * k + k * (2 * hidden + 3 * width) + k;
        4 * (rows * of_rows + experts + 1)
    }

    /// Matrices that one token meets, with how many of that kind.
    pub fn met_by_a_token(&self) -> impl Iterator<Item = (&Weight, usize)> {
        let chosen = self.specification.experts_per_token;
        let expert = self.experts.iter().take(1);
        expert
            .flat_map(move |expert| [(&expert.gate_up, chosen), (&expert.down, chosen)])
            .chain([(&self.router, 1)])
    }

    /// Sends each row of x [rows, hidden] through the experts that it chooses.
    pub fn run(
        &self,
        x: &[f32],
        hidden: usize,
        products: Products,
        rounded: &mut RoundedRows,
        routed: &mut RoutedRows,
    ) {
        let MixtureSpecification { experts, experts_per_token: k, intermediate_size: width, .. } =
            self.specification;
        let rows = x.len() / hidden;
        let pairs = rows * k;
        routed.reserve(rows, hidden, &self.specification);
        let RoutedRows { logits, scores, chosen, weights, offsets, places, .. } = routed;
        let (logits, chosen) = (&mut logits[..rows * experts], &mut chosen[..pairs]);
        products.multiply(x, &self.router, logits, rounded);
        route(&self.specification.routing(), logits, &self.bias, scores, chosen, weights);
        let offsets = &mut offsets[..experts + 1];
        group(chosen, offsets, &mut routed.pairs, &mut places[..pairs]);
        gather(x, hidden, k, &routed.pairs[..pairs], &mut routed.gathered);

        let mut tasks = Vec::new();
        let mut rest = (
            &routed.gathered[..pairs * hidden],
            &mut routed.gate_up[..pairs * 2 * width],
            &mut routed.activated[..pairs * width],
            &mut routed.outputs[..pairs * hidden],
        );
        for (expert, stretch) in self.experts.iter().zip(offsets.windows(2)) {
            for first in (stretch[0]..stretch[1]).step_by(TASK_ROWS) {
                let rows = TASK_ROWS.min((stretch[1] - first) as usize);
                let (x, x_rest) = rest.0.split_at(rows * hidden);
                let (gate_up, gate_up_rest) = rest.1.split_at_mut(rows * 2 * width);
                let (activated, activated_rest) = rest.2.split_at_mut(rows * width);
                let (output, output_rest) = rest.3.split_at_mut(rows * hidden);
                rest = (x_rest, gate_up_rest, activated_rest, output_rest);
                tasks.push(ExpertTask { expert, x, gate_up, activated, output });
            }
        }
        products.team.each(tasks, ExpertTask::run);
    }

    /// Adds to each row of `branch` what its experts have made of it.
    pub fn combine(&self, branch: &mut [f32], hidden: usize, routed: &RoutedRows) {
        let k = self.specification.experts_per_token;
        combine(&routed.outputs, hidden, k, &routed.places, &routed.weights, branch);
    }
}

impl RoutedRows {
    fn reserve(&mut self, rows: usize, hidden: usize, mixture: &MixtureSpecification) {
        let MixtureSpecification { experts, experts_per_token: k, intermediate_size: width, .. } = *mixture;
        for (buffer, length) in [
            (&mut self.logits, rows * experts),
            (&mut self.scores, rows * experts),
            (&mut self.weights, rows * k),
            (&mut self.gathered, rows * k * hidden),
            (&mut self.gate_up, rows * k * 2 * width),
            (&mut self.activated, rows * k * width),
            (&mut self.outputs, rows * k * hidden),
        ] {
            if buffer.len() < length {
                buffer.resize(length, 0.0);
            }
        }
        for (buffer, length) in [
            (&mut self.chosen, rows * k),
            (&mut self.pairs, rows * k),
            (&mut self.places, rows * k),
            (&mut self.offsets, experts + 1),
        ] {
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
        }
    }
}

/// Some rows of one expert.
struct ExpertTask<'a> {
    expert: &'a PackedExpert,
    x: &'a [f32],
    gate_up: &'a mut [f32],
    activated: &'a mut [f32],
    output: &'a mut [f32],
}

impl ExpertTask<'_> {
    fn run(self) {
        let ExpertTask { expert, x, gate_up, activated, output } = self;
        expert.gate_up.multiply(x, gate_up);
        swiglu(gate_up, expert.down.inputs(), activated);
        expert.down.multiply(activated, output);
    }
}
