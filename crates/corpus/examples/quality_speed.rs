//! How fast quality is judged on one core: `cargo run --release -p corpus --example quality_speed`.
//!
//! Documents of 3 KB made of the bundled sample's sentences, the middle of what web pages have, by language.

use std::path::PathBuf;
use std::time::Instant;

use corpus::quality::Measures;
use documents::read_shard;
use languages::Language;

const DOCUMENT_BYTES: usize = 3_000;
const SECONDS: f64 = 0.3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sample = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/tiny/documents"));
    println!("language   ns per byte   MB/s");
    let mut all = 0.0;
    for language in Language::all() {
        let mut texts = vec![String::new()];
        for document in read_shard(&sample.join(format!("{language}.jsonl")))? {
            let last = texts.last_mut().ok_or("there is a text")?;
            last.push_str(&document?.text);
            last.push('\n');
            if last.len() >= DOCUMENT_BYTES {
                texts.push(String::new());
            }
        }
        let (mut bytes, mut words) = (0, 0);
        let started = Instant::now();
        while started.elapsed().as_secs_f64() < SECONDS {
            for text in &texts {
                bytes += text.len();
                words += Measures::of(text, language).words;
            }
        }
        let nanoseconds = started.elapsed().as_secs_f64() * 1e9 / bytes as f64;
        assert!(words > 0);
        all += nanoseconds;
        println!("{language:8}   {nanoseconds:11.2}   {:4.0}", 1e3 / nanoseconds);
    }
    println!("mean       {:11.2}", all / 24.0);
    Ok(())
}
