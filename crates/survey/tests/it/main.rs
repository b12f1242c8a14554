//! A small corpus on disk: what the survey counts, what the page shows and keeps out, and what a search finds.

use std::fs;
use std::path::Path;

use documents::{Document, ShardWriter};
use provenance::{Context, Storage};
use serde_json::{Value, json};
use survey::{Error, Query, Survey, page, search};

fn shard(path: &Path, lines: &[Value]) {
    let mut writer = ShardWriter::create(&Storage::disk(), path).unwrap();
    lines.iter().for_each(|line| writer.write_json(line).unwrap());
    writer.finish().unwrap();
}

fn document(id: &str, language: &str, url: &str, text: &str) -> Value {
    let mut document = Document::new(id, text);
    document.language = Some(language.to_string());
    document.url = Some(url.to_string());
    serde_json::to_value(document).unwrap()
}

fn corpus(folder: &Path) {
    for part in ["train", "heldout", "dropped"] {
        fs::create_dir(folder.join(part)).unwrap();
    }
    let mut scored = document("mt-2", "mt", "https://www.ktieb.example/2", &"ħobż ".repeat(400));
    scored["score"] = json!(0.93);
    let hostile = document("mt-1", "mt", "https://ktieb.example/<b>", "<script>alert(1)</script> ħobż");
    shard(&folder.join("train/mt.jsonl.zst"), &[hostile, scored]);
    let held = document("ga-1", "ga", "https://leabhar.example/1", "arán agus im");
    shard(&folder.join("heldout/ga.jsonl.zst"), &[held]);
    let repeated = |id: &str, of: &str| {
        let mut copy = document(id, "mt", "https://mera.example/1", "ħobż");
        copy["reason"] = json!("near_duplicate");
        copy["of"] = json!(of);
        copy["similarity"] = json!(0.91);
        copy
    };
    let copies = [repeated("mt-3", "mt-1"), repeated("mt-4", "mt-1"), repeated("mt-5", "mt-2")];
    shard(&folder.join("dropped/duplicates.jsonl.zst"), &copies);
    let traceless = json!({"reason": "opted_out", "date": "2026-01-01", "digest": "00"});
    shard(&folder.join("dropped/rights.jsonl.zst"), &[traceless]);
    let statistics = json!({
        "languages": {"mt": {"read": 6, "kept": 2, "dropped": {"near_duplicate": 3, "opted_out": 1}}, "ga": {"read": 1, "kept": 1}},
        "total": {"read": 7, "kept": 3, "dropped": {"near_duplicate": 3, "opted_out": 1}, "licenses": {"CC0-1.0": 3}},
    });
    fs::write(folder.join("statistics.json"), statistics.to_string()).unwrap();
}

fn survey(folder: &Path) -> Survey {
    Survey::of(folder, 2, &Context::quiet(2)).unwrap()
}

#[test]
fn a_survey_counts_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let survey = survey(folder.path());
    let maltese = &survey.kept["mt"];
    assert_eq!((maltese.documents, maltese.scores.total(), maltese.lengths.total()), (2, 1, 2));
    assert_eq!(maltese.sites, [("ktieb.example".to_string(), 2)]);
    assert_eq!(survey.kept["ga"].samples[0].text, "arán agus im");
    let copies = &survey.dropped["near_duplicate"];
    assert_eq!((copies.documents, copies.languages["mt"], copies.samples.len()), (3, 3, 2));
    assert!(copies.samples[0].evidence.contains(&("similarity".to_string(), "0.91".to_string())));
    assert!(survey.dropped["opted_out"].samples.is_empty());
    assert_eq!(survey.clusters.into_iter().collect::<Vec<_>>(), [(2, 1), (3, 1)]);
}

#[test]
fn the_page_shows_texts_and_runs_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let survey = survey(folder.path());
    let page = page(&survey, "my <corpus>");
    assert!(!page.contains("<script") && !page.contains("<b>") && page.contains("&lt;script&gt;alert(1)"));
    for outside in ["src=", "href=\"http", "url(", "@import", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for shown in ["my &lt;corpus&gt;", "near duplicate", "similarity 0.91", "CC0-1.0", "default-src 'none'"] {
        assert!(page.contains(shown), "{shown}");
    }
    for element in ["table", "div", "details", "svg", "summary", "style"] {
        let opened =
            page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn a_search_finds_kept_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    corpus(folder.path());
    let find = |query: Query| {
        let (found, all) = search(folder.path(), &query, 2, &Context::quiet(2)).unwrap();
        (found.into_iter().map(|found| (found.file, found.line)).collect::<Vec<_>>(), all)
    };
    let place = |file: &str, line: u64| (file.to_string(), line);
    let by_id = Query { id: Some("mt-2".into()), ..Query::default() };
    assert_eq!(find(by_id), (vec![place("train/mt.jsonl.zst", 2)], 1));
    let by_site = Query { url: Some("ktieb.example".into()), ..Query::default() };
    assert_eq!(find(by_site).1, 2);
    let by_reason = Query { reason: Some("near_duplicate".into()), ..Query::default() };
    let dropped = "dropped/duplicates.jsonl.zst";
    assert_eq!(find(by_reason), (vec![place(dropped, 1), place(dropped, 2)], 3));
    let nothing = Query { language: Some("ga".into()), reason: Some("opted_out".into()), ..Query::default() };
    assert_eq!(find(nothing).1, 0);
}

#[test]
fn what_is_no_corpus_or_is_damaged_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Survey::of(folder.path(), 1, &Context::quiet(2)).unwrap_err();
    assert!(matches!(error, Error::NotACorpus { .. }), "{error}");
    corpus(folder.path());
    let path = folder.path().join("train/mt.jsonl.zst");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = Survey::of(folder.path(), 1, &Context::quiet(2)).unwrap_err();
    assert!(error.to_string().contains("mt.jsonl.zst"), "{error}");
}
