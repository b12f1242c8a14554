//! One pass over all shards: histograms, sites, clusters of duplicates, and samples.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::path::Path;

use provenance::Context;
use serde::Serialize;
use serde_json::Value;

use crate::histogram::Histogram;
use crate::places::{Shard, site};
use crate::{Error, read_all};

/// Sites that are counted at a time; beyond that, those that were met once are forgotten.
const SITES: usize = 1 << 18;
/// Characters of a sample.
const SAMPLE_CHARACTERS: usize = 600;

/// What is in a corpus.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Survey {
    /// The corpus's own `statistics.json`.
    pub statistics: Value,
    /// Kept documents by language, held-out ones included.
    pub kept: BTreeMap<String, Gathered>,
    /// Dropped documents by reason.
    pub dropped: BTreeMap<String, Dropped>,
    /// How many groups of duplicates have so many members, the one that was kept among them.
    pub clusters: BTreeMap<u64, u64>,
}

/// Kept documents of a language.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gathered {
    pub documents: u64,
    /// Lengths in characters.
    pub lengths: Histogram,
    /// Quality scores, of the documents that have one.
    pub scores: Histogram,
    /// Sites with most documents, and how many.
    pub sites: Vec<(String, u64)>,
    pub samples: Vec<Sample>,
}

/// Documents that were dropped for one reason.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Dropped {
    pub documents: u64,
    /// By language, as far as it is known.
    pub languages: BTreeMap<String, u64>,
    /// None where nothing of the text may be kept.
    pub samples: Vec<Sample>,
}

/// A document to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Sample {
    pub id: String,
    pub language: String,
    pub url: String,
    /// The beginning of the text.
    pub text: String,
    /// What was measured, for dropped documents: name and value.
    pub evidence: Vec<(String, String)>,
}

impl Survey {
    /// Reads the corpus in this folder: `samples` documents of each language and reason are kept.
    pub fn of(folder: &Path, samples: usize, context: &Context) -> Result<Survey, Error> {
        let begin = || Part::new(samples);
        let parts = read_all(folder, context, "look", begin, |part, shard, placed| {
            part.add(shard, &placed.value);
        })?;
        let path = folder.join("statistics.json");
        let bytes = std::fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        let statistics = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Malformed { path: path.clone(), problem: error.to_string() })?;
        let mut whole = Part::new(samples);
        parts.into_iter().for_each(|part| whole.merge(part));
        Ok(whole.finish(statistics))
    }
}

/// What is gathered of some shards.
struct Part {
    samples: usize,
    kept: BTreeMap<String, KeptPart>,
    dropped: BTreeMap<String, DroppedPart>,
    /// Documents that repeat the one with this id.
    repeated: HashMap<u64, u64>,
}

struct KeptPart {
    documents: u64,
    lengths: Histogram,
    scores: Histogram,
    sites: HashMap<String, u64>,
    samples: Lowest,
}

struct DroppedPart {
    documents: u64,
    languages: BTreeMap<String, u64>,
    samples: Lowest,
}

/// The samples with the lowest hashes of their ids: a random choice that is the same in any order.
struct Lowest {
    wanted: usize,
    heap: BinaryHeap<(u64, Sample)>,
}

impl Lowest {
    fn new(wanted: usize) -> Lowest {
        Lowest { wanted, heap: BinaryHeap::new() }
    }

    fn offer(&mut self, id: &str, sample: impl FnOnce() -> Sample) {
        let hash = hash(id);
        if self.heap.len() < self.wanted {
            self.heap.push((hash, sample()));
        } else if self.heap.peek().is_some_and(|(highest, _)| hash < *highest) {
            self.heap.pop();
            self.heap.push((hash, sample()));
        }
    }

    fn merge(&mut self, other: Lowest) {
        self.heap.extend(other.heap);
        while self.heap.len() > self.wanted {
            self.heap.pop();
        }
    }

    fn finish(self) -> Vec<Sample> {
        self.heap.into_sorted_vec().into_iter().map(|(_, sample)| sample).collect()
    }
}

impl Part {
    fn new(samples: usize) -> Part {
        Part { samples, kept: BTreeMap::new(), dropped: BTreeMap::new(), repeated: HashMap::new() }
    }

    fn kept(&mut self, language: &str) -> &mut KeptPart {
        let samples = self.samples;
        self.kept.entry(language.to_string()).or_insert_with(|| KeptPart {
            documents: 0,
            lengths: Histogram::of_lengths(),
            scores: Histogram::of_scores(),
            sites: HashMap::new(),
            samples: Lowest::new(samples),
        })
    }

