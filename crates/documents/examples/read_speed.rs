//! How fast inputs are read, in bytes of text for each second of one core.
//!
//!     cargo run --release -p documents --example read_speed [FOLDER] [MEGABYTES]
//!
//! Recombines the words of the documents in FOLDER (`samples/tiny/documents`) to MEGABYTES (500) of text, writes them as
//! JSONL.zst, JSONL, WARC.gz, WARC.zst and Parquet into a temporary folder, and reads each: unpacked by zstd alone,
//! records only (what the one reading thread does), and with parsing (which all threads share). Rates are by the
//! thread's own time on the processor, so that what else runs on the machine counts little.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use documents::{Document, ReadOptions, ShardWriter, read_raw};
use provenance::Storage;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "samples/tiny/documents".to_string()));
    let bytes =
        arguments.next().map_or(500, |megabytes| megabytes.parse().expect("a number of megabytes")) << 20;
    let paragraphs = paragraphs(&folder);
    assert!(!paragraphs.is_empty(), "{}: no paragraphs", folder.display());
    let at = tempfile::tempdir().expect("a temporary folder");
    write_all(at.path(), &paragraphs, bytes);
    println!(
        "{:<14} {:>10} {:>9} {:>12} {:>12} {:>10}",
        "file", "documents", "packed MB", "unpack MB/s", "read MB/s", "both MB/s"
    );
    for name in ["x.jsonl", "x.jsonl.zst", "x.warc.gz", "x.warc.zst", "pages.warc.gz", "x.parquet"] {
        let path = at.path().join(name);
        if path.exists() {
            measure(&path);
        }
    }
}

fn measure(path: &Path) {
    // Whoever throws metadata away says so: the corpus stage does.
    let options = ReadOptions { keep_metadata: |key| key == "robots", ..ReadOptions::default() };
    let records = || read_raw(&[path.to_path_buf()], options.clone()).expect("a file that was just written");
    let begin = Clock::now();
    let raw_records = records().inspect(|record| assert!(record.is_ok())).count();
    let reading = begin.seconds();
    let unpacking = unpack_seconds(path);
    let begin = Clock::now();
    let mut text_bytes = 0;
    for record in records() {
        let document = record.expect("a whole file").parse().document.expect("a good record");
        text_bytes += document.text.len();
    }
    let both = begin.seconds();
    let rate = |seconds: f64| text_bytes as f64 / seconds / 1e6;
    println!(
        "{:<14} {raw_records:>10} {:>9.0} {:>12} {:>12.0} {:>10.0}",
        path.file_name().unwrap_or_default().to_string_lossy(),
        fs::metadata(path).map_or(0.0, |metadata| metadata.len() as f64 / 1e6),
        unpacking.map_or("-".to_string(), |seconds| format!("{:.0}", rate(seconds))),
        rate(reading),
        rate(both),
    );
}

/// What zstd alone needs for the file: no reader can be faster.
fn unpack_seconds(path: &Path) -> Option<f64> {
    path.extension().filter(|extension| *extension == "zst")?;
    let begin = Clock::now();
    let mut decoder = zstd::stream::read::Decoder::new(fs::File::open(path).ok()?).ok()?;
    std::io::copy(&mut decoder, &mut std::io::sink()).ok()?;
    Some(begin.seconds())
}

/// Time of this thread on a processor; where the system does not tell, time on the wall.
struct Clock {
    started: Instant,
    thread_nanoseconds: Option<u64>,
}

impl Clock {
    fn now() -> Clock {
        Clock { started: Instant::now(), thread_nanoseconds: thread_nanoseconds() }
    }

    fn seconds(&self) -> f64 {
        match (self.thread_nanoseconds, thread_nanoseconds()) {
            (Some(before), Some(now)) => (now - before) as f64 / 1e9,
            _ => self.started.elapsed().as_secs_f64(),
        }
    }
}

fn thread_nanoseconds() -> Option<u64> {
    fs::read_to_string("/proc/thread-self/schedstat").ok()?.split(' ').next()?.parse().ok()
}

