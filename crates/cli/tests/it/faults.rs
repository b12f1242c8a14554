//! A disk that dies at every operation in turn: what is left is whole, and the next run ends with the same digests.

use provenance::Storage;

use crate::support::{assert_all_whole, digests, read_recipe, run, world, write_shortest_recipe};

#[test]
fn a_run_survives_the_failure_of_every_write_sync_and_rename() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = read_recipe(&write_shortest_recipe(folder.path()), &[]);
    let counting = Storage::failing_at(u64::MAX);
    let expected = digests(&run(&recipe, &folder.path().join("whole"), &world(counting.clone(), 1)).unwrap());
    let operations = counting.operations();
    assert!(operations > 150, "only {operations} operations: is something written past the storage layer?");

    // Two workers, each with every second operation.
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (recipe, expected, folder) = (&recipe, &expected, folder.path());
            scope.spawn(move || {
                for operation in (worker..operations).step_by(2) {
                    let root = folder.join(format!("run-{operation}"));
                    let dying = Storage::failing_at(operation);
                    let when = format!("after a fault at operation {operation}");
                    // The last operations only tidy up or keep caches: the run may succeed without them.
                    let first = run(recipe, &root, &world(dying.clone(), 1));
                    dying.discard_unsynced().unwrap();
                    assert_all_whole(&root, &when);
                    let again = run(recipe, &root, &world(Storage::disk(), 1))
                        .unwrap_or_else(|error| panic!("{when}: {error:#}"));
                    assert_eq!(digests(&again), *expected, "{when} (first run: {})", first.is_ok());
                    assert_all_whole(&root, &when);
                    std::fs::remove_dir_all(&root).unwrap();
                }
            });
        }
    });
}
