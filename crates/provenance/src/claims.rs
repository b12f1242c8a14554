//! Who does what, among processes that share a folder and nothing else.
//!
//! A piece of work is claimed by creating a file, which only one process can. While it works, a thread of its own lets the
//! file grow by a byte now and then. Whoever waits for a piece looks at that: if the file does not grow for as long as
//! `patience`, measured by the waiting process's own steady clock, its owner is taken for dead, and the claim is renamed
//! away, which again only one can. No time of day is compared, so clocks may differ and jump.
//!
//! A claim saves work; it does not guard anything. A process that was only asleep goes on with a piece that another does
//! too, so what is made under a claim must be the same whoever makes it, and must get its name in one step.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::storage::{Storage, StorageError, StoredFile};

/// The claims of one process in a folder.
pub struct Claims {
    storage: Storage,
    folder: PathBuf,
    owner: usize,
    patience: Duration,
    held: Arc<Held>,
    /// What was last seen of other processes' claims: their lengths, and when they last changed.
    seen: Mutex<HashMap<String, (u64, Instant)>>,
    growing: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Held {
    files: Mutex<HashMap<String, StoredFile>>,
    /// Set, and told, when the process leaves.
    left: Mutex<bool>,
    leaving: Condvar,
}

/// How often a claim grows while a waiting process loses its patience.
const BEATS: u32 = 8;

impl Claims {
    /// Claims are files in `folder`, which is created if needed. `owner` is this process's number among the others: what
    /// an earlier process of that number claimed is given back, because it is no more.
    pub fn open(
        storage: &Storage,
        folder: &Path,
        owner: usize,
        patience: Duration,
    ) -> Result<Claims, StorageError> {
        storage.create_folder(folder)?;
        let head = head_of(owner);
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if fs::read(entry.path()).is_ok_and(|bytes| bytes.starts_with(&head)) {
                storage.remove_file(&entry.path())?;
            }
        }
        let held = Arc::new(Held::default());
        let growing = std::thread::spawn({
            let held = held.clone();
            move || held.grow_every(patience / BEATS)
        });
        let (storage, folder) = (storage.clone(), folder.to_path_buf());
        Ok(Claims { storage, folder, owner, patience, held, seen: Mutex::default(), growing: Some(growing) })
    }

    /// Takes a piece of work that nobody has, or whose owner seems dead. `false` where somebody is at it.
    pub fn take(&self, name: &str) -> Result<bool, StorageError> {
        if self.create(name)? {
            return Ok(true);
        }
        let path = self.folder.join(name);
        let Ok(length) = path.metadata().map(|metadata| metadata.len()) else {
            // Released just now: the next look will tell.
            return Ok(false);
        };
        let now = Instant::now();
        let since = {
            let mut seen = lock(&self.seen);
            let last = seen.entry(name.to_string()).or_insert((length, now));
            if last.0 != length {
                *last = (length, now);
            }
            last.1
        };
        if now - since < self.patience {
            return Ok(false);
        }
        lock(&self.seen).remove(name);
        // Of several that lost their patience only one finds the file still there.
        let away = self.folder.join(format!(".{name}.abandoned"));
        match self.storage.rename(&path, &away) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(false),
            renamed => renamed?,
        }
        self.create(name)
    }

    /// Gives a piece of work back, done or not.
    pub fn release(&self, name: &str) -> Result<(), StorageError> {
        if lock(&self.held.files).remove(name).is_some() {
            self.storage.remove_file(&self.folder.join(name))?;
        }
        Ok(())
    }

    fn create(&self, name: &str) -> Result<bool, StorageError> {
        let Some(mut file) = self.storage.create_new(&self.folder.join(name))? else { return Ok(false) };
        file.write_bytes(&head_of(self.owner))?;
        lock(&self.held.files).insert(name.to_string(), file);
        Ok(true)
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        *lock(&self.held.left) = true;
        self.held.leaving.notify_all();
        if let Some(growing) = self.growing.take() {
            let _ = growing.join();
        }
        // A process that stops in good order lets others go on at once.
        for (name, _) in lock(&self.held.files).drain() {
            let _ = fs::remove_file(self.folder.join(name));
        }
    }
}

impl Held {
    fn grow_every(&self, interval: Duration) {
        let mut left = lock(&self.left);
        while !*left {
            left = self.leaving.wait_timeout(left, interval).unwrap_or_else(PoisonError::into_inner).0;
            for file in lock(&self.files).values_mut() {
                // A disk that is full stops the work itself; here it only looks as if nobody were there.
                let _ = file.write_bytes(b".");
            }
        }
    }
}

/// What a claim begins with.
fn head_of(owner: usize) -> Vec<u8> {
    format!("{owner}\n").into_bytes()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);

    fn open(folder: &Path, owner: usize) -> Claims {
        Claims::open(&Storage::disk(), folder, owner, PATIENCE).unwrap()
    }

    #[test]
    fn a_piece_belongs_to_one_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (open(folder.path(), 1), open(folder.path(), 2));
        assert!(one.take("a").unwrap());
        assert!(!one.take("a").unwrap() && !other.take("a").unwrap());
        assert!(other.take("b").unwrap());
        one.release("a").unwrap();
        assert!(other.take("a").unwrap());
        drop(other);
        assert!(one.take("a").unwrap() && one.take("b").unwrap(), "who leaves in good order leaves nothing");
    }

    #[test]
    fn a_process_that_comes_again_waits_for_nobody() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("left"), "7\n...").unwrap();
        fs::write(folder.path().join("other"), "77\n...").unwrap();
        let again = open(folder.path(), 7);
        assert!(again.take("left").unwrap() && !again.take("other").unwrap());
    }

    #[test]
    fn who_works_is_left_alone_and_who_died_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (open(folder.path(), 1), open(folder.path(), 2));
        assert!(one.take("alive").unwrap());
        // A claim that no thread lets grow: its owner died.
        fs::write(folder.path().join("dead"), "3\n...").unwrap();
        let began = Instant::now();
        while !other.take("dead").unwrap() {
            assert!(!other.take("alive").unwrap());
            assert!(began.elapsed() < Duration::from_secs(20), "nobody took the dead one's work");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(began.elapsed() >= PATIENCE);
        for _ in 0..40 {
            assert!(!other.take("alive").unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
