//! The corpus as tokens in memory: per language one stream of documents, each opened by the separator.

use crate::Error;
use documents::read_shard;
use provenance::Context;
use std::path::{Path, PathBuf};
use tokenizer::Tokenizer;

/// All languages, in the order of their codes.
#[derive(Debug, Default)]
pub struct Texts {
    /// One entry per language with at least one document.
    pub languages: Vec<LanguageTokens>,
    /// Names of the sources, in the order in which they first came.
    pub sources: Vec<String>,
}

/// The source of documents that name none.
const UNSTATED: &str = "unstated";

/// The documents of one language.
#[derive(Debug, Default)]
pub struct LanguageTokens {
    /// The language's code, from the shard's name.
    pub language: String,
    /// All documents, one behind another; each begins with the separator.
    tokens: Vec<u32>,
    /// Where each document begins, and at last where all end.
    starts: Vec<usize>,
    /// Index of each document's source.
    sources: Vec<u32>,
    /// UTF-8 bytes of the texts.
    pub bytes: u64,
}

impl LanguageTokens {
    /// An empty stream.
    pub fn new(language: impl Into<String>) -> LanguageTokens {
        LanguageTokens { language: language.into(), starts: vec![0], ..LanguageTokens::default() }
    }

    /// Appends a document of a source.
    pub fn push(&mut self, source: u32, separator: u32, text: &[u32]) {
        self.sources.push(source);
        self.tokens.push(separator);
        self.tokens.extend_from_slice(text);
        self.starts.push(self.tokens.len());
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.starts.len() - 1
    }

    /// Tokens of all documents, separators included.
    pub fn length(&self) -> usize {
        self.tokens.len()
    }

    /// One document, its separator first.
    pub fn document(&self, index: usize) -> &[u32] {
        &self.tokens[self.starts[index]..self.starts[index + 1]]
    }

    /// Index of a document's source.
    pub fn source(&self, index: usize) -> u32 {
        self.sources[index]
    }
}

impl Texts {
    /// Reads `train/<language>.jsonl.zst` of a corpus and encodes every document.
    ///
    /// # Errors
    /// When a shard is damaged or nothing is there to train on.
    pub fn read(
        corpus: &Path,
        tokenizer: &Tokenizer,
        separator: u32,
        context: &Context,
    ) -> Result<Texts, Error> {
        let folder = corpus.join("train");
        let shards = shards(&folder)?;
        context.progress.begin("encoding", Some(shards.len() as u64), "languages");
        let mut texts = Texts::default();
        for (language, path) in shards {
            let mut stream = LanguageTokens::new(language);
            for document in read_shard(&path)? {
                let document = document?;
                let source = texts.source_index(document.source.as_deref());
                stream.push(source, separator, &tokenizer.encode_ordinary(&document.text)?);
                stream.bytes += document.text.len() as u64;
                if stream.documents().is_multiple_of(256) {
                    context.cancellation.check()?;
                }
            }
            context.cancellation.check()?;
            context.progress.advance(1);
            if stream.documents() > 0 {
                texts.languages.push(stream);
            }
        }
        context.progress.end();
        if texts.languages.is_empty() {
            let problem = "no documents to train on; expected <language>.jsonl.zst files as the corpus stage writes them".into();
            return Err(Error::Corpus { path: folder, problem });
        }
        Ok(texts)
    }

    /// The index of a source by its name; a new name is added.
    pub fn source_index(&mut self, name: Option<&str>) -> u32 {
        let name = name.unwrap_or(UNSTATED);
        let known = self.sources.iter().rposition(|source| source == name);
        known.unwrap_or_else(|| {
            self.sources.push(name.to_string());
            self.sources.len() - 1
        }) as u32
    }
}

/// Shards by language code, sorted.
pub(crate) fn shards(folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let read = |source| Error::Read { path: folder.to_path_buf(), source };
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(language) = name.and_then(|name| name.strip_suffix(".jsonl.zst")) {
            shards.push((language.to_string(), path.clone()));
        }
    }
    shards.sort();
    Ok(shards)
}
