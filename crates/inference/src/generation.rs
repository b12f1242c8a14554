//! `generation_config.json`: how the makers of a model want it to be sampled, and which tokens end its answers.
//!
//! What it states are defaults, for whoever asks without saying otherwise. A key that would change what is generated and
//! that this engine does not follow is named, so that nobody believes it to be in force.

use std::path::Path;

use serde_json::Value;
use tokenizer::Tokenizer;

use crate::error::EngineError;
use crate::request::Sampling;

/// The file, beside `config.json`.
const FILE: &str = "generation_config.json";

/// What a model's `generation_config.json` states. Nothing is assumed about what it leaves out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    /// 0 where `do_sample` is false: greedy.
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    /// Most tokens of an answer.
    pub max_new_tokens: Option<usize>,
    /// Keys that would change what is generated and are not followed, as they stand in the file: `num_beams = 4`.
    pub not_followed: Vec<String>,
    /// Tokens that end an answer, besides those of the model and of the tokenizer.
    pub end_tokens: Vec<u32>,
}

impl GenerationDefaults {
    /// Reads the file of a model folder; without one, and for a GGUF file, nothing is stated.
    ///
    /// # Errors
    /// Names the file, the key, and what was expected.
    pub fn load(folder: &Path) -> Result<GenerationDefaults, EngineError> {
        let path = folder.join(FILE);
        let malformed = |problem: String| EngineError::Malformed { path: path.clone(), problem };
        // Of a device or a pipe there may be no end.
        let read = std::fs::metadata(&path).and_then(|metadata| match metadata.is_file() {
            true => std::fs::read(&path),
            false => Err(std::io::Error::other("it is no regular file")),
        });
        match read {
            Ok(bytes) => GenerationDefaults::parse(&bytes).map_err(malformed),
            Err(_) if folder.is_file() => Ok(GenerationDefaults::default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(GenerationDefaults::default()),
            Err(error) => Err(malformed(error.to_string())),
        }
    }

    /// `sampling` with what is stated here in its place.
    pub fn over(&self, sampling: Sampling) -> Sampling {
        Sampling {
            temperature: self.temperature.unwrap_or(sampling.temperature),
            top_k: self.top_k.unwrap_or(sampling.top_k),
            top_p: self.top_p.unwrap_or(sampling.top_p),
            min_p: self.min_p.unwrap_or(sampling.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(sampling.repetition_penalty),
            ..sampling
        }
    }

    /// Tokens that end an answer: those stated here, those of the model and of the tokenizer.
    pub fn all_end_tokens(&self, of_model: &[u32], tokenizer: &Tokenizer) -> Vec<u32> {
        let mut tokens: Vec<u32> =
            self.end_tokens.iter().chain(of_model).copied().chain(tokenizer.end_id()).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    fn parse(bytes: &[u8]) -> Result<GenerationDefaults, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let Value::Object(object) = value else {
            return Err("expected a JSON object at the top".to_string());
        };
        let mut defaults = GenerationDefaults::default();
        let mut greedy = false;
        for (key, value) in &object {
            if value.is_null() {
                continue;
            }
            let number = |low: f64, high: f64| match value.as_f64() {
                Some(number) if (low..=high).contains(&number) => Ok(Some(number as f32)),
                _ => Err(format!("`{key}` is {}; expected a number from {low} to {high}", shown(value))),
            };
            let count = || match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
                Some(count) => Ok(Some(count)),
                None => Err(format!("`{key}` is {}; expected a whole number from 0", shown(value))),
            };
            match key.as_str() {
                "temperature" => defaults.temperature = number(0.0, 100.0)?,
                "top_k" => defaults.top_k = count()?,
                // Of zero probability mass the likeliest token is left.
                "top_p" => defaults.top_p = number(0.0, 1.0)?.map(|top_p| top_p.max(f32::MIN_POSITIVE)),
                "min_p" => defaults.min_p = number(0.0, 1.0)?,
                "repetition_penalty" => defaults.repetition_penalty = number(0.01, 100.0)?,
                "max_new_tokens" => defaults.max_new_tokens = count()?,
                "do_sample" => match value {
                    Value::Bool(sample) => greedy = !sample,
                    other => return Err(format!("`do_sample` is {}; expected true or false", shown(other))),
                },
                "eos_token_id" => defaults.end_tokens = end_tokens(value)?,
                _ if changes_nothing(key, value) => {}
                _ => defaults.not_followed.push(format!("{} = {}", shortened(key), shown(value))),
            }
        }
        if greedy {
            defaults.temperature = Some(0.0);
        }
        Ok(defaults)
    }
}

fn end_tokens(value: &Value) -> Result<Vec<u32>, String> {
    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    let tokens = match value {
        Value::Array(several) => several.iter().map(token).collect(),
        one => token(one).map(|token| vec![token]),
    };
    tokens
        .ok_or_else(|| format!("`eos_token_id` is {}; expected a token id or an array of them", shown(value)))
}

/// Keys that say nothing about what is generated here, and keys with the value at which `transformers` does nothing.
fn changes_nothing(key: &str, value: &Value) -> bool {
    let number = value.as_f64();
    match key {
        // About the file, about training, about caches, about what is returned: not about which token comes next.
        "_from_model_config" | "_commit_hash" | "transformers_version" | "trust_remote_code"
        | "bos_token_id" | "pad_token_id" | "use_cache" | "cache_implementation" | "cache_config"
        | "disable_compile" | "compile_config" | "output_attentions" | "output_hidden_states"
        | "output_scores" | "output_logits" | "return_dict_in_generate" | "return_legacy_cache"
        | "num_return_sequences" | "prefill_chunk_size" | "low_memory" | "early_stopping"
        // Lengths of prompt and answer together: here the context is the limit.
        | "max_length" | "max_matching_ngram_size" | "prompt_lookup_num_tokens" | "num_assistant_tokens"
        | "num_assistant_tokens_schedule" | "assistant_confidence_threshold" | "chat_format" => true,
        "num_beams" | "num_beam_groups" | "typical_p" | "encoder_repetition_penalty"
        | "guidance_scale" | "length_penalty" => number == Some(1.0),
        "no_repeat_ngram_size" | "encoder_no_repeat_ngram_size" | "min_length" | "min_new_tokens"
        | "epsilon_cutoff" | "eta_cutoff" | "diversity_penalty" | "penalty_alpha" => number == Some(0.0),
        "remove_invalid_values" | "renormalize_logits" | "constraints" | "token_healing" => {
            value == &Value::Bool(false)
        }
        "suppress_tokens" | "begin_suppress_tokens" | "bad_words_ids" | "forced_decoder_ids" => {
            value.as_array().is_some_and(Vec::is_empty)
        }
        _ => false,
    }
}

/// A value in a message: long ones by their beginning.
fn shown(value: &Value) -> String {
    shortened(&value.to_string())
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stated_is_followed_and_the_rest_named() {
        let defaults = GenerationDefaults::parse(
            br#"{"temperature": 0.6, "top_p": 0.95, "top_k": 20, "do_sample": true, "eos_token_id": [2, 7],
                "repetition_penalty": 1.05, "transformers_version": "4.5", "num_beams": 1, "min_p": null,
                "no_repeat_ngram_size": 3, "watermarking_config": {"seed": 1}}"#,
        )
        .unwrap();
        assert_eq!(defaults.not_followed, ["no_repeat_ngram_size = 3", "watermarking_config = {\"seed\":1}"]);
        assert_eq!(defaults.end_tokens, [2, 7]);
        let sampling = defaults.over(Sampling { min_p: 0.1, seed: 5, ..Sampling::default() });
        let expected = Sampling {
            temperature: 0.6,
            top_p: 0.95,
            top_k: 20,
            min_p: 0.1,
            repetition_penalty: 1.05,
            seed: 5,
            ..Sampling::default()
        };
        assert_eq!(sampling, expected);
    }

    #[test]
    fn a_model_that_is_to_be_greedy_is_greedy() {
        let parse = |text: &str| GenerationDefaults::parse(text.as_bytes()).unwrap().temperature;
        assert_eq!(parse(r#"{"do_sample": false, "temperature": 0.7}"#), Some(0.0));
        assert_eq!(parse(r#"{"eos_token_id": 1}"#), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_key() {
        for (text, expected) in [
            (r#"{"eos_token_id": "end"}"#, "`eos_token_id` is \"end\""),
            (r#"{"eos_token_id": [1, -1]}"#, "`eos_token_id`"),
            (r#"{"temperature": "hot"}"#, "`temperature` is \"hot\"; expected a number from 0 to 100"),
            (r#"{"top_p": 2}"#, "`top_p`"),
            (r#"{"top_k": 0.5}"#, "`top_k`"),
            (r#"{"do_sample": 1}"#, "`do_sample`"),
            ("[]", "a JSON object"),
            ("{", "EOF"),
        ] {
            let error = GenerationDefaults::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
