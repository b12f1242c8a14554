//! The one small layer that all writing goes through.
//!
//! A stage never calls `std::fs` to change anything: it creates, renames and removes through a [`Storage`]. That makes
//! two things possible. Every file that gets a final name was synced before (write aside, sync, rename, sync the
//! folder), and a test can make the N-th operation fail, throw away everything that was not synced, as a power cut
//! would, and look at what is left ([`Storage::failing_at`]).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Where writing goes: the disk, or in tests a disk that dies. Cheap to clone.
#[derive(Clone, Default)]
pub struct Storage {
    faults: Option<Arc<Faults>>,
}

/// A change to the disk that did not succeed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {path}: {source}{}", advice(source))]
pub struct StorageError {
    pub operation: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

fn advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull => {
            " (the disk is full: free some space and run again; what is finished stays)"
        }
        io::ErrorKind::QuotaExceeded => " (the disk quota is used up: free some space and run again)",
        io::ErrorKind::FileTooLarge => " (a file-size limit stopped it: raise `ulimit -f` and run again)",
        io::ErrorKind::ReadOnlyFilesystem => {
            " (the file system is read-only: choose another folder with --output)"
        }
        io::ErrorKind::PermissionDenied => {
            " (no permission: choose another folder with --output, or change its rights)"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            " (a file stands where a folder is needed: move it away, or choose another folder with --output)"
        }
        _ => "",
    }
}

impl Storage {
    /// The disk.
    pub fn disk() -> Storage {
        Storage::default()
    }

    /// For tests: a disk whose operation number `operation` (from 0) fails, and every one after it. Afterwards
    /// [`Storage::discard_unsynced`] leaves what a power cut at that moment would have left.
    pub fn failing_at(operation: u64) -> Storage {
        Storage {
            faults: Some(Arc::new(Faults {
                fail_at: operation,
                count: AtomicU64::new(0),
                pending: Mutex::new(Vec::new()),
            })),
        }
    }

    /// For tests: how many operations were asked for so far (0 on a plain disk, which does not count).
    pub fn operations(&self) -> u64 {
        self.faults.as_ref().map_or(0, |faults| faults.count.load(Ordering::SeqCst))
    }

