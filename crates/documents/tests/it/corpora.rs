//! Records as public corpora write them. The keys are theirs, all texts were written for the tests (CC0).

use std::sync::Arc;

use documents::{Document, FieldMap, ReadOptions};
use serde_json::{Value, json};

use crate::{folder, put, read};

fn parse(records: &[Value], options: ReadOptions) -> Vec<Document> {
    let folder = folder();
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    let found = read(&put(folder.path(), "x.jsonl", lines), options);
    found.into_iter().map(|record| record.unwrap().document.unwrap()).collect()
}

fn check(record: Value, expected: Value) {
    let document = parse(std::slice::from_ref(&record), ReadOptions::default()).remove(0);
    let fields = json!({
        "id": document.id, "url": document.url, "date": document.date, "license": document.license,
        "language": document.language, "source": document.source, "text": document.text,
        "metadata": document.metadata.keys().collect::<Vec<_>>(),
    });
    assert_eq!(fields, expected, "{record}");
}

#[test]
fn records_of_public_corpora_are_known_by_their_keys() {
    check(
        json!({"text": "Ilta.", "id": "<urn:uuid:1>", "dump": "CC-MAIN-2024-10", "url": "https://a.example/",
               "date": "2024-03-01T00:00:00Z", "file_path": "s3://x", "language": "fin", "language_score": 0.9,
               "language_script": "Latn", "minhash_cluster_size": 1, "top_langs": "{}"}),
        json!({"id": "<urn:uuid:1>", "url": "https://a.example/", "date": "2024-03-01T00:00:00Z", "license": null,
               "language": "fi", "source": "FineWeb-2", "text": "Ilta.",
               "metadata": ["dump", "file_path", "language_score", "language_script", "minhash_cluster_size", "top_langs"]}),
    );
    check(
        json!({"f": "x.warc.gz", "o": 7, "u": "https://b.example/", "ts": "2023-01-01T00:00:00Z",
               "lang": ["ekk_Latn", "fin_Latn"], "prob": [0.9, 0.1], "text": "Õhtu.", "id": "ab12", "doc_scores": [1.0]}),
        json!({"id": "ab12", "url": "https://b.example/", "date": "2023-01-01T00:00:00Z", "license": null,
               "language": "et", "source": "HPLT", "text": "Õhtu.", "metadata": ["doc_scores", "f", "o", "prob"]}),
    );
    check(
        json!({"identifier": "europarl/7", "collection": "Europarl", "open_type": "Open Government",
               "license": "Public Domain", "date": 1998.0, "title": "T", "language": "Greek", "text": "Βράδυ.", "id": "other"}),
        json!({"id": "europarl/7", "url": null, "date": "1998", "license": "Public Domain", "language": "el",
               "source": "Europarl", "text": "Βράδυ.", "metadata": ["open_type", "title"]}),
    );
    check(
        json!({"content": "Вечер.", "warc_headers": {"warc-record-id": "<urn:uuid:3>",
               "warc-target-uri": "https://c.example/", "warc-date": "2022-05-05T00:00:00Z"},
               "metadata": {"identification": {"label": "bg", "prob": 0.9}}}),
        json!({"id": "<urn:uuid:3>", "url": "https://c.example/", "date": "2022-05-05T00:00:00Z", "license": null,
               "language": "bg", "source": "OSCAR", "text": "Вечер.", "metadata": []}),
    );
    check(
        json!({"text": "Vakars.", "timestamp": "2019-01-01T00:00:00Z", "url": "https://d.example/"}),
        json!({"id": "x.jsonl#1", "url": "https://d.example/", "date": "2019-01-01T00:00:00Z", "license": null,
               "language": null, "source": "C4", "text": "Vakars.", "metadata": []}),
    );
    check(
        json!({"id": 12, "revid": 5, "url": "https://mt.wikipedia.org/wiki?curid=12", "title": "Lejl", "text": "Lejl."}),
        json!({"id": "12", "url": "https://mt.wikipedia.org/wiki?curid=12", "date": null, "license": null,
               "language": null, "source": "Wikipedia", "text": "Lejl.", "metadata": ["revid", "title"]}),
    );
}

#[test]
fn our_own_format_is_held_to_its_word() {
    let folder = folder();
    let path = put(folder.path(), "x.jsonl", "{\"text\":\"a\",\"title\":\"t\"}\n{\"id\":3,\"text\":\"b\"}\n");
    let found = read(&path, ReadOptions::default());
    let problem = |place: usize| found[place].as_ref().unwrap().document.as_ref().unwrap_err().to_string();
    assert!(problem(0).contains("key `id` is missing"), "{}", problem(0));
    assert!(problem(1).contains("key `id`: expected a string, found a number"), "{}", problem(1));
}

#[test]
fn the_user_may_say_where_the_fields_stand() {
    let fields = [("text", "translation.ga"), ("language", "=ga"), ("source", "=Europarl"), ("id", "number")];
    let fields =
        FieldMap::new(&fields.map(|(name, key)| (name.to_string(), key.to_string())).into()).unwrap();
    let options = ReadOptions { fields: Some(Arc::new(fields)), ..ReadOptions::default() };
    let records = [
        json!({"number": 7, "translation": {"en": "Evening.", "ga": "Tráthnóna."}, "text": "not this"}),
        json!({"translation": {"ga": "Maidin."}}),
    ];
    let found = parse(&records, options.clone());
    assert_eq!((found[0].id.as_str(), found[0].text.as_str()), ("7", "Tráthnóna."));
    assert_eq!((found[0].language.as_deref(), found[0].source.as_deref()), (Some("ga"), Some("Europarl")));
    assert!(found[0].metadata.is_empty(), "a `text` that is not the text would be taken for it: {found:?}");
    assert_eq!(found[1].id, "x.jsonl#2");
    let folder = folder();
    let bad = read(&put(folder.path(), "x.jsonl", "{\"translation\":{\"en\":\"Morning.\"}}\n"), options);
    let message = bad[0].as_ref().unwrap().document.as_ref().unwrap_err().to_string();
    assert!(message.contains("key `translation.ga` is missing"), "{message}");
}
