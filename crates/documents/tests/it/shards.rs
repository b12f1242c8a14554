//! Shards: what is written is read again, the same documents give the same bytes, and damage is found.

use std::fs;

use documents::{Document, Error, ShardWriter, read_shard};
use provenance::Storage;

use crate::{folder, line, put, zstandard};

fn documents() -> Vec<Document> {
    (0..500)
        .map(|n| Document {
            language: Some("lv".into()),
            metadata: [("page".to_string(), n.into())].into(),
            ..Document::new(format!("lv-{n}"), format!("Šodien ir {n}. diena.\n\nŪdens līmenis ceļas."))
        })
        .collect()
}

#[test]
fn documents_survive_and_bytes_repeat() {
    let folder = folder();
    let paths = ["a.jsonl.zst", "b.jsonl.zst"].map(|name| folder.path().join(name));
    for path in &paths {
        let mut writer = ShardWriter::create(&Storage::disk(), path).unwrap();
        for document in documents() {
            writer.write(&document).unwrap();
        }
        let summary = writer.finish().unwrap();
        assert_eq!(summary.lines, 500);
    }
    assert_eq!(fs::read(&paths[0]).unwrap(), fs::read(&paths[1]).unwrap());
    let found: Result<Vec<_>, _> = read_shard(&paths[0]).unwrap().collect();
    assert_eq!(found.unwrap(), documents());
}

#[test]
fn a_shard_without_documents_is_no_empty_file() {
    let folder = folder();
    let path = folder.path().join("none.jsonl.zst");
    ShardWriter::create(&Storage::disk(), &path).unwrap().finish().unwrap();
    assert_eq!(read_shard(&path).unwrap().count(), 0);
}

#[test]
fn a_flipped_bit_never_changes_what_is_read() {
    let folder = folder();
    let path = folder.path().join("x.jsonl.zst");
    let mut writer = ShardWriter::create(&Storage::disk(), &path).unwrap();
    for document in documents().iter().take(8) {
        writer.write(document).unwrap();
    }
    writer.finish().unwrap();
    let whole = fs::read(&path).unwrap();
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(&path, bytes).unwrap();
        let read = read_shard(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        // A larger window in the frame's head is harmless; everything else is found.
        assert!(read.is_err() || read.unwrap() == documents()[..8], "byte {place} of {}", whole.len());
    }
}

#[test]
fn a_bad_line_in_a_shard_is_an_error_with_its_place() {
    let folder = folder();
    let path = put(folder.path(), "x.jsonl.zst", zstandard((line("1", "a") + "{\"id\":\"2\"}\n").as_bytes()));
    let found: Vec<_> = read_shard(&path).unwrap().collect();
    assert_eq!(found.len(), 2);
    let message = found[1].as_ref().unwrap_err().to_string();
    assert!(message.contains("line 2") && message.contains("key `text` is missing"), "{message}");
}

#[test]
fn a_folder_or_a_missing_file_is_no_shard() {
    let folder = folder();
    assert!(matches!(read_shard(folder.path()), Err(Error::FolderForFile { .. })));
    assert!(matches!(read_shard(&folder.path().join("x.jsonl.zst")), Err(Error::Missing { .. })));
}

#[test]
fn a_failing_disk_is_an_error_at_every_operation() {
    let folder = folder();
    let path = folder.path().join("x.jsonl.zst");
    for operation in 0..1_000 {
        let storage = Storage::failing_at(operation);
        let result = ShardWriter::create(&storage, &path).and_then(|mut writer| {
            documents().iter().try_for_each(|document| writer.write(document))?;
            writer.finish()
        });
        let Err(error) = result else {
            assert!(operation >= 3, "create, write and sync are operations");
            return;
        };
        let message = error.to_string();
        assert_eq!(message.matches("x.jsonl.zst").count(), 1, "the file is named once: {message}");
    }
    panic!("no shard came to its end");
}
