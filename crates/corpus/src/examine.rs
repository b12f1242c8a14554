//! What a document decides by itself: rights, encoding, language, personal data, quality; and the keys by which it is
//! compared with others. A pure function of the record and the settings.
//!
//! Personal data go before anything is written anywhere, so that neither scratch nor `dropped/` ever holds them.

use std::collections::BTreeMap;

use documents::{BadRecord, Document, RawRecord};
use languages::Language;
use personal_data::PersonalData;
use provenance::Digest;
use serde_json::Value;

use crate::block::{BlockWriter, Kept, Note};
use crate::boilerplate;
use crate::decontaminate::{Decontamination, Outcome};
use crate::error::Error;
use crate::fingerprint::{Sketch, digest_of_words, shingles_in_order};
use crate::passages;
use crate::quality;
use crate::reason::{Drop, Reason, Repair};
use crate::rights::Rights;
use crate::settings::Settings;
use crate::site_rules::is_site_file;
use crate::words::Words;
use crate::writers::DroppedLines;
use crate::{encoding, label};

/// What all documents of a build are judged by.
pub struct Examiner<'a> {
    pub settings: &'a Settings,
    pub rights: Rights,
    /// Evaluation sets, where the settings name any.
    pub decontamination: Option<Decontamination>,
    pub dropped: DroppedLines,
}

/// Memory of one thread, used again for each document.
#[derive(Default)]
pub struct Buffers {
    words: Words,
    shingles: Vec<u64>,
    sketch: Vec<u64>,
    paragraphs: Vec<u64>,
}

/// What became of a record.
enum Examined {
    Kept(Box<Kept>),
    Dropped {
        document: Document,
        language: Option<Language>,
        drop: Drop,
    },
    /// Nothing of it may be kept.
    Traceless {
        language: Option<Language>,
        reason: Reason,
        date: Option<String>,
        /// Where there is a key for digests.
        digest: Option<Digest>,
        text_bytes: u64,
    },
    Unreadable(BadRecord),
    /// A site's robots.txt: no document.
    SiteFile,
}

