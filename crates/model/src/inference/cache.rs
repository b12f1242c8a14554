//! Keys and values of running sequences, in blocks.

use super::InferenceModel;
use compute::attention::AttentionShape;
use compute::cached_attention::{CacheBlock, CacheBlockMut, block_floats, block_numbers, code_block_bytes};
use compute::memory::Lines;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The numbers that keys and values are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheFormat {
    /// Attention is computed as in training.
    F32,
    /// The upper half of an f32; attention rounds queries and weights likewise, sums are f32.
    Bf16,
    /// Eight bits, with one scale in f32 for each head and position. Attention as with bf16.
    #[serde(rename = "q8_0")]
    Q8,
}

impl CacheFormat {
    /// All, the most exact first.
    pub const ALL: [CacheFormat; 3] = [CacheFormat::F32, CacheFormat::Bf16, CacheFormat::Q8];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            CacheFormat::F32 => "f32",
            CacheFormat::Bf16 => "bf16",
            CacheFormat::Q8 => "q8_0",
        }
    }

    /// The format of this name.
    pub fn of_name(name: &str) -> Option<CacheFormat> {
        CacheFormat::ALL.into_iter().find(|format| format.name() == name)
    }

    fn block_bytes(self, shape: AttentionShape) -> usize {
        match self {
            CacheFormat::F32 => 4 * block_floats(shape),
            CacheFormat::Bf16 => 2 * block_numbers(shape),
            CacheFormat::Q8 => code_block_bytes(shape),
        }
    }
}

/// Where each layer begins in a block, in bytes, and where the last one ends.
type LayerOffsets = Vec<usize>;

/// A layer's part of a block begins at a multiple of this, as the matrix unit likes it.
const ALIGNMENT: usize = 64;

impl InferenceModel {
    /// What goes with the weights, where nothing else is said: f32 with f32, else bf16.
    pub fn default_cache_format(&self) -> CacheFormat {
        // Of weights as a file stores them, one matrix stands for all.
        match self.layers.first().is_none_or(|layer| layer.output.is_f32()) {
            true => CacheFormat::F32,
            false => CacheFormat::Bf16,
        }
    }

    /// A pool of `blocks` blocks in the format that goes with the weights; each holds 64 positions of one sequence in all
    /// layers.
    pub fn new_cache(&self, blocks: usize) -> KvCache {
        self.new_cache_as(blocks, self.default_cache_format())
    }

    /// As [`InferenceModel::new_cache`], in `format`. The system gives the memory when it is first written to.
    pub fn new_cache_as(&self, blocks: usize, format: CacheFormat) -> KvCache {
        let layer_offsets = self.layer_offsets(format);
        let block_bytes = layer_offsets[layer_offsets.len() - 1];
        let layers = (0..layer_offsets.len() - 1).map(|layer| self.layer_format(layer, format)).collect();
        KvCache {
            data: Lines::zeroed(blocks * block_bytes),
            blocks,
            format,
            layers,
            layer_offsets,
            block_bytes,
        }
    }

    /// Bytes of one block of a cache in `format`.
    pub fn cache_block_bytes(&self, format: CacheFormat) -> usize {
        self.layer_offsets(format).last().copied().unwrap_or(0)
    }

    /// Whether a cache is one that [`InferenceModel::new_cache_as`] made for this model.
    pub(super) fn fits(&self, cache: &KvCache) -> bool {
        self.layer_offsets(cache.format) == cache.layer_offsets
    }

    /// A latent vector is several things of different size, for which one scale is too little.
    fn layer_format(&self, layer: usize, format: CacheFormat) -> CacheFormat {
        match (format, self.config().layers[layer].attention.latent) {
            (CacheFormat::Q8, Some(_)) => CacheFormat::Bf16,
            _ => format,
        }
    }

    fn layer_offsets(&self, format: CacheFormat) -> LayerOffsets {
        let mut offsets = vec![0];
        for layer in 0..self.layers.len() {
            let bytes = self.layer_format(layer, format).block_bytes(self.shape(layer));
            offsets.push(offsets[layer] + bytes.next_multiple_of(ALIGNMENT));
        }
        offsets
    }
}

/// A pool of blocks of keys and values. Who holds which block is the caller's book-keeping.
#[derive(Debug)]
pub struct KvCache {
    data: Lines,
    pub(super) blocks: usize,
    format: CacheFormat,
    /// Of each layer.
    layers: Vec<CacheFormat>,
    layer_offsets: LayerOffsets,
    block_bytes: usize,
}

impl KvCache {
    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// The numbers that keys and values are kept in.
    pub fn format(&self) -> CacheFormat {
        self.format
    }

    /// Copies all layers of a block: two sequences that begin alike may go on apart inside a block.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let begin = from as usize * self.block_bytes;
        let data = self.data.bytes_mut();
        data.copy_within(begin..begin + self.block_bytes, to as usize * self.block_bytes);
    }

    fn place(&self, layer: usize, block: u32) -> Range<usize> {
        let begin = block as usize * self.block_bytes;
        begin + self.layer_offsets[layer]..begin + self.layer_offsets[layer + 1]
    }

    pub(super) fn layer(&self, layer: usize, block: u32) -> CacheBlock<'_> {
        let Range { start, end } = self.place(layer, block);
        match self.layers[layer] {
            CacheFormat::F32 => CacheBlock::F32(&self.data.floats()[start / 4..end / 4]),
            CacheFormat::Bf16 => CacheBlock::Bf16(&self.data.numbers()[start / 2..end / 2]),
            CacheFormat::Q8 => CacheBlock::Q8(&self.data.bytes()[start..end]),
        }
    }

    pub(super) fn layer_mut(&mut self, layer: usize, block: u32) -> CacheBlockMut<'_> {
        let Range { start, end } = self.place(layer, block);
        match self.layers[layer] {
            CacheFormat::F32 => CacheBlockMut::F32(&mut self.data.floats_mut()[start / 4..end / 4]),
            CacheFormat::Bf16 => CacheBlockMut::Bf16(&mut self.data.numbers_mut()[start / 2..end / 2]),
            CacheFormat::Q8 => CacheBlockMut::Q8(&mut self.data.bytes_mut()[start..end]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for format in CacheFormat::ALL {
            assert_eq!(CacheFormat::of_name(format.name()), Some(format));
        }
        assert_eq!(CacheFormat::of_name("q4_0"), None);
    }
}
