//! Which documents say again what another one says: exactly (the same words) or nearly (shingles at or above a Jaccard
//! similarity).
//!
//! Of each group the document stays that was published first, then the longest, then the one with the lowest digest and
//! id: a choice that does not depend on the order of files; documents of an earlier corpus come before all others. Those
//! that share a band form a bucket, found by an external sort (`runs`). Documents are gone through in the order of that
//! preference, and each is compared with the first of each of its buckets that stays: a text that stands on a million
//! pages costs a million comparisons and not their square, whatever is dropped is similar to one that stays, so that chains
//! do not creep, and deduplicating the result again drops nothing.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use crate::block::{self, DATE_BYTES};
use crate::error::Error;
use crate::fingerprint::{Sketch, jaccard, shingles};
use crate::holding::Holding;
use crate::reason::{Drop, Reason, rounded};
use crate::runs::{self, Entry};
use crate::settings::Settings;

/// A document to drop: which one it repeats, and how similar the two are (1 for the same words).
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Duplicate {
    pub similarity: f64,
    pub document: u32,
    pub of: u32,
    pub is_exact: u32,
    pub padding: u32,
}

impl Duplicate {
    fn new(document: u32, of: u32, similarity: f64, is_exact: bool) -> Duplicate {
        Duplicate { similarity, document, of, is_exact: u32::from(is_exact), padding: 0 }
    }

    /// What is written down of it; `of` is the id of the document that stays, `existing` whether it is an earlier corpus's.
    pub fn reason(&self, of: &str, existing: bool) -> Drop {
        let reason = match (existing, self.is_exact > 0) {
            (true, _) => Reason::InExistingCorpus,
            (false, true) => Reason::ExactDuplicate,
            (false, false) => Reason::NearDuplicate,
        };
        let drop = Drop::new(reason).with("of", of);
        if self.is_exact > 0 { drop } else { drop.with("similarity", rounded(self.similarity)) }
    }
}

/// The duplicates among the documents that are not `gone`, in the order of their numbers.
pub fn find(holding: &Holding, gone: &[bool], settings: &Settings) -> Result<Vec<Duplicate>, Error> {
    let mut gone = gone.to_vec();
    let mut found = exact(holding, &gone)?;
    found.iter().for_each(|duplicate| gone[duplicate.document as usize] = true);
    if settings.near_duplicate_similarity < 1.0 {
        found.extend(near(holding, &gone, settings)?);
    }
    found.sort_unstable_by_key(|duplicate| duplicate.document);
    Ok(found)
}

/// Writes duplicates as a file's bytes.
pub fn to_bytes(duplicates: &[Duplicate]) -> Vec<u8> {
    bytemuck::cast_slice(duplicates).to_vec()
}

/// Reads them again.
pub fn read(path: &Path) -> Result<Vec<Duplicate>, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: PathBuf::from(path), source })?;
    Ok(block::collect(&bytes))
}

/// The lowest stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Preference {
    not_existing: bool,
    date: [u8; DATE_BYTES],
    longest: Reverse<u32>,
    digest: [u8; 32],
    id_hash: u64,
    document: u32,
}

/// The preferences of some documents.
pub struct Preferences {
    documents: Vec<u32>,
    preferences: Vec<Preference>,
}

impl Preferences {
    /// Those of all documents that some entries name.
    pub fn of(holding: &Holding, entries: &[Entry]) -> Result<Preferences, Error> {
        let mut documents: Vec<u32> = entries.iter().map(|entry| entry.document).collect();
        documents.par_sort_unstable();
        documents.dedup();
        let preferences = preferences(holding, &documents)?;
        Ok(Preferences { documents, preferences })
    }

    pub fn get(&self, document: u32) -> &Preference {
        &self.preferences[self.documents.partition_point(|&found| found < document)]
    }
}

/// The preferences of these documents (ascending numbers), in their order.
fn preferences(holding: &Holding, documents: &[u32]) -> Result<Vec<Preference>, Error> {
    let rows = holding.rows_of(documents)?;
    let preference = |(&document, row): (&u32, &block::Row)| Preference {
        not_existing: !holding.blocks[holding.place(document).0].head.existing,
        date: row.date,
        longest: Reverse(row.text_bytes),
        digest: row.digest,
        id_hash: row.id_hash,
        document,
    };
    Ok(documents.iter().zip(&rows).map(preference).collect())
}

