//! The identifier's numbers: which features speak for which language, and how strongly.
//!
//! A feature's weight for a language is ln(1 + p / p₀) in steps, where p is its share of the language's features and p₀
//! a floor that is the same for all languages: what a language never showed counts nothing, so that rows stay short and
//! a language with little training text is not punished for its gaps (the constant penalty of HeLI, Jauhiainen 2010, in
//! a smooth form). See `examples/train_identifier.rs` for how the numbers are learned.

use crate::Language;

/// Languages that are easily confused with one of the 24.
pub const NEIGHBOURS: [&str; 14] =
    ["bs", "ca", "eu", "gl", "is", "ka", "mk", "nb", "nn", "ru", "sq", "sr", "tr", "uk"];

/// The 24 and their neighbours.
pub const LABEL_COUNT: usize = crate::LANGUAGE_COUNT + NEIGHBOURS.len();

/// The ISO 639-1 code of a label: the 24 in the order of [`Language::all`], then the neighbours.
pub fn label_code(label: usize) -> &'static str {
    match Language::all().nth(label) {
        Some(language) => language.code(),
        None => NEIGHBOURS[label - crate::LANGUAGE_COUNT],
    }
}

/// Highest weight, in steps: 8.4 nats, more than any feature reaches, and four lines of a table fit into 8 bits.
pub const LARGEST_WEIGHT: u8 = 21;

/// A label's weight for a feature: (label, steps).
pub type Entry = (u8, u8);

/// Numbers that hold for all features.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// What one step of a weight is worth, in nats.
    pub step_nats: f32,
    /// Probability of a label ∝ exp(scale × lettersᵉ × score): overlapping n-grams say the same thing several times, the
    /// more so the longer the text. `[scale, exponent]`
    pub calibration: [f32; 2],
    pub labels: Vec<LabelParameters>,
}

/// What holds for one label.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LabelParameters {
    /// Added to the score for each letter, in nats.
    pub bias_per_letter: f32,
    /// Score that text of the language reaches, in nats per letter: mean, and deviation for a text of one letter.
    pub usual_score: [f32; 2],
}

/// All numbers, as they are trained and stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    pub parameters: Parameters,
    /// Key of a feature (see [`super::features`]) and its weights, sorted by key; entries sorted by label, never empty.
    pub features: Vec<(u64, Vec<Entry>)>,
}

const MAGIC: &[u8; 8] = b"eulalid2";

const LABEL_BITS: u32 = 6;
const WEIGHT_BITS: u32 = 5;

impl Model {
    /// The stored form: a header of little-endian floats, then a stream of bits, lowest first.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let parameters = &self.parameters;
        let floats = [parameters.step_nats, parameters.calibration[0], parameters.calibration[1]];
        let labels = parameters
            .labels
            .iter()
            .flat_map(|label| [label.bias_per_letter, label.usual_score[0], label.usual_score[1]]);
        for float in floats.into_iter().chain(labels) {
            bytes.extend(float.to_le_bytes());
        }
        bytes.extend((self.features.len() as u32).to_le_bytes());
        let mut bits = BitWriter { bytes, filled: 0 };
        let mut last_key = 0;
        for (key, entries) in &self.features {
            bits.gamma(key - last_key);
            last_key = *key;
            bits.unary(entries.len() as u32 - 1);
            for (label, weight) in entries {
                bits.write(u32::from(*label), LABEL_BITS);
                bits.write(u32::from(*weight), WEIGHT_BITS);
            }
        }
        bits.bytes
    }

    /// Reads the stored form; the error says what is wrong with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Model, String> {
        let cut_short = || "the identifier's numbers are cut short".to_owned();
        let rest = bytes.strip_prefix(MAGIC).ok_or("these are not the numbers of a language identifier")?;
        let header_floats = 3 + 3 * LABEL_COUNT;
        let (header, rest) = rest.split_at_checked(4 * header_floats).ok_or_else(cut_short)?;
        let (count, stream) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let floats: Vec<f32> =
            header.as_chunks::<4>().0.iter().map(|float| f32::from_le_bytes(*float)).collect();
        if floats.iter().any(|float| !float.is_finite()) {
            return Err("the identifier's numbers are damaged: a parameter is not finite".to_owned());
        }
        let parameters = Parameters {
            step_nats: floats[0],
            calibration: [floats[1], floats[2]],
            labels: floats[3..]
                .chunks_exact(3)
                .map(|label| LabelParameters { bias_per_letter: label[0], usual_score: [label[1], label[2]] })
                .collect(),
        };
        let count = u32::from_le_bytes(*count);
        let mut bits = BitReader { bytes: stream, position: 0 };
        let mut features = Vec::with_capacity((count as usize).min(stream.len()));
        let mut key = 0u64;
        for _ in 0..count {
            let distance = bits.gamma().ok_or_else(cut_short)?;
            key = key
                .checked_add(distance)
                .ok_or("the identifier's numbers are damaged: a key is too large")?;
            let entry_count = bits.unary().ok_or_else(cut_short)? + 1;
            let mut entries = Vec::with_capacity(entry_count.min(LABEL_COUNT as u32) as usize);
            for _ in 0..entry_count {
                let label = bits.read(LABEL_BITS).ok_or_else(cut_short)? as u8;
                let weight = bits.read(WEIGHT_BITS).ok_or_else(cut_short)? as u8;
                if usize::from(label) >= LABEL_COUNT {
                    return Err(format!(
                        "the identifier's numbers are damaged: label {label} of {LABEL_COUNT}"
                    ));
                }
                entries.push((label, weight));
            }
            features.push((key, entries));
        }
        Ok(Model { parameters, features })
    }
}

