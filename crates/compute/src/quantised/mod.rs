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

mod pack;
mod portable;
mod rows;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub use rows::QuantisedRows;

use crate::memory::Lines;
use crate::path::CpuPath;
use crate::product::{MatrixMut, PANEL_COLUMNS, Target};
use crate::team::Team;

/// Weights that share a scale: consecutive along the input.
pub const GROUP: usize = 32;
/// Bytes of the scales of one group in one panel.
const SCALE_BYTES: usize = 2 * PANEL_COLUMNS;

/// How a weight is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// w = scale · q, q from −127 to 127 (GGUF's Q8_0).
    Eight,
    /// w = scale · q, q from −8 to 7 (GGUF's Q4_0).
    Four,
}

impl Bits {
    /// Bytes of one group in one panel: 64 scales in f16, then the codes.
    pub(crate) fn group_bytes(self) -> usize {
        SCALE_BYTES + self.code_bytes()
    }

    fn code_bytes(self) -> usize {
        match self {
            Bits::Eight => GROUP * PANEL_COLUMNS,
            Bits::Four => GROUP * PANEL_COLUMNS / 2,
        }
    }

    /// What is added to a code so that it is not negative.
    pub(crate) fn offset(self) -> i32 {
        match self {
            Bits::Eight => 128,
            Bits::Four => 8,
        }
    }
}

/// W [outputs, inputs] in panels of 64 outputs. A panel is a sequence of groups along the input; a group has the 64 scales
/// (f16) and then its codes: for each four inputs, 64 outputs of four bytes. With four bits, a byte has the code of its
/// place in the first sixteen inputs below and of the last sixteen above.
#[derive(Clone, Debug, Default)]
pub struct QuantisedMatrix {
    bits: Option<Bits>,
    inputs: usize,
    outputs: usize,
    data: Lines,
}

impl QuantisedMatrix {
    /// Quantises `values` [outputs, inputs]. What lies beyond the last input or output counts as zero.
    ///
    /// # Panics
    /// When `values` is no matrix of rows of `inputs`.
    pub fn new(values: &[f32], inputs: usize, bits: Bits) -> QuantisedMatrix {
        assert!(inputs > 0 && values.len().is_multiple_of(inputs), "rows of {inputs}");
        let outputs = values.len() / inputs;
        let mut matrix = QuantisedMatrix { bits: Some(bits), inputs, outputs, data: Lines::default() };
        matrix.data = Lines::zeroed(matrix.panels() * matrix.panel_bytes());
        pack::pack(values, &mut matrix);
        matrix
    }

    /// How weights are coded.
    pub fn bits(&self) -> Bits {
        self.bits.unwrap_or(Bits::Eight)
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

    /// Panels of 64 outputs.
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL_COLUMNS)
    }

    /// Groups along the input.
    pub fn groups(&self) -> usize {
        self.inputs.div_ceil(GROUP)
    }

    fn panel_bytes(&self) -> usize {
        self.groups() * self.bits().group_bytes()
    }

    pub(crate) fn panel(&self, panel: usize) -> &[u8] {
        &self.data.bytes()[panel * self.panel_bytes()..][..self.panel_bytes()]
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
        let path = Kernel::current();
        let part = |thread: usize| {
            let panels = thread * share..((thread + 1) * share).min(self.panels());
            for panel in panels {
                // SAFETY: each panel is one thread's, and y is borrowed mutably for the whole call.
                unsafe { self.multiply_panel(path, panel, x, target) };
            }
        };
        if team.threads() > 1 && x.rows() * self.inputs * self.outputs >= WORTH_A_TEAM {
            team.run(&part);
        } else {
            for panel in 0..self.panels() {
                // SAFETY: as above.
                unsafe { self.multiply_panel(path, panel, x, target) };
            }
        }
    }

    /// # Safety
    /// Nobody else touches the columns of this panel in `y`; the shapes match.
    unsafe fn multiply_panel(&self, kernel: Kernel, panel: usize, x: &QuantisedRows, y: Target) {
        let columns = panel * PANEL_COLUMNS..((panel + 1) * PANEL_COLUMNS).min(self.outputs);
        let weights = self.panel(panel);
        for first in (0..x.rows()).step_by(kernel.rows()) {
            let rows = first..(first + kernel.rows()).min(x.rows());
            // SAFETY: the columns lie inside y, the rows inside x and y.
            unsafe {
                match kernel {
                    #[cfg(target_arch = "x86_64")]
                    Kernel::Vnni => vnni::multiply(self.bits(), weights, x, rows, columns.clone(), y),
                    Kernel::Portable => {
                        let mut sums = [0.0f32; PANEL_COLUMNS];
                        portable::multiply(self.bits(), weights, x, first, &mut sums);
                        let y = y.at(first, columns.start);
                        std::ptr::copy_nonoverlapping(sums.as_ptr(), y, columns.len());
                    }
                }
            }
        }
    }
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
mod tests {
    use super::*;
    use crate::testing::{normal_numbers, same_on_every_path};

