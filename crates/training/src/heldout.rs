//! Bits per byte of held-out text while training goes on: the first documents of each language that the corpus keeps out of
//! training.
//!
//! Documents are cut into sequences of the training's length without overlap, so that the figure lies a little above that of
//! the evaluate stage, which gives every token more context.

use crate::Error;
use crate::batches::{MicroBatch, StepBatch};
use crate::journal::{Exact, HeldOutPoint};
use crate::settings::Settings;
use crate::texts::shards;
use documents::read_shard;
use provenance::Context;
use std::collections::BTreeMap;
use std::path::Path;
use tokenizer::Tokenizer;

/// Held-out text, ready for the decoder.
#[derive(Debug, Default)]
pub(crate) struct HeldOut {
    languages: Vec<HeldOutLanguage>,
}

#[derive(Debug)]
struct HeldOutLanguage {
    code: String,
    bytes: usize,
    batch: StepBatch,
}

impl HeldOut {
    /// Reads up to `evaluate_bytes` of `heldout/<language>.jsonl.zst` for each language; nothing where no step wants it.
    ///
    /// # Errors
    /// When a shard is damaged, or nothing is there although the settings ask for it.
    pub fn read(
        corpus: &Path,
        tokenizer: &Tokenizer,
        separator: u32,
        settings: &Settings,
        context: &Context,
    ) -> Result<HeldOut, Error> {
        let mut heldout = HeldOut::default();
        if settings.evaluate_every == 0 {
            return Ok(heldout);
        }
        let folder = corpus.join("heldout");
        for (code, path) in if folder.exists() { shards(&folder)? } else { Vec::new() } {
            context.cancellation.check()?;
            let mut language = HeldOutLanguage { code, bytes: 0, batch: StepBatch::default() };
            for document in read_shard(&path)? {
                let text = document?.text;
                let text = beginning(&text, settings.evaluate_bytes - language.bytes);
                let mut tokens = vec![separator];
                tokens.extend(tokenizer.encode_ordinary(text)?);
                language.push(&tokens, settings);
                language.bytes += text.len();
                // What is left is less than the next character may need.
                if language.bytes + 4 > settings.evaluate_bytes {
                    break;
                }
            }
            if language.bytes > 0 {
                heldout.languages.push(language);
            }
        }
        if heldout.languages.is_empty() {
            let problem = format!(
                "no held-out documents, but evaluate_every = {}; expected <language>.jsonl.zst files as the corpus stage writes \
                 them, or evaluate_every = 0",
                settings.evaluate_every
            );
            return Err(Error::Corpus { path: folder, problem });
        }
        Ok(heldout)
    }

    /// Bits per byte after `step` steps; `loss` gives the sum of −ln p over the targets of a batch.
    ///
    /// # Errors
    /// Whatever `loss` cannot do.
    pub fn measure(
        &self,
        step: u64,
        mut loss: impl FnMut(&StepBatch) -> Result<f64, Error>,
    ) -> Result<HeldOutPoint, Error> {
        let mut bits_per_byte = BTreeMap::new();
        for language in &self.languages {
            let bits = loss(&language.batch)? / std::f64::consts::LN_2;
            bits_per_byte.insert(language.code.clone(), Exact(bits / language.bytes as f64));
        }
        Ok(HeldOutPoint { step, bits_per_byte })
    }
}

impl HeldOutLanguage {
    /// Appends a document in sequences; its first token is only seen.
    fn push(&mut self, tokens: &[u32], settings: &Settings) {
        let most = settings.micro_tokens();
        let targets = &tokens[1..];
        let seen = &tokens[..targets.len()];
        for (seen, targets) in
            seen.chunks(settings.sequence_length).zip(targets.chunks(settings.sequence_length))
        {
            let micro_batches = &mut self.batch.micro_batches;
            match micro_batches.last_mut() {
                Some(last) if last.tokens.len() + seen.len() <= most => last.push(seen, targets),
                _ => {
                    let mut micro = MicroBatch::default();
                    micro.push(seen, targets);
                    micro_batches.push(micro);
                }
            }
        }
        self.batch.targets += targets.len();
    }
}

/// As many whole characters as fit into so many bytes.
fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_once_and_whole_characters() {
        assert_eq!((beginning("ħobż", 1), beginning("ħobż", 4), beginning("ħobż", 99)), ("", "ħob", "ħobż"));
        let settings = Settings { sequence_length: 8, batch_tokens: 16, ..Settings::default() };
        let mut language = HeldOutLanguage { code: "mt".into(), bytes: 0, batch: StepBatch::default() };
        for document in 0..7u32 {
            let tokens: Vec<u32> = (0..=document * 5).map(|token| document * 100 + token).collect();
            language.push(&tokens, &settings);
        }
        let batch = &language.batch;
        assert_eq!(batch.targets, (0..7).sum::<usize>() * 5);
        assert!(batch.micro_batches.iter().all(|micro| (1..=16).contains(&micro.tokens.len())));
        let pairs =
            |micro: &MicroBatch| micro.tokens.iter().copied().zip(micro.targets.clone()).collect::<Vec<_>>();
        let found: Vec<(u32, u32)> = batch.micro_batches.iter().flat_map(pairs).collect();
        assert_eq!(found.len(), batch.targets);
        assert!(found.iter().all(|(token, target)| token + 1 == *target));
        let point = HeldOut { languages: vec![HeldOutLanguage { bytes: 210, ..language }] }
            .measure(3, |batch| Ok(batch.targets as f64 * std::f64::consts::LN_2))
            .unwrap();
        assert_eq!(point.bits_per_byte["mt"].0, 0.5);
    }
}
