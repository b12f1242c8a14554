//! Products with weights in few bits: y = x·Wᵀ, where W is kept in groups of 32 codes with one scale.
//!
//! Two ways through the same weights:
//! - [`QuantisedMatrix::multiply`]: x is quantised too, in groups of 32 with one scale each, and a group's products are added
//!   up as whole numbers. That reads nothing but codes: for a few rows at a time, bound by the memory.
//! - [`bf16`](crate::bf16): weights are spread out to bf16 a panel at a time and go through the processor's matrix unit: for
//!   many rows at a time, bound by arithmetic.
//!
//! A whole number has no rounding, so a group's sum is the same on every path; between groups there is one chain,
//! `y ← fma(sum, scale of x · scale of w, y)`, in the order of the groups. So here too the bits of an element depend on
//! nothing but its row and its column.

mod blocks;
mod pack;
mod portable;
mod repack;
mod rows;
#[cfg(target_arch = "x86_64")]
mod scales;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(target_arch = "x86_64")]
mod widened;

pub use blocks::Bits;
pub use rows::{QuantisedRows, rows_bytes};

#[cfg(target_arch = "x86_64")]
pub(crate) use scales::scales_and_minima;

use crate::activations::Gate;
use crate::memory::Lines;
use crate::path::CpuPath;
use crate::product::{MatrixMut, PANEL_COLUMNS, Target};
use crate::team::Team;
use std::ops::Range;

/// Weights that share a scale: consecutive along the input.
pub const GROUP: usize = 32;

/// W [outputs, inputs] in panels of 64 outputs, each with its own code: a matrix that is made of several, as queries, keys
/// and values are, keeps theirs.
#[derive(Clone, Debug, Default)]
pub struct QuantisedMatrix {
    inputs: usize,
    outputs: usize,
    panels: Vec<Panel>,
    data: Lines,
}

/// Where a panel lies.
#[derive(Clone, Debug)]
struct Panel {
    bits: Bits,
    columns: Range<usize>,
    bytes: Range<usize>,
}

/// A panel to be filled; what is not filled counts as zero.
#[derive(Debug)]
pub struct PanelMut<'a> {
    bits: Bits,
    inputs: usize,
    columns: Range<usize>,
    data: &'a mut [u8],
}

impl PanelMut<'_> {
    /// The matrix's rows that stand here, at most 64.
    pub fn outputs(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// How they are coded.
    pub fn bits(&self) -> Bits {
        self.bits
    }

    /// Quantises `values` [outputs, inputs]. What lies beyond the last input or output counts as zero.
    ///
    /// # Panics
    /// When the shape is another, or the code is one that is only taken over from files.
    pub fn quantise(&mut self, values: &[f32]) {
        assert_eq!(values.len(), self.columns.len() * self.inputs, "a panel of {:?}", self.columns);
        pack::pack(self.bits, values, self.inputs, self.data);
    }

    /// Takes over `stored` [outputs, inputs] in GGUF's blocks of this code. Nothing is rounded.
    ///
    /// # Panics
    /// When the lengths do not fit, or a row is no whole number of blocks.
    pub fn repack(&mut self, stored: &[u8]) {
        assert!(self.inputs.is_multiple_of(self.bits.block_inputs()), "rows of {}", self.inputs);
        let row_bytes = self.inputs / self.bits.block_inputs() * self.bits.stored_block_bytes();
        assert_eq!(stored.len(), self.columns.len() * row_bytes, "a panel of {:?}", self.columns);
        repack::repack(self.bits, stored, row_bytes, self.data);
    }
}

impl QuantisedMatrix {
    /// Quantises `values` [outputs, inputs]. What lies beyond the last input or output counts as zero.
    ///
    /// # Panics
    /// When `values` is no matrix of rows of `inputs`.
    pub fn new(values: &[f32], inputs: usize, bits: Bits) -> QuantisedMatrix {
        assert!(inputs > 0 && values.len().is_multiple_of(inputs), "rows of {inputs}");
        let mut matrix = QuantisedMatrix::zeroed(inputs, &[(values.len() / inputs, bits)]);
        for mut panel in matrix.panels_mut() {
            let rows = panel.outputs();
            panel.quantise(&values[rows.start * inputs..rows.end * inputs]);
        }
        matrix
    }

