//! The fourth phase: the fate of every document, the held-out part of each language, and the counts of it all.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use languages::Language;
use rayon::prelude::*;

use crate::balancing;
use crate::block::{Note, collect};
use crate::duplicates::Duplicate;
use crate::error::Error;
use crate::heldout::Selection;
use crate::holding::Holding;
use crate::reason::Reason;
use crate::scoring::Scores;
use crate::settings::{Settings, SmallLanguage};
use crate::statistics::{PartStatistics, Statistics};

/// What becomes of a document: a byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fate {
    /// A cleaned document stands in its place, or it belongs to an earlier corpus.
    Elsewhere,
    Duplicate,
    /// Dropped for the fault that its note names.
    Faulty,
    /// Dropped for its score.
    LowScore,
    OverBudget,
    Train,
    HeldOut,
}

impl Fate {
    fn of(byte: u8) -> Fate {
        use Fate::*;
        [Elsewhere, Duplicate, Faulty, LowScore, OverBudget, Train, HeldOut][usize::from(byte).min(6)]
    }
}

/// The fates of all documents of a holding.
pub struct Fates {
    bytes: Vec<u8>,
    /// The cleaned document that stands in another's place.
    replaced: HashMap<u32, u32>,
    /// How often a document stands in the training part, where that is more than once.
    copies: HashMap<u32, u32>,
}

/// Which documents are still in when duplicates and faults are out.
pub struct Standing {
    bytes: Vec<u8>,
    replaced: HashMap<u32, u32>,
    faults: Vec<(u32, Note)>,
}

/// All that fates are decided by.
pub struct Judged<'a> {
    pub holding: &'a Holding,
    pub duplicates: &'a [Duplicate],
    pub standing: Standing,
    pub scores: &'a Scores,
}

impl Standing {
    pub fn of(holding: &Holding, duplicates: &[Duplicate]) -> Result<Standing, Error> {
        let replaced = replacements(holding)?;
        let mut bytes = vec![Fate::Train as u8; holding.len()];
        for (block, starts) in holding.blocks.iter().zip(holding.starts.windows(2)) {
            if block.head.existing {
                bytes[starts[0] as usize..starts[1] as usize].fill(Fate::Elsewhere as u8);
            }
        }
        replaced.keys().for_each(|&document| bytes[document as usize] = Fate::Elsewhere as u8);
        duplicates.iter().for_each(|duplicate| bytes[duplicate.document as usize] = Fate::Duplicate as u8);
        let gone: Vec<bool> = bytes.iter().map(|&byte| byte != Fate::Train as u8).collect();
        let faults = faults(holding, &gone)?;
        faults.iter().for_each(|(document, _)| bytes[*document as usize] = Fate::Faulty as u8);
        Ok(Standing { bytes, replaced, faults })
    }

    pub fn is_in(&self, document: u32) -> bool {
        self.bytes[document as usize] == Fate::Train as u8
    }
}

impl Fates {
    pub fn of(&self, document: u32) -> Fate {
        Fate::of(self.bytes[document as usize])
    }

    pub fn replacement(&self, document: u32) -> Option<u32> {
        self.replaced.get(&document).copied()
    }

    /// How often a document of the training part stands there.
    pub fn copies(&self, document: u32) -> u32 {
        self.copies.get(&document).copied().unwrap_or(1)
    }

    pub fn most_copies(&self) -> u32 {
        self.copies.values().copied().max().unwrap_or(1)
    }

    /// The documents with this fate.
    pub fn with(&self, fate: Fate) -> impl Iterator<Item = u32> {
        (0..).zip(&self.bytes).filter(move |(_, byte)| **byte == fate as u8).map(|(document, _)| document)
    }

    /// A byte for each document, then the copies: pairs of a document and how often it stands.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut copies: Vec<[u32; 2]> =
            self.copies.iter().map(|(document, copies)| [*document, *copies]).collect();
        copies.sort_unstable();
        [&self.bytes, bytemuck::cast_slice::<[u32; 2], u8>(&copies)].concat()
    }

    /// Reads the bytes that a process wrote down.
    pub fn read(path: &Path, holding: &Holding) -> Result<Fates, Error> {
        let mut bytes =
            std::fs::read(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
        if bytes.len() < holding.len() || !(bytes.len() - holding.len()).is_multiple_of(size_of::<[u32; 2]>())
        {
            return Err(Error::BadBlock { path: path.to_path_buf() });
        }
        let copies: Vec<[u32; 2]> = collect(&bytes.split_off(holding.len()));
        let copies = copies.into_iter().map(|[document, copies]| (document, copies)).collect();
        Ok(Fates { bytes, replaced: replacements(holding)?, copies })
    }
}

