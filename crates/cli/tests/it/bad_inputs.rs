//! Bad files and full disks: one clear message, nothing half-written under a final name.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::support::{assert_all_whole, program, sample, write_recipe};

/// Runs the corpus stage alone on a file.
fn corpus(input: &Path, root: &Path) -> Output {
    program()
        .args(["corpus", "--set", "languages=[\"mt\"]", "--output"])
        .arg(root)
        .arg("--documents")
        .arg(input)
        .output()
        .unwrap()
}

fn message(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!message.contains("panicked"), "{message}");
    message
}

fn maltese() -> Vec<u8> {
    fs::read(sample().join("documents/mt.jsonl")).unwrap()
}

#[test]
fn damaged_and_hostile_files_end_in_one_clear_message() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let good = maltese();
    fs::write(at("empty.jsonl"), "").unwrap();
    fs::create_dir(at("folder.jsonl")).unwrap();
    fs::write(at("picture.jsonl"), [0x89, b'P', b'N', b'G', 0, 0, 0xff, 0xfe, b'\n']).unwrap();
    fs::write(at("not-gzip.jsonl.gz"), &good).unwrap();
    fs::write(at("not-zstd.jsonl.zst"), &good).unwrap();
    fs::write(at("one.jsonl"), good.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    let shard = at("truncated.jsonl.zst");
    let whole = documents_as_zstd(&at("whole.jsonl.zst"));
    fs::write(&shard, &whole[..whole.len() / 2]).unwrap();
    let mut long = fs::File::create(at("long.jsonl")).unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..1024 {
        long.write_all(&block).unwrap();
    }
    drop(long);

    // File, and words of the message.
    for (name, words) in [
        ("missing.jsonl", &["missing.jsonl"][..]),
        ("empty.jsonl", &["empty.jsonl", "empty"]),
        ("folder.jsonl", &["folder.jsonl"]),
        ("picture.jsonl", &["picture.jsonl", "line 1", "UTF-8"]),
        ("not-gzip.jsonl.gz", &["not-gzip.jsonl.gz"]),
        ("not-zstd.jsonl.zst", &["not-zstd.jsonl.zst"]),
        ("truncated.jsonl.zst", &["truncated.jsonl.zst"]),
        ("one.jsonl", &["mt"]),
        ("long.jsonl", &["long.jsonl", "line 1", "limit"]),
    ] {
        let root = at(&format!("out-{name}"));
        let output = corpus(&at(name), &root);
        let said = message(&output);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{name}: {:?} {said}", output.status);
        for word in words {
            assert!(said.contains(word), "{name}: {word:?} is missing in: {said}");
        }
        assert!(!root.join("corpus").exists(), "{name} left an artefact");
        assert_all_whole(&root, name);
    }
}

/// The Maltese sample as a zstd shard, made by the program itself.
fn documents_as_zstd(path: &Path) -> Vec<u8> {
    let storage = provenance::Storage::disk();
    let mut writer = documents::ShardWriter::create(&storage, path).unwrap();
    let inputs = [sample().join("documents/mt.jsonl")];
    for record in documents::read_documents(&inputs, documents::ReadOptions::default()).unwrap() {
        writer.write(&record.unwrap().document.unwrap()).unwrap();
    }
    writer.finish().unwrap();
    fs::read(path).unwrap()
}

#[test]
fn bad_records_among_good_ones_are_counted_and_the_rest_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut mixed = maltese();
    mixed.extend(b"{\"id\": \"broken\", \n");
    mixed.extend(b"{\"id\": \"latin1\", \"text\": \"g\xe9n\xe9ral\"}\n");
    mixed.extend(b"[1, 2, 3]\n{\"id\": 5}\n\n");
    let input = folder.path().join("mixed.jsonl");
    fs::write(&input, mixed).unwrap();
    let root = folder.path().join("out");
    let output = corpus(&input, &root);
    assert!(output.status.success(), "{}", message(&output));
    let manifest = provenance::Artefact::open(&root.join("corpus")).unwrap().manifest;
    let counts = manifest.content.counts.to_string();
    assert!(counts.contains("\"kept\":20"), "{counts}");
}

/// The shortened recipe into a folder.
fn run_into(root: &Path) -> (Output, PathBuf) {
    let recipe = write_recipe(root.parent().unwrap(), 4);
    let output = program().arg("run").arg(&recipe).arg("--output").arg(root).output().unwrap();
    (output, recipe)
}

#[test]
fn a_file_size_limit_is_named_and_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("out");
    let recipe = write_recipe(folder.path(), 4);
    // The shell sets the limit (in KiB) and ignores the signal, so that writing fails as on a full quota.
    let script = "trap '' XFSZ; ulimit -f 24; exec \"$0\" run \"$1\" --output \"$2\"";
    let output = std::process::Command::new("bash")
        .arg("-c")
        .arg(script)
        .arg(env!("CARGO_BIN_EXE_eulalia"))
        .arg(&recipe)
        .arg(&root)
        .output()
        .unwrap();
    let said = message(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ulimit -f") && said.contains("cannot write"), "{said}");
    assert_all_whole(&root, "file-size limit");
    let again = program().arg("run").arg(&recipe).arg("--output").arg(&root).output().unwrap();
    assert!(again.status.success(), "{}", message(&again));
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (output, _) = run_into(&file);
    let said = message(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--output"), "{said}");
    // Nobody, not even root, can make a folder here.
    let recipe = write_recipe(folder.path(), 4);
    let output = program().arg("run").arg(&recipe).args(["--output", "/proc/eulalia"]).output().unwrap();
    let said = message(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/proc/eulalia"), "{said}");
}

#[test]
fn a_full_disk_is_named_and_the_run_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    // /dev/full fails every write with "no space left on device": the run's log is made to lie there.
    let root = folder.path().join("out");
    fs::create_dir(&root).unwrap();
    std::os::unix::fs::symlink("/dev/full", root.join("run.jsonl")).unwrap();
    let (output, recipe) = run_into(&root);
    let said = message(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the disk is full"), "{said}");
    assert_all_whole(&root, "full disk");
    fs::remove_file(root.join("run.jsonl")).unwrap();
    let again = program().arg("run").arg(&recipe).arg("--output").arg(&root).output().unwrap();
    assert!(again.status.success(), "{}", message(&again));
}
