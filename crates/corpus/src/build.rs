//! The corpus stage from end to end: four phases over the documents, each parallel over documents and written in their
//! order.
//!
//! 1. *Examine*: read; rights, encoding, language, personal data; fingerprints. What passes waits in the holding.
//! 2. *Deduplicate* exactly and nearly.
//! 3. *Clean*: count paragraphs over what is left, take boilerplate out, judge quality; deduplicate again, because texts
//!    changed.
//! 4. *Split* and write.
//!
//! Personal data go before anything is written anywhere, so that neither scratch nor `dropped/` ever holds them.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use documents::{Document, InputDigest, RawReader, RawRecord, ReadOptions};
use languages::Language;
use personal_data::PersonalData;
use provenance::{Context, Digest, StageOutput};
use rayon::prelude::*;

use crate::boilerplate::{Boilerplate, ParagraphCounts, paragraph_keys};
use crate::duplicates::{self, Duplicate};
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::heldout;
use crate::holding::{Holding, HoldingWriter};
use crate::quality;
use crate::reason::{Drop, Reason, Repair, rounded};
use crate::rights::Rights;
use crate::settings::{DamagedInput, Settings, SmallLanguage, TextUnit};
use crate::statistics::Statistics;
use crate::writers::{DroppedWriter, PartWriter};
use crate::{encoding, label};

/// What the stage reports, and what the manifest's content holds: the same as `statistics.json`.
pub type Report = Statistics;

/// Documents of one batch: enough to keep threads busy, little beside the memory of any machine.
const BATCH_DOCUMENTS: usize = 2048;
const BATCH_BYTES: usize = 32 << 20;

/// The digests of everything that decides the artefact besides the settings: the input files, and the opt-out ledger.
pub fn digest_inputs(settings: &Settings, inputs: &[PathBuf]) -> Result<Vec<InputDigest>, Error> {
    let mut digests = documents::digest_inputs(inputs)?;
    if let Some(path) = &settings.opt_outs {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let sha256 = provenance::digest::sha256(&bytes);
        digests.push(InputDigest { name: "opt-outs".to_string(), bytes: bytes.len() as u64, sha256 });
    }
    Ok(digests)
}

/// Makes the corpus of these inputs (files or folders) in `output.payload`.
pub fn build(
    settings: &Settings,
    inputs: &[PathBuf],
    output: &StageOutput,
    context: &Context,
) -> Result<Report, Error> {
    settings.check()?;
    let rights = Rights::new(settings)?;
    let text_unit = match settings.text_unit {
        TextUnit::File => documents::TextUnit::File,
        TextUnit::Paragraph => documents::TextUnit::Paragraph,
    };
    let options =
        ReadOptions { record_limit_bytes: settings.record_limit_bytes, text_unit, ..ReadOptions::default() };
    let reader = documents::read_raw(inputs, options)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(context.threads)
        .build()
        .map_err(|error| Error::Threads { threads: context.threads, detail: error.to_string() })?;
    let mut stage = Stage {
        settings,
        output,
        context,
        dropped: DroppedWriter::create(&context.storage, &output.payload, settings.seed)?,
        statistics: Statistics::new(&settings.languages),
        damaged_files: AtomicU64::new(0),
        first_unreadable: None,
    };
    let done = pool.install(|| {
        let examined = stage.examine(&rights, reader)?;
        let unique = stage.deduplicate(examined, "find duplicates")?;
        let clean = stage.clean(unique)?;
        let unique = stage.deduplicate(clean, "find duplicates again")?;
        stage.split(unique)
    });
    if let Some(bad) = &stage.first_unreadable {
        let count = stage.statistics.total.dropped.get(&Reason::Unreadable).copied().unwrap_or(0);
        let warning = format!("{count} records are unreadable and were dropped, the first: {bad}");
        context.progress.warn(&warning);
    }
    done?;
    stage.statistics.damaged_files = stage.damaged_files.into_inner();
    stage.dropped.finish()?;
    let mut json = serde_json::to_vec_pretty(&stage.statistics).expect("counts always serialise");
    json.push(b'\n');
    context.storage.write(&output.payload.join("statistics.json"), &json)?;
    Ok(stage.statistics)
}

struct Stage<'a> {
    settings: &'a Settings,
    output: &'a StageOutput,
    context: &'a Context,
    dropped: DroppedWriter,
    statistics: Statistics,
    /// Counted while batches are read, beside the threads that examine.
    damaged_files: AtomicU64,
    /// The place that a person looks at first.
    first_unreadable: Option<documents::BadRecord>,
}

