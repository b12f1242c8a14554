//! WARC and WET files, whole and broken. All texts were written for the tests (CC0).

use documents::{Document, Problem, ReadOptions, Record};
use serde_json::json;

use crate::{folder, gzip, put, read, zstandard};

/// A record as a crawler writes it.
fn record(kind: &str, address: &str, content_type: &str, block: &[u8]) -> Vec<u8> {
    let number = address.len();
    let head = format!(
        "WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{kind}-{number}>\r\nWARC-Date: 2026-03-01T10:00:00Z\r\n\
         WARC-Target-URI: {address}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        block.len()
    );
    [head.as_bytes(), block, b"\r\n\r\n"].concat()
}

fn response(address: &str, head: &str, body: &[u8]) -> Vec<u8> {
    let block = [format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body].concat();
    record("response", address, "application/http; msgtype=response", &block)
}

fn text(address: &str, text: &str) -> Vec<u8> {
    response(address, "200 OK\r\nContent-Type: text/plain; charset=utf-8", text.as_bytes())
}

fn info() -> Vec<u8> {
    record("warcinfo", "", "application/warc-fields", b"software: test\r\nisPartOf: CRAWL-2026-10\r\n")
}

fn records(name: &str, bytes: impl AsRef<[u8]>) -> Vec<Record> {
    let folder = folder();
    let path = put(folder.path(), name, bytes);
    read(&path, ReadOptions::default()).into_iter().map(|record| record.unwrap()).collect()
}

/// The text of each good record, the problem of each bad one.
fn outcome(name: &str, bytes: impl AsRef<[u8]>) -> Vec<Result<String, Problem>> {
    let found = records(name, bytes).into_iter().map(|record| record.document);
    found.map(|document| document.map(|document| document.text).map_err(|bad| bad.problem)).collect()
}

fn first(bytes: impl AsRef<[u8]>) -> Document {
    records("x.warc", bytes).remove(0).document.unwrap()
}

#[test]
fn a_record_becomes_a_document_with_all_that_is_known() {
    let head = "200 OK\r\nContent-Type: text/plain; charset=iso-8859-7\r\nContent-Language: el\r\nX-Robots-Tag: noindex\r\n\
                x-robots-tag: noai\r\nTDM-Reservation: 1\r\nContent-Usage: train-ai=n\r\nContent-Signal: search=yes";
    let (greek, _, _) = encoding_rs::ISO_8859_7.encode("Ο ήλιος λάμπει.");
    let document = first([info(), response("https://a.example/x", head, &greek)].concat());
    assert_eq!(document.id, "urn:uuid:response-19");
    assert_eq!(document.url.as_deref(), Some("https://a.example/x"));
    assert_eq!(document.date.as_deref(), Some("2026-03-01T10:00:00Z"));
    assert_eq!(document.source.as_deref(), Some("CRAWL-2026-10"));
    assert_eq!(document.language.as_deref(), Some("el"));
    assert_eq!(document.text, "Ο ήλιος λάμπει.");
    let expected = json!({
        "content-signal": "search=yes", "content-usage": "train-ai=n", "http-status": 200,
        "robots": "noindex, noai", "tdm-reservation": "1",
    });
    assert_eq!(serde_json::to_value(&document.metadata).unwrap(), expected);
}

#[test]
fn wet_files_are_read() {
    let mut wet = record("conversion", "https://b.example/", "text/plain", "Sníh padá.".as_bytes());
    let line = b"WARC-Identified-Content-Language: ces,slk\r\n";
    let at = wet.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    wet.splice(at..at, line.iter().copied());
    let found = records("x.warc.wet.gz", [gzip(&info()), gzip(&wet)].concat());
    let document = found[0].document.as_ref().unwrap();
    assert_eq!((document.text.as_str(), document.language.as_deref()), ("Sníh padá.", Some("cs")));
    assert_eq!(document.source.as_deref(), Some("CRAWL-2026-10"));
}

