//! Settings, faults of input and the promises about rights, on small made-up documents.

use std::collections::BTreeMap;
use std::fs;

use corpus::{DamagedInput, Error, Reason, Settings, SmallLanguage};
use documents::Document;
use languages::Language;
use provenance::{Context, StageOutput, Storage};

use crate::{build, build_in, files_of, put};

/// Words that read like German to any counter of words, in an order that no two documents share.
fn prose(number: usize) -> String {
    const WORDS: [&str; 48] = [
        "der",
        "die",
        "das",
        "und",
        "ist",
        "nicht",
        "mit",
        "auf",
        "für",
        "von",
        "sich",
        "auch",
        "es",
        "an",
        "als",
        "nach",
        "wie",
        "im",
        "aber",
        "aus",
        "wird",
        "noch",
        "wenn",
        "eine",
        "Gärtnerin",
        "Wasser",
        "Zeitung",
        "Küche",
        "Brücke",
        "Morgen",
        "Schreiner",
        "Fenster",
        "schläft",
        "wartet",
        "kocht",
        "langsam",
        "früher",
        "Straße",
        "Glocken",
        "Sommer",
        "Nachbarn",
        "schön",
        "Kirche",
        "Suppe",
        "Abend",
        "Kinder",
        "Hütte",
        "erzählt",
    ];
    let mut state = number as u64 + 1;
    let mut text = String::new();
    for place in 1..=120 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 33) as usize % WORDS.len()]);
        text.push_str(if place % 10 == 0 { ". " } else { " " });
    }
    text
}

pub fn document(number: usize) -> Document {
    Document {
        language: Some("de".into()),
        license: Some("CC0-1.0".into()),
        ..Document::new(format!("de-{number:03}"), prose(number))
    }
}

pub fn german() -> Settings {
    Settings { languages: vec![Language::from_code("de").unwrap()], ..Settings::default() }
}

fn error_of(result: Result<crate::Built, Error>) -> String {
    result.err().expect("an error").to_string()
}

#[test]
fn too_little_text_is_an_error_that_names_the_language() {
    let folder = tempfile::tempdir().unwrap();
    let input = [put(folder.path(), "a.jsonl", &[document(1), document(2)])];
    let message = error_of(build(&german(), &input, 1));
    assert!(message.contains("`de` (2 documents"), "{message}");
    let settings = Settings { small_language: SmallLanguage::TrainOnly, ..german() };
    let built = build(&settings, &input, 1).unwrap();
    assert_eq!((built.report.total.train.documents, built.report.total.heldout.documents), (2, 0));
}

#[test]
fn nothing_read_and_nothing_kept_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let blank = folder.path().join("blank.jsonl");
    fs::write(&blank, "\n\n").unwrap();
    assert!(error_of(build(&german(), &[blank], 1)).contains("no document was found"));
    let short = put(folder.path(), "short.jsonl", &[Document { text: "Kurz.".into(), ..document(1) }]);
    let message = error_of(build(&german(), &[short], 1));
    assert!(message.contains("no document was kept") && message.contains(" 1"), "{message}");
}

#[test]
fn damaged_files_stop_the_run_or_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a.jsonl", &(0..8).map(document).collect::<Vec<_>>());
    let whole =
        zstd::encode_all((8..12).map(|n| document(n).to_json() + "\n").collect::<String>().as_bytes(), 3)
            .unwrap();
    fs::write(folder.path().join("b.jsonl.zst"), &whole[..whole.len() - 9]).unwrap();
    fs::write(folder.path().join("c.jsonl"), "").unwrap();
    let input = [folder.path().to_path_buf()];
    let message = error_of(build(&german(), &input, 1));
    assert!(message.contains("b.jsonl.zst") && message.contains("damaged_input = \"skip\""), "{message}");
    let built = build(&Settings { damaged_input: DamagedInput::Skip, ..german() }, &input, 1).unwrap();
    assert_eq!(built.report.damaged_files, 2);
    assert!(built.report.total.kept >= 8);
}

#[test]
fn bad_records_are_counted_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes: Vec<u8> = (0..8).flat_map(|n| (document(n).to_json() + "\n").into_bytes()).collect();
    bytes.extend_from_slice(b"{\"id\":\"x\",\"text\":\"\xFF\"}\n{\"id\":\"y\"}\n");
    let path = folder.path().join("a.jsonl");
    fs::write(&path, bytes).unwrap();
    let built = build(&german(), &[path], 1).unwrap();
    assert_eq!(built.report.languages["unknown"].dropped, BTreeMap::from([(Reason::Unreadable, 2)]));
    let lines = built.dropped("unreadable");
    assert_eq!((lines[0]["line"].as_u64(), lines[1]["line"].as_u64()), (Some(9), Some(10)));
    assert_eq!(lines[0]["problem"], "not UTF-8");
    assert_eq!(lines[1]["problem"], "not a document: key `text` is missing");
}

