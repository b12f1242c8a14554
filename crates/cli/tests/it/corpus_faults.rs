//! Inputs that are damaged, huge or hostile, and clocks that jump, through the program: the output is whole and the same,
//! or one message names the file and the place.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Output;

use flate2::Compression;
use flate2::write::GzEncoder;
use provenance::{Artefact, Clock, Rank, Storage};
use serde_json::Value;

use crate::support::{
    assert_all_whole, digests, program, read_recipe, run, sample, world, write_shortest_recipe,
};

/// What no fault may make the program hold, beyond what it needs anyway.
const MEMORY_BYTES: u64 = 400 << 20;

/// Runs the corpus stage alone on files.
fn corpus(inputs: &[PathBuf], root: &Path, settings: &[&str]) -> Output {
    let mut command = program();
    command.args(["--threads", "2", "corpus", "--set", "languages=[\"mt\"]", "--output"]).arg(root);
    for input in inputs {
        command.arg("--documents").arg(input);
    }
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.output().unwrap()
}

fn message(output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!message.contains("panicked"), "{message}");
    message
}

fn maltese() -> PathBuf {
    sample().join("documents/mt.jsonl")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a corpus counts, once it was found to be whole and to have been made in little memory.
fn counts(output: &Output, root: &Path) -> Value {
    assert!(output.status.success(), "{}", message(output));
    assert_all_whole(root, "a corpus of bad input");
    let manifest = Artefact::open(&root.join("corpus")).unwrap().manifest;
    let peak = manifest.circumstances["peak_memory_bytes"].as_u64().unwrap();
    assert!(peak < MEMORY_BYTES, "{peak} bytes of memory");
    manifest.content.counts["total"].clone()
}

/// A run that must stop, with words of its message.
fn check_stopped(inputs: &[PathBuf], root: &Path, words: &[&str]) {
    let output = corpus(inputs, root, &[]);
    let said = message(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    assert!(!root.join("corpus").exists(), "an artefact was left");
    assert_all_whole(root, "stopped");
}

/// A number from the environment: sizes that are too much for every run of the tests.
fn from_environment(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |number| number.parse().unwrap())
}

#[test]
fn damage_in_the_middle_of_an_archive_is_named_or_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Several texts, so that the archive is longer than what is read of it at once.
    let mut lines = String::new();
    for language in ["de", "el", "fr", "ga", "pl", "bg", "cs", "hu"] {
        lines += &fs::read_to_string(sample().join(format!("documents/{language}.jsonl"))).unwrap();
    }
    let mut packed = gzip(lines.as_bytes());
    let middle = packed.len() / 2;
    packed[middle..middle + 64].fill(0xA5);
    fs::write(at("damaged.jsonl.gz"), &packed).unwrap();
    let inputs = [at("damaged.jsonl.gz"), maltese()];
    check_stopped(&inputs, &at("stopped"), &["damaged.jsonl.gz", "damaged at byte", "fetch"]);
    let output = corpus(&inputs, &at("skipped"), &["damaged_input='skip'"]);
    assert_eq!(counts(&output, &at("skipped"))["kept"], 20);

    // In a crawl each record is a member of its own: one is lost, and the damaged bytes are named.
    let text = fs::read_to_string(sample().join("parallel/mt.txt")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut members: Vec<Vec<u8>> = lines
        .chunks(6)
        .map(|lines| {
            let body = lines.join("\n");
            gzip(
                format!(
                    "WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: https://a.example/\r\nWARC-Record-ID: <urn:{}>\r\n\
                     WARC-Date: 2026-01-01T00:00:00Z\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}\r\n\r\n",
                    lines[0].len(),
                    body.len()
                )
                .as_bytes(),
            )
        })
        .collect();
    let whole = members.len() as u64;
    let hurt = &mut members[2];
    let middle = hurt.len() / 2;
    hurt[middle..].fill(0x5A);
    fs::write(at("crawl.warc.gz"), members.concat()).unwrap();
    let inputs = [at("crawl.warc.gz"), maltese()];
    let output = corpus(&inputs, &at("crawl"), &["default_license='CC0-1.0'"]);
    let counted = counts(&output, &at("crawl"));
    assert_eq!(counted["read"].as_u64(), Some(20 + whole), "{counted}");
    assert_eq!(counted["dropped"]["unreadable"], 1, "{counted}");
    assert!(message(&output).contains("crawl.warc.gz") && message(&output).contains("are damaged"));
}

#[test]
fn a_huge_document_costs_no_memory_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    // EULALIA_DOCUMENT_MEGABYTES=200 is the size that the stage must bear.
    let megabytes = from_environment("EULALIA_DOCUMENT_MEGABYTES", 80);
    let block = "Il-baħar kalm u x-xemx fuqu. ".repeat(1 << 15);
    for name in ["huge.jsonl", "huge.txt"] {
        let path = folder.path().join(name);
        let mut file = io::BufWriter::new(fs::File::create(&path).unwrap());
        if name.ends_with("jsonl") {
            file.write_all(b"{\"id\": \"huge\", \"license\": \"CC0-1.0\", \"text\": \"").unwrap();
        }
        (0..=(megabytes << 20) / block.len()).for_each(|_| file.write_all(block.as_bytes()).unwrap());
        if name.ends_with("jsonl") {
            file.write_all(b"\"}\n").unwrap();
        }
        file.flush().unwrap();
        drop(file);
        let root = folder.path().join(format!("out-{name}"));
        let output = corpus(&[path.clone(), maltese()], &root, &[]);
        let counted = counts(&output, &root);
        assert_eq!(
            (&counted["kept"], &counted["dropped"]["unreadable"]),
            (&20.into(), &1.into()),
            "{counted}"
        );
        let said = message(&output);
        assert!(said.contains(name) && said.contains("line 1") && said.contains("limit"), "{said}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn archives_that_unpack_without_end_cost_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let zeros = |megabytes: usize, mut into: Box<dyn Write + '_>| {
        let block = vec![0; 1 << 20];
        (0..megabytes).for_each(|_| into.write_all(&block).unwrap());
    };
    let zstandard = |name: &str, window: u32, megabytes: usize| {
        let mut encoder = zstd::Encoder::new(fs::File::create(at(name)).unwrap(), 1).unwrap();
        encoder.window_log(window).unwrap();
        zeros(megabytes, Box::new(&mut encoder));
        encoder.finish().unwrap();
    };
    // A gzip stream cannot shrink below a thousandth, nor a zstd frame that declares a window of a kilobyte below a
    // hundredth or so: they are read to their end, as one line that is too long.
    let megabytes = from_environment("EULALIA_BOMB_MEGABYTES", 80);
    let mut gzip = GzEncoder::new(fs::File::create(at("bomb.jsonl.gz")).unwrap(), Compression::fast());
    zeros(megabytes, Box::new(&mut gzip));
    gzip.finish().unwrap();
    zstandard("small-window.jsonl.zst", 10, megabytes);
    let inputs = [at("bomb.jsonl.gz"), at("small-window.jsonl.zst"), maltese()];
    let output = corpus(&inputs, &at("out-long"), &[]);
    let counted = counts(&output, &at("out-long"));
    assert_eq!((&counted["kept"], &counted["dropped"]["unreadable"]), (&20.into(), &2.into()), "{counted}");
    // With a larger window it can, and is stopped on its way.
    zstandard("bomb.jsonl.zst", 20, 400);
    let inputs = [at("bomb.jsonl.zst"), maltese()];
    let output = corpus(&inputs, &at("out-skipped"), &["damaged_input='skip'"]);
    assert_eq!(counts(&output, &at("out-skipped"))["kept"], 20);
    check_stopped(&inputs, &at("out-stopped"), &["bomb.jsonl.zst", "bomb", "at byte"]);
}

#[test]
fn text_that_is_no_utf_8_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = folder.path().join("inputs");
    fs::create_dir(&inputs).unwrap();
    fs::copy(maltese(), inputs.join("good.jsonl")).unwrap();
    fs::write(inputs.join("latin.txt"), b"Il-ba\xF1ar kalm u x-xemx fuqu.\n").unwrap();
    fs::write(inputs.join("latin.jsonl"), b"{\"id\": \"1\", \"text\": \"ba\xF1ar\"}\n{\"id\": \"2\"\xFF}\n")
        .unwrap();
    fs::write(inputs.join("half.txt"), [0xC4, 0xA7, 0xC4]).unwrap();
    let output = corpus(&[inputs], &folder.path().join("out"), &[]);
    let counted = counts(&output, &folder.path().join("out"));
    assert_eq!((&counted["kept"], &counted["dropped"]["unreadable"]), (&20.into(), &4.into()), "{counted}");
    assert!(message(&output).contains("not UTF-8"), "{}", message(&output));
}

