//! The bundled sample: every good document is kept as it is, every planted fault is found for its own reason.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use corpus::{Kind, Reason, Repair, Settings};
use documents::{Document, ReadOptions, read_documents};
use personal_data::PersonalData;

use crate::{Built, build};

fn sample() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/tiny"))
}

fn settings() -> Settings {
    Settings { opt_outs: Some(sample().join("opt-outs.jsonl")), ..Settings::default() }
}

fn inputs() -> Vec<PathBuf> {
    vec![sample().join("documents")]
}

fn documents() -> Vec<Document> {
    let records = read_documents(&inputs(), ReadOptions::default()).unwrap();
    records.map(|record| record.unwrap().document.unwrap()).collect()
}

fn expected(document: &Document) -> Option<&str> {
    document.metadata.get("expect").and_then(|expect| expect.as_str())
}

fn from_name<T: serde::de::DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(name.into()).ok()
}

#[test]
fn good_documents_are_kept_unchanged_and_faults_are_found() {
    let built = build(&settings(), &inputs(), 2).unwrap();
    let kept = built.kept();
    let reasons = dropped_reasons(&built);
    let mut wrong = Vec::new();
    for document in documents() {
        let fate = match (kept.get(&document.id), reasons.get(&document.id)) {
            (Some(kept), None) if kept.text == document.text && kept.language == document.language => {
                "unchanged"
            }
            (Some(_), None) => "repaired",
            (None, Some(reason)) => reason,
            (None, None) => "traceless",
            (Some(_), Some(_)) => "both kept and dropped",
        };
        let expected_fate = match expected(&document) {
            None => "unchanged",
            Some(name) if from_name::<Repair>(name).is_some() => "repaired",
            Some(name) => {
                let reason: Reason = from_name(name).unwrap_or_else(|| panic!("{}: `{name}`", document.id));
                if reason.kind().keeps_text() { name } else { "traceless" }
            }
        };
        if fate != expected_fate {
            wrong.push(format!("{}: expected {expected_fate}, found {fate}", document.id));
        }
        if let (Some(repaired), Some(kept)) = (document.metadata.get("repaired_text"), kept.get(&document.id))
        {
            assert_eq!(repaired, &kept.text, "{}", document.id);
        }
    }
    // A duplicate that is none any more: its original (key `of`) was edited; copy it into faulty.jsonl again.
    assert!(wrong.is_empty(), "{wrong:#?}");
    check_counts(&built);
}

/// The id and reason of what was dropped with its text.
fn dropped_reasons(built: &Built) -> BTreeMap<String, String> {
    let kinds = Kind::ALL.into_iter().filter(|kind| kind.keeps_text());
    let lines = kinds.flat_map(|kind| built.dropped(kind.name()));
    lines
        .map(|line| (line["id"].as_str().unwrap().to_string(), line["reason"].as_str().unwrap().to_string()))
        .collect()
}

/// Where documents leave no trace or are repaired, the counts of their languages say what happened.
fn check_counts(built: &Built) {
    let mut dropped: BTreeMap<(String, Reason), u64> = BTreeMap::new();
    let mut repaired: BTreeMap<(String, Repair), u64> = BTreeMap::new();
    let mut placeholders: BTreeMap<(String, PersonalData), u64> = BTreeMap::new();
    let kept = built.kept();
    for document in documents() {
        let Some(name) = expected(&document) else { continue };
        let label = kept.get(&document.id).unwrap_or(&document).language.clone().unwrap();
        let is_known = built.report.languages.contains_key(&label);
        let final_language = if is_known { label } else { "unknown".to_string() };
        if let Some(reason) = from_name(name) {
            *dropped.entry((final_language, reason)).or_default() += 1;
        } else if let Some(repair) = from_name(name) {
            let planted = document.metadata.get("placeholders").and_then(|planted| planted.as_object());
            for (kind, count) in planted.into_iter().flatten() {
                let key = (final_language.clone(), from_name(kind).expect(kind));
                *placeholders.entry(key).or_default() += count.as_u64().unwrap();
            }
            *repaired.entry((final_language, repair)).or_default() += 1;
        }
    }
    let statistics = &built.report.languages;
    let found = statistics.iter().flat_map(|(language, counts)| {
        counts.dropped.iter().map(move |(reason, count)| ((language.clone(), *reason), *count))
    });
    assert_eq!(found.collect::<BTreeMap<_, _>>(), dropped);
    let found = statistics.iter().flat_map(|(language, counts)| {
        counts.repaired.iter().map(move |(repair, count)| ((language.clone(), *repair), *count))
    });
    assert_eq!(found.collect::<BTreeMap<_, _>>(), repaired);
    let found = statistics.iter().flat_map(|(language, counts)| {
        counts.placeholders.iter().map(move |(kind, count)| ((language.clone(), *kind), *count))
    });
    assert_eq!(found.collect::<BTreeMap<_, _>>(), placeholders);
    for (language, counts) in statistics {
        assert_eq!(counts.read, counts.kept + counts.dropped.values().sum::<u64>(), "{language}");
        assert_eq!(counts.kept, counts.train.documents + counts.heldout.documents, "{language}");
        if language == "unknown" {
            assert_eq!(counts.kept, 0);
            continue;
        }
        assert!(counts.heldout.documents >= 2 && counts.heldout.bytes >= 1536, "{language}");
    }
}