impl<'a> Examiner<'a> {
    pub fn new(settings: &'a Settings) -> Result<Examiner<'a>, Error> {
        let dropped = DroppedLines::new(settings.digest_key.as_deref())?;
        let rights = Rights::new(settings)?;
        let decontamination = match settings.decontaminate.is_empty() {
            true => None,
            false => Some(Decontamination::read(&settings.decontamination, &settings.decontaminate)?),
        };
        Ok(Examiner { settings, rights, decontamination, dropped })
    }

    /// Examines the records of a block, in their order.
    pub fn block(&self, records: Vec<RawRecord>, buffers: &mut Buffers) -> BlockWriter {
        let mut block = self.empty_block();
        block.records = records.len() as u64;
        for record in records {
            match self.one(record, buffers) {
                Examined::Kept(kept) => block.keep(*kept),
                Examined::Dropped { document, language, drop } => {
                    block.drop(language, drop.reason, &self.dropped.document(document, &drop));
                }
                Examined::Traceless { language, reason, date, digest, text_bytes } => {
                    block.drop(language, reason, &self.dropped.traceless(reason, date.as_deref(), digest));
                    block.lose(language, reason, text_bytes);
                }
                Examined::SiteFile => {}
                Examined::Unreadable(bad) => {
                    block.drop(None, Reason::Unreadable, &self.dropped.unreadable(&bad));
                    block.first_unreadable.get_or_insert(bad.to_string());
                }
            }
        }
        block
    }

    pub fn empty_block(&self) -> BlockWriter {
        BlockWriter::new(!self.settings.duplicates_across_languages)
    }

    /// Documents of an earlier corpus: nothing is decided about them.
    pub fn existing_block(&self, records: Vec<RawRecord>, buffers: &mut Buffers) -> BlockWriter {
        let mut block = self.empty_block();
        block.existing = true;
        for document in records.into_iter().filter_map(|record| record.parse().document.ok()) {
            let language = document.language.as_deref().and_then(|label| Language::from_code(label).ok());
            // A language that is none of the 24 is compared with the first of the settings.
            let language = language.unwrap_or(self.settings.languages[0]);
            let mut kept = self.compared(document, language, buffers);
            kept.paragraphs.clear();
            block.keep(kept);
        }
        block
    }

    fn one(&self, raw: RawRecord, buffers: &mut Buffers) -> Examined {
        let mut document = match raw.parse().document {
            Ok(document) => document,
            Err(bad) => return Examined::Unreadable(bad),
        };
        let labelled = document.language.as_deref().and_then(|label| Language::from_code(label).ok());
        if is_site_file(&document) {
            return Examined::SiteFile;
        }
        if let Some(fault) = self.rights.check(&document) {
            // The language is named only so that each can be told what it lost.
            return Examined::Traceless {
                language: labelled.or_else(|| languages::identify(&document.text).language),
                reason: fault.drop.reason,
                date: fault.date,
                digest: self.dropped.digest(&document.text),
                text_bytes: document.text.len() as u64,
            };
        }
        if document.license.is_none() {
            document.license = Some(self.settings.default_license.clone());
        }
        // Keys that no step reads may hold anything: unless the owner asks for them, they end here.
        document.metadata.retain(|key, _| self.settings.keep_metadata.contains(key));
        let mut repairs: Vec<Repair> = Vec::new();
        let mut original = None;
        match encoding::repair(&document.text) {
            Ok(None) => {}
            Ok(Some(repaired)) => {
                repairs.extend(repaired.repairs);
                original = Some(std::mem::replace(&mut document.text, repaired.text));
            }
            Err(drop) => return redacted(document, labelled, drop),
        }
        let label = match label::decide(document.language.as_deref(), &document.text, self.settings) {
            Ok(label) => label,
            Err(drop) => return redacted(document, labelled, drop),
        };
        if label.relabelled {
            repairs.push(Repair::Relabelled);
        }
        document.language = Some(label.language.to_string());
        if let Some(decontamination) = &self.decontamination {
            match decontamination.judge(&document.text, &mut buffers.words) {
                Outcome::Free => {}
                Outcome::Dropped(drop) => return redacted(document, Some(label.language), drop),
                Outcome::Cut(rest) => {
                    document.text = rest;
                    repairs.push(Repair::Decontaminated);
                }
            }
        }
        let redaction = personal_data::redact(&document.text, Some(label.language));
        let mut placeholders = redaction.counts;
        let found: u64 = placeholders.values().sum();
        if found > 0 {
            let words = redaction.text.split_whitespace().count();
            let redacted = redaction.text.into_owned();
            original = original.or(Some(std::mem::replace(&mut document.text, redacted)));
            repairs.push(Repair::PersonalData);
            if found as f64 > self.settings.maximum_personal_data_share * words as f64 {
                return Examined::Traceless {
                    language: Some(label.language),
                    reason: Reason::MostlyPersonalData,
                    date: document.date,
                    digest: self.dropped.digest(original.as_deref().unwrap_or(&document.text)),
                    text_bytes: original.as_ref().unwrap_or(&document.text).len() as u64,
                };
            }
        }
        for value in document.metadata.values_mut() {
            redact_strings(value, label.language, &mut placeholders);
        }
        let mut kept = self.judged(document, label.language, buffers);
        kept.note = Note { repairs, placeholders, ..kept.note };
        Examined::Kept(Box::new(kept))
    }

    /// A document with its quality and all by which it is compared; also after its text changed.
    pub fn judged(&self, document: Document, language: Language, buffers: &mut Buffers) -> Kept {
        let fault = quality::fault(&document.text, language, self.settings.maximum_list_line_share);
        let mut kept = self.compared(document, language, buffers);
        kept.note.fault = fault;
        kept
    }

    fn compared(&self, document: Document, language: Language, buffers: &mut Buffers) -> Kept {
        let settings = self.settings;
        let Buffers { words, shingles, sketch, paragraphs } = buffers;
        words.read(&document.text);
        let mut bands = Vec::new();
        if settings.near_duplicate_similarity < 1.0 {
            let method = Sketch::of(settings);
            shingles_in_order(words, method.shingle_words, shingles);
            method.bands(shingles, sketch, &mut bands);
        }
        paragraphs.clear();
        if settings.boilerplate_documents > 0 {
            boilerplate::paragraph_keys(words, paragraphs);
        }
        let mut passages = Vec::new();
        if settings.repeated_passage_words > 0 {
            passages::keys(words, settings.repeated_passage_words, &mut passages);
        }
        Kept {
            digest: digest_of_words(words, &document.text).0,
            words: words.hashes.len() as u32,
            note: Note::default(),
            bands,
            paragraphs: paragraphs.clone(),
            passages,
            origin: 0,
            document,
            language,
        }
    }
}

/// Puts placeholders in the place of personal data in every string of a value, and counts them.
fn redact_strings(value: &mut Value, language: Language, placeholders: &mut BTreeMap<PersonalData, u64>) {
    match value {
        Value::String(text) => redact_string(text, language, placeholders),
        Value::Array(items) => {
            items.iter_mut().for_each(|item| redact_strings(item, language, placeholders));
        }
        Value::Object(fields) => {
            for (mut key, mut field) in std::mem::take(fields) {
                redact_string(&mut key, language, placeholders);
                redact_strings(&mut field, language, placeholders);
                fields.insert(key, field);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn redact_string(text: &mut String, language: Language, placeholders: &mut BTreeMap<PersonalData, u64>) {
    let redaction = personal_data::redact(text, Some(language));
    if redaction.counts.is_empty() {
        return;
    }
    redaction.counts.iter().for_each(|(kind, count)| *placeholders.entry(*kind).or_default() += count);
    *text = redaction.text.into_owned();
}

/// A dropped document as it may be kept: without personal data.
fn redacted(mut document: Document, language: Option<Language>, drop: Drop) -> Examined {
    document.text = personal_data::redact(&document.text, language).text.into_owned();
    Examined::Dropped { document, language, drop }
}