    fn dropped(&mut self, reason: &str) -> &mut DroppedPart {
        let samples = self.samples;
        self.dropped.entry(reason.to_string()).or_insert_with(|| DroppedPart {
            documents: 0,
            languages: BTreeMap::new(),
            samples: Lowest::new(samples),
        })
    }

    fn add(&mut self, shard: &Shard, record: &Value) {
        let field = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or("");
        let (id, language, text) = (field("id"), field("language"), field("text"));
        let sample = |evidence: Vec<(String, String)>| Sample {
            id: id.to_string(),
            language: language.to_string(),
            url: field("url").to_string(),
            text: beginning(text),
            evidence,
        };
        if shard.part == "dropped" {
            let reason = field("reason");
            if let Some(of) = record.get("of").and_then(Value::as_str) {
                *self.repeated.entry(hash(of)).or_insert(0) += 1;
            }
            let part = self.dropped(reason);
            part.documents += 1;
            if !language.is_empty() {
                *part.languages.entry(language.to_string()).or_insert(0) += 1;
            }
            if !text.is_empty() {
                part.samples.offer(id, || sample(evidence(record)));
            }
            return;
        }
        let part = self.kept(language);
        part.documents += 1;
        part.lengths.add(text.chars().count() as f64);
        if let Some(score) = record.get("score").and_then(Value::as_f64) {
            part.scores.add(score);
        }
        if let Some(site) = site(field("url")) {
            *part.sites.entry(site).or_insert(0) += 1;
            forget_rare(&mut part.sites);
        }
        part.samples.offer(id, || sample(Vec::new()));
    }

    fn merge(&mut self, other: Part) {
        for (language, more) in other.kept {
            let part = self.kept(&language);
            part.documents += more.documents;
            part.lengths.merge(&more.lengths);
            part.scores.merge(&more.scores);
            more.sites.into_iter().for_each(|(site, count)| *part.sites.entry(site).or_insert(0) += count);
            forget_rare(&mut part.sites);
            part.samples.merge(more.samples);
        }
        for (reason, more) in other.dropped {
            let part = self.dropped(&reason);
            part.documents += more.documents;
            let languages = more.languages.into_iter();
            languages.for_each(|(language, count)| *part.languages.entry(language).or_insert(0) += count);
            part.samples.merge(more.samples);
        }
        for (of, count) in other.repeated {
            *self.repeated.entry(of).or_insert(0) += count;
        }
    }

    fn finish(self, statistics: Value) -> Survey {
        const SHOWN_SITES: usize = 12;
        let kept = self.kept.into_iter().map(|(language, part)| {
            let mut sites: Vec<(String, u64)> = part.sites.into_iter().collect();
            sites.sort_by(|left, right| (Reverse(left.1), &left.0).cmp(&(Reverse(right.1), &right.0)));
            sites.truncate(SHOWN_SITES);
            let samples = part.samples.finish();
            let KeptPart { documents, lengths, scores, .. } = part;
            (language, Gathered { documents, lengths, scores, sites, samples })
        });
        let dropped = self.dropped.into_iter().map(|(reason, part)| {
            let samples = part.samples.finish();
            (reason, Dropped { documents: part.documents, languages: part.languages, samples })
        });
        let mut clusters = BTreeMap::new();
        for repeats in self.repeated.values() {
            *clusters.entry(repeats + 1).or_insert(0) += 1;
        }
        Survey { statistics, kept: kept.collect(), dropped: dropped.collect(), clusters }
    }
}

/// What was measured of a dropped document: the keys that a document does not have of itself.
fn evidence(record: &Value) -> Vec<(String, String)> {
    const OWN: [&str; 8] = ["id", "url", "date", "license", "language", "source", "text", "reason"];
    let fields = record.as_object().into_iter().flatten();
    fields
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            (name.clone(), value)
        })
        .collect()
}

fn beginning(text: &str) -> String {
    match text.char_indices().nth(SAMPLE_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

fn forget_rare(sites: &mut HashMap<String, u64>) {
    if sites.len() > SITES {
        sites.retain(|_, count| *count > 1);
    }
    if sites.len() > SITES {
        sites.clear();
    }
}

/// FNV-1a with a final mix; chooses samples and tells ids apart, nothing more.
fn hash(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}
