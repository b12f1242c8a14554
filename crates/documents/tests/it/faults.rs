//! Bad records are data with a place; damaged or missing files are errors that say what to do.

use std::path::{Path, PathBuf};

use documents::{Error, Problem, ReadOptions, TextUnit, list_input_files, read_documents};

use crate::{folder, gzip, line, put, read, zstandard};

fn small() -> ReadOptions {
    ReadOptions { record_limit_bytes: 100, ..ReadOptions::default() }
}

#[test]
fn bad_records_have_their_place_and_reading_goes_on() {
    let folder = folder();
    let mut bytes = line("1", "a").into_bytes();
    let second = bytes.len() as u64;
    bytes.extend_from_slice(b"{\"id\":\"2\",\"text\":\"caf\xE9\"}\n");
    let third = bytes.len() as u64;
    bytes.extend_from_slice(&[b'x'; 500]);
    bytes.extend_from_slice(b"\n{\"id\":\"4\",\"text\":4}\n");
    bytes.extend_from_slice(line("5", "e").as_bytes());
    let records: Vec<_> = read(&put(folder.path(), "x.jsonl", bytes), small());
    let records: Vec<_> = records.into_iter().map(|record| record.unwrap()).collect();
    assert_eq!(records.len(), 5);
    assert!(records[0].document.is_ok() && records[4].document.is_ok());
    let bad: Vec<_> = records[1..4].iter().map(|record| record.document.clone().unwrap_err()).collect();
    assert_eq!((bad[0].place.line, bad[0].offset, &bad[0].problem), (2, second + 21, &Problem::NotUtf8));
    let too_long = Problem::TooLong { length_bytes: 500, limit_bytes: 100 };
    assert_eq!((bad[1].place.line, bad[1].offset, &bad[1].problem), (3, third, &too_long));
    assert!(bad[2].to_string().contains("x.jsonl, line 4"), "{}", bad[2]);
    assert!(bad[2].to_string().contains("key `text`: expected a string, found a number"), "{}", bad[2]);
}

#[test]
fn a_text_beyond_the_limit_is_a_bad_record() {
    let folder = folder();
    let path = put(folder.path(), "x.txt", "0123456789\n".repeat(20));
    for text_unit in [TextUnit::File, TextUnit::Paragraph] {
        let records = read(&path, ReadOptions { text_unit, ..small() });
        assert_eq!(records.len(), 1);
        let problem = records[0].as_ref().unwrap().document.clone().unwrap_err().problem;
        assert!(matches!(problem, Problem::TooLong { limit_bytes: 100, .. }), "{problem}");
    }
}

#[test]
fn truncated_archives_name_file_and_offset() {
    // Text that does not compress to nothing, so that the cut falls inside the data.
    let lines: String = (0..2_000u64)
        .map(|n| line(&n.to_string(), &format!("{:x}", n.wrapping_mul(0x9E3779B97F4A7C15))))
        .collect();
    for (name, whole) in
        [("x.jsonl.gz", gzip(lines.as_bytes())), ("x.jsonl.zst", zstandard(lines.as_bytes()))]
    {
        let folder = folder();
        let path = put(folder.path(), name, &whole[..whole.len() / 2]);
        put(folder.path(), "y.jsonl", line("next", "file"));
        let records = read(folder.path(), ReadOptions::default());
        let error = records.iter().find_map(|record| record.as_ref().err()).expect(name);
        assert!(error.is_damage(), "{error}");
        let message = error.to_string();
        assert!(message.contains(&path.display().to_string()) && message.contains("truncated"), "{message}");
        assert!(message.contains(&format!("byte {} of the file", whole.len() / 2)), "{message}");
        let last = records.last().unwrap().as_ref().unwrap();
        assert_eq!(last.document.as_ref().unwrap().id, "next", "the file after the damaged one is read");
    }
}

#[test]
fn what_is_no_archive_at_all_is_damage() {
    for name in ["x.jsonl.gz", "x.jsonl.zst"] {
        let folder = folder();
        let records = read(&put(folder.path(), name, line("1", "a")), ReadOptions::default());
        assert!(records.len() == 1 && records[0].as_ref().unwrap_err().is_damage());
    }
}

#[test]
fn an_empty_file_is_damage() {
    let folder = folder();
    let records = read(&put(folder.path(), "x.jsonl", ""), ReadOptions::default());
    assert!(matches!(records[..], [Err(Error::EmptyFile { .. })]));
}

fn check_listing(input: &Path, expected: &str) {
    let message = list_input_files(&[PathBuf::from(input)]).unwrap_err().to_string();
    assert!(message.contains(expected) && message.contains(&input.display().to_string()), "{message}");
}

#[test]
fn wrong_inputs_say_what_is_wrong() {
    let folder = folder();
    let at = folder.path();
    check_listing(&at.join("nowhere"), "no such file or folder");
    check_listing(at, "no file that can be read");
    check_listing(&put(at, "x.pdf", "%PDF"), "not a kind of file that can be read");
    check_listing(Path::new("/dev/null"), "found a device");
}

#[test]
fn a_folder_where_a_file_should_be_is_an_input_of_files() {
    let folder = folder();
    put(folder.path(), "shard.jsonl/part.jsonl", line("1", "a"));
    let input = [folder.path().join("shard.jsonl")];
    assert_eq!(read_documents(&input, ReadOptions::default()).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn link_loops_broken_links_and_sockets_are_refused() {
    use std::os::unix::{fs::symlink, net::UnixListener};
    let check = |make: &dyn Fn(&Path), expected: &str| {
        let folder = folder();
        make(folder.path());
        let message = list_input_files(&[folder.path().to_path_buf()]).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(&|at| symlink(at, at.join("loop")).unwrap(), "leads back");
    check(&|at| symlink("itself.jsonl", at.join("itself.jsonl")).unwrap(), "leads back");
    check(&|at| symlink("gone.jsonl", at.join("x.jsonl")).unwrap(), "leads nowhere");
    check(&|at| drop(UnixListener::bind(at.join("x.jsonl")).unwrap()), "found a socket");
}

#[test]
fn a_binary_file_that_calls_itself_text_is_a_bad_record() {
    let folder = folder();
    let bare_utf16: Vec<u8> = "labas".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let records = read(&put(folder.path(), "x.txt", bare_utf16), ReadOptions::default());
    let bad = records[0].as_ref().unwrap().document.clone().unwrap_err();
    assert_eq!((bad.offset, bad.problem), (1, Problem::ZeroByte));
}

#[cfg(unix)]
#[test]
fn names_with_line_ends_are_refused_before_any_work() {
    let folder = folder();
    put(folder.path(), "a\nb.jsonl", line("1", "a"));
    let message = list_input_files(&[folder.path().to_path_buf()]).unwrap_err().to_string();
    assert!(message.contains("control character") && message.contains("a\\nb.jsonl"), "{message}");
}

#[test]
fn a_stream_that_unpacks_without_end_is_damage() {
    let folder = folder();
    // 400 MB of nothing in a few kilobytes, as one line.
    let zeros = std::io::Read::take(std::io::repeat(b' '), 400 << 20);
    let packed = zstd::encode_all(zeros, 1).unwrap();
    assert!(packed.len() < 60_000);
    let records = read(&put(folder.path(), "x.jsonl.zst", packed), ReadOptions::default());
    let error = records.last().unwrap().as_ref().unwrap_err();
    assert!(error.is_damage() && error.to_string().contains("bomb"), "{error}");
}
