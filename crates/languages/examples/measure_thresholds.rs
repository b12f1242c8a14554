//! Measures, on real text, what the thresholds in `data/<code>.toml` limit, and proposes values for those that differ from
//! language to language.
//!
//! `cargo run --release -p languages --example measure_thresholds -- FOLDER`
//!
//! FOLDER is laid out as for `train_identifier`. Texts are cut into pieces of about 1,000 characters, the length of a
//! short document; of each measure the table shows the 1st percentile, the middle and the 99th. A proposal leaves room
//! for text that is further from the ordinary than any of this: half of the lowest stop-word share, word lengths from
//! three quarters of the shortest mean to four thirds of the longest.

use std::path::Path;
use std::process::ExitCode;

use languages::{Language, Script, words};

const PIECE_CHARACTERS: usize = 1_000;

fn main() -> ExitCode {
    let Some(folder) = std::env::args().nth(1) else {
        eprintln!("usage: measure_thresholds FOLDER");
        return ExitCode::FAILURE;
    };
    println!(
        "language  pieces  mean word length      stop-word share       symbol share          script share          proposal"
    );
    for language in Language::all() {
        match pieces(Path::new(&folder), language) {
            Ok(pieces) => print_row(language, &pieces),
            Err(problem) => {
                eprintln!("{problem}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn print_row(language: Language, pieces: &[String]) {
    let measure = |of: &dyn Fn(&str) -> f64| {
        let mut values: Vec<f64> = pieces.iter().map(|piece| of(piece)).collect();
        values.sort_by(f64::total_cmp);
        [1, 50, 99].map(|percent| values[(values.len() - 1) * percent / 100])
    };
    let lengths = measure(&mean_word_length);
    let stop_words = measure(&|text| share(words(text).map(|word| language.is_stop_word(&word))));
    let symbols = measure(&|text| share(text.chars().map(is_symbol)));
    let scripts = measure(&|text| {
        let letters = text.chars().filter(|character| character.is_alphabetic());
        share(letters.map(|letter| Script::of(letter) == language.script()))
    });
    let show = |values: [f64; 3]| format!("{:5.3} {:5.3} {:5.3}", values[0], values[1], values[2]);
    println!(
        "{language:8}  {:6}  {}     {}     {}     {}     {:.1}–{:.1}, {:.2}",
        pieces.len(),
        show(lengths),
        show(stop_words),
        show(symbols),
        show(scripts),
        0.75 * lengths[0],
        lengths[2] * 4.0 / 3.0,
        0.5 * stop_words[0],
    );
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
    Ok(pieces)
}

fn mean_word_length(text: &str) -> f64 {
    let lengths: Vec<usize> = words(text).map(|word| word.chars().count()).collect();
    lengths.iter().sum::<usize>() as f64 / lengths.len().max(1) as f64
}

/// What the corpus stage counts as a symbol: digits, currency signs, brackets other than round ones and the like.
fn is_symbol(character: char) -> bool {
    !(character.is_alphabetic()
        || character.is_whitespace()
        || matches!(character, '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '"' | '(' | ')' | '-')
        || matches!(character, '\u{300}'..='\u{36F}' | '\u{2010}'..='\u{2026}' | '«' | '»' | '‹' | '›' | '·' | '¿' | '¡'))
}

fn share(values: impl Iterator<Item = bool>) -> f64 {
    let (count, hits) =
        values.fold((0usize, 0usize), |(count, hits), hit| (count + 1, hits + usize::from(hit)));
    hits as f64 / count.max(1) as f64
}
