//! Checkpoints: the whole state of a run in one file, written aside, synced and renamed, its SHA-256 at the end.
//!
//! Some are kept. A last one that is damaged (a disk that lied, a hand that edited) is said so and passed over for the one
//! before; what cannot be resumed starts anew. One more can be kept under a name of its own, whatever comes after it.

use crate::Error;
use provenance::digest::Sha256Writer;
use provenance::{Context, Digest};
use serde::{Deserialize, Serialize};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Everything that the next step depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// What is trained.
    pub parameters: Vec<f32>,
    /// AdamW's first moments.
    pub first: Vec<f32>,
    /// AdamW's second moments.
    pub second: Vec<f32>,
    /// Loss of each step so far.
    pub losses: Vec<f64>,
}

impl State {
    /// The state before the first step.
    pub fn new(parameters: Vec<f32>) -> State {
        let zeros = vec![0.0; parameters.len()];
        State { step: 0, first: zeros.clone(), second: zeros, parameters, losses: Vec::new() }
    }
}

/// The checkpoints of one run in its scratch folder.
pub struct Checkpoints<'a> {
    folder: PathBuf,
    /// What the state depends on besides the step: settings and data. Another run's checkpoint is not resumed.
    fingerprint: Digest,
    retained: usize,
    context: &'a Context,
}

/// A checkpoint's content: the state, and what the run itself wants to remember beside it.
pub(crate) type Content = (State, Vec<u8>);

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    fingerprint: Digest,
    step: u64,
    parameters: usize,
    losses: usize,
    /// Bytes of the notes.
    notes: usize,
}

const FORMAT: u32 = 2;
const MAGIC: &[u8; 8] = b"EULALIA\x01";
/// How many are kept where nobody says otherwise.
const RETAINED: usize = 2;
/// A header is a few short fields.
const LONGEST_HEADER: usize = 1 << 16;

impl<'a> Checkpoints<'a> {
    /// The checkpoints in `folder`.
    pub fn new(folder: &Path, fingerprint: Digest, context: &'a Context) -> Checkpoints<'a> {
        Checkpoints { folder: folder.to_path_buf(), fingerprint, retained: RETAINED, context }
    }

    /// The same, with another number of checkpoints that are kept (at least one).
    pub fn retaining(self, retained: usize) -> Checkpoints<'a> {
        Checkpoints { retained: retained.max(1), ..self }
    }

