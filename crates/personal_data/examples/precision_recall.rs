//! Precision and recall on the test set in 24 languages, per kind, per kind and language, and per form of a number:
//! `cargo run --release -p personal_data --example precision_recall -- [tune|held_out] [--faults] [--unknown-language]`.
//!
//! With `--unknown-language` the detector is not told which language a text is in. `--faults` prints every text in which something was missed or found wrongly. Last comes how many of a hundred thousand
//! random numbers without a word beside them are taken for personal data, by language and number of digits.

#[path = "../tests/it/test_set.rs"]
mod test_set;

use std::collections::BTreeMap;

use languages::Language;
use personal_data::{PersonalData, find};
use test_set::{Half, Score};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let halves = match arguments.iter().find(|argument| !argument.starts_with("--")).map(String::as_str) {
        Some("tune") => vec![Half::Tune],
        Some("held_out") => vec![Half::HeldOut],
        _ => vec![Half::Tune, Half::HeldOut],
    };
    let with_faults = arguments.iter().any(|argument| argument == "--faults");
    let is_unknown = arguments.iter().any(|argument| argument == "--unknown-language");
    let cases = test_set::read();
    for half in halves {
        let mut kinds: BTreeMap<PersonalData, Score> = BTreeMap::new();
        let mut languages: BTreeMap<&str, BTreeMap<PersonalData, Score>> = BTreeMap::new();
        let mut forms: BTreeMap<(PersonalData, &str), Score> = BTreeMap::new();
        for case in cases.iter().filter(|case| case.half == half) {
            let compared = test_set::compare(case, (!is_unknown).then_some(case.language));
            for (kind, score) in &compared.scores {
                kinds.entry(*kind).or_default().add(*score);
                languages.entry(case.language.code()).or_default().entry(*kind).or_default().add(*score);
            }
            for expected in &case.expected {
                let missed = compared.missed.iter().any(|missed| missed.start == expected.start);
                let score = Score { hits: usize::from(!missed), missed: usize::from(missed), wrong: 0 };
                forms.entry((expected.kind, &expected.form)).or_default().add(score);
            }
            if with_faults && !(compared.missed.is_empty() && compared.wrong.is_empty()) {
                println!("{} {}", case.language, case.text);
                for missed in &compared.missed {
                    println!(
                        "    missed {:?} {}: {}",
                        missed.kind,
                        missed.form,
                        &case.text[missed.start..missed.end]
                    );
                }
                for wrong in &compared.wrong {
                    println!("    wrong {:?}: {}", wrong.kind, &case.text[wrong.range.clone()]);
                }
            }
        }
        print_tables(half, &kinds, &languages, &forms);
    }
    print_chance();
}

/// Random numbers of 7 to 16 digits, alone between two full stops.
fn print_chance() {
    const NUMBERS: usize = 100_000;
    const DIGITS: std::ops::RangeInclusive<usize> = 7..=16;
    println!("\nof {NUMBERS} random numbers without a word");
    print!("digits");
    DIGITS.for_each(|digits| print!("{digits:>6}"));
    println!();
    let mut state = 1u64;
    let mut draw = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 17
    };
    for language in Language::all() {
        print!("{:<6}", language.code());
        for digits in DIGITS {
            let mut numbers = String::new();
            for _ in 0..NUMBERS {
                let number: String = (0..digits).map(|_| char::from(b'0' + (draw() % 10) as u8)).collect();
                numbers.push_str(&format!(". {number}.\n"));
            }
            print!("{:>6}", find(&numbers, Some(language)).len());
        }
        println!();
    }
}

fn print_tables(
    half: Half,
    kinds: &BTreeMap<PersonalData, Score>,
    languages: &BTreeMap<&str, BTreeMap<PersonalData, Score>>,
    forms: &BTreeMap<(PersonalData, &str), Score>,
) {
    println!("\n{half:?}");
    println!("{:<20}{:>7}{:>8}{:>7}{:>11}{:>8}", "kind", "hits", "missed", "wrong", "precision", "recall");
    for (kind, score) in kinds {
        let name = format!("{kind:?}");
        let Score { hits, missed, wrong } = score;
        println!(
            "{name:<20}{hits:>7}{missed:>8}{wrong:>7}{:>11.4}{:>8.4}",
            score.precision(),
            score.recall()
        );
    }
    println!("\nprecision / recall in per cent");
    print!("{:<4}", "");
    kinds.keys().for_each(|kind| print!("{:>20}", format!("{kind:?}")));
    println!();
    for (language, scores) in languages {
        print!("{language:<4}");
        for kind in kinds.keys() {
            let score = scores.get(kind).copied().unwrap_or_default();
            print!("{:>20}", format!("{:.1} / {:.1}", 100.0 * score.precision(), 100.0 * score.recall()));
        }
        println!();
    }
    println!("\nforms with recall under 1");
    for ((kind, form), score) in forms.iter().filter(|(_, score)| score.missed > 0) {
        println!("{:<20} {form:<20}{:>5} of {}", format!("{kind:?}"), score.hits, score.hits + score.missed);
    }
}
