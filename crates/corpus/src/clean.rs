//! The third phase: paragraphs that stand in many documents go, and passages that stand in an earlier one; each document
//! that changed is judged again by what is left of it. Blocks without such documents are left as they are.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use documents::Document;

use crate::block::{Kept, Note};
use crate::boilerplate::{self, Removal};
use crate::error::Error;
use crate::examine::{Buffers, Examiner};
use crate::holding::Holding;
use crate::passages::{self, Shared};
use crate::reason::{Drop, Reason, Repair};
use crate::team::Team;

/// What is to go from documents, each list in the order of their numbers.
pub struct Changes {
    pub removals: Vec<Removal>,
    pub passages: Vec<Shared>,
}

impl Changes {
    /// Those of the documents from `first` to before `end`.
    fn between(&self, first: u32, end: u32) -> (&[Removal], &[Shared]) {
        let removal =
            |document: u32| self.removals.partition_point(|found| found.document < u64::from(document));
        let passage = |document: u32| self.passages.partition_point(|found| found.document < document);
        (&self.removals[removal(first)..removal(end)], &self.passages[passage(first)..passage(end)])
    }

    /// The documents among them that have something to go.
    fn documents(&self, first: u32, end: u32) -> Vec<u32> {
        let (removals, passages) = self.between(first, end);
        let mut documents: Vec<u32> = removals.iter().map(|found| found.document as u32).collect();
        documents.extend(passages.iter().map(|found| found.document));
        documents.sort_unstable();
        documents.dedup();
        documents
    }
}

/// Makes a block of cleaned documents for every block that has something to clean; the paths of all of them.
pub fn clean(
    examiner: &Examiner,
    holding: &Holding,
    changes: &Changes,
    team: &Team,
) -> Result<Vec<PathBuf>, Error> {
    let folder = team.scratch.join("cleaned");
    team.storage().create_folder(&folder)?;
    let has_changes = |block: &usize| {
        let (removals, passages) = changes.between(holding.starts[*block], holding.starts[*block + 1]);
        !removals.is_empty() || !passages.is_empty()
    };
    let blocks: Vec<usize> = (0..holding.blocks.len()).filter(has_changes).collect();
    let paths: Vec<PathBuf> = blocks.iter().map(|block| folder.join(format!("{block:06}"))).collect();
    team.context.progress.begin("clean", Some(blocks.len() as u64), "blocks");
    team.each(&paths, |piece| {
        clean_block(examiner, holding, blocks[piece], changes, team, &paths[piece])?;
        team.context.progress.advance(1);
        Ok(())
    })?;
    team.context.progress.end();
    Ok(paths)
}

fn clean_block(
    examiner: &Examiner,
    holding: &Holding,
    number: usize,
    changes: &Changes,
    team: &Team,
    path: &Path,
) -> Result<(), Error> {
    let block = &holding.blocks[number];
    let (rows, notes) = (block.rows()?, block.notes()?);
    let mut buffers = Buffers::default();
    let mut cleaned = examiner.empty_block();
    cleaned.cleaned = true;
    for origin in changes.documents(holding.starts[number], holding.starts[number + 1]) {
        let place = origin - holding.starts[number];
        let mut document = block.document(&rows[place as usize])?;
        let before = document.text.clone();
        let mut repairs = change(&mut document, origin, changes, examiner, holding)?;
        if repairs.is_empty() {
            continue;
        }
        let is_empty = document.text.is_empty();
        if is_empty {
            // It is dropped as it was.
            document.text = before;
            repairs.clear();
        }
        let kept = examiner.judged(document, block.language(place), &mut buffers);
        let fault = if is_empty { Some(Drop::new(Reason::OnlyBoilerplate)) } else { kept.note.fault };
        let noted = notes.binary_search_by_key(&place, |note| note.document);
        let mut note = noted.map_or_else(|_| Note::default(), |found| notes[found].clone());
        note.repairs.extend(repairs);
        cleaned.keep(Kept { origin, note: Note { fault, ..note }, ..kept });
    }
    cleaned.commit(team.storage(), &team.aside(), path)
}

/// Takes out of a document what is to go; what was done.
fn change(
    document: &mut Document,
    origin: u32,
    changes: &Changes,
    examiner: &Examiner,
    holding: &Holding,
) -> Result<Vec<Repair>, Error> {
    let (removals, shared) = changes.between(origin, origin + 1);
    let mut repairs = Vec::new();
    let passage_words = examiner.settings.repeated_passage_words;
    if !shared.is_empty()
        && let Some(text) = passages::removed(&document.text, shared, passage_words, |of| holding.text(of))?
    {
        document.text = text;
        repairs.push(Repair::RepeatedPassage);
    }
    if !removals.is_empty() {
        let paragraphs: HashSet<u64> = removals.iter().map(|removal| removal.paragraph).collect();
        document.text = boilerplate::removed(&document.text, &paragraphs);
        repairs.push(Repair::Boilerplate);
    }
    Ok(repairs)
}
