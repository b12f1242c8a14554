//! Checkpoints: the whole state of a run in one file, written aside, synced and renamed, its SHA-256 at the end.
//!
//! Two are kept. A last one that is damaged (a disk that lied, a hand that edited) is said so and passed over for the one
//! before; what cannot be resumed starts anew.

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
    context: &'a Context,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    fingerprint: Digest,
    step: u64,
    parameters: usize,
    losses: usize,
}

const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"EULALIA\x01";
const RETAINED: usize = 2;
/// A header is a few short fields.
const LONGEST_HEADER: usize = 1 << 16;

impl<'a> Checkpoints<'a> {
    /// The checkpoints in `folder`.
    pub fn new(folder: &Path, fingerprint: Digest, context: &'a Context) -> Checkpoints<'a> {
        Checkpoints { folder: folder.to_path_buf(), fingerprint, context }
    }

    /// The newest state that can be resumed; says through `progress.warn` what it passes over.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn newest(&self) -> Result<Option<State>, Error> {
        for path in self.list()?.into_iter().rev() {
            match self.read(&path) {
                Ok(state) => return Ok(Some(state)),
                Err(problem) => {
                    self.context
                        .progress
                        .warn(&format!("checkpoint {} is passed over: {problem}", path.display()));
                }
            }
        }
        Ok(None)
    }

    /// The path of the newest checkpoint, for messages.
    pub fn newest_path(&self) -> Option<PathBuf> {
        self.list().ok()?.pop()
    }

    /// Writes a state and removes all but the newest two.
    ///
    /// # Errors
    /// When the disk refuses; the checkpoints before it stay.
    pub fn write(&self, state: &State) -> Result<(), Error> {
        let storage = &self.context.storage;
        let path = self.folder.join(format!("checkpoint-{:010}.bin", state.step));
        let aside = self.folder.join(format!(".checkpoint-{:010}.partial", state.step));
        let failed = |source| Error::Write { path: aside.clone(), source };
        let mut writer = Sha256Writer::new(BufWriter::with_capacity(1 << 18, storage.create(&aside)?));
        let header = Header {
            format: FORMAT,
            fingerprint: self.fingerprint,
            step: state.step,
            parameters: state.parameters.len(),
            losses: state.losses.len(),
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
        let (mut inner, digest, _) = writer.into_parts();
        inner.write_all(&digest.0).map_err(failed)?;
        let file = inner.into_inner().map_err(|error| failed(error.into_error()))?;
        file.finish()?;
        storage.rename(&aside, &path)?;
        storage.sync_folder(&self.folder)?;
        let mut old = self.list()?;
        old.truncate(old.len().saturating_sub(RETAINED));
        for path in old {
            storage.remove_file(&path)?;
        }
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

    fn read(&self, path: &Path) -> Result<State, String> {
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
            .and_then(|bytes| bytes.checked_add(header.losses.checked_mul(8)?));
        if expected != Some(rest.len()) {
            return Err("its length does not fit its header".into());
        }
        let (values, losses) = rest.split_at(header.parameters * 12);
        let numbers: Vec<f32> =
            values.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let part =
            |index: usize| numbers[index * header.parameters..(index + 1) * header.parameters].to_vec();
        Ok(State {
            step: header.step,
            parameters: part(0),
            first: part(1),
            second: part(2),
            losses: losses.as_chunks::<8>().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        })
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
        checkpoints.write(&state(10)).unwrap();
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
}
