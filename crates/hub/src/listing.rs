//! The hub's list of a repository's files at one commit, checked before anything is done with it: names that lead out of a
//! folder, impossible sizes and missing digests are errors here, so that all that follows can trust them.

use std::collections::BTreeSet;
use std::fmt;

use provenance::Digest;
use serde::Deserialize;

use crate::Error;

/// No model has more files.
const MOST_FILES: usize = 100_000;
/// Longest path of a file, in bytes.
const LONGEST_PATH: usize = 512;
/// 64 TiB: more than any model.
const LARGEST_BYTES: u64 = 1 << 46;

/// The files of a repository at one commit, and what its publisher says about it.
#[derive(Clone, Debug)]
pub struct Listing {
    /// `ORG/REPOSITORY`.
    pub repository: String,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// In the order of their paths.
    pub files: Vec<RemoteFile>,
    /// The licence as its publisher names it, such as `apache-2.0`.
    pub license: Option<String>,
    /// Where the text of a licence of their own stands.
    pub license_link: Option<String>,
    /// Whether conditions have to be accepted on the hub's page first.
    pub gated: bool,
    /// Parameters of the weights, where the hub has counted them.
    pub parameters: Option<u64>,
}

/// A file that can be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Relative, `/` between the parts, checked to stay inside a folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// What its bytes have to be.
    pub digest: Announced,
}

/// What the hub says a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// SHA-256 of the bytes: large files (LFS).
    Sha256(Digest),
    /// Git's name of a blob: SHA-1 over `blob <length>\0` and the bytes; small files.
    GitBlob([u8; 20]),
}

impl fmt::Display for Announced {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Announced::Sha256(digest) => write!(f, "{digest}"),
            Announced::GitBlob(bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    gated: serde_json::Value,
    #[serde(default, rename = "cardData")]
    card: Option<Card>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
    #[serde(default)]
    safetensors: serde_json::Value,
}

/// Whoever writes a card may put anything there: only texts count.
#[derive(Deserialize)]
struct Card {
    #[serde(default)]
    license: serde_json::Value,
    #[serde(default)]
    license_name: serde_json::Value,
    #[serde(default)]
    license_link: serde_json::Value,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default, rename = "blobId")]
    blob: Option<String>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: String,
    size: u64,
}

impl Listing {
    /// Reads the hub's answer to `/api/models/ORG/REPOSITORY/revision/REVISION?blobs=true`.
    ///
    /// # Errors
    /// Names the entry that cannot be right.
    pub fn parse(repository: &str, json: &[u8]) -> Result<Listing, Error> {
        let wrong = |problem: String| Error::Listing { repository: repository.to_string(), problem };
        let answer: Answer = serde_json::from_slice(json)
            .map_err(|error| wrong(format!("not the JSON that a hub answers: {error}")))?;
        if !is_hexadecimal(&answer.sha, 40) {
            return Err(wrong("`sha` is no commit of 40 hexadecimal digits".to_string()));
        }
        if answer.siblings.len() > MOST_FILES {
            return Err(wrong(format!("{} files, expected at most {MOST_FILES}", answer.siblings.len())));
        }
        let mut files =
            answer.siblings.iter().map(remote_file).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        files.sort_by(|one, two| one.path.cmp(&two.path));
        check_together(&files).map_err(wrong)?;
        let text = |value: &serde_json::Value| value.as_str().map(one_line).filter(|text| !text.is_empty());
        let card = answer.card.as_ref();
        let tagged = answer.tags.iter().find_map(|tag| tag.strip_prefix("license:")).map(one_line);
        let license = match card.and_then(|card| text(&card.license)).or(tagged) {
            // A licence of their own has its name in another place.
            Some(license) if license == "other" => {
                card.and_then(|card| text(&card.license_name)).or(Some(license))
            }
            license => license,
        };
        Ok(Listing {
            repository: repository.to_string(),
            commit: answer.sha,
            files,
            license,
            license_link: card.and_then(|card| text(&card.license_link)),
            gated: !matches!(answer.gated, serde_json::Value::Null | serde_json::Value::Bool(false)),
            parameters: answer.safetensors["total"].as_u64(),
        })
    }
}

fn remote_file(sibling: &Sibling) -> Result<RemoteFile, String> {
    let path = &sibling.rfilename;
    check_path(path)?;
    let shown = one_line(path);
    let (bytes, digest) = match (&sibling.lfs, sibling.size, &sibling.blob) {
        (Some(lfs), size, _) => {
            if size.is_some_and(|size| size != lfs.size) {
                return Err(format!("{shown} has two sizes, {} and {}", lfs.size, size.unwrap_or_default()));
            }
            let digest = lfs.sha256.parse().map_err(|_| format!("{shown}: its sha256 is no SHA-256"))?;
            (lfs.size, Announced::Sha256(digest))
        }
        (None, Some(size), Some(blob)) => {
            let digest = git_digest(blob).ok_or_else(|| format!("{shown}: its blobId is no SHA-1"))?;
            (size, Announced::GitBlob(digest))
        }
        _ => return Err(format!("{shown} has no size or no digest, so that it could not be checked")),
    };
    if bytes > LARGEST_BYTES {
        return Err(format!("{shown} is said to have {bytes} bytes"));
    }
    Ok(RemoteFile { path: path.clone(), bytes, digest })
}

