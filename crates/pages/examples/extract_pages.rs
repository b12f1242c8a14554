//! The text of web pages: `cargo run --release -p pages --example extract_pages -- FOLDER [ROUNDS]`.
//!
//! Reads the folder that `make_pages` wrote, prints one JSON object a page with its name and text, and at last how long
//! the pages took: the best of the rounds, on one thread, without reading and writing files.

use std::path::Path;
use std::time::Instant;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("the folder with the pages comes first");
    let rounds: usize = arguments.next().map_or(1, |number| number.parse().expect("rounds: a number"));
    let list = std::fs::read_to_string(Path::new(&folder).join("pages.jsonl")).expect("pages.jsonl");
    let pages: Vec<(String, String, Vec<u8>)> = list
        .lines()
        .map(|line| {
            let page: serde_json::Value = serde_json::from_str(line).expect("one object a line");
            let name = page["name"].as_str().expect("name").to_string();
            let content_type = page["content_type"].as_str().expect("content_type").to_string();
            let bytes = std::fs::read(Path::new(&folder).join(format!("{name}.html"))).expect("the page");
            (name, content_type, bytes)
        })
        .collect();
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        for (_, content_type, bytes) in &pages {
            std::hint::black_box(pages::extract(bytes, Some(content_type), None));
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    for (name, content_type, bytes) in &pages {
        let page = pages::extract(bytes, Some(content_type), None);
        println!("{}", serde_json::json!({"name": name, "text": page.text, "encoding": page.encoding}));
    }
    let bytes: usize = pages.iter().map(|(_, _, bytes)| bytes.len()).sum();
    println!("{}", serde_json::json!({"pages": pages.len(), "bytes": bytes, "seconds": best}));
}
