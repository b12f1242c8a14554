//! Checkpoints: the whole state of a run in one file, written aside, synced and renamed, its SHA-256 at the end.
//!
//! Some are kept. A last one that is damaged (a disk that lied, a hand that edited) is said so and passed over for the one
//! before; what cannot be resumed starts anew. One more can be kept under a name of its own, whatever comes after it.
//!
//! A checkpoint can be written beside the training, from a copy of the state: one at a time, and whoever asks for the next
//! waits for the one before.

use crate::Error;
use crate::state::State;
use crate::trainer::MomentStorage;
use compute::device::Moments;
use compute::{Buffer, Device};
use provenance::digest::{Sha256Reader, Sha256Writer};
use provenance::{Context, Digest, Storage};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// The checkpoints of one run in its scratch folder.
pub struct Checkpoints<'a> {
    folder: PathBuf,
    /// What the state depends on besides the step: settings and data. Another run's checkpoint is not resumed.
    fingerprint: Digest,
    retained: usize,
    /// Where states live.
    device: Device,
    context: &'a Context,
    /// The checkpoint that is being written beside the training.
    writing: Mutex<Option<JoinHandle<Result<(), Error>>>>,
}

/// A checkpoint's content: the state, and what the run itself wants to remember beside it.
pub(crate) type Content = (State, Vec<u8>);

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    fingerprint: Digest,
    step: u64,
    parameters: usize,
    /// How the moments are stored while the run lasts; bf16 fits into the f32 of the file without loss.
    moments: MomentStorage,
    /// Whether an average of the parameters follows the moments.
    average: bool,
    losses: usize,
    /// Bytes of the notes.
    notes: usize,
}

const FORMAT: u32 = 4;
const MAGIC: &[u8; 8] = b"EULALIA\x01";
/// How many are kept where nobody says otherwise.
const RETAINED: usize = 2;
/// A header is a few short fields.
const LONGEST_HEADER: usize = 1 << 16;

impl<'a> Checkpoints<'a> {
    /// The checkpoints in `folder` of a run on `device`.
    pub fn new(folder: &Path, fingerprint: Digest, device: &Device, context: &'a Context) -> Checkpoints<'a> {
        let device = device.clone();
        let (folder, writing) = (folder.to_path_buf(), Mutex::default());
        Checkpoints { folder, fingerprint, retained: RETAINED, device, context, writing }
    }

    /// The same, with another number of checkpoints that are kept (at least one).
    pub fn retaining(mut self, retained: usize) -> Checkpoints<'a> {
        self.retained = retained.max(1);
        self
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
        for path in list(&self.folder)?.into_iter().rev() {
            // A file that cannot be opened may well be good: passing over it would throw progress away.
            let file = File::open(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
            match self.read(file) {
                Ok(content) => return Ok(Some(content)),
                Err(problem) => self.warn(&path, &problem),
            }
        }
        Ok(None)
    }

    /// The state that was kept under this name, where there is one that can be read.
    pub(crate) fn named(&self, name: &str) -> Option<State> {
        let path = self.named_path(name);
        let file = File::open(&path).ok()?;
        self.read(file).inspect_err(|problem| self.warn(&path, problem)).ok().map(|(state, _)| state)
    }

    fn warn(&self, path: &Path, problem: &str) {
        self.context.progress.warn(&format!("checkpoint {} is passed over: {problem}", path.display()));
    }

    fn named_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.bin"))
    }

    /// The path of the newest checkpoint, for messages.
    pub fn newest_path(&self) -> Option<PathBuf> {
        list(&self.folder).ok()?.pop()
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
        self.wait()?;
        write_numbered(&self.context.storage, &self.folder, self.retained, &self.content(state, notes))
    }