/// Which document a cleaned one takes the place of, by the number of the former.
pub fn replacements(holding: &Holding) -> Result<HashMap<u32, u32>, Error> {
    let mut replaced = HashMap::new();
    for (number, block) in holding.blocks.iter().enumerate() {
        for (place, origin) in (0..).zip(block.origins()?) {
            replaced.insert(origin, holding.starts[number] + place);
        }
    }
    Ok(replaced)
}

/// The faults of documents that are not `gone`, with their numbers.
pub fn faults(holding: &Holding, gone: &[bool]) -> Result<Vec<(u32, Note)>, Error> {
    let found: Vec<Vec<(u32, Note)>> = (0..holding.blocks.len())
        .into_par_iter()
        .map(|number| {
            let notes = holding.blocks[number].notes()?.into_iter();
            let notes = notes.map(|note| (holding.starts[number] + note.document, note));
            Ok(notes.filter(|(document, note)| note.fault.is_some() && !gone[*document as usize]).collect())
        })
        .collect::<Result<_, Error>>()?;
    Ok(found.into_iter().flatten().collect())
}

/// Decides about every document and counts. `damaged_files` is only counted.
pub fn decide(
    judged: &Judged,
    settings: &Settings,
    damaged_files: u64,
) -> Result<(Fates, Statistics), Error> {
    let Judged { holding, duplicates, standing, scores } = judged;
    let mut bytes = standing.bytes.clone();
    let mut statistics = Statistics::new(&settings.languages);
    statistics.damaged_files = damaged_files;
    for block in holding.blocks.iter().filter(|block| !block.head.existing) {
        for &(language, reason, count) in &block.head.dropped {
            statistics.count_dropped(language, reason, count);
        }
        for &(language, reason, bytes) in &block.head.lost {
            statistics.count_lost(language, reason, bytes);
        }
    }
    for duplicate in *duplicates {
        let (block, place) = holding.place(duplicate.document);
        let existing = holding.blocks[holding.place(duplicate.of).0].head.existing;
        let reason = duplicate.reason("", existing).reason;
        statistics.count_dropped(Some(holding.blocks[block].language(place)), reason, 1);
    }
    for (document, note) in &standing.faults {
        let (block, place) = holding.place(*document);
        if let Some(fault) = &note.fault {
            statistics.count_dropped(Some(holding.blocks[block].language(place)), fault.reason, 1);
        }
    }
    drop_low_scores(holding, scores, &mut bytes, &mut statistics);
    statistics.scores.clone_from(&scores.statistics);
    if !bytes.contains(&(Fate::Train as u8)) {
        return Err(nothing_kept(&statistics, holding));
    }
    for document in hold_out(holding, &bytes, settings)? {
        bytes[document as usize] = Fate::HeldOut as u8;
    }
    let copies = match settings.balance.is_on() {
        true => balancing::balance(holding, scores, &mut bytes, settings, &mut statistics)?,
        false => HashMap::new(),
    };
    count_kept(holding, &bytes, &mut statistics)?;
    Ok((Fates { bytes, replaced: standing.replaced.clone(), copies }, statistics))
}

fn drop_low_scores(holding: &Holding, scores: &Scores, bytes: &mut [u8], statistics: &mut Statistics) {
    for (block, starts) in holding.blocks.iter().zip(holding.starts.windows(2)) {
        for &(language, first, end) in &block.head.languages {
            for document in starts[0] + first..starts[0] + end {
                let byte = &mut bytes[document as usize];
                if *byte == Fate::Train as u8 && scores.is_too_low(document, language) {
                    *byte = Fate::LowScore as u8;
                    statistics.count_dropped(Some(language), Reason::LowScore, 1);
                }
            }
        }
    }
}

