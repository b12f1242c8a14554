//! Writes the test's web pages to a folder: `cargo run --release -p pages --example make_pages -- FOLDER [PAGES_EACH]`.
//!
//! Each page is `<language>-<layout>-<number>.html` beside its expected text, `….txt`; `pages.jsonl` lists them with
//! what the server would say about them. `tools/bench/compare_pages.py` reads this folder.

#[path = "../tests/it/site.rs"]
mod site;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// These layouts are measured only: no rule of the extractor was chosen by looking at them.
const HELD_OUT: [&str; 6] = ["feature", "guide", "answers", "builder", "ticker", "homepage"];

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("the folder to write to comes first"));
    let pages_each =
        arguments.next().map_or(2, |number| number.parse().expect("pages of each layout: a number"));
    fs::create_dir_all(&folder)?;
    let mut list = String::new();
    for language in site::LANGUAGES {
        for page in site::pages(language, pages_each, &site::VARIANTS) {
            fs::write(folder.join(format!("{}.html", page.name)), &page.bytes)?;
            fs::write(folder.join(format!("{}.txt", page.name)), &page.expected)?;
            let line = serde_json::json!({
                "name": page.name, "language": page.language, "layout": page.layout, "variant": page.variant,
                "held_out": HELD_OUT.contains(&page.layout),
                "content_type": page.content_type, "encoding": page.encoding.name(),
            });
            writeln!(list, "{line}").expect("a string takes everything");
        }
    }
    fs::write(folder.join("pages.jsonl"), list)
}