    /// The newest state that can be resumed; says through `progress.warn` what it passes over.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn newest(&self) -> Result<Option<State>, Error> {
        Ok(self.newest_with_notes()?.map(|(state, _)| state))
    }

    /// [`Checkpoints::newest`] with the notes that were written beside the state.
    pub(crate) fn newest_with_notes(&self) -> Result<Option<Content>, Error> {
        for path in self.list()?.into_iter().rev() {
            match self.read(&path) {
                Ok(content) => return Ok(Some(content)),
                Err(problem) => self.warn(&path, &problem),
            }
        }
        Ok(None)
    }

    /// The state that was kept under this name, where there is one that can be read.
    pub(crate) fn named(&self, name: &str) -> Option<State> {
        let path = self.named_path(name);
        match self.read(&path) {
            Ok((state, _)) => Some(state),
            Err(problem) => {
                if path.exists() {
                    self.warn(&path, &problem);
                }
                None
            }
        }
    }

    fn warn(&self, path: &Path, problem: &str) {
        self.context.progress.warn(&format!("checkpoint {} is passed over: {problem}", path.display()));
    }

    fn named_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.bin"))
    }

    /// The path of the newest checkpoint, for messages.
    pub fn newest_path(&self) -> Option<PathBuf> {
        self.list().ok()?.pop()
    }

    /// Writes a state and removes all but the newest ones.
    ///
    /// # Errors
    /// When the disk refuses; the checkpoints before it stay.
    pub fn write(&self, state: &State) -> Result<(), Error> {
        self.write_with_notes(state, &[])
    }

    /// [`Checkpoints::write`] with notes beside the state.
    pub(crate) fn write_with_notes(&self, state: &State, notes: &[u8]) -> Result<(), Error> {
        self.write_file(&self.folder.join(format!("checkpoint-{:010}.bin", state.step)), state, notes)?;
        let mut old = self.list()?;
        old.truncate(old.len().saturating_sub(self.retained));
        for path in old {
            self.context.storage.remove_file(&path)?;
        }
        Ok(())
    }

    /// Keeps a state under a name of its own, which no later checkpoint removes.
    pub(crate) fn write_named(&self, name: &str, state: &State) -> Result<(), Error> {
        self.write_file(&self.named_path(name), state, &[])
    }

    /// Writes aside, syncs, renames.
    fn write_file(&self, path: &Path, state: &State, notes: &[u8]) -> Result<(), Error> {
        let storage = &self.context.storage;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(format!(".{name}.partial"));
        let failed = |source| Error::Write { path: aside.clone(), source };
        let mut writer = Sha256Writer::new(BufWriter::with_capacity(1 << 18, storage.create(&aside)?));
        let header = Header {
            format: FORMAT,
            fingerprint: self.fingerprint,
            step: state.step,
            parameters: state.parameters.len(),
            losses: state.losses.len(),
            notes: notes.len(),
        };
        let header = serde_json::to_vec(&header).expect("plain fields");
        writer.write_all(MAGIC).map_err(failed)?;
        writer.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
        writer.write_all(&header).map_err(failed)?;
        for values in [&state.parameters, &state.first, &state.second] {
            for part in values.chunks(1 << 14) {
                let bytes: Vec<u8> = part.iter().flat_map(|value| value.to_le_bytes()).collect();
                writer.write_all(&bytes).map_err(failed)?;
            }
        }
        for loss in &state.losses {
            writer.write_all(&loss.to_le_bytes()).map_err(failed)?;
        }
        writer.write_all(notes).map_err(failed)?;
        let (mut inner, digest, _) = writer.into_parts();
        inner.write_all(&digest.0).map_err(failed)?;
        let file = inner.into_inner().map_err(|error| failed(error.into_error()))?;
        file.finish()?;
        storage.rename(&aside, path)?;
        Ok(())
    }

    /// Whole checkpoints, oldest first.
    fn list(&self) -> Result<Vec<PathBuf>, Error> {
        let read = |source| Error::Read { path: self.folder.clone(), source };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("checkpoint-") && name.ends_with(".bin") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    fn read(&self, path: &Path) -> Result<Content, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let (content, digest) = bytes.split_last_chunk::<32>().ok_or("it is too short")?;
        if provenance::digest::sha256(content).0 != *digest {
            return Err("its digest does not fit its content; the file is damaged".into());
        }
        let rest = content.strip_prefix(MAGIC).ok_or("it is no checkpoint of this program")?;
        let (length, rest) = rest.split_first_chunk::<8>().ok_or("it is too short")?;
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > LONGEST_HEADER || length > rest.len() {
            return Err("its header is longer than the file".into());
        }
        let (header, rest) = rest.split_at(length);
        let header: Header =
            serde_json::from_slice(header).map_err(|error| format!("its header is malformed: {error}"))?;
        if header.format != FORMAT || header.fingerprint != self.fingerprint {
            return Err("it belongs to other settings or data".into());
        }
        let expected = header
            .parameters
            .checked_mul(12)
            .and_then(|bytes| bytes.checked_add(header.losses.checked_mul(8)?))
            .and_then(|bytes| bytes.checked_add(header.notes));
        if expected != Some(rest.len()) {
            return Err("its length does not fit its header".into());
        }
        let (values, rest) = rest.split_at(header.parameters * 12);
        let (losses, notes) = rest.split_at(header.losses * 8);
        let numbers: Vec<f32> =
            values.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let part =
            |index: usize| numbers[index * header.parameters..(index + 1) * header.parameters].to_vec();
        let state = State {
            step: header.step,
            parameters: part(0),
            first: part(1),
            second: part(2),
            losses: losses.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        };
        Ok((state, notes.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use provenance::digest::sha256;

    fn state(step: u64) -> State {
        State {
            step,
            parameters: vec![1.0, 2.0, step as f32],
            first: vec![0.5; 3],
            second: vec![0.25; 3],
            losses: vec![4.0; step as usize],
        }
    }

    #[test]
    fn the_newest_comes_back_and_two_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::quiet(1);
        let checkpoints = Checkpoints::new(folder.path(), sha256(b"a"), &context);
        assert_eq!(checkpoints.newest().unwrap(), None);
        for step in [5, 10, 15] {
            checkpoints.write(&state(step)).unwrap();
        }
        assert_eq!(checkpoints.newest().unwrap(), Some(state(15)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(
            Checkpoints::new(folder.path(), sha256(b"b"), &context).newest().unwrap(),
            None,
            "another run's"
        );
    }

    #[test]
    fn a_damaged_one_gives_way_to_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::quiet(1);
        let checkpoints = Checkpoints::new(folder.path(), sha256(b"a"), &context);
        checkpoints.write(&state(5)).unwrap();
        checkpoints.write_with_notes(&state(10), b"notes").unwrap();
        assert_eq!(checkpoints.newest_with_notes().unwrap(), Some((state(10), b"notes".to_vec())));
        let path = checkpoints.newest_path().unwrap();
        let whole = std::fs::read(&path).unwrap();
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 4;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(checkpoints.newest().unwrap(), Some(state(5)), "byte {byte}");
        }
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(checkpoints.newest().unwrap(), Some(state(5)), "{length} bytes");
        }
    }

    #[test]
    fn as_many_are_kept_as_wanted_and_a_named_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::quiet(1);
        let checkpoints = Checkpoints::new(folder.path(), sha256(b"a"), &context).retaining(1);
        assert_eq!(checkpoints.named("before-decay"), None);
        checkpoints.write_named("before-decay", &state(1)).unwrap();
        for step in 2..6 {
            checkpoints.write(&state(step)).unwrap();
        }
        assert_eq!(checkpoints.list().unwrap().len(), 1);
        assert_eq!(checkpoints.newest().unwrap(), Some(state(5)));
        assert_eq!(checkpoints.named("before-decay"), Some(state(1)));
        std::fs::write(folder.path().join("before-decay.bin"), b"").unwrap();
        assert_eq!(checkpoints.named("before-decay"), None);
    }

    /// Whatever fails while a checkpoint is written, the one before can be resumed.
    #[test]
    fn a_disk_that_fails_at_any_operation_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut failures = 0;
        for operation in 0.. {
            let good = Context::quiet(1);
            std::fs::remove_dir_all(folder.path()).unwrap();
            std::fs::create_dir(folder.path()).unwrap();
            Checkpoints::new(folder.path(), sha256(b"a"), &good).write(&state(5)).unwrap();
            let mut dying = Context::quiet(1);
            dying.storage = provenance::Storage::failing_at(operation);
            let result = Checkpoints::new(folder.path(), sha256(b"a"), &dying).write(&state(10));
            dying.storage.discard_unsynced().unwrap();
            let found = Checkpoints::new(folder.path(), sha256(b"a"), &good).newest().unwrap();
            if result.is_ok() {
                assert_eq!(found, Some(state(10)));
                break;
            }
            failures += 1;
            assert!(found == Some(state(5)) || found == Some(state(10)), "operation {operation}: {found:?}");
        }
        assert!(failures >= 5);
    }
}
