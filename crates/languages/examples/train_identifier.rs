//! Learns the numbers of the language identifier from a folder of texts and writes `crates/languages/data/identifier.bin`.
//!
//! `cargo run --release -p languages --example train_identifier -- FOLDER [--without-sib] [--without-dev] [--output FILE]`
//!
//! FOLDER holds `sib200/<code>.{train,dev}.tsv`, `udhr/<code>.txt` and, for some languages, `ud/<code>.jsonl`; each of the
//! 38 languages needs the first two. Nothing is drawn at random: the same texts give the same bytes.
//!
//! How: n-grams are counted by language, in the parallel texts (SIB-200, Universal Declaration) and in the treebanks
//! apart. The parallel texts say how languages differ when they say the same; the treebanks, which not all languages have,
//! only add words: a feature's share is the greater of its share there and 0.3 of its share here. On the `dev` sentences,
//! with numbers learned from `train` alone, the bias between Croatian and Bosnian and the calibration of the probabilities
//! are chosen; then all is counted again with `dev` included. `--without-sib` shows how well that carries over to text of
//! another kind, `--without-dev` leaves `dev` for comparing variants.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use languages::identifier::{
    Entry, FeatureKind, Identifier, LABEL_COUNT, LARGEST_WEIGHT, LabelParameters, Model, Parameters,
    feature_kind, features, label_code,
};

/// Share of a language's features below which nothing counts: one in a text of 20,000 letters. Of 1e-6 to 1e-4, the
/// middle of the range in which neighbours with little training text are kept apart best.
const FLOOR: f64 = 1e-5;
/// How much the treebanks count beside the parallel texts.
const TREEBANK_SHARE: f64 = 0.3;
/// Features that occur less often are left out, so that the table fits into a core's second-level cache: n-grams of two
/// and three letters, n-grams of four, words. With 8, 8 and 8 (119,000 features instead of 50,000) the dev sentences come
/// out the same and the snippets a little better (96.8 % against 96.6 %), at two thirds of the speed.
const LEAST_OCCURRENCES: [u32; 3] = [16, 64, 12];
/// Weights are stored in steps of this size, in nats, rounded down. With steps of 0.3, rounded to the nearest, there are
/// half as many weights again and the dev sentences come out the same; with 0.6, worse.
const STEP_NATS: f32 = 0.4;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut folder = None;
    let mut with_sib = true;
    let mut with_dev = true;
    let mut output = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data/identifier.bin"));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--without-sib" => with_sib = false,
            "--without-dev" => with_dev = false,
            "--output" => output = arguments.next().ok_or("--output needs a file")?.into(),
            _ => folder = Some(PathBuf::from(argument)),
        }
    }
    let folder =
        folder.ok_or("usage: train_identifier FOLDER [--without-sib] [--without-dev] [--output FILE]")?;

    let mut texts = Texts::read(&folder)?;
    if !with_sib {
        texts.forget_sib();
    }
    let first = learn(&texts, &[Split::Train]);
    let parameters = calibrate(&first, &texts.dev)?;
    let splits: &[Split] = if with_dev { &[Split::Train, Split::Dev] } else { &[Split::Train] };
    let model = Model { parameters, features: learn(&texts, splits) };
    let bytes = model.to_bytes();
    std::fs::write(&output, &bytes).map_err(|error| format!("{}: {error}", output.display()))?;
    let entries: usize = model.features.iter().map(|(_, entries)| entries.len()).sum();
    println!(
        "{}: {} features, {entries} weights, {} bytes; calibration {:?}",
        output.display(),
        model.features.len(),
        bytes.len(),
        model.parameters.calibration
    );
    Ok(())
}

#[derive(Clone, Copy)]
enum Split {
    Train,
    Dev,
}

/// Lines of text by label.
struct Texts {
    train: Vec<Vec<String>>,
    dev: Vec<Vec<String>>,
    declaration: Vec<Vec<String>>,
    treebank: Vec<Vec<String>>,
}

impl Texts {
    /// Does without SIB-200: every fifth line of the declaration takes the place of its dev sentences.
    fn forget_sib(&mut self) {
        self.train = vec![Vec::new(); LABEL_COUNT];
        for (dev, declaration) in self.dev.iter_mut().zip(&mut self.declaration) {
            let mut number = 0;
            *dev = declaration
                .extract_if(.., |_| {
                    number += 1;
                    number % 5 == 0
                })
                .collect();
        }
    }