#[test]
fn a_new_opt_out_takes_a_site_out_of_every_shard() {
    let folder = tempfile::tempdir().unwrap();
    let with_site = |n: usize| {
        let url = format!("https://{}.example/{n}", if n.is_multiple_of(2) { "even" } else { "odd" });
        Document { url: Some(url), ..document(n) }
    };
    let input = [put(folder.path(), "a.jsonl", &(0..20).map(with_site).collect::<Vec<_>>())];
    let ledger = folder.path().join("opt-outs");
    fs::write(&ledger, "").unwrap();
    let settings = Settings { opt_outs: Some(ledger.clone()), ..german() };
    let digests = corpus::digest_inputs(&settings, &input).unwrap();
    assert_eq!(build(&settings, &input, 1).unwrap().kept().len(), 20);
    fs::write(&ledger, "{\"date\":\"2026-01-01\",\"domain\":\"even.example\",\"reference\":\"7\"}\n")
        .unwrap();
    assert_ne!(corpus::digest_inputs(&settings, &input).unwrap(), digests, "the ledger is part of the key");
    let built = build(&settings, &input, 1).unwrap();
    assert_eq!(built.kept().len(), 10);
    assert!(built.kept().values().all(|document| document.url.as_deref().unwrap().contains("odd")));
}

#[test]
fn keys_that_no_step_reads_do_not_pass() {
    let folder = tempfile::tempdir().unwrap();
    let mut documents: Vec<Document> = (0..8).map(document).collect();
    documents[3].metadata.insert("author_email".into(), "someone@mail.example".into());
    let built = build(&german(), &[put(folder.path(), "a.jsonl", &documents)], 1).unwrap();
    assert!(built.kept().values().all(|document| document.metadata.is_empty()));
}

#[test]
fn a_default_licence_and_texts_in_files() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..8 {
        fs::write(folder.path().join(format!("{n}.txt")), prose(n)).unwrap();
    }
    let input = [folder.path().to_path_buf()];
    assert!(error_of(build(&german(), &input, 1)).contains("license_missing 8"));
    let built = build(&Settings { default_license: "CC0-1.0".into(), ..german() }, &input, 1).unwrap();
    assert!(built.kept().values().all(|document| document.license.as_deref() == Some("CC0-1.0")));
    assert_eq!(built.report.total.licenses, BTreeMap::from([("CC0-1.0".to_string(), 8)]));
}

/// The golden digest of the stage. If it changes, the stage makes other bytes of the same documents: raise
/// `corpus::STAGE_VERSION` with it, so that no artefact of the old kind passes for a new one.
#[test]
fn bytes_change_only_with_the_stage_version() {
    let folder = tempfile::tempdir().unwrap();
    let mut documents: Vec<Document> = (0..8).map(document).collect();
    documents.push(Document { text: prose(3).replacen("der", "dieser", 1), ..document(8) });
    documents.push(Document { text: format!("{}\r\nFragen an haus@dorf.example.", prose(9)), ..document(9) });
    documents.push(Document {
        license: Some("CC-BY-NC-4.0".into()),
        date: Some("2026-01-01".into()),
        ..document(10)
    });
    documents.push(Document { text: "Kurz, aber auf Deutsch und nicht mit Absicht.".into(), ..document(11) });
    let built = build(&german(), &[put(folder.path(), "a.jsonl", &documents)], 2).unwrap();
    let files = built.files();
    let digests = files.iter().map(|(name, bytes)| (name.as_str(), provenance::digest::sha256(bytes)));
    let golden = (corpus::STAGE_VERSION, provenance::digest::sha256_of_set(digests).to_string());
    assert_eq!(golden, (2, "52296290916f7eed9b8bb74dd70b8e2a2b32fc8ffb19cc353fdf53c5f242fa07".to_string()));
}

#[test]
fn wrong_settings_stop_before_any_work() {
    let message = error_of(build(&Settings { languages: vec![], ..german() }, &["/nowhere".into()], 1));
    assert!(message.contains("`languages`"), "{message}");
    let missing = Settings { opt_outs: Some("/nowhere/ledger".into()), ..german() };
    assert!(error_of(build(&missing, &["/nowhere".into()], 1)).contains("/nowhere/ledger"));
    assert!(error_of(build(&german(), &["/nowhere".into()], 1)).contains("no such file"));
}

