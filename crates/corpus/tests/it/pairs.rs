//! Documents with planted near-duplicates, and an exact comparison of all pairs that shares no code with the stage: what it
//! finds is what duplicate search should find.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use corpus::{Settings, SmallLanguage};
use documents::{Document, read_shard};
use languages::Language;
use provenance::{Context, StageOutput};

/// What the stage found of what is there.
#[derive(Debug)]
pub struct Comparison {
    /// Pairs at or above the threshold, and those of which both documents were kept.
    pub pairs: usize,
    pub missed: usize,
    /// The same for similarities from the threshold to 0.05 above it, where it is hardest.
    pub pairs_at_threshold: usize,
    pub missed_at_threshold: usize,
    /// Documents dropped for another one that is less similar than the threshold.
    pub merged_below: usize,
    /// Documents dropped for another one that was dropped later for a third.
    pub chained: usize,
    pub lowest_merged: f64,
    /// Documents dropped as near-duplicates, and the least similarity of two that were dropped for the same one.
    pub dropped: usize,
    pub farthest_in_cluster: f64,
    /// Most documents dropped for one.
    pub largest_cluster: usize,
}

/// Makes `count` documents, runs the stage on them, and compares with all pairs.
pub fn compare(count: usize, threads: usize) -> Comparison {
    let folder = tempfile::tempdir().unwrap();
    let texts = texts(count);
    let input = folder.path().join("input.jsonl");
    let lines = texts.iter().enumerate().map(|(number, (language, text))| {
        let document = Document {
            language: Some(language.to_string()),
            license: Some("CC0-1.0".into()),
            ..Document::new(number.to_string(), text.as_str())
        };
        document.to_json() + "\n"
    });
    fs::write(&input, lines.collect::<String>()).unwrap();
    let output =
        StageOutput { payload: folder.path().join("payload"), scratch: folder.path().join("scratch") };
    fs::create_dir(&output.payload).unwrap();
    fs::create_dir(&output.scratch).unwrap();
    let settings = Settings { small_language: SmallLanguage::TrainOnly, ..Settings::default() };
    corpus::build(&settings, &[input], &output, &Context::quiet(threads)).unwrap();
    judge(&texts, &output.payload, settings.near_duplicate_similarity)
}

/// Texts of words drawn from the sample, by language. Every fourth is followed by three that change it: pairs of all
/// similarities, chains of them (each changes the one before), and copies of a copy.
fn texts(count: usize) -> Vec<(Language, String)> {
    let sample = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/tiny/documents"));
    let vocabularies: Vec<(Language, Vec<String>)> = ["de", "el", "fi", "mt", "ga", "bg"]
        .map(|code| {
            let shard = read_shard(&sample.join(format!("{code}.jsonl"))).unwrap();
            let texts = shard.map(|document| document.unwrap().text);
            let words = texts.flat_map(|text| text.split_whitespace().map(String::from).collect::<Vec<_>>());
            (Language::from_code(code).unwrap(), words.collect())
        })
        .into();
    let mut state = 3u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut texts: Vec<(Language, Vec<String>)> = Vec::new();
    while texts.len() < count {
        let (language, vocabulary) = &vocabularies[draw(vocabularies.len())];
        let length = 80 + draw(240);
        let mut words: Vec<String> =
            (0..length).map(|_| vocabulary[draw(vocabulary.len())].clone()).collect();
        texts.push((*language, words.clone()));
        for _ in 0..3 {
            for _ in 0..1 + draw(length / 20) {
                let place = draw(length);
                words[place] = vocabulary[draw(vocabulary.len())].clone();
            }
            texts.push((*language, words.clone()));
        }
    }
    texts.truncate(count);
    texts.into_iter().map(|(language, words)| (language, words.join(" "))).collect()
}

