//! The digest of every stage of the shortened recipe. If one changes, its bytes have changed: raise that stage's
//! version, and put the new digest here in the same commit, with the reason in its message.

use provenance::Storage;

use crate::support::{digests, read_recipe, run, world, write_recipe};

const GOLDEN: &str = include_str!("golden.txt");

#[test]
fn every_stage_makes_the_bytes_that_its_version_promises() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = read_recipe(&write_recipe(folder.path(), 6), &[]);
    let outcomes = run(&recipe, &folder.path().join("run"), &world(Storage::disk(), 2)).unwrap();
    let found: String = outcomes
        .iter()
        .zip(digests(&outcomes))
        .map(|(outcome, (name, digest))| format!("{name} {} {digest}\n", outcome.kind.version))
        .collect();
    assert_eq!(found, GOLDEN, "bytes changed without a new stage version, or golden.txt is old");
}