/// Documents between two phases: texts in the holding, what is needed of each in memory.
struct Held {
    holding: Holding,
    entries: Vec<Entry>,
}

/// A document that is still in, under its number in the holding.
struct Entry {
    index: usize,
    id: String,
    date: Option<String>,
    text_bytes: usize,
    language: Language,
    fingerprint: Fingerprint,
    repairs: HashSet<Repair>,
    placeholders: BTreeMap<PersonalData, u64>,
}

/// What became of a record in the first phase.
enum Examined {
    Kept(Box<(Document, Entry)>),
    Dropped { document: Document, language: Option<Language>, drop: Drop },
    Traceless { language: Option<Language>, reason: Reason, date: Option<String>, digest: Digest },
    Unreadable(documents::BadRecord),
}

impl Stage<'_> {
    fn examine(&mut self, rights: &Rights, mut reader: RawReader) -> Result<Held, Error> {
        let progress = &self.context.progress;
        progress.begin("examine", None, "documents");
        let mut writer = HoldingWriter::create(&self.context.storage, &self.output.scratch.join("examined"))?;
        let mut entries = Vec::new();
        let mut records = 0u64;
        let mut batch = self.next_batch(&mut reader)?;
        while !batch.is_empty() {
            self.context.cancellation.check()?;
            let read = batch.len() as u64;
            let this = &*self;
            // The next batch is read while this one is examined.
            let (examined, next) = rayon::join(
                || batch.into_par_iter().map(|raw| this.examine_one(rights, raw)).collect::<Vec<_>>(),
                || this.next_batch(&mut reader),
            );
            for outcome in examined {
                self.record(outcome, &mut writer, &mut entries)?;
            }
            records += read;
            self.context.progress.advance(read);
            batch = next?;
        }
        self.context.progress.end();
        if records == 0 {
            return Err(Error::NoDocuments);
        }
        Ok(Held { holding: writer.finish()?, entries })
    }

    /// The next records; none at the end of the input.
    fn next_batch(&self, reader: &mut RawReader) -> Result<Vec<RawRecord>, Error> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_DOCUMENTS && bytes < BATCH_BYTES {
            match reader.next() {
                None => break,
                Some(Ok(raw)) => {
                    bytes += raw.len_bytes();
                    batch.push(raw);
                }
                Some(Err(error)) if error.is_damage() => match self.settings.damaged_input {
                    DamagedInput::Stop => return Err(Error::DamagedInput(error)),
                    DamagedInput::Skip => {
                        self.damaged_files.fetch_add(1, Ordering::Relaxed);
                        self.context.progress.warn(&format!("{error}; the rest of it is skipped"));
                    }
                },
                Some(Err(error)) => return Err(error.into()),
            }
        }
        Ok(batch)
    }

    /// Rights, encoding, language, personal data: all that a document decides by itself.
    fn examine_one(&self, rights: &Rights, raw: RawRecord) -> Examined {
        let mut document = match raw.parse().document {
            Ok(document) => document,
            Err(bad) => return Examined::Unreadable(bad),
        };
        let labelled = document.language.as_deref().and_then(|label| Language::from_code(label).ok());
        if let Some(fault) = rights.check(&document) {
            let digest = self.dropped.digest(&document.text);
            return Examined::Traceless {
                language: labelled,
                reason: fault.drop.reason,
                date: fault.date,
                digest,
            };
        }
        if document.license.is_none() {
            document.license = Some(self.settings.default_license.clone());
        }
        // Keys that no step reads may hold anything: they end here.
        document.metadata.clear();
        let repaired = match encoding::repair(&document.text) {
            Ok(repaired) => repaired,
            Err(drop) => return redacted(document, labelled, drop),
        };
        let original = std::mem::replace(&mut document.text, repaired.text);
        let mut repairs: HashSet<Repair> = repaired.repairs.into_iter().collect();
        let label = match label::decide(document.language.as_deref(), &document.text, self.settings) {
            Ok(label) => label,
            Err(drop) => return redacted(document, labelled, drop),
        };
        if label.relabelled {
            repairs.insert(Repair::Relabelled);
        }
        document.language = Some(label.language.to_string());
        let redaction = personal_data::redact(&document.text, Some(label.language));
        let placeholders = redaction.counts;
        let found: u64 = placeholders.values().sum();
        if found > 0 {
            let words = redaction.text.split_whitespace().count();
            document.text = redaction.text.into_owned();
            repairs.insert(Repair::PersonalData);
            if found as f64 > self.settings.maximum_personal_data_share * words as f64 {
                return Examined::Traceless {
                    language: Some(label.language),
                    reason: Reason::MostlyPersonalData,
                    date: document.date,
                    digest: self.dropped.digest(&original),
                };
            }
        }
        let entry = Entry {
            index: 0,
            id: document.id.clone(),
            date: document.date.clone(),
            text_bytes: document.text.len(),
            language: label.language,
            fingerprint: Fingerprint::of(&document.text),
            repairs,
            placeholders,
        };
        Examined::Kept(Box::new((document, entry)))
    }

    fn record(
        &mut self,
        outcome: Examined,
        writer: &mut HoldingWriter,
        entries: &mut Vec<Entry>,
    ) -> Result<(), Error> {
        match outcome {
            Examined::Kept(kept) => {
                let (document, entry) = *kept;
                writer.push(&document)?;
                entries.push(Entry { index: entries.len(), ..entry });
            }
            Examined::Dropped { document, language, drop } => self.drop(&document, language, &drop)?,
            Examined::Traceless { language, reason, date, digest } => {
                self.statistics.count_dropped(language, reason);
                self.dropped.write_traceless(reason, date.as_deref(), digest)?;
            }
            Examined::Unreadable(bad) => {
                self.statistics.count_dropped(None, Reason::Unreadable);
                self.dropped.write_unreadable(&bad)?;
                self.first_unreadable.get_or_insert(bad);
            }
        }
        Ok(())
    }

    fn drop(&mut self, document: &Document, language: Option<Language>, drop: &Drop) -> Result<(), Error> {
        self.statistics.count_dropped(language, drop.reason);
        self.dropped.write_document(document, drop)
    }

    fn deduplicate(&mut self, held: Held, task: &str) -> Result<Held, Error> {
        self.context.cancellation.check()?;
        self.context.progress.begin(task, Some(held.entries.len() as u64), "documents");
        let Held { holding, entries } = held;
        let candidates: Vec<duplicates::Candidate> = entries
            .iter()
            .map(|entry| duplicates::Candidate {
                fingerprint: &entry.fingerprint,
                date: entry.date.as_deref(),
                text_bytes: entry.text_bytes,
                id: &entry.id,
            })
            .collect();
        let text_of = |place: usize| Ok(holding.get(entries[place].index)?.text);
        let found = duplicates::find(&candidates, self.settings.near_duplicate_similarity, text_of)?;
        for (entry, duplicate) in entries.iter().zip(&found) {
            if let Some(duplicate) = duplicate {
                let drop = duplicate_drop(duplicate, &entries[duplicate.of].id);
                self.drop(&holding.get(entry.index)?, Some(entry.language), &drop)?;
            }
        }
        let total = entries.len() as u64;
        let kept = entries.into_iter().zip(found).filter(|(_, duplicate)| duplicate.is_none());
        let entries = kept.map(|(entry, _)| entry).collect();
        self.context.progress.advance(total);
        self.context.progress.end();
        Ok(Held { holding, entries })
    }

    /// Boilerplate out, then quality; what passes waits in a second holding.
    fn clean(&mut self, held: Held) -> Result<Held, Error> {
        self.context.progress.begin("clean", Some(held.entries.len() as u64), "documents");
        let mut counts = ParagraphCounts::default();
        for batch in held.entries.chunks(BATCH_DOCUMENTS) {
            self.context.cancellation.check()?;
            let keys: Result<Vec<_>, Error> = batch
                .par_iter()
                .map(|entry| Ok(paragraph_keys(&held.holding.get(entry.index)?.text)))
                .collect();
            keys?.into_iter().for_each(|keys| counts.add(keys));
        }
        let boilerplate = counts.boilerplate(self.settings.boilerplate_documents);

        let mut writer = HoldingWriter::create(&self.context.storage, &self.output.scratch.join("cleaned"))?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut waiting = held.entries.into_iter();
        loop {
            let batch: Vec<Entry> = waiting.by_ref().take(BATCH_DOCUMENTS).collect();
            if batch.is_empty() {
                break;
            }
            self.context.cancellation.check()?;
            let advanced = batch.len() as u64;
            let maximum_list_line_share = self.settings.maximum_list_line_share;
            let cleaned: Result<Vec<_>, Error> = batch
                .into_par_iter()
                .map(|entry| {
                    let document = held.holding.get(entry.index)?;
                    Ok(clean_one(document, entry, &boilerplate, maximum_list_line_share))
                })
                .collect();
            for (document, entry, drop) in cleaned? {
                match drop {
                    Some(drop) => self.drop(&document, Some(entry.language), &drop)?,
                    None => {
                        writer.push(&document)?;
                        entries.push(Entry { index: entries.len(), ..entry });
                    }
                }
            }
            self.context.progress.advance(advanced);
        }
        self.context.progress.end();
        Ok(Held { holding: writer.finish()?, entries })
    }

    fn split(&mut self, held: Held) -> Result<(), Error> {
        self.context.progress.begin("write", Some(held.entries.len() as u64), "documents");
        if held.entries.is_empty() {
            let reasons = self.statistics.total.dropped.iter().map(|(reason, count)| {
                let reason = serde_json::to_string(reason).unwrap_or_default();
                format!("{} {count}", reason.trim_matches('"'))
            });
            let mut reasons = reasons.collect::<Vec<_>>().join(", ");
            if let Some(bad) = &self.first_unreadable {
                reasons = format!("{reasons} (the first: {bad})");
            }
            return Err(Error::NothingKept { reasons });
        }
        let is_held_out = self.choose_heldout(&held)?;
        let parts = ["train", "heldout"];
        let languages = self.settings.languages.iter().map(|language| language.code());
        let files = languages.flat_map(|language| parts.map(|part| (part, language)));
        let mut writer = PartWriter::create(&self.context.storage, &self.output.payload, files)?;
        for (entry, is_held_out) in held.entries.iter().zip(is_held_out) {
            let document = held.holding.get(entry.index)?;
            writer.write(parts[usize::from(is_held_out)], entry.language.code(), &document)?;
            self.statistics.count_kept(
                entry.language,
                &document,
                is_held_out,
                &entry.repairs,
                &entry.placeholders,
            );
            self.context.progress.advance(1);
        }
        writer.finish()?;
        self.context.progress.end();
        Ok(())
    }

    /// For each document whether it is held out; an error that names every language with too little text.
    fn choose_heldout(&self, held: &Held) -> Result<Vec<bool>, Error> {
        let settings = self.settings;
        let mut is_held_out = vec![false; held.entries.len()];
        let mut small = Vec::new();
        for language in &settings.languages {
            let places: Vec<usize> =
                (0..held.entries.len()).filter(|place| held.entries[*place].language == *language).collect();
            let candidates: Vec<heldout::Candidate> = places
                .iter()
                .map(|place| &held.entries[*place])
                .map(|entry| heldout::Candidate {
                    digest: entry.fingerprint.digest,
                    text_bytes: entry.text_bytes as u64,
                })
                .collect();
            match heldout::split(
                &candidates,
                settings.heldout_documents,
                settings.heldout_bytes,
                settings.seed,
            ) {
                Some(chosen) => {
                    places.iter().zip(chosen).for_each(|(place, chosen)| is_held_out[*place] = chosen)
                }
                None => {
                    let bytes: u64 = candidates.iter().map(|candidate| candidate.text_bytes).sum();
                    let documents = candidates.len();
                    small.push(format!("`{language}` ({documents} documents, {bytes} bytes kept)"));
                }
            }
        }
        if small.is_empty() || settings.small_language == SmallLanguage::TrainOnly {
            return Ok(is_held_out);
        }
        let (documents, bytes) = (settings.heldout_documents, settings.heldout_bytes);
        Err(Error::SmallLanguages { documents, bytes, found: small.join(", ") })
    }
}

