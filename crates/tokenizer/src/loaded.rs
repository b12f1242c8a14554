//! `Tokenizer`: a vocabulary loaded from `tokenizer.json`, whoever made it.
//!
//! Encoding is the `tokenizers` library's, so that our ids are everyone's ids. What we add: errors that name the file,
//! text that is encoded as text even where it spells a special token, token bytes for exact streaming and for bits per
//! byte, and chat templates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokenizers::AddedToken;

use crate::chat::{ChatTemplate, Conversation, Message};
use crate::configuration::{Configuration, read_if_there};
use crate::decoding::TokenBytes;
use crate::error::Error;

/// Words whose ids each thread keeps where that is asked for, as the `tokenizers` library does without being asked.
const REMEMBERED_WORDS: usize = 10_000;
/// Bytes of a token of text in prose are 3 to 6; a text whose tokens have more on average is rare, and encoded whole to know.
const LONG_TOKENS_BYTES: usize = 16;

/// A loaded vocabulary. Immutable; share it with an `Arc`. Nothing of a text stays behind in it once its ids are there,
/// unless [`Tokenizer::remembering_words`] asks for that.
pub struct Tokenizer {
    /// Recognises special tokens in the text.
    with_special: tokenizers::Tokenizer,
    /// Takes text that spells a special token for plain text.
    ordinary: tokenizers::Tokenizer,
    token_bytes: TokenBytes,
    longest_token_bytes: usize,
    special: BTreeMap<String, u32>,
    configuration: Configuration,
    chat: Option<ChatTemplate>,
    /// For conversations with tools, where it is another.
    tool_chat: Option<ChatTemplate>,
}

impl Tokenizer {
    /// Loads a folder that holds `tokenizer.json` (and, if there, `tokenizer_config.json` and `chat_template.jinja`),
    /// or such a file by its own name, or a GGUF file that carries a tokenizer.
    pub fn load(path: &Path) -> Result<Tokenizer, Error> {
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && path.is_file()
        {
            return Tokenizer::load_gguf(path);
        }
        let (folder, file) = if path.is_dir() {
            (path.to_path_buf(), path.join("tokenizer.json"))
        } else {
            (path.parent().map(Path::to_path_buf).unwrap_or_default(), path.to_path_buf())
        };
        let Some(bytes) = read_if_there(&file)? else {
            return Err(Error::Missing { path: path.to_path_buf() });
        };
        let configuration = Configuration::load(&folder)?;
        Tokenizer::assemble(&bytes, configuration).map_err(|problem| Error::Malformed { path: file, problem })
    }

    fn load_gguf(path: &Path) -> Result<Tokenizer, Error> {
        let malformed = |problem: String| Error::Malformed { path: path.to_path_buf(), problem };
        let Some(files) = gguf::Model::open(path)?.tokenizer()? else {
            return Err(malformed(
                "the file carries no tokenizer; convert it into a folder and add one".into(),
            ));
        };
        let configuration = Configuration::of(&files.config).map_err(malformed)?;
        Tokenizer::assemble(files.tokenizer.to_string().as_bytes(), configuration).map_err(malformed)
    }

    /// A tokenizer from the bytes of a `tokenizer.json`, without a configuration.
    pub fn from_json(bytes: &[u8]) -> Result<Tokenizer, Error> {
        Tokenizer::assemble(bytes, Configuration::default())
            .map_err(|problem| Error::Malformed { path: PathBuf::from("tokenizer.json"), problem })
    }

    /// A tokenizer of no more than a chat template and named special tokens (`bos_token` and others, as
    /// `tokenizer_config.json` has them): for looking at prompts as text.
    pub fn with_chat_template(template: &str, tokens: &Value) -> Result<Tokenizer, Error> {
        let malformed = |problem| Error::Malformed { path: PathBuf::from("tokenizer_config.json"), problem };
        let mut configuration = Configuration::of(tokens).map_err(malformed)?;
        configuration.chat_template = Some(template.to_owned());
        let model =
            r#"{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}"#;
        Tokenizer::assemble(model.as_bytes(), configuration).map_err(malformed)
    }