struct BitWriter {
    bytes: Vec<u8>,
    /// Bits used of the last byte; 0 when a new one is needed.
    filled: u32,
}

impl BitWriter {
    fn write(&mut self, value: u32, bits: u32) {
        for bit in 0..bits {
            if self.filled == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::from(value >> bit & 1 == 1) << self.filled;
            }
            self.filled = (self.filled + 1) % 8;
        }
    }

    /// A number from 1 on: how many bits follow its highest one, and those bits (Elias gamma code).
    fn gamma(&mut self, value: u64) {
        let below = value.max(1).ilog2();
        self.unary(below);
        self.write(value as u32, below.min(32));
        self.write((value >> 32) as u32, below.saturating_sub(32));
    }

    /// `value` ones and a zero.
    fn unary(&mut self, value: u32) {
        for _ in 0..value {
            self.write(1, 1);
        }
        self.write(0, 1);
    }
}

struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits.
    position: usize,
}

impl BitReader<'_> {
    fn read(&mut self, bits: u32) -> Option<u32> {
        let mut window = [0; 8];
        let rest = self.bytes.get(self.position / 8..)?;
        let length = rest.len().min(8);
        window[..length].copy_from_slice(&rest[..length]);
        let value = u64::from_le_bytes(window) >> (self.position % 8) & ((1 << bits) - 1);
        self.position += bits as usize;
        (self.position <= 8 * self.bytes.len()).then_some(value as u32)
    }

    fn gamma(&mut self) -> Option<u64> {
        let below = self.unary()?;
        let low = u64::from(self.read(below.min(32))?);
        let high = u64::from(self.read(below.saturating_sub(32))?);
        Some(1u64.checked_shl(below)? | high << 32 | low)
    }

    fn unary(&mut self) -> Option<u32> {
        let mut value = 0;
        while self.read(1)? == 1 {
            value += 1;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small_model() -> Model {
        Model {
            parameters: Parameters {
                step_nats: 0.3,
                calibration: [0.2, -0.5],
                labels: (0..LABEL_COUNT)
                    .map(|label| LabelParameters { bias_per_letter: label as f32, usual_score: [4.0, 1.5] })
                    .collect(),
            },
            features: vec![
                (1, vec![(3, 1)]),
                (7, vec![(0, 31), (37, 2)]),
                (1 << 20, (0..LABEL_COUNT as u8).map(|label| (label, label % 32)).collect()),
                ((1 << 20) + (1 << 16), vec![(16, 9)]),
                (0x1234_5678_9ABC_DEF0, vec![(1, 9)]),
                (u64::MAX, vec![(16, 9)]),
            ],
        }
    }

    #[test]
    fn what_is_stored_is_what_is_read() {
        let model = small_model();
        assert_eq!(Model::from_bytes(&model.to_bytes()), Ok(model));
    }

    #[test]
    fn damage_is_an_error() {
        let bytes = small_model().to_bytes();
        for length in 0..bytes.len() {
            assert!(Model::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
        assert!(Model::from_bytes(&[&b"x"[..], &bytes].concat()).is_err());
    }

    #[test]
    fn labels_are_the_24_and_their_neighbours() {
        assert_eq!(label_code(0), "bg");
        assert_eq!(label_code(23), "sv");
        assert_eq!(label_code(24), "bs");
        assert_eq!(label_code(LABEL_COUNT - 1), "uk");
    }
}
