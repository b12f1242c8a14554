//! `kill -9` in every stage: the next run ends with the digest of an undisturbed one.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use provenance::Storage;

use crate::support::{assert_all_whole, digests, program, read_recipe, run, world, write_recipe};

/// Long enough that each stage can be met alive, short enough for a test.
const STEPS: usize = 40;
const STAGES: [&str; 6] = ["corpus", "tokenizer", "pretrain", "evaluate", "adapt", "release"];

#[test]
fn a_run_that_is_killed_in_any_stage_goes_on_to_the_same_digest() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_recipe(folder.path(), STEPS);
    let recipe = read_recipe(&path, &[]);
    let expected = digests(&run(&recipe, &folder.path().join("whole"), &world(Storage::disk(), 2)).unwrap());
    for (number, stage) in STAGES.into_iter().enumerate() {
        let root = folder.path().join(format!("killed-in-{stage}"));
        let mut child = start(&path, &root);
        wait_for_stage(&mut child, &root, stage, Duration::from_millis(7 * number as u64));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        assert_all_whole(&root, &format!("killed in {stage}"));
        let again = run(&recipe, &root, &world(Storage::disk(), 2)).unwrap();
        assert_eq!(digests(&again), expected, "killed in {stage}");
    }
}

#[test]
fn a_run_that_is_asked_to_stop_leaves_with_130_and_goes_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_recipe(folder.path(), 20_000);
    let root = folder.path().join("run");
    let mut child = start(&path, &root);
    wait_for_stage(&mut child, &root, "pretrain", Duration::from_millis(300));
    let asked = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(asked.success());
    let began = Instant::now();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?} to stop", began.elapsed());
    assert_all_whole(&root, "asked to stop");
    assert!(root.join("tokenizer").exists() && !root.join("pretrain").exists());
    let log = std::fs::read_to_string(root.join("run.jsonl")).unwrap();
    assert!(log.lines().last().unwrap().contains("\"stopped\""), "{log}");
}

#[test]
fn a_second_run_on_the_same_output_is_told_to_wait() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_recipe(folder.path(), 20_000);
    let root = folder.path().join("run");
    let mut child = start(&path, &root);
    wait_for_stage(&mut child, &root, "pretrain", Duration::ZERO);
    let second = program().arg("run").arg(&path).arg("--output").arg(&root).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8_lossy(&second.stderr);
    assert!(message.contains("in use by another run"), "{message}");
}

fn start(recipe: &Path, root: &Path) -> Child {
    program()
        .args(["--threads", "2", "run"])
        .arg(recipe)
        .arg("--output")
        .arg(root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the run's log says that the stage started, then a little longer.
fn wait_for_stage(child: &mut Child, root: &Path, stage: &str, longer: Duration) {
    let began = Instant::now();
    let wanted = format!("\"event\":\"started\",\"name\":\"{stage}\"");
    loop {
        let log = std::fs::read_to_string(root.join("run.jsonl")).unwrap_or_default();
        if log.contains(&wanted) {
            std::thread::sleep(longer);
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "the run ended before {stage} began");
        assert!(began.elapsed() < Duration::from_secs(120), "{stage} never began");
        std::thread::sleep(Duration::from_millis(2));
    }
}