    /// [`Checkpoints::write_with_notes`] from a copy of the state, while the training goes on.
    ///
    /// # Errors
    /// Those of the checkpoint before this one, which is waited for; this one's come from [`Checkpoints::settle`].
    pub(crate) fn write_beside(&self, state: &State, notes: &[u8]) -> Result<(), Error> {
        self.wait()?;
        let content = self.content(state, notes).into_owned();
        let (storage, folder, retained) = (self.context.storage.clone(), self.folder.clone(), self.retained);
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || write_numbered(&storage, &folder, retained, &content))
            .map_err(|source| Error::Write { path: self.folder.clone(), source })?;
        *self.writing() = Some(thread);
        Ok(())
    }

    /// What became of the checkpoint beside the training, if it is done.
    ///
    /// # Errors
    /// When the disk refused it; the checkpoints before it stay.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        if self.writing().as_ref().is_some_and(JoinHandle::is_finished) { self.wait() } else { Ok(()) }
    }

    /// Waits for the checkpoint beside the training.
    ///
    /// # Errors
    /// When the disk refused it; the checkpoints before it stay.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        let thread = self.writing().take();
        match thread.map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }

    fn writing(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<Result<(), Error>>>> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a state under a name of its own, which no later checkpoint removes.
    pub(crate) fn write_named(&self, name: &str, state: &State) -> Result<(), Error> {
        self.content(state, &[]).write(&self.context.storage, &self.named_path(name))
    }

    fn content<'s>(&self, state: &'s State, notes: &'s [u8]) -> Written<'s> {
        let lend = |values: &'s Buffer| self.device.lend(values.at(..));
        let mut vectors =
            vec![lend(&state.parameters), state.first.lend(&self.device), state.second.lend(&self.device)];
        vectors.extend(state.average.as_ref().map(lend));
        Written {
            header: Header {
                format: FORMAT,
                fingerprint: self.fingerprint,
                step: state.step,
                parameters: state.parameters.len(),
                moments: MomentStorage::of(&state.first),
                average: state.average.is_some(),
                losses: state.losses.len(),
                notes: notes.len(),
            },
            vectors,
            losses: Cow::Borrowed(&state.losses),
            notes: Cow::Borrowed(notes),
        }
    }

    /// Reads piece by piece: a state is large, and memory holds it once.
    fn read(&self, file: File) -> Result<Content, String> {
        let text = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "it is too short".to_string(),
            _ => error.to_string(),
        };
        let whole = file.metadata().map_err(text)?.len();
        let mut reader = Sha256Reader::new(BufReader::with_capacity(1 << 18, file));
        let mut opening = [0; 16];
        reader.read_exact(&mut opening).map_err(text)?;
        let (magic, length) = opening.split_at(8);
        if magic != MAGIC {
            return Err("it is no checkpoint of this program".into());
        }
        let length = u64::from_le_bytes(length.try_into().expect("eight bytes"));
        if length > LONGEST_HEADER as u64 {
            return Err("its header is longer than any".into());
        }
        let mut header = vec![0; length as usize];
        reader.read_exact(&mut header).map_err(text)?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|error| format!("its header is malformed: {error}"))?;
        if header.format != FORMAT || header.fingerprint != self.fingerprint {
            return Err("it belongs to other settings or data".into());
        }
        if header.bytes().and_then(|bytes| bytes.checked_add(16 + length + 32)) != Some(whole) {
            return Err("its length does not fit its header".into());
        }
        let vector = |reader: &mut dyn Read| -> Result<Vec<f32>, String> {
            let mut values = vec![0.0f32; header.parameters];
            let mut bytes = [0; 1 << 14];
            for part in values.chunks_mut(bytes.len() / 4) {
                let bytes = &mut bytes[..part.len() * 4];
                reader.read_exact(bytes).map_err(text)?;
                for (value, bytes) in part.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *value = f32::from_le_bytes(*bytes);
                }
            }
            Ok(values)
        };
        let format = header.moments.format();
        let parameters = self.device.upload(vector(&mut reader)?);
        let first = Moments::upload(&self.device, vector(&mut reader)?, format);
        let second = Moments::upload(&self.device, vector(&mut reader)?, format);
        let average = if header.average { Some(self.device.upload(vector(&mut reader)?)) } else { None };
        let mut losses = vec![0; header.losses * 8];
        reader.read_exact(&mut losses).map_err(text)?;
        let mut notes = vec![0; header.notes];
        reader.read_exact(&mut notes).map_err(text)?;
        let found = reader.digest();
        let mut digest = [0; 32];
        reader.read_exact(&mut digest).map_err(text)?;
        if found.0 != digest {
            return Err("its digest does not fit its content; the file is damaged".into());
        }
        let losses = losses.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        Ok((State { step: header.step, parameters, first, second, average, losses }, notes))
    }
}

