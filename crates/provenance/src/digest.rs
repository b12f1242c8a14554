//! SHA-256 digests of bytes, files and folders (FIPS 180-4).

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest "before the first": what the first line of a chain names as its predecessor.
    pub const ZERO: Digest = Digest([0; 32]);

    /// The first sixteen hexadecimal digits: enough to name a folder.
    pub fn short(&self) -> String {
        self.to_string()[..16].to_string()
    }
}

/// The digest of some bytes.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// A digest of `bytes` that only a holder of `key` can recompute (HMAC-SHA-256, RFC 2104): used where a text is dropped
/// for rights or personal data and must not be findable by guessing.
pub fn keyed_digest(key: &[u8], bytes: &[u8]) -> Digest {
    let mut block = [0u8; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&sha256(key).0);
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut inner = Sha256::new();
    inner.update(block.map(|byte| byte ^ 0x36));
    inner.update(bytes);
    let mut outer = Sha256::new();
    outer.update(block.map(|byte| byte ^ 0x5c));
    outer.update(inner.finalize());
    Digest(outer.finalize().into())
}

/// The digest of a file's bytes, read in blocks.
pub fn sha256_file(path: &Path) -> io::Result<Digest> {
    sha256_file_watched(path, |_| {})
}

/// The same; `read_bytes` is told how many bytes each block had.
pub fn sha256_file_watched(path: &Path, mut read_bytes: impl FnMut(u64)) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0u8; 1 << 17];
    loop {
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok(Digest(hasher.finalize().into()));
        }
        hasher.update(&block[..read]);
        read_bytes(read as u64);
    }
}

/// The digest of a set of files: SHA-256 over the lines `<digest>  <path>\n`, sorted by path.
pub fn sha256_of_set<'a>(files: impl IntoIterator<Item = (&'a str, Digest)>) -> Digest {
    let mut files: Vec<(&str, Digest)> = files.into_iter().collect();
    files.sort();
    let mut hasher = Sha256::new();
    for (path, digest) in files {
        hasher.update(format!("{digest}  {path}\n"));
    }
    Digest(hasher.finalize().into())
}

/// Every regular file below `folder` as a path relative to it with `/` between the parts, sorted. A symbolic link or a
/// special file is an error: an artefact must not lead elsewhere.
pub fn files_below(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    descend(folder, "", None, &mut found)?;
    found.sort();
    Ok(found)
}

/// The same for an input: links to files and folders are followed. A link that leads nowhere or to a folder above it, and
/// whatever is neither file nor folder, is an error that names it.
pub fn files_below_with_links(folder: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut above = vec![folder.canonicalize()?];
    descend(folder, "", Some(&mut above), &mut found)?;
    found.sort();
    Ok(found)
}

/// `above`, where links are followed, holds the resolved folders from the first down to this one.
fn descend(
    folder: &Path,
    prefix: &str,
    mut above: Option<&mut Vec<PathBuf>>,
    found: &mut Vec<String>,
) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| refused(format!("file name is not UTF-8: {name:?}")))?;
        let relative = format!("{prefix}{name}");
        let path = entry.path();
        let within = |source: io::Error| io::Error::new(source.kind(), format!("{relative}: {source}"));
        let kind = match &above {
            Some(_) => {
                std::fs::metadata(&path).map_err(|source| of_link(&path, &relative, source))?.file_type()
            }
            None => entry.file_type()?,
        };
        if kind.is_file() {
            found.push(relative);
        } else if kind.is_dir() {
            let Some(above) = above.as_deref_mut() else {
                descend(&path, &format!("{relative}/"), None, found)?;
                continue;
            };
            let resolved = path.canonicalize().map_err(within)?;
            if above.contains(&resolved) {
                return Err(refused(format!(
                    "{relative} is a symbolic link to a folder above it; remove it"
                )));
            }
            above.push(resolved);
            descend(&path, &format!("{relative}/"), Some(&mut *above), found)?;
            above.pop();
        } else if above.is_some() {
            return Err(refused(format!(
                "{relative} is a pipe, socket or device: expected files and folders"
            )));
        } else {
            return Err(refused(format!(
                "{relative} is a symbolic link or special file; only regular files are allowed here"
            )));
        }
    }
    Ok(())
}