    fn assemble(bytes: &[u8], configuration: Configuration) -> Result<Tokenizer, String> {
        let mut with_special = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| format!("not a tokenizer in the Hugging Face format: {error}"))?;
        // A stored truncation or padding would silently change what a text is.
        with_special.with_truncation(None).map_err(|error| error.to_string())?;
        with_special.with_padding(None);
        // What one has written would stay in memory on every thread that encodes, up to some 100 MB of it where somebody sends
        // long words, and another's answer would come sooner for the same word. A word takes 0 to 25 % longer for it.
        remember_words(&mut with_special, 0);
        add_missing(&mut with_special, &configuration.added)?;
        let mut ordinary = with_special.clone();
        ordinary.set_encode_special_tokens(true);
        let special = with_special
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, token)| (token.content, id))
            .collect();
        let token_bytes = TokenBytes::of(&with_special)?;
        let longest_token_bytes = token_bytes.longest();
        let chat = configuration.chat_template.as_deref().map(ChatTemplate::new);
        let tool_chat = configuration.tool_template.as_deref().map(ChatTemplate::new);
        Ok(Tokenizer {
            with_special,
            ordinary,
            token_bytes,
            longest_token_bytes,
            special,
            configuration,
            chat,
            tool_chat,
        })
    }

    /// The same that keeps the ids of up to 10,000 words on each thread that encodes, for as long as the thread lives: up to a
    /// quarter faster. For bulk text of our own, never for what different people send.
    #[must_use]
    pub fn remembering_words(mut self) -> Tokenizer {
        remember_words(&mut self.with_special, REMEMBERED_WORDS);
        remember_words(&mut self.ordinary, REMEMBERED_WORDS);
        self
    }

    /// Ids of a text in which special tokens are recognised. Adds none of its own. For text that we wrote.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        encode_with(&self.with_special, text, false)
    }

    /// Ids of a text, all of it taken as text: `<|im_end|>` in it becomes ordinary tokens. For text from anyone.
    pub fn encode_ordinary(&self, text: &str) -> Result<Vec<u32>, Error> {
        encode_with(&self.ordinary, text, false)
    }

    /// Ids as `transformers` gives them for `tokenizer(text)`: special tokens recognised, and those that the
    /// vocabulary's own post-processor adds, such as a beginning of sequence, added.
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        encode_with(&self.with_special, text, true)
    }

    /// Text of some ids, special tokens included; bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.decode_with(ids, false)
    }

    /// Text of some ids without the special tokens among them.
    pub fn decode_without_special(&self, ids: &[u32]) -> Result<String, Error> {
        self.decode_with(ids, true)
    }

    pub(crate) fn decode_with(&self, ids: &[u32], skip_special: bool) -> Result<String, Error> {
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocabulary_size()) {
            return Err(Error::UnknownId { id, vocabulary_size: self.vocabulary_size() });
        }
        if let Some(bytes) = self.token_bytes.join(ids, skip_special) {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        self.with_special
            .decode(ids, skip_special)
            .map_err(|error| Error::Coding { action: "decode", problem: error.to_string() })
    }

    /// Entries of the vocabulary, special tokens included: one more than the highest id.
    pub fn vocabulary_size(&self) -> usize {
        self.token_bytes.count()
    }

    /// UTF-8 bytes that a token stands for; 0 for special tokens and ids without an entry.
    pub fn byte_length(&self, id: u32) -> usize {
        self.token_bytes.byte_length(id)
    }

    /// Most bytes of text that one token stands for, special tokens counted as they are written.
    pub fn longest_token_bytes(&self) -> usize {
        self.longest_token_bytes
    }

    /// Whether a text surely has more tokens than that, found without encoding all of a long one: no token is long enough, or its
    /// beginning alone has twice as many. (About a cut there are other tokens, elsewhere not. A
    /// tokenizer that drops much of a text is not thought of; those of language models keep it.)
    ///
    /// # Errors
    /// Where the beginning cannot be encoded.
    pub fn exceeds(&self, text: &str, tokens: usize) -> Result<bool, Error> {
        if text.len() > tokens.saturating_mul(self.longest_token_bytes) {
            return Ok(true);
        }
        let beginning = tokens.saturating_mul(LONG_TOKENS_BYTES);
        if text.len() <= beginning {
            return Ok(false);
        }
        let beginning = &text[..text.floor_char_boundary(beginning)];
        Ok(self.encode(beginning)?.len() / 2 > tokens)
    }

    /// The bytes of a token, where the vocabulary is byte-level.
    pub fn bytes_of(&self, id: u32) -> Option<&[u8]> {
        self.token_bytes.bytes_of(id)
    }

    /// The bytes that a token adds inside a text, for any kind of vocabulary; none for special tokens and ids without an
    /// entry. (At the beginning of a text a decoder may drop a space.)
    pub fn text_bytes(&self, id: u32) -> &[u8] {
        self.token_bytes.text_bytes(id)
    }

    /// The id of a special token by its text, such as `<|im_end|>`.
    pub fn special_id(&self, token: &str) -> Option<u32> {
        self.special.get(token).copied()
    }

    /// Whether an id is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.token_bytes.is_special(id)
    }

    /// Special tokens with their ids, in the order of the text.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        self.special.iter().map(|(token, id)| (token.as_str(), *id))
    }

    /// The token that opens a document: `bos_token` of the configuration, else the document separator.
    pub fn beginning_id(&self) -> Option<u32> {
        self.configured(&self.configuration.beginning).or_else(|| self.separator_id())
    }

    /// The token that stands between documents: `<|endoftext|>`, else the configured end.
    pub fn separator_id(&self) -> Option<u32> {
        self.special_id(crate::SPECIAL_TOKENS[0]).or_else(|| self.configured(&self.configuration.end))
    }

    /// The token that ends a text: `eos_token` of the configuration, else the document separator.
    pub fn end_id(&self) -> Option<u32> {
        self.configured(&self.configuration.end).or_else(|| self.special_id(crate::SPECIAL_TOKENS[0]))
    }

    /// The token that fills up batches.
    pub fn padding_id(&self) -> Option<u32> {
        self.configured(&self.configuration.padding).or_else(|| self.special_id(crate::SPECIAL_TOKENS[3]))
    }

    /// Longest input that the configuration allows, in tokens.
    pub fn maximum_length(&self) -> Option<u64> {
        self.configuration.maximum_length
    }

    /// Whether there is a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.chat.is_some()
    }

    /// The chat template as it was found, in Jinja's language.
    pub fn chat_template_text(&self) -> Option<&str> {
        self.configuration.chat_template.as_deref()
    }

    /// A conversation as one text, as the chat template writes it. `add_generation_prompt` opens the answer's turn.
    pub fn render_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, Error> {
        self.render_conversation(&Conversation::of(messages, add_generation_prompt))
    }

    /// A conversation with tools, documents and further names as one text, as `apply_chat_template` of `transformers` gives
    /// it.
    pub fn render_conversation(&self, conversation: &Conversation) -> Result<String, Error> {
        self.chat_template(conversation)?.render(conversation, &self.configuration)
    }

    /// A conversation as ids. Special tokens count where the template writes them, never inside a message.
    pub fn encode_chat(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<u32>, Error> {
        self.encode_conversation(&Conversation::of(messages, add_generation_prompt))
    }

    /// A conversation with tools, documents and further names as ids. Special tokens count where the template writes them,
    /// never inside a text that it was given.
    pub fn encode_conversation(&self, conversation: &Conversation) -> Result<Vec<u32>, Error> {
        crate::chat::encode(self, self.chat_template(conversation)?, conversation, &self.configuration)
    }

    fn chat_template(&self, conversation: &Conversation) -> Result<&ChatTemplate, Error> {
        let for_tools = self.tool_chat.as_ref().filter(|_| conversation.tools.is_some());
        for_tools.or(self.chat.as_ref()).ok_or_else(|| Error::ChatTemplate {
            problem: "this tokenizer has none (no `chat_template` in tokenizer_config.json and no chat_template.jinja); \
                      it belongs to a base model: complete text with it instead"
                .to_owned(),
        })
    }

    fn configured(&self, token: &Option<String>) -> Option<u32> {
        token.as_deref().and_then(|token| self.with_special.token_to_id(token))
    }
}

