//! Every file of a model with its digest, read on all threads; and a way to find out afterwards that nobody touched one.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::Error;
use crate::context::Progress;
use crate::digest::{Digest, sha256_file_watched};

/// What the only file is called where the model is a file and not a folder (as OpenSSF Model Signing calls it).
pub const THE_FILE_ITSELF: &str = ".";
/// Longer than the grain of a file system's times: whoever writes after it leaves another time.
const GRAIN_OF_TIMES: Duration = Duration::from_millis(20);

/// The files of a folder, or one file.
#[derive(Debug)]
pub struct Tree {
    /// Digests by path relative to the folder, `/` between its parts; of a file alone, [`THE_FILE_ITSELF`].
    pub files: BTreeMap<String, Digest>,
    /// Their length in bytes.
    pub bytes: u64,
    /// Links, special files, and what could not be read.
    pub problems: Vec<String>,
    /// How everything stood before the first byte was read.
    pub seal: Seal,
}

/// How files and folders stood: a change leaves another time of change, which nobody can set back without being root.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seal {
    path: PathBuf,
    stood: BTreeMap<String, Stood>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stood {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

struct Found {
    name: String,
    path: PathBuf,
    size: u64,
}

#[derive(Default)]
struct Walk {
    files: Vec<Found>,
    stood: BTreeMap<String, Stood>,
    problems: Vec<String>,
}

/// Digests every file at `path`, a folder or a file (a link to either is followed, links inside are problems).
///
/// # Errors
/// Only when the path cannot be looked at; what is wrong inside stands in [`Tree::problems`].
pub fn digest_tree(path: &Path, threads: usize, progress: &dyn Progress) -> Result<Tree, Error> {
    let Walk { mut files, stood, mut problems } = walk(path)?;
    std::thread::sleep(GRAIN_OF_TIMES);
    // The largest first: a thread that gets one at the end would keep all others waiting.
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    progress.begin("verifying", Some(files.iter().map(|file| file.size).sum()), "bytes");
    let next = AtomicUsize::new(0);
    let done = Mutex::new((BTreeMap::new(), 0u64, Vec::new()));
    let work = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut bytes = 0;
            let digest = sha256_file_watched(&file.path, |read| {
                bytes += read;
                progress.advance(read);
            });
            let mut done = done.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match digest {
                Ok(digest) => {
                    done.0.insert(file.name.clone(), digest);
                    done.1 += bytes;
                }
                Err(error) => done.2.push(format!("{}: cannot be read: {error}", file.name)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(files.len()) {
            scope.spawn(work);
        }
        work();
    });
    progress.end();
    let (digests, bytes, unread) = done.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    problems.extend(unread);
    problems.sort();
    Ok(Tree { files: digests, bytes, problems, seal: Seal { path: path.to_path_buf(), stood } })
}

impl Seal {
    /// Whether everything stands as it did.
    ///
    /// # Errors
    /// Names the first file or folder that was changed, added or removed since.
    pub fn check(&self) -> Result<(), Error> {
        let now = walk(&self.path)?.stood;
        let names = self.stood.keys().chain(now.keys());
        let changed =
            names.filter(|name| self.stood.get(*name) != now.get(*name)).max_by_key(|name| name.len());
        match changed {
            None => Ok(()),
            Some(name) => {
                let path = if name == THE_FILE_ITSELF { self.path.clone() } else { self.path.join(name) };
                Err(Error::malformed(
                    &path,
                    "was changed while it was being loaded; find out who writes there, and start again",
                ))
            }
        }
    }
}

fn walk(path: &Path) -> Result<Walk, Error> {
    let mut found = Walk::default();
    let metadata = path.metadata().map_err(Error::read(path))?;
    found.stood.insert(THE_FILE_ITSELF.to_string(), Stood::of(&metadata));
    if metadata.is_file() {
        let file =
            Found { name: THE_FILE_ITSELF.to_string(), path: path.to_path_buf(), size: metadata.len() };
        found.files.push(file);
    } else {
        descend(path, "", &mut found)?;
    }
    Ok(found)
}

fn descend(folder: &Path, prefix: &str, found: &mut Walk) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
        let entry = entry.map_err(Error::read(folder))?;
        let path = entry.path();
        let metadata = entry.metadata().map_err(Error::read(&path))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        found.stood.insert(name.clone(), Stood::of(&metadata));
        if metadata.is_dir() {
            descend(&path, &format!("{name}/"), found)?;
        } else if metadata.is_file() {
            found.files.push(Found { name, path, size: metadata.len() });
        } else {
            found.problems.push(format!(
                "{name}: is a symbolic link or special file; only regular files are allowed here"
            ));
        }
    }
    Ok(())
}

impl Stood {
    fn of(metadata: &std::fs::Metadata) -> Stood {
        Stood {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Silent;
    use crate::digest::sha256;

    #[test]
    fn digests_are_the_same_on_any_number_of_threads() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("fo")).unwrap();
        for number in 0..20 {
            std::fs::write(folder.path().join(format!("fo/{number}")), "ħ".repeat(number)).unwrap();
        }
        let one = digest_tree(folder.path(), 1, &Silent).unwrap();
        let many = digest_tree(folder.path(), 5, &Silent).unwrap();
        assert_eq!((&one.files, one.bytes), (&many.files, 2 * 190));
        assert_eq!(one.files["fo/2"], sha256("ħħ".as_bytes()));
        let file = digest_tree(&folder.path().join("fo/2"), 5, &Silent).unwrap();
        assert_eq!(file.files, BTreeMap::from([(".".to_string(), sha256("ħħ".as_bytes()))]));
    }

    #[test]
    fn links_are_problems_and_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "a").unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
        let tree = digest_tree(folder.path(), 2, &Silent).unwrap();
        assert_eq!(tree.files.len(), 1);
        assert!(tree.problems[0].starts_with("b: is a symbolic link"), "{:?}", tree.problems);
    }

    #[test]
    fn whatever_is_touched_breaks_the_seal() {
        let folder = tempfile::tempdir().unwrap();
        let (a, sub) = (folder.path().join("a"), folder.path().join("sub"));
        std::fs::create_dir(&sub).unwrap();
        std::fs::write(&a, "1").unwrap();
        let read = || digest_tree(folder.path(), 1, &Silent).unwrap().seal;
        read().check().unwrap();
        let broken = |touch: &dyn Fn()| {
            let seal = read();
            touch();
            seal.check().unwrap_err().to_string()
        };
        // The same length, and the old time of modification put back: what a careful attacker does.
        let said = broken(&|| {
            let time = a.metadata().unwrap().modified().unwrap();
            std::fs::write(&a, "2").unwrap();
            std::fs::File::options().write(true).open(&a).unwrap().set_modified(time).unwrap();
        });
        assert!(said.contains("/a: was changed"), "{said}");
        assert!(broken(&|| std::fs::write(sub.join("b"), "").unwrap()).contains("sub/b"));
        // Exchanged for a moment and put back.
        broken(&|| {
            std::fs::rename(&a, folder.path().join("c")).unwrap();
            std::fs::write(&a, "3").unwrap();
            std::fs::rename(folder.path().join("c"), &a).unwrap();
        });
        broken(&|| std::fs::remove_file(sub.join("b")).unwrap());
    }
}