fn exact(holding: &Holding, gone: &[bool]) -> Result<Vec<Duplicate>, Error> {
    let entries = runs::shared_entries(holding, "digests", gone)?;
    let order = Preferences::of(holding, &entries)?;
    let mut found = Vec::new();
    for group in runs::groups(&entries, 2) {
        let mut members: Vec<&Preference> = group.iter().map(|entry| order.get(entry.document)).collect();
        // Documents whose digests agree in their first bytes only are told apart here.
        members.sort_unstable_by_key(|member| (member.digest, *member));
        for same in members.chunk_by(|left, right| left.digest == right.digest) {
            let of = same[0].document;
            let others = same[1..].iter().filter(|member| member.not_existing);
            found.extend(others.map(|member| Duplicate::new(member.document, of, 1.0, true)));
        }
    }
    Ok(found)
}

fn alive(group: &[Entry], gone: &[bool]) -> impl Iterator<Item = u32> {
    group.iter().map(|entry| entry.document).filter(|&document| !gone[document as usize])
}

fn near(holding: &Holding, gone: &[bool], settings: &Settings) -> Result<Vec<Duplicate>, Error> {
    let ranges = runs::by_ranges(holding, "bands", |entries| {
        // Near-duplicates share many bands: the same bucket again tells nothing new.
        let mut buckets: HashSet<Vec<u32>> = HashSet::new();
        for group in runs::groups(entries, 2) {
            let members: Vec<u32> = alive(group, gone).collect();
            if members.len() > 1 {
                buckets.insert(members);
            }
        }
        Ok(buckets)
    })?;
    let mut buckets: Vec<Vec<u32>> = ranges.into_iter().flatten().collect();
    buckets.sort_unstable();
    buckets.dedup();
    Candidates::new(holding, buckets)?.find(holding, settings)
}

/// Documents that share a bucket with another, by their rank in the order of preference.
struct Candidates {
    preferences: Vec<Preference>,
    /// The buckets of each, one after the other: those of rank r stand from `starts[r]` to `starts[r + 1]`.
    buckets: Vec<u32>,
    starts: Vec<u32>,
    bucket_count: usize,
}

/// A pair of ranks with the similarity of their documents.
type Compared = ((u32, u32), f64);

/// How often pairs are collected before they are compared together; later ones are compared one by one.
const ROUNDS: usize = 12;
const NOBODY: u32 = u32::MAX;

impl Candidates {
    fn new(holding: &Holding, buckets: Vec<Vec<u32>>) -> Result<Candidates, Error> {
        let mut documents: Vec<u32> = buckets.iter().flatten().copied().collect();
        documents.sort_unstable();
        documents.dedup();
        let mut order = preferences(holding, &documents)?;
        order.par_sort_unstable();
        let mut rank_of = vec![0u32; documents.len()];
        for (rank, preference) in order.iter().enumerate() {
            let place = documents.binary_search(&preference.document).unwrap_or_default();
            rank_of[place] = rank as u32;
        }
        let mut of_rank: Vec<(u32, u32)> = Vec::new();
        for (bucket, members) in buckets.iter().enumerate() {
            for member in members {
                let place = documents.binary_search(member).unwrap_or_default();
                of_rank.push((rank_of[place], bucket as u32));
            }
        }
        of_rank.par_sort_unstable();
        let mut starts = vec![0; order.len() + 1];
        of_rank.iter().for_each(|(rank, _)| starts[*rank as usize + 1] += 1);
        for rank in 1..starts.len() {
            starts[rank] += starts[rank - 1];
        }
        let bucket_count = buckets.len();
        let buckets = of_rank.into_iter().map(|(_, bucket)| bucket).collect();
        Ok(Candidates { preferences: order, buckets, starts, bucket_count })
    }

