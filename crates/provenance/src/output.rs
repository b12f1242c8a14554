//! The folder of a run: finished artefacts, work in progress, one lock.
//!
//! ```text
//! OUTPUT/
//!   corpus -> .artefacts/corpus-0123456789abcdef     the current artefact of each stage, a relative link
//!   .artefacts/corpus-0123456789abcdef/              whole, never changed afterwards
//!   .work/corpus-0123456789abcdef/{payload,scratch}  unfinished; checkpoints
//!   .lock                                            held while a run writes here
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Error;
use crate::artefact::{
    self, Artefact, Content, FORMAT, MANIFEST_FILE, Manifest, RecordHead, SUMS_FILE, is_deterministic,
};
use crate::claims::Claims;
use crate::context::{Cancellation, Clock, Rank, StageOutput};
use crate::digest::{self, Digest, files_below, files_below_with_links, join, sha256, sha256_file};
use crate::record::{RECORD_FILE, Segment};
use crate::signature::SIGNATURE_FILE;
use crate::storage::Storage;

const ARTEFACTS: &str = ".artefacts";
const WORK: &str = ".work";
const LOCK: &str = ".lock";
const PAYLOAD: &str = "payload";
const DIGESTS: &str = "digests.json";

/// A run's folder, locked for this process until dropped.
pub struct OutputFolder {
    pub root: PathBuf,
    storage: Storage,
    clock: Clock,
    cache: DigestCache,
    _lock: File,
}

/// What a stage hands over when it is done.
pub struct Finished {
    pub content: Content,
    /// The segment so far; the closing line is added here.
    pub segment: Segment,
    /// Segments of the ancestors, for a release.
    pub ancestors: Vec<Segment>,
    pub circumstances: Value,
}

impl OutputFolder {
    /// Opens a run's folder, creating it if needed, and takes its lock.
    pub fn open(root: &Path, storage: &Storage, clock: &Clock) -> Result<OutputFolder, Error> {
        OutputFolder::lock(root, storage, clock, File::try_lock)
    }

    /// The same as one of several processes that work together; they share the lock.
    pub fn join(root: &Path, storage: &Storage, clock: &Clock) -> Result<OutputFolder, Error> {
        OutputFolder::lock(root, storage, clock, File::try_lock_shared)
    }

