//! Keeping evaluation sets out of the corpus: a document that repeats enough words of one in a row is dropped, or loses the
//! lines that do.
//!
//! Thirteen words in a row, after Brown et al. 2020 ("Language Models are Few-Shot Learners", appendix C); shorter items
//! are looked for whole. Only hashes of the items are held. A decontamination that finds nothing because it looked for
//! nothing is worse than none: a set without anything to look for is an error, and before any work items of every set are
//! planted in made-up documents, which must all be found.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use provenance::digest::{files_below_with_links, join};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::encoding;
use crate::error::Error;
use crate::reason::{Drop, Reason, rounded};
use crate::words::{Words, hash_of_sequence, mix};

/// Items of each set that are planted.
const PLANTED_ITEMS: usize = 50;
/// Words of made-up text before and after a planted item.
const FILLER_WORDS: usize = 40;

/// How evaluation sets are looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecontaminationSettings {
    /// So many words in a row, equal but for case and punctuation, are no chance.
    pub ngram_words: usize,
    /// Items of fewer words than this are not looked for: anyone may have written them.
    pub minimum_words: usize,
    /// Whether a document that repeats an item is dropped, or loses the lines that repeat it.
    pub action: Action,
    /// Keys of JSON items, or numbers of TSV columns from 1, that hold text; empty: all.
    pub fields: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Drop,
    Cut,
}

impl Default for DecontaminationSettings {
    fn default() -> Self {
        DecontaminationSettings {
            ngram_words: 13,
            minimum_words: 8,
            action: Action::Drop,
            fields: Vec::new(),
        }
    }
}

impl DecontaminationSettings {
    pub fn check(&self) -> Result<(), Error> {
        let wrong =
            |key, expected, found: usize| Err(Error::Setting { key, expected, found: found.to_string() });
        if !(4..=100).contains(&self.minimum_words) {
            let expected = "4 to 100: fewer words than that stand in many documents by chance";
            return wrong("decontamination.minimum_words", expected, self.minimum_words);
        }
        if !(self.minimum_words..=100).contains(&self.ngram_words) {
            let expected = "at least `decontamination.minimum_words`, at most 100";
            return wrong("decontamination.ngram_words", expected, self.ngram_words);
        }
        Ok(())
    }
}

/// What one evaluation set is and what its self-test gave, for `statistics.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetStatistics {
    /// Texts of the set that are looked for, and those that are too short for it.
    pub texts: u64,
    pub too_short: u64,
    /// Hashes that they gave.
    pub ngrams: u64,
    /// Items planted in made-up documents at the start, and how many of them were found.
    pub planted: u64,
    pub found: u64,
}

/// All evaluation sets, ready to be looked for.
#[derive(Debug)]
pub struct Decontamination {
    settings: DecontaminationSettings,
    names: Vec<String>,
    statistics: Vec<SetStatistics>,
    /// The hash of each n-gram, and the set that it is from (the first, where several have it).
    ngrams: HashMap<u64, u16>,
    /// Lengths of n-grams that occur: `ngram_words`, and those of short items.
    lengths: Vec<usize>,
    /// Which hashes of `minimum_words` words an n-gram begins with: one bit each of a table that is mostly 0.
    beginnings: Vec<u64>,
    /// The rolling hash forgets a word by this factor.
    forgets: u64,
    samples: Vec<(u16, String)>,
}

/// What became of a document.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    Free,
    Dropped(Drop),
    /// The text without the lines that repeat items.
    Cut(String),
}

/// Words `first..end` of a document repeat words of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Overlap {
    set: u16,
    first: usize,
    end: usize,
}

const ROLL: u64 = 0x9e37_79b9_7f4a_7c15;

