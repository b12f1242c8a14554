//! Keys and values of running sequences, in blocks.

/// A pool of blocks of keys and values. Who holds which block is the caller's book-keeping.
#[derive(Debug)]
pub struct KvCache {
    pub(super) data: Vec<f32>,
    pub(super) blocks: usize,
    pub(super) layer_offsets: Vec<usize>,
    pub(super) block_floats: usize,
}

impl KvCache {
    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Copies all layers of a block: two sequences that begin alike may go on apart inside a block.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let begin = from as usize * self.block_floats;
        self.data.copy_within(begin..begin + self.block_floats, to as usize * self.block_floats);
    }

    pub(super) fn layer(&self, layer: usize, block: u32) -> &[f32] {
        let begin = block as usize * self.block_floats;
        &self.data[begin + self.layer_offsets[layer]..begin + self.layer_offsets[layer + 1]]
    }

    pub(super) fn layer_mut(&mut self, layer: usize, block: u32) -> &mut [f32] {
        let begin = block as usize * self.block_floats;
        &mut self.data[begin + self.layer_offsets[layer]..begin + self.layer_offsets[layer + 1]]
    }
}
