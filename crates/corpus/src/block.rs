//! Where documents wait between the phases: blocks in the stage's scratch folder, each one file with all that a later phase
//! asks of some thousand documents, made by one thread and given its name when it is whole.
//!
//! ```text
//! texts        the documents as JSON lines, those of a language together
//! rows         one `Row` a document, in the order of the texts
//! digests, bands, paragraphs, passages        sorted runs of (key, document), see `runs`
//! dropped-*    what was dropped in this block, by kind, as lines of `dropped/`
//! notes        JSON lines of what few documents have: repairs, placeholders, a fault
//! origins      in a block of cleaned documents: which document each one takes the place of
//! head         where all of this stands; its length and eight letters end the file
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use bytemuck::{Pod, Zeroable};
use documents::Document;
use languages::Language;
use personal_data::PersonalData;
use provenance::Storage;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::reason::{Drop, Kind, Reason, Repair};
use crate::runs::Entry;

const ENDING: &[u8; 8] = b"EULBLOCK";
/// Documents of one block fit into the 16 bits that a run has for each.
pub const MAXIMUM_DOCUMENTS: usize = 1 << 15;

/// What is known of a document without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Row {
    /// Of the words of the text.
    pub digest: [u8; 32],
    /// The date's first bytes, padded with 0; all 255 where there is none, so that undated documents come last.
    pub date: [u8; DATE_BYTES],
    pub language: u8,
    pub padding: [u8; 3],
    pub text_bytes: u32,
    pub characters: u32,
    pub words: u32,
    /// Places in the tables of the head.
    pub source: u32,
    pub license: u32,
    /// Where the document's line stands in `texts`, line end included.
    pub line_bytes: u32,
    pub line_start: u64,
    /// Of the id: between documents that agree in all else.
    pub id_hash: u64,
}

/// An ISO 8601 date to the second.
pub const DATE_BYTES: usize = 20;

/// What few documents have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// The document's number in the block.
    pub document: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<Repair>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub placeholders: BTreeMap<PersonalData, u64>,
    /// Why the document will be dropped if it is no duplicate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Drop>,
}

impl Note {
    fn says_something(&self) -> bool {
        !self.repairs.is_empty() || !self.placeholders.is_empty() || self.fault.is_some()
    }
}

/// The end of a block's file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Head {
    pub documents: u32,
    /// Records that were read for this block: those kept and those dropped.
    pub records: u64,
    pub sections: BTreeMap<String, (u64, u64)>,
    /// Which documents are in which language: first and past the last.
    pub languages: Vec<(Language, u32, u32)>,
    pub sources: Vec<Option<String>>,
    pub licenses: Vec<Option<String>>,
    pub dropped: Vec<(Option<Language>, Reason, u64)>,
    /// Bytes of text that nothing is left of.
    pub lost: Vec<(Option<Language>, Reason, u64)>,
    pub first_unreadable: Option<String>,
    /// From an earlier corpus: compared with, never written.
    pub existing: bool,
    /// The documents take the place of others.
    pub cleaned: bool,
}

/// A document that passed a phase, with all that its row is made of.
pub struct Kept {
    pub document: Document,
    pub language: Language,
    pub digest: [u8; 32],
    pub words: u32,
    pub note: Note,
    pub bands: Vec<u64>,
    pub paragraphs: Vec<u64>,
    pub passages: Vec<u64>,
    /// In a block of cleaned documents: which one this takes the place of.
    pub origin: u32,
}

/// A block as it grows in memory.
#[derive(Default)]
pub struct BlockWriter {
    kept: Vec<Kept>,
    dropped: BTreeMap<Kind, Vec<u8>>,
    dropped_counts: BTreeMap<(Option<Language>, Reason), u64>,
    lost_bytes: BTreeMap<(Option<Language>, Reason), u64>,
    pub records: u64,
    pub first_unreadable: Option<String>,
    pub existing: bool,
    pub cleaned: bool,
    languages_apart: bool,
}

impl BlockWriter {
    /// `languages_apart`: keys of different languages never meet.
    pub fn new(languages_apart: bool) -> BlockWriter {
        BlockWriter { languages_apart, ..BlockWriter::default() }
    }

    pub fn keep(&mut self, kept: Kept) {
        self.kept.push(kept);
    }

    /// A line of `dropped/`, and its count.
    pub fn drop(&mut self, language: Option<Language>, reason: Reason, line: &[u8]) {
        *self.dropped_counts.entry((language, reason)).or_insert(0) += 1;
        let lines = self.dropped.entry(reason.kind()).or_default();
        lines.extend_from_slice(line);
        lines.push(b'\n');
    }

    /// The bytes of a text that was dropped and may not be kept.
    pub fn lose(&mut self, language: Option<Language>, reason: Reason, text_bytes: u64) {
        *self.lost_bytes.entry((language, reason)).or_insert(0) += text_bytes;
    }

