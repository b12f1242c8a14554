//! What is read, and in which order.

use documents::{ReadOptions, TextUnit, digest_inputs, list_input_files};

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
