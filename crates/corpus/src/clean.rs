//! The third phase: paragraphs that stand in many documents go, and each document that changed is judged again by what is
//! left of it. Blocks without such documents are left as they are.

use std::collections::HashSet;
use std::path::PathBuf;

use crate::block::{Kept, Note};
use crate::boilerplate::{self, Removal};
use crate::error::Error;
use crate::examine::{Buffers, Examiner};
use crate::holding::Holding;
use crate::reason::{Drop, Reason, Repair};
use crate::team::Team;

/// Makes a block of cleaned documents for every block that has something to clean; the paths of all of them.
pub fn clean(
    examiner: &Examiner,
    holding: &Holding,
    removals: &[Removal],
    team: &Team,
) -> Result<Vec<PathBuf>, Error> {
    let folder = team.scratch.join("cleaned");
    team.storage().create_folder(&folder)?;
    let of_block = |block: usize| {
        let place =
            |document: u32| removals.partition_point(|removal| removal.document < u64::from(document));
        &removals[place(holding.starts[block])..place(holding.starts[block + 1])]
    };
    let blocks: Vec<usize> = (0..holding.blocks.len()).filter(|&block| !of_block(block).is_empty()).collect();
    let paths: Vec<PathBuf> = blocks.iter().map(|block| folder.join(format!("{block:06}"))).collect();
    team.context.progress.begin("clean", Some(blocks.len() as u64), "blocks");
    team.each(&paths, |piece| {
        let block = blocks[piece];
        clean_block(examiner, holding, block, of_block(block), team, &paths[piece])?;
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
    removals: &[Removal],
    team: &Team,
    path: &std::path::Path,
) -> Result<(), Error> {
    let block = &holding.blocks[number];
    let (rows, notes) = (block.rows()?, block.notes()?);
    let mut buffers = Buffers::default();
    let mut cleaned = examiner.empty_block();
    cleaned.cleaned = true;
    for removals in removals.chunk_by(|left, right| left.document == right.document) {
        let origin = removals[0].document as u32;
        let place = origin - holding.starts[number];
        let paragraphs: HashSet<u64> = removals.iter().map(|removal| removal.paragraph).collect();
        let mut document = block.document(&rows[place as usize])?;
        let text = boilerplate::removed(&document.text, &paragraphs);
        let is_empty = text.is_empty();
        if !is_empty {
            document.text = text;
        }
        let language = block.language(place);
        let kept = examiner.judged(document, language, &mut buffers);
        let fault = if is_empty { Some(Drop::new(Reason::OnlyBoilerplate)) } else { kept.note.fault };
        let before = notes.binary_search_by_key(&place, |note| note.document);
        let mut note = before.map_or_else(|_| Note::default(), |found| notes[found].clone());
        if !is_empty {
            note.repairs.push(Repair::Boilerplate);
        }
        cleaned.keep(Kept { origin, note: Note { fault, ..note }, ..kept });
    }
    cleaned.commit(team.storage(), &team.aside(), path)
}