    /// Writes the block aside and gives it its name.
    pub fn commit(mut self, storage: &Storage, aside: &Path, path: &Path) -> Result<(), Error> {
        self.kept.sort_by_key(|kept| kept.language);
        let mut head = Head {
            documents: self.kept.len() as u32,
            records: self.records,
            first_unreadable: self.first_unreadable.take(),
            existing: self.existing,
            cleaned: self.cleaned,
            dropped: listed(&self.dropped_counts),
            lost: listed(&self.lost_bytes),
            ..Head::default()
        };
        let mut bytes = Vec::new();
        let rows = self.write_texts(&mut head, &mut bytes);
        section(&mut head, &mut bytes, "rows", bytemuck::cast_slice(&rows));
        self.write_runs(&mut head, &mut bytes);
        let mut notes = Vec::new();
        for kept in self.kept.iter().filter(|kept| kept.note.says_something()) {
            serde_json::to_writer(&mut notes, &kept.note).expect("plain values always serialise");
            notes.push(b'\n');
        }
        section(&mut head, &mut bytes, "notes", &notes);
        if self.cleaned {
            let origins: Vec<u32> = self.kept.iter().map(|kept| kept.origin).collect();
            section(&mut head, &mut bytes, "origins", bytemuck::cast_slice(&origins));
        }
        for (kind, lines) in &self.dropped {
            section(&mut head, &mut bytes, &dropped_section(*kind), lines);
        }
        let head = serde_json::to_vec(&head).expect("plain values always serialise");
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&(head.len() as u64).to_le_bytes());
        bytes.extend_from_slice(ENDING);
        storage.write(aside, &bytes)?;
        storage.rename(aside, path)?;
        Ok(())
    }

    fn write_texts(&mut self, head: &mut Head, bytes: &mut Vec<u8>) -> Vec<Row> {
        let mut rows = Vec::with_capacity(self.kept.len());
        let (mut sources, mut licenses) = (Names::default(), Names::default());
        for (number, kept) in self.kept.iter_mut().enumerate() {
            kept.note.document = number as u32;
            let number = number as u32;
            match head.languages.last_mut() {
                Some((language, _, end)) if *language == kept.language => *end = number + 1,
                _ => head.languages.push((kept.language, number, number + 1)),
            }
            let document = &kept.document;
            let line_start = bytes.len();
            bytes.extend_from_slice(document.to_json().as_bytes());
            bytes.push(b'\n');
            rows.push(Row {
                digest: kept.digest,
                date: date_bytes(document.date.as_deref()),
                language: kept.language.index() as u8,
                padding: [0; 3],
                text_bytes: document.text.len() as u32,
                characters: count_characters(&document.text),
                words: kept.words,
                source: sources.place(&document.source),
                license: licenses.place(&document.license),
                line_bytes: (bytes.len() - line_start) as u32,
                line_start: line_start as u64,
                id_hash: crate::words::hash_of_text(&document.id),
            });
        }
        head.sections.insert("texts".to_string(), (0, bytes.len() as u64));
        (head.sources, head.licenses) = (sources.names, licenses.names);
        rows
    }

    fn write_runs(&mut self, head: &mut Head, bytes: &mut Vec<u8>) {
        type KeysOf = fn(&Kept) -> Vec<u64>;
        let runs: [(&str, KeysOf); 4] = [
            ("digests", |kept| vec![first_eight(&kept.digest)]),
            ("bands", |kept| kept.bands.clone()),
            ("paragraphs", |kept| kept.paragraphs.clone()),
            ("passages", |kept| kept.passages.clone()),
        ];
        for (name, keys_of) in runs {
            // Paragraphs are boilerplate whatever the language: a page and its translation share a menu.
            let salted = self.languages_apart && matches!(name, "digests" | "bands");
            let mut entries: Vec<Entry> = Vec::new();
            for (document, kept) in self.kept.iter().enumerate() {
                let salt = if salted { crate::words::mix(kept.language.index() as u64 + 1) } else { 0 };
                let document = document as u32;
                entries.extend(keys_of(kept).into_iter().map(|key| Entry { key: key ^ salt, document }));
            }
            section(head, bytes, name, &crate::runs::to_bytes(&mut entries));
        }
    }
}

fn listed(counts: &BTreeMap<(Option<Language>, Reason), u64>) -> Vec<(Option<Language>, Reason, u64)> {
    counts.iter().map(|(&(language, reason), &count)| (language, reason, count)).collect()
}

/// The name of the section with what was dropped for reasons of this kind.
pub fn dropped_section(kind: Kind) -> String {
    format!("dropped-{}", kind.name())
}

/// The key under which documents with the same digest meet.
pub fn first_eight(digest: &[u8; 32]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_le_bytes(bytes)
}

fn section(head: &mut Head, bytes: &mut Vec<u8>, name: &str, content: &[u8]) {
    if !content.is_empty() {
        head.sections.insert(name.to_string(), (bytes.len() as u64, content.len() as u64));
        bytes.extend_from_slice(content);
    }
}

