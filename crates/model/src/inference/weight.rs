//! A matrix of weights as it stands in memory, and its product with some rows.

use super::TASK_ROWS;
use compute::activations::Gate;
use compute::{
    Bf16Matrix, Bf16Rows, Bits, MatrixMut, MatrixRef, PackedMatrix, QuantisedMatrix, QuantisedRows, Start,
    Team, bf16, multiply_packed_on,
};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The numbers that weights are kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightFormat {
    /// As in training.
    #[default]
    F32,
    /// The upper half of an f32; activations are rounded likewise, sums are f32.
    Bf16,
    /// Eight bits, in groups of 32 with one scale (8.5 bits a weight): GGUF's Q8_0.
    #[serde(rename = "q8_0")]
    Q8,
    /// Four bits, in groups of 32 with one scale (4.5 bits a weight): GGUF's Q4_0, with scales that are looked for.
    #[serde(rename = "q4_0")]
    Q4,
    /// Each matrix of a GGUF file as it is stored there, where there is a product for it (F32, BF16, Q8_0, Q4_0, Q4_1, Q4_K);
    /// F16 as BF16, Q5_0, Q5_1, Q5_K and Q6_K as Q8_0. Of a folder, F32.
    Stored,
}

impl WeightFormat {
    /// All that hold for a whole model, the most exact first.
    pub const ALL: [WeightFormat; 4] =
        [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Q8, WeightFormat::Q4];

    /// Its name in settings and files.
    pub fn name(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::Bf16 => "bf16",
            WeightFormat::Q8 => "q8_0",
            WeightFormat::Q4 => "q4_0",
            WeightFormat::Stored => "stored",
        }
    }

    /// The format of this name.
    pub fn of_name(name: &str) -> Option<WeightFormat> {
        WeightFormat::ALL.into_iter().chain([WeightFormat::Stored]).find(|format| format.name() == name)
    }
}

/// A matrix W [outputs, inputs], packed for y = x·Wᵀ.
#[derive(Debug)]
pub(super) enum Weight {
    F32(PackedMatrix),
    Bf16(Bf16Matrix),
    /// In 8 or 4 bits, each part with its own code.
    Quantised(QuantisedMatrix),
    /// Of a model that is only counted: nothing stands in memory.
    Counted(Counted),
}

/// What is known of a matrix before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub inputs: usize,
    pub outputs: usize,
    pub bytes: usize,
    pub is_f32: bool,
    pub is_quantised: bool,
}

impl Weight {
    /// Packs `values` [outputs, inputs].
    pub fn new(values: &[f32], inputs: usize, format: WeightFormat) -> Weight {
        match format {
            WeightFormat::F32 | WeightFormat::Stored => {
                let matrix = MatrixRef::new(values, values.len() / inputs, inputs).transposed();
                Weight::F32(PackedMatrix::new(matrix))
            }
            WeightFormat::Bf16 => Weight::Bf16(Bf16Matrix::new(values, inputs)),
            WeightFormat::Q8 => Weight::Quantised(QuantisedMatrix::new(values, inputs, Bits::Eight)),
            WeightFormat::Q4 => Weight::Quantised(QuantisedMatrix::new(values, inputs, Bits::Four)),
        }
    }

    /// Width of a row of x.
    pub fn inputs(&self) -> usize {
        match self {
            Weight::F32(matrix) => matrix.rows(),
            Weight::Bf16(matrix) => matrix.inputs(),
            Weight::Quantised(matrix) => matrix.inputs(),
            Weight::Counted(matrix) => matrix.inputs,
        }
    }

    /// Width of a row of y.
    pub fn outputs(&self) -> usize {
        match self {
            Weight::F32(matrix) => matrix.columns(),
            Weight::Bf16(matrix) => matrix.outputs(),
            Weight::Quantised(matrix) => matrix.outputs(),
            Weight::Counted(matrix) => matrix.outputs,
        }
    }

    /// One row of W, as it counts: into `row` [inputs].
    pub fn row(&self, output: usize, row: &mut [f32]) {
        match self {
            Weight::F32(matrix) => matrix.column(output, row),
            Weight::Bf16(matrix) => matrix.row(output, row),
            Weight::Quantised(matrix) => matrix.row(output, row),
            Weight::Counted(_) => row.fill(0.0),
        }
    }

    /// Whether its products are those of training.
    pub fn is_f32(&self) -> bool {
        matches!(self, Weight::F32(_) | Weight::Counted(Counted { is_f32: true, .. }))
    }

    /// Whether it is kept in 8 or 4 bits.
    pub fn is_quantised(&self) -> bool {
        matches!(self, Weight::Quantised(_) | Weight::Counted(Counted { is_quantised: true, .. }))
    }

    /// Whether rows of a prompt are computed in other numbers than rows of an answer on this machine: with a matrix unit,
    /// quantised weights meet a prompt in bf16, and an answer in whole numbers.
    pub fn tells_prompts_from_answers(&self) -> bool {
        self.is_quantised() && bf16::has_matrix_unit()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        match self {
            Weight::F32(matrix) => matrix.bytes(),
            Weight::Bf16(matrix) => matrix.bytes(),
            Weight::Quantised(matrix) => matrix.bytes(),
            Weight::Counted(matrix) => matrix.bytes,
        }
    }

    /// y [rows, outputs] ← x [rows, inputs]·Wᵀ on this thread, as for rows of an answer.
    pub fn multiply(&self, x: &[f32], y: &mut [f32]) {
        let (team, rows) = (Team::new(1), x.len() / self.inputs());
        Products { team: &team, stretches: &[(0..rows, true)] }.multiply(
            x,
            self,
            y,
            &mut RoundedRows::default(),
        );
    }
}

