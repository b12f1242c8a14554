//! Trains a vocabulary on a corpus folder and prints what it costs in each language, with the time that it took.
//!
//! `cargo run --release -p tokenizer --example train_tokenizer -- CORPUS OUTPUT VOCABULARY_SIZE [PARALLEL]`

use std::path::PathBuf;
use std::time::Instant;

use provenance::{Context, StageOutput};
use tokenizer::{Settings, Tokenizer, build};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(corpus), Some(output), Some(vocabulary_size)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: train_tokenizer CORPUS OUTPUT VOCABULARY_SIZE [PARALLEL]".into());
    };
    let parallel = arguments.next().map(PathBuf::from);
    let output = StageOutput { payload: PathBuf::from(&output), scratch: PathBuf::from(&output) };
    std::fs::create_dir_all(&output.payload)?;
    let settings = Settings { vocabulary_size: vocabulary_size.parse()?, ..Settings::default() };
    let threads = std::thread::available_parallelism()?.get();
    let start = Instant::now();
    let report =
        build(&settings, &PathBuf::from(corpus), parallel.as_deref(), &output, &Context::quiet(threads))?;
    let bytes: u64 = report
        .fairness
        .languages
        .values()
        .filter_map(|language| language.training)
        .map(|cost| cost.bytes)
        .sum();
    println!(
        "{} entries from {:.1} MB, {} distinct pieces, in {:.2} s on {threads} threads",
        report.vocabulary_size,
        bytes as f64 / 1e6,
        report.distinct_pieces,
        start.elapsed().as_secs_f64()
    );
    print!("{}", report.fairness.to_markdown());
    if let Some(folder) = parallel {
        encoding_speed(&Tokenizer::load(&output.payload)?.remembering_words(), &folder)?;
    }
    Ok(())
}

fn encoding_speed(tokenizer: &Tokenizer, folder: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder)? {
        text.push_str(&std::fs::read_to_string(entry?.path())?);
    }
    let start = Instant::now();
    let mut tokens = 0;
    for line in text.lines() {
        tokens += tokenizer.encode_ordinary(line)?.len();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("encoding: {:.2} MB/s on one thread, {tokens} tokens", text.len() as f64 / 1e6 / seconds);
    Ok(())
}
