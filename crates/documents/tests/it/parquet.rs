//! Parquet: files as public corpora publish them (made by `tools/oracles/parquet_files.py`), and our own.

use std::fs;
use std::path::{Path, PathBuf};

use documents::{Document, Error, ParquetWriter, ReadOptions, list_input_files, open_input};
use provenance::Storage;
use serde_json::json;

use crate::{folder, put, read};

fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn documents(path: &Path) -> Vec<Document> {
    read(path, ReadOptions::default()).into_iter().map(|record| record.unwrap().document.unwrap()).collect()
}

#[test]
fn fineweb_2_is_read() {
    let found = documents(&stored("fineweb2.parquet"));
    assert_eq!(found.len(), 700);
    let last = &found[699];
    assert_eq!((last.id.as_str(), last.url.as_deref()), ("<urn:uuid:699>", Some("https://a.example/699")));
    assert_eq!((last.language.as_deref(), last.source.as_deref()), (Some("fi"), Some("FineWeb-2")));
    assert_eq!(last.date.as_deref(), Some("2024-03-01T00:00:00Z"));
    assert_eq!(last.text, "Lumi sataa hiljaa. 699.");
    assert_eq!(
        (&last.metadata["dump"], &last.metadata["minhash_cluster_size"]),
        (&json!("CC-MAIN-2024-10"), &json!(699))
    );
    assert!(found.iter().enumerate().all(|(row, document)| document.id == format!("<urn:uuid:{row}>")));
}

#[test]
fn lists_times_and_absent_values_are_read_in_every_codec() {
    for codec in ["zstd", "gzip", "lz4", "none"] {
        let found = documents(&stored(&format!("hplt-{codec}.parquet")));
        assert_eq!(
            found.iter().map(|document| document.id.as_str()).collect::<Vec<_>>(),
            ["a", "b", "c"],
            "{codec}"
        );
        let of = |row: usize| {
            (found[row].language.as_deref(), found[row].url.as_deref(), found[row].text.as_str())
        };
        assert_eq!(of(0), (Some("et"), Some("https://b.example/"), "Õhtu jõudis."));
        assert_eq!(of(1), (None, None, ""));
        assert_eq!(of(2), (None, Some("https://d.example/"), "Hommik."));
        assert_eq!(found[0].date.as_deref(), Some("2023-01-01T10:30:00Z"));
        assert_eq!(found[0].source.as_deref(), Some("HPLT"));
        let metadata = serde_json::to_value(&found[0].metadata).unwrap();
        assert_eq!(
            metadata,
            json!({"doc_scores": [1.0, 2.0], "meta.day": "2020-02-29", "meta.good": true, "prob": [0.9, 0.1]})
        );
        assert_eq!(found[1].metadata["meta.good"], json!(false));
    }
}

#[test]
fn a_row_number_is_found_again() {
    let files = list_input_files(&[stored("fineweb2.parquet")]).unwrap();
    for skip in [0, 3, 249, 250, 251, 600, 700, 900] {
        let mut reader = open_input(&files[0], ReadOptions::default()).unwrap();
        reader.skip_records(skip).unwrap();
        assert_eq!(reader.records(), skip.min(700));
        let next = reader.next().map(|raw| raw.unwrap().parse());
        assert_eq!(next.as_ref().map(|record| record.place.line), (skip < 700).then_some(skip + 1));
        assert_eq!(
            next.map(|record| record.document.unwrap().id),
            (skip < 700).then(|| format!("<urn:uuid:{skip}>"))
        );
    }
}

fn own(count: usize) -> Vec<Document> {
    (0..count)
        .map(|number| Document {
            url: (number % 2 == 0).then(|| format!("https://a.example/{number}")),
            language: Some("ga".into()),
            metadata: match number % 3 {
                0 => [("score".to_string(), json!(0.5)), ("tags".to_string(), json!(["á"]))].into(),
                _ => Default::default(),
            },
            ..Document::new(format!("ga-{number}"), format!("Tá lá {number} thart.\n\nOíche mhaith."))
        })
        .collect()
}

fn write(storage: &Storage, path: &Path, documents: &[Document]) -> Result<u64, Error> {
    let mut writer = ParquetWriter::create(storage, path)?;
    documents.iter().try_for_each(|document| writer.write(document))?;
    writer.finish().map(|summary| summary.lines)
}

#[test]
fn what_is_written_is_read_again_and_bytes_repeat() {
    let folder = folder();
    let paths = ["a.parquet", "b.parquet"].map(|name| folder.path().join(name));
    for path in &paths {
        assert_eq!(write(&Storage::disk(), path, &own(500)).unwrap(), 500);
    }
    assert_eq!(fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
    assert_eq!(documents(&paths[0]), own(500));
    let none = folder.path().join("none.parquet");
    write(&Storage::disk(), &none, &[]).unwrap();
    assert_eq!(documents(&none), []);
}

#[test]
fn long_texts_are_cut_into_groups_and_held_to_the_limit() {
    let folder = folder();
    let path = folder.path().join("x.parquet");
    let mut state = 1u64;
    let mut noise = |length: usize| -> String {
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                char::from(b'a' + (state >> 59) as u8 % 26)
            })
            .collect()
    };
    let texts: Vec<Document> =
        (0..40).map(|number| Document::new(number.to_string(), noise(2 << 20))).collect();
    write(&Storage::disk(), &path, &texts).unwrap();
    assert_eq!(documents(&path), texts);
    let limited = read(&path, ReadOptions { record_limit_bytes: 1 << 20, ..ReadOptions::default() });
    let message = limited[3].as_ref().unwrap().document.as_ref().unwrap_err().to_string();
    assert!(message.contains("x.parquet, row 4") && message.contains("limit of 1048576"), "{message}");
}

#[test]
fn a_failing_disk_is_an_error_at_every_operation() {
    let folder = folder();
    let path = folder.path().join("x.parquet");
    for operation in 0..1_000 {
        if write(&Storage::failing_at(operation), &path, &own(50)).is_ok() {
            assert!(operation >= 3, "create, write and sync are operations");
            return;
        }
    }
    panic!("no file came to its end");
}

#[test]
fn a_file_without_a_text_says_which_columns_it_has() {
    let path = stored("fineweb2.parquet");
    let fields = documents::FieldMap::new(&[("text".to_string(), "content".to_string())].into()).unwrap();
    let options = ReadOptions { fields: Some(fields.into()), ..ReadOptions::default() };
    let error = read(&path, options)[0].as_ref().unwrap_err().to_string();
    assert!(error.contains("no column `content`") && error.contains("dump, url, date"), "{error}");
}

#[test]
fn broken_files_are_damage_and_never_a_panic() {
    let whole = fs::read(stored("hplt-zstd.parquet")).unwrap();
    let folder = folder();
    let check = |bytes: &[u8]| {
        let path = put(folder.path(), "x.parquet", bytes);
        for record in read(&path, ReadOptions::default()) {
            match record {
                Ok(_) => {}
                Err(error) => {
                    assert!(error.is_damage() || error.to_string().contains("no column"), "{error}")
                }
            }
        }
    };
    check(b"PAR1");
    check(&[]);
    for end in (0..whole.len()).step_by(97) {
        check(&whole[..end]);
    }
    for place in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x41;
        check(&bytes);
    }
}
