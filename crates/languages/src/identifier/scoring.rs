//! From text to scores: every letter of a text is read and looked up, in blocks that keep the processor busy.

use super::features::{BLOCK, Reader};
use super::model::{LABEL_COUNT, Model, Parameters};
use super::table::{Found, LANES, Table};

/// What a text scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scores {
    /// Sum of the weights for each label, in steps.
    pub steps: [u64; LABEL_COUNT],
    /// Letters of the text.
    pub letters: u64,
}

impl Default for Scores {
    fn default() -> Self {
        Scores { steps: [0; LABEL_COUNT], letters: 0 }
    }
}

impl Scores {
    /// Adds those of another text; where the cut is no letter, these are the scores of both as one text.
    pub fn add(&mut self, other: &Scores) {
        for (steps, other) in self.steps.iter_mut().zip(other.steps) {
            *steps += other;
        }
        self.letters += other.letters;
    }
}

/// A model laid out for look-ups.
pub struct Scorer {
    pub parameters: Parameters,
    table: Table,
}

impl Scorer {
    /// Lays out a model. The error says what is wrong with it.
    pub fn new(model: Model) -> Result<Scorer, String> {
        Ok(Scorer { parameters: model.parameters, table: Table::new(&model.features)? })
    }

    /// Scores of a text.
    pub fn score(&self, text: &str, buffers: &mut Buffers) -> Scores {
        let mut reader = Reader::new(text);
        let mut sums = [0u64; LANES];
        loop {
            let count = reader.read(&mut buffers.keys);
            if count == 0 {
                break;
            }
            let weights = self.table.weights(&buffers.keys[..count], &mut buffers.found);
            for (sum, steps) in sums.iter_mut().zip(weights) {
                *sum += u64::from(steps);
            }
        }
        Scores { steps: std::array::from_fn(|label| sums[label]), letters: reader.letters() }
    }
}

/// Space for one block, used again and again.
pub struct Buffers {
    keys: [u64; BLOCK],
    found: Found,
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers { keys: [0; BLOCK], found: Found::default() }
    }
}
