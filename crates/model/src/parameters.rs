//! Where a model's numbers stand: a table of named views (Hugging Face's tensor names) over one flat f32 buffer, cut at
//! whole matrices. Optimisers, checkpoints and reductions see the buffer; files and people see the names.

use compute::random;
use std::ops::Range;

/// What a parameter is to the optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// A linear map.
    Matrix,
    /// A table of rows: embedding, untied output projection.
    Table,
    /// The weight of a norm: never decayed.
    Norm,
    /// A bias: never decayed.
    Bias,
    /// What is added to the scores of a mixture's experts where they are chosen. It has no gradient and is not decayed:
    /// it moves by the experts' loads (`compute::routing::balance`).
    RouterBias,
}

/// One named tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Hugging Face's name.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Its place in the buffer.
    pub span: Range<usize>,
    /// Its kind.
    pub kind: ParameterKind,
    /// Standard deviation of its initialisation (norms begin at 1, biases at 0).
    deviation: f64,
}

/// All tensors of a model or an adapter, in the order of the buffer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParameterTable {
    entries: Vec<Parameter>,
}

impl ParameterTable {
    /// Appends a tensor; returns its place.
    pub(crate) fn push(
        &mut self,
        name: String,
        shape: &[usize],
        kind: ParameterKind,
        deviation: f64,
    ) -> Range<usize> {
        let begin = self.length();
        let span = begin..begin + shape.iter().product::<usize>();
        self.entries.push(Parameter { name, shape: shape.to_vec(), span: span.clone(), kind, deviation });
        span
    }

    /// All tensors in order.
    pub fn entries(&self) -> &[Parameter] {
        &self.entries
    }

    /// Floats in the buffer.
    pub fn length(&self) -> usize {
        self.entries.last().map_or(0, |last| last.span.end)
    }

    /// The tensor with this name.
    pub fn find(&self, name: &str) -> Option<&Parameter> {
        self.entries.iter().find(|parameter| parameter.name == name)
    }

    /// Fresh values: a pure function of the seed and each tensor's place in the table.
    pub fn initial_values(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.length()];
        for (index, parameter) in self.entries.iter().enumerate() {
            let target = &mut values[parameter.span.clone()];
            match parameter.kind {
                ParameterKind::Norm => target.fill(1.0),
                ParameterKind::Bias | ParameterKind::RouterBias => {}
                ParameterKind::Matrix | ParameterKind::Table if parameter.deviation == 0.0 => {}
                ParameterKind::Matrix | ParameterKind::Table => {
                    let key = random::key(&[seed, index as u64]);
                    for (i, value) in target.iter_mut().enumerate() {
                        *value = (random::normal(key, i as u64) * parameter.deviation) as f32;
                    }
                }
            }
        }
        values
    }
}

/// The values of a model beside their table.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Names and places.
    pub table: ParameterTable,
    /// The buffer.
    pub values: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use crate::config::ModelConfig;
    use crate::spans::ModelSpans;

    #[test]
    fn initial_values_are_a_function_of_the_seed() {
        let table = ModelSpans::new(&ModelConfig::tiny_for_tests(64)).table;
        assert_eq!(table.initial_values(1), table.initial_values(1));
        assert_ne!(table.initial_values(1), table.initial_values(2));
    }
}