    /// For tests: undoes, newest first, everything that was not yet synced.
    pub fn discard_unsynced(&self) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.discard())
    }

    /// Creates or truncates a file. What is written counts only after [`StoredFile::finish`].
    pub fn create(&self, path: &Path) -> Result<StoredFile, StorageError> {
        self.guarded("create", path, || {
            let new = !path.exists();
            let file = File::create(path)?;
            self.remember(|| {
                let mut pending = vec![Pending::Data { path: path.to_path_buf(), synced: 0 }];
                if new {
                    pending.push(Pending::Entry { path: path.to_path_buf() });
                }
                pending
            });
            Ok(StoredFile { storage: self.clone(), path: path.to_path_buf(), file })
        })
    }

    /// Creates a file that was not there; `None` where it was. Of many processes that try, one succeeds.
    pub fn create_new(&self, path: &Path) -> Result<Option<StoredFile>, StorageError> {
        self.create_with(path, OpenOptions::new().write(true).create_new(true))
    }

    /// The same for a secret: nobody but the owner may read it (mode 0600), from the first moment on.
    pub fn create_new_private(&self, path: &Path) -> Result<Option<StoredFile>, StorageError> {
        use std::os::unix::fs::OpenOptionsExt;
        self.create_with(path, OpenOptions::new().write(true).create_new(true).mode(0o600))
    }

    fn create_with(&self, path: &Path, options: &OpenOptions) -> Result<Option<StoredFile>, StorageError> {
        self.guarded("create", path, || {
            let file = match options.open(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                other => other?,
            };
            self.remember(|| {
                vec![
                    Pending::Data { path: path.to_path_buf(), synced: 0 },
                    Pending::Entry { path: path.to_path_buf() },
                ]
            });
            Ok(Some(StoredFile { storage: self.clone(), path: path.to_path_buf(), file }))
        })
    }

    /// Opens a file to write at its end, creating it if it is not there.
    pub fn append(&self, path: &Path) -> Result<StoredFile, StorageError> {
        self.guarded("open", path, || {
            let new = !path.exists();
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            let synced = file.metadata()?.len();
            self.remember(|| {
                let mut pending = vec![Pending::Data { path: path.to_path_buf(), synced }];
                if new {
                    pending.push(Pending::Entry { path: path.to_path_buf() });
                }
                pending
            });
            Ok(StoredFile { storage: self.clone(), path: path.to_path_buf(), file })
        })
    }

    /// Creates a file with these bytes and syncs it. Not atomic: for files inside a folder that is not yet named.
    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let mut file = self.create(path)?;
        file.write_bytes(bytes)?;
        file.finish()
    }

    /// Puts a file with these bytes in the place of `path` in one step: after a crash there stands the old file or the
    /// new one, whole.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
        let aside = aside(path);
        self.write(&aside, bytes)?;
        self.rename(&aside, path)
    }

    /// Gives a file or folder its name and syncs the folder that holds the name.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        self.guarded("rename to", to, || {
            let previous = if self.faults.is_some() { Previous::of(to)? } else { Previous::Nothing };
            fs::rename(from, to)?;
            if let Some(faults) = &self.faults {
                faults.renamed(from, to, previous);
            }
            Ok(())
        })?;
        self.sync_folder(parent(to))
    }

    /// Gives a whole file, which nobody changes any more, a second name; where the file system has no hard links, by a
    /// copy.
    pub fn link(&self, from: &Path, to: &Path) -> Result<(), StorageError> {
        let linked = self.guarded("link", to, || {
            fs::hard_link(from, to)?;
            self.remember(|| vec![Pending::Entry { path: to.to_path_buf() }]);
            Ok(())
        });
        match linked {
            Err(error) if !lacks_links(&error.source) => return Err(error),
            Err(_) => {
                let mut source = self.guarded("read", from, || File::open(from))?;
                let mut copy = self.create(to)?;
                self.guarded("copy", to, || io::copy(&mut source, &mut copy.file))?;
                copy.finish()?;
            }
            Ok(()) => {}
        }
        self.sync_folder(parent(to))
    }

    /// Lets the symbolic link `link` point to `target` (a path relative to the link's folder), in one step.
    pub fn point(&self, link: &Path, target: &Path) -> Result<(), StorageError> {
        let aside = aside(link);
        self.guarded("create link", &aside, || {
            match fs::remove_file(&aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            symbolic_link(target, &aside)?;
            self.remember(|| vec![Pending::Entry { path: aside.clone() }]);
            Ok(())
        })?;
        self.rename(&aside, link)
    }

    /// Creates a folder and those above it.
    pub fn create_folder(&self, path: &Path) -> Result<(), StorageError> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            self.create_folder(above)?;
        }
        self.guarded("create folder", path, || {
            match fs::create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
                other => other?,
            }
            self.remember(|| vec![Pending::Entry { path: path.to_path_buf() }]);
            Ok(())
        })
    }

    /// Removes a file or link; one that is not there is no error.
    pub fn remove_file(&self, path: &Path) -> Result<(), StorageError> {
        self.guarded("remove", path, || match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })?;
        self.forget(path);
        Ok(())
    }

    /// Removes a folder with all that is in it; one that is not there is no error.
    pub fn remove_folder(&self, path: &Path) -> Result<(), StorageError> {
        self.guarded("remove", path, || match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        })?;
        self.forget(path);
        Ok(())
    }

    /// Syncs a folder: the names in it are on disk afterwards.
    pub fn sync_folder(&self, path: &Path) -> Result<(), StorageError> {
        self.guarded("sync", path, || {
            File::open(path)?.sync_all()?;
            if let Some(faults) = &self.faults {
                faults.folder_synced(path);
            }
            Ok(())
        })
    }

    fn guarded<T>(
        &self,
        operation: &'static str,
        path: &Path,
        act: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, StorageError> {
        let allowed = self.faults.as_ref().map_or(Ok(()), |faults| faults.allow());
        allowed.and_then(|()| act()).map_err(|source| StorageError {
            operation,
            path: path.to_path_buf(),
            source,
        })
    }

    fn remember(&self, pending: impl FnOnce() -> Vec<Pending>) {
        if let Some(faults) = &self.faults {
            faults.pending().extend(pending());
        }
    }

    fn forget(&self, path: &Path) {
        if let Some(faults) = &self.faults {
            faults.pending().retain(|pending| !pending.path().starts_with(path));
        }
    }
}