    fn lock(
        root: &Path,
        storage: &Storage,
        clock: &Clock,
        try_lock: fn(&File) -> Result<(), TryLockError>,
    ) -> Result<OutputFolder, Error> {
        storage.create_folder(root)?;
        let lock_path = root.join(LOCK);
        let mut lock =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&lock_path).map_err(
                |source| crate::StorageError { operation: "create", path: lock_path.clone(), source },
            )?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                let holder = if holder.trim().is_empty() { "unknown".into() } else { holder.trim().into() };
                return Err(Error::Locked { path: root.to_path_buf(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(Error::Read { path: lock_path, source }),
        }
        // Only a hint for the message above: nothing depends on it.
        let _ = lock.set_len(0);
        let _ = lock.rewind();
        let _ = write!(lock, "{}", std::process::id());
        storage.create_folder(&root.join(ARTEFACTS))?;
        storage.create_folder(&root.join(WORK))?;
        storage.sync_folder(root)?;
        let cache = DigestCache::open(&root.join(WORK).join(DIGESTS));
        Ok(OutputFolder {
            root: root.to_path_buf(),
            storage: storage.clone(),
            clock: clock.clone(),
            cache,
            _lock: lock,
        })
    }

    /// The finished artefact with this key, if it stands and its files are what its `SHA256SUMS` says. A damaged one is
    /// an `Err` with what is wrong; it is not used and not deleted.
    pub fn find(&mut self, name: &str, key: &Digest) -> Result<Option<Artefact>, Error> {
        let folder = self.artefact_folder(name, key);
        if !folder.exists() {
            return Ok(None);
        }
        let found = Artefact::open(&folder)?;
        if found.manifest.content.key != *key || found.manifest.content.name != name {
            return Err(Error::malformed(&folder.join(MANIFEST_FILE), "belongs to another artefact"));
        }
        let sums = found.sums()?;
        let present = files_below(&folder).map_err(Error::read(&folder))?;
        for path in &present {
            // A signature comes after the artefact and lists its files; whoever reads it checks it.
            if path != SUMS_FILE && path != SIGNATURE_FILE && !sums.contains_key(path) {
                return Err(Error::malformed(&join(&folder, path), "does not belong to this artefact"));
            }
        }
        for (path, expected) in &sums {
            let file = join(&folder, path);
            if self.cache.digest(&file).map_err(Error::read(&file))? != *expected {
                return Err(Error::malformed(&file, "was changed after the artefact was made"));
            }
        }
        Ok(Some(found))
    }

    /// Moves a damaged artefact out of the way, so that it is made again; returns where it is kept.
    pub fn set_aside(&mut self, name: &str, key: &Digest) -> Result<PathBuf, Error> {
        let folder = self.artefact_folder(name, key);
        for number in 1.. {
            let kept = self.root.join(WORK).join(format!("damaged-{name}-{}-{number}", key.short()));
            if !kept.exists() {
                self.storage.rename(&folder, &kept)?;
                return Ok(kept);
            }
        }
        unreachable!("some number is free")
    }

    /// The digest of an input: of a file its SHA-256, of a folder that of its sorted (path, SHA-256) list. Links
    /// are followed.
    pub fn digest_input(&mut self, path: &Path) -> Result<Digest, Error> {
        if path.is_file() {
            return self.cache.digest(path).map_err(Error::read(path));
        }
        let mut files = BTreeMap::new();
        for relative in files_below_with_links(path).map_err(Error::read(path))? {
            let file = join(path, &relative);
            files.insert(relative, self.cache.digest(&file).map_err(Error::read(&file))?);
        }
        Ok(digest::sha256_of_set(files.iter().map(|(path, digest)| (path.as_str(), *digest))))
    }

    /// Opens the working folder of an artefact: an empty payload, and the scratch of an earlier attempt if there is one.
    pub fn begin(&self, name: &str, key: &Digest) -> Result<StageOutput, Error> {
        let work = self.work_folder(name, key);
        let output = StageOutput { payload: work.join(PAYLOAD), scratch: work.join("scratch") };
        self.storage.remove_folder(&output.payload)?;
        self.storage.create_folder(&output.payload)?;
        self.storage.create_folder(&output.scratch)?;
        Ok(output)
    }

    /// Opens the working folder that several processes share: the scratch of all, and an empty payload of this one's own.
    pub fn begin_together(&self, name: &str, key: &Digest, rank: Rank) -> Result<StageOutput, Error> {
        let work = self.work_folder(name, key);
        let payload = work.join(format!("{PAYLOAD}-{}", rank.rank));
        let output = StageOutput { payload, scratch: work.join("scratch") };
        self.storage.remove_folder(&output.payload)?;
        self.storage.create_folder(&output.payload)?;
        self.storage.create_folder(&output.scratch)?;
        Ok(output)
    }

    /// Whether an artefact with this key stands, unchecked.
    pub fn is_made(&self, name: &str, key: &Digest) -> bool {
        self.artefact_folder(name, key).exists()
    }

    /// The artefact that another process made, if one did; what this one left of the working folder goes.
    pub fn find_together(&mut self, name: &str, key: &Digest) -> Result<Option<Artefact>, Error> {
        let found = self.find(name, key)?;
        if found.is_some() {
            self.remove_work(&self.work_folder(name, key))?;
        }
        Ok(found)
    }

    /// Completes an artefact that several processes made, all of which call this: one of them does it, the others wait
    /// for it. Whether this process was the one. Each comes with a payload of its own, so that one that only seemed dead
    /// takes nothing from the others; whose payload gets the name first is decided by the rename.
    pub fn finish_together(
        &mut self,
        output: &StageOutput,
        finished: Finished,
        rank: Rank,
        cancellation: &Cancellation,
    ) -> Result<(Artefact, bool), Error> {
        let folder = self.artefact_folder(&finished.content.name, &finished.content.key);
        let work = self.work_folder(&finished.content.name, &finished.content.key);
        match self.finish_when_nobody_does(&folder, &work, output, finished, rank, cancellation) {
            Ok(Some(artefact)) => Ok((artefact, true)),
            Ok(None) => self.made_by_another(&folder, &work),
            // Who finished has removed the working folder under this one's hands.
            Err(_) if folder.exists() => self.made_by_another(&folder, &work),
            Err(error) => Err(error),
        }
    }

    /// `None` if another process has finished it.
    fn finish_when_nobody_does(
        &mut self,
        folder: &Path,
        work: &Path,
        output: &StageOutput,
        finished: Finished,
        rank: Rank,
        cancellation: &Cancellation,
    ) -> Result<Option<Artefact>, Error> {
        if folder.exists() {
            return Ok(None);
        }
        let claims = Claims::open(&self.storage, &work.join("finishing"), rank.rank, rank.patience)?;
        while !folder.exists() {
            cancellation.check()?;
            if claims.take("finish")? {
                return self.finish(output, finished).map(Some);
            }
            std::thread::sleep(Duration::from_millis(200).min(rank.patience / 8));
        }
        Ok(None)
    }

    /// Removes a working folder, in which other processes may still put files, or which they remove too.
    fn remove_work(&self, work: &Path) -> Result<(), Error> {
        const TRIES: u32 = 50;
        for attempt in 1.. {
            match self.storage.remove_folder(work) {
                Ok(()) if !work.exists() => break,
                Err(error) if attempt == TRIES => return Err(error.into()),
                // `gc` will find what is left.
                Ok(()) if attempt == TRIES => break,
                Err(error) if error.source.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
                    return Err(error.into());
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Ok(())
    }

    /// A process that came late may have made the working folder again: it goes, and whoever is in it sees why.
    fn made_by_another(&self, folder: &Path, work: &Path) -> Result<(Artefact, bool), Error> {
        let artefact = Artefact::open(folder)?;
        self.remove_work(work)?;
        Ok((artefact, false))
    }

    /// Completes an artefact: digests, closing line of the record, manifest, sums; then gives the folder its name.
    pub fn finish(&mut self, output: &StageOutput, finished: Finished) -> Result<Artefact, Error> {
        let Finished { content, mut segment, ancestors, circumstances } = finished;
        let payload = &output.payload;
        let mut files = BTreeMap::new();
        let mut payload_bytes = 0u64;
        for relative in files_below(payload).map_err(Error::read(payload))? {
            let path = join(payload, &relative);
            let digest = sha256_file(&path).map_err(Error::read(&path))?;
            if is_deterministic(&relative, &content.outside_digest) {
                payload_bytes += path.metadata().map_err(Error::read(&path))?.len();
            }
            files.insert(relative, digest);
        }
        let artefact_digest = artefact::digest_of(&files, &content.outside_digest);
        segment.add(
            &self.clock.timestamp(),
            "finished",
            json!({
                "artefact": artefact_digest, "payload_bytes": payload_bytes,
                "counts": content.counts, "circumstances": circumstances,
            }),
        );
        let mut record = String::new();
        let mut lines = segment.lines().len();
        for ancestor in &ancestors {
            record.push_str(ancestor.text());
            lines += ancestor.lines().len();
        }
        record.push_str(segment.text());
        let manifest = Manifest {
            format: FORMAT,
            digest: artefact_digest,
            record: RecordHead { lines, last: segment.last() },
            circumstances,
            content,
        };
        let mut manifest_text = serde_json::to_string_pretty(&manifest)
            .map_err(|error| Error::malformed(&payload.join(MANIFEST_FILE), error.to_string()))?;
        manifest_text.push('\n');
        for (name, text) in [(RECORD_FILE, &record), (MANIFEST_FILE, &manifest_text)] {
            self.storage.write(&payload.join(name), text.as_bytes())?;
            files.insert(name.to_string(), sha256(text.as_bytes()));
        }
        self.storage.write(&payload.join(SUMS_FILE), artefact::render_sums(&files).as_bytes())?;
        self.sync_folders_below(payload)?;

        let folder = self.artefact_folder(&manifest.content.name, &manifest.content.key);
        self.storage.rename(payload, &folder)?;
        let finished = Artefact { folder, manifest };
        self.point(&finished)?;
        let work = self.work_folder(finished.name(), &finished.manifest.content.key);
        self.remove_work(&work)?;
        Ok(finished)
    }

    /// Lets `<name>` beside the artefacts point to this one.
    pub fn point(&self, artefact: &Artefact) -> Result<(), Error> {
        let link = self.root.join(artefact.name());
        let target = Path::new(ARTEFACTS).join(folder_name(artefact.name(), &artefact.manifest.content.key));
        if std::fs::read_link(&link).is_ok_and(|current| current == target) {
            return Ok(());
        }
        self.storage.point(&link, &target)?;
        Ok(())
    }

    /// What could be collected: finished artefacts and working folders whose (name, key) is not in `keep`; with sizes
    /// in bytes.
    pub fn garbage(&self, keep: &BTreeSet<(String, Digest)>) -> Result<Vec<(PathBuf, u64)>, Error> {
        let kept: BTreeSet<String> = keep.iter().map(|(name, key)| folder_name(name, key)).collect();
        let mut garbage = Vec::new();
        for place in [ARTEFACTS, WORK] {
            let folder = self.root.join(place);
            let entries = std::fs::read_dir(&folder).map_err(Error::read(&folder))?;
            for entry in entries {
                let entry = entry.map_err(Error::read(&folder))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.path().is_dir() && !kept.contains(&name) {
                    garbage.push((entry.path(), folder_bytes(&entry.path())));
                }
            }
        }
        garbage.sort();
        Ok(garbage)
    }

    /// The (name, key) of every artefact that a link of this folder points to.
    pub fn linked(&self) -> Result<BTreeSet<(String, Digest)>, Error> {
        let mut linked = BTreeSet::new();
        for entry in std::fs::read_dir(&self.root).map_err(Error::read(&self.root))? {
            let entry = entry.map_err(Error::read(&self.root))?;
            if entry.file_type().is_ok_and(|kind| kind.is_symlink())
                && let Ok(artefact) = Artefact::open(&entry.path())
            {
                linked.insert((artefact.name().to_string(), artefact.manifest.content.key));
            }
        }
        Ok(linked)
    }

    /// Removes one of the folders that [`OutputFolder::garbage`] named.
    pub fn collect(&self, folder: &Path) -> Result<(), Error> {
        // A name that is being deleted must not look whole: move it to the working area first.
        let doomed = self.root.join(WORK).join(".collected");
        self.storage.remove_folder(&doomed)?;
        self.storage.rename(folder, &doomed)?;
        self.storage.remove_folder(&doomed)?;
        Ok(())
    }

    /// Keeps the digests of unchanged files for the next run. Failing to is no failure of the run.
    pub fn save_digest_cache(&self) {
        self.cache.save(&self.storage);
    }

    /// Adds a line to the run's own log, which also keeps failed attempts.
    pub fn log(&self, event: &Value) -> Result<(), Error> {
        let mut file = self.storage.append(&self.root.join("run.jsonl"))?;
        file.write_bytes(format!("{event}\n").as_bytes())?;
        file.finish()?;
        Ok(())
    }

    fn artefact_folder(&self, name: &str, key: &Digest) -> PathBuf {
        self.root.join(ARTEFACTS).join(folder_name(name, key))
    }

    fn work_folder(&self, name: &str, key: &Digest) -> PathBuf {
        self.root.join(WORK).join(folder_name(name, key))
    }

    fn sync_folders_below(&self, folder: &Path) -> Result<(), Error> {
        for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
            let entry = entry.map_err(Error::read(folder))?;
            if entry.file_type().map_err(Error::read(folder))?.is_dir() {
                self.sync_folders_below(&entry.path())?;
            }
        }
        self.storage.sync_folder(folder)?;
        Ok(())
    }
}

fn folder_name(name: &str, key: &Digest) -> String {
    format!("{name}-{}", key.short())
}

fn folder_bytes(folder: &Path) -> u64 {
    files_below(folder)
        .unwrap_or_default()
        .iter()
        .filter_map(|relative| join(folder, relative).metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

/// Digests of files by (path, size, time, inode), so that unchanged inputs are not read again. Paths stand there as
/// digests: what a run keeps names no place of the machine it ran on.
struct DigestCache {
    path: PathBuf,
    known: BTreeMap<String, Known>,
    changed: bool,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    size: u64,
    modified_nanoseconds: i64,
    modified_seconds: i64,
    inode: u64,
    digest: Digest,
}

impl DigestCache {
    fn open(path: &Path) -> DigestCache {
        // An unreadable cache only costs time.
        let known = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        DigestCache { path: path.to_path_buf(), known: known.unwrap_or_default(), changed: false }
    }

    fn digest(&mut self, path: &Path) -> std::io::Result<Digest> {
        let absolute = path.canonicalize()?;
        let metadata = absolute.metadata()?;
        let name = sha256(absolute.as_os_str().as_encoded_bytes()).short();
        let matches = |known: &&Known| {
            known.size == metadata.size()
                && known.modified_seconds == metadata.mtime()
                && known.modified_nanoseconds == metadata.mtime_nsec()
                && known.inode == metadata.ino()
        };
        if let Some(known) = self.known.get(&name).filter(matches) {
            return Ok(known.digest);
        }
        let digest = sha256_file(&absolute)?;
        self.changed = true;
        self.known.insert(
            name,
            Known {
                size: metadata.size(),
                modified_seconds: metadata.mtime(),
                modified_nanoseconds: metadata.mtime_nsec(),
                inode: metadata.ino(),
                digest,
            },
        );
        Ok(digest)
    }

    fn save(&self, storage: &Storage) {
        if self.changed
            && let Ok(bytes) = serde_json::to_vec(&self.known)
        {
            let _ = storage.replace(&self.path, &bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(name: &str, key: Digest) -> Content {
        Content {
            name: name.into(),
            stage: "corpus".into(),
            stage_version: 1,
            key,
            inputs: BTreeMap::new(),
            settings: json!({}),
            counts: json!({"documents": 2}),
            outside_digest: Vec::new(),
        }
    }

    fn make(root: &Path, storage: &Storage) -> Result<Artefact, Error> {
        let clock = Clock::fixed(1);
        let mut folder = OutputFolder::open(root, storage, &clock)?;
        let key = sha256(b"key");
        if let Some(found) = folder.find("corpus", &key)? {
            folder.point(&found)?;
            return Ok(found);
        }
        let output = folder.begin("corpus", &key)?;
        storage.create_folder(&output.payload.join("train"))?;
        storage.write(&output.payload.join("train/mt.jsonl"), "ħobż".as_bytes())?;
        storage.create_folder(&output.payload.join("circumstances"))?;
        storage.write(&output.payload.join("circumstances/metrics.jsonl"), b"1.5 s")?;
        let mut segment = Segment::default();
        segment.add("t", "started", json!({"name": "corpus"}));
        let content = content("corpus", key);
        folder.finish(
            &output,
            Finished { content, segment, ancestors: Vec::new(), circumstances: json!({"threads": 2}) },
        )
    }

    #[test]
    fn an_artefact_stands_whole_or_not_at_all_whatever_operation_fails() {
        let whole = tempfile::tempdir().unwrap();
        let counting = Storage::failing_at(u64::MAX);
        let expected = make(&whole.path().join("run"), &counting).unwrap().digest();
        let operations = counting.operations();
        assert!(operations > 20, "only {operations} operations were counted");
        for operation in 0..operations {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("run");
            let dying = Storage::failing_at(operation);
            assert!(make(&root, &dying).is_err(), "operation {operation} did not fail");
            dying.discard_unsynced().unwrap();
            let made = make(&root, &Storage::disk())
                .unwrap_or_else(|error| panic!("after a fault at operation {operation}: {error}"));
            assert_eq!(made.digest(), expected);
            let problems = crate::verify::verify(&root.join("corpus")).unwrap().problems;
            assert!(problems.is_empty(), "after a fault at operation {operation}: {problems:?}");
        }
    }

    #[test]
    fn two_runs_exclude_each_other_and_a_dead_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::fixed(1);
        let first = OutputFolder::open(folder.path(), &Storage::disk(), &clock).unwrap();
        let second = OutputFolder::open(folder.path(), &Storage::disk(), &clock).err().unwrap();
        assert!(second.to_string().contains("in use"), "{second}");
        drop(first);
        assert!(OutputFolder::open(folder.path(), &Storage::disk(), &clock).is_ok());
    }

    #[test]
    fn a_changed_artefact_is_not_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let made = make(folder.path(), &Storage::disk()).unwrap();
        std::fs::write(made.path("train/mt.jsonl"), "ħobz!").unwrap();
        let error = make(folder.path(), &Storage::disk()).unwrap_err().to_string();
        assert!(error.contains("mt.jsonl") && error.contains("changed"), "{error}");
    }
}
