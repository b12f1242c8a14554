//! From tensors to packed weights: every matrix panel by panel, read and packed by whichever thread is free, so that no
//! whole matrix stands in memory as f32. Blocks of a GGUF file that have a product of their own are taken over as they are.

use super::table::Table;
use super::weight::{Counted, Weight, WeightFormat};
use crate::ModelError;
use crate::parameters::{Parameter, ParameterTable};
use crate::tensors::{Tensors, read_span};
use compute::{Bf16Matrix, Bits, PackedMatrix, QuantisedMatrix, Team};
use gguf::ElementType;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Where weights are read from, and what they become.
pub(super) struct Reader<'a> {
    pub tensors: &'a dyn Tensors,
    pub table: &'a ParameterTable,
    pub team: &'a Team,
    pub format: WeightFormat,
    /// Sizes are wanted and no numbers: nothing is read, and no memory is taken.
    pub counts_only: bool,
}

/// A tensor among those that make one matrix, one behind another.
struct Part<'a> {
    name: &'a str,
    /// Its rows, as rows of the matrix.
    rows: Range<usize>,
    stored: Option<ElementType>,
}

/// Memory that goes from panel to panel.
#[derive(Default)]
struct Buffers {
    stored: Vec<u8>,
    wide: Vec<u8>,
    numbers: Vec<f32>,
}