impl Decontamination {
    /// Reads the sets: files, or folders of them (JSON lines, TSV, or text with an item a line). Planted items have been
    /// found in them when it returns.
    pub fn read(settings: &DecontaminationSettings, paths: &[PathBuf]) -> Result<Decontamination, Error> {
        let mut decontamination = Decontamination {
            settings: settings.clone(),
            names: Vec::new(),
            statistics: Vec::new(),
            ngrams: HashMap::new(),
            lengths: Vec::new(),
            beginnings: Vec::new(),
            forgets: (1..settings.minimum_words).fold(1u64, |factor, _| factor.wrapping_mul(ROLL)),
            samples: Vec::new(),
        };
        let mut beginnings = Vec::new();
        for path in paths {
            for (name, file) in files_of(path)? {
                decontamination.add_set(name, &file, &mut beginnings)?;
            }
        }
        decontamination.lengths.sort_unstable();
        // Sixteen bits for each: one look in sixteen that finds a bit set finds it for another.
        let bits = (beginnings.len() * 16).next_power_of_two().max(1 << 12);
        decontamination.beginnings = vec![0; bits / 64];
        for hash in beginnings {
            let bit = mix(hash) as usize % bits;
            decontamination.beginnings[bit / 64] |= 1 << (bit % 64);
        }
        decontamination.prove()?;
        Ok(decontamination)
    }

    fn add_set(&mut self, name: String, file: &Path, beginnings: &mut Vec<u64>) -> Result<(), Error> {
        let wrong = |problem: String| Error::EvaluationSet { path: file.to_path_buf(), problem };
        let set =
            u16::try_from(self.names.len()).map_err(|_| wrong("more than 65536 evaluation sets".into()))?;
        let texts = texts_of(file, &self.settings.fields)?;
        let mut statistics = SetStatistics::default();
        let mut words = Words::default();
        let mut long_enough = Vec::new();
        for text in texts {
            // As a document's text is repaired before it is compared.
            let text = encoding::repair(&text).ok().flatten().map_or(text, |repaired| repaired.text);
            words.read(&text);
            let hashes = &words.hashes;
            if hashes.len() < self.settings.minimum_words {
                statistics.too_short += 1;
                continue;
            }
            statistics.texts += 1;
            let length = hashes.len().min(self.settings.ngram_words);
            if !self.lengths.contains(&length) {
                self.lengths.push(length);
            }
            for ngram in hashes.windows(length) {
                beginnings.push(self.hash_of_beginning(&ngram[..self.settings.minimum_words]));
                self.ngrams.entry(hash_of_sequence(ngram)).or_insert(set);
                statistics.ngrams += 1;
            }
            long_enough.push(text);
        }
        if long_enough.is_empty() {
            let fields = match self.settings.fields.is_empty() {
                true => String::new(),
                false => format!(" in the fields {}", self.settings.fields.join(", ")),
            };
            return Err(wrong(format!(
                "no text of at least {} words{fields}, and {} shorter ones: nothing would be looked for",
                self.settings.minimum_words, statistics.too_short
            )));
        }
        let step = long_enough.len().div_ceil(PLANTED_ITEMS);
        self.samples.extend(long_enough.into_iter().step_by(step).map(|text| (set, text)));
        self.names.push(name);
        self.statistics.push(statistics);
        Ok(())
    }

    fn hash_of_beginning(&self, hashes: &[u64]) -> u64 {
        hashes.iter().fold(0, |rolled: u64, hash| rolled.wrapping_mul(ROLL).wrapping_add(*hash))
    }

    fn may_begin(&self, rolled: u64) -> bool {
        let bit = mix(rolled) as usize % (self.beginnings.len() * 64);
        self.beginnings[bit / 64] >> (bit % 64) & 1 == 1
    }