/// A file open for writing. Unbuffered: wrap it in a [`std::io::BufWriter`] for small writes.
pub struct StoredFile {
    storage: Storage,
    path: PathBuf,
    file: File,
}

impl StoredFile {
    /// Writes all of `bytes`.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let file = &mut self.file;
        self.storage.guarded("write", &self.path, || file.write_all(bytes))
    }

    /// Syncs the data to disk without closing.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        self.storage.guarded("sync", &self.path, || self.file.sync_all())?;
        if let Some(faults) = &self.storage.faults {
            let length = self.file.metadata().map_or(0, |metadata| metadata.len());
            faults.data_synced(&self.path, length);
        }
        Ok(())
    }

    /// Syncs the data to disk and closes the file. A file that is not finished counts as lost.
    pub fn finish(mut self) -> Result<(), StorageError> {
        self.sync()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Errors carry the file's name and the advice of a [`StorageError`].
impl Write for StoredFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = &mut self.file;
        self.storage
            .guarded("write", &self.path, || file.write(bytes))
            .map_err(|error| io::Error::new(error.source.kind(), error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether hard links are what a file system cannot make (or a file has too many).
fn lacks_links(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
    matches!(error.kind(), CrossesDevices | PermissionDenied | TooManyLinks | Unsupported)
}

fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    path.with_file_name(format!(".{name}.partial"))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => above,
        _ => Path::new("."),
    }
}

#[cfg(unix)]
fn symbolic_link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symbolic_link(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_dir(target, link)
}

/// The dying disk of the tests: counts operations and knows what was not synced.
struct Faults {
    fail_at: u64,
    count: AtomicU64,
    pending: Mutex<Vec<Pending>>,
}

/// A change that a power cut would undo.
enum Pending {
    /// The file's data beyond `synced` bytes.
    Data { path: PathBuf, synced: u64 },
    /// The name itself: its folder was not synced since it was created.
    Entry { path: PathBuf },
    /// A rename whose folder was not synced.
    Rename { from: PathBuf, to: PathBuf, previous: Previous },
}

/// What stood under a name before a rename replaced it.
enum Previous {
    Nothing,
    File(Vec<u8>),
    Link(PathBuf),
}

impl Previous {
    fn of(path: &Path) -> io::Result<Previous> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => Ok(Previous::Link(fs::read_link(path)?)),
            Ok(metadata) if metadata.is_file() => Ok(Previous::File(fs::read(path)?)),
            _ => Ok(Previous::Nothing),
        }
    }
}

impl Pending {
    fn path(&self) -> &Path {
        match self {
            Pending::Data { path, .. } | Pending::Entry { path } => path,
            Pending::Rename { to, .. } => to,
        }
    }

    fn path_mut(&mut self) -> &mut PathBuf {
        match self {
            Pending::Data { path, .. } | Pending::Entry { path } => path,
            Pending::Rename { to, .. } => to,
        }
    }
}

impl Faults {
    fn pending(&self) -> std::sync::MutexGuard<'_, Vec<Pending>> {
        self.pending.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn allow(&self) -> io::Result<()> {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        if number >= self.fail_at {
            return Err(io::Error::other(format!("injected fault at operation {number}")));
        }
        Ok(())
    }

    fn renamed(&self, from: &Path, to: &Path, previous: Previous) {
        let mut pending = self.pending();
        move_below(&mut pending, from, to);
        pending.push(Pending::Rename { from: from.to_path_buf(), to: to.to_path_buf(), previous });
    }

