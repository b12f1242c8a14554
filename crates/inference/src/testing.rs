//! For tests, here and in crates above: a tokenizer whose tokens are bytes, and a model that follows simple rules.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokenizer::Tokenizer;

use crate::decoder::{Chunk, Decoder, DecoderShape, Rows};
use crate::engine::{Engine, EngineSettings};

/// Ids 0..=3 are the special tokens, 4 + b is byte b.
pub fn byte_tokenizer() -> Tokenizer {
    Tokenizer::from_json(byte_tokenizer_json().as_bytes()).expect("a tokenizer of bytes is well-formed")
}

/// Writes [`byte_tokenizer`] into a folder, with a chat template that sets `<|im_start|>` before each message.
pub fn write_byte_tokenizer(folder: &Path) -> io::Result<()> {
    let template = "{% for message in messages %}<|im_start|>{{ message.content }}{% endfor %}";
    let configuration = serde_json::json!({"eos_token": "<|endoftext|>", "chat_template": template});
    fs::write(folder.join("tokenizer.json"), byte_tokenizer_json())?;
    fs::write(folder.join("tokenizer_config.json"), configuration.to_string())
}

fn byte_tokenizer_json() -> String {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let others = (0..256u32).filter(|&byte| !printable(byte));
    let shifted: Vec<u32> = others.collect();
    let character = |byte: u32| match shifted.iter().position(|&other| other == byte) {
        Some(place) => char::from_u32(0x100 + place as u32).unwrap_or_default(),
        None => char::from_u32(byte).unwrap_or_default(),
    };
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        (0..256).map(|byte| (character(byte).to_string(), (byte + 4).into())).collect();
    let added: Vec<_> = (0..4)
        .map(|id| {
            serde_json::json!({"id": id, "content": tokenizer::SPECIAL_TOKENS[id], "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false})
        })
        .collect();
    let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []}
    });
    json.to_string()
}

/// Continues a text with the letter after its last one (`a` → `b` … `z` → end of text), second likeliest is the letter
/// itself. It trusts only its cache for what came before, so a wrong block table or position shows.
pub struct AlphabetModel {
    shape: DecoderShape,
    cache: Vec<Option<u32>>,
    logits: Vec<f32>,
    delay: Duration,
}

impl AlphabetModel {
    /// `blocks` of 4 positions; each call takes `delay`.
    pub fn new(context_length: usize, blocks: usize, delay: Duration) -> AlphabetModel {
        let block_positions = 4;
        AlphabetModel {
            shape: DecoderShape {
                vocabulary_size: 260,
                hidden_size: 2,
                context_length,
                block_positions,
                blocks,
            },
            cache: vec![None; blocks * block_positions],
            logits: Vec::new(),
            delay,
        }
    }
}

impl Decoder for AlphabetModel {
    fn shape(&self) -> DecoderShape {
        self.shape
    }

    fn forward(&mut self, chunks: &[Chunk<'_>]) -> Result<&[f32], String> {
        self.run(chunks, alphabet_logits)
    }

    /// The sum of the tokens so far, and their number.
    fn hidden_states(&mut self, chunks: &[Chunk<'_>]) -> Result<&[f32], String> {
        self.run(chunks, |history, _| vec![history.iter().sum::<u32>() as f32, history.len() as f32])
    }

    fn copy_block(&mut self, from: u32, to: u32) {
        let size = self.shape.block_positions;
        self.cache.copy_within(from as usize * size..(from as usize + 1) * size, to as usize * size);
    }
}

impl AlphabetModel {
    fn run(
        &mut self,
        chunks: &[Chunk<'_>],
        row: impl Fn(&[u32], Option<usize>) -> Vec<f32>,
    ) -> Result<&[f32], String> {
        std::thread::sleep(self.delay);
        self.logits.clear();
        for chunk in chunks {
            for (index, &token) in chunk.tokens.iter().enumerate() {
                let place = |position: usize| {
                    chunk.blocks[position / self.shape.block_positions] as usize * self.shape.block_positions
                        + position % self.shape.block_positions
                };
                let position = chunk.first_position + index;
                self.cache[place(position)] = Some(token);
                let history: Option<Vec<u32>> =
                    (0..=position).map(|position| self.cache[place(position)]).collect();
                let history = history.ok_or("a position before this one was never computed")?;
                let wanted = match chunk.rows {
                    Rows::None => false,
                    Rows::Last => index + 1 == chunk.tokens.len(),
                    Rows::All => true,
                };
                if wanted {
                    self.logits.extend(row(&history, chunk.adapter));
                }
            }
        }
        Ok(&self.logits)
    }
}

/// A row of logits after some tokens; an adapter makes it walk backwards. The length leaves a trace in the logits, so
/// that sampled answers differ along the text.
fn alphabet_logits(history: &[u32], adapter: Option<usize>) -> Vec<f32> {
    let last = history[history.len() - 1];
    let next = match (last, adapter) {
        (101..126, None) => last + 1,
        (102..=126, Some(_)) => last - 1,
        _ => 0,
    };
    (0..260u32)
        .map(|id| match id {
            id if id == next => 6.0,
            id if id == last => 4.0,
            id => ((id as usize * 7 + history.len() * 13) % 29) as f32 * 0.1,
        })
        .collect()
}

/// An engine over [`AlphabetModel`] with the adapter `backwards`; a step takes `delay`.
pub fn alphabet_engine(context_length: usize, delay: Duration, settings: &EngineSettings) -> Engine {
    alphabet_engine_with(byte_tokenizer(), context_length, delay, settings)
}

/// The same with a tokenizer of the same vocabulary.
pub fn alphabet_engine_with(
    tokenizer: Tokenizer,
    context_length: usize,
    delay: Duration,
    settings: &EngineSettings,
) -> Engine {
    let blocks = settings.running_requests * context_length.div_ceil(4);
    let model = AlphabetModel::new(context_length, blocks, delay);
    let adapters = vec!["backwards".to_string()];
    Engine::over(Box::new(model), adapters, Arc::new(tokenizer), vec![0], settings)
        .expect("the settings of a test are sound")
}