impl Reader<'_> {
    /// What stands in a span of the table, as f32.
    pub fn values(&self, span: &Range<usize>) -> Result<Vec<f32>, ModelError> {
        match self.counts_only {
            true => Ok(vec![0.0; span.len()]),
            false => read_span(self.tensors, self.table, span),
        }
    }

    /// The matrix [outputs, inputs] that stands in a span, packed.
    pub fn matrix(&self, span: &Range<usize>, inputs: usize) -> Result<Weight, ModelError> {
        self.matrix_as(span, inputs, self.format)
    }

    /// As [`Reader::matrix`], in another format than the model's.
    pub fn matrix_as(
        &self,
        span: &Range<usize>,
        inputs: usize,
        format: WeightFormat,
    ) -> Result<Weight, ModelError> {
        let parts = self.parts(span, inputs);
        let outputs = span.len() / inputs;
        let kept = kept(&parts, format, inputs);
        if self.counts_only {
            return Ok(counted(&kept, &parts, inputs, outputs));
        }
        match kept {
            Kept::F32 => {
                let mut matrix = PackedMatrix::zeroed(inputs, outputs);
                self.fill(matrix.panels_mut(), |panel, buffers| {
                    let Buffers { numbers, .. } = buffers;
                    self.numbers(&parts, panel.columns(), inputs, numbers)?;
                    panel.pack_transposed(numbers);
                    Ok(())
                })?;
                Ok(Weight::F32(matrix))
            }
            Kept::Bf16 => {
                let mut matrix = Bf16Matrix::zeroed(inputs, outputs);
                self.fill(matrix.panels_mut(), |panel, buffers| {
                    self.numbers(&parts, panel.outputs(), inputs, &mut buffers.numbers)?;
                    panel.round(&buffers.numbers);
                    Ok(())
                })?;
                Ok(Weight::Bf16(matrix))
            }
            Kept::Quantised(bits) => {
                let mut matrix = QuantisedMatrix::zeroed(inputs, &[(outputs, bits)]);
                self.fill(matrix.panels_mut(), |panel, buffers| {
                    self.numbers(&parts, panel.outputs(), inputs, &mut buffers.numbers)?;
                    panel.quantise(&buffers.numbers);
                    Ok(())
                })?;
                Ok(Weight::Quantised(matrix))
            }
            Kept::Repacked(codes) => {
                let mut matrix = QuantisedMatrix::zeroed(inputs, &lengths(&parts, &codes));
                self.fill(matrix.panels_mut(), |panel, buffers| {
                    let rows = panel.outputs();
                    // A panel never has outputs of two parts.
                    let Some(part) = parts.iter().find(|part| part.rows.end > rows.start) else {
                        return Ok(());
                    };
                    let Some(element) = part.stored else { return Ok(()) };
                    let Buffers { stored, wide, .. } = buffers;
                    stored.resize(rows.len() * element.row_bytes(inputs).unwrap_or(0), 0);
                    self.tensors.read_stored_rows(part.name, rows.start - part.rows.start, stored)?;
                    if repacked(element) == Some(panel.bits()) {
                        panel.repack(stored);
                    } else {
                        wide.clear();
                        gguf::widen(element, stored, wide);
                        panel.repack(wide);
                    }
                    Ok(())
                })?;
                Ok(Weight::Quantised(matrix))
            }
        }
    }

    /// Numbers in memory [outputs, inputs], packed.
    pub fn pack(&self, values: &[f32], inputs: usize) -> Weight {
        match self.counts_only {
            true => counted(&kept(&[], self.format, inputs), &[], inputs, values.len() / inputs),
            false => Weight::new(values, inputs, self.format),
        }
    }

    /// The table of embeddings that stands in a span, rows of `width`.
    pub fn embedding(&self, span: &Range<usize>, width: usize) -> Result<Table, ModelError> {
        let parts = self.parts(span, width);
        let [part] = &parts[..] else { return Ok(Table::of_f32(&self.values(span)?, width)) };
        let rows = part.rows.len();
        let quantised = |element: ElementType| element.block_elements() > 1;
        let eight = if width.is_multiple_of(32) { ElementType::Q8_0 } else { ElementType::Bf16 };
        let (element, as_stored) = match (self.format, part.stored) {
            (WeightFormat::Stored, Some(element)) => (element, true),
            (WeightFormat::Q8 | WeightFormat::Q4, Some(element)) if quantised(element) => (element, true),
            (WeightFormat::Bf16, Some(ElementType::Bf16)) => (ElementType::Bf16, true),
            (WeightFormat::F32 | WeightFormat::Stored, _) => (ElementType::F32, false),
            (WeightFormat::Bf16, _) => (ElementType::Bf16, false),
            (WeightFormat::Q8 | WeightFormat::Q4, _) => (eight, false),
        };
        if self.counts_only {
            return Ok(Table::counted(element, width, rows));
        }
        let mut table = Table::zeroed(element, width, rows);
        self.fill(table.parts_mut(), |(rows, bytes), buffers| {
            if as_stored {
                return self.tensors.read_stored_rows(part.name, rows.start, bytes);
            }
            let Buffers { numbers, stored, .. } = buffers;
            self.numbers(&parts, rows.clone(), width, numbers)?;
            stored.clear();
            gguf::quantise(element, numbers, stored);
            bytes.copy_from_slice(stored);
            Ok(())
        })?;
        Ok(table)
    }

    /// Whether the output projection in this span, packed, has all that a table of embeddings in the model's format would:
    /// one that is tied to it need not be kept beside it then.
    pub fn head_serves_as_table(&self, span: &Range<usize>) -> bool {
        let parts = self.parts(span, 1);
        match (self.format, parts.first().and_then(|part| part.stored)) {
            // Four bits would be fewer than the table's eight.
            (WeightFormat::Q4, _) => false,
            (WeightFormat::Stored, Some(element)) => {
                element.block_elements() == 1 && element != ElementType::F16 || repacked(element).is_some()
            }
            _ => true,
        }
    }

    fn parts(&self, span: &Range<usize>, inputs: usize) -> Vec<Part<'_>> {
        let entries = self.table.entries();
        let first = entries.partition_point(|parameter| parameter.span.start < span.start);
        let inside = entries[first..].iter().take_while(|parameter| parameter.span.end <= span.end);
        inside
            .map(|Parameter { name, span: of_part, .. }| Part {
                name,
                rows: (of_part.start - span.start) / inputs..(of_part.end - span.start) / inputs,
                stored: self.tensors.stored(name),
            })
            .collect()
    }

    /// Rows of the matrix as f32.
    fn numbers(
        &self,
        parts: &[Part],
        rows: Range<usize>,
        inputs: usize,
        numbers: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        numbers.resize(rows.len() * inputs, 0.0);
        for part in parts {
            let (begin, end) = (rows.start.max(part.rows.start), rows.end.min(part.rows.end));
            if begin < end {
                let here = &mut numbers[(begin - rows.start) * inputs..(end - rows.start) * inputs];
                self.tensors.read_rows(part.name, begin - part.rows.start, here)?;
            }
        }
        Ok(())
    }

    /// Fills every panel; the first error ends it.
    fn fill<P: Send>(
        &self,
        panels: Vec<P>,
        fill: impl Fn(&mut P, &mut Buffers) -> Result<(), ModelError> + Sync,
    ) -> Result<(), ModelError> {
        let failed = Mutex::new(None);
        let free = Mutex::new(Vec::new());
        self.team.each(panels, |mut panel| {
            if failed.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                return;
            }
            let buffers = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut buffers: Buffers = buffers.unwrap_or_default();
            if let Err(error) = fill(&mut panel, &mut buffers) {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            free.lock().unwrap_or_else(PoisonError::into_inner).push(buffers);
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// What a matrix will take.
fn counted(kept: &Kept, parts: &[Part], inputs: usize, outputs: usize) -> Weight {
    let bytes = match kept {
        Kept::F32 => PackedMatrix::bytes_for(inputs, outputs),
        Kept::Bf16 => Bf16Matrix::bytes_for(inputs, outputs),
        Kept::Quantised(bits) => QuantisedMatrix::bytes_for(inputs, &[(outputs, *bits)]),
        Kept::Repacked(codes) => QuantisedMatrix::bytes_for(inputs, &lengths(parts, codes)),
    };
    Weight::Counted(Counted {
        inputs,
        outputs,
        bytes,
        is_f32: matches!(kept, Kept::F32),
        is_quantised: matches!(kept, Kept::Quantised(_) | Kept::Repacked(_)),
    })
}

/// The rows of each part with its code.
fn lengths(parts: &[Part], codes: &[Bits]) -> Vec<(usize, Bits)> {
    parts.iter().map(|part| part.rows.len()).zip(codes.iter().copied()).collect()
}

/// What a matrix becomes.
enum Kept {
    F32,
    Bf16,
    /// Quantised here.
    Quantised(Bits),
    /// Each part by its blocks.
    Repacked(Vec<Bits>),
}

fn kept(parts: &[Part], format: WeightFormat, inputs: usize) -> Kept {
    let stored: Option<Vec<ElementType>> = parts.iter().map(|part| part.stored).collect();
    let stored = stored.filter(|stored| !stored.is_empty() && inputs.is_multiple_of(32));
    let blocks = |element: &ElementType| element.block_elements() > 1;
    let exact = |bits: Bits, elements: &[ElementType]| {
        stored.as_ref().is_some_and(|stored| stored.iter().all(|element| elements.contains(element)))
            && bits.block_inputs() == 32
    };
    use ElementType::{Bf16, F16, Q4_0, Q5_0, Q8_0};
    match (format, &stored) {
        (WeightFormat::F32, _) => Kept::F32,
        (WeightFormat::Bf16, _) => Kept::Bf16,
        (WeightFormat::Q8, _) if exact(Bits::Eight, &[Q8_0, Q5_0, Q4_0]) => {
            Kept::Repacked(vec![Bits::Eight; parts.len()])
        }
        (WeightFormat::Q8, _) => Kept::Quantised(Bits::Eight),
        (WeightFormat::Q4, _) if exact(Bits::Four, &[Q4_0]) => Kept::Repacked(vec![Bits::Four; parts.len()]),
        (WeightFormat::Q4, _) => Kept::Quantised(Bits::Four),
        (WeightFormat::Stored, Some(stored)) if stored.iter().all(blocks) => {
            Kept::Repacked(stored.iter().map(|element| repacked(*element).unwrap_or(Bits::Eight)).collect())
        }
        (WeightFormat::Stored, Some(stored))
            if stored.iter().all(|element| [Bf16, F16].contains(element)) =>
        {
            Kept::Bf16
        }
        (WeightFormat::Stored, _) => Kept::F32,
    }
}

/// The code that takes over a type's blocks bit by bit; others are widened to eight bits.
fn repacked(element: ElementType) -> Option<Bits> {
    match element {
        ElementType::Q8_0 => Some(Bits::Eight),
        ElementType::Q4_0 => Some(Bits::Four),
        ElementType::Q4_1 => Some(Bits::FourAndMinimum),
        ElementType::Q4K => Some(Bits::FourNested),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::ParameterKind;
    use crate::testing::random_blocks;

    /// Tensors by name: their type, and their blocks.
    struct Stored<'a>(&'a ParameterTable, Vec<(ElementType, Vec<u8>)>);

    impl Stored<'_> {
        fn place(&self, name: &str) -> usize {
            self.0.entries().iter().position(|parameter| parameter.name == name).unwrap()
        }
    }

    impl Tensors for Stored<'_> {
        fn shape(&self, name: &str) -> Option<Vec<usize>> {
            Some(self.0.entries()[self.place(name)].shape.clone())
        }

        fn names(&self) -> Vec<String> {
            self.0.entries().iter().map(|parameter| parameter.name.clone()).collect()
        }

        fn read_rows(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), ModelError> {
            let element = self.1[self.place(name)].0;
            let mut stored = vec![0; element.row_bytes(out.len()).unwrap()];
            let columns = self.shape(name).unwrap()[1];
            assert!(out.len().is_multiple_of(columns));
            self.read_stored_rows(name, first, &mut stored)?;
            gguf::dequantise(element, &stored, out);
            Ok(())
        }

        fn stored(&self, name: &str) -> Option<ElementType> {
            Some(self.1[self.place(name)].0)
        }

        fn read_stored_rows(&self, name: &str, first: usize, out: &mut [u8]) -> Result<(), ModelError> {
            let (element, stored) = &self.1[self.place(name)];
            let columns = self.shape(name).unwrap()[1];
            out.copy_from_slice(&stored[first * element.row_bytes(columns).unwrap()..][..out.len()]);
            Ok(())
        }
    }

    #[test]
    fn weights_are_to_the_bit_what_the_file_says() {
        const INPUTS: usize = 512;
        use ElementType::{Bf16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        let alone = [F32, Bf16, Q8_0, Q4_0, Q4_1, Q4K, Q5_0].map(|element| vec![(element, 130)]);
        let beside = [vec![(Q4K, 100), (Q5_0, 30), (Q4_1, 64), (Q8_0, 1)], vec![(Bf16, 3), (F32, 70)]];
        let widened = [Q5_1, Q5K, Q6K].map(|element| vec![(element, 40)]);
        for (parts, exact) in alone
            .into_iter()
            .chain(beside)
            .map(|parts| (parts, true))
            .chain(widened.map(|parts| (parts, false)))
        {
            let mut table = ParameterTable::default();
            let mut blocks = Vec::new();
            for (index, &(element, rows)) in parts.iter().enumerate() {
                table.push(format!("part {index}"), &[rows, INPUTS], ParameterKind::Matrix, 0.0);
                blocks.push((element, random_blocks(element, rows * INPUTS, index as u64)));
            }
            let tensors = Stored(&table, blocks);
            let team = Team::new(2);
            let reader = Reader {
                tensors: &tensors,
                table: &table,
                team: &team,
                format: WeightFormat::Stored,
                counts_only: false,
            };
            let span = 0..table.length();
            let expected = reader.values(&span).unwrap();
            let weight = reader.matrix(&span, INPUTS).unwrap();
            let table_of_first = reader.embedding(&table.entries()[0].span, INPUTS).unwrap();
            let mut row = vec![0.0; INPUTS];
            for (output, expected) in expected.chunks_exact(INPUTS).enumerate() {
                weight.row(output, &mut row);
                let largest = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                let apart = row.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                // Half a step of a block of eight bits, and what its scale loses in 16.
                let most = if exact { 0.0 } else { largest * (0.5 / 127.0 + 1e-3) };
                assert!(apart <= most, "{parts:?} row {output}: {apart}");
                if output < parts[0].1 {
                    table_of_first.row(output, &mut row);
                    assert_eq!(row, expected, "{parts:?} as a table");
                }
            }
        }
    }
}
