//! Which documents say again what another one says: exactly (the same words) or nearly (word 5-grams at or above a
//! Jaccard similarity).
//!
//! Of each group the document stays that was published first, then the longest, then the one with the lowest digest and
//! id: a choice that does not depend on the order of files. Members of a bucket are compared with its first only, or a
//! text that stands on a million pages would cost a million squared. A document is dropped only if it is similar to one
//! that stays after the same round, so that chains do not creep; rounds are repeated until one drops nothing, so that
//! deduplicating the result again drops nothing either.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use rayon::prelude::*;

use crate::error::Error;
use crate::fingerprint::{BANDS, Fingerprint, jaccard, shingles};

/// A document as duplicate search needs it.
pub struct Candidate<'a> {
    pub fingerprint: &'a Fingerprint,
    pub date: Option<&'a str>,
    pub text_bytes: usize,
    pub id: &'a str,
}

/// A document to drop: which one it repeats, and how similar the two are (1 for the same words).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Duplicate {
    pub of: usize,
    pub similarity: f64,
    pub is_exact: bool,
}

/// For each candidate, what it repeats, if anything. `text_of` fetches the text of a candidate; a `similarity` of 1 looks
/// for exact duplicates only.
pub fn find(
    candidates: &[Candidate],
    similarity: f64,
    text_of: impl Fn(usize) -> Result<String, Error> + Sync,
) -> Result<Vec<Option<Duplicate>>, Error> {
    let mut found: Vec<Option<Duplicate>> = vec![None; candidates.len()];
    let mut alive: Vec<usize> = (0..candidates.len()).collect();
    alive.sort_by(|&left, &right| {
        preference(&candidates[left]).cmp(&preference(&candidates[right])).then(left.cmp(&right))
    });

    let mut first_with = HashMap::new();
    for &index in &alive {
        let of = *first_with.entry(candidates[index].fingerprint.digest.0).or_insert(index);
        if of != index {
            found[index] = Some(Duplicate { of, similarity: 1.0, is_exact: true });
        }
    }
    alive.retain(|&index| found[index].is_none());

    let mut compared = HashSet::new();
    if similarity >= 1.0 {
        return Ok(found);
    }
    loop {
        let pairs = new_pairs(candidates, &alive, &mut compared);
        let similar = compare(&pairs, similarity, &text_of)?;
        let before = alive.len();
        for &index in &alive {
            let best = similar
                .get(&index)
                .into_iter()
                .flatten()
                .filter(|(of, _)| found[*of].is_none())
                .max_by(|left, right| left.1.total_cmp(&right.1).then_with(|| right.0.cmp(&left.0)));
            if let Some(&(of, similarity)) = best {
                found[index] = Some(Duplicate { of, similarity, is_exact: false });
            }
        }
        alive.retain(|&index| found[index].is_none());
        if alive.len() == before {
            return Ok(found);
        }
    }
}

/// The lowest stays: first published (undated last), then longest, then the lowest digest and id.
fn preference<'a>(candidate: &'a Candidate) -> impl Ord + use<'a> {
    let date = (candidate.date.is_none(), candidate.date);
    (date, Reverse(candidate.text_bytes), candidate.fingerprint.digest, candidate.id)
}

/// (member, first) of every bucket, among the documents still alive and in the order of preference, without the pairs
/// that were compared before.
fn new_pairs(
    candidates: &[Candidate],
    alive: &[usize],
    compared: &mut HashSet<(usize, usize)>,
) -> BTreeMap<usize, Vec<usize>> {
    let mut pairs: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for band in 0..BANDS {
        let mut first_with: HashMap<u64, usize> = HashMap::with_capacity(alive.len());
        for &index in alive {
            let first = *first_with.entry(candidates[index].fingerprint.bands[band]).or_insert(index);
            if first != index && compared.insert((index, first)) {
                pairs.entry(index).or_default().push(first);
            }
        }
    }
    pairs
}

