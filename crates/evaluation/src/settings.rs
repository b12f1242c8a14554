//! What a recipe may say about the evaluation stage.

use inference::WeightFormat;
use serde::{Deserialize, Serialize};

/// Settings of the evaluation stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Tokens that the model sees at once, the opening separator included; less where the model's own context is shorter.
    pub context_length: usize,
    /// Tokens that a window scores when it slides on; the rest of it is context. Half of the context by default: twice
    /// the work of no overlap, and every token but a document's first has at least half a context before it.
    pub stride: usize,
    /// Training text that the comparisons see, in bytes of each language. The n-gram model needs some 30 bytes of memory
    /// a byte.
    pub comparison_bytes_per_language: u64,
    /// The numbers that the model's matrices are kept in: f32, bf16, q8_0, q4_0, or stored (those of a GGUF file as they
    /// are). Figures of f32 are the model's own and the same on every processor; others measure what is served so, in less
    /// memory.
    #[serde(skip_serializing_if = "is_f32")]
    pub weights: WeightFormat,
}

/// Left out where it is so: results of before keep their keys.
fn is_f32(format: &WeightFormat) -> bool {
    *format == WeightFormat::F32
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            context_length: 256,
            stride: 128,
            comparison_bytes_per_language: 1 << 20,
            weights: WeightFormat::F32,
        }
    }
}

impl Settings {
    /// The same settings for a model that sees at most `context_length` tokens.
    pub(crate) fn within(&self, context_length: usize) -> Settings {
        let context_length = self.context_length.min(context_length.max(2));
        Settings { context_length, stride: self.stride.min(context_length - 1), ..self.clone() }
    }

    /// Refuses settings that cannot work, with the reason.
    pub fn check(&self) -> Result<(), String> {
        if self.context_length < 2 {
            return Err(format!(
                "context_length = {}: at least 2, a token and the one that it follows",
                self.context_length
            ));
        }
        if self.stride == 0 || self.stride >= self.context_length {
            return Err(format!(
                "stride = {} with context_length = {}: from 1 to {}, because a scored token needs one before it",
                self.stride,
                self.context_length,
                self.context_length - 1
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys are made of settings: those of before must stay.
    #[test]
    fn weights_as_they_always_were_are_not_written() {
        let written = |weights| serde_json::to_string(&Settings { weights, ..Settings::default() }).unwrap();
        assert!(!written(WeightFormat::F32).contains("weights"));
        assert!(written(WeightFormat::Q8).contains(r#""weights":"q8_0""#));
    }

    #[test]
    fn windows_that_cannot_slide_are_refused() {
        let check = |context_length, stride, accepted| {
            let settings = Settings { context_length, stride, ..Settings::default() };
            assert_eq!(settings.check().is_ok(), accepted, "{context_length} {stride}");
        };
        assert_eq!(Settings::default().check(), Ok(()));
        check(2, 1, true);
        check(1, 1, false);
        check(8, 0, false);
        check(8, 8, false);
        check(8, 7, true);
    }
}
