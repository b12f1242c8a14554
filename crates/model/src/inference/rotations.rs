//! The rotations of a model's layers, and their cosines and sines for the positions of one call: a table of all positions
//! of a model that reads long texts would be larger than its smaller matrices.

use crate::config::ModelConfig;
use compute::rotary::RotaryTable;

/// Which layer turns how.
#[derive(Debug)]
pub(super) struct Rotations {
    /// Inverse frequencies, and the factor of cosines and sines.
    distinct: Vec<(Vec<f32>, f32)>,
    of_layer: Vec<usize>,
}

impl Rotations {
    pub fn new(config: &ModelConfig) -> Rotations {
        let mut distinct: Vec<(Vec<f32>, f32)> = Vec::new();
        let mut of_layer = Vec::new();
        for layer in &config.layers {
            let attention = layer.attention;
            let dimensions = attention.latent.map_or(attention.head_dim, |latent| latent.rotary_dim);
            let rotation = match attention.rotary {
                Some(rotary) => rotary.frequencies(dimensions),
                // By no angle at all: the values stay as they are, to the bit.
                None => (vec![0.0; dimensions / 2], 1.0),
            };
            let place = distinct.iter().position(|other| *other == rotation).unwrap_or(distinct.len());
            if place == distinct.len() {
                distinct.push(rotation);
            }
            of_layer.push(place);
        }
        Rotations { distinct, of_layer }
    }

    /// The place of a layer's table among those that [`Rotations::fill`] makes.
    pub fn of_layer(&self, layer: usize) -> usize {
        self.of_layer[layer]
    }

    /// Bytes of the tables of so many rows.
    pub fn bytes(&self, rows: usize) -> usize {
        self.distinct.iter().map(|(frequencies, _)| 2 * 4 * rows * frequencies.len()).sum()
    }

    /// Makes the tables whose entry i belongs to the i-th of `positions`.
    pub fn fill(&self, tables: &mut Vec<RotaryTable>, positions: &[u32]) {
        tables.resize_with(self.distinct.len(), RotaryTable::empty);
        for (table, (frequencies, factor)) in tables.iter_mut().zip(&self.distinct) {
            table.fill(frequencies, *factor, positions.iter().copied());
        }
    }
}