    /// Plants items of every set in made-up documents, with other spacing and punctuation, and looks for them as in any
    /// document; also that what is made up is not taken for an item.
    ///
    /// # Errors
    /// A planted item that is not found, or a document without any that is.
    fn prove(&mut self) -> Result<(), Error> {
        let samples = std::mem::take(&mut self.samples);
        let mut words = Words::default();
        for (number, (set, item)) in samples.iter().enumerate() {
            let filler = |place: usize| {
                let made_up =
                    |word: usize| format!("q{:x}", mix((number * 1000 + place * 100 + word) as u64));
                (0..FILLER_WORDS).map(made_up).collect::<Vec<_>>().join(" ")
            };
            let spaced = item.split_whitespace().collect::<Vec<_>>().join(",\n ");
            let planted = format!("{}. {spaced}; {}.", filler(1), filler(2));
            let document =
                encoding::repair(&planted).ok().flatten().map_or(planted, |repaired| repaired.text);
            words.read(&document);
            let found = !self.overlaps(&words).is_empty();
            let statistics = &mut self.statistics[usize::from(*set)];
            statistics.planted += 1;
            statistics.found += u64::from(found);
            words.read(&filler(1));
            if !found || !self.overlaps(&words).is_empty() {
                let name = self.names[usize::from(*set)].clone();
                return Err(Error::DecontaminationFails { set: name, is_missed: !found });
            }
        }
        Ok(())
    }

    /// What the sets are and how the self-test went, by name.
    pub fn statistics(&self) -> impl Iterator<Item = (&str, &SetStatistics)> {
        self.names.iter().map(String::as_str).zip(&self.statistics)
    }

    /// Judges a text, whose words are read into `words`.
    pub fn judge(&self, text: &str, words: &mut Words) -> Outcome {
        words.read(text);
        let overlaps = self.overlaps(words);
        let Some(first) = overlaps.first() else { return Outcome::Free };
        if self.settings.action == Action::Cut {
            let rest = without_lines(text, words, &overlaps);
            if !rest.trim().is_empty() {
                return Outcome::Cut(rest);
            }
        }
        let repeated: usize = overlaps.iter().map(|overlap| overlap.end - overlap.first).sum();
        let share = repeated as f64 / words.hashes.len() as f64;
        let drop = Drop::new(Reason::Contaminated)
            .with("set", self.names[usize::from(first.set)].as_str())
            .with("words", repeated)
            .with("share", rounded(share));
        Outcome::Dropped(drop)
    }

    /// The stretches of words that stand in a set, in order, none overlapping another.
    fn overlaps(&self, words: &Words) -> Vec<Overlap> {
        let (hashes, beginning) = (&words.hashes, self.settings.minimum_words);
        let mut overlaps: Vec<Overlap> = Vec::new();
        let mut rolled = 0u64;
        for (place, hash) in hashes.iter().enumerate() {
            if place >= beginning {
                rolled = rolled.wrapping_sub(hashes[place - beginning].wrapping_mul(self.forgets));
            }
            rolled = rolled.wrapping_mul(ROLL).wrapping_add(*hash);
            if place + 1 < beginning || !self.may_begin(rolled) {
                continue;
            }
            let first = place + 1 - beginning;
            let found = self.lengths.iter().rev().find_map(|length| {
                let set = self.ngrams.get(&hash_of_sequence(hashes.get(first..first + length)?))?;
                Some(Overlap { set: *set, first, end: first + length })
            });
            match (found, overlaps.last_mut()) {
                (Some(found), Some(last)) if found.first <= last.end => last.end = last.end.max(found.end),
                (Some(found), _) => overlaps.push(found),
                (None, _) => {}
            }
        }
        overlaps
    }
}

/// The text without the lines that the overlaps touch.
fn without_lines(text: &str, words: &Words, overlaps: &[Overlap]) -> String {
    let is_touched =
        |first: usize, end: usize| overlaps.iter().any(|found| found.first < end && first < found.end);
    let mut rest = String::with_capacity(text.len());
    for line in &words.lines {
        if is_touched(line.first_word as usize, line.last_word as usize) {
            continue;
        }
        let line = &text[line.start as usize..line.end as usize];
        // Where a paragraph went, its two blank lines become one.
        if !line.trim().is_empty() || !(rest.is_empty() || rest.ends_with("\n\n")) {
            rest.push_str(line);
            rest.push('\n');
        }
    }
    rest.truncate(rest.trim_end().len());
    rest
}