/// For each member the firsts that it is similar to.
fn compare(
    pairs: &BTreeMap<usize, Vec<usize>>,
    similarity: f64,
    text_of: &(impl Fn(usize) -> Result<String, Error> + Sync),
) -> Result<HashMap<usize, Vec<(usize, f64)>>, Error> {
    let members: Vec<(&usize, &Vec<usize>)> = pairs.iter().collect();
    members
        .into_par_iter()
        .map(|(&member, firsts)| {
            let own = shingles(&text_of(member)?);
            let mut similar = Vec::new();
            for &first in firsts {
                let value = jaccard(&own, &shingles(&text_of(first)?));
                if value >= similarity {
                    similar.push((first, value));
                }
            }
            Ok((member, similar))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(texts: &[(&str, Option<&str>, String)]) -> Vec<Option<Duplicate>> {
        let fingerprints: Vec<Fingerprint> = texts.iter().map(|(_, _, text)| Fingerprint::of(text)).collect();
        let candidates: Vec<Candidate> = texts
            .iter()
            .zip(&fingerprints)
            .map(|((id, date, text), fingerprint)| Candidate {
                fingerprint,
                date: *date,
                text_bytes: text.len(),
                id,
            })
            .collect();
        find(&candidates, 0.75, |index| Ok(texts[index].2.clone())).unwrap()
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
        let found = find_in(&[near.clone(), original.clone(), exact.clone(), other.clone()]);
        assert_eq!(
            found.iter().map(|d| d.map(|d| (d.of, d.is_exact))).collect::<Vec<_>>(),
            [Some((1, false)), None, Some((1, true)), None]
        );
        let found = find_in(&[other, exact, original, near]);
        assert_eq!(found.iter().map(|d| d.map(|d| d.of)).collect::<Vec<_>>(), [None, Some(2), None, Some(2)]);
    }

    /// A chain of texts, each near its neighbours and far from the ends: whatever is dropped has a similar one that
    /// stays, and what stays is stable.
    #[test]
    fn chains_do_not_creep_and_the_result_is_stable() {
        let chain: Vec<(String, String)> = (0..30)
            .map(|n| (format!("{n:02}"), (n * 4..n * 4 + 120).map(|word| format!("word{word} ")).collect()))
            .collect();
        let texts: Vec<(&str, Option<&str>, String)> =
            chain.iter().map(|(id, text)| (id.as_str(), None, text.clone())).collect();
        let found = find_in(&texts);
        for (index, duplicate) in found.iter().enumerate() {
            let Some(duplicate) = duplicate else { continue };
            assert!(jaccard(&shingles(&texts[index].2), &shingles(&texts[duplicate.of].2)) >= 0.75);
        }
        let kept: Vec<_> =
            texts.iter().zip(&found).filter(|(_, d)| d.is_none()).map(|(t, _)| t.clone()).collect();
        assert!((4..15).contains(&kept.len()), "{}", kept.len());
        assert!(find_in(&kept).iter().all(Option::is_none));
    }

    #[test]
    fn a_page_in_a_thousand_copies_is_compared_a_thousand_times_only() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let texts: Vec<(String, String)> = (0..1000)
            .map(|n| (format!("{n:04}"), long("w").replace("w7 ", &format!("number{n} "))))
            .collect();
        let fingerprints: Vec<Fingerprint> = texts.iter().map(|(_, text)| Fingerprint::of(text)).collect();
        let candidates: Vec<Candidate> = texts
            .iter()
            .zip(&fingerprints)
            .map(|((id, text), fingerprint)| Candidate {
                fingerprint,
                date: None,
                text_bytes: text.len(),
                id,
            })
            .collect();
        let fetched = AtomicUsize::new(0);
        let found = find(&candidates, 0.75, |index| {
            fetched.fetch_add(1, Ordering::Relaxed);
            Ok(texts[index].1.clone())
        })
        .unwrap();
        assert_eq!(found.iter().filter(|duplicate| duplicate.is_none()).count(), 1);
        assert!(fetched.load(Ordering::Relaxed) < 20_000, "{fetched:?}");
    }
}