fn nothing_kept(statistics: &Statistics, holding: &Holding) -> Error {
    let reasons = statistics.total.dropped.iter().map(|(reason, count)| {
        let reason = serde_json::to_string(reason).unwrap_or_default();
        format!("{} {count}", reason.trim_matches('"'))
    });
    let mut reasons = reasons.collect::<Vec<_>>().join(", ");
    if let Some(bad) = first_unreadable(holding) {
        reasons = format!("{reasons} (the first: {bad})");
    }
    Error::NothingKept { reasons }
}

/// The place that a person looks at first.
pub fn first_unreadable(holding: &Holding) -> Option<&str> {
    holding.blocks.iter().find_map(|block| block.head.first_unreadable.as_deref())
}

/// The documents to hold out; an error that names every language with too little text.
fn hold_out(holding: &Holding, bytes: &[u8], settings: &Settings) -> Result<Vec<u32>, Error> {
    let new = || Selection::new(settings.heldout_documents, settings.heldout_bytes);
    let mut selections: BTreeMap<Language, Selection> =
        settings.languages.iter().map(|&language| (language, new())).collect();
    // A digest for each document: by all threads, some blocks at a time, shown in the order of documents.
    let numbers: Vec<usize> = (0..holding.blocks.len()).collect();
    for numbers in numbers.chunks(64) {
        let rows = numbers.par_iter().map(|&number| {
            let block = &holding.blocks[number];
            let rows = (holding.starts[number]..).zip(block.rows()?);
            let kept = rows.filter(|(document, _)| bytes[*document as usize] == Fate::Train as u8);
            let digests = kept.map(|(document, row)| {
                let digest = Selection::digest(settings.seed, &row.digest);
                (document, usize::from(row.language), digest, u64::from(row.text_bytes))
            });
            Ok::<_, Error>(digests.collect::<Vec<_>>())
        });
        let languages: Vec<Language> = Language::all().collect();
        for (document, language, digest, text_bytes) in rows.collect::<Result<Vec<_>, _>>()?.concat() {
            if let Some(selection) = selections.get_mut(&languages[language]) {
                selection.show(document, digest, text_bytes);
            }
        }
    }
    let (mut held_out, mut small) = (Vec::new(), Vec::new());
    for (language, selection) in selections {
        let (documents, bytes) = (selection.shown(), selection.shown_bytes);
        match selection.finish() {
            Some(chosen) => held_out.extend(chosen),
            None => small.push(format!("`{language}` ({documents} documents, {bytes} bytes kept)")),
        }
    }
    if small.is_empty() || settings.small_language == SmallLanguage::TrainOnly {
        return Ok(held_out);
    }
    let (documents, bytes) = (settings.heldout_documents, settings.heldout_bytes);
    Err(Error::SmallLanguages { documents, bytes, found: small.join(", ") })
}

fn count_kept(holding: &Holding, bytes: &[u8], statistics: &mut Statistics) -> Result<(), Error> {
    let is_kept = |document: u32| bytes[document as usize] >= Fate::Train as u8;
    for (number, block) in holding.blocks.iter().enumerate() {
        let start = holding.starts[number];
        for &(language, first, end) in &block.head.languages {
            // Few combinations of source and licence: one sum for each.
            let mut sums: BTreeMap<(bool, u32, u32), PartStatistics> = BTreeMap::new();
            for (document, row) in (start + first..).zip(block.rows_between(first, end)?) {
                if is_kept(document) {
                    let held_out = bytes[document as usize] == Fate::HeldOut as u8;
                    sums.entry((held_out, row.source, row.license)).or_default().add(PartStatistics {
                        documents: 1,
                        bytes: row.text_bytes.into(),
                        characters: row.characters.into(),
                        words: row.words.into(),
                    });
                }
            }
            for ((held_out, source, license), sum) in sums {
                let (source, license) =
                    (&block.head.sources[source as usize], &block.head.licenses[license as usize]);
                statistics.count_kept(language, sum, held_out, source, license);
            }
        }
        for note in block.notes()?.iter().filter(|note| is_kept(start + note.document)) {
            statistics.count_note(block.language(note.document), &note.repairs, &note.placeholders);
        }
    }
    Ok(())
}
