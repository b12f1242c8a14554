//! The table of embeddings as it stands in memory: rows in one of GGUF's types, looked up and decoded a row at a time.

use gguf::ElementType;
use std::ops::Range;

/// Rows that are read together while a model is loaded.
const ROWS_TOGETHER: usize = 256;

/// A table [rows, width].
#[derive(Debug)]
pub(super) struct Table {
    element: ElementType,
    width: usize,
    row_bytes: usize,
    rows: usize,
    /// Empty where the table is only counted.
    bytes: Vec<u8>,
}

impl Table {
    /// Room for so many rows, each a whole number of blocks.
    pub fn zeroed(element: ElementType, width: usize, rows: usize) -> Table {
        let table = Table::counted(element, width, rows);
        Table { bytes: vec![0; table.bytes()], ..table }
    }

    /// A table of which only the size is wanted.
    pub fn counted(element: ElementType, width: usize, rows: usize) -> Table {
        let row_bytes = element.row_bytes(width).unwrap_or(0);
        Table { element, width, row_bytes, rows, bytes: Vec::new() }
    }

    /// Numbers as they are, rows of `width`.
    pub fn of_f32(values: &[f32], width: usize) -> Table {
        let mut table = Table::zeroed(ElementType::F32, width, values.len() / width);
        for (bytes, value) in table.bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *bytes = value.to_le_bytes();
        }
        table
    }

    /// Rows that are to be filled together, with their bytes.
    pub fn parts_mut(&mut self) -> Vec<(Range<usize>, &mut [u8])> {
        let row_bytes = self.row_bytes;
        let parts = self.bytes.chunks_mut((ROWS_TOGETHER * row_bytes).max(1));
        (0..)
            .step_by(ROWS_TOGETHER)
            .zip(parts)
            .map(|(first, part)| (first..first + part.len() / row_bytes, part))
            .collect()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.rows * self.row_bytes
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// One row, as it counts: into `out` [width].
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let stored = &self.bytes[row * self.row_bytes..][..self.row_bytes];
        gguf::dequantise(self.element, stored, &mut out[..self.width]);
    }
}
