//! Tokens to bytes, and text that grows token by token.
//!
//! A token of a byte-level vocabulary is any run of bytes, half a character included. Text that is shown while it is
//! made must hold such bytes back until the character is whole: [`StreamDecoder`] does. Joined, its pieces are exactly
//! what [`crate::Tokenizer::decode`] gives for all ids at once.

use tokenizers::DecoderWrapper;

use crate::error::Error;
use crate::loaded::Tokenizer;

/// What each token stands for.
pub(crate) struct TokenBytes {
    /// By id; `None` for ids without an entry.
    entries: Vec<Option<Entry>>,
    /// Whether a text is the bytes of its tokens, one after the other.
    byte_level: bool,
}

struct Entry {
    bytes: Vec<u8>,
    special: bool,
}

impl TokenBytes {
    pub fn of(tokenizer: &tokenizers::Tokenizer) -> Result<TokenBytes, String> {
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let added = tokenizer.get_added_tokens_decoder();
        let vocabulary = tokenizer.get_vocab(true);
        let count = vocabulary.values().max().map_or(0, |highest| *highest as usize + 1);
        // A damaged file may claim an id of four billion; a table by id must stay in proportion to the file.
        if count > 4 * vocabulary.len() + 65_536 {
            return Err(format!(
                "the highest token id is {} but there are only {} entries; the vocabulary is damaged",
                count - 1,
                vocabulary.len()
            ));
        }
        let from_character = byte_of_character();
        let mut entries: Vec<Option<Entry>> = Vec::new();
        entries.resize_with(count, || None);
        for (token, id) in vocabulary {
            let entry = match added.get(&id) {
                Some(token) => Entry { bytes: token.content.clone().into_bytes(), special: token.special },
                None if byte_level => {
                    let bytes = token.chars().map(&from_character).collect::<Option<Vec<u8>>>();
                    // Like the library: a token with a character outside the byte alphabet stands for itself.
                    Entry { bytes: bytes.unwrap_or_else(|| token.into_bytes()), special: false }
                }
                None => Entry { bytes: piece_bytes(&token), special: false },
            };
            entries[id as usize] = Some(entry);
        }
        Ok(TokenBytes { entries, byte_level })
    }

    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the longest, special ones too.
    pub fn longest(&self) -> usize {
        self.entries.iter().flatten().map(|entry| entry.bytes.len()).max().unwrap_or(0)
    }

    pub fn byte_length(&self, id: u32) -> usize {
        self.entry(id).filter(|entry| !entry.special).map_or(0, |entry| entry.bytes.len())
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.entry(id).is_some_and(|entry| entry.special)
    }

    pub fn bytes_of(&self, id: u32) -> Option<&[u8]> {
        self.entry(id).filter(|_| self.byte_level).map(|entry| entry.bytes.as_slice())
    }

    /// The bytes of a token of any vocabulary; special tokens and ids without an entry have none.
    pub fn text_bytes(&self, id: u32) -> &[u8] {
        self.entry(id).filter(|entry| !entry.special).map_or(&[], |entry| entry.bytes.as_slice())
    }

    /// The bytes of a text, if the vocabulary is byte-level.
    pub fn join(&self, ids: &[u32], skip_special: bool) -> Option<Vec<u8>> {
        if !self.byte_level {
            return None;
        }
        let entries =
            ids.iter().filter_map(|&id| self.entry(id)).filter(|entry| !(skip_special && entry.special));
        Some(entries.flat_map(|entry| entry.bytes.iter().copied()).collect())
    }

    fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize).and_then(Option::as_ref)
    }
}

/// Bytes of a SentencePiece-like piece: `▁` is a space, `<0x0A>` one byte.
fn piece_bytes(piece: &str) -> Vec<u8> {
    let hexadecimal = piece.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match hexadecimal
        .filter(|digits| digits.len() == 2)
        .and_then(|digits| u8::from_str_radix(digits, 16).ok())
    {
        Some(byte) => vec![byte],
        None => piece.replace('▁', " ").into_bytes(),
    }
}

fn byte_of_character() -> impl Fn(char) -> Option<u8> {
    // The highest character of the alphabet is U+0143.
    let mut bytes = [None; 0x144];
    for (byte, character) in gguf::byte_alphabet().into_iter().enumerate() {
        bytes[character as usize] = u8::try_from(byte).ok();
    }
    move |character| bytes.get(character as usize).copied().flatten()
}

/// Decodes one token after the other; what it returns is whole characters only.
///
/// Holds no reference to the tokenizer, so that it can travel with a request; give it the same one each time.
#[derive(Clone, Debug, Default)]
pub struct StreamDecoder {
    skip_special: bool,
    /// Byte-level: bytes of a character that is not whole yet. At most 3.
    pending: Vec<u8>,
    /// Other vocabularies: ids since the last text that was given out, with the ids before as context.
    window: Vec<u32>,
    /// How many ids of the window are context.
    context: usize,
}

impl StreamDecoder {
    /// `skip_special` leaves special tokens out of the text.
    pub fn new(skip_special: bool) -> StreamDecoder {
        StreamDecoder { skip_special, ..StreamDecoder::default() }
    }

    /// Takes the next token; returns the text that is certain now, often none.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, Error> {
        if id as usize >= tokenizer.vocabulary_size() {
            return Err(Error::UnknownId { id, vocabulary_size: tokenizer.vocabulary_size() });
        }
        match tokenizer.bytes_of(id) {
            Some(_) if self.skip_special && tokenizer.is_special(id) => Ok(String::new()),
            Some(bytes) => {
                self.pending.extend_from_slice(bytes);
                Ok(take_whole_characters(&mut self.pending))
            }
            None => self.push_to_window(tokenizer, id),
        }
    }

    /// What was held back; bytes that never became a character turn into U+FFFD.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, Error> {
        let mut text = String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned();
        if self.window.len() > self.context {
            let before = tokenizer.decode_with(&self.window[..self.context], self.skip_special)?;
            let all = tokenizer.decode_with(&self.window, self.skip_special)?;
            text.push_str(all.strip_prefix(before.as_str()).unwrap_or_default());
        }
        self.window.clear();
        self.context = 0;
        Ok(text)
    }

    fn push_to_window(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, Error> {
        self.window.push(id);
        let before = tokenizer.decode_with(&self.window[..self.context], self.skip_special)?;
        let all = tokenizer.decode_with(&self.window, self.skip_special)?;
        match all.strip_prefix(before.as_str()) {
            Some(text) if !text.is_empty() && !text.ends_with(char::REPLACEMENT_CHARACTER) => {
                let text = text.to_owned();
                self.window.drain(..self.context);
                self.context = self.window.len();
                Ok(text)
            }
            _ => Ok(String::new()),
        }
    }
}

/// Removes from `pending` and returns all that is certain: whole characters, and U+FFFD for bytes that no following
/// byte can make a character of. What stays is the beginning of a character.
fn take_whole_characters(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = 0;
    for chunk in pending.utf8_chunks() {
        text.push_str(chunk.valid());
        rest += chunk.valid().len();
        let invalid = chunk.invalid();
        let at_the_end = rest + invalid.len() == pending.len();
        if invalid.is_empty() || (at_the_end && may_become_a_character(invalid)) {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        rest += invalid.len();
    }
    pending.drain(..rest);
    text
}

/// Whether some bytes are the beginning of a character rather than an error.
fn may_become_a_character(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => false,
        Err(error) => error.valid_up_to() == 0 && error.error_len().is_none(),
    }
}
