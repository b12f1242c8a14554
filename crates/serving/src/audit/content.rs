//! What is kept of conversations: sealed files beside the log, in a folder for each day, `content/2026-11-20/<SHA-256>.age`.
//!
//! The log itself holds no more than an event `content` with the file's digest and length, so the chain checks what it
//! cannot read. A file is on disk before the line that names it: after a crash there may be a file without a line, which
//! goes with its day, but no line without its file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use provenance::digest::sha256;
use provenance::{Digest, Storage, StorageError};
use serde::Deserialize;

use super::AuditEvent;
use super::chain::Chain;
use crate::error::ServingError;
use crate::settings::Durability;

/// Folder of the files inside that of the log.
pub const CONTENT_FOLDER: &str = "content";
/// Longest file that is read: a prompt and answers of the greatest bound, sealed.
const LONGEST: u64 = 64 << 20;

/// What goes into the log beside a request's line.
pub struct Content {
    /// The event that names the file, without digest and length,
    pub named: AuditEvent,
    /// or the one that says that there is none.
    pub lost: AuditEvent,
    /// The file's bytes, or why they could not be sealed.
    pub sealed: Result<Vec<u8>, String>,
}

/// A file that a line of the log names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedContent {
    /// Day of the line: `2026-11-20`.
    day: String,
    digest: Digest,
    bytes: u64,
}

#[derive(Deserialize)]
struct Line {
    event: String,
    time: String,
    sha256: Option<Digest>,
    bytes: Option<u64>,
}

impl NamedContent {
    /// The file that this line names, if it names one.
    pub fn of_line(line: &[u8]) -> Option<NamedContent> {
        let line: Line = serde_json::from_slice(line).ok()?;
        NamedContent::of(&line.event, &line.time, line.sha256, line.bytes)
    }

    pub fn of(event: &str, time: &str, digest: Option<Digest>, bytes: Option<u64>) -> Option<NamedContent> {
        let day = time.get(..10).filter(|day| is_day(day))?;
        (event == "content")
            .then(|| Some(NamedContent { day: day.to_string(), digest: digest?, bytes: bytes? }))?
    }

    /// Where it stands in the folder of a log.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(CONTENT_FOLDER).join(&self.day).join(format!("{}.age", self.digest))
    }

    /// Its bytes, if they are those that the line names.
    pub fn read(&self, folder: &Path) -> Result<Vec<u8>, ServingError> {
        let path = self.path(folder);
        let broken = |problem: String| ServingError::AuditUnreadable { path: path.clone(), problem };
        let length = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => return Err(broken("expected a file".to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let problem =
                    "a line of the log names this file, which is missing: it was removed".to_string();
                return Err(broken(problem));
            }
            Err(error) => return Err(broken(error.to_string())),
        };
        if length != self.bytes || length > LONGEST {
            let problem = format!(
                "it has {length} bytes, the log says {} (at most {LONGEST}): it was altered",
                self.bytes
            );
            return Err(broken(problem));
        }
        let bytes = fs::read(&path).map_err(|error| broken(error.to_string()))?;
        if sha256(&bytes) != self.digest {
            return Err(broken("it does not have the digest that the log names: it was altered".to_string()));
        }
        Ok(bytes)
    }

    /// Puts a copy into the folder of another log. Names are on disk after [`sync_days`].
    pub fn copy(&self, folder: &Path, to: &Path, storage: &Storage) -> Result<(), ServingError> {
        let (bytes, path) = (self.read(folder)?, self.path(to));
        if !path.parent().is_some_and(Path::is_dir) {
            make_day(to, &self.day, storage)?;
        }
        storage.write(&path, &bytes)?;
        Ok(())
    }
}

/// Writes the files of one write of the log.
pub struct ContentWriter {
    folder: PathBuf,
    storage: Storage,
    durability: Durability,
    /// The day whose folder is known to be on disk.
    day: Option<String>,
}

impl ContentWriter {
    pub fn new(folder: &Path, storage: Storage, durability: Durability) -> ContentWriter {
        ContentWriter { folder: folder.to_path_buf(), storage, durability, day: None }
    }