/// Adds the tokens of `tokenizer_config.json` that `tokenizer.json` lacks, as `transformers` does: some fine-tunings write
/// new tokens into the one file alone.
fn add_missing(
    tokenizer: &mut tokenizers::Tokenizer,
    added: &BTreeMap<u32, AddedToken>,
) -> Result<(), String> {
    let known = tokenizer.get_added_vocabulary().get_vocab().clone();
    for (id, token) in added.iter().filter(|(_, token)| !known.contains_key(&token.content)) {
        tokenizer.add_tokens([token.clone()]).map_err(|error| error.to_string())?;
        let found = tokenizer.token_to_id(&token.content);
        if found != Some(*id) {
            return Err(format!(
                "tokenizer_config.json says that {:?} is token {id}, with tokenizer.json it is {found:?}",
                token.content
            ));
        }
    }
    Ok(())
}

/// Sets how many words a vocabulary keeps on each thread.
fn remember_words(tokenizer: &mut tokenizers::Tokenizer, words: usize) {
    let mut model = tokenizer.get_model().clone();
    model.resize_cache(words);
    tokenizer.with_model(model);
}

fn encode_with(tokenizer: &tokenizers::Tokenizer, text: &str, add_special: bool) -> Result<Vec<u32>, Error> {
    let encoding = tokenizer
        .encode_fast(text, add_special)
        .map_err(|error| Error::Coding { action: "encode", problem: error.to_string() })?;
    Ok(encoding.get_ids().to_vec())
}