#[test]
fn a_cancelled_run_stops() {
    let folder = tempfile::tempdir().unwrap();
    let input = [put(folder.path(), "a.jsonl", &(0..8).map(document).collect::<Vec<_>>())];
    let context = Context::quiet(1);
    context.cancellation.cancel();
    assert!(matches!(build_in(&german(), &input, &context), Err(Error::Cancelled(_))));
}

/// A disk that dies at any operation, and a run that goes on with what was synced until then.
#[test]
fn a_failing_disk_is_an_error_and_the_run_goes_on_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let mut documents: Vec<Document> = (0..8).map(document).collect();
    documents.push(Document { text: prose(3).replacen("der", "dieser", 1), ..document(8) });
    let notice = "Diese Seite verwendet Kekse, damit wir Ihnen alles so schön wie möglich zeigen können.";
    documents.iter_mut().take(4).for_each(|document| document.text += &format!("\n\n{notice}"));
    let input = [put(folder.path(), "a.jsonl", &documents), put(folder.path(), "b.jsonl", &[document(20)])];
    let expected = build(&german(), &input, 1).unwrap().files();
    for operation in (0..1_000).step_by(4) {
        let output = StageOutput {
            payload: folder.path().join(format!("{operation}/payload")),
            scratch: folder.path().join(format!("{operation}/scratch")),
        };
        fs::create_dir_all(&output.payload).unwrap();
        fs::create_dir(&output.scratch).unwrap();
        let storage = Storage::failing_at(operation);
        let context = Context { storage: storage.clone(), ..Context::quiet(1) };
        let came_to_its_end = corpus::build(&german(), &input, &output, &context).is_ok();
        storage.discard_unsynced().unwrap();
        fs::remove_dir_all(&output.payload).unwrap();
        fs::create_dir(&output.payload).unwrap();
        corpus::build(&german(), &input, &output, &Context::quiet(1)).unwrap();
        assert!(files_of(&output.payload) == expected, "after a fault at operation {operation}");
        fs::remove_dir_all(folder.path().join(operation.to_string())).unwrap();
        if came_to_its_end {
            assert!(operation > 30, "every file is created, written and synced");
            return;
        }
    }
    panic!("no build came to its end");
}

#[test]
fn a_long_passage_stays_in_the_first_document_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut documents: Vec<Document> = (0..8).map(document).collect();
    let passage = prose(50);
    documents[2].text = format!("{}\n\n{passage}\n\n{}", prose(60), prose(61));
    documents[5].text = format!("{}{passage}{}", prose(70), prose(71));
    documents[5].date = Some("2020-01-01".into());
    let input = [put(folder.path(), "a.jsonl", &documents)];
    let settings = Settings { repeated_passage_words: 50, ..german() };
    let kept = build(&settings, &input, 2).unwrap().kept();
    assert_eq!(kept["de-005"].text, documents[5].text);
    assert_eq!(kept["de-002"].text, format!("{}\n\n{}", prose(60), prose(61)).trim());
    let untouched = build(&german(), &input, 2).unwrap().kept();
    assert_eq!(untouched["de-002"].text, documents[2].text);
}

#[test]
fn what_stands_in_an_earlier_corpus_is_not_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let first =
        build(&german(), &[put(folder.path(), "a.jsonl", &(0..8).map(document).collect::<Vec<_>>())], 1);
    let first = first.unwrap();
    let mut documents: Vec<Document> = (20..28).map(document).collect();
    documents.push(Document { date: Some("1999-01-01".into()), ..document(3) });
    documents.push(Document { text: prose(4).replacen("der", "dieser", 1), ..document(40) });
    let input = [put(folder.path(), "b.jsonl", &documents)];
    let settings = Settings {
        existing: vec![first.payload().join("train"), first.payload().join("heldout")],
        ..german()
    };
    let second = build(&settings, &input, 2).unwrap();
    assert_eq!(second.report.total.dropped, BTreeMap::from([(Reason::InExistingCorpus, 2)]));
    assert_eq!(second.report.total.kept, 8);
    let of: Vec<String> =
        second.dropped("duplicates").iter().map(|line| line["of"].as_str().unwrap().to_string()).collect();
    assert_eq!(of, ["de-003", "de-004"]);
    let digests = |settings: &Settings| corpus::digest_inputs(settings, &input).unwrap();
    assert_ne!(digests(&settings), digests(&german()), "earlier corpora are part of the key");
}

#[test]
fn languages_are_kept_apart_where_the_settings_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { duplicates_across_languages: false, ..german() };
    let documents = [document(1), document(1), document(2), document(3), document(4)];
    let input = [put(folder.path(), "a.jsonl", &documents)];
    let built = build(&settings, &input, 1).unwrap();
    assert_eq!(built.report.total.dropped, BTreeMap::from([(Reason::ExactDuplicate, 1)]));
}