    fn read(folder: &Path) -> Result<Texts, String> {
        let each = |read: &dyn Fn(&str) -> Result<Vec<String>, String>| -> Result<Vec<Vec<String>>, String> {
            (0..LABEL_COUNT).map(|label| read(label_code(label))).collect()
        };
        let sentences = |split: &str| {
            each(&|code| {
                let text = read(&folder.join(format!("sib200/{code}.{split}.tsv")))?;
                Ok(text
                    .lines()
                    .skip(1)
                    .filter_map(|line| line.split('\t').nth(2))
                    .map(str::to_owned)
                    .collect())
            })
        };
        Ok(Texts {
            train: sentences("train")?,
            dev: sentences("dev")?,
            declaration: each(&|code| {
                let text = read(&folder.join(format!("udhr/{code}.txt")))?;
                Ok(text.lines().map(str::to_owned).collect())
            })?,
            treebank: each(&|code| {
                let path = folder.join(format!("ud/{code}.jsonl"));
                if !path.exists() {
                    return Ok(Vec::new());
                }
                read(&path)?
                    .lines()
                    .map(|line| {
                        let document: serde_json::Value = serde_json::from_str(line)
                            .map_err(|error| format!("{}: {error}", path.display()))?;
                        let text = document["text"].as_str();
                        Ok(text
                            .ok_or_else(|| format!("{}: a document without `text`", path.display()))?
                            .to_owned())
                    })
                    .collect()
            })?,
        })
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Occurrences of a feature by label: in the parallel texts, in the treebanks.
type Counts = HashMap<u64, [[u32; LABEL_COUNT]; 2]>;

/// Weights of the features, sorted by key.
fn learn(texts: &Texts, splits: &[Split]) -> Vec<(u64, Vec<Entry>)> {
    let mut counts = Counts::new();
    let mut totals = [[0u64; LABEL_COUNT]; 2];
    let mut count = |kind: usize, lines: &[Vec<String>]| {
        for (label, lines) in lines.iter().enumerate() {
            for line in lines {
                features(line, |key| {
                    counts.entry(key).or_insert([[0; LABEL_COUNT]; 2])[kind][label] += 1;
                    totals[kind][label] += 1;
                });
            }
        }
    };
    for split in splits {
        match split {
            Split::Train => count(0, &texts.train),
            Split::Dev => count(0, &texts.dev),
        }
    }
    count(0, &texts.declaration);
    count(1, &texts.treebank);
    let mut learned: Vec<(u64, Vec<Entry>)> = counts
        .into_iter()
        .filter(|(key, counts)| {
            let kind = match feature_kind(*key) {
                FeatureKind::ShortNgram => 0,
                FeatureKind::LongNgram => 1,
                FeatureKind::Word => 2,
            };
            counts.iter().flatten().sum::<u32>() >= LEAST_OCCURRENCES[kind]
        })
        .map(|(key, counts)| {
            let share = |kind: usize, label: usize| {
                f64::from(counts[kind][label]) / totals[kind][label].max(1) as f64
            };
            let weight = |label: usize| {
                let share = share(0, label).max(TREEBANK_SHARE * share(1, label));
                let steps = (1.0 + share / FLOOR).ln() / f64::from(STEP_NATS);
                (steps as u8).min(LARGEST_WEIGHT)
            };
            let entries = (0..LABEL_COUNT).map(|label| (label as u8, weight(label)));
            (key, entries.filter(|(_, weight)| *weight > 0).collect::<Vec<Entry>>())
        })
        .filter(|(_, entries)| !entries.is_empty())
        .collect();
    learned.sort_unstable_by_key(|(key, _)| *key);
    learned
}

/// A text's score by label, in nats per letter, its letters and its true label.
struct Example {
    nats_per_letter: [f32; LABEL_COUNT],
    letters: f32,
    label: usize,
}

/// Chooses on the dev sentences what holds for all features.
fn calibrate(features: &[(u64, Vec<Entry>)], dev: &[Vec<String>]) -> Result<Parameters, String> {
    let mut parameters = Parameters {
        step_nats: STEP_NATS,
        calibration: [1.0, 0.0],
        labels: vec![LabelParameters::default(); LABEL_COUNT],
    };
    let identifier = Identifier::new(Model { parameters: parameters.clone(), features: features.to_vec() })?;
    let sentences = examples(&identifier, dev, &|lines| lines.to_vec());
    for label in 0..LABEL_COUNT {
        parameters.labels[label].usual_score = usual_score(&sentences, label);
    }
    let croatian = (0..LABEL_COUNT).find(|label| label_code(*label) == "hr").unwrap_or(0);
    let bosnian = (0..LABEL_COUNT).find(|label| label_code(*label) == "bs").unwrap_or(0);
    parameters.labels[croatian].bias_per_letter = bias_between(&sentences, croatian, bosnian);
    // Calibration must hold for snippets and for paragraphs too.
    let snippets = examples(&identifier, dev, &|lines| {
        lines.iter().map(|line| line.chars().take(30).collect()).collect()
    });
    let paragraphs =
        examples(&identifier, dev, &|lines| lines.chunks(5).map(|lines| lines.join(" ")).collect());
    let all: Vec<&Example> = sentences.iter().chain(&snippets).chain(&paragraphs).collect();
    parameters.calibration = best_calibration(&all, &parameters);
    Ok(parameters)
}

fn examples(
    identifier: &Identifier,
    dev: &[Vec<String>],
    cut: &dyn Fn(&[String]) -> Vec<String>,
) -> Vec<Example> {
    let mut examples = Vec::new();
    for (label, lines) in dev.iter().enumerate() {
        for text in cut(lines) {
            let scores = identifier.scores(&text);
            if scores.letters > 0 {
                let letters = scores.letters as f32;
                let nats_per_letter = scores.steps.map(|steps| steps as f32 * STEP_NATS / letters);
                examples.push(Example { nats_per_letter, letters, label });
            }
        }
    }
    examples
}

/// Mean score of a label's own sentences, and the deviation that a text of one letter would have.
fn usual_score(sentences: &[Example], label: usize) -> [f32; 2] {
    let own: Vec<&Example> = sentences.iter().filter(|example| example.label == label).collect();
    let count = own.len().max(1) as f32;
    let mean = own.iter().map(|example| example.nats_per_letter[label]).sum::<f32>() / count;
    let squares = own.iter().map(|example| (example.nats_per_letter[label] - mean).powi(2) * example.letters);
    [mean, (squares.sum::<f32>() / count).sqrt()]
}

/// Bias for one of two languages that overlap: the smallest with which 85 % of its sentences are recognised.
fn bias_between(sentences: &[Example], wanted: usize, rival: usize) -> f32 {
    let own = sentences.iter().filter(|example| example.label == wanted);
    let mut lacking: Vec<f32> =
        own.map(|example| example.nats_per_letter[rival] - example.nats_per_letter[wanted]).collect();
    lacking.sort_by(f32::total_cmp);
    lacking.get(lacking.len() * 85 / 100).map_or(0.0, |lacking| lacking.max(0.0))
}

/// Scale and exponent that give the true labels the highest probability, by trying a grid.
fn best_calibration(examples: &[&Example], parameters: &Parameters) -> [f32; 2] {
    let loss = |calibration: [f32; 2]| -> f64 {
        let one = |example: &&Example| {
            let sharpness = calibration[0] * example.letters.powf(1.0 + calibration[1]);
            let value = |label: usize| {
                f64::from(
                    sharpness * (example.nats_per_letter[label] + parameters.labels[label].bias_per_letter),
                )
            };
            let highest = (0..LABEL_COUNT).map(value).fold(f64::MIN, f64::max);
            let sum: f64 = (0..LABEL_COUNT).map(|label| (value(label) - highest).exp()).sum();
            highest + sum.ln() - value(example.label)
        };
        examples.iter().map(one).sum()
    };
    let mut best = (f64::MAX, [1.0, 0.0]);
    for scale in (1..=40).map(|step| 0.05 * step as f32) {
        for exponent in (0..=12).map(|step| -0.05 * step as f32) {
            let loss = loss([scale, exponent]);
            if loss < best.0 {
                best = (loss, [scale, exponent]);
            }
        }
    }
    best.1
}
