//! Checking that a folder is what its manifest, sums and record say: `eulalia verify`.
//!
//! Every problem is named; nothing is repaired. The checks lean on each other: `SHA256SUMS` covers every file, the
//! manifest names the digest of the payload and the record's last line, the record repeats the payload's digest, and a
//! release's own segment lists the segments of its ancestors. Whoever rewrites one must rewrite all, and then the
//! artefact's digest is another: compare it with the one that was published (`--expect`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::Error;
use crate::artefact::{Artefact, MANIFEST_FILE, SUMS_FILE, digest_of, read_sums};
use crate::context::{Progress, Silent};
use crate::digest::{Digest, join, sha256_file_watched};
use crate::record::{self, RECORD_FILE, Segment};

/// What a verification found.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// The digest computed from the files, where the manifest could be read.
    pub digest: Option<Digest>,
    pub files: usize,
    pub bytes: u64,
    pub record_lines: usize,
    /// The names of the artefacts whose record is included, in order.
    pub segments: Vec<String>,
    /// What does not fit; empty if all is well.
    pub problems: Vec<String>,
}

/// Checks the artefact in `folder` (a link to the folder itself is followed, links inside are refused).
///
/// # Errors
/// Only when the folder cannot be looked at; what does not fit is in [`Verification::problems`].
pub fn verify(folder: &Path) -> Result<Verification, Error> {
    verify_watched(folder, &Silent)
}

/// The same, with progress for a person: a large release takes a while to read.
pub fn verify_watched(folder: &Path, progress: &dyn Progress) -> Result<Verification, Error> {
    let mut result = Verification {
        digest: None,
        files: 0,
        bytes: 0,
        record_lines: 0,
        segments: Vec::new(),
        problems: Vec::new(),
    };
    if !folder.is_dir() {
        let problem = if folder.exists() { "is not a folder" } else { "does not exist" };
        return Err(Error::malformed(
            folder,
            format!("{problem}; expected the folder of an artefact or a release"),
        ));
    }
    if folder.join(".artefacts").is_dir() {
        let release = folder.join("release");
        return Err(Error::malformed(
            folder,
            format!("is the folder of a run; verify one of its artefacts, such as {}", release.display()),
        ));
    }
    let mut present = BTreeMap::new();
    progress.begin("verifying", Some(bytes_below(folder)), "bytes");
    let digested = digest_all(folder, "", &mut present, &mut result, progress);
    progress.end();
    digested?;
    result.files = present.len();

    match read_sums(&folder.join(SUMS_FILE)) {
        Err(error) => result.problems.push(error.to_string()),
        Ok(sums) => compare(&sums, &present, &mut result.problems),
    }
    let manifest = match Artefact::open(folder) {
        Err(error) => {
            result.problems.push(error.to_string());
            return Ok(result);
        }
        Ok(artefact) => artefact.manifest,
    };
    let digest = digest_of(&present, &manifest.content.outside_digest);
    result.digest = Some(digest);
    if digest != manifest.digest {
        result
            .problems
            .push(format!("{MANIFEST_FILE}: names the digest {}, the files have {digest}", manifest.digest));
    }
    let record_path = folder.join(RECORD_FILE);
    match record::read(&record_path) {
        Err(error) => result.problems.push(error.to_string()),
        Ok(segments) => {
            result.record_lines = segments.iter().map(|segment| segment.lines().len()).sum();
            result.segments = segments.iter().map(|segment| segment.name().to_string()).collect();
            if result.record_lines != manifest.record.lines {
                result.problems.push(format!(
                    "{RECORD_FILE}: the manifest counts {} lines, here are {}",
                    manifest.record.lines, result.record_lines
                ));
            }
            check_record(&segments, &manifest.record.last, &manifest.digest, &mut result.problems);
        }
    }
    Ok(result)
}

/// The record's end, its claim about the payload, and the list of ancestors in a release's own segment.
fn check_record(segments: &[Segment], last: &Digest, digest: &Digest, problems: &mut Vec<String>) {
    let Some((own, ancestors)) = segments.split_last() else {
        problems.push(format!("{RECORD_FILE}: is empty"));
        return;
    };
    if own.last() != *last {
        problems.push(format!(
            "{RECORD_FILE}: the last line has the digest {}, the manifest names {last}; a line was dropped, added or \
             altered at the end",
            own.last()
        ));
    }
    let claimed = own.event("finished").and_then(|line| line.fields.get("artefact")).and_then(Value::as_str);
    if claimed != Some(digest.to_string().as_str()) {
        problems.push(format!("{RECORD_FILE}: its closing line does not name the digest {digest}"));
    }
    let listed: Vec<(String, u64, String)> = own
        .lines()
        .first()
        .and_then(|line| line.fields.get("segments"))
        .and_then(Value::as_array)
        .map(|segments| segments.iter().map(listed_segment).collect())
        .unwrap_or_default();
    let found: Vec<(String, u64, String)> = ancestors
        .iter()
        .map(|segment| (segment.name().to_string(), segment.lines().len() as u64, segment.last().to_string()))
        .collect();
    if listed != found {
        problems.push(format!(
            "{RECORD_FILE}: the release was made from {} segments, these {} do not match them",
            listed.len(),
            found.len()
        ));
    }
}

fn listed_segment(value: &Value) -> (String, u64, String) {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or("").to_string();
    (text("name"), value.get("lines").and_then(Value::as_u64).unwrap_or(0), text("last"))
}

fn compare(sums: &BTreeMap<String, Digest>, present: &BTreeMap<String, Digest>, problems: &mut Vec<String>) {
    for (path, expected) in sums {
        match present.get(path) {
            None => problems.push(format!("{path}: is missing")),
            Some(found) if found != expected => {
                problems.push(format!("{path}: was changed (expected {expected}, found {found})"));
            }
            Some(_) => {}
        }
    }
    for path in present.keys() {
        if path != SUMS_FILE && !sums.contains_key(path) {
            problems.push(format!("{path}: was added; {SUMS_FILE} does not know it"));
        }
    }
}

fn digest_all(
    folder: &Path,
    prefix: &str,
    present: &mut BTreeMap<String, Digest>,
    result: &mut Verification,
    progress: &dyn Progress,
) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(Error::read(folder))? {
        let entry = entry.map_err(Error::read(folder))?;
        let relative = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().map_err(Error::read(&entry.path()))?;
        if kind.is_dir() {
            digest_all(&entry.path(), &format!("{relative}/"), present, result, progress)?;
        } else if kind.is_file() {
            let path = join(folder, &entry.file_name().to_string_lossy());
            match sha256_file_watched(&path, |bytes| progress.advance(bytes)) {
                Ok(digest) => {
                    result.bytes += path.metadata().map_or(0, |metadata| metadata.len());
                    present.insert(relative, digest);
                }
                Err(error) => result.problems.push(format!("{relative}: cannot be read: {error}")),
            }
        } else {
            result.problems.push(format!(
                "{relative}: is a symbolic link or special file; an artefact holds regular files only"
            ));
        }
    }
    Ok(())
}

/// Bytes of all regular files below a folder, as far as they can be seen.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        })
        .sum()
}
