//! Measures, on good text of each language, what the thresholds in `crates/languages/data/<code>.toml` limit, and proposes
//! values for them.
//!
//! `cargo run --release -p corpus --example measure_thresholds -- FOLDER [--write]`
//!
//! FOLDER is laid out as for `train_identifier`. Its texts are cut into pieces of about 1,000 characters, the length of a
//! short document; the bundled sample's documents count as they are. Pieces of what people or institutions published as
//! running text pass for good: a limit that half of a percent of them break is too tight. Each proposal therefore starts
//! from the 99.5th percentile (or the 0.5th) of the language and leaves room for text that is further from the ordinary
//! than any of this; it is never looser than the limit that Gopher and FineWeb-2 set for all languages alike, unless the
//! language itself needs it. With `--write` the proposals replace the numbers in the data files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use corpus::quality::{Measures, REPEATED_WORDS, TOP_WORDS};
use documents::read_shard;
use languages::Language;

const PIECE_CHARACTERS: usize = 1_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (flags, folders): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|argument| argument.starts_with("--"));
    let [folder] = folders[..] else {
        eprintln!("usage: measure_thresholds FOLDER [--write]");
        return ExitCode::FAILURE;
    };
    let write = flags.iter().any(|flag| *flag == "--write");
    println!("{HEADER}");
    for language in Language::all() {
        let done = pieces(Path::new(folder), language).and_then(|pieces| {
            let measures: Vec<Measures> = pieces.iter().map(|piece| Measures::of(piece, language)).collect();
            let proposal = Proposal::of(&measures);
            print_row(language, &measures, &proposal);
            if write { proposal.write(language) } else { Ok(()) }
        });
        if let Err(problem) = done {
            eprintln!("{problem}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

const HEADER: &str = "lang  pieces  word length     stop words      symbols  script  finished  \
    service  top 2, 3, 4 words     repeated 5 … 10 words";

/// The numbers that are measured; those that are not (lengths, lines seen before) stay as the files have them.
struct Proposal {
    minimum_mean_word_length: f64,
    maximum_mean_word_length: f64,
    maximum_symbol_share: f64,
    minimum_stop_word_share: f64,
    maximum_top_ngram_shares: [f64; 3],
    maximum_repeated_ngram_shares: [f64; 6],
    minimum_script_share: f64,
}

/// Gopher's limits (Rae et al. 2021, table A1), which FineWeb-2 varies by language.
const GOPHER_TOP: [f64; 3] = [0.20, 0.18, 0.16];
const GOPHER_REPEATED: [f64; 6] = [0.15, 0.14, 0.13, 0.12, 0.11, 0.10];

impl Proposal {
    fn of(measures: &[Measures]) -> Proposal {
        let at = |share: f64, of: &dyn Fn(&Measures) -> f64| percentile(measures, share, of);
        Proposal {
            minimum_mean_word_length: tenths(0.75 * at(0.01, &|m| m.mean_word_length)),
            maximum_mean_word_length: tenths(at(0.99, &|m| m.mean_word_length) * 4.0 / 3.0),
            // Half as much again as the oddest good text; tables of figures lie far above.
            maximum_symbol_share: hundredths((1.5 * at(0.995, &|m| m.symbol_share)).clamp(0.12, 0.20)),
            minimum_stop_word_share: hundredths(0.5 * at(0.01, &|m| m.stop_word_share)),
            // A language of long words and few articles repeats less: twice what good text does is its limit, but never
            // less than three quarters of Gopher's.
            maximum_top_ngram_shares: std::array::from_fn(|place| {
                let twice = 2.0 * at(0.995, &|m| m.repetition.top[place]);
                hundredths(twice.clamp(0.75 * GOPHER_TOP[place], 1.25 * GOPHER_TOP[place]))
            }),
            maximum_repeated_ngram_shares: std::array::from_fn(|place| {
                let twice = 2.0 * at(0.995, &|m| m.repetition.repeated[place]);
                hundredths(twice.clamp(0.75 * GOPHER_REPEATED[place], 1.5 * GOPHER_REPEATED[place]))
            }),
            // Foreign names and quotations beyond those of good text, at most a quarter of the letters.
            minimum_script_share: hundredths(
                (1.0 - 2.0 * (1.0 - at(0.005, &|m| m.script_share))).clamp(0.75, 0.90),
            ),
        }
    }

    /// Puts the numbers into the language's data file.
    fn write(&self, language: Language) -> Result<(), String> {
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../languages/data"))
            .join(format!("{language}.toml"));
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let list = |values: &[f64]| {
            let values: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
            format!("[{}]", values.join(", "))
        };
        let numbers = [
            ("minimum_mean_word_length", format!("{:.1}", self.minimum_mean_word_length)),
            ("maximum_mean_word_length", format!("{:.1}", self.maximum_mean_word_length)),
            ("maximum_symbol_share", format!("{:.2}", self.maximum_symbol_share)),
            ("minimum_stop_word_share", format!("{:.2}", self.minimum_stop_word_share)),
            ("maximum_top_ngram_shares", list(&self.maximum_top_ngram_shares)),
            ("maximum_repeated_ngram_shares", list(&self.maximum_repeated_ngram_shares)),
            ("minimum_script_share", format!("{:.2}", self.minimum_script_share)),
        ];
        let line = |line: &str| {
            let known = numbers.iter().find(|(key, _)| line.split(" = ").next() == Some(*key));
            known.map_or_else(|| format!("{line}\n"), |(key, value)| format!("{key} = {value}\n"))
        };
        let text: String = text.lines().map(line).collect();
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

fn print_row(language: Language, measures: &[Measures], proposal: &Proposal) {
    let at = |share: f64, of: &dyn Fn(&Measures) -> f64| percentile(measures, share, of);
    let shares =
        |values: &[f64]| values.iter().map(|value| format!("{value:.2}")).collect::<Vec<_>>().join(" ");
    let top: Vec<f64> = (0..TOP_WORDS.len()).map(|place| at(0.995, &|m| m.repetition.top[place])).collect();
    let repeated: Vec<f64> =
        (0..REPEATED_WORDS.len()).map(|place| at(0.995, &|m| m.repetition.repeated[place])).collect();
    println!(
        "{:4}  {:6}  {:.2} … {:.2}   {:.2} … {:.2}    {:.3}    {:.3}   {:.2}      {:.2}     {}        {}",
        language.code(),
        measures.len(),
        at(0.01, &|m| m.mean_word_length),
        at(0.99, &|m| m.mean_word_length),
        at(0.01, &|m| m.stop_word_share),
        at(0.99, &|m| m.stop_word_share),
        at(0.995, &|m| m.symbol_share),
        at(0.005, &|m| m.script_share),
        at(0.005, &|m| m.finished_line_share),
        at(0.995, &|m| m.service_line_share),
        shares(&top),
        shares(&repeated),
    );
    println!(
        "              {:.1} … {:.1}     {:.2}           {:.2}     {:.2}                      {}        {}",
        proposal.minimum_mean_word_length,
        proposal.maximum_mean_word_length,
        proposal.minimum_stop_word_share,
        proposal.maximum_symbol_share,
        proposal.minimum_script_share,
        shares(&proposal.maximum_top_ngram_shares),
        shares(&proposal.maximum_repeated_ngram_shares),
    );
}

/// The value that this share of the texts stays below.
fn percentile(measures: &[Measures], share: f64, of: &dyn Fn(&Measures) -> f64) -> f64 {
    let mut values: Vec<f64> = measures.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The language's texts in pieces of about the same length.
fn pieces(folder: &Path, language: Language) -> Result<Vec<String>, String> {
    let read = |name: String| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut lines: Vec<String> = Vec::new();
    for split in ["train", "dev"] {
        let sentences = read(format!("sib200/{language}.{split}.tsv"))?;
        lines.extend(sentences.lines().skip(1).filter_map(|line| line.split('\t').nth(2)).map(str::to_owned));
    }
    lines.extend(read(format!("udhr/{language}.txt"))?.lines().map(str::to_owned));
    for document in read(format!("ud/{language}.jsonl")).unwrap_or_default().lines() {
        let document: serde_json::Value =
            serde_json::from_str(document).map_err(|error| error.to_string())?;
        lines.extend(document["text"].as_str().unwrap_or_default().lines().map(str::to_owned));
    }
    let mut pieces = vec![String::new()];
    for line in lines {
        if pieces.last().is_some_and(|piece| piece.chars().count() >= PIECE_CHARACTERS) {
            pieces.push(String::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push_str(&line);
            piece.push('\n');
        }
    }
    let sample = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/tiny/documents"));
    let sample = read_shard(&sample.join(format!("{language}.jsonl"))).map_err(|error| error.to_string())?;
    for document in sample {
        pieces.push(document.map_err(|error| error.to_string())?.text);
    }
    Ok(pieces)
}