#[test]
fn only_texts_and_robots_files_come_out() {
    let bytes = [
        record(
            "request",
            "https://a.example/1",
            "application/http; msgtype=request",
            b"GET / HTTP/1.1\r\n\r\n",
        ),
        response("https://a.example/2", "200 OK\r\nContent-Type: image/png", b"\x89PNG"),
        response("https://a.example/3", "404 Not Found\r\nContent-Type: text/plain", b"not here"),
        record("revisit", "https://a.example/4", "application/http", b"HTTP/1.1 200 OK\r\n\r\n"),
        record("metadata", "https://a.example/5", "application/warc-fields", b"fetchTimeMs: 5\r\n"),
        response("https://a.example/robots.txt", "404 Not Found\r\nContent-Type: text/html", b"<p>nothing"),
        response("https://a.example/6/robots.txt", "404 Not Found\r\nContent-Type: text/plain", b"no"),
        record("resource", "file:///notes.txt", "text/plain", "Õhtu jõudis.".as_bytes()),
    ]
    .concat();
    let found: Vec<_> = records("x.warc", bytes).into_iter().map(|record| record.document.unwrap()).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].metadata["kind"], "robots.txt");
    assert_eq!((found[0].text.as_str(), &found[0].metadata["http-status"]), ("<p>nothing", &json!(404)));
    assert_eq!(found[1].text, "Õhtu jõudis.");
}

fn three() -> [Vec<u8>; 3] {
    ["Esimene", "Otrais", "Trečias"].map(|word| text(&format!("https://{word}.example/"), word))
}

#[test]
fn every_compression_and_framing_is_read() {
    let whole = three().concat();
    let members = |pack: fn(&[u8]) -> Vec<u8>| three().map(|record| pack(&record)).concat();
    let line_feeds: Vec<u8> = whole.iter().copied().filter(|&byte| byte != b'\r').collect();
    for (name, bytes) in [
        ("x.warc", whole.clone()),
        ("x.warc.gz", members(gzip)),
        ("x.warc.gz", gzip(&whole)),
        ("x.warc.gz", [members(gzip), vec![0; 300]].concat()),
        ("x.warc.zst", members(zstandard)),
        ("x.warc.zst", zstandard(&whole)),
        // A skippable frame between two others.
        (
            "x.warc.zst",
            [
                zstandard(&three()[0]),
                b"\x50\x2A\x4D\x18\x03\0\0\0abc".to_vec(),
                zstandard(&[&three()[1][..], &three()[2]].concat()),
            ]
            .concat(),
        ),
    ] {
        assert_eq!(
            outcome(name, bytes),
            ["Esimene", "Otrais", "Trečias"].map(|word| Ok(word.to_string())),
            "{name}"
        );
    }
    // Bare line feeds change the lengths of the HTTP heads: the frames no longer hold, and are reported.
    assert!(outcome("x.warc", line_feeds).iter().all(Result::is_err));
}

#[test]
fn a_dictionary_at_the_head_of_a_zst_file_is_used() {
    let samples: Vec<Vec<u8>> = (0..2_000)
        .map(|number| text(&format!("https://{number}.example/"), &format!("Dan {number} v letu.")))
        .collect();
    // Any bytes serve as a dictionary; zstd itself tells trained ones from others.
    let dictionary = samples[100..120].concat();
    let mut compressor = zstd::bulk::Compressor::with_dictionary(3, &dictionary).unwrap();
    let frames: Vec<u8> =
        samples[..50].iter().flat_map(|sample| compressor.compress(sample).unwrap()).collect();
    for stored in [dictionary.clone(), zstandard(&dictionary)] {
        let head = [&b"\x5D\x2A\x4D\x18"[..], &(stored.len() as u32).to_le_bytes(), &stored].concat();
        let found = outcome("x.warc.zst", [&head, &frames[..]].concat());
        assert_eq!(found.len(), 50);
        assert_eq!(found[49], Ok("Dan 49 v letu.".to_string()));
        // A head that promises more dictionary than any is: refused before anything is held.
        let trap = [&b"\x5D\x2A\x4D\x18\xFF\xFF\xFF\xFF"[..], &frames].concat();
        let folder = folder();
        let error = documents::open_input(
            &documents::list_input_files(&[put(folder.path(), "x.warc.zst", trap)]).unwrap()[0],
            ReadOptions::default(),
        );
        assert!(error.err().unwrap().to_string().contains("dictionary"));
    }
}

