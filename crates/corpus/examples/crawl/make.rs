//! Writes the files, `planted.jsonl`, `counts.json` and the opt-out ledger.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use documents::Document;
use flate2::Compression;
use flate2::write::GzEncoder;
use languages::Language;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::plan::{OPTED_OUT_SITE, Page, Plan, Plant};
use crate::words::Words;

/// Bytes of text that a document has in the mean: so a file's share of the documents is known before they are made.
const MEAN_BYTES: f64 = 1_885.0;
const SAMPLE: u64 = 20_000;
const SIMILARITY_LIMIT: f64 = 0.3;

/// A line of `planted.jsonl`.
#[derive(Serialize, Deserialize)]
pub struct Planted {
    pub url: String,
    pub plant: Plant,
    pub language: String,
    /// Address of what it repeats, and the Jaccard similarity of the two over five words.
    pub of: Option<String>,
    pub similarity: Option<f64>,
}

/// What `counts.json` holds.
#[derive(Serialize, Deserialize)]
pub struct Counts {
    pub documents: u64,
    pub text_bytes: u64,
    pub planted: BTreeMap<Plant, u64>,
}

pub fn make(folder: &Path, gigabytes: f64, seed: u64, file_megabytes: f64) -> Result<(), String> {
    let began = Instant::now();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/tiny");
    let languages = Language::all().map(|language| Ok((language, Words::of(language, &sample)?)));
    let plan = Plan { seed, languages: languages.collect::<Result<_, String>>()? };
    verify(&plan)?;
    let files = folder.join("files");
    fs::create_dir_all(&files).map_err(|error| format!("{}: {error}", files.display()))?;
    let documents_in_file = (file_megabytes * 1e6 / MEAN_BYTES) as u64;
    let count = (gigabytes * 1e3 / file_megabytes).ceil() as u64;
    let parts: Vec<Part> = (0..count)
        .into_par_iter()
        .map(|file| {
            let numbers = file * documents_in_file..(file + 1) * documents_in_file;
            write_file(&plan, &files, file, numbers).map_err(|error| format!("file {file}: {error}"))
        })
        .collect::<Result<_, String>>()?;
    let mut counts = Counts { documents: 0, text_bytes: 0, planted: BTreeMap::new() };
    let path = folder.join("planted.jsonl");
    let mut write = || -> std::io::Result<()> {
        let mut planted = BufWriter::new(File::create(&path)?);
        for part in &parts {
            counts.documents += part.documents;
            counts.text_bytes += part.text_bytes;
            part.counts.iter().for_each(|(plant, more)| *counts.planted.entry(*plant).or_insert(0) += more);
            for line in &part.planted {
                serde_json::to_writer(&mut planted, line)?;
                planted.write_all(b"\n")?;
            }
        }
        planted.flush()?;
        fs::write(folder.join("counts.json"), serde_json::to_vec_pretty(&counts)?)?;
        let request =
            serde_json::json!({"date": "2026-01-01", "domain": OPTED_OUT_SITE, "reference": "request-1"});
        fs::write(folder.join("opt-outs.jsonl"), format!("{request}\n"))
    };
    write().map_err(|error| format!("{}: {error}", folder.display()))?;
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} files, {} documents, {:.2} GB of text in {seconds:.0} s",
        count,
        counts.documents,
        counts.text_bytes as f64 / 1e9
    );
    for (plant, count) in &counts.planted {
        println!("{:16} {count:>9}", serde_json::to_string(plant).unwrap_or_default());
    }
    Ok(())
}

struct Part {
    documents: u64,
    text_bytes: u64,
    counts: BTreeMap<Plant, u64>,
    planted: Vec<Planted>,
}

fn write_file(plan: &Plan, folder: &Path, file: u64, numbers: std::ops::Range<u64>) -> std::io::Result<Part> {
    let mut part = Part { documents: 0, text_bytes: 0, counts: BTreeMap::new(), planted: Vec::new() };
    let mut pages = numbers.map(|number| plan.page(number)).inspect(|page| {
        part.documents += 1;
        part.text_bytes += page.text.len() as u64;
        *part.counts.entry(page.plant).or_insert(0) += 1;
        if page.plant != Plant::Plain {
            let of = page.of.map(|number| plan.page(number));
            part.planted.push(Planted {
                url: page.url.clone(),
                plant: page.plant,
                language: page.language.to_string(),
                similarity: of.as_ref().map(|of| similarity(&page.text, &of.text)),
                of: of.map(|of| of.url),
            });
        }
    });
    match file % 3 {
        0 => {
            let out = File::create(folder.join(format!("{file:05}.jsonl.zst")))?;
            let mut encoder = zstd::stream::write::Encoder::new(BufWriter::new(out), 3)?;
            pages.try_for_each(|page| encoder.write_all(&json_line(&page)))?;
            encoder.finish()?.flush()?;
        }
        1 => {
            let out = BufWriter::new(File::create(folder.join(format!("{file:05}.jsonl.gz")))?);
            let mut encoder = GzEncoder::new(out, Compression::fast());
            pages.try_for_each(|page| encoder.write_all(&json_line(&page)))?;
            encoder.finish()?.flush()?;
        }
        _ => {
            let mut out = BufWriter::new(File::create(folder.join(format!("{file:05}.warc.gz")))?);
            pages.try_for_each(|page| {
                let mut member = GzEncoder::new(&mut out, Compression::fast());
                member.write_all(&warc_record(&page))?;
                member.finish().map(drop)
            })?;
            out.flush()?;
        }
    }
    drop(pages);
    Ok(part)
}