fn date_bytes(date: Option<&str>) -> [u8; DATE_BYTES] {
    let Some(date) = date else { return [255; DATE_BYTES] };
    let mut bytes = [0; DATE_BYTES];
    let length = date.len().min(DATE_BYTES);
    bytes[..length].copy_from_slice(&date.as_bytes()[..length]);
    bytes
}

fn count_characters(text: &str) -> u32 {
    text.bytes().filter(|&byte| byte as i8 >= -0x40).count() as u32
}

/// Names of sources or licences, each once: a block has few.
#[derive(Default)]
struct Names {
    names: Vec<Option<String>>,
    places: std::collections::HashMap<Option<String>, u32>,
}

impl Names {
    fn place(&mut self, name: &Option<String>) -> u32 {
        if let Some(&place) = self.places.get(name) {
            return place;
        }
        let place = self.names.len() as u32;
        self.names.push(name.clone());
        self.places.insert(name.clone(), place);
        place
    }
}

/// A finished block, readable from many threads at once.
pub struct Block {
    pub path: PathBuf,
    pub head: Head,
    file: OnceLock<File>,
    /// Whether the file stays open between reads; a process may not hold many.
    hold_open: bool,
}

impl Block {
    pub fn open(path: PathBuf, hold_open: bool) -> Result<Block, Error> {
        let read_error = |source| Error::Read { path: path.clone(), source };
        let file = File::open(&path).map_err(read_error)?;
        let length = file.metadata().map_err(read_error)?.len();
        let torn = || Error::BadBlock { path: path.clone() };
        let mut ending = [0; 16];
        let ending_start = length.checked_sub(16).ok_or_else(torn)?;
        read_at(&file, &mut ending, ending_start).map_err(read_error)?;
        let mut head_bytes = [0; 8];
        head_bytes.copy_from_slice(&ending[..8]);
        let head_bytes = u64::from_le_bytes(head_bytes);
        if &ending[8..] != ENDING || head_bytes > ending_start {
            return Err(torn());
        }
        let mut json = vec![0; head_bytes as usize];
        read_at(&file, &mut json, ending_start - head_bytes).map_err(read_error)?;
        let head = serde_json::from_slice(&json).map_err(|_| torn())?;
        let held = OnceLock::new();
        if hold_open {
            let _ = held.set(file);
        }
        Ok(Block { path, head, file: held, hold_open })
    }

    /// Bytes of a section, from `start` in it.
    pub fn read(&self, section: &str, start: u64, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; length];
        if length > 0 {
            let (section_start, _) = self.section(section);
            self.read_into(&mut bytes, section_start + start)?;
        }
        Ok(bytes)
    }

    /// A whole section; empty where the block has none of that name.
    pub fn read_all(&self, section: &str) -> Result<Vec<u8>, Error> {
        self.read(section, 0, self.section(section).1 as usize)
    }

    /// Where a section begins and how long it is; (0, 0) where the block has none of that name.
    pub fn section(&self, name: &str) -> (u64, u64) {
        self.head.sections.get(name).copied().unwrap_or_default()
    }

    pub fn read_into(&self, bytes: &mut [u8], start: u64) -> Result<(), Error> {
        let read_error = |source| Error::Read { path: self.path.clone(), source };
        if self.hold_open
            && let Some(file) = self.file.get()
        {
            return read_at(file, bytes, start).map_err(read_error);
        }
        let file = File::open(&self.path).map_err(read_error)?;
        read_at(&file, bytes, start).map_err(read_error)
    }

    pub fn rows(&self) -> Result<Vec<Row>, Error> {
        self.rows_between(0, self.head.documents)
    }

    pub fn rows_between(&self, first: u32, end: u32) -> Result<Vec<Row>, Error> {
        let size = size_of::<Row>();
        let bytes = self.read("rows", u64::from(first) * size as u64, (end - first) as usize * size)?;
        Ok(collect(&bytes))
    }

    /// The language of a document, by its number here.
    pub fn language(&self, document: u32) -> Language {
        let place = self.head.languages.partition_point(|(_, _, end)| *end <= document);
        self.head.languages[place].0
    }

    /// Whether its documents take the place of others.
    pub fn is_cleaned(&self) -> bool {
        self.head.cleaned
    }

    pub fn origins(&self) -> Result<Vec<u32>, Error> {
        Ok(collect(&self.read_all("origins")?))
    }

    pub fn notes(&self) -> Result<Vec<Note>, Error> {
        let bytes = self.read_all("notes")?;
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).map_err(|_| Error::BadBlock { path: self.path.clone() }))
            .collect()
    }

    /// The document of a row.
    pub fn document(&self, row: &Row) -> Result<Document, Error> {
        let bytes = self.read("texts", row.line_start, row.line_bytes as usize)?;
        std::str::from_utf8(&bytes)
            .ok()
            .and_then(|json| Document::from_json(json).ok())
            .ok_or_else(|| Error::BadBlock { path: self.path.clone() })
    }
}

/// Plain values from the bytes of a file, wherever they begin.
pub fn collect<T: Pod>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt;
    let mut done = 0;
    while done < bytes.len() {
        match file.seek_read(&mut bytes[done..], start + done as u64)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}
