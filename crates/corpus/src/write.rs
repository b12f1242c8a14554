//! The last phase: `train/<language>.jsonl.zst`, `heldout/<language>.jsonl.zst`, and what was dropped, one file a thread.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use documents::ShardWriter;
use languages::Language;

use crate::block::{Block, dropped_section};
use crate::decide::{Fate, Fates, faults};
use crate::duplicates::Duplicate;
use crate::error::Error;
use crate::examine::Examiner;
use crate::holding::Holding;
use crate::reason::{Drop, Kind, Reason};
use crate::score::as_share;
use crate::scoring::Scores;
use crate::team::Team;

/// A file of the artefact.
#[derive(Debug, Clone, Copy)]
enum Part {
    Shard { fate: Fate, language: Language },
    Dropped(Kind),
}

/// All that is known when everything is decided.
pub struct Decided<'a> {
    pub examiner: &'a Examiner<'a>,
    pub holding: &'a Holding,
    pub fates: &'a Fates,
    pub duplicates: &'a [Duplicate],
    pub scores: &'a Scores,
}

impl Part {
    /// The file's name in the artefact.
    fn name(self) -> PathBuf {
        let (folder, stem) = match self {
            Part::Shard { fate: Fate::HeldOut, language } => ("heldout", language.code()),
            Part::Shard { language, .. } => ("train", language.code()),
            Part::Dropped(kind) => ("dropped", kind.name()),
        };
        Path::new(folder).join(format!("{stem}.jsonl.zst"))
    }
}

/// Writes all files below `written` in the scratch folder; their names.
pub fn write(decided: &Decided, team: &Team) -> Result<Vec<PathBuf>, Error> {
    let mut parts: Vec<Part> = Kind::ALL.into_iter().map(Part::Dropped).collect();
    for &language in &decided.examiner.settings.languages {
        parts.push(Part::Shard { fate: Fate::Train, language });
        parts.push(Part::Shard { fate: Fate::HeldOut, language });
    }
    // The largest first, so that no thread begins it when the others are done.
    parts.sort_by_cached_key(|part| std::cmp::Reverse(decided.work_of(*part)));
    let written = team.scratch.join("written");
    for folder in ["train", "heldout", "dropped"] {
        team.storage().create_folder(&written.join(folder))?;
    }
    let names: Vec<PathBuf> = parts.iter().map(|part| part.name()).collect();
    let paths: Vec<PathBuf> = names.iter().map(|name| written.join(name)).collect();
    team.context.progress.begin("write", Some(decided.holding.len() as u64), "documents");
    team.each(&paths, |piece| decided.write_part(parts[piece], &paths[piece], team))?;
    team.context.progress.end();
    Ok(names)
}