    /// Room for parts one behind another: how many outputs, and how they are coded.
    ///
    /// # Panics
    /// When `inputs` is 0.
    pub fn zeroed(inputs: usize, parts: &[(usize, Bits)]) -> QuantisedMatrix {
        assert!(inputs > 0, "rows of {inputs}");
        let groups = inputs.div_ceil(GROUP);
        let (mut panels, mut outputs, mut bytes) = (Vec::new(), 0, 0);
        for &(count, bits) in parts {
            for first in (0..count).step_by(PANEL_COLUMNS) {
                let columns = outputs + first..outputs + (first + PANEL_COLUMNS).min(count);
                panels.push(Panel { bits, columns, bytes: bytes..bytes + bits.panel_bytes(groups) });
                bytes += bits.panel_bytes(groups);
            }
            outputs += count;
        }
        QuantisedMatrix { inputs, outputs, panels, data: Lines::zeroed(bytes) }
    }

    /// Bytes that a matrix of such parts takes.
    pub fn bytes_for(inputs: usize, parts: &[(usize, Bits)]) -> usize {
        let groups = inputs.div_ceil(GROUP);
        parts.iter().map(|&(count, bits)| count.div_ceil(PANEL_COLUMNS) * bits.panel_bytes(groups)).sum()
    }