    fn data_synced(&self, path: &Path, length: u64) {
        for pending in self.pending().iter_mut() {
            if let Pending::Data { path: its_path, synced } = pending
                && its_path == path
            {
                *synced = length;
            }
        }
    }

    fn folder_synced(&self, folder: &Path) {
        self.pending().retain(|pending| match pending {
            Pending::Entry { path } => parent(path) != folder,
            Pending::Rename { to, .. } => parent(to) != folder,
            Pending::Data { .. } => true,
        });
    }

    fn discard(&self) -> io::Result<()> {
        let mut pending = self.pending();
        while let Some(change) = pending.pop() {
            match change {
                Pending::Data { path, synced } => {
                    if let Ok(metadata) = fs::symlink_metadata(&path)
                        && metadata.is_file()
                        && metadata.len() > synced
                    {
                        OpenOptions::new().write(true).open(&path)?.set_len(synced)?;
                    }
                }
                Pending::Entry { path } => match fs::symlink_metadata(&path) {
                    Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&path)?,
                    Ok(_) => fs::remove_file(&path)?,
                    Err(_) => {}
                },
                Pending::Rename { from, to, previous } => {
                    if fs::symlink_metadata(&to).is_ok() {
                        fs::rename(&to, &from)?;
                    }
                    move_below(&mut pending, &to, &from);
                    match previous {
                        Previous::Nothing => {}
                        Previous::File(bytes) => fs::write(&to, bytes)?,
                        Previous::Link(target) => symbolic_link(&target, &to)?,
                    }
                }
            }
        }
        Ok(())
    }
}

/// Renames the paths of pending changes that stand at or below `from`.
fn move_below(pending: &mut [Pending], from: &Path, to: &Path) {
    for change in pending.iter_mut() {
        let path = change.path_mut();
        if let Ok(rest) = path.strip_prefix(from) {
            *path = if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn replacing_is_all_or_nothing_at_every_operation() {
        for operation in 0.. {
            let folder = folder();
            let path = folder.path().join("file");
            fs::write(&path, "old").unwrap();
            let storage = Storage::failing_at(operation);
            let result = storage.replace(&path, b"new bytes");
            storage.discard_unsynced().unwrap();
            let found = fs::read_to_string(&path).unwrap();
            if result.is_ok() {
                assert_eq!(found, "new bytes");
                assert!(operation >= 5, "fewer operations than expected");
                return;
            }
            assert!(found == "old" || found == "new bytes", "operation {operation} left {found:?}");
        }
    }

    #[test]
    fn what_was_not_synced_is_thrown_away() {
        let folder = folder();
        let storage = Storage::failing_at(u64::MAX);
        let kept = folder.path().join("kept");
        storage.write(&kept, b"whole").unwrap();
        storage.sync_folder(folder.path()).unwrap();
        let lost = folder.path().join("lost");
        storage.create(&lost).unwrap().write_bytes(b"half").unwrap();
        storage.discard_unsynced().unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"whole");
        assert!(!lost.exists());
    }

    #[test]
    fn an_unsynced_rename_of_a_folder_comes_back_with_its_unsynced_files_gone() {
        let folder = folder();
        let storage = Storage::failing_at(u64::MAX);
        let (work, named) = (folder.path().join("work"), folder.path().join("named"));
        storage.create_folder(&work).unwrap();
        storage.create(&work.join("a")).unwrap().write_bytes(b"never synced").unwrap();
        storage.rename(&work, &named).unwrap();
        storage.discard_unsynced().unwrap();
        assert_eq!(
            fs::read(named.join("a")).unwrap_or_default(),
            b"",
            "unsynced data survived under the final name"
        );
    }

    #[test]
    fn links_are_swapped_whole() {
        let folder = folder();
        let storage = Storage::disk();
        let link = folder.path().join("link");
        storage.point(&link, Path::new("one")).unwrap();
        storage.point(&link, Path::new("two")).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("two"));
    }

    #[test]
    fn an_error_names_the_path_and_what_to_do() {
        let folder = folder();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Storage::disk().create_folder(&file.join("below")).unwrap_err().to_string();
        assert!(error.contains("file") && error.contains("--output"), "{error}");
    }
}