#[test]
fn what_was_dropped_for_rights_stands_nowhere() {
    let built = build(&settings(), &inputs(), 2).unwrap();
    let traceless: Vec<Document> = documents()
        .into_iter()
        .filter(|document| {
            let reason = expected(document).and_then(from_name::<Reason>);
            reason.is_some_and(|reason| matches!(reason.kind(), Kind::Rights | Kind::PersonalData))
        })
        .collect();
    let lines: Vec<_> = ["rights", "personal_data"].iter().flat_map(|kind| built.dropped(kind)).collect();
    assert_eq!(lines.len(), traceless.len());
    for line in &lines {
        assert_eq!(line.as_object().unwrap().keys().collect::<Vec<_>>(), ["reason", "date"]);
    }
    let everything = everything(&built);
    for document in traceless {
        let words: Vec<&str> = document.text.split_whitespace().take(6).collect();
        for trace in [document.id.as_str(), document.url.as_deref().unwrap(), &words.join(" ")] {
            assert!(!everything.contains(trace), "{trace}");
        }
    }
}

#[test]
fn personal_data_stand_nowhere_not_even_in_what_was_dropped() {
    let everything = everything(&build(&settings(), &inputs(), 2).unwrap());
    for planted in [
        "@post.example",
        "@vandvaerk.example",
        "4111 1111",
        "192.0.2.44",
        "SI56 2630",
        "33309240064",
        "2100 0123",
    ] {
        assert!(!everything.contains(planted), "{planted}");
    }
}

/// All that a build wrote, scratch included, decompressed.
fn everything(built: &Built) -> String {
    let mut text = String::new();
    for name in provenance::digest::files_below(built.folder.path()).unwrap() {
        let bytes = fs::read(built.folder.path().join(&name)).unwrap();
        let bytes = if name.ends_with(".zst") { zstd::decode_all(bytes.as_slice()).unwrap() } else { bytes };
        // Blocks in the scratch folder hold numbers beside texts.
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    text
}

#[test]
fn threads_change_no_byte() {
    let one = build(&settings(), &inputs(), 1).unwrap().files();
    let two = build(&settings(), &inputs(), 2).unwrap().files();
    assert_eq!(one.keys().collect::<Vec<_>>(), two.keys().collect::<Vec<_>>());
    assert!(one == two, "the same names with other bytes");
}

#[test]
fn a_corpus_made_from_a_corpus_loses_nothing() {
    let first = build(&settings(), &inputs(), 2).unwrap();
    let parts = vec![first.payload().join("train"), first.payload().join("heldout")];
    let second = build(&settings(), &parts, 2).unwrap();
    assert_eq!(second.report.total.dropped, BTreeMap::new());
    assert_eq!(second.report.total.repaired, BTreeMap::new());
    assert_eq!(second.part("train"), first.part("train"));
    assert_eq!(second.part("heldout"), first.part("heldout"));
}