/// The files of a set or a folder of sets, with the names that they go by: no path above what the settings name.
fn files_of(path: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
    let own = path.file_name().and_then(|name| name.to_str()).unwrap_or("evaluation").to_string();
    if !path.is_dir() {
        return Ok(vec![(own, path.to_path_buf())]);
    }
    let names =
        files_below_with_links(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    let kept = names.into_iter().filter(|name| !is_note(name));
    let files: Vec<(String, PathBuf)> =
        kept.map(|name| (format!("{own}/{name}"), join(path, &name))).collect();
    match files.is_empty() {
        true => Err(Error::EvaluationSet {
            path: path.to_path_buf(),
            problem: "the folder has no files".to_string(),
        }),
        false => Ok(files),
    }
}

/// Descriptions that stand beside sets.
fn is_note(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name).to_uppercase();
    name.ends_with(".MD")
        || name.starts_with("LICENSE")
        || name.starts_with("LICENCE")
        || name.starts_with('.')
}

/// The texts of a file's items.
fn texts_of(path: &Path, fields: &[String]) -> Result<Vec<String>, Error> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let plain = name.trim_end_matches(".gz").trim_end_matches(".zst");
    let mut texts = Vec::new();
    if plain.ends_with(".jsonl") || plain.ends_with(".ndjson") {
        for value in documents::read_first_values(path, usize::MAX)? {
            match (&value, fields.is_empty()) {
                (Value::Object(item), false) => {
                    fields
                        .iter()
                        .filter_map(|field| item.get(field))
                        .for_each(|value| add_texts(value, &mut texts));
                }
                _ => add_texts(&value, &mut texts),
            }
        }
        return Ok(texts);
    }
    let is_table = name.ends_with(".tsv");
    if !is_table && !name.ends_with(".txt") {
        let problem = "expected .jsonl (.gz, .zst), .tsv or .txt: one item a line".to_string();
        return Err(Error::EvaluationSet { path: path.to_path_buf(), problem });
    }
    let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_path_buf(), source })?;
    for line in text.lines() {
        match is_table {
            false => texts.push(line.to_string()),
            true => {
                let is_asked = |number: usize| fields.is_empty() || fields.contains(&number.to_string());
                let columns = line.split('\t').enumerate().filter(|(place, _)| is_asked(place + 1));
                texts.extend(columns.map(|(_, column)| column.to_string()));
            }
        }
    }
    Ok(texts)
}

