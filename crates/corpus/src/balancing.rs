//! Balance among the documents of a holding: who is a candidate, what becomes of each, and the counts before and after.

use std::collections::HashMap;

use languages::{LANGUAGE_COUNT, Language};

use crate::balance::{self, BalanceStatistics, Candidate};
use crate::decide::Fate;
use crate::error::Error;
use crate::holding::Holding;
use crate::reason::Reason;
use crate::scoring::Scores;
use crate::settings::Settings;
use crate::statistics::{NO_NAME, PartStatistics, Statistics};

/// Takes what is over budget out of the training part; how often each document stands that stands more than once.
pub fn balance(
    holding: &Holding,
    scores: &Scores,
    bytes: &mut [u8],
    settings: &Settings,
    statistics: &mut Statistics,
) -> Result<HashMap<u32, u32>, Error> {
    let (documents, candidates, sources) = candidates(holding, scores, bytes, settings)?;
    let copies = balance::balance(&settings.balance, &candidates, &sources);
    let mut repeated = HashMap::new();
    let mut left = [0u64; LANGUAGE_COUNT];
    for ((&document, candidate), &copies) in documents.iter().zip(&candidates).zip(&copies) {
        left[candidate.language.index()] += u64::from(copies);
        match copies {
            0 => {
                bytes[document as usize] = Fate::OverBudget as u8;
                statistics.count_dropped(Some(candidate.language), Reason::OverBudget, 1);
            }
            1 => {}
            copies => {
                repeated.insert(document, u32::from(copies));
            }
        }
    }
    let mut had = [false; LANGUAGE_COUNT];
    candidates.iter().for_each(|candidate| had[candidate.language.index()] = true);
    let empty = Language::all().filter(|language| had[language.index()] && left[language.index()] == 0);
    let empty: Vec<String> = empty.map(|language| format!("`{language}`")).collect();
    if !empty.is_empty() {
        return Err(Error::NothingInBudget { languages: empty.join(", ") });
    }
    count(holding, bytes, &repeated, statistics)?;
    Ok(repeated)
}

type Candidates = (Vec<u32>, Vec<Candidate>, Vec<Option<String>>);

/// The documents of the training part, each with what the balance asks of it; and the names of all sources.
fn candidates(
    holding: &Holding,
    scores: &Scores,
    bytes: &[u8],
    settings: &Settings,
) -> Result<Candidates, Error> {
    let (mut documents, mut candidates) = (Vec::new(), Vec::new());
    let (mut sources, mut places): (Vec<Option<String>>, HashMap<Option<String>, u32>) = Default::default();
    for (number, block) in holding.blocks.iter().enumerate() {
        let of_block: Vec<u32> = block
            .head
            .sources
            .iter()
            .map(|name| {
                *places.entry(name.clone()).or_insert_with(|| {
                    sources.push(name.clone());
                    sources.len() as u32 - 1
                })
            })
            .collect();
        for (place, row) in block.rows()?.iter().enumerate() {
            let document = holding.starts[number] + place as u32;
            if bytes[document as usize] != Fate::Train as u8 {
                continue;
            }
            documents.push(document);
            candidates.push(Candidate {
                language: block.language(place as u32),
                source: of_block[row.source as usize],
                size: settings.balance.size(row.text_bytes.into(), row.words.into()),
                key: balance::key_of(settings.seed, &row.digest),
                score: scores.of(document).unwrap_or(0),
                id_hash: row.id_hash,
            });
        }
    }
    Ok((documents, candidates, sources))
}

fn count(
    holding: &Holding,
    bytes: &[u8],
    repeated: &HashMap<u32, u32>,
    statistics: &mut Statistics,
) -> Result<(), Error> {
    for (number, block) in holding.blocks.iter().enumerate() {
        for (document, row) in (holding.starts[number]..).zip(block.rows()?) {
            let fate = bytes[document as usize];
            if fate != Fate::Train as u8 && fate != Fate::OverBudget as u8 {
                continue;
            }
            let copies = match fate == Fate::Train as u8 {
                true => u64::from(repeated.get(&document).copied().unwrap_or(1)),
                false => 0,
            };
            let language = block.language(document - holding.starts[number]);
            let counts = statistics.balance.entry(language.to_string()).or_default();
            add(
                counts,
                copies,
                &block.head.sources[row.source as usize],
                PartStatistics {
                    documents: 1,
                    bytes: row.text_bytes.into(),
                    characters: row.characters.into(),
                    words: row.words.into(),
                },
            );
        }
    }
    Ok(())
}

fn add(counts: &mut BalanceStatistics, copies: u64, source: &Option<String>, size: PartStatistics) {
    counts.before.add(size);
    counts.after.add(PartStatistics {
        documents: copies * size.documents,
        bytes: copies * size.bytes,
        characters: copies * size.characters,
        words: copies * size.words,
    });
    counts.over_budget += u64::from(copies == 0);
    counts.repeated += u64::from(copies > 1);
    let source = source.as_deref().unwrap_or(NO_NAME);
    let (before, after) = counts.sources.entry(source.to_string()).or_default();
    *before += size.bytes;
    *after += copies * size.bytes;
}
