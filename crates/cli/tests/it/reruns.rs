//! The same recipe again: the same bytes on any number of threads, nothing made twice, and only what a change touches.

use provenance::Storage;

use crate::support::{digests, program, read_recipe, run, world, write_recipe};

#[test]
fn one_thread_and_two_make_the_same_bytes_and_a_second_run_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = read_recipe(&write_recipe(folder.path(), 6), &[]);
    let one = run(&recipe, &folder.path().join("one"), &world(Storage::disk(), 1)).unwrap();
    let two = run(&recipe, &folder.path().join("two"), &world(Storage::disk(), 2)).unwrap();
    assert_eq!(digests(&one), digests(&two));
    let again = run(&recipe, &folder.path().join("two"), &world(Storage::disk(), 2)).unwrap();
    assert_eq!(digests(&two), digests(&again));
    assert!(again.iter().all(|outcome| !outcome.made));
}

#[test]
fn a_changed_setting_remakes_its_stage_and_what_depends_on_it_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_recipe(folder.path(), 4);
    let root = folder.path().join("run");
    run(&read_recipe(&path, &[]), &root, &world(Storage::disk(), 2)).unwrap();
    let changed =
        run(&read_recipe(&path, &["evaluate.stride=32"]), &root, &world(Storage::disk(), 2)).unwrap();
    let made: Vec<&str> =
        changed.iter().filter(|outcome| outcome.made).map(|outcome| outcome.name.as_str()).collect();
    assert_eq!(made, ["evaluate", "release"]);

    let back = read_recipe(&path, &[]);
    let planned = cli::run::plan(&back, &root, &world(Storage::disk(), 2)).unwrap();
    assert!(planned.iter().all(|stage| stage.action == "made"), "the old artefacts still stand");
    let planned =
        cli::run::plan(&read_recipe(&path, &["pretrain.steps=5"]), &root, &world(Storage::disk(), 2))
            .unwrap();
    let why = |name: &str| planned.iter().find(|stage| stage.name == name).unwrap();
    assert_eq!(why("tokenizer").action, "made");
    assert!(why("pretrain").why.contains("steps: 4 → 5"), "{}", why("pretrain").why);
    assert!(why("release").why.contains("which is to be made"), "{}", why("release").why);
}

#[test]
fn garbage_is_what_no_stage_points_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_recipe(folder.path(), 4);
    let root = folder.path().join("run");
    for changes in [&[][..], &["evaluate.stride=32"]] {
        run(&read_recipe(&path, changes), &root, &world(Storage::disk(), 2)).unwrap();
    }
    let count = || std::fs::read_dir(root.join(".artefacts")).unwrap().count();
    assert_eq!(count(), 9, "seven stages, two of them twice");
    assert!(program().arg("gc").arg(&root).arg("--dry-run").status().unwrap().success());
    assert_eq!(count(), 9);
    assert!(program().arg("gc").arg(&root).status().unwrap().success());
    assert_eq!(count(), 7);
    let verified = program().arg("verify").arg(root.join("release")).status().unwrap();
    assert!(verified.success());
}