/// Nobody writes any more once the run is over, however it ended.
impl Drop for Checkpoints<'_> {
    fn drop(&mut self) {
        if let Some(thread) = self.writing().take() {
            // Whoever wanted to know how it went has waited for it.
            let _ = thread.join();
        }
    }
}

/// What a file is written from.
struct Written<'a> {
    header: Header,
    vectors: Vec<Cow<'a, [f32]>>,
    losses: Cow<'a, [f64]>,
    notes: Cow<'a, [u8]>,
}

impl Written<'_> {
    /// A copy that nothing changes any more.
    fn into_owned(self) -> Written<'static> {
        Written {
            header: self.header,
            vectors: self.vectors.into_iter().map(|values| Cow::Owned(values.into_owned())).collect(),
            losses: Cow::Owned(self.losses.into_owned()),
            notes: Cow::Owned(self.notes.into_owned()),
        }
    }

    /// Writes aside, syncs, renames.
    fn write(&self, storage: &Storage, path: &Path) -> Result<(), Error> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let aside = path.with_file_name(format!(".{name}.partial"));
        let failed = |source| Error::Write { path: aside.clone(), source };
        let mut writer = Sha256Writer::new(BufWriter::with_capacity(1 << 18, storage.create(&aside)?));
        let header = serde_json::to_vec(&self.header).expect("plain fields");
        writer.write_all(MAGIC).map_err(failed)?;
        writer.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
        writer.write_all(&header).map_err(failed)?;
        for values in &self.vectors {
            for part in values.chunks(1 << 14) {
                let bytes: Vec<u8> = part.iter().flat_map(|value| value.to_le_bytes()).collect();
                writer.write_all(&bytes).map_err(failed)?;
            }
        }
        for loss in self.losses.iter() {
            writer.write_all(&loss.to_le_bytes()).map_err(failed)?;
        }
        writer.write_all(&self.notes).map_err(failed)?;
        let (mut inner, digest, _) = writer.into_parts();
        inner.write_all(&digest.0).map_err(failed)?;
        let file = inner.into_inner().map_err(|error| failed(error.into_error()))?;
        file.finish()?;
        storage.rename(&aside, path)?;
        Ok(())
    }
}

/// Writes a checkpoint under its step's name and removes all but the newest ones.
fn write_numbered(storage: &Storage, folder: &Path, retained: usize, content: &Written) -> Result<(), Error> {
    content.write(storage, &folder.join(format!("checkpoint-{:010}.bin", content.header.step)))?;
    let mut old = list(folder)?;
    old.truncate(old.len().saturating_sub(retained));
    for path in old {
        storage.remove_file(&path)?;
    }
    Ok(())
}

/// Whole checkpoints, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = |source| Error::Read { path: folder.to_path_buf(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("checkpoint-") && name.ends_with(".bin") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