#[test]
fn a_wrong_frame_costs_its_record_only() {
    let [one, two, three] = three();
    let check = |bytes: Vec<u8>, expected: &str| {
        for (name, packed) in
            [("x.warc", bytes.clone()), ("x.warc.gz", gzip(&bytes)), ("x.warc.zst", zstandard(&bytes))]
        {
            let found = outcome(name, packed);
            let goods: Vec<_> = found.iter().filter_map(|found| found.as_ref().ok()).collect();
            assert_eq!(goods, ["Esimene", "Trečias"], "{name} {expected}: {found:?}");
            let bad: Vec<_> = found.iter().filter_map(|found| found.as_ref().err()).collect();
            assert!(bad.len() == 1 && bad[0].to_string().contains(expected), "{name}: {bad:?}");
        }
    };
    let two_text = String::from_utf8(two.clone()).unwrap();
    let length = two_text.split("Content-Length: ").nth(1).unwrap().split('\r').next().unwrap();
    let with_length = |length: &str| {
        let mut parts = two_text.splitn(2, "Content-Length: ");
        let head = parts.next().unwrap();
        let rest = parts.next().unwrap().split_once('\r').unwrap().1;
        format!("{head}Content-Length: {length}\r{rest}").into_bytes()
    };
    assert_eq!(with_length(length), two);
    for wrong in ["3", "90", "400", "100000", "999999999999"] {
        let expected = format!("Content-Length of {wrong}");
        check([one.clone(), with_length(wrong), three.clone()].concat(), &expected);
    }
    check([one.clone(), with_length("many"), three.clone()].concat(), "no Content-Length");
    check(
        [one.clone(), b"garbage \x00 WARC/1.0 in a line\r\nand more\r\n\r\n".to_vec(), three.clone()]
            .concat(),
        "WARC/1.",
    );
    check([one.clone(), two[..two.len() - 20].to_vec(), three.clone()].concat(), "does not lead to");
    check(
        [one.clone(), b"WARC/1.0\r\n".to_vec(), vec![b'x'; 400_000], b"\r\n\r\n".to_vec(), three.clone()]
            .concat(),
        "longer than",
    );
}

#[test]
fn a_member_with_a_wrong_length_does_not_swallow_the_next() {
    let [one, two, three] = three();
    let lying =
        String::from_utf8(two).unwrap().replacen("Content-Length: ", "Content-Length: 9", 1).into_bytes();
    for pack in [gzip as fn(&[u8]) -> Vec<u8>, zstandard] {
        let name = if pack(b"").starts_with(&[0x1F]) { "x.warc.gz" } else { "x.warc.zst" };
        let found = outcome(name, [pack(&one), pack(&lying), pack(&three)].concat());
        assert!(found.len() == 3 && found[0].is_ok() && found[1].is_err() && found[2].is_ok(), "{found:?}");
    }
}