    fn find(&self, holding: &Holding, settings: &Settings) -> Result<Vec<Duplicate>, Error> {
        let mut known: HashMap<(u32, u32), f64> = HashMap::new();
        let compare = |pairs: &mut Vec<(u32, u32)>| self.compare(pairs, holding, settings);
        for _ in 0..ROUNDS {
            let mut unknown = Vec::new();
            let found = self.pass(settings.near_duplicate_similarity, |pair| {
                let similarity = known.get(&pair).copied();
                if similarity.is_none() {
                    unknown.push(pair);
                }
                Ok(similarity)
            })?;
            if unknown.is_empty() {
                return Ok(found);
            }
            known.extend(compare(&mut unknown)?);
        }
        self.pass(settings.near_duplicate_similarity, |pair| {
            if let Some(similarity) = known.get(&pair) {
                return Ok(Some(*similarity));
            }
            known.extend(compare(&mut vec![pair])?);
            Ok(known.get(&pair).copied())
        })
    }

    /// Goes through all documents in the order of preference. `similarity_of` tells that of (document, one that stays)
    /// by rank, if it is known; a document about which something is unknown counts as staying.
    fn pass(
        &self,
        threshold: f64,
        mut similarity_of: impl FnMut((u32, u32)) -> Result<Option<f64>, Error>,
    ) -> Result<Vec<Duplicate>, Error> {
        let mut first = vec![NOBODY; self.bucket_count];
        let mut found = Vec::new();
        for rank in 0..self.preferences.len() {
            let buckets = &self.buckets[self.starts[rank] as usize..self.starts[rank + 1] as usize];
            let mut firsts: Vec<u32> = buckets.iter().map(|&bucket| first[bucket as usize]).collect();
            firsts.retain(|&first| first != NOBODY);
            firsts.sort_unstable();
            firsts.dedup();
            let mut best: Option<(f64, u32)> = None;
            let own = &self.preferences[rank];
            for of in firsts.into_iter().filter(|_| own.not_existing) {
                let similarity = similarity_of((rank as u32, of))?.unwrap_or(0.0);
                if similarity >= threshold && best.is_none_or(|(most, _)| similarity > most) {
                    best = Some((similarity, of));
                }
            }
            if let Some((similarity, of)) = best {
                let of = self.preferences[of as usize].document;
                found.push(Duplicate::new(own.document, of, similarity, false));
                continue;
            }
            for &bucket in buckets {
                let first = &mut first[bucket as usize];
                *first = if *first == NOBODY { rank as u32 } else { *first };
            }
        }
        Ok(found)
    }

