//! What a recipe may say about the tokenizer stage.

use serde::{Deserialize, Serialize};

use crate::SPECIAL_TOKENS;

/// Ids that every vocabulary starts with: the special tokens, then the 256 bytes.
pub(crate) const FIRST_MERGE_ID: u32 = SPECIAL_TOKENS.len() as u32 + 256;

/// Largest vocabulary that makes sense: four times the largest published ones (262,144).
const LARGEST_VOCABULARY: usize = 1 << 20;

/// Settings of the tokenizer stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Entries of the vocabulary: 4 special tokens, 256 bytes, and the rest merges.
    pub vocabulary_size: usize,
    /// Longest input of the models that will use it, in tokens; written as `model_max_length`.
    pub maximum_length: u64,
    /// How much text of each language is counted, in bytes; a language with more is cut after the document that
    /// reaches it. Languages weigh the same in any case.
    pub sample_bytes_per_language: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { vocabulary_size: 32_768, maximum_length: 4_096, sample_bytes_per_language: 1 << 30 }
    }
}

impl Settings {
    /// Refuses settings that cannot work, with the reason.
    pub fn check(&self) -> Result<(), String> {
        let smallest = FIRST_MERGE_ID as usize;
        if self.vocabulary_size < smallest {
            return Err(format!(
                "vocabulary_size = {} is too small: every vocabulary holds {} special tokens and 256 bytes, so {smallest} is \
                 the least",
                self.vocabulary_size,
                SPECIAL_TOKENS.len()
            ));
        }
        if self.vocabulary_size > LARGEST_VOCABULARY {
            return Err(format!(
                "vocabulary_size = {} is too large: {LARGEST_VOCABULARY} is the most; published vocabularies end at 262144",
                self.vocabulary_size
            ));
        }
        if self.maximum_length == 0 {
            return Err("maximum_length = 0: a model reads at least one token".to_owned());
        }
        if self.sample_bytes_per_language == 0 {
            return Err("sample_bytes_per_language = 0: there would be no text to learn from".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_are_refused_with_the_reason() {
        let check = |change: fn(&mut Settings), reason: &str| {
            let mut settings = Settings::default();
            change(&mut settings);
            let problem = settings.check().expect_err(reason);
            assert!(problem.contains(reason), "{problem}");
        };
        assert_eq!(Settings::default().check(), Ok(()));
        check(|settings| settings.vocabulary_size = 0, "260 is the least");
        check(|settings| settings.vocabulary_size = 259, "256 bytes");
        check(|settings| settings.vocabulary_size = usize::MAX, "1048576 is the most");
        check(|settings| settings.maximum_length = 0, "maximum_length");
        check(|settings| settings.sample_bytes_per_language = 0, "sample_bytes_per_language");
    }
}