/// Rows of x in fewer bits, on their way into a product.
#[derive(Debug, Default)]
pub(super) struct RoundedRows {
    bf16: Bf16Rows,
    quantised: QuantisedRows,
    /// What has passed a gate.
    gated: Bf16Rows,
    quantised_gated: QuantisedRows,
}

/// The matrices of a feed-forward layer whose gate needs nothing but their product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gated<'a> {
    pub gate_up: &'a Weight,
    pub gate: Gate,
    pub down: &'a Weight,
}

/// Who computes products, and which rows belong to answers.
#[derive(Clone, Copy)]
pub(super) struct Products<'a> {
    pub team: &'a Team,
    /// Rows one behind another, with whether they belong to an answer.
    pub stretches: &'a [(Range<usize>, bool)],
}

impl Products<'_> {
    /// x [rows, hidden] ← down(gate(x)), without the numbers in between where the weights allow it; `wide` and `narrow` are
    /// where they stand otherwise, before the gate and behind it. The bits are the same.
    pub fn feed_forward(
        self,
        x: &mut [f32],
        Gated { gate_up, gate, down }: Gated,
        wide: &mut [f32],
        narrow: &mut [f32],
        rounded: &mut RoundedRows,
    ) {
        let (hidden, width) = (gate_up.inputs(), down.inputs());
        let whole = [(0..x.len() / hidden, false)];
        let stretches = if gate_up.is_quantised() || down.is_quantised() { self.stretches } else { &whole };
        for (stretch, answer) in stretches {
            let rows = stretch.len();
            let x = &mut x[stretch.start * hidden..stretch.end * hidden];
            let in_bf16 = !answer && bf16::has_matrix_unit();
            match (gate_up, down) {
                (Weight::Bf16(gate_up), Weight::Bf16(down)) if gate_up.is_gate_and_up() => {
                    rounded.bf16.fill_on(self.team, x, hidden);
                    gate_up.multiply_gated(self.team, &rounded.bf16, gate, &mut rounded.gated);
                    down.multiply(self.team, &rounded.gated, x);
                }
                (Weight::Quantised(gate_up), Weight::Quantised(down))
                    if in_bf16 && gate_up.is_gate_and_up() =>
                {
                    rounded.bf16.fill_on(self.team, x, hidden);
                    gate_up.multiply_gated_bf16(self.team, &rounded.bf16, gate, &mut rounded.gated);
                    down.multiply_bf16(self.team, &rounded.gated, x);
                }
                (Weight::Quantised(gate_up), Weight::Quantised(down))
                    if !in_bf16 && gate_up.has_gated_product(rows) =>
                {
                    rounded.quantised.fill_on(self.team, x, hidden);
                    gate_up.multiply_gated(self.team, &rounded.quantised, gate, &mut rounded.quantised_gated);
                    down.multiply(self.team, &rounded.quantised_gated, x);
                }
                _ => {
                    let one = [(0..rows, *answer)];
                    let products = Products { team: self.team, stretches: &one };
                    let (wide, narrow) = (&mut wide[..2 * rows * width], &mut narrow[..rows * width]);
                    products.multiply(x, gate_up, wide, rounded);
                    pass_gate(self.team, gate, wide, width, narrow);
                    products.multiply(narrow, down, x, rounded);
                }
            }
        }
    }

    /// y ← x·Wᵀ. The cutting has no influence on the bits.
    pub fn multiply(self, x: &[f32], weight: &Weight, y: &mut [f32], rounded: &mut RoundedRows) {
        let (input, output) = (weight.inputs(), weight.outputs());
        let rows = x.len() / input;
        match weight {
            Weight::Counted(_) => y.fill(0.0),
            Weight::F32(matrix) => {
                let (x, y) = (MatrixRef::new(x, rows, input), MatrixMut::new(y, rows, output));
                multiply_packed_on(self.team, x, matrix, y, Start::Zero);
            }
            Weight::Bf16(matrix) => {
                rounded.bf16.fill_on(self.team, x, input);
                matrix.multiply(self.team, &rounded.bf16, y);
            }
            Weight::Quantised(matrix) => {
                for (stretch, answer) in self.stretches {
                    let x = &x[stretch.start * input..stretch.end * input];
                    let y = &mut y[stretch.start * output..stretch.end * output];
                    if !answer && bf16::has_matrix_unit() {
                        rounded.bf16.fill_on(self.team, x, input);
                        matrix.multiply_bf16(self.team, &rounded.bf16, y);
                    } else {
                        rounded.quantised.fill_on(self.team, x, input);
                        matrix.multiply(self.team, &rounded.quantised, y);
                    }
                }
            }
        }
    }
}

/// `narrow` [rows, width] ← gate · up of `wide` [rows, 2 · width].
fn pass_gate(team: &Team, gate: Gate, wide: &[f32], width: usize, narrow: &mut [f32]) {
    let parts = wide.chunks(2 * TASK_ROWS * width).zip(narrow.chunks_mut(TASK_ROWS * width));
    team.each(parts.collect(), |(wide, narrow)| gate.rows(wide, width, narrow));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for format in WeightFormat::ALL.into_iter().chain([WeightFormat::Stored]) {
            assert_eq!(WeightFormat::of_name(format.name()), Some(format));
        }
        assert_eq!(WeightFormat::of_name("q5"), None);
    }
}
