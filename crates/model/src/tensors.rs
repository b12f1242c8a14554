//! Where a model's numbers come from, tensor by tensor: a folder of safetensors, memory, or another format that calls its
//! tensors by Hugging Face's names. No reader holds a whole model in f32.

use crate::ModelError;
use crate::config::ModelConfig;
use crate::parameters::ParameterTable;
use gguf::ElementType;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

/// Numbers of each table.
const COMPARED_TOGETHER: usize = 1 << 18;

/// Named tensors that can be read one at a time, or by rows, from several threads.
pub trait Tensors: Sync {
    /// Row-major shape of a tensor, if there is one of this name.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// All names.
    fn names(&self) -> Vec<String>;

    /// Reads rows of a matrix from row `first` on as f32, as many as `out` has room for. What is no matrix is one row.
    ///
    /// # Errors
    /// When there is no such tensor or row, its type cannot be read, or its file ends early.
    fn read_rows(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), ModelError>;

    /// Reads a whole tensor as f32; `out` has the product of its shape.
    ///
    /// # Errors
    /// As [`Tensors::read_rows`]; also when `out` has another length.
    fn read(&self, name: &str, out: &mut [f32]) -> Result<(), ModelError> {
        let length = self.shape(name).map_or(0, |shape| shape.iter().product());
        if length != out.len() {
            let problem = format!("tensor {name} has {length} numbers, {} are wanted", out.len());
            return Err(ModelError::weights(self.place(), problem));
        }
        self.read_rows(name, 0, out)
    }

    /// How a tensor's numbers are stored in blocks that [`Tensors::read_stored_rows`] can give; `None` where there are
    /// only numbers.
    fn stored(&self, _name: &str) -> Option<ElementType> {
        None
    }

    /// Reads rows of a matrix as [`Tensors::stored`] says that they are.
    ///
    /// # Errors
    /// As [`Tensors::read_rows`]; also where there are only numbers.
    fn read_stored_rows(&self, name: &str, _first: usize, _out: &mut [u8]) -> Result<(), ModelError> {
        Err(ModelError::weights(self.place(), format!("tensor {name} is not stored in blocks")))
    }

    /// What messages name when a tensor is missing or strange: a file, where there is one.
    fn place(&self) -> &Path {
        Path::new("the weights")
    }
}

/// Whether `tensors` are exactly those of `table`, each in its shape, besides those that `may_be_left`: to be asked before memory is taken for what a
/// configuration merely claims.
///
/// # Errors
/// Names the first tensor that is missing, has another shape, or belongs to no part of the model.
pub(crate) fn check(
    tensors: &dyn Tensors,
    table: &ParameterTable,
    may_be_left: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    let fail = |problem: String| Err(ModelError::weights(tensors.place(), problem));
    let mut expected = BTreeSet::new();
    for parameter in table.entries() {
        match tensors.shape(&parameter.name) {
            None => return fail(format!("tensor {} is missing", parameter.name)),
            Some(shape) if shape != parameter.shape => {
                return fail(format!(
                    "tensor {} has shape {shape:?}, the configuration says {:?}",
                    parameter.name, parameter.shape
                ));
            }
            Some(_) => {}
        }
        expected.insert(parameter.name.as_str());
    }
    let strange = |name: &&String| !expected.contains(name.as_str()) && !may_be_left(name);
    match tensors.names().iter().find(strange) {
        Some(strange) => fail(format!("tensor {strange} belongs to no part of the configured model")),
        None => Ok(()),
    }
}