/// A dropped document as it may be kept: without personal data.
fn redacted(mut document: Document, language: Option<Language>, drop: Drop) -> Examined {
    document.text = personal_data::redact(&document.text, language).text.into_owned();
    Examined::Dropped { document, language, drop }
}

fn duplicate_drop(duplicate: &Duplicate, of: &str) -> Drop {
    match duplicate.is_exact {
        true => Drop::new(Reason::ExactDuplicate).with("of", of),
        false => {
            Drop::new(Reason::NearDuplicate).with("of", of).with("similarity", rounded(duplicate.similarity))
        }
    }
}

fn clean_one(
    mut document: Document,
    mut entry: Entry,
    boilerplate: &Boilerplate,
    maximum_list_line_share: f64,
) -> (Document, Entry, Option<Drop>) {
    let cleaned = boilerplate.removed_from(&document.text);
    if cleaned.as_ref().is_some_and(String::is_empty) {
        return (document, entry, Some(Drop::new(Reason::OnlyBoilerplate)));
    }
    if let Some(cleaned) = cleaned {
        document.text = cleaned;
        entry.repairs.insert(Repair::Boilerplate);
        entry.text_bytes = document.text.len();
        entry.fingerprint = Fingerprint::of(&document.text);
    }
    let drop = quality::fault(&document.text, entry.language, maximum_list_line_share);
    (document, entry, drop)
}