/// Every text within a JSON value.
fn add_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::String(text) => texts.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| add_texts(value, texts)),
        Value::Object(fields) => fields.values().for_each(|value| add_texts(value, texts)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &str = "Ποια πόλη ήταν πρωτεύουσα της χώρας πριν από την Αθήνα, και ποιο έτος μεταφέρθηκε η έδρα της κυβέρνησης;";
    const SHORT: &str = "X'jismu l-gżira l-aktar kbira ta' Malta?";

    fn sets(action: Action, files: &[(&str, &str)]) -> Result<Decontamination, Error> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let settings = DecontaminationSettings { action, ..DecontaminationSettings::default() };
        Decontamination::read(&settings, &[folder.path().to_path_buf()])
    }

    fn items() -> Vec<(&'static str, String)> {
        vec![
            (
                "a.jsonl",
                format!(
                    "{{\"question\": {QUESTION:?}, \"choices\": [\"Ναύπλιο\", \"Πάτρα\"], \"answer\": 0}}\n"
                ),
            ),
            ("b.tsv", format!("index\ttext\n7\t{SHORT}\n")),
        ]
    }

    #[test]
    fn items_are_found_whole_and_in_part() {
        let items = items();
        let items: Vec<(&str, &str)> = items.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let read = sets(Action::Drop, &items).unwrap();
        let mut words = Words::default();
        let mut check = |text: &str, expected: Option<&str>| {
            let set = match read.judge(text, &mut words) {
                Outcome::Free => None,
                Outcome::Dropped(drop) => {
                    Some(drop.evidence["set"].as_str().unwrap().rsplit('/').next().unwrap().to_string())
                }
                Outcome::Cut(_) => panic!("nothing is cut"),
            };
            assert_eq!(set.as_deref(), expected, "{text}");
        };
        check(&format!("Πρώτα λίγα λόγια. {} Τέλος.", QUESTION.to_uppercase().replace('Σ', "σ")), None);
        check(&format!("Πρώτα λίγα λόγια.\n\n{}\nΤέλος.", QUESTION.replace(", ", " – ")), Some("a.jsonl"));
        let middle = QUESTION.split_whitespace().skip(3).take(13).collect::<Vec<_>>().join(" ");
        check(&format!("Άλλα {middle} άλλα"), Some("a.jsonl"));
        let too_little = QUESTION.split_whitespace().skip(3).take(12).collect::<Vec<_>>().join(" ");
        check(&format!("Άλλα {too_little} άλλα"), None);
        check(&format!("Mistoqsija: {SHORT} Għawdex le."), Some("b.tsv"));
        check("X'jismu l-gżira l-aktar kbira?", None);
        check("", None);
        let statistics: Vec<&SetStatistics> = read.statistics().map(|(_, statistics)| statistics).collect();
        assert_eq!((statistics[0].texts, statistics[0].too_short), (1, 2));
        assert!(statistics.iter().all(|set| set.planted == 1 && set.found == 1));
    }

    #[test]
    fn cutting_takes_the_lines_that_repeat() {
        let items = items();
        let items: Vec<(&str, &str)> = items.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let read = sets(Action::Cut, &items).unwrap();
        let mut words = Words::default();
        let text = format!("Το πρώτο.\n\nΕρώτηση: {QUESTION}\n\nΤο τρίτο.\n{SHORT}");
        assert_eq!(read.judge(&text, &mut words), Outcome::Cut("Το πρώτο.\n\nΤο τρίτο.".to_string()));
        assert!(matches!(read.judge(QUESTION, &mut words), Outcome::Dropped(_)));
    }

    #[test]
    fn sets_without_anything_to_look_for_are_errors() {
        let check = |files: &[(&str, &str)], expected: &str| {
            let message = sets(Action::Drop, files).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(&[], "no files");
        check(&[("a.txt", "")], "nothing would be looked for");
        check(&[("a.txt", "one two three\n")], "1 shorter ones");
        check(&[("a.jsonl", "not JSON\n")], "a.jsonl");
        check(&[("a.parquet", "PAR1")], "expected .jsonl");
        let missing =
            Decontamination::read(&DecontaminationSettings::default(), &["/nowhere/set.txt".into()]);
        assert!(missing.unwrap_err().to_string().contains("/nowhere/set.txt"));
        let settings =
            DecontaminationSettings { fields: vec!["prompt".into()], ..DecontaminationSettings::default() };
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.jsonl"), &items()[0].1).unwrap();
        let message = Decontamination::read(&settings, &[folder.path().into()]).unwrap_err().to_string();
        assert!(message.contains("in the fields prompt"), "{message}");
    }

    #[test]
    fn the_proof_fails_when_nothing_can_be_found() {
        let items = items();
        let items: Vec<(&str, &str)> = items.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in &items {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let settings = DecontaminationSettings::default();
        let mut read = Decontamination::read(&settings, &[folder.path().to_path_buf()]).unwrap();
        read.samples = vec![(0, QUESTION.to_string())];
        read.ngrams.clear();
        let message = read.prove().unwrap_err().to_string();
        assert!(message.contains("a.jsonl") && message.contains("not found"), "{message}");
    }

    #[test]
    fn settings_are_checked() {
        let check = |minimum_words: usize, ngram_words: usize, expected: &str| {
            let settings =
                DecontaminationSettings { minimum_words, ngram_words, ..DecontaminationSettings::default() };
            assert!(settings.check().unwrap_err().to_string().contains(expected));
        };
        check(2, 13, "minimum_words");
        check(8, 7, "ngram_words");
    }
}
