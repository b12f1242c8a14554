//! Checkpoints of a run in the world: `kill -9` in the middle of one, a disk that is full when one is written, a last one
//! that is damaged. The next run goes on from the last good one, says so, and ends with the digest of an undisturbed run.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use provenance::Storage;

use crate::support::{assert_all_whole, digests, program, read_recipe, run, short_recipe, world};

/// Pretraining whose state (some 5 MB) takes longer to write than a step takes, with a checkpoint after each step.
fn recipe(folder: &Path) -> PathBuf {
    let whole = short_recipe(6);
    let stages = whole.split("\n[evaluate]").next().unwrap();
    let stages = stages
        .replace("hidden_size = 32", "hidden_size = 128")
        .replace("intermediate_size = 64", "intermediate_size = 384")
        .replace("batch_tokens = 1024", "batch_tokens = 128")
        .replace(
            "checkpoint_every = 3",
            "checkpoint_every = 1\ncheckpoints_kept = 3\nevaluate_every = 4\nevaluate_bytes = 500",
        );
    let path = folder.join("pretraining.toml");
    std::fs::write(&path, stages).unwrap();
    path
}

fn scratch(root: &Path) -> Option<PathBuf> {
    let work = std::fs::read_dir(root.join(".work")).ok()?;
    let folder = work
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pretrain-")))?;
    Some(folder.join("scratch"))
}

/// Files in the scratch folder whose name ends so, sorted.
fn files(root: &Path, end: &str) -> Vec<PathBuf> {
    let entries = scratch(root).and_then(|folder| std::fs::read_dir(folder).ok());
    let mut found: Vec<PathBuf> = entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(end)));
    found.sort();
    found
}

fn go_on(recipe: &Path, root: &Path) -> (Output, String) {
    let output = program().arg("run").arg(recipe).arg("--output").arg(root).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, said)
}

fn expected(folder: &Path, path: &Path) -> Vec<(String, String)> {
    digests(&run(&read_recipe(path, &[]), &folder.join("whole"), &world(Storage::disk(), 2)).unwrap())
}

/// What stands below `root`, as [`digests`] tells it: all is made, so this run makes nothing.
fn found(path: &Path, root: &Path) -> Vec<(String, String)> {
    assert_all_whole(root, "gone on");
    let outcomes = run(&read_recipe(path, &[]), root, &world(Storage::disk(), 2)).unwrap();
    let made: Vec<&String> =
        outcomes.iter().filter(|outcome| outcome.made).map(|outcome| &outcome.name).collect();
    let log = || std::fs::read_to_string(root.join("run.jsonl")).unwrap_or_default();
    assert!(made.is_empty(), "{made:?} were made again: {}", log());
    digests(&outcomes)
}

/// Waits until a checkpoint is being written, when `whole` ones stand, and kills the run.
fn kill_in_checkpoint(path: &Path, root: &Path, whole: usize) {
    let mut child = program()
        .args(["--threads", "2", "run"])
        .arg(path)
        .arg("--output")
        .arg(root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while files(root, ".bin").len() < whole || files(root, ".partial").is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was met in a checkpoint");
        assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint was ever written");
        std::thread::sleep(Duration::from_micros(200));
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
}

#[test]
fn a_run_that_is_killed_in_a_checkpoint_goes_on_from_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = recipe(folder.path());
    let expected = expected(folder.path(), &path);
    let mut torn = 0;
    for whole in 0..3 {
        let root = folder.path().join(format!("killed-after-{whole}"));
        kill_in_checkpoint(&path, &root, whole);
        assert_all_whole(&root, "killed in a checkpoint");
        torn += files(&root, ".partial").len();
        let (output, said) = go_on(&path, &root);
        assert!(output.status.success(), "{said}");
        assert_eq!(found(&path, &root), expected);
    }
    assert!(torn > 0, "every kill came too late to tear a checkpoint");
}

#[test]
fn a_damaged_last_checkpoint_is_named_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = recipe(folder.path());
    let expected = expected(folder.path(), &path);
    type Damage = fn(&Path);
    let flip: Damage = |path| {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    };
    let truncate: Damage = |path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 3]).unwrap();
    };
    let empty: Damage = |path| std::fs::write(path, b"").unwrap();
    for (name, damage) in [("flipped", flip), ("truncated", truncate), ("empty", empty)] {
        let root = folder.path().join(name);
        kill_in_checkpoint(&path, &root, 2);
        let checkpoints = files(&root, ".bin");
        let last = checkpoints.last().unwrap();
        damage(last);
        let (output, said) = go_on(&path, &root);
        assert!(output.status.success(), "{said}");
        let file = last.file_name().unwrap().to_string_lossy().into_owned();
        assert!(said.contains(&file) && said.contains("is passed over"), "{name}: {said}");
        assert_eq!(found(&path, &root), expected, "{name}");
    }
}

/// A limit on the size of files that smaller files do not meet: the checkpoint is what does not fit.
#[test]
fn a_checkpoint_that_does_not_fit_is_named_and_the_run_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = recipe(folder.path());
    let expected = expected(folder.path(), &path);
    let root = folder.path().join("full");
    let script = "trap '' XFSZ; ulimit -f 3000; exec \"$0\" run \"$1\" --output \"$2\"";
    let output = std::process::Command::new("bash")
        .args(["-c", script])
        .arg(env!("CARGO_BIN_EXE_eulalia"))
        .args([&path, &root])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write") && said.contains("checkpoint-"), "{said}");
    assert!(files(&root, ".bin").is_empty());
    assert_all_whole(&root, "full in a checkpoint");
    let (output, said) = go_on(&path, &root);
    assert!(output.status.success(), "{said}");
    assert_eq!(found(&path, &root), expected);
}