fn json_line(page: &Page) -> Vec<u8> {
    let mut document = Document::new(format!("crawl-{}", page.number), page.text.as_str());
    document.url = Some(page.url.clone());
    document.date = Some(page.date.clone());
    document.source = Some("synthetic-crawl".to_string());
    if page.plant != Plant::NoLicense {
        document.license = Some("CC0-1.0".to_string());
    }
    if page.plant == Plant::Reserved {
        document.metadata.insert("tdm-reservation".to_string(), 1.into());
    }
    let mut line = document.to_json().into_bytes();
    if page.plant == Plant::Broken {
        line.truncate(line.len() / 2);
    }
    line.push(b'\n');
    line
}

/// A page with a menu, a link to its licence and its paragraphs, as a crawler stores it.
fn warc_record(page: &Page) -> Vec<u8> {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let license = match page.plant {
        Plant::NoLicense => "",
        _ => "<a rel=\"license\" href=\"https://creativecommons.org/publicdomain/zero/1.0/\">CC0</a>",
    };
    let robots = match page.plant {
        Plant::Reserved => "<meta name=\"robots\" content=\"index, noai\">",
        _ => "",
    };
    let mut html = format!(
        "<!doctype html><html lang=\"{}\"><head><meta charset=\"utf-8\"><title>{}</title>{robots}</head><body>\
         <nav><ul><li><a href=\"/\">⌂</a></li><li><a href=\"/1\">1</a></li><li><a href=\"/2\">2</a></li></ul></nav><main><article>\n",
        page.language,
        escaped(&page.title),
    );
    for paragraph in page.text.split("\n\n") {
        html += &format!("<p>{}</p>\n", escaped(paragraph));
    }
    html += &format!("</article></main><footer>{license}</footer></body></html>\n");
    let body = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\r\n{html}",
        html.len()
    );
    // A broken record says that it is longer than it is.
    let length = if page.plant == Plant::Broken { body.len() + 5000 } else { body.len() };
    format!(
        "WARC/1.1\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:crawl:{}>\r\nWARC-Target-URI: {}\r\nWARC-Date: {}T00:00:00Z\r\n\
         Content-Type: application/http; msgtype=response\r\nContent-Length: {length}\r\n\r\n{body}\r\n\r\n",
        page.number, page.url, page.date
    )
    .into_bytes()
}

/// Hashes of all runs of five words.
fn shingles(text: &str) -> HashSet<u64> {
    let words: Vec<u64> = text.split_whitespace().map(hash).collect();
    words
        .windows(5)
        .map(|five| {
            five.iter().fold(7, |all, word| (all ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23))
        })
        .collect()
}

fn hash(word: &str) -> u64 {
    let word = word.trim_matches(|character: char| !character.is_alphanumeric()).to_lowercase();
    word.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn similarity(left: &str, right: &str) -> f64 {
    let (left, right) = (shingles(left), shingles(right));
    let shared = left.intersection(&right).count();
    shared as f64 / (left.len() + right.len() - shared).max(1) as f64
}

/// All pairs of a sample, through the five words that they share.
fn verify(plan: &Plan) -> Result<(), String> {
    let originals =
        |plant| !matches!(plant, Plant::ExactCopy | Plant::NearCopy | Plant::FarCopy | Plant::Short);
    let texts: Vec<HashSet<u64>> = (0..SAMPLE)
        .into_par_iter()
        .filter(|number| originals(plan.plant(*number)))
        .map(|number| shingles(&plan.page(number).text))
        .collect();
    let mut with: HashMap<u64, Vec<u32>> = HashMap::new();
    for (place, shingles) in texts.iter().enumerate() {
        shingles.iter().for_each(|shingle| with.entry(*shingle).or_default().push(place as u32));
    }
    let most = (0..texts.len())
        .into_par_iter()
        .map(|place| {
            let mut shared: HashMap<u32, usize> = HashMap::new();
            for shingle in &texts[place] {
                with[shingle]
                    .iter()
                    .filter(|other| (**other as usize) < place)
                    .for_each(|other| *shared.entry(*other).or_insert(0) += 1);
            }
            let similar = shared.into_iter().map(|(other, shared)| {
                shared as f64 / (texts[place].len() + texts[other as usize].len() - shared) as f64
            });
            similar.fold(0.0, f64::max)
        })
        .reduce(|| 0.0, f64::max);
    println!(
        "{} documents that are no copies: the most similar pair of all has a Jaccard similarity of {most:.3}",
        texts.len()
    );
    match most < SIMILARITY_LIMIT {
        true => Ok(()),
        false => Err(format!(
            "two documents that are no copies have a similarity of {most:.3}, at least {SIMILARITY_LIMIT}"
        )),
    }
}
