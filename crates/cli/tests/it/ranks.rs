//! Four processes that make one corpus, and `kill -9`: whoever is left ends with the bytes that one process alone makes.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use documents::{Document, read_shard};

use crate::support::{assert_all_whole, program, sample};

const RANKS: usize = 4;

/// Files of documents put together from the sentences of the sample: much work for the time that it takes to make them.
fn write_documents(folder: &Path, files: usize, documents: usize) -> PathBuf {
    let folder = folder.join("documents");
    std::fs::create_dir(&folder).unwrap();
    let mut sentences: Vec<(String, Vec<String>)> = Vec::new();
    for language in ["el", "ga", "mt", "sl"] {
        let path = sample().join(format!("documents/{language}.jsonl"));
        let texts = read_shard(&path).unwrap().map(|document| document.unwrap().text);
        let of_language =
            texts.flat_map(|text| text.split_inclusive(". ").map(String::from).collect::<Vec<_>>());
        sentences.push((language.to_string(), of_language.collect()));
    }
    let mut state = 1u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for file in 0..files {
        let mut lines = String::new();
        for number in 0..documents {
            let (language, of_language) = &sentences[draw(sentences.len())];
            let text: String = (0..12).map(|_| of_language[draw(of_language.len())].as_str()).collect();
            let document = Document {
                language: Some(language.clone()),
                license: Some("CC0-1.0".into()),
                ..Document::new(format!("{file}-{number}"), text)
            };
            lines.push_str(&document.to_json());
            lines.push('\n');
        }
        std::fs::write(folder.join(format!("{file:02}.jsonl")), lines).unwrap();
    }
    folder
}

fn start(documents: &Path, output: &Path, rank: Option<usize>) -> Child {
    let mut command = program();
    command.args(["--threads", "1", "corpus", "--set", "languages=[\"el\",\"ga\",\"mt\",\"sl\"]"]);
    command.arg("--documents").arg(documents).arg("--output").arg(output);
    if let Some(rank) = rank {
        let (rank, world) = (rank.to_string(), RANKS.to_string());
        command.args(["--rank", &rank, "--world", &world, "--rank-patience", "0.8"]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait(child: Child) -> bool {
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// Waits for all of them, whatever becomes of the first ones.
fn all_of(children: Vec<Child>) -> bool {
    let results: Vec<bool> = children.into_iter().map(wait).collect();
    results.into_iter().all(|succeeded| succeeded)
}

fn digest(output: &Path) -> String {
    provenance::Artefact::open(&output.join("corpus")).unwrap().digest().to_string()
}

/// Kills one rank of four at `times` moments spread over the time that they take.
fn kill_one_of_four(files: usize, documents: usize, times: u32) {
    let folder = tempfile::tempdir().unwrap();
    let documents = write_documents(folder.path(), files, documents);
    let alone = folder.path().join("alone");
    assert!(wait(start(&documents, &alone, None)));
    let expected = digest(&alone);

    let together = folder.path().join("together");
    let began = Instant::now();
    let ranks: Vec<Child> = (0..RANKS).map(|rank| start(&documents, &together, Some(rank))).collect();
    assert!(all_of(ranks));
    let duration = began.elapsed();
    assert_eq!(digest(&together), expected);

    for time in 0..times {
        let output = folder.path().join(format!("killed-{time}"));
        let mut ranks: Vec<Child> = (0..RANKS).map(|rank| start(&documents, &output, Some(rank))).collect();
        std::thread::sleep(duration * (2 * time + 1) / (2 * times));
        let mut victim = ranks.remove(time as usize % RANKS);
        victim.kill().unwrap(); // SIGKILL
        victim.wait().unwrap();
        let when = format!("rank {} killed at {time} of {times}", time as usize % RANKS);
        assert!(all_of(ranks), "{when}");
        assert_all_whole(&output, &when);
        assert_eq!(digest(&output), expected, "{when}");
        let left = std::fs::read_dir(output.join(".work")).unwrap().flatten();
        let left: Vec<PathBuf> = left.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        assert!(left.is_empty(), "{when}: {left:?}");
        std::fs::remove_dir_all(&output).unwrap();
    }
}

#[test]
fn any_rank_may_die() {
    let times = std::env::var("EULALIA_RANK_KILLS").map_or(3, |times| times.parse().unwrap());
    kill_one_of_four(12, 60, times);
}

#[test]
fn ranks_that_were_all_killed_go_on_and_so_does_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    let documents = write_documents(folder.path(), 12, 60);
    let alone = folder.path().join("alone");
    let began = Instant::now();
    assert!(wait(start(&documents, &alone, None)));
    let (expected, duration) = (digest(&alone), began.elapsed());
    for one_goes_on in [false, true] {
        let output = folder.path().join(format!("all-killed-{one_goes_on}"));
        let mut ranks: Vec<Child> = (0..RANKS).map(|rank| start(&documents, &output, Some(rank))).collect();
        std::thread::sleep(duration / 2);
        for rank in &mut ranks {
            rank.kill().unwrap();
            rank.wait().unwrap();
        }
        let again: Vec<Option<usize>> = if one_goes_on { vec![None] } else { (0..RANKS).map(Some).collect() };
        let ranks: Vec<Child> = again.into_iter().map(|rank| start(&documents, &output, rank)).collect();
        assert!(all_of(ranks));
        assert_eq!(digest(&output), expected);
    }
}

#[test]
fn one_alone_does_not_disturb_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let documents = write_documents(folder.path(), 12, 200);
    let output = folder.path().join("run");
    let mut rank = start(&documents, &output, Some(0));
    while !output.join(".work").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    let second = start(&documents, &output, None).wait_with_output().unwrap();
    let is_running = rank.try_wait().unwrap().is_none();
    rank.kill().unwrap();
    rank.wait().unwrap();
    let message = String::from_utf8_lossy(&second.stderr);
    assert!(!is_running || message.contains("in use by another run"), "{message}");
}