#[test]
fn clocks_that_jump_or_differ_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = read_recipe(&write_shortest_recipe(folder.path()), &[]);
    let at = |clock: u64, storage: Storage| {
        let mut world = world(storage, 1);
        world.clock = Clock::fixed(clock);
        world
    };
    let (today, long_ago) = (1_700_000_000, 86_400);
    let expected = digests(&run(&recipe, &folder.path().join("whole"), &at(today, Storage::disk())).unwrap());

    // Set back between a run that died and the one that goes on, and again before it is only looked up.
    let root = folder.path().join("set-back");
    let dying = Storage::failing_at(60);
    assert!(run(&recipe, &root, &at(today, dying.clone())).is_err());
    dying.discard_unsynced().unwrap();
    for clock in [long_ago, 0, today] {
        assert_eq!(digests(&run(&recipe, &root, &at(clock, Storage::disk())).unwrap()), expected);
        assert_all_whole(&root, "a clock set back");
    }

    // Two processes whose clocks are decades apart.
    let root = folder.path().join("apart");
    std::thread::scope(|scope| {
        for (rank, clock) in [today, long_ago].into_iter().enumerate() {
            let (recipe, root, expected) = (&recipe, &root, &expected);
            let mut world = at(clock, Storage::disk());
            world.rank = Rank { rank, world: 2, ..Rank::default() };
            scope.spawn(move || {
                let outcomes = digests(&run(recipe, root, &world).unwrap());
                assert!(expected.starts_with(&outcomes), "{outcomes:?}");
            });
        }
    });
}