    /// The similarities of these pairs of ranks. Pairs with the same partner stand together, whose shingles are then
    /// made once.
    fn compare(
        &self,
        pairs: &mut Vec<(u32, u32)>,
        holding: &Holding,
        settings: &Settings,
    ) -> Result<Vec<Compared>, Error> {
        pairs.sort_unstable_by_key(|&(rank, of)| (of, rank));
        pairs.dedup();
        let shingle_words = Sketch::of(settings).shingle_words;
        let shingles_of = |rank: u32| {
            let document = self.preferences[rank as usize].document;
            Ok::<_, Error>(shingles(&holding.text(document)?, shingle_words))
        };
        let found: Vec<Vec<Compared>> = pairs
            .par_chunks(64)
            .map(|pairs| {
                let mut partner = (NOBODY, Vec::new());
                let mut found = Vec::with_capacity(pairs.len());
                for &(rank, of) in pairs {
                    if partner.0 != of {
                        partner = (of, shingles_of(of)?);
                    }
                    found.push(((rank, of), jaccard(&shingles_of(rank)?, &partner.1)));
                }
                Ok(found)
            })
            .collect::<Result<_, Error>>()?;
        Ok(found.concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::examine::{Buffers, Examiner};
    use documents::Document;
    use provenance::Storage;

    type Text<'a> = (&'a str, Option<&'a str>, String);

    /// A holding of these texts, so many to a block.
    fn hold(folder: &Path, texts: &[Text], of_block: usize, settings: &Settings) -> Holding {
        let examiner = Examiner::new(settings).unwrap();
        let mut paths = Vec::new();
        for (number, texts) in texts.chunks(of_block).enumerate() {
            let mut block = examiner.empty_block();
            for (id, date, text) in texts {
                let document = Document { date: date.map(String::from), ..Document::new(*id, text.as_str()) };
                block.keep(examiner.judged(document, settings.languages[0], &mut Buffers::default()));
            }
            let path = folder.join(format!("{number}"));
            block.commit(&Storage::disk(), &folder.join("aside"), &path).unwrap();
            paths.push(path);
        }
        Holding::open(paths).unwrap()
    }

    /// What each text repeats.
    fn find_in(texts: &[Text], of_block: usize) -> Vec<Option<Duplicate>> {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::default();
        let holding = hold(folder.path(), texts, of_block, &settings);
        let mut found = vec![None; texts.len()];
        for duplicate in find(&holding, &vec![false; texts.len()], &settings).unwrap() {
            found[duplicate.document as usize] = Some(duplicate);
        }
        found
    }

    fn long(word: &str) -> String {
        (0..120).map(|n| format!("{word}{n} ")).collect()
    }

    #[test]
    fn the_first_published_stays_whatever_the_order() {
        let original = ("b", Some("2024-01-01"), long("slovo"));
        let near = ("a", Some("2025-01-01"), long("slovo").replace("slovo60 ", "drugo "));
        let exact = ("c", None, long("Slovo").to_uppercase());
        let other = ("d", Some("2023-01-01"), long("λέξη"));
        for of_block in [1, 2, 4] {
            let found = find_in(&[near.clone(), original.clone(), exact.clone(), other.clone()], of_block);
            assert_eq!(
                found.iter().map(|d| d.map(|d| (d.of, d.is_exact))).collect::<Vec<_>>(),
                [Some((1, 0)), None, Some((1, 1)), None]
            );
            let found = find_in(&[other.clone(), exact.clone(), original.clone(), near.clone()], of_block);
            assert_eq!(
                found.iter().map(|d| d.map(|d| d.of)).collect::<Vec<_>>(),
                [None, Some(2), None, Some(2)]
            );
        }
    }

    /// A chain of texts, each near its neighbours and far from the ends: whatever is dropped has a similar one that
    /// stays, and what stays is stable.
    #[test]
    fn chains_do_not_creep_and_the_result_is_stable() {
        let chain: Vec<(String, String)> = (0..30)
            .map(|n| (format!("{n:02}"), (n * 4..n * 4 + 120).map(|word| format!("word{word} ")).collect()))
            .collect();
        let texts: Vec<Text> = chain.iter().map(|(id, text)| (id.as_str(), None, text.clone())).collect();
        let found = find_in(&texts, 7);
        for (index, duplicate) in found.iter().enumerate() {
            let Some(duplicate) = duplicate else { continue };
            let (text, of) = (&texts[index].2, &texts[duplicate.of as usize].2);
            assert!(jaccard(&shingles(text, 5), &shingles(of, 5)) >= 0.75);
            assert!(found[duplicate.of as usize].is_none(), "what it repeats stays");
        }
        let kept: Vec<Text> =
            texts.iter().zip(&found).filter(|(_, d)| d.is_none()).map(|(t, _)| t.clone()).collect();
        assert!((4..15).contains(&kept.len()), "{}", kept.len());
        assert!(find_in(&kept, 3).iter().all(Option::is_none));
    }

    #[test]
    fn a_page_in_a_thousand_copies_is_compared_a_thousand_times_only() {
        let pages: Vec<(String, String)> = (0..1000)
            .map(|n| (format!("{n:04}"), long("w").replace("w7 ", &format!("number{n} "))))
            .collect();
        let texts: Vec<Text> = pages.iter().map(|(id, text)| (id.as_str(), None, text.clone())).collect();
        let found = find_in(&texts, 300);
        assert_eq!(found.iter().filter(|duplicate| duplicate.is_none()).count(), 1);
        let of: std::collections::BTreeSet<u32> = found.iter().flatten().map(|found| found.of).collect();
        assert_eq!(of.len(), 1);
    }
}