    /// Writes and syncs a file; returns the event that names it, or the one that says why there is none. Names are on
    /// disk after `sync`.
    pub fn keep(&mut self, content: &Content, day: &str) -> Result<AuditEvent, String> {
        let bytes = content.sealed.as_ref().map_err(Clone::clone)?;
        let digest = sha256(bytes);
        let named = NamedContent { day: day.to_string(), digest, bytes: bytes.len() as u64 };
        if let Err(error) = self.write(&named.path(&self.folder), bytes, day) {
            // Its folder may be gone.
            self.day = None;
            return Err(error.to_string());
        }
        Ok(content.named.clone().with("sha256", digest.to_string()).with("bytes", named.bytes))
    }

    fn write(&mut self, path: &Path, bytes: &[u8], day: &str) -> Result<(), StorageError> {
        if self.day.as_deref() != Some(day) {
            make_day(&self.folder, day, &self.storage)?;
            self.day = Some(day.to_string());
        }
        if self.durability == Durability::Synced {
            return self.storage.write(path, bytes);
        }
        self.storage.create(path)?.write_bytes(bytes)
    }

    /// Puts the names of this day's new files on disk.
    pub fn sync(&mut self, day: &str) -> Result<(), String> {
        if self.durability == Durability::Written {
            return Ok(());
        }
        let synced = self.storage.sync_folder(&self.folder.join(CONTENT_FOLDER).join(day));
        synced.map_err(|error| error.to_string())
    }
}

/// Makes the folder of a day, on disk with its name.
fn make_day(folder: &Path, day: &str, storage: &Storage) -> Result<(), StorageError> {
    let contents = folder.join(CONTENT_FOLDER);
    storage.create_folder(&contents.join(day))?;
    // In any case: an earlier attempt may have ended between the two.
    storage.sync_folder(&contents)?;
    storage.sync_folder(folder)
}

/// Days that files were kept of, ascending.
pub fn days(folder: &Path) -> Result<BTreeSet<String>, ServingError> {
    let path = folder.join(CONTENT_FOLDER);
    let unreadable = |error: std::io::Error| ServingError::AuditUnreadable {
        path: path.clone(),
        problem: error.to_string(),
    };
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries.map_err(unreadable)?,
    };
    let mut days = BTreeSet::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        days.extend(name.to_str().filter(|name| is_day(name)).map(str::to_string));
    }
    Ok(days)
}

/// Puts the names of all files on disk.
pub fn sync_days(folder: &Path, storage: &Storage) -> Result<(), ServingError> {
    for day in days(folder)? {
        storage.sync_folder(&folder.join(CONTENT_FOLDER).join(day))?;
    }
    Ok(())
}

/// Removes the files of a day.
pub fn remove_day(folder: &Path, day: &str, storage: &Storage) -> Result<(), StorageError> {
    let contents = folder.join(CONTENT_FOLDER);
    storage.remove_folder(&contents.join(day))?;
    storage.sync_folder(&contents)
}

/// Whether a text has the form of a day, so that it is a name and never a path.
fn is_day(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// The files that lines name, while a log is checked.
pub struct ContentCheck<'a> {
    folder: &'a Path,
    /// A copy of a log may have been made without them.
    are_here: bool,
    /// Files that are there as the lines say.
    pub whole: u64,
    /// Files that were not looked for, since there is no folder of them.
    pub elsewhere: u64,
}

impl ContentCheck<'_> {
    /// Of a log in `folder`; `is_copy` if it stands outside a state folder.
    pub fn new(folder: &Path, is_copy: bool) -> ContentCheck<'_> {
        let are_here = !is_copy || folder.join(CONTENT_FOLDER).is_dir();
        ContentCheck { folder, are_here, whole: 0, elsewhere: 0 }
    }

    /// Looks at the file that the last line names, if it names one.
    pub fn look(&mut self, chain: &Chain) -> Result<(), ServingError> {
        match &chain.content {
            None => Ok(()),
            Some(_) if !self.are_here => {
                self.elsewhere += 1;
                Ok(())
            }
            Some(content) => {
                content.read(self.folder)?;
                self.whole += 1;
                Ok(())
            }
        }
    }
}