fn judge(texts: &[(Language, String)], payload: &Path, threshold: f64) -> Comparison {
    let shingles: Vec<Vec<u32>> = number_shingles(texts);
    let similarity = |left: usize, right: usize| {
        let shared = shared(&shingles[left], &shingles[right]);
        shared as f64 / (shingles[left].len() + shingles[right].len() - shared) as f64
    };
    let mut of: BTreeMap<usize, usize> = BTreeMap::new();
    let mut exact = 0;
    let duplicates = zstd::decode_all(fs::File::open(payload.join("dropped/duplicates.jsonl.zst")).unwrap());
    for line in String::from_utf8(duplicates.unwrap()).unwrap().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let number = |key: &str| line[key].as_str().unwrap().parse::<usize>().unwrap();
        exact += usize::from(line["reason"] == "exact_duplicate");
        of.insert(number("id"), number("of"));
    }
    let mut comparison = Comparison {
        pairs: 0,
        missed: 0,
        pairs_at_threshold: 0,
        missed_at_threshold: 0,
        merged_below: 0,
        chained: 0,
        lowest_merged: 1.0,
        dropped: of.len() - exact,
        farthest_in_cluster: 1.0,
        largest_cluster: 0,
    };
    for (left, right) in pairs_with_shared_shingles(&shingles) {
        let similarity = similarity(left, right);
        if similarity < threshold {
            continue;
        }
        let missed = usize::from(!of.contains_key(&left) && !of.contains_key(&right));
        comparison.pairs += 1;
        comparison.missed += missed;
        if similarity < threshold + 0.05 {
            comparison.pairs_at_threshold += 1;
            comparison.missed_at_threshold += missed;
        }
    }
    let mut clusters: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (&document, &of_document) in &of {
        let similarity = similarity(document, of_document);
        comparison.lowest_merged = comparison.lowest_merged.min(similarity);
        comparison.merged_below += usize::from(similarity < threshold);
        comparison.chained += usize::from(of.contains_key(&of_document));
        clusters.entry(of_document).or_default().push(document);
    }
    for members in clusters.values() {
        comparison.largest_cluster = comparison.largest_cluster.max(members.len());
        for (place, &left) in members.iter().enumerate() {
            for &right in &members[place + 1..] {
                comparison.farthest_in_cluster = comparison.farthest_in_cluster.min(similarity(left, right));
            }
        }
    }
    comparison
}

/// The word 5-grams of each text, numbered, sorted.
fn number_shingles(texts: &[(Language, String)]) -> Vec<Vec<u32>> {
    let mut numbers: HashMap<Vec<String>, u32> = HashMap::new();
    let mut number = |shingle: &[String]| {
        let next = numbers.len() as u32;
        *numbers.entry(shingle.to_vec()).or_insert(next)
    };
    texts
        .iter()
        .map(|(_, text)| {
            let words: Vec<String> = text
                .to_lowercase()
                .split(|character: char| !character.is_alphanumeric())
                .filter(|word| !word.is_empty())
                .map(String::from)
                .collect();
            let mut found: Vec<u32> = words.windows(5).map(&mut number).collect();
            found.sort_unstable();
            found.dedup();
            found
        })
        .collect()
}

fn shared(left: &[u32], right: &[u32]) -> usize {
    right.iter().filter(|shingle| left.binary_search(shingle).is_ok()).count()
}

/// All pairs with any shingle in common: the others have similarity 0.
fn pairs_with_shared_shingles(shingles: &[Vec<u32>]) -> std::collections::BTreeSet<(usize, usize)> {
    let mut documents_of: HashMap<u32, Vec<usize>> = HashMap::new();
    for (document, shingles) in shingles.iter().enumerate() {
        shingles.iter().for_each(|&shingle| documents_of.entry(shingle).or_default().push(document));
    }
    let mut pairs = std::collections::BTreeSet::new();
    for documents in documents_of.values() {
        for (place, &left) in documents.iter().enumerate() {
            pairs.extend(documents[place + 1..].iter().map(|&right| (left, right)));
        }
    }
    pairs
}