fn refused(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// What is wrong with a path that could not be followed.
fn of_link(path: &Path, relative: &str, source: io::Error) -> io::Error {
    let problem = match (std::fs::read_link(path), source.kind()) {
        (Ok(target), io::ErrorKind::NotFound) => {
            format!(
                "{relative} is a symbolic link to {}, which does not exist; remove it or set it right",
                target.display()
            )
        }
        (Ok(_), _) if source.kind() != io::ErrorKind::PermissionDenied => {
            format!("{relative} is a symbolic link in a loop; remove it")
        }
        _ => format!("{relative}: {source}"),
    };
    io::Error::new(source.kind(), problem)
}

/// The path of `relative` (with `/` between its parts) below `folder`.
pub fn join(folder: &Path, relative: &str) -> PathBuf {
    relative.split('/').fold(folder.to_path_buf(), |path, part| path.join(part))
}

/// A reader that computes the digest of what has been read through it.
#[derive(Debug)]
pub struct Sha256Reader<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Sha256Reader<R> {
    pub fn new(inner: R) -> Self {
        Sha256Reader { inner, hasher: Sha256::new() }
    }

    /// The digest of what has been read so far.
    pub fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }
}

impl<R: Read> Read for Sha256Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// A writer that digests what passes through it.
pub struct Sha256Writer<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Sha256Writer<W> {
    pub fn new(inner: W) -> Self {
        Sha256Writer { inner, hasher: Sha256::new(), bytes: 0 }
    }

    /// The writer, the digest of what was written and its length in bytes.
    pub fn into_parts(self) -> (W, Digest, u64) {
        (self.inner, Digest(self.hasher.finalize().into()), self.bytes)
    }
}

impl<W: Write> Write for Sha256Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected 64 lower-case hexadecimal digits, found {text:?}");
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return Err(wrong());
        }
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(wrong()),
        };
        let mut digest = [0u8; 32];
        for (slot, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            *slot = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Digest(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_match_published_vectors() {
        // FIPS 180-4 examples and RFC 4231 test case 2.
        assert_eq!(
            sha256(b"abc").to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            keyed_digest(b"Jefe", b"what do ya want for nothing?").to_string(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_in_inputs_alone() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let (crawl, elsewhere) = (folder.path().join("crawl"), folder.path().join("elsewhere"));
        std::fs::create_dir_all(crawl.join("a")).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(crawl.join("a/one"), "1").unwrap();
        std::fs::write(elsewhere.join("two"), "2").unwrap();
        assert_eq!(files_below_with_links(&crawl).unwrap(), files_below(&crawl).unwrap());
        symlink(elsewhere.join("two"), crawl.join("linked")).unwrap();
        symlink(&elsewhere, crawl.join("a/folder")).unwrap();
        assert_eq!(files_below_with_links(&crawl).unwrap(), ["a/folder/two", "a/one", "linked"]);
        assert!(files_below(&crawl).unwrap_err().to_string().contains("symbolic link"));

        let check = |target: &Path, words: [&str; 2]| {
            let link = crawl.join("a/bad");
            symlink(target, &link).unwrap();
            let problem = files_below_with_links(&crawl).unwrap_err().to_string();
            assert!(words.iter().all(|word| problem.contains(word)), "{problem}");
            std::fs::remove_file(link).unwrap();
        };
        check(&folder.path().join("gone"), ["a/bad", "does not exist"]);
        check(&crawl, ["a/bad", "folder above"]);
        check(Path::new("bad"), ["a/bad", "loop"]);
        check(Path::new("/dev/null"), ["a/bad", "device"]);
    }

    #[test]
    fn only_lower_case_hexadecimal_is_a_digest() {
        let text = sha256(b"x").to_string();
        assert_eq!(text.parse::<Digest>().unwrap(), sha256(b"x"));
        assert!(text.to_uppercase().parse::<Digest>().is_err());
        assert!(text[1..].parse::<Digest>().is_err());
    }
}