fn paragraphs(folder: &Path) -> Vec<String> {
    let records = read_raw(&[folder.to_path_buf()], ReadOptions::default()).expect("a folder of documents");
    let documents = records.filter_map(|record| record.ok()?.parse().document.ok());
    let texts: Vec<String> = documents.map(|document| document.text).collect();
    texts.iter().flat_map(|text| text.split('\n')).filter(|line| line.len() > 40).map(String::from).collect()
}

/// Documents of ten to sixty paragraphs, a few kilobytes each: the size of web pages.
fn document(number: u64, paragraphs: &[String]) -> Document {
    let mut state = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = |below: usize| {
        state ^= state >> 27;
        state = state.wrapping_mul(0x94D0_49BB_1331_11EB);
        (state >> 33) as usize % below
    };
    // Three words of one paragraph after three of another: what compresses to a third, as prose does.
    let count = 10 + next(50);
    let mut paragraph = || {
        let mut words = String::new();
        for _ in 0..5 + next(20) {
            let chosen: Vec<&str> = paragraphs[next(paragraphs.len())].split(' ').collect();
            let begin = next(chosen.len());
            for word in chosen.iter().skip(begin).take(3) {
                words.push_str(word);
                words.push(' ');
            }
        }
        words
    };
    let chosen: Vec<String> = (0..count).map(|_| paragraph()).collect();
    Document {
        url: Some(format!("https://host{}.example/{number}", next(500))),
        date: Some("2026-03-01T10:00:00Z".to_string()),
        metadata: [("score".to_string(), 0.5.into()), ("tags".to_string(), vec!["a", "b"].into())].into(),
        ..Document::new(format!("document-{number}"), chosen.join("\n"))
    }
}

fn write_all(at: &Path, paragraphs: &[String], bytes: usize) {
    let storage = Storage::disk();
    let mut shard = ShardWriter::create(&storage, &at.join("x.jsonl.zst")).expect("a shard");
    #[cfg(feature = "parquet")]
    let mut parquet =
        documents::ParquetWriter::create(&storage, &at.join("x.parquet")).expect("a Parquet file");
    let create = |name: &str| std::io::BufWriter::new(fs::File::create(at.join(name)).expect("a file"));
    let mut plain = create("x.jsonl");
    let (mut text_gz, mut text_zst, mut pages_gz) =
        (create("x.warc.gz"), create("x.warc.zst"), create("pages.warc.gz"));
    let mut written = 0;
    for number in 0.. {
        if written >= bytes {
            break;
        }
        let document = document(number, paragraphs);
        written += document.text.len();
        shard.write(&document).expect("room on the disk");
        #[cfg(feature = "parquet")]
        parquet.write(&document).expect("room on the disk");
        writeln!(plain, "{}", document.to_json()).expect("room on the disk");
        // The formats that are slow to write and to read get a tenth.
        if number % 10 == 0 {
            let url = document.url.as_deref().unwrap_or_default();
            let record = response(url, "text/plain; charset=utf-8", &document.text);
            text_gz.write_all(&gzip(&record)).expect("room on the disk");
            text_zst.write_all(&zstd::encode_all(&record[..], 3).expect("memory")).expect("room on the disk");
            let body = document.text.replace('\n', "</p>\n<p class=\"text\">");
            let page = format!(
                "<html><head><title>{number}</title></head><body><div><p class=\"text\">{body}</p></div></body></html>"
            );
            pages_gz
                .write_all(&gzip(&response(url, "text/html; charset=utf-8", &page)))
                .expect("room on the disk");
        }
    }
    shard.finish().expect("room on the disk");
    #[cfg(feature = "parquet")]
    parquet.finish().expect("room on the disk");
}

fn response(url: &str, content_type: &str, body: &str) -> Vec<u8> {
    let http = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nServer: example\r\n\r\n{body}");
    format!(
        "WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:1>\r\nWARC-Date: 2026-03-01T10:00:00Z\r\n\
         WARC-Target-URI: {url}\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: {}\r\n\r\n{http}\r\n\r\n",
        http.len()
    )
    .into_bytes()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}