#[test]
fn damage_to_one_member_costs_that_member() {
    // Text that does not shrink to nothing, so that damage falls inside the data.
    let long: String = (0..400u64).map(|n| format!("{:x} ", n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    let [one, _, three] = three();
    let two = text("https://two.example/", &long);
    for (name, pack) in [("x.warc.gz", gzip as fn(&[u8]) -> Vec<u8>), ("x.warc.zst", zstandard)] {
        let (before, damaged, after) = (pack(&one), pack(&two), pack(&three));
        let begin = before.len();
        for place in [0, 1, 3, damaged.len() / 2, damaged.len() - 2] {
            // zstd frames without a checksum do not notice every flipped bit: a burst breaks the stream itself.
            let mut broken = damaged.clone();
            let burst = place..(place + 40).min(broken.len());
            broken[burst].iter_mut().for_each(|byte| *byte ^= 0x5A);
            let found = outcome(name, [&before[..], &broken, &after].concat());
            let goods: Vec<_> = found.iter().filter_map(|found| found.as_ref().ok()).collect();
            assert!(
                goods.len() >= 2 && goods[0] == "Esimene" && goods.last().unwrap().as_str() == "Trečias",
                "{name} {place}: {found:?}"
            );
            if name == "x.warc.gz" {
                let expected = (begin as u64, (begin + damaged.len()) as u64);
                assert!(
                    matches!(&found[1], Err(Problem::Damaged { from, to, .. }) if (*from, *to) == expected),
                    "{place}: {found:?}, expected {expected:?}"
                );
            }
        }
    }
}

#[test]
fn a_file_that_ends_in_the_middle_is_damage_after_all_that_is_whole() {
    let [one, two, _] = three();
    let folder = folder();
    for (name, pack) in [("x.warc.gz", gzip as fn(&[u8]) -> Vec<u8>), ("x.warc.zst", zstandard)] {
        let packed = [pack(&one), pack(&two)].concat();
        let path = put(folder.path(), name, &packed[..packed.len() - 9]);
        let found = read(&path, ReadOptions::default());
        assert!(found.len() == 2 && found[0].as_ref().unwrap().document.is_ok(), "{found:?}");
        let error = found[1].as_ref().unwrap_err();
        assert!(error.is_damage() && error.to_string().contains("truncated"), "{error}");
    }
}

#[test]
fn bombs_and_giants_are_bad_records_and_cost_no_memory() {
    let bomb = gzip(&vec![b'a'; 80 << 20]);
    let head = "200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: gzip";
    let giant = text("https://giant.example/", &"x".repeat(200 << 20));
    let [one, _, three] = three();
    let bytes = [&one[..], &response("https://bomb.example/", head, &bomb), &giant, &three].concat();
    for (name, packed) in [("x.warc", bytes.clone()), ("x.warc.zst", zstandard(&bytes))] {
        let found = outcome(name, packed);
        assert_eq!(found.len(), 4);
        assert!(matches!(found[1], Err(Problem::UnpacksTooFar { .. })), "{found:?}");
        assert!(matches!(found[2], Err(Problem::TooLong { length_bytes, .. }) if length_bytes > 200 << 20));
        assert!(found[0].is_ok() && found[3].is_ok());
    }
}

#[test]
fn a_bad_record_says_where_it_stands() {
    let [one, two, _] = three();
    let folder = folder();
    let path = put(folder.path(), "x.warc", [&one[..], b"garbage\r\n", &two].concat());
    let found = read(&path, ReadOptions::default());
    let message = found[1].as_ref().unwrap().document.as_ref().unwrap_err().to_string();
    assert!(message.contains(&format!("x.warc, record 2, byte {}", one.len())), "{message}");
}

const PAGE: &str = "<html lang=\"sl\"><head><title>Sneg</title><meta name=\"robots\" content=\"noindex\">\
    <link rel=\"license\" href=\"https://creativecommons.org/licenses/by/4.0/\"></head><body><nav><a href=/>Domov</a></nav>\
    <article><p>Ponoči je zapadlo deset centimetrov novega snega, zato so ceste na severu zaprte do jutra.</p>\
    <p>Šole ostajajo odprte, avtobusi pa vozijo z zamudo, ki lahko traja tudi eno uro.</p></article></body></html>";

#[test]
fn web_pages_become_documents() {
    let head = "200 OK\r\nContent-Type: text/html\r\nX-Robots-Tag: noai";
    let document = first(response("https://a.example/sneg", head, PAGE.as_bytes()));
    assert!(
        document.text.starts_with("Ponoči je zapadlo") && !document.text.contains("Domov"),
        "{}",
        document.text
    );
    assert_eq!(document.language.as_deref(), Some("sl"));
    assert_eq!(document.license.as_deref(), Some("CC-BY-4.0"));
    assert_eq!(
        (&document.metadata["title"], &document.metadata["robots"]),
        (&json!("Sneg"), &json!("noai, noindex"))
    );
    let untyped = first(response("https://a.example/sneg", "200 OK", PAGE.as_bytes()));
    assert_eq!(untyped.text, document.text);
}

#[test]
fn folders_of_web_pages_are_read() {
    let folder = folder();
    put(folder.path(), "a.html", PAGE);
    put(folder.path(), "b/c.htm.gz", gzip(format!("\u{FEFF}{PAGE}").as_bytes()));
    let found: Vec<_> = read(folder.path(), ReadOptions::default())
        .into_iter()
        .map(|record| record.unwrap().document.unwrap())
        .collect();
    assert_eq!(
        found.iter().map(|document| document.id.as_str()).collect::<Vec<_>>(),
        ["a.html", "b/c.htm.gz"]
    );
    assert!(found.iter().all(|document| document.text.contains("Šole ostajajo odprte")), "{found:?}");
}
