//! A copy of the database while others use it.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::{Store, at};
use crate::error::ServingError;

/// How often a locked database is tried again, and how soon.
const MOST_TRIES: u32 = 200;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

impl Store {
    /// Copies the database to `path` as it is at one moment, with SQLite's online backup. Writers do not wait for it.
    pub fn copy_to(&self, path: &Path) -> Result<(), ServingError> {
        let mut copy = Connection::open(path).map_err(at(path, "creating the copy"))?;
        let connection = self.connection();
        let backup = Backup::new(&connection, &mut copy).map_err(at(path, "beginning the copy"))?;
        let mut tries = 0;
        // All pages in one step: one moment, and nothing to begin again.
        while backup.step(-1).map_err(at(path, "copying the database"))? != StepResult::Done {
            tries += 1;
            if tries == MOST_TRIES {
                let problem = "the database stays locked by another process; try again later".to_string();
                return Err(ServingError::StateFolder { path: self.path.clone(), problem });
            }
            std::thread::sleep(BETWEEN_TRIES);
        }
        drop(backup);
        copy.close().map_err(|(_, source)| ServingError::Database {
            path: path.to_path_buf(),
            operation: "closing the copy",
            source,
        })
    }
}