impl Decided<'_> {
    /// About how many bytes go through the hands of who writes this.
    fn work_of(&self, part: Part) -> u64 {
        match part {
            Part::Shard { fate: Fate::Train, language } => {
                let of_block = |block: &Block| {
                    let ranges = block.head.languages.iter().filter(|(found, ..)| *found == language);
                    let documents: u32 = ranges.map(|(_, first, end)| end - first).sum();
                    u64::from(documents) * block.section("texts").1 / u64::from(block.head.documents.max(1))
                };
                self.holding.blocks.iter().map(of_block).sum()
            }
            Part::Shard { .. } => 0,
            Part::Dropped(Kind::Duplicates) => 2048 * self.duplicates.len() as u64,
            Part::Dropped(kind) => {
                self.holding.blocks.iter().map(|block| block.section(&dropped_section(kind)).1).sum()
            }
        }
    }

    fn write_part(&self, part: Part, path: &Path, team: &Team) -> Result<(), Error> {
        let aside = team.aside();
        let mut writer = ShardWriter::create(team.storage(), &aside)?;
        match part {
            Part::Shard { fate, language } => self.write_shard(fate, language, &mut writer, team)?,
            Part::Dropped(kind) => self.write_dropped(kind, &mut writer, team)?,
        }
        writer.finish()?;
        team.storage().rename(&aside, path)?;
        Ok(())
    }

    fn write_shard(
        &self,
        fate: Fate,
        language: Language,
        writer: &mut ShardWriter,
        team: &Team,
    ) -> Result<(), Error> {
        self.write_round(fate, language, 1, writer, team)?;
        let rounds = if fate == Fate::Train { self.fates.most_copies() } else { 1 };
        // Copies come after all that stands once, so that no batch holds a text twice for nothing.
        (2..=rounds).try_for_each(|round| self.write_round(fate, language, round, writer, team))
    }

    /// The documents that stand so often at least, each with its score and the number of the copy.
    fn write_round(
        &self,
        fate: Fate,
        language: Language,
        round: u32,
        writer: &mut ShardWriter,
        team: &Team,
    ) -> Result<(), Error> {
        for (number, block) in self.holding.blocks.iter().enumerate().filter(|(_, block)| !block.is_cleaned())
        {
            let start = self.holding.starts[number];
            let ranges = block.head.languages.iter().filter(|(found, ..)| *found == language);
            for &(_, first, end) in ranges {
                team.context.cancellation.check()?;
                self.write_range((fate, round), block, start, first..end, writer)?;
                if fate == Fate::Train && round == 1 {
                    team.context.progress.advance(u64::from(end - first));
                }
            }
        }
        Ok(())
    }

    /// The documents with this fate, in their order: each from the block, or the cleaned one in its place.
    fn write_range(
        &self,
        (fate, round): (Fate, u32),
        block: &Block,
        start: u32,
        range: std::ops::Range<u32>,
        writer: &mut ShardWriter,
    ) -> Result<(), Error> {
        let documents = start + range.start..start + range.end;
        let stands = |document: u32| self.fates.of(document) == fate && self.fates.copies(document) >= round;
        let concerns = |document: u32| {
            stands(document)
                || self.fates.of(document) == Fate::Elsewhere && self.fates.replacement(document).is_some()
        };
        if !documents.clone().any(concerns) {
            return Ok(());
        }
        let rows = block.rows_between(range.start, range.end)?;
        let text_start = rows[0].line_start;
        let last = rows[rows.len() - 1];
        let text_end = last.line_start + u64::from(last.line_bytes);
        let texts = block.read("texts", text_start, (text_end - text_start) as usize)?;
        for (document, row) in documents.zip(&rows) {
            if stands(document) {
                let line = (row.line_start - text_start) as usize;
                writer.write_line(&self.with_keys(
                    document,
                    round,
                    &texts[line..line + row.line_bytes as usize],
                ))?;
            } else if let Some(cleaned) = self.fates.replacement(document)
                && stands(cleaned)
            {
                writer.write_line(&self.with_keys(cleaned, round, &self.holding.line(cleaned)?))?;
            }
        }
        Ok(())
    }

    /// The line of a document with what the stage has to say of it: `copy` from the second on, and its `score`.
    fn with_keys<'a>(&self, document: u32, round: u32, line: &'a [u8]) -> Cow<'a, [u8]> {
        let score = self.scores.of(document);
        let Some(object) = line.strip_suffix(b"}\n").filter(|_| score.is_some() || round > 1) else {
            return Cow::Borrowed(line);
        };
        let mut longer = object.to_vec();
        if round > 1 {
            longer.extend_from_slice(format!(",\"copy\":{round}").as_bytes());
        }
        if let Some(score) = score {
            longer.extend_from_slice(
                format!(",\"score\":{}", serde_json::Value::from(as_share(score))).as_bytes(),
            );
        }
        longer.extend_from_slice(b"}\n");
        Cow::Owned(longer)
    }

    /// Why a document with this fate was dropped.
    fn drop_of(&self, fate: Fate, document: u32) -> Drop {
        let score = self.scores.of(document).map(as_share);
        if fate == Fate::LowScore {
            let (block, place) = self.holding.place(document);
            let limit = as_share(self.scores.cut(self.holding.blocks[block].language(place)));
            return Drop::measured(Reason::LowScore, score.unwrap_or_default(), limit);
        }
        let drop = Drop::new(Reason::OverBudget);
        score.map_or(drop.clone(), |score| drop.with("score", score))
    }

    /// What was dropped as it was read, then duplicates, then faults, scores and budgets.
    fn write_dropped(&self, kind: Kind, writer: &mut ShardWriter, team: &Team) -> Result<(), Error> {
        let dropped = &self.examiner.dropped;
        for block in &self.holding.blocks {
            team.context.cancellation.check()?;
            let lines = block.read_all(&dropped_section(kind))?;
            for line in lines.split_inclusive(|&byte| byte == b'\n') {
                writer.write_line(line)?;
            }
        }
        let mut write = |document: u32, drop: &Drop| {
            let mut line = dropped.document(self.holding.document(document)?, drop);
            line.push(b'\n');
            writer.write_line(&line)?;
            Ok::<_, Error>(())
        };
        if kind == Kind::Duplicates {
            for (number, duplicate) in self.duplicates.iter().enumerate() {
                if number % 1024 == 0 {
                    team.context.cancellation.check()?;
                }
                let existing = self.holding.blocks[self.holding.place(duplicate.of).0].head.existing;
                let of = self.holding.document(duplicate.of)?.id;
                write(duplicate.document, &duplicate.reason(&of, existing))?;
            }
        }
        let gone: Vec<bool> =
            (0..self.holding.len() as u32).map(|document| self.fates.of(document) != Fate::Faulty).collect();
        for (document, note) in faults(self.holding, &gone)? {
            if let Some(fault) = note.fault.filter(|fault| fault.reason.kind() == kind) {
                write(document, &fault)?;
            }
        }
        for (fate, reason) in [(Fate::LowScore, Reason::LowScore), (Fate::OverBudget, Reason::OverBudget)] {
            if reason.kind() == kind {
                for (number, document) in self.fates.with(fate).enumerate() {
                    if number % 1024 == 0 {
                        team.context.cancellation.check()?;
                    }
                    write(document, &self.drop_of(fate, document))?;
                }
            }
        }
        Ok(())
    }
}
