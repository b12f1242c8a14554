//! A matrix of weights as it stands in memory, and its product with some rows.

use compute::product::{PANEL_COLUMNS, multiply_packed_panels};
use compute::{MatrixMut, MatrixRef, PackedMatrix, Start, multiply_packed};
use rayon::prelude::*;

/// Below this many multiply-adds a product is done before a second thread is awake.
pub(super) const WORTH_A_THREAD: usize = 2_000_000;

/// The numbers that weights are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightFormat {
    /// As in training.
    #[default]
    F32,
}

/// A matrix W [outputs, inputs], packed for y = x·Wᵀ.
#[derive(Debug)]
pub(super) enum Weight {
    F32(PackedMatrix),
}

impl Weight {
    /// Packs `values` [outputs, inputs].
    pub fn new(values: &[f32], inputs: usize, format: WeightFormat) -> Weight {
        let matrix = MatrixRef::new(values, values.len() / inputs, inputs).transposed();
        match format {
            WeightFormat::F32 => Weight::F32(PackedMatrix::new(matrix)),
        }
    }

    /// Width of a row of x.
    pub fn inputs(&self) -> usize {
        match self {
            Weight::F32(matrix) => matrix.rows(),
        }
    }

    /// Width of a row of y.
    pub fn outputs(&self) -> usize {
        match self {
            Weight::F32(matrix) => matrix.columns(),
        }
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        match self {
            Weight::F32(matrix) => matrix.bytes(),
        }
    }

    /// y [rows, outputs] ← x [rows, inputs]·Wᵀ, on this thread alone.
    pub fn multiply(&self, x: &[f32], y: &mut [f32]) {
        let rows = x.len() / self.inputs();
        match self {
            Weight::F32(matrix) => multiply_packed(
                MatrixRef::new(x, rows, matrix.rows()),
                matrix,
                MatrixMut::new(y, rows, matrix.columns()),
                Start::Zero,
            ),
        }
    }
}

/// Threads for products, if there are several.
#[derive(Clone, Copy)]
pub(super) struct Pool<'a> {
    pub pool: Option<&'a rayon::ThreadPool>,
    pub threads: usize,
}

impl Pool<'_> {
    /// y ← x·b, cut by rows or by panels of columns where that pays. The cutting has no influence on the bits.
    pub fn multiply(self, x: &[f32], weight: &Weight, y: &mut [f32], columns: &mut [Vec<f32>]) {
        let (input, output) = (weight.inputs(), weight.outputs());
        let rows = x.len() / input;
        let whole = |x: &[f32], y: &mut [f32]| weight.multiply(x, y);
        let Some(pool) = self.pool.filter(|_| rows * input * output >= WORTH_A_THREAD) else {
            return whole(x, y);
        };
        if rows >= 24 * self.threads {
            let share = rows.div_ceil(self.threads).next_multiple_of(6);
            pool.install(|| {
                x.par_chunks(share * input)
                    .zip(y.par_chunks_mut(share * output))
                    .for_each(|(x, y)| whole(x, y))
            });
            return;
        }
        let Weight::F32(b) = weight;
        let share = b.panels().div_ceil(self.threads);
        pool.install(|| {
            columns[..b.panels().div_ceil(share)].par_iter_mut().enumerate().for_each(|(thread, part)| {
                let panels = thread * share..((thread + 1) * share).min(b.panels());
                let width = (panels.end * PANEL_COLUMNS).min(output) - panels.start * PANEL_COLUMNS;
                part.resize(rows * width, 0.0);
                multiply_packed_panels(
                    MatrixRef::new(x, rows, input),
                    b,
                    panels,
                    MatrixMut::new(part, rows, width),
                    Start::Zero,
                );
            });
        });
        for (thread, part) in columns[..b.panels().div_ceil(share)].iter().enumerate() {
            let (first, width) = (thread * share * PANEL_COLUMNS, part.len() / rows);
            for (row, part) in part.chunks_exact(width).enumerate() {
                y[row * output + first..][..width].copy_from_slice(part);
            }
        }
    }
}
