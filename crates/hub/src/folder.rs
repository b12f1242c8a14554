//! A model's folder on disk: where it came from, what is under way in it, and who works in it.
//!
//! `eulalia-source.json` says which repository and commit the files are and what their digests were. `.pull/` holds what
//! is not finished, each file under the digest that it will have: whatever lies there can be gone on with by any later
//! run, whichever name the file gets. It goes away when everything stands.

use std::fs::File;
use std::path::{Path, PathBuf};

use provenance::{Digest, Storage};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::listing::{Announced, check_path};

/// The file that says where a folder's files came from.
pub const SOURCE_FILE: &str = "eulalia-source.json";
const UNFINISHED: &str = ".pull";
const FORMAT: u32 = 1;
/// A list of more is no list of a model's files.
const LARGEST_SOURCE_BYTES: u64 = 64 << 20;

/// Where the files of a folder came from. Same files, same bytes: no time and no address of a mirror stand here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    format: u32,
    /// `ORG/REPOSITORY`.
    pub repository: String,
    /// 40 hexadecimal digits.
    pub commit: String,
    /// As its publisher named it.
    pub license: Option<String>,
    /// Where the text of a licence of their own stands.
    pub license_link: Option<String>,
    /// In the order of their paths.
    pub files: Vec<SourceFile>,
}

/// One file of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Relative, `/` between the parts.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}

impl Source {
    #[cfg(feature = "remote")]
    pub(crate) fn new(listing: &crate::Listing, files: Vec<SourceFile>) -> Source {
        Source {
            format: FORMAT,
            repository: listing.repository.clone(),
            commit: listing.commit.clone(),
            license: listing.license.clone(),
            license_link: listing.license_link.clone(),
            files,
        }
    }

    /// Where the files of `folder` came from, if it was pulled.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn of_folder(folder: &Path) -> Result<Option<Source>, Error> {
        let path = folder.join(SOURCE_FILE);
        match path.metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::Read { path, source: error }),
            Ok(metadata) if metadata.len() > LARGEST_SOURCE_BYTES => {
                return Err(unreadable(folder, "is too long"));
            }
            Ok(_) => {}
        }
        let text = std::fs::read(&path).map_err(Error::read(&path))?;
        Source::parse(&text).map(Some).map_err(|problem| unreadable(folder, &problem))
    }

    /// Reads what [`Source::to_json`] wrote.
    ///
    /// # Errors
    /// Says what is wrong; its paths stay inside a folder afterwards.
    pub fn parse(json: &[u8]) -> Result<Source, String> {
        let source: Source = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if source.format != FORMAT {
            return Err(format!("format is {}, expected {FORMAT}", source.format));
        }
        for file in &source.files {
            check_path(&file.path)?;
        }
        if !source.files.is_sorted_by(|one, two| one.path < two.path) {
            return Err("the files are not in the order of their names, or one is named twice".to_string());
        }
        Ok(source)
    }

    /// As it stands on disk.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

fn unreadable(folder: &Path, problem: &str) -> Error {
    Error::Folder {
        folder: folder.to_path_buf(),
        problem: format!("its {SOURCE_FILE} is not usable: {problem}"),
    }
}

/// A folder that this process alone fills.
pub(crate) struct Filling {
    pub path: PathBuf,
    /// What stood here; whoever unpacks a bundle puts its own list in the place.
    #[cfg_attr(not(feature = "remote"), expect(dead_code))]
    pub before: Option<Source>,
    _lock: File,
}

impl Filling {
    /// Takes a folder that is new, empty, or of the same repository.
    pub fn begin(path: &Path, repository: &str, storage: &Storage) -> Result<Filling, Error> {
        let folder = |problem: String| Error::Folder { folder: path.to_path_buf(), problem };
        if path.exists() && !path.is_dir() {
            return Err(folder("is a file".to_string()));
        }
        let before = Source::of_folder(path)?;
        if let Some(source) = before.as_ref().filter(|source| source.repository != repository) {
            return Err(folder(format!("holds {}, not {repository}", source.repository)));
        }
        let unfinished = path.join(UNFINISHED);
        if before.is_none() && !unfinished.is_dir() && path.is_dir() {
            let mut entries = std::fs::read_dir(path).map_err(Error::read(path))?;
            if entries.next().is_some() {
                return Err(folder("holds files that no pull put there".to_string()));
            }
        }
        storage.create_folder(&unfinished)?;
        // Nothing depends on this file; it only keeps two processes from writing into one.
        let lock_path = unfinished.join("lock");
        let lock =
            File::options().create(true).append(true).open(&lock_path).map_err(Error::read(&lock_path))?;
        if let Err(std::fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(Error::Busy { folder: path.to_path_buf() });
        }
        Ok(Filling { path: path.to_path_buf(), before, _lock: lock })
    }

    /// Where a file stands until all of it is there and checked.
    pub fn unfinished(&self, digest: &Announced) -> PathBuf {
        unfinished(&self.path, digest)
    }

    /// Gives a finished file its name.
    pub fn place(&self, from: &Path, relative: &str, storage: &Storage) -> Result<(), Error> {
        let to = provenance::digest::join(&self.path, relative);
        if let Some(above) = to.parent() {
            // A link in the place of a folder would lead the file elsewhere.
            for part in above.ancestors().take_while(|part| *part != self.path) {
                if part.is_symlink() {
                    return Err(Error::Folder {
                        folder: self.path.clone(),
                        problem: format!("{} is a symbolic link", part.display()),
                    });
                }
            }
            storage.create_folder(above)?;
        }
        Ok(storage.rename(from, &to)?)
    }

    /// Writes down where the files came from, and removes what was unfinished.
    pub fn finish(self, source: &Source, storage: &Storage) -> Result<(), Error> {
        storage.replace(&self.path.join(SOURCE_FILE), source.to_json().as_bytes())?;
        storage.remove_folder(&self.path.join(UNFINISHED))?;
        Ok(())
    }
}

/// Where a file with this digest is collected below `folder`.
pub(crate) fn unfinished(folder: &Path, digest: &Announced) -> PathBuf {
    folder.join(UNFINISHED).join(digest.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        let file =
            |path: &str| SourceFile { path: path.into(), bytes: 0, sha256: provenance::digest::sha256(b"") };
        Source {
            format: FORMAT,
            repository: "a/b".into(),
            commit: "c".into(),
            license: None,
            license_link: None,
            files: vec![file("a"), file("b/c")],
        }
    }

    #[test]
    fn a_source_is_written_and_read() {
        assert_eq!(Source::parse(source().to_json().as_bytes()).unwrap(), source());
        let mut hostile = source();
        hostile.files[1].path = "../c".into();
        assert!(Source::parse(hostile.to_json().as_bytes()).is_err());
        let mut twice = source();
        twice.files[1].path = "a".into();
        assert!(Source::parse(twice.to_json().as_bytes()).is_err());
    }

    #[test]
    fn folders_of_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::disk();
        let path = folder.path().join("model");
        Filling::begin(&path, "a/b", &storage).unwrap().finish(&source(), &storage).unwrap();
        assert!(!path.join(UNFINISHED).exists());
        let one = Filling::begin(&path, "a/b", &storage).unwrap();
        assert!(matches!(Filling::begin(&path, "a/b", &storage), Err(Error::Busy { .. })));
        drop(one);
        let error = Filling::begin(&path, "a/x", &storage).err().unwrap().to_string();
        assert!(error.contains("holds a/b, not a/x"), "{error}");
        let other = folder.path().join("other");
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("thesis.txt"), "…").unwrap();
        assert!(Filling::begin(&other, "a/b", &storage).is_err());
    }
}