/// Whether a path stays inside the folder that it is put in, on every system.
///
/// # Errors
/// Shows the path and says what is wrong.
pub fn check_path(path: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("the file name `{}` {why}", one_line(path)));
    if path.is_empty() || path.len() > LONGEST_PATH {
        return refuse("is empty or too long");
    }
    if path.starts_with('/') {
        return refuse("is absolute");
    }
    if path.contains('\\') || path.contains(':') {
        return refuse("holds a backslash or a colon, which lead elsewhere on some systems");
    }
    if path.chars().any(char::is_control) {
        return refuse("holds control characters");
    }
    for part in path.split('/') {
        match part {
            "" => return refuse("has an empty part"),
            "." | ".." => return refuse("leads out of its folder"),
            // Also Windows, where dots and spaces at the end of a name are cut off.
            part if part.ends_with('.') || part.ends_with(' ') => {
                return refuse("ends with a dot or a space");
            }
            _ => {}
        }
    }
    Ok(())
}

/// No file twice, none that is a folder as well; the sum is a number.
fn check_together(files: &[RemoteFile]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let mut folders = BTreeSet::new();
    for file in files {
        // Some systems do not tell `A` from `a`.
        if !seen.insert(file.path.to_lowercase()) {
            return Err(format!("`{}` is listed twice", file.path));
        }
        let lower = file.path.to_lowercase();
        let mut above = lower.as_str();
        while let Some((folder, _)) = above.rsplit_once('/') {
            folders.insert(folder.to_string());
            above = folder;
        }
    }
    if let Some(both) = seen.intersection(&folders).next() {
        return Err(format!("`{both}` is a file and a folder"));
    }
    let sum = files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.bytes));
    match sum {
        Some(sum) if sum <= LARGEST_BYTES => Ok(()),
        _ => Err("the sizes add up to more than any model has".to_string()),
    }
}

fn git_digest(text: &str) -> Option<[u8; 20]> {
    if !is_hexadecimal(text, 40) {
        return None;
    }
    let mut digest = [0; 20];
    for (place, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(digest)
}

fn is_hexadecimal(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Foreign text as it may stand in a message: one line, nothing that moves the cursor, not endless.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(200)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if text.chars().count() > 200 {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn listing(siblings: &str) -> Result<Listing, Error> {
        let json = format!(
            r#"{{"sha": "{COMMIT}", "gated": "auto", "tags": ["license:apache-2.0"], "siblings": [{siblings}]}}"#
        );
        Listing::parse("a/b", json.as_bytes())
    }

    fn small(path: &str) -> String {
        format!(r#"{{"rfilename": {}, "size": 3, "blobId": "{COMMIT}"}}"#, serde_json::json!(path))
    }

    #[test]
    fn a_list_of_files_is_read() {
        let large = format!(
            r#"{{"rfilename": "model.safetensors", "size": 7, "blobId": "{COMMIT}", "lfs": {{"sha256": "{SHA256}", "size": 7, "pointerSize": 134}}}}"#
        );
        let listing = listing(&format!("{large}, {}", small("config.json"))).unwrap();
        assert_eq!(listing.commit, COMMIT);
        assert_eq!(listing.license.as_deref(), Some("apache-2.0"));
        assert!(listing.gated);
        assert_eq!(listing.files[0].path, "config.json");
        assert_eq!(listing.files[0].digest.to_string(), COMMIT);
        assert_eq!((listing.files[1].bytes, listing.files[1].digest.to_string().as_str()), (7, SHA256));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for path in [
            "../x",
            "/etc/passwd",
            "a/../../b",
            "a//b",
            "./a",
            "a\\..\\b",
            "C:x",
            "a\u{0}b",
            "a\nb",
            "",
            "x/..",
            "a.",
        ] {
            let error = listing(&small(path)).unwrap_err().to_string();
            assert!(error.contains("file name"), "{path:?}: {error}");
        }
    }

    #[test]
    fn odd_names_that_stay_inside_are_read() {
        for path in ["ü 100%#?&=.json", "μοντέλο/Ħ.json", "a b/c.json", ".gitattributes", "…"] {
            assert_eq!(listing(&small(path)).unwrap().files[0].path, path);
        }
    }

    #[test]
    fn lists_that_contradict_themselves_are_refused() {
        for siblings in [
            format!("{}, {}", small("a"), small("a")),
            format!("{}, {}", small("a"), small("A")),
            format!("{}, {}", small("a"), small("a/b")),
            r#"{"rfilename": "a"}"#.to_string(),
            format!(r#"{{"rfilename": "a", "size": 99999999999999999, "blobId": "{COMMIT}"}}"#),
            r#"{"rfilename": "a", "size": 3, "blobId": "xyz"}"#.to_string(),
            format!(r#"{{"rfilename": "a", "size": 3, "lfs": {{"sha256": "{SHA256}", "size": 4}}}}"#),
        ] {
            assert!(listing(&siblings).is_err(), "{siblings}");
        }
        assert!(Listing::parse("a/b", b"<html>").is_err());
        assert!(Listing::parse("a/b", br#"{"sha": "main"}"#).is_err());
    }
}