impl Header {
    /// Bytes between the header and the digest, where that is a number.
    fn bytes(&self) -> Option<u64> {
        let vectors = if self.average { 4 } else { 3 };
        let values = (self.parameters as u64).checked_mul(4 * vectors)?;
        let losses = (self.losses as u64).checked_mul(8)?;
        values.checked_add(losses)?.checked_add(self.notes as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use compute::device::MomentFormat;
    use provenance::digest::sha256;

    fn device() -> Device {
        Device::cpu(1).unwrap()
    }

    fn state(step: u64) -> State {
        let upload = |values: [f32; 3]| device().upload(values.to_vec());
        let format = if step == 10 { MomentFormat::Bf16 } else { MomentFormat::F32 };
        State {
            step,
            parameters: upload([1.0, 2.0, step as f32]),
            first: Moments::upload(&device(), vec![0.5; 3], format),
            second: Moments::upload(&device(), vec![0.25; 3], format),
            average: step.is_multiple_of(2).then(|| upload([0.75; 3])),
            losses: vec![4.0; step as usize],
        }
    }

    #[test]
    fn the_newest_comes_back_and_two_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::quiet(1);
        let checkpoints = Checkpoints::new(folder.path(), sha256(b"a"), &device(), &context);
        assert_eq!(checkpoints.newest().unwrap(), None);
        for step in [5, 10, 15] {
            checkpoints.write(&state(step)).unwrap();
        }
        assert_eq!(checkpoints.newest().unwrap(), Some(state(15)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(
            Checkpoints::new(folder.path(), sha256(b"b"), &device(), &context).newest().unwrap(),
            None,
            "another run's"
        );
    }

    #[test]
    fn a_damaged_one_gives_way_to_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::quiet(1);
        let checkpoints = Checkpoints::new(folder.path(), sha256(b"a"), &device(), &context);
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
        let checkpoints = Checkpoints::new(folder.path(), sha256(b"a"), &device(), &context).retaining(1);
        assert_eq!(checkpoints.named("before-decay"), None);
        checkpoints.write_named("before-decay", &state(1)).unwrap();
        for step in 2..6 {
            checkpoints.write(&state(step)).unwrap();
        }
        assert_eq!(list(folder.path()).unwrap().len(), 1);
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
            Checkpoints::new(folder.path(), sha256(b"a"), &device(), &good).write(&state(5)).unwrap();
            let mut dying = Context::quiet(1);
            dying.storage = Storage::failing_at(operation);
            let result = Checkpoints::new(folder.path(), sha256(b"a"), &device(), &dying).write(&state(10));
            dying.storage.discard_unsynced().unwrap();
            let found = Checkpoints::new(folder.path(), sha256(b"a"), &device(), &good).newest().unwrap();
            if result.is_ok() {
                assert_eq!(found, Some(state(10)));
                break;
            }
            failures += 1;
            assert!(found == Some(state(5)) || found == Some(state(10)), "operation {operation}: {found:?}");
        }
        assert!(failures >= 5);
    }

    #[test]
    fn what_is_written_beside_the_training_is_the_state_at_that_moment() {
        let folder = tempfile::tempdir().unwrap();
        let context = Context::quiet(1);
        let checkpoints = Checkpoints::new(folder.path(), sha256(b"a"), &device(), &context);
        let mut live = state(1);
        for step in 1..20 {
            live = state(step);
            checkpoints.write_beside(&live, b"notes").unwrap();
            // The training goes on at once.
            live = state(step + 1);
        }
        checkpoints.wait().unwrap();
        assert_eq!(checkpoints.newest_with_notes().unwrap(), Some((state(19), b"notes".to_vec())));
        assert_eq!(list(folder.path()).unwrap().len(), 2);
        drop(live);

        let mut dying = Context::quiet(1);
        dying.storage = Storage::failing_at(2);
        let checkpoints = Checkpoints::new(folder.path(), sha256(b"a"), &device(), &dying);
        checkpoints.write_beside(&state(30), &[]).unwrap();
        let began = std::time::Instant::now();
        while checkpoints.settle().is_ok() {
            assert!(began.elapsed() < std::time::Duration::from_secs(20), "the failure was never told");
        }
        checkpoints.wait().unwrap();
        assert_eq!(checkpoints.newest().unwrap(), Some(state(19)));
    }
}