    /// All panels, to be filled each by whoever is free.
    pub fn panels_mut(&mut self) -> Vec<PanelMut<'_>> {
        let mut rest = self.data.bytes_mut();
        let mut panels = Vec::new();
        for Panel { bits, columns, bytes } in &self.panels {
            let (data, behind) = rest.split_at_mut(bytes.len());
            rest = behind;
            panels.push(PanelMut { bits: *bits, inputs: self.inputs, columns: columns.clone(), data });
        }
        panels
    }

    /// Width of a row of x.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Width of a row of y.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.data.bytes().len()
    }

    /// Panels of up to 64 outputs.
    pub fn panels(&self) -> usize {
        self.panels.len()
    }

    /// A panel's code, its outputs and its bytes.
    pub(crate) fn panel(&self, panel: usize) -> (Bits, Range<usize>, &[u8]) {
        let Panel { bits, columns, bytes } = &self.panels[panel];
        (*bits, columns.clone(), &self.data.bytes()[bytes.clone()])
    }

    /// One row of W, as it counts: into `row` [inputs].
    ///
    /// # Panics
    /// When there is no such row, or `row` has another length.
    pub fn row(&self, output: usize, row: &mut [f32]) {
        assert!(output < self.outputs && row.len() == self.inputs, "row {output} of {}", self.outputs);
        portable::row(self, output, row);
    }

    /// y [rows, outputs] ← x [rows, inputs]·Wᵀ, shared out over the team.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn multiply(&self, team: &Team, x: &QuantisedRows, y: &mut [f32]) {
        assert_eq!((x.width(), y.len()), (self.inputs, x.rows() * self.outputs), "shapes of a product");
        let target = Target::new(MatrixMut::new(y, x.rows(), self.outputs));
        let share = self.panels().div_ceil(team.threads());
        let kernel = Kernel::current();
        let work = |panels: Range<usize>| {
            #[cfg(target_arch = "x86_64")]
            if kernel == Kernel::Vnni && x.rows() >= widened::ROWS_WORTH_WIDENING {
                // SAFETY: the processor has the instructions. Each panel is one thread's, and y is borrowed mutably.
                return unsafe { widened::multiply(panels.map(|panel| self.panel(panel)), x, target) };
            }
            for panel in panels {
                // SAFETY: as above.
                unsafe { self.multiply_panel(kernel, panel, x, target) };
            }
        };
        if team.threads() > 1 && x.rows() * self.inputs * self.outputs >= WORTH_A_TEAM {
            team.run(&|thread| work(thread * share..((thread + 1) * share).min(self.panels())));
        } else {
            work(0..self.panels());
        }
    }

    /// Whether [`QuantisedMatrix::multiply_gated`] takes this matrix, for so many rows: whole panels, and instructions for them.
    pub fn has_gated_product(&self, rows: usize) -> bool {
        #[cfg(target_arch = "x86_64")]
        if Kernel::current() == Kernel::Vnni && rows >= widened::ROWS_WORTH_WIDENING {
            return self.is_gate_and_up();
        }
        let _ = rows;
        false
    }

    /// y [rows, outputs / 2] ← gate(x·Wgᵀ) · x·Wuᵀ, where the first half of W is the gate's and the second up's; quantised. The
    /// bits are those of the product, the gate and the rounding one after another.
    ///
    /// # Panics
    /// When the shapes do not match, or [`QuantisedMatrix::has_gated_product`] says no.
    pub fn multiply_gated(&self, team: &Team, x: &QuantisedRows, gate: Gate, y: &mut QuantisedRows) {
        assert!(x.width() == self.inputs && self.has_gated_product(x.rows()), "a product with a gate");
        #[cfg(target_arch = "x86_64")]
        {
            let pairs = self.panels() / 2;
            let share = pairs.div_ceil(team.threads());
            let y = y.reshape(x.rows(), self.outputs / 2);
            team.run(&|thread| {
                let own = (thread * share).min(pairs)..((thread + 1) * share).min(pairs);
                let own = own.map(|pair| {
                    let both = [pair, pairs + pair].map(|panel| self.panel(panel));
                    (pair * PANEL_COLUMNS / GROUP, both)
                });
                // SAFETY: the processor has the instructions. Each pair is one thread's, and y is borrowed mutably.
                unsafe { widened::multiply_gated(own, x, gate, y) };
            });
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (team, gate, y);
    }

    /// # Safety
    /// Nobody else touches the columns of this panel in `y`; the shapes match.
    unsafe fn multiply_panel(&self, kernel: Kernel, panel: usize, x: &QuantisedRows, y: Target) {
        let (bits, columns, weights) = self.panel(panel);
        for first in (0..x.rows()).step_by(kernel.rows()) {
            let rows = first..(first + kernel.rows()).min(x.rows());
            // SAFETY: the columns lie inside y, the rows inside x and y.
            unsafe {
                match kernel {
                    #[cfg(target_arch = "x86_64")]
                    Kernel::Vnni => vnni::multiply(bits, weights, x, rows, columns.clone(), y),
                    Kernel::Portable => {
                        let mut sums = [0.0f32; PANEL_COLUMNS];
                        portable::multiply(bits, weights, x, first, &mut sums);
                        let y = y.at(first, columns.start);
                        std::ptr::copy_nonoverlapping(sums.as_ptr(), y, columns.len());
                    }
                }
            }
        }
    }
}

/// Bytes that each thread of a product of so many rows of `width` takes.
pub fn buffer_bytes(rows: usize, width: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if Kernel::current() == Kernel::Vnni {
        return widened::buffer_bytes(rows, width);
    }
    let _ = (rows, width);
    0
}

/// Multiplications below which a second thread does not pay.
const WORTH_A_TEAM: usize = 1 << 17;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Vnni,
    Portable,
}

impl Kernel {
    fn current() -> Kernel {
        #[cfg(target_arch = "x86_64")]
        if CpuPath::current() == CpuPath::Avx512 && crate::path::has_vnni() {
            return Kernel::Vnni;
        }
        let _ = CpuPath::current();
        Kernel::Portable
    }

    /// Rows of x that are taken at a time.
    fn rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Vnni => vnni::ROWS,
            Kernel::Portable => 1,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
