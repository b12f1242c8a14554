//! What is read, and in which order.

use documents::{ReadOptions, TextUnit, digest_inputs, list_input_files, open_input};

use crate::{folder, good, gzip, line, put, zstandard};

#[test]
fn every_kind_of_file_is_read_in_the_order_of_names() {
    let folder = folder();
    let at = folder.path();
    put(at, "b.jsonl.gz", gzip(line("b", "Ελληνικά").as_bytes()));
    put(at, "a/deep/c.jsonl", line("c", "Gaeilge áéíóú"));
    put(at, "a.jsonl.zst", zstandard((line("a1", "Български") + &line("a2", "ċġħż")).as_bytes()));
    put(at, "d.txt", "Õhtu\r\njõudis.\r\n");
    put(at, "README.md", "not read");
    put(at, ".hidden.jsonl", "not read");
    let expected = [
        ("a1", "Български"),
        ("a2", "ċġħż"),
        ("c", "Gaeilge áéíóú"),
        ("b", "Ελληνικά"),
        ("d.txt", "Õhtu\r\njõudis.\r\n"),
    ];
    let found = good(at, ReadOptions::default());
    let found: Vec<_> = found.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn archives_of_many_members_are_read_to_the_end() {
    let folder = folder();
    let members = [gzip(line("1", "a").as_bytes()), gzip(line("2", "b").as_bytes())].concat();
    assert_eq!(good(&put(folder.path(), "m.jsonl.gz", members), ReadOptions::default()).len(), 2);
    let frames = [zstandard(line("1", "a").as_bytes()), zstandard(line("2", "b").as_bytes())].concat();
    assert_eq!(good(&put(folder.path(), "m.jsonl.zst", frames), ReadOptions::default()).len(), 2);
}

#[test]
fn byte_order_mark_and_carriage_returns_and_blank_lines_are_no_content() {
    let folder = folder();
    let json = format!("\u{FEFF}{}\r\n\r\n   \n{}", line("1", "a").trim(), line("2", "b").trim());
    let path = put(folder.path(), "x.jsonl", json);
    assert_eq!(good(&path, ReadOptions::default()), [("1".into(), "a".into()), ("2".into(), "b".into())]);
    let path = put(folder.path(), "x.txt", "\u{FEFF}Sveiki");
    assert_eq!(good(&path, ReadOptions::default()), [("x.txt".into(), "Sveiki".into())]);
}

#[test]
fn a_text_file_can_be_cut_into_paragraphs() {
    let folder = folder();
    let path = put(folder.path(), "x.txt", "\n\nEen\ntwee\n\n \nDrie\r\n");
    let options = ReadOptions { text_unit: TextUnit::Paragraph, ..ReadOptions::default() };
    let expected =
        [("x.txt#1".to_string(), "Een\ntwee".to_string()), ("x.txt#2".to_string(), "Drie".to_string())];
    assert_eq!(good(&path, options), expected);
}

#[test]
fn digests_know_names_and_content_but_not_the_folder() {
    let (one, two) = (folder(), folder());
    for folder in [&one, &two] {
        put(folder.path(), "a/b.jsonl", line("1", "a"));
        put(folder.path(), "c.txt", "c");
    }
    let first = digest_inputs(&[one.path().to_path_buf()]).unwrap();
    assert_eq!(first, digest_inputs(&[two.path().to_path_buf()]).unwrap());
    assert_eq!(first.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["a/b.jsonl", "c.txt"]);
    put(two.path(), "c.txt", "d");
    assert_ne!(first, digest_inputs(&[two.path().to_path_buf()]).unwrap());
}

#[cfg(unix)]
#[test]
fn links_are_followed() {
    let (target, linking) = (folder(), folder());
    put(target.path(), "a.jsonl", line("1", "a"));
    std::os::unix::fs::symlink(target.path(), linking.path().join("linked")).unwrap();
    let files = list_input_files(&[linking.path().to_path_buf()]).unwrap();
    assert_eq!(files[0].name, "linked/a.jsonl");
}

#[test]
fn one_file_can_be_opened_alone_and_from_any_record_on() {
    let folder = folder();
    let lines: String = (0..10).map(|number| line(&number.to_string(), "Tá sé fuar.")).collect();
    put(folder.path(), "a.jsonl.zst", zstandard((lines + "bad\n").as_bytes()));
    put(folder.path(), "b.jsonl", line("other", "file"));
    let files = list_input_files(&[folder.path().to_path_buf()]).unwrap();
    let mut reader = open_input(&files[0], ReadOptions::default()).unwrap();
    reader.skip_records(7).unwrap();
    assert_eq!(reader.records(), 7);
    let ids: Vec<_> =
        reader.by_ref().map(|raw| raw.unwrap().parse().document.map(|found| found.id)).collect();
    assert_eq!(ids[..3], [Ok("7".to_string()), Ok("8".to_string()), Ok("9".to_string())]);
    assert!(ids.len() == 4 && ids[3].is_err(), "a bad record counts too: {ids:?}");
    reader.skip_records(5).unwrap();
    assert_eq!(reader.records(), 11, "there are no more than that");
}

#[test]
fn metadata_that_nobody_wants_are_not_kept() {
    let folder = folder();
    let path = put(
        folder.path(),
        "x.jsonl",
        "{\"id\":\"1\",\"robots\":\"noai\",\"big\":[{\"a\":1}],\"text\":\"a\"}\n",
    );
    let options = ReadOptions { keep_metadata: |key| key == "robots", ..ReadOptions::default() };
    let document = crate::read(&path, options).remove(0).unwrap().document.unwrap();
    assert_eq!(document.metadata.into_iter().collect::<Vec<_>>(), [("robots".to_string(), "noai".into())]);
}

#[test]
fn utf_16_is_read_by_its_byte_order_mark() {
    let folder = folder();
    let utf16 = |text: &str| -> Vec<u8> {
        format!("\u{FEFF}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
    };
    let text = "Χθες έβρεξε.\r\n\r\nСега вали сняг. 𝄞";
    assert_eq!(good(&put(folder.path(), "x.txt", utf16(text)), ReadOptions::default())[0].1, text);
    let options = ReadOptions { text_unit: TextUnit::Paragraph, ..ReadOptions::default() };
    assert_eq!(good(&put(folder.path(), "x.md", utf16(text)), options)[1].1, "Сега вали сняг. 𝄞");
    let lines = line("1", "ġurnata") + &line("2", "òrain");
    assert_eq!(
        good(&put(folder.path(), "x.jsonl.gz", gzip(&utf16(&lines))), ReadOptions::default()).len(),
        2
    );
}

#[test]
fn what_is_written_about_a_folder_is_no_document() {
    let folder = folder();
    for name in ["README.md", "LICENSE.txt", "deep/readme.txt", "text.md", "notes.markdown"] {
        put(folder.path(), name, "Een zin.");
    }
    let names: Vec<_> = good(folder.path(), ReadOptions::default()).into_iter().map(|(id, _)| id).collect();
    assert_eq!(names, ["notes.markdown", "text.md"]);
    assert_eq!(
        good(&folder.path().join("README.md"), ReadOptions::default()).len(),
        1,
        "named itself, it is read"
    );
}
