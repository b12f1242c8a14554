//! Rights from end to end: sites' own rules, block lists, what is left of a dropped document, and what was lost.

use std::fs;
use std::io::Write;
use std::path::Path;

use corpus::{Reason, Settings};
use documents::Document;
use provenance::digest::keyed_digest;

use crate::behaviour::{document, german};
use crate::{Built, build, put};

/// Twelve documents of four sites.
fn of_sites(folder: &Path) -> std::path::PathBuf {
    let sites = [
        "https://open.example",
        "https://robots.example",
        "https://b\u{fc}cher.example",
        "https://tdm.example",
    ];
    let documents: Vec<Document> = (0..24)
        .map(|n| Document { url: Some(format!("{}/page/{n}", sites[n % 4])), ..document(n) })
        .collect();
    put(folder, "documents.jsonl", &documents)
}

fn write(folder: &Path, name: &str, text: &str) -> std::path::PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn what_sites_say_takes_their_pages_out_and_the_loss_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let input = [of_sites(folder.path())];
    write(folder.path(), "rules/robots.example/robots.txt", "User-agent: GPTBot\nDisallow: /page\n");
    write(
        folder.path(),
        "rules/tdm.example/.well-known/tdmrep.json",
        r#"[{"location":"/","tdm-reservation":1}]"#,
    );
    let settings = Settings {
        robots: vec![folder.path().join("rules")],
        blocked_domains: Some(write(folder.path(), "blocked.txt", "xn--bcher-kva.example\n")),
        ..german()
    };
    let built = build(&settings, &input, 2).unwrap();
    assert_eq!(built.kept().len(), 6);
    assert!(built.kept().values().all(|document| document.url.as_deref().unwrap().contains("open.example")));
    let german = &built.report.languages["de"];
    for reason in [Reason::RobotsDisallowed, Reason::TdmReserved, Reason::DomainBlocked] {
        assert_eq!(german.dropped[&reason], 6, "{reason:?}");
        assert!(german.lost_bytes[&reason] > 6 * 400, "{reason:?}");
    }
    no_trace(&built, &["robots.example", "tdm.example", "cher.example"]);
    let digests = corpus::digest_inputs(&settings, &input).unwrap();
    write(folder.path(), "rules/robots.example/robots.txt", "User-agent: GPTBot\nDisallow: /else\n");
    assert_ne!(corpus::digest_inputs(&settings, &input).unwrap(), digests, "the rules are part of the key");
    assert_eq!(build(&settings, &input, 2).unwrap().kept().len(), 12);
}

#[test]
fn robots_records_of_an_archive_hold_for_the_pages_before_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut archive = Vec::new();
    let mut record = |url: &str, kind: &str, body: &str| {
        let http = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        write!(
            archive,
            "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n\
             WARC-Record-ID: <urn:uuid:{url}>\r\nContent-Type: application/http; msgtype=response\r\n\
             Content-Length: {}\r\n\r\n{http}\r\n\r\n",
            http.len()
        )
        .unwrap();
    };
    for n in 0..16 {
        let site = if n % 2 == 0 { "shut" } else { "open" };
        record(&format!("https://{site}.example/{n}"), "text/plain; charset=utf-8", &document(n).text);
    }
    record("https://shut.example/robots.txt", "text/plain", "User-agent: CCBot\nDisallow: /\n");
    let path = folder.path().join("crawl.warc");
    fs::write(&path, archive).unwrap();
    let settings = Settings { default_license: "CC0-1.0".into(), ..german() };
    let built = build(&settings, &[path], 2).unwrap();
    assert_eq!(built.report.total.dropped[&Reason::RobotsDisallowed], 8);
    assert_eq!(built.report.total.read, 16, "a robots.txt is no document");
    assert!(built.kept().values().all(|document| document.url.as_deref().unwrap().contains("open")));
}

#[test]
fn only_a_secret_key_makes_digests() {
    let folder = tempfile::tempdir().unwrap();
    let mut documents: Vec<Document> = (0..8).map(document).collect();
    documents[2].license = Some("All rights reserved".into());
    let input = [put(folder.path(), "a.jsonl", &documents)];
    let line = build(&german(), &input, 1).unwrap().dropped("rights").remove(0);
    assert_eq!(line.as_object().unwrap().keys().collect::<Vec<_>>(), ["reason", "date"]);
    let key = [7u8; 32];
    let path = folder.path().join("digest.key");
    fs::write(&path, key).unwrap();
    let settings = Settings { digest_key: Some(path.clone()), ..german() };
    let line = build(&settings, &input, 1).unwrap().dropped("rights").remove(0);
    assert_eq!(line["digest"], keyed_digest(&key, documents[2].text.as_bytes()).to_string());
    fs::write(&path, "too short").unwrap();
    let message = build(&settings, &input, 1).err().unwrap().to_string();
    assert!(message.contains("digest.key") && message.contains("32 random bytes"), "{message}");
}

#[test]
fn a_text_is_left_out_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let input = [put(folder.path(), "a.jsonl", &(0..8).map(document).collect::<Vec<_>>())];
    let ledger = folder.path().join("opt-outs.jsonl");
    let request = corpus::opt_outs::Request {
        text_digest: Some(corpus::opt_outs::digest_of_text(&document(3).text.replace(' ', "\n… "))),
        reference: "letter 12".to_string(),
        ..Default::default()
    };
    corpus::opt_outs::add(&provenance::Storage::disk(), &ledger, request, "2026-11-21").unwrap();
    let built = build(&Settings { opt_outs: Some(ledger), ..german() }, &input, 1).unwrap();
    assert_eq!(built.report.total.dropped[&Reason::OptedOut], 1);
    assert!(!built.kept().contains_key("de-003"));
}

fn no_trace(built: &Built, traces: &[&str]) {
    for name in provenance::digest::files_below(built.folder.path()).unwrap() {
        let bytes = fs::read(built.folder.path().join(&name)).unwrap();
        let bytes = if name.ends_with(".zst") { zstd::decode_all(bytes.as_slice()).unwrap() } else { bytes };
        let text = String::from_utf8_lossy(&bytes);
        for trace in traces {
            assert!(!text.contains(trace), "{name}: {trace}");
        }
    }
}