/// Whether there is an output table that differs from the input table, although the configuration says that they are one:
/// some fine-tunings untie them and leave `tie_word_embeddings` as it was. transformers 5 and llama.cpp then believe the
/// tensors. Reads up to the first difference, and nothing where there is only one table.
///
/// # Errors
/// When the tables cannot be read.
pub fn has_own_output_table(config: &ModelConfig, tensors: &dyn Tensors) -> Result<bool, ModelError> {
    let names = ["model.embed_tokens.weight", "lm_head.weight"];
    let [Some(input), Some(output)] = names.map(|name| tensors.shape(name)) else { return Ok(false) };
    if !config.tie_embeddings || input != [config.vocabulary_size, config.hidden_size] {
        return Ok(false);
    }
    if input != output {
        return Ok(true);
    }
    let together = (COMPARED_TOGETHER / config.hidden_size).clamp(1, config.vocabulary_size);
    let mut rows = [(); 2].map(|()| vec![0.0; together * config.hidden_size]);
    for first in (0..config.vocabulary_size).step_by(together) {
        let count = together.min(config.vocabulary_size - first) * config.hidden_size;
        for (rows, name) in rows.iter_mut().zip(names) {
            tensors.read_rows(name, first, &mut rows[..count])?;
        }
        if rows[0][..count] != rows[1][..count] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads what stands in `span` of a table: one tensor, or several that lie one behind another and are used as one matrix.
///
/// # Errors
/// As [`Tensors::read`].
pub(crate) fn read_span(
    tensors: &dyn Tensors,
    table: &ParameterTable,
    span: &Range<usize>,
) -> Result<Vec<f32>, ModelError> {
    let mut values = vec![0.0; span.len()];
    let entries = table.entries();
    let first = entries.partition_point(|parameter| parameter.span.start < span.start);
    for parameter in entries[first..].iter().take_while(|parameter| parameter.span.end <= span.end) {
        let place = parameter.span.start - span.start..parameter.span.end - span.start;
        tensors.read(&parameter.name, &mut values[place])?;
    }
    Ok(values)
}

/// A model's values in memory, in the order of its table.
#[derive(Debug)]
pub(crate) struct TensorsInMemory<'a> {
    table: &'a ParameterTable,
    values: &'a [f32],
    places: BTreeMap<&'a str, usize>,
}

impl<'a> TensorsInMemory<'a> {
    /// # Panics
    /// When there are fewer values than parameters.
    pub fn new(table: &'a ParameterTable, values: &'a [f32]) -> TensorsInMemory<'a> {
        assert!(values.len() >= table.length(), "{} values of {}", values.len(), table.length());
        let places =
            table.entries().iter().enumerate().map(|(i, parameter)| (parameter.name.as_str(), i)).collect();
        TensorsInMemory { table, values, places }
    }
}

impl Tensors for TensorsInMemory<'_> {
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.places.get(name).map(|&index| self.table.entries()[index].shape.clone())
    }

    fn names(&self) -> Vec<String> {
        self.places.keys().map(|name| (*name).to_string()).collect()
    }

    fn read_rows(&self, name: &str, first: usize, out: &mut [f32]) -> Result<(), ModelError> {
        let Some(&index) = self.places.get(name) else {
            return Err(ModelError::weights(self.place(), format!("tensor {name} is missing")));
        };
        let parameter = &self.table.entries()[index];
        let begin = first * parameter.shape.last().copied().unwrap_or(1);
        match self.values[parameter.span.clone()].get(begin..begin + out.len()) {
            Some(values) => out.copy_from_slice(values),
            None => {
                let problem = format!("tensor {name} has no {} numbers from row {first} on", out.len());
                return Err(ModelError::weights(self.place(), problem));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::ParameterKind;

    fn table(parts: &[(&str, &[usize])]) -> ParameterTable {
        let mut table = ParameterTable::default();
        for (name, shape) in parts {
            table.push((*name).into(), shape, ParameterKind::Matrix, 0.0);
        }
        table
    }

    #[test]
    fn neighbours_are_read_as_one() {
        let table = table(&[("a", &[2]), ("b", &[1, 2]), ("c", &[1])]);
        let tensors = TensorsInMemory::new(&table, &[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(read_span(&tensors, &table, &(2..5)).unwrap(), [3.0, 4.0, 5.0]);
        assert_eq!(read_span(&tensors, &table, &(0..2)).unwrap(), [1.0, 2.0]);
        assert!(tensors.read("d", &mut []).is_err());
    }

    #[test]
    fn missing_surplus_and_misshapen_tensors_are_named() {
        let found = table(&[("a", &[2]), ("b", &[1, 2])]);
        let tensors = TensorsInMemory::new(&found, &[0.0; 4]);
        let problem =
            |parts: &[(&str, &[usize])]| check(&tensors, &table(parts), |_| false).unwrap_err().to_string();
        assert!(check(&tensors, &found, |_| false).is_ok());
        assert!(problem(&[("a", &[2]), ("b", &[2, 1])]).contains("tensor b has shape [1, 2]"));
        assert!(problem(&[("a", &[2]), ("c", &[1])]).contains("tensor c is missing"));
        assert!(problem(&[("a", &[2])]).contains("tensor b belongs to no part"));
        assert!(check(&tensors, &table(&[("a", &[2])]), |name| name == "b").is_ok());
    }
}
