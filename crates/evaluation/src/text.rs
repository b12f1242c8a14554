//! The text that is measured on, and the text that the comparisons learn from.

use std::path::{Path, PathBuf};

use documents::read_shard;
use languages::Language;

use crate::error::Error;

/// Documents of one language.
pub(crate) struct LanguageText {
    pub language: Language,
    /// Id and text; none is empty.
    pub documents: Vec<(String, String)>,
}

impl LanguageText {
    /// UTF-8 bytes of all documents.
    pub fn bytes(&self) -> u64 {
        self.documents.iter().map(|(_, text)| text.len() as u64).sum()
    }

    /// Words between white space.
    pub fn words(&self) -> u64 {
        self.documents.iter().map(|(_, text)| text.split_whitespace().count() as u64).sum()
    }

    /// All documents, one after the other.
    pub fn joined(&self) -> Vec<u8> {
        self.documents.iter().flat_map(|(_, text)| text.bytes()).collect()
    }
}

/// Reads `<language>.jsonl.zst` of a folder, in the order of the codes; of each language no more documents than reach
/// `limit_bytes`. Also says whether that was all.
pub(crate) fn read_languages(folder: &Path, limit_bytes: u64) -> Result<(Vec<LanguageText>, bool), Error> {
    let mut texts = Vec::new();
    let mut whole = true;
    for (language, path) in shards(folder)? {
        let mut text = LanguageText { language, documents: Vec::new() };
        let mut bytes = 0;
        for document in read_shard(&path)? {
            let document = document?;
            if bytes >= limit_bytes {
                whole = false;
                break;
            }
            bytes += document.text.len() as u64;
            if !document.text.is_empty() {
                text.documents.push((document.id, document.text));
            }
        }
        if !text.documents.is_empty() {
            texts.push(text);
        }
    }
    if texts.is_empty() {
        return Err(Error::NoText { path: folder.to_path_buf() });
    }
    Ok((texts, whole))
}

fn shards(folder: &Path) -> Result<Vec<(Language, PathBuf)>, Error> {
    let read_error = |source| Error::Read { path: folder.to_path_buf(), source };
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read_error)? {
        let path = entry.map_err(read_error)?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(code) = name.and_then(|name| name.strip_suffix(".jsonl.zst")) {
            let language =
                Language::from_code(code).map_err(|unknown| Error::Name { path: path.clone(), unknown })?;
            shards.push((language, path));
        }
    }
    shards.sort();
    Ok(shards)
}