    fn exact(x: &[f32], matrix: &QuantisedMatrix) -> Vec<f64> {
        let mut row = vec![0.0; matrix.inputs()];
        let mut y = Vec::new();
        for x in x.chunks(matrix.inputs()) {
            for output in 0..matrix.outputs() {
                matrix.row(output, &mut row);
                y.push(x.iter().zip(&row).map(|(&x, &w)| x as f64 * w as f64).sum());
            }
        }
        y
    }

    #[test]
    fn products_are_near_those_of_the_weights_as_they_count() {
        for bits in [Bits::Eight, Bits::Four] {
            for (rows, inputs, outputs) in [(1, 32, 64), (3, 100, 70), (7, 256, 130), (2, 31, 1)] {
                let (x, w) = (normal_numbers(1, rows * inputs), normal_numbers(2, inputs * outputs));
                let matrix = QuantisedMatrix::new(&w, inputs, bits);
                let mut y = vec![f32::NAN; rows * outputs];
                matrix.multiply(&Team::new(1), &QuantisedRows::of(&x, inputs), &mut y);
                let expected = exact(&x, &matrix);
                let error: f64 = y.iter().zip(&expected).map(|(&y, e)| (y as f64 - e).powi(2)).sum();
                let scale: f64 = expected.iter().map(|e| e * e).sum();
                // what is left is the rounding of x to 8 bits
                assert!(
                    (error / scale).sqrt() < 0.012,
                    "{bits:?} {rows}×{inputs}×{outputs}: {error} of {scale}"
                );
            }
        }
    }

    #[test]
    fn weights_are_near_their_values() {
        let w = normal_numbers(3, 64 * 96);
        for (bits, most) in [(Bits::Eight, 0.006), (Bits::Four, 0.1)] {
            let matrix = QuantisedMatrix::new(&w, 96, bits);
            let (mut error, mut scale, mut row) = (0.0, 0.0, vec![0.0; 96]);
            for (output, w) in w.chunks(96).enumerate() {
                matrix.row(output, &mut row);
                error += w.iter().zip(&row).map(|(&w, &q)| ((w - q) as f64).powi(2)).sum::<f64>();
                scale += w.iter().map(|&w| (w as f64).powi(2)).sum::<f64>();
            }
            assert!((error / scale).sqrt() < most, "{bits:?}: {}", (error / scale).sqrt());
        }
    }

    #[test]
    fn every_path_number_of_rows_and_of_threads_gives_the_same_bits() {
        let (inputs, outputs) = (224, 200);
        let (x, w) = (normal_numbers(4, 9 * inputs), normal_numbers(5, inputs * outputs));
        for bits in [Bits::Eight, Bits::Four] {
            let matrix = QuantisedMatrix::new(&w, inputs, bits);
            let run = |threads: usize, rows: usize| {
                let team = Team::new(threads);
                let mut all = Vec::new();
                for x in x.chunks(rows * inputs) {
                    let mut y = vec![0.0; x.len() / inputs * outputs];
                    matrix.multiply(&team, &QuantisedRows::of(x, inputs), &mut y);
                    all.extend(y);
                }
                all
            };
            let expected = run(1, 1);
            for (threads, rows) in [(1, 2), (1, 9), (2, 9), (3, 4)] {
                assert_eq!(
                    run(threads, rows),
                    expected,
                    "{bits:?}, {threads} threads, {rows} rows at a time"
                );
            }
            same_on_every_path(|| run(1, 9));
        }
    }

    #[test]
    fn values_beyond_measure_do_not_break_anything() {
        for value in [0.0, 1e-30, 3e38, f32::INFINITY, f32::NAN] {
            let matrix = QuantisedMatrix::new(&[value; 64], 32, Bits::Eight);
            let mut y = vec![0.0; 2];
            matrix.multiply(&Team::new(1), &QuantisedRows::of(&[value; 32], 32), &mut y);
            assert!(value.is_finite() || y.iter().all(|y| !y.is_finite()), "{value}: {y:?}");
        }
    }
}
