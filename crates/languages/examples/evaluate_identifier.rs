//! Measures the language identifier on SIB-200's test sentences, which nothing was trained on.
//!
//! `cargo run --release -p languages --example evaluate_identifier -- FOLDER [--model FILE] [--split dev]`
//!
//! Choices are made on `dev`, with a model trained `--without-dev`; `test` only measures what was chosen.
//! Prints, for whole sentences, snippets of 20 to 40 characters and five sentences together: the accuracy of each
//! language with all 38 and `other` in the choice, the mean over the 24, and the confusions. How fast the same model is,
//! used in the same way, `measure_identifier_speed` says.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use languages::LANGUAGE_COUNT;
use languages::identifier::{Identifier, LABEL_COUNT, Model, label_code};

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
    let mut model = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/data/identifier.bin"));
    let mut split = "test".to_owned();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--model" => model = arguments.next().ok_or("--model needs a file")?.into(),
            "--split" => split = arguments.next().ok_or("--split needs `dev` or `test`")?,
            _ => folder = Some(PathBuf::from(argument)),
        }
    }
    let folder = folder.ok_or("usage: evaluate_identifier FOLDER [--model FILE]")?;
    let bytes = std::fs::read(&model).map_err(|error| format!("{}: {error}", model.display()))?;
    let identifier = Identifier::new(Model::from_bytes(&bytes)?)?;
    let mut sentences: Vec<(usize, String)> = Vec::new();
    for label in 0..LABEL_COUNT {
        let path = folder.join(format!("sib200/{}.{split}.tsv", label_code(label)));
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let own = text.lines().skip(1).filter_map(|line| line.split('\t').nth(2));
        sentences.extend(own.map(|sentence| (label, sentence.to_owned())));
    }
    report("whole sentences", &identifier, &sentences);
    report("snippets of 20 to 40 characters", &identifier, &snippets(&sentences));
    report("five sentences together", &identifier, &five_together(&sentences));
    Ok(())
}

/// The first words of each sentence, up to 40 characters; shorter than 20 is left out.
fn snippets(sentences: &[(usize, String)]) -> Vec<(usize, String)> {
    let cut = |text: &str| {
        let mut snippet = String::new();
        for word in text.split_inclusive(' ') {
            if snippet.chars().count() + word.trim_end().chars().count() > 40 {
                break;
            }
            snippet.push_str(word);
        }
        snippet.trim_end().to_owned()
    };
    let snippets = sentences.iter().map(|(label, text)| (*label, cut(text)));
    snippets.filter(|(_, snippet)| snippet.chars().count() >= 20).collect()
}

fn five_together(sentences: &[(usize, String)]) -> Vec<(usize, String)> {
    let mut joined = Vec::new();
    for label in 0..LABEL_COUNT {
        let own: Vec<&str> =
            sentences.iter().filter(|(own, _)| *own == label).map(|(_, text)| text.as_str()).collect();
        joined.extend(own.chunks_exact(5).map(|five| (label, five.join(" "))));
    }
    joined
}

fn report(name: &str, identifier: &Identifier, texts: &[(usize, String)]) {
    let mut right = [0u32; LABEL_COUNT];
    let mut all = [0u32; LABEL_COUNT];
    let mut confusions: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    let (mut certainty, mut correct) = (0.0f64, 0u32);
    for (label, text) in texts {
        let found = identifier.identify(text);
        all[*label] += 1;
        certainty += f64::from(found.score);
        if found.code == label_code(*label) {
            right[*label] += 1;
            correct += 1;
        } else {
            *confusions.entry((label_code(*label), found.code)).or_default() += 1;
        }
    }
    let accuracy = |label: usize| 100.0 * f64::from(right[label]) / f64::from(all[label].max(1));
    let mean =
        |labels: std::ops::Range<usize>| labels.clone().map(accuracy).sum::<f64>() / labels.len() as f64;
    println!(
        "\n## {name}: {:.2} % over the 24, {:.2} % over all {LABEL_COUNT} ({} texts; mean probability {:.2} %, right {:.2} %)",
        mean(0..LANGUAGE_COUNT),
        mean(0..LABEL_COUNT),
        texts.len(),
        100.0 * certainty / texts.len() as f64,
        100.0 * f64::from(correct) / texts.len() as f64,
    );
    let row: Vec<String> =
        (0..LABEL_COUNT).map(|label| format!("{} {:.1}", label_code(label), accuracy(label))).collect();
    println!("{}", row.join("  "));
    let mut confusions: Vec<_> = confusions.into_iter().collect();
    confusions.sort_by_key(|(pair, count)| (std::cmp::Reverse(*count), *pair));
    let shown: Vec<String> =
        confusions.iter().take(15).map(|((from, to), count)| format!("{from}→{to} {count}")).collect();
    println!("confusions: {}", shown.join("  "));
}
